//! Descriptors as the driver writes them: 64 bytes, aligned to 64.

use std::sync::atomic::{AtomicU64, Ordering};

use bitflags::bitflags;
use dmaengine::Coherent;

use crate::ring::Index;

/// Size and alignment in bytes.
pub(crate) const SIZE: usize = 64;

/// Size in 64-bit words.
const WORDS: usize = SIZE / size_of::<u64>();

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

/// The memory of a descriptor ring. A slot is written only while it is the driver's.
#[derive(Debug)]
pub(crate) struct Descriptors {
    memory: Coherent,
    /// The bus address of slot 0.
    iova: u64,
}

impl Descriptors {
    /// Links the slots of `memory`, whose bus address is `iova`, into a ring: `next` never changes.
    ///
    pub(crate) fn new(memory: Coherent, iova: u64) -> Self {
        let ring = Self { memory, iova };
        let count = ring.memory.len() / SIZE;
        for index in 0..count {
            // Relaxed: the doorbell orders it before the device's reads.
            let next = ring.address((index + 1) % count);
            ring.memory.store_u64(index * SIZE + NEXT * 8, next, Ordering::Relaxed);
        }
        ring
    }

    /// The words of a slot.
    fn slot(&self, index: Index) -> &[AtomicU64; WORDS] {
        let slots = self.memory.address().cast::<[AtomicU64; WORDS]>();
        // SAFETY: aligned, and in bounds by the mask (`new` checks both); valid as long as `self`
        // has the memory. The CPU side has atomic accesses only, and a device's are not Rust's.
        unsafe { &*slots.add(index.get()) }
    }

    /// The bus address of a slot.
    pub(crate) const fn address(&self, index: usize) -> u64 {
        self.iova + (index * SIZE) as u64
    }

    /// The slot at a bus address, if there is one.
    pub(crate) fn index(&self, address: u64) -> Option<usize> {
        let offset = usize::try_from(address.checked_sub(self.iova)?).ok()?;
        (offset < self.memory.len() && offset.is_multiple_of(SIZE)).then_some(offset / SIZE)
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
}
