//! Descriptors as the driver writes them: 64 bytes, aligned to 64.

use std::sync::atomic::Ordering;

use bitflags::bitflags;
use dmaengine::Coherent;

/// Size and alignment in bytes.
pub(crate) const SIZE: usize = 64;

// Offsets in bytes. The two 32-bit words `size` and `ctl` are written as one 64-bit word.
const HEAD: usize = 0x00;
const SOURCE: usize = 0x08;
const TARGET: usize = 0x10;
const NEXT: usize = 0x18;
const _: () = assert!(NEXT + 8 <= SIZE);

/// Operation codes, bits 31:24 of `ctl`.
const OP_FILL: u32 = 0x01 << 24;

bitflags! {
    /// Flags in `ctl`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct Control: u32 {
        /// Interrupt when done.
        const INT_EN = 1 << 0;
        /// Write the completion word when done.
        const COMPL_WRITE = 1 << 3;
        /// Move nothing. The size must still not be 0.
        const NULL = 1 << 5;
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
    pub(crate) fn new(memory: Coherent, iova: u64) -> Self {
        let ring = Self { memory, iova };
        let count = ring.memory.len() / SIZE;
        for index in 0..count {
            // Relaxed: the doorbell orders it before the device's reads.
            let next = ring.address((index + 1) % count);
            ring.memory.store_u64(index * SIZE + NEXT, next, Ordering::Relaxed);
        }
        ring
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
    pub(crate) fn write(&self, index: usize, operation: Operation, control: Control) {
        let (code, len, second, target) = match operation {
            // Size 1 as Linux writes it: version 3.0 refuses size 0.
            Operation::Null => (Control::NULL.bits(), 1, 0, 0),
            Operation::Copy { source, target, len } => (0, len, source, target),
            Operation::Fill { pattern, target, len } => (OP_FILL, len, pattern, target),
        };
        let head = u64::from(code | control.bits()) << 32 | u64::from(len);
        let at = index * SIZE;
        // Relaxed, all three: the doorbell orders them before the device's reads.
        self.memory.store_u64(at + HEAD, head, Ordering::Relaxed);
        self.memory.store_u64(at + SOURCE, second, Ordering::Relaxed);
        self.memory.store_u64(at + TARGET, target, Ordering::Relaxed);
    }

    /// Asks for a completion write at a slot that was written and not yet issued.
    pub(crate) fn request_completion(&self, index: usize) {
        let at = index * SIZE + HEAD;
        // Relaxed: as in `write`.
        let head = self.memory.load_u64(at, Ordering::Relaxed);
        let head = head | u64::from(Control::COMPL_WRITE.bits()) << 32;
        self.memory.store_u64(at, head, Ordering::Relaxed);
    }
}
