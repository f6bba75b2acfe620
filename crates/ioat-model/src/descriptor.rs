//! Descriptors: 64 bytes, aligned to 64, linked by their `next` word.

use bitflags::bitflags;

use crate::{
    memory::{Memory, MoveError},
    registers::{ChanErr, DmaCapability},
};

/// Size and alignment of a descriptor in bytes.
pub const DESCRIPTOR_SIZE: u64 = 64;
/// Descriptor size in 64-bit words.
pub const DESCRIPTOR_WORDS: usize = 8;
const _: () = assert!(DESCRIPTOR_WORDS as u64 * 8 == DESCRIPTOR_SIZE);

/// Operation code of a copy, in bits 31:24 of the control word.
pub const OP_COPY: u8 = 0x00;
/// Operation code of a fill.
pub const OP_FILL: u8 = 0x01;

/// Bits 23:0 of the control word.
const CONTROL_MASK: u32 = 0x00ff_ffff;

bitflags! {
    /// The control word's flags for copy and fill.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Control: u32 {
        /// Raise an interrupt when done.
        const INT_EN = 1 << 0;
        /// Do not snoop the source. No effect on the model.
        const SRC_SNOOP_DIS = 1 << 1;
        /// Do not snoop the destination. No effect on the model.
        const DEST_SNOOP_DIS = 1 << 2;
        /// Write the completion word when done.
        const COMPL_WRITE = 1 << 3;
        /// End before the next descriptor starts. The model always does.
        const FENCE = 1 << 4;
        /// Move nothing.
        const NULL = 1 << 5;
        /// Tag writes for a CPU's cache. No effect on the model.
        const DEST_DCA = 1 << 9;
        /// Destination hint. No effect on the model.
        const HINT = 1 << 10;
    }
}

/// What a descriptor asks to be done with memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Nothing (a null descriptor).
    Null,
    /// Copy `len` bytes.
    Copy {
        /// First address read.
        source: u64,
        /// First address written.
        target: u64,
        /// Length in bytes.
        len: u32,
    },
    /// Repeat an 8-byte pattern.
    Fill {
        /// The pattern, lowest byte first.
        pattern: u64,
        /// First address written.
        target: u64,
        /// Length in bytes.
        len: u32,
    },
}

impl Operation {
    /// Does it.
    ///
    /// # Errors
    ///
    /// [`MoveError`] says on which side the memory failed.
    pub fn perform(self, memory: &mut impl Memory) -> Result<(), MoveError> {
        match self {
            Self::Null => Ok(()),
            Self::Copy { source, target, len } => memory.copy(source, target, len),
            Self::Fill { pattern, target, len } => {
                memory.fill(target, pattern, len).map_err(MoveError::Target)
            }
        }
    }
}

/// A descriptor that passed all checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Descriptor {
    pub(crate) operation: Operation,
    pub(crate) control: Control,
    pub(crate) next: u64,
}

impl Descriptor {
    /// Checks and reads the words of a descriptor, or says which CHANERR bit it earns.
    pub(crate) fn decode(
        words: [u64; DESCRIPTOR_WORDS],
        xfercap: u64,
        capability: DmaCapability,
    ) -> Result<Self, ChanErr> {
        let [head, second, target, next, ..] = words;
        let len = head as u32;
        let [.., op] = head.to_le_bytes();
        let flags = (head >> 32) as u32 & CONTROL_MASK;
        let control = Control::from_bits(flags).ok_or(ChanErr::DESCRIPTOR_CONTROL)?;
        let null = control.contains(Control::NULL);
        let operation = match op {
            OP_COPY if null => Operation::Null,
            OP_COPY => Operation::Copy { source: second, target, len },
            OP_FILL if !null && capability.contains(DmaCapability::BLOCK_FILL) => {
                Operation::Fill { pattern: second, target, len }
            }
            _ => return Err(ChanErr::DESCRIPTOR_CONTROL),
        };
        // A null descriptor's size must not be zero either, though it moves nothing.
        if len == 0 || u64::from(len) > xfercap {
            return Err(ChanErr::LENGTH);
        }
        if !next.is_multiple_of(DESCRIPTOR_SIZE) {
            return Err(ChanErr::NEXT_ADDRESS);
        }
        Ok(Self { operation, control, next })
    }
}
