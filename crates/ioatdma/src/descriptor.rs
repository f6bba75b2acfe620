//! Descriptors as the driver writes them: a line each.

pub(crate) mod raid;

use bitflags::bitflags;

use crate::{
    lines::{Line, Lines, Ordering, SIZE, WORDS},
    ring::{Index, Mismatch},
};

// Words. The first holds two of 32 bits: the size, and above it `ctl`.
const HEAD: usize = 0;
const SOURCE: usize = 1;
const TARGET: usize = 2;
const NEXT: usize = 3;

/// Operation codes, bits 31:24 of `ctl`.
const OP_FILL: u64 = 0x01 << 56;

bitflags! {
    /// Flags in `ctl`, where they are in the first word.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct Control: u64 {
        /// Interrupt when done.
        const INT_EN = 1 << 32;
        /// Write the completion word when done.
        const COMPL_WRITE = 1 << 35;
        /// End, with all that was written, before the next descriptor begins. (Descriptors end in
        /// order, so all before it have ended too.)
        const FENCE = 1 << 36;
        /// Move nothing. The size must still not be 0.
        const NULL = 1 << 37;
    }
}

/// What a descriptor asks for, in bus addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Null,
    Copy { source: u64, target: u64, len: u32 },
    Fill { pattern: u64, target: u64, len: u32 },
}

/// What a check of P and Q writes to the first 32 bits of its descriptor, if it is asked to and has
/// found something.
const RESULT_VALID: u64 = 1 << 31;
const RESULT_P: u64 = 1 << 25;
const RESULT_Q: u64 = 1 << 26;

/// The memory of a descriptor ring. A slot is written only while it is the driver's.
#[derive(Debug)]
pub(crate) struct Descriptors {
    lines: Lines,
}

impl Descriptors {
    /// Links `lines`, as many as the channel's [`Ring`](crate::ring::Ring) has slots, into a ring:
    /// `next` never changes.
    pub(crate) fn new(lines: Lines) -> Self {
        let ring = Self { lines };
        let count = ring.lines.count();
        for index in 0..count {
            let next = ring.address((index + 1) % count);
            // SAFETY: below the count.
            let line = unsafe { ring.lines.line(index) };
            // Relaxed: the doorbell orders it before the device's reads.
            line[NEXT].store(next, Ordering::Relaxed);
        }
        ring
    }

    fn slot(&self, index: Index) -> &Line {
        // SAFETY: an `Index` is below the size of the channel's ring, and there are as many lines.
        unsafe { self.lines.line(index.get()) }
    }

    /// The bus address of a slot.
    pub(crate) const fn address(&self, index: usize) -> u64 {
        self.lines.iova() + (index * SIZE) as u64
    }

    /// The slot at a bus address, if there is one.
    pub(crate) fn index(&self, address: u64) -> Option<usize> {
        let offset = usize::try_from(address.checked_sub(self.lines.iova())?).ok()?;
        let index = offset / SIZE;
        (index < self.lines.count() && offset.is_multiple_of(SIZE)).then_some(index)
    }

    /// Writes a slot.
    pub(crate) fn write(&self, index: Index, operation: Operation, control: Control) {
        let (code, len, second, target) = match operation {
            // Size 1 as Linux writes it: version 3.0 refuses size 0.
            Operation::Null => (Control::NULL.bits(), 1, 0, 0),
            Operation::Copy { source, target, len } => (0, len, source, target),
            Operation::Fill { pattern, target, len } => (OP_FILL, len, pattern, target),
        };
        let head = code | control.bits() | u64::from(len);
        let slot = self.slot(index);
        // Relaxed, all three: the doorbell orders them before the device's reads.
        slot[HEAD].store(head, Ordering::Relaxed);
        slot[SOURCE].store(second, Ordering::Relaxed);
        slot[TARGET].store(target, Ordering::Relaxed);
    }

    /// Sets flags at a slot that was written and not yet issued.
    pub(crate) fn add(&self, index: Index, control: Control) {
        let head = &self.slot(index)[HEAD];
        // Relaxed: as in `write`. Nobody else writes it.
        head.store(head.load(Ordering::Relaxed) | control.bits(), Ordering::Relaxed);
    }

    /// Writes the words of a slot, but the address of the next one.
    pub(crate) fn write_words(&self, index: Index, words: &[u64; WORDS]) {
        let slot = self.slot(index);
        for (position, (place, word)) in slot.iter().zip(words).enumerate() {
            if position != NEXT {
                // Relaxed: as in `write`.
                place.store(*word, Ordering::Relaxed);
            }
        }
    }

    /// Sets which slot follows, or that none does.
    pub(crate) fn link(&self, index: Index, next: Option<Index>) {
        let next = next.map_or(0, |next| self.address(next.get()));
        // Relaxed: as in `write`; where the device may look at the slot at the same time, the caller
        // sees to it that what follows stands first.
        self.slot(index)[NEXT].store(next, Ordering::Relaxed);
    }

    /// The first word of a slot.
    pub(crate) fn head(&self, index: Index) -> u64 {
        // Relaxed: if the device writes it, it does so before the completion word, which was loaded
        // with acquire, or CHANSTS, whose read waited for that.
        self.slot(index)[HEAD].load(Ordering::Relaxed)
    }

    /// Writes the size in a slot again.
    pub(crate) fn set_size(&self, index: Index, size: u32) {
        let control = self.head(index) >> 32 << 32;
        // Relaxed: as in `write`.
        self.slot(index)[HEAD].store(control | u64::from(size), Ordering::Relaxed);
    }
}

/// The result of a check that has ended, from the first word of its descriptor.
pub(crate) fn result(head: u64) -> Mismatch {
    let mut mismatch = Mismatch::empty();
    if head & RESULT_VALID != 0 {
        mismatch.set(Mismatch::P, head & RESULT_P != 0);
        mismatch.set(Mismatch::Q, head & RESULT_Q != 0);
    }
    mismatch
}
