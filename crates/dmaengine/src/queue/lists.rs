//! Operations over several pieces of owned memory: scatter-gather copies and the parities of RAID.

use std::ptr::NonNull;

use super::{Queue, Refused};
use crate::{
    Argument, Cookie, DmaSource, DmaTarget, Flags, Operation, Segment, SegmentMut, SubmitError,
};

/// The parities of RAID 6, each as long as every source: what [`Queue::pq`] writes and
/// [`Queue::pq_val`] checks. What is `None` is left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Syndromes<D> {
    /// The exclusive or of all sources; RAID 5 has nothing else.
    pub p: Option<D>,
    /// The sum of all sources, each multiplied by its coefficient.
    pub q: Option<D>,
}

/// Where lists are put together that an [`Operation`] borrows: used again and again, so that nothing
/// is allocated per operation. They are empty between two operations.
#[derive(Debug, Default)]
pub(crate) struct Lists {
    from: Vec<Segment>,
    to: Vec<SegmentMut>,
    sources: Vec<*const u8>,
}

// SAFETY: the pointers are used while the owner of the lists puts an operation together.
unsafe impl Send for Lists {}

impl Lists {
    /// Makes a scatter-gather copy of pieces, each a first byte and a length.
    pub(crate) fn copy_sg(
        &mut self,
        sources: impl Iterator<Item = (*const u8, usize)>,
        targets: impl Iterator<Item = (*mut u8, usize)>,
    ) -> Operation<'_> {
        self.from.clear();
        self.from.extend(sources.map(|(address, len)| Segment { address, len }));
        self.to.clear();
        self.to.extend(targets.map(|(address, len)| SegmentMut { address, len }));
        Operation::MemcpySg { sources: &self.from, targets: &self.to }
    }

    /// Collects sources that must all have the same length, and returns them with it: 0 if there are
    /// none.
    ///
    /// # Errors
    ///
    /// [`SubmitError::UnequalLengths`] names the one that differs from the first, or from which one of
    /// `others` differs: what the operation has beside sources, by its length.
    pub(crate) fn sources(
        &mut self,
        sources: impl Iterator<Item = (*const u8, usize)>,
        others: [(Argument, Option<usize>); 2],
    ) -> Result<(&[*const u8], usize), SubmitError> {
        self.sources.clear();
        let mut first = None;
        for (number, (address, len)) in sources.enumerate() {
            let first_len = *first.get_or_insert(len);
            if len != first_len {
                let argument = Argument::Source(number);
                return Err(SubmitError::UnequalLengths { argument, len, first_len });
            }
            self.sources.push(address);
        }
        if let Some(first_len) = first {
            for (argument, len) in others {
                if let Some(len) = len
                    && len != first_len
                {
                    return Err(SubmitError::UnequalLengths { argument, len, first_len });
                }
            }
        }
        Ok((&self.sources, first.unwrap_or_default()))
    }

    /// As [`sources`](Self::sources), with P as the last of the sources, if there is one.
    fn sources_and_p(
        &mut self,
        sources: impl Iterator<Item = (*const u8, usize)>,
        p: Option<(*const u8, usize)>,
    ) -> Result<(&[*const u8], usize), SubmitError> {
        let p_len = p.map(|(_, len)| len);
        let (_, len) = self.sources(sources, [(Argument::P, p_len), (Argument::Q, None)])?;
        self.sources.extend(p.map(|(first, _)| first));
        // Without other sources the length is P's.
        Ok((&self.sources, if self.sources.len() > 1 { len } else { p_len.unwrap_or(len) }))
    }
}

/// The first byte and the length of what a source owns.
fn read(source: &impl DmaSource) -> (*const u8, usize) {
    let bytes = source.as_ref();
    (bytes.as_ptr(), bytes.len())
}

/// The first byte and the length of what a target owns.
fn write(target: &mut impl DmaTarget) -> (*mut u8, usize) {
    let bytes = target.as_mut();
    (bytes.as_mut_ptr(), bytes.len())
}

impl<S: DmaSource, D: DmaTarget, T> Queue<Vec<S>, Vec<D>, T> {
    /// Submits a copy of all sources, one after the other, to all targets, one after the other. Both
    /// sides have the same length in all; their pieces need not match. The two lists come back with
    /// the result: who uses them again allocates nothing.
    ///
    /// ```
    /// use std::time::Duration;
    /// use dmaengine::{CpuDevice, DmaDevice, Flags, Queue};
    ///
    /// let mut queue = Queue::new(CpuDevice::new(1).request_channel(0)?);
    /// let sources = vec![b"scat".to_vec(), b"tered".to_vec()];
    /// let targets = vec![vec![0; 2], vec![0; 7]];
    /// queue.copy_sg(sources, targets, Flags::empty(), ()).map_err(|refused| refused.error)?;
    /// queue.wait(Duration::from_secs(5), |done| {
    ///     assert_eq!(done.target, [b"sc".to_vec(), b"attered".to_vec()]);
    /// })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Refused`] gives everything back and says why; nothing was submitted.
    ///
    /// # Panics
    ///
    /// As for [`submit`](Self::submit).
    pub fn copy_sg(
        &mut self,
        sources: Vec<S>,
        mut targets: Vec<D>,
        flags: Flags,
        tag: T,
    ) -> Result<Cookie, Refused<Vec<S>, Vec<D>, T>> {
        // Out of the queue while the operation borrows them.
        let mut lists = std::mem::take(&mut self.lists);
        let copy = lists.copy_sg(sources.iter().map(read), targets.iter_mut().map(write));
        // SAFETY: as in `copy_with`, for each piece. Pieces of different owners do not overlap. A
        // list that moves leaves its elements where they are, and they may move as well.
        let submitted = unsafe { self.submit(&copy, flags, sources, targets, tag) };
        self.lists = lists;
        submitted
    }
}

impl<S: DmaSource, D: DmaTarget, T> Queue<Vec<S>, Syndromes<D>, T> {
    /// Submits the exclusive or of all sources, to be written to P: the parity of RAID 5. Q is kept
    /// and left alone.
    ///
    /// ```
    /// use std::time::Duration;
    /// use dmaengine::{CpuDevice, DmaDevice, Flags, Queue, Syndromes};
    ///
    /// let mut queue = Queue::new(CpuDevice::new(1).request_channel(0)?);
    /// let blocks = vec![vec![0b0011u8; 4096], vec![0b0101; 4096]];
    /// let parity = Syndromes { p: Some(vec![0u8; 4096]), q: None };
    /// queue.xor(blocks, parity, Flags::empty(), ()).map_err(|refused| refused.error)?;
    /// queue.wait(Duration::from_secs(5), |done| {
    ///     assert_eq!(done.target.p, Some(vec![0b0110; 4096]));
    /// })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Refused`] gives everything back and says why; nothing was submitted. It is
    /// [`SubmitError::NoTarget`] if P is `None`.
    ///
    /// # Panics
    ///
    /// As for [`submit`](Self::submit).
    pub fn xor(
        &mut self,
        sources: Vec<S>,
        syndromes: Syndromes<D>,
        flags: Flags,
        tag: T,
    ) -> Result<Cookie, Refused<Vec<S>, Syndromes<D>, T>> {
        self.submit_stripe(sources, &[], syndromes, flags, tag, |lists, sources, _, syndromes| {
            let (target, target_len) =
                syndromes.p.as_mut().map(write).ok_or(SubmitError::NoTarget)?;
            let others = [(Argument::P, Some(target_len)), (Argument::Q, None)];
            let (sources, len) = lists.sources(sources.iter().map(read), others)?;
            Ok(Operation::Xor { sources, target, len })
        })
    }

    /// Submits a check that the exclusive or of all sources, and of P if there is one, is zero. It
    /// ends with [`Status::MismatchP`](crate::Status::MismatchP) if not. Q is kept and left alone.
    ///
    /// # Errors
    ///
    /// [`Refused`] gives everything back and says why; nothing was submitted.
    ///
    /// # Panics
    ///
    /// As for [`submit`](Self::submit).
    pub fn xor_val(
        &mut self,
        sources: Vec<S>,
        syndromes: Syndromes<D>,
        flags: Flags,
        tag: T,
    ) -> Result<Cookie, Refused<Vec<S>, Syndromes<D>, T>> {
        self.submit_stripe(sources, &[], syndromes, flags, tag, |lists, sources, _, syndromes| {
            let p = syndromes.p.as_mut().map(write).map(|(p, len)| (p.cast_const(), len));
            let (sources, len) = lists.sources_and_p(sources.iter().map(read), p)?;
            Ok(Operation::XorVal { sources, len })
        })
    }

    /// Submits the syndromes of all sources, with one coefficient for each, to be written to P and
    /// Q: those of RAID 6.
    ///
    /// # Errors
    ///
    /// [`Refused`] gives everything back and says why; nothing was submitted.
    ///
    /// # Panics
    ///
    /// As for [`submit`](Self::submit).
    pub fn pq(
        &mut self,
        sources: Vec<S>,
        coefficients: &[u8],
        syndromes: Syndromes<D>,
        flags: Flags,
        tag: T,
    ) -> Result<Cookie, Refused<Vec<S>, Syndromes<D>, T>> {
        self.submit_stripe(
            sources,
            coefficients,
            syndromes,
            flags,
            tag,
            |lists, sources, coefficients, syndromes| {
                let (sources, p, q, len) = lists.stripe(sources, syndromes)?;
                Ok(Operation::Pq { sources, coefficients, p, q, len })
            },
        )
    }

    /// Submits a check that P and Q are what [`pq`](Self::pq) would write. It ends with
    /// [`Status::MismatchP`](crate::Status::MismatchP),
    /// [`MismatchQ`](crate::Status::MismatchQ) or [`MismatchPq`](crate::Status::MismatchPq) if not.
    ///
    /// # Errors
    ///
    /// [`Refused`] gives everything back and says why; nothing was submitted.
    ///
    /// # Panics
    ///
    /// As for [`submit`](Self::submit).
    pub fn pq_val(
        &mut self,
        sources: Vec<S>,
        coefficients: &[u8],
        syndromes: Syndromes<D>,
        flags: Flags,
        tag: T,
    ) -> Result<Cookie, Refused<Vec<S>, Syndromes<D>, T>> {
        self.submit_stripe(
            sources,
            coefficients,
            syndromes,
            flags,
            tag,
            |lists, sources, coefficients, syndromes| {
                let (sources, p, q, len) = lists.stripe(sources, syndromes)?;
                Ok(Operation::PqVal { sources, coefficients, p, q, len })
            },
        )
    }

    /// Submits what `make` makes of a stripe: an operation that reads all of the sources and reads or
    /// writes P and Q, no more.
    fn submit_stripe(
        &mut self,
        sources: Vec<S>,
        coefficients: &[u8],
        mut syndromes: Syndromes<D>,
        flags: Flags,
        tag: T,
        make: impl for<'l> FnOnce(
            &'l mut Lists,
            &[S],
            &'l [u8],
            &mut Syndromes<D>,
        ) -> Result<Operation<'l>, SubmitError>,
    ) -> Result<Cookie, Refused<Vec<S>, Syndromes<D>, T>> {
        let mut lists = std::mem::take(&mut self.lists);
        let submitted = match make(&mut lists, &sources, coefficients, &mut syndromes) {
            // SAFETY: as in `copy_sg`; all pieces have the operation's length.
            Ok(operation) => unsafe { self.submit(&operation, flags, sources, syndromes, tag) },
            Err(error) => Err(Refused { error, source: sources, target: syndromes, tag }),
        };
        self.lists = lists;
        submitted
    }
}

/// The sources, P, Q and the length of all of them.
type Stripe<'a> = (&'a [*const u8], Option<NonNull<u8>>, Option<NonNull<u8>>, usize);

impl Lists {
    fn stripe<S: DmaSource, D: DmaTarget>(
        &mut self,
        sources: &[S],
        syndromes: &mut Syndromes<D>,
    ) -> Result<Stripe<'_>, SubmitError> {
        let p = syndromes.p.as_mut().map(write);
        let q = syndromes.q.as_mut().map(write);
        let len = |syndrome: Option<(*mut u8, usize)>| syndrome.map(|(_, len)| len);
        let others = [(Argument::P, len(p)), (Argument::Q, len(q))];
        let (sources, len) = self.sources(sources.iter().map(read), others)?;
        let [p, q] = [p, q].map(|syndrome| syndrome.and_then(|(first, _)| NonNull::new(first)));
        Ok((sources, p, q, len))
    }
}
