//! What an engine can be asked to do, and the checks that every driver begins with.

use std::ptr::NonNull;

use crate::{Argument, Capabilities, ChannelInfo, SubmitError};

/// A piece of memory to be read, in process addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The first byte.
    pub address: *const u8,
    /// Length in bytes.
    pub len: usize,
}

/// A piece of memory to be written, in process addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentMut {
    /// The first byte.
    pub address: *mut u8,
    /// Length in bytes.
    pub len: usize,
}

/// One operation, in process addresses. The lists that it borrows are needed only while it is
/// submitted; the memory that they name belongs to the operation until it has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation<'a> {
    /// Copies `len` bytes.
    Memcpy {
        /// The first byte to read.
        source: *const u8,
        /// The first byte to write.
        target: *mut u8,
        /// Length in bytes.
        len: usize,
    },
    /// Copies all sources, one after the other, to all targets, one after the other. Both sides
    /// have the same length in all; their pieces need not match.
    MemcpySg {
        /// What to read, in order.
        sources: &'a [Segment],
        /// What to write, in order.
        targets: &'a [SegmentMut],
    },
    /// Fills memory with a pattern.
    Memset {
        /// Repeated from the first byte on, lowest byte first; the last repetition may be cut short.
        pattern: u64,
        /// The first byte to write.
        target: *mut u8,
        /// Length in bytes.
        len: usize,
    },
    /// Writes the exclusive or of all sources: the parity of RAID 5.
    Xor {
        /// What to read, `len` bytes each.
        sources: &'a [*const u8],
        /// The first byte to write.
        target: *mut u8,
        /// Length in bytes.
        len: usize,
    },
    /// Checks that the exclusive or of all sources is zero; ends with
    /// [`Status::MismatchP`](crate::Status::MismatchP) if not.
    XorVal {
        /// What to read, `len` bytes each.
        sources: &'a [*const u8],
        /// Length in bytes.
        len: usize,
    },
    /// Writes the exclusive or of all sources (P), and the sum of all sources, each multiplied by
    /// its coefficient in GF(256) with the polynomial 0x11d (Q): the syndromes of RAID 6.
    Pq {
        /// What to read, `len` bytes each.
        sources: &'a [*const u8],
        /// One for each source.
        coefficients: &'a [u8],
        /// The first byte of P to write; `None` leaves P out.
        p: Option<NonNull<u8>>,
        /// The first byte of Q to write; `None` leaves Q out.
        q: Option<NonNull<u8>>,
        /// Length in bytes.
        len: usize,
    },
    /// Checks that P and Q are what [`Pq`](Self::Pq) would write; ends with
    /// [`Status::MismatchP`](crate::Status::MismatchP), [`MismatchQ`](crate::Status::MismatchQ) or
    /// [`MismatchPq`](crate::Status::MismatchPq) if not.
    PqVal {
        /// What to read, `len` bytes each.
        sources: &'a [*const u8],
        /// One for each source.
        coefficients: &'a [u8],
        /// The first byte of P to read; `None` leaves P out.
        p: Option<NonNull<u8>>,
        /// The first byte of Q to read; `None` leaves Q out.
        q: Option<NonNull<u8>>,
        /// Length in bytes.
        len: usize,
    },
}

/// An [`Operation`] without its memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OperationKind {
    /// [`Operation::Memcpy`].
    Memcpy,
    /// [`Operation::MemcpySg`].
    MemcpySg,
    /// [`Operation::Memset`].
    Memset,
    /// [`Operation::Xor`].
    Xor,
    /// [`Operation::XorVal`].
    XorVal,
    /// [`Operation::Pq`].
    Pq,
    /// [`Operation::PqVal`].
    PqVal,
}

impl OperationKind {
    /// All of them, in the order of declaration.
    pub const ALL: [Self; 7] = [
        Self::Memcpy,
        Self::MemcpySg,
        Self::Memset,
        Self::Xor,
        Self::XorVal,
        Self::Pq,
        Self::PqVal,
    ];

    /// The name, as `dmatest --op` takes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Memcpy => "memcpy",
            Self::MemcpySg => "memcpy_sg",
            Self::Memset => "memset",
            Self::Xor => "xor",
            Self::XorVal => "xor_val",
            Self::Pq => "pq",
            Self::PqVal => "pq_val",
        }
    }

    /// What a channel must have to take it.
    #[must_use]
    pub const fn capability(self) -> Capabilities {
        match self {
            Self::Memcpy => Capabilities::MEMCPY,
            Self::MemcpySg => Capabilities::MEMCPY_SG,
            Self::Memset => Capabilities::MEMSET,
            Self::Xor => Capabilities::XOR,
            Self::XorVal => Capabilities::XOR_VAL,
            Self::Pq => Capabilities::PQ,
            Self::PqVal => Capabilities::PQ_VAL,
        }
    }
}

impl std::fmt::Display for OperationKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

bitflags::bitflags! {
    /// How an operation is done, beside what it does.
    ///
    /// There is no flag for an interrupt: no operation raises one by itself, a client asks for one
    /// event when it is about to wait ([`crate::DmaChannel::arm`]).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct Flags: u8 {
        /// The operation begins when all that were submitted before it have ended, as with DPDK's
        /// `RTE_DMA_OP_FLAG_FENCE`. If one of them failed, it is
        /// [`NotAttempted`](crate::Status::NotAttempted) or is done all the same. Needs
        /// [`Capabilities::FENCE`].
        const FENCE = 1 << 0;
        /// Its end may be reported as late as that of the last operation of its batch: an engine
        /// that can, saves a completion write. It is reported all the same.
        const NO_STATUS = 1 << 1;
        /// The target will be read by a CPU soon: write it to a cache (DPDK:
        /// `RTE_DMA_OP_FLAG_LLC`; DSA: cache control). A hint; without [`Capabilities::CACHE_HINT`]
        /// it changes nothing.
        const TO_CACHE = 1 << 2;
        /// No CPU will read the target soon: write it past the caches. A hint as
        /// [`TO_CACHE`](Self::TO_CACHE); with both, this one is ignored.
        const TO_MEMORY = 1 << 3;
    }
}

impl Operation<'_> {
    /// Which one it is.
    #[inline]
    #[must_use]
    pub const fn kind(&self) -> OperationKind {
        match self {
            Self::Memcpy { .. } => OperationKind::Memcpy,
            Self::MemcpySg { .. } => OperationKind::MemcpySg,
            Self::Memset { .. } => OperationKind::Memset,
            Self::Xor { .. } => OperationKind::Xor,
            Self::XorVal { .. } => OperationKind::XorVal,
            Self::Pq { .. } => OperationKind::Pq,
            Self::PqVal { .. } => OperationKind::PqVal,
        }
    }

    /// Its length in bytes: of a scatter-gather copy, what it moves in all; of an operation with
    /// several sources, that of each.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        match *self {
            Self::MemcpySg { sources, .. } => total(sources.iter().map(|piece| piece.len)),
            Self::Memcpy { len, .. }
            | Self::Memset { len, .. }
            | Self::Xor { len, .. }
            | Self::XorVal { len, .. }
            | Self::Pq { len, .. }
            | Self::PqVal { len, .. } => len,
        }
    }

    /// What an engine says of memory of this operation that it cannot reach, from `address` on, which
    /// is in one of the operation's arguments.
    #[cold]
    #[must_use]
    pub fn unreachable(&self, address: *const u8) -> SubmitError {
        let address = address.addr();
        let argument = self.arguments().find(|(_, first, len)| address.wrapping_sub(*first) < *len);
        let argument = argument.map_or(Argument::Length, |(argument, ..)| argument);
        SubmitError::Unreachable { argument, address }
    }

    /// The memory that it names: the argument, the first byte's address and the length in bytes.
    fn arguments(&self) -> impl Iterator<Item = (Argument, usize, usize)> {
        let len = self.len();
        let (from, to, sources): (&[Segment], &[SegmentMut], &[*const u8]) = match *self {
            Self::Memcpy { .. } | Self::Memset { .. } => (&[], &[], &[]),
            Self::MemcpySg { sources, targets } => (sources, targets, &[]),
            Self::Xor { sources, .. }
            | Self::XorVal { sources, .. }
            | Self::Pq { sources, .. }
            | Self::PqVal { sources, .. } => (&[], &[], sources),
        };
        let source = match *self {
            Self::Memcpy { source, .. } => Some(source),
            _ => None,
        };
        let target = match *self {
            Self::Memcpy { target, .. }
            | Self::Memset { target, .. }
            | Self::Xor { target, .. } => Some(target),
            _ => None,
        };
        let (p, q) = match *self {
            Self::Pq { p, q, .. } | Self::PqVal { p, q, .. } => (p, q),
            _ => (None, None),
        };
        let pieces = (from.iter().map(|piece| (piece.address.addr(), piece.len)))
            .enumerate()
            .map(|(number, (address, len))| (Argument::Source(number), address, len));
        let pieces = pieces
            .chain((to.iter().enumerate()).map(|(number, piece)| {
                (Argument::Target(number), piece.address.addr(), piece.len)
            }));
        let sources = source.into_iter().chain(sources.iter().copied()).enumerate();
        let whole = sources
            .map(|(number, source)| (Argument::Source(number), source.addr()))
            .chain(target.map(|target| (Argument::Target(0), target.addr())))
            .chain(p.map(|p| (Argument::P, p.as_ptr().addr())))
            .chain(q.map(|q| (Argument::Q, q.as_ptr().addr())));
        pieces.chain(whole.map(move |(argument, address)| (argument, address, len)))
    }

    /// Whether it moves nothing, which no channel takes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A sum of lengths that no address space holds stays too long for everything.
fn total(lengths: impl Iterator<Item = usize>) -> usize {
    lengths.fold(0, usize::saturating_add)
}

impl ChannelInfo {
    /// Whether a channel like this can take `operation` when its ring is empty, and the number of
    /// pieces of at most XFERCAP bytes that it consists of. Drivers begin their `submit` with it.
    ///
    /// How many descriptors of the ring that is:
    ///
    /// | operation | descriptors |
    /// | --- | --- |
    /// | copy, fill | one for each piece |
    /// | scatter-gather copy | at most one for each piece; an engine with descriptors of lists takes fewer |
    /// | of several sources, and checks | at most two for each piece, as many sources may need a second one, and one that tells of the end |
    ///
    /// A channel that has [so many free](crate::DmaChannel::space) does not refuse the operation with
    /// [`SubmitError::RingFull`].
    ///
    /// # Errors
    ///
    /// All of [`SubmitError`] but `RingFull`, `Unreachable` and `ChannelDown`, which depend on the
    /// channel's state.
    #[inline]
    pub fn check(&self, operation: &Operation<'_>, flags: Flags) -> Result<usize, SubmitError> {
        match *operation {
            Operation::Memcpy { source, target, len } => {
                self.check_memcpy(source, target, len, flags)
            }
            Operation::Memset { target, len, .. } => {
                self.check_kind(OperationKind::Memset, flags)?;
                self.check_alignment(target.addr() | len, || {
                    [(Argument::Target(0), target.addr()), (Argument::Length, len)]
                })?;
                self.check_len(len)
            }
            _ => {
                self.check_kind(operation.kind(), flags)?;
                self.check_lists(operation)
            }
        }
    }

    /// As [`check`](Self::check), for an [`Operation::Memcpy`].
    #[inline]
    pub(crate) fn check_memcpy(
        &self,
        source: *const u8,
        target: *mut u8,
        len: usize,
        flags: Flags,
    ) -> Result<usize, SubmitError> {
        self.check_kind(OperationKind::Memcpy, flags)?;
        let descriptors = self.check_len(len)?;
        let (from, to) = (source.addr(), target.addr());
        self.check_alignment(from | to | len, || {
            [(Argument::Source(0), from), (Argument::Target(0), to), (Argument::Length, len)]
        })?;
        if overlap((source, len), (target, len)) {
            let (target, other) = (Argument::Target(0), Argument::Source(0));
            return Err(SubmitError::Overlap { target, other });
        }
        Ok(descriptors)
    }

    #[inline]
    fn check_kind(&self, operation: OperationKind, flags: Flags) -> Result<(), SubmitError> {
        if !self.capabilities.contains(operation.capability()) {
            return Err(SubmitError::Unsupported { operation });
        }
        if flags.contains(Flags::FENCE) && !self.capabilities.contains(Capabilities::FENCE) {
            return Err(SubmitError::UnsupportedFence);
        }
        Ok(())
    }

    /// As [`check`](Self::check), for operations with lists.
    fn check_lists(&self, operation: &Operation<'_>) -> Result<usize, SubmitError> {
        match *operation {
            Operation::Memcpy { .. } | Operation::Memset { .. } => {
                unreachable!("they have no lists: `check` has dealt with them")
            }
            Operation::MemcpySg { sources, targets } => self.check_sg(sources, targets),
            Operation::Xor { sources, target, len } => {
                self.check_sources(sources, None, self.max_xor, len)?;
                self.check_targets(sources, &[(Argument::Target(0), target.cast_const())], len)
            }
            Operation::XorVal { sources, len } => {
                self.check_sources(sources, None, self.max_xor, len)?;
                self.check_len(len)
            }
            Operation::Pq { sources, coefficients, p, q, len } => {
                self.check_sources(sources, Some(coefficients), self.max_pq, len)?;
                let p = p.map(|p| (Argument::P, p.as_ptr().cast_const()));
                let q = q.map(|q| (Argument::Q, q.as_ptr().cast_const()));
                match (p, q) {
                    (None, None) => Err(SubmitError::NoTarget),
                    (Some(one), None) | (None, Some(one)) => {
                        self.check_targets(sources, &[one], len)
                    }
                    (Some(p), Some(q)) => self.check_targets(sources, &[p, q], len),
                }
            }
            Operation::PqVal { sources, coefficients, p, q, len } => {
                self.check_sources(sources, Some(coefficients), self.max_pq, len)?;
                if p.is_none() && q.is_none() {
                    return Err(SubmitError::NoTarget);
                }
                for (argument, syndrome) in [(Argument::P, p), (Argument::Q, q)] {
                    let place = syndrome.map_or(0, |syndrome| syndrome.addr().get());
                    self.check_alignment(place, || [(argument, place)])?;
                }
                self.check_len(len)
            }
        }
    }

    #[inline]
    fn check_len(&self, len: usize) -> Result<usize, SubmitError> {
        if len == 0 {
            return Err(SubmitError::ZeroLength);
        }
        let descriptors = self.descriptors(len);
        if descriptors > self.ring_size {
            let max = self.xfercap.get().saturating_mul(self.ring_size);
            return Err(SubmitError::TooLong { len, max });
        }
        Ok(descriptors)
    }

    /// Checks a bitwise or of addresses and lengths: its low bits are those of any of them. Only if
    /// one is wrong `each` has to tell them apart.
    #[inline]
    fn check_alignment<I: IntoIterator<Item = (Argument, usize)>>(
        &self,
        all: usize,
        each: impl FnOnce() -> I,
    ) -> Result<(), SubmitError> {
        let (alignment, rest) = (self.alignment.get(), self.alignment.get() - 1);
        if all & rest == 0 {
            return Ok(());
        }
        let wrong = each().into_iter().find(|(_, place)| place & rest != 0);
        let argument = wrong.map_or(Argument::Length, |(argument, _)| argument);
        Err(SubmitError::Misaligned { argument, alignment })
    }

    fn check_sg(&self, sources: &[Segment], targets: &[SegmentMut]) -> Result<usize, SubmitError> {
        let max = self.max_sg;
        for (list, segments) in
            [(Argument::Sources, sources.len()), (Argument::Targets, targets.len())]
        {
            if segments > max {
                return Err(SubmitError::TooManySegments { list, segments, max });
            }
        }
        let source_len = total(sources.iter().map(|piece| piece.len));
        let target_len = total(targets.iter().map(|piece| piece.len));
        if source_len != target_len {
            return Err(SubmitError::LengthMismatch { source_len, target_len });
        }
        // Before the pieces: of lists that are empty, or have nothing but empty pieces.
        self.check_len(source_len)?;
        let from = || sources.iter().map(|piece| (piece.address, piece.len));
        let to = || targets.iter().map(|piece| (piece.address.cast_const(), piece.len));
        if let Some(number) = from().position(|(_, len)| len == 0) {
            return Err(SubmitError::EmptyPiece { piece: Argument::Source(number) });
        }
        if let Some(number) = to().position(|(_, len)| len == 0) {
            return Err(SubmitError::EmptyPiece { piece: Argument::Target(number) });
        }
        for (number, target) in to().enumerate() {
            let source = from().position(|source| overlap(source, target)).map(Argument::Source);
            let earlier = || to().take(number).position(|earlier| overlap(earlier, target));
            if let Some(other) = source.or_else(|| earlier().map(Argument::Target)) {
                return Err(SubmitError::Overlap { target: Argument::Target(number), other });
            }
        }
        let all = from().chain(to()).fold(0, |all, (first, len)| all | first.addr() | len);
        self.check_alignment(all, || {
            let place = |(first, len): (*const u8, usize)| first.addr() | len;
            let sources = from().map(place).enumerate();
            let targets = to().map(place).enumerate();
            sources
                .map(|(number, place)| (Argument::Source(number), place))
                .chain(targets.map(|(number, place)| (Argument::Target(number), place)))
        })?;
        let descriptors = pieces(sources, targets, self.xfercap.get()).count();
        if descriptors > self.ring_size {
            return Err(SubmitError::TooManyDescriptors { descriptors, max: self.ring_size });
        }
        Ok(descriptors)
    }

    fn check_sources(
        &self,
        sources: &[*const u8],
        coefficients: Option<&[u8]>,
        max: usize,
        len: usize,
    ) -> Result<(), SubmitError> {
        let count = sources.len();
        if count == 0 || count > max {
            return Err(SubmitError::SourceCount { sources: count, max });
        }
        if let Some(coefficients) = coefficients
            && coefficients.len() != count
        {
            let coefficients = coefficients.len();
            return Err(SubmitError::CoefficientCount { sources: count, coefficients });
        }
        self.check_alignment(sources.iter().fold(len, |all, source| all | source.addr()), || {
            let sources = sources.iter().enumerate();
            sources
                .map(|(number, source)| (Argument::Source(number), source.addr()))
                .chain([(Argument::Length, len)])
        })
    }

    fn check_targets(
        &self,
        sources: &[*const u8],
        targets: &[(Argument, *const u8)],
        len: usize,
    ) -> Result<usize, SubmitError> {
        let descriptors = self.check_len(len)?;
        for (index, &(target, first)) in targets.iter().enumerate() {
            self.check_alignment(first.addr(), || [(target, first.addr())])?;
            let shares = |&other: &*const u8| overlap((other, len), (first, len));
            let source = sources.iter().position(shares).map(Argument::Source);
            let earlier = || targets[..index].iter().find(|(_, earlier)| shares(earlier));
            if let Some(other) = source.or_else(|| earlier().map(|&(argument, _)| argument)) {
                return Err(SubmitError::Overlap { target, other });
            }
        }
        Ok(descriptors)
    }
}

/// Whether two ranges, each a first byte and a length, share bytes.
#[inline]
fn overlap(a: (*const u8, usize), b: (*const u8, usize)) -> bool {
    let ((a, a_len), (b, b_len)) = ((a.0.addr(), a.1), (b.0.addr(), b.1));
    if a <= b { b - a < a_len } else { a - b < b_len }
}

/// The copies of at most `max` bytes of which a scatter-gather copy consists, in order: source,
/// target and length of each. It ends where the shorter side does.
pub fn pieces<'a>(
    sources: &'a [Segment],
    targets: &'a [SegmentMut],
    max: usize,
) -> impl Iterator<Item = (*const u8, *mut u8, usize)> + 'a {
    let (mut sources, mut targets) = (sources.iter(), targets.iter());
    let mut source = Segment { address: std::ptr::null(), len: 0 };
    let mut target = SegmentMut { address: std::ptr::null_mut(), len: 0 };
    std::iter::from_fn(move || {
        while source.len == 0 {
            source = *sources.next()?;
        }
        while target.len == 0 {
            target = *targets.next()?;
        }
        let len = max.min(source.len).min(target.len);
        let piece = (source.address, target.address, len);
        source = Segment { address: source.address.wrapping_add(len), len: source.len - len };
        target = SegmentMut { address: target.address.wrapping_add(len), len: target.len - len };
        Some(piece)
    })
}

#[cfg(test)]
mod tests;
