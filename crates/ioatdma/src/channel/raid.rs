//! Operations with several sources: exclusive or, P and Q, and the checks of them.
//!
//! Which descriptors there are for what:
//!
//! - P and Q have their own, of up to 8 sources, or of up to 16 where there are super extended ones.
//! - An exclusive or has its own, of up to 8 sources at addresses that are multiples of 64 bytes. Any
//!   other is a P without Q, where there is P and Q.
//! - The hardware's check of an exclusive or compares what its sources give with its target. So one of
//!   the operation's sources is the target, and the others must give it.
//!
//! None has less than two sources. One alone is given three times, which is the same sum.

use std::ptr::NonNull;

use dmaengine::{Cookie, Flags, Operation, SubmitError};

use super::IoatChannel;
use crate::{
    descriptor::{
        Control, Operation as Descriptor,
        raid::{MAX_SOURCES, MAX_SOURCES_16, Piece, Sources, Syndromes, Words, pq, xor},
    },
    device::Shared,
    error::StartError,
    lines::{Lines, Ordering, SIZE, WORDS},
    quirks::Quirks,
    registers::DmaCapability,
    ring::{Index, Slot},
};

/// What an exclusive or's addresses and length must be multiples of, in bytes.
const XOR_ALIGNMENT: u64 = 64;

/// The super extended descriptors of a channel: one for each slot of its ring.
#[derive(Debug)]
pub(crate) struct SuperExtended {
    lines: Lines,
}

impl SuperExtended {
    /// The size of one in lines.
    pub(crate) const LINES: usize = 2;

    pub(super) fn allocate(shared: &Shared, slots: usize) -> Result<Self, StartError> {
        Ok(Self { lines: Lines::allocate(shared, Self::LINES * slots)? })
    }

    /// The bus address of the one that belongs to a slot.
    fn address(&self, index: Index) -> u64 {
        self.lines.iova() + (Self::LINES * index.get() * SIZE) as u64
    }

    fn write(&self, index: Index, content: &[[u64; WORDS]; Self::LINES]) {
        for (offset, words) in content.iter().enumerate() {
            // SAFETY: an `Index` is below the number of slots, for each of which there are two.
            let line = unsafe { self.lines.line(Self::LINES * index.get() + offset) };
            for (place, word) in line.iter().zip(words) {
                // Relaxed: the doorbell orders it before the device's reads.
                place.store(*word, Ordering::Relaxed);
            }
        }
    }
}

/// What all pieces of an operation have in common, in bus addresses.
#[derive(Clone, Copy, Debug)]
struct Stripe {
    sources: Sources,
    form: Form,
    check: bool,
}

/// By which descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// With what is written to, or compared with.
    Xor {
        target: u64,
    },
    Pq(Syndromes),
    /// With a super extended descriptor.
    Pq16(Syndromes),
}

impl Stripe {
    /// Descriptors that a piece takes: itself, and its extension.
    const fn descriptors(&self) -> usize {
        let extended = match self.form {
            Form::Xor { .. } => self.sources.extend_xor(),
            Form::Pq(_) => self.sources.extend_pq(),
            Form::Pq16(_) => false,
        };
        if extended { 2 } else { 1 }
    }

    fn words(&self, piece: Piece, super_extended: Option<u64>) -> Words {
        match self.form {
            Form::Xor { target } => xor(&self.sources, target, piece),
            Form::Pq(syndromes) => pq(&self.sources, syndromes, None, piece),
            Form::Pq16(syndromes) => pq(&self.sources, syndromes, super_extended, piece),
        }
    }
}

impl IoatChannel {
    /// Submits an operation with several sources, which has been checked, and of which `pieces` have
    /// at most XFERCAP bytes.
    pub(super) fn submit_raid(
        &mut self,
        operation: &Operation<'_>,
        pieces: usize,
        flags: Flags,
    ) -> Result<Cookie, SubmitError> {
        let stripe = self.stripe(operation);
        let stripe = stripe.map_err(|Unmapped(address)| operation.unreachable(address))?;
        let unsupported = SubmitError::Unsupported { operation: operation.kind() };
        let stripe = stripe.ok_or(unsupported)?;
        // An empty descriptor tells of the end, where the operation's own might do so too early.
        let told_apart = self.shared.hardware.quirks.contains(Quirks::RAID_COMPLETIONS_PASS);
        let each = stripe.descriptors();
        let count = pieces * each + usize::from(told_apart);
        let place = self.place(count, flags)?;
        let (len, xfercap) = (operation.len(), self.info.xfercap.get());
        let mut position = place.first;
        let mut offset = 0;
        while offset < len {
            let piece_len = xfercap.min(len - offset);
            let last = offset + piece_len == len;
            let control = match (last, told_apart) {
                (true, false) => place.end,
                // The empty descriptor begins when all is written.
                (true, true) => Control::FENCE,
                (false, _) => Control::empty(),
            };
            // XFERCAP is at most 2^31.
            let piece = Piece {
                offset: offset as u64,
                len: piece_len as u32,
                control,
                check: stripe.check,
            };
            self.write_piece(&stripe, position, piece);
            position += each as u64;
            offset += piece_len;
        }
        if told_apart {
            let index = self.ring.index(position);
            self.descriptors.write(index, Descriptor::Null, place.end);
        }
        self.enter(place);
        let first = if stripe.check { Slot::CHECK } else { Slot::empty() };
        let slot = |at: usize| {
            if at == pieces * each {
                Slot::empty()
            } else if at.is_multiple_of(each) {
                first
            } else {
                Slot::EXTENSION
            }
        };
        for at in 0..count - 1 {
            self.ring.push_part(slot(at));
        }
        Ok(self.ring.push_last_as(slot(count - 1), len))
    }

    fn write_piece(&mut self, stripe: &Stripe, position: u64, piece: Piece) {
        let index = self.ring.index(position);
        let address = self.super_extended.as_ref().map(|pool| pool.address(index));
        let words = stripe.words(piece, address);
        self.descriptors.write_words(index, &words.base);
        if let Some(extension) = &words.extension {
            self.descriptors.write_words(self.ring.index(position + 1), extension);
        }
        if let (Some(content), Some(pool)) = (&words.super_extended, &*self.super_extended) {
            pool.write(index, content);
        }
        if let Some(size) = self.sizes.get_mut(index.get()) {
            *size = piece.len;
        }
    }

    /// Finds an operation's addresses on the bus, and the descriptors for it; `None` if it is not one
    /// of several sources.
    fn stripe(&self, operation: &Operation<'_>) -> Result<Option<Stripe>, Unmapped> {
        let no_coefficients = [0; MAX_SOURCES_16];
        let stripe = match *operation {
            Operation::Xor { sources, target, len } => {
                let sources = self.sources(sources, &no_coefficients, len)?;
                let target = self.bus_address(target, len)?;
                self.exclusive_or(sources, target, len, false)
            }
            Operation::XorVal { sources, len } => {
                // `check` has refused what has no source.
                let (&target, others) = sources.split_first().unwrap_or((&std::ptr::null(), &[]));
                let target = self.bus_address(target, len)?;
                let others = if others.is_empty() {
                    // Of two that are the same, which is 0.
                    let mut zero = Sources::new();
                    zero.push(target, 0);
                    zero.push(target, 0);
                    zero
                } else {
                    self.sources(others, &no_coefficients, len)?
                };
                self.exclusive_or(others, target, len, true)
            }
            Operation::Pq { sources, coefficients, p, q, len } => {
                self.p_and_q(sources, coefficients, (p, q), len, false)?
            }
            Operation::PqVal { sources, coefficients, p, q, len } => {
                self.p_and_q(sources, coefficients, (p, q), len, true)?
            }
            _ => return Ok(None),
        };
        Ok(Some(stripe))
    }

    /// An exclusive or by one of the two kinds of descriptors.
    fn exclusive_or(&self, mut sources: Sources, target: u64, len: usize, check: bool) -> Stripe {
        sources.pad();
        let hardware = &self.shared.hardware;
        let capability = hardware.capability;
        let aligned = (sources.bits() | target | len as u64).is_multiple_of(XOR_ALIGNMENT);
        // Of a check, only P and Q's tells its result without a halt.
        let quiet = check && hardware.writes_results();
        let own = aligned && !quiet && sources.count() <= MAX_SOURCES;
        let has_own = capability.contains(DmaCapability::XOR);
        if has_own && (own || !capability.contains(DmaCapability::PQ)) {
            return Stripe { sources, form: Form::Xor { target }, check };
        }
        self.parity(sources, (Some(target), None), check)
    }

    fn p_and_q(
        &self,
        sources: &[*const u8],
        coefficients: &[u8],
        (p, q): (Option<NonNull<u8>>, Option<NonNull<u8>>),
        len: usize,
        check: bool,
    ) -> Result<Stripe, Unmapped> {
        let mut sources = self.sources(sources, coefficients, len)?;
        sources.pad();
        let address =
            |syndrome: Option<NonNull<u8>>| syndrome.map(|at| self.bus_address(at.as_ptr(), len));
        Ok(self.parity(sources, (address(p).transpose()?, address(q).transpose()?), check))
    }

    fn parity(&self, sources: Sources, (p, q): (Option<u64>, Option<u64>), check: bool) -> Stripe {
        let syndromes = Syndromes { p, q, write_back: self.shared.hardware.writes_results() };
        let form =
            if sources.count() > MAX_SOURCES { Form::Pq16(syndromes) } else { Form::Pq(syndromes) };
        Stripe { sources, form, check }
    }

    fn sources(
        &self,
        sources: &[*const u8],
        coefficients: &[u8],
        len: usize,
    ) -> Result<Sources, Unmapped> {
        let mut found = Sources::new();
        for (&source, &coefficient) in sources.iter().zip(coefficients) {
            found.push(self.bus_address(source, len)?, coefficient);
        }
        Ok(found)
    }

    fn bus_address(&self, address: *const u8, len: usize) -> Result<u64, Unmapped> {
        self.shared.iova.translate(address, len).ok_or(Unmapped(address))
    }
}

/// Memory that was not mapped for the engine begins there.
#[derive(Clone, Copy, Debug)]
struct Unmapped(*const u8);
