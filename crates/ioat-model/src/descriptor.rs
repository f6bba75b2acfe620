//! Descriptors: 64 bytes, aligned to 64, linked by their `next` word.
//!
//! | operation | code | needs |
//! | --- | --- | --- |
//! | copy, null | 00 | |
//! | fill | 01 | `BLOCK_FILL` |
//! | XOR, check | 87, 88 | `XOR` |
//! | P+Q, check | 89, 8a | `PQ` |
//! | P+Q update | 8b | `PQ` |
//! | P+Q of 9 to 16 sources, check | a0, a1 | `RAID16SS` |
//!
//! A control bit that is not known to have a meaning for the operation is an error. The first word of
//! a descriptor is its length and control; where the others are is in the code of this module and,
//! for exclusive or and P+Q, in that of `parity`.

mod parity;

use bitflags::bitflags;

use crate::{
    memory::{Memory, MoveError},
    parity::{Mismatch, Parity},
    registers::{ChanErr, DmaCapability},
};

/// Size and alignment of a descriptor in bytes.
pub const DESCRIPTOR_SIZE: u64 = 64;
/// Descriptor size in 64-bit words.
pub const DESCRIPTOR_WORDS: usize = 8;
const _: () = assert!(DESCRIPTOR_WORDS as u64 * 8 == DESCRIPTOR_SIZE);
/// The word that has the address of the next descriptor.
pub(crate) const NEXT_WORD: usize = 3;

/// The words of a descriptor.
pub type Words = [u64; DESCRIPTOR_WORDS];

/// Operation code of a copy, in bits 31:24 of the control word.
pub const OP_COPY: u8 = 0x00;
/// Operation code of a fill.
pub const OP_FILL: u8 = 0x01;
/// Operation code of an exclusive or.
pub const OP_XOR: u8 = 0x87;
/// Operation code of a check of an exclusive or.
pub const OP_XOR_VAL: u8 = 0x88;
/// Operation code of P+Q.
pub const OP_PQ: u8 = 0x89;
/// Operation code of a check of P+Q.
pub const OP_PQ_VAL: u8 = 0x8a;
/// Operation code of an update of P+Q for one source that has changed.
pub const OP_PQ_UPDATE: u8 = 0x8b;
/// Operation code of P+Q with 9 to 16 sources.
pub const OP_PQ_16S: u8 = 0xa0;
/// Operation code of a check of P+Q with 9 to 16 sources.
pub const OP_PQ_VAL_16S: u8 = 0xa1;

/// Where pages end, for [`Control::SRC_BRK`] and [`Control::DEST_BRK`].
const BREAK: u64 = 4096;

/// Bits 23:0 of the control word.
const CONTROL_MASK: u32 = 0x00ff_ffff;

bitflags! {
    /// The control word's flags.
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
        /// Copy: move nothing.
        const NULL = 1 << 5;
        /// Copy: behind the end of its 4096-byte page, the source goes on at word 4.
        const SRC_BRK = 1 << 6;
        /// Copy and fill: behind the end of its 4096-byte page, the target goes on at word 5.
        const DEST_BRK = 1 << 7;
        /// Tag writes for a CPU's cache. No effect on the model.
        const DEST_DCA = 1 << 9;
        /// Destination hint. No effect on the model.
        const HINT = 1 << 10;
        /// P+Q: no P.
        const P_DISABLE = 1 << 11;
        /// P+Q: no Q.
        const Q_DISABLE = 1 << 12;
        /// P+Q checks: write the result into the descriptor.
        const WB_EN = 1 << 15;
    }
}

impl Control {
    /// What all operations have.
    pub(crate) const COMMON: Self = Self::INT_EN
        .union(Self::SRC_SNOOP_DIS)
        .union(Self::DEST_SNOOP_DIS)
        .union(Self::COMPL_WRITE)
        .union(Self::FENCE)
        .union(Self::DEST_DCA)
        .union(Self::HINT);
    /// What a copy has, on a device with page breaks.
    const COPY: Self = Self::COMMON.union(Self::NULL).union(Self::SRC_BRK).union(Self::DEST_BRK);
}

/// What a descriptor asks to be done with memory.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// Copy `len` bytes, of which some are on second pages.
    BrokenCopy {
        /// First address read, and where reading goes on behind the first one's page.
        source: [u64; 2],
        /// First address written, and where writing goes on.
        target: [u64; 2],
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
    /// Repeat an 8-byte pattern over two pages.
    BrokenFill {
        /// The pattern, lowest byte first.
        pattern: u64,
        /// First address written, and where writing goes on behind its page.
        target: [u64; 2],
        /// Length in bytes.
        len: u32,
    },
    /// Exclusive or, P+Q, or a check of them. In a box, because it is many times as large as the
    /// others, which are most.
    Parity(Box<Parity>),
}

impl Operation {
    /// How many bytes it makes of each result; 0 for a null descriptor.
    #[must_use]
    pub fn bytes(&self) -> u32 {
        match self {
            Self::Null => 0,
            Self::Copy { len, .. }
            | Self::BrokenCopy { len, .. }
            | Self::Fill { len, .. }
            | Self::BrokenFill { len, .. } => *len,
            Self::Parity(parity) => parity.len(),
        }
    }

    /// Does it.
    ///
    /// # Errors
    ///
    /// [`MoveError`] says on which side the memory failed.
    pub fn perform(self, memory: &mut impl Memory) -> Performed {
        match self {
            Self::Null => Ok(()),
            Self::Copy { source, target, len } => memory.copy(source, target, len),
            Self::BrokenCopy { source, target, len } => copy_broken(source, target, len, memory),
            Self::Fill { pattern, target, len } => {
                memory.fill(target, pattern, len).map_err(MoveError::Target)
            }
            Self::BrokenFill { pattern, target, len } => {
                fill_broken(pattern, target, len, memory).map_err(MoveError::Target)
            }
            Self::Parity(parity) => return parity.perform(memory),
        }?;
        Ok(Mismatch::empty())
    }
}

/// How an operation went: done, and what a check found wrong.
pub type Performed = Result<Mismatch, MoveError>;

/// Bytes from `address` to the end of its page.
const fn page_left(address: u64) -> u64 {
    BREAK - address % BREAK
}

fn copy_broken(
    source: [u64; 2],
    target: [u64; 2],
    len: u32,
    memory: &mut impl Memory,
) -> Result<(), MoveError> {
    let (mut done, len) = (0, u64::from(len));
    // Where the byte `done` is on a side, and how many follow it there.
    let place = |[first, second]: [u64; 2], done: u64| {
        let on_first = page_left(first);
        if done < on_first {
            (first + done, on_first - done)
        } else {
            (second.wrapping_add(done - on_first), len - done)
        }
    };
    while done < len {
        let ((from, readable), (to, writable)) = (place(source, done), place(target, done));
        let piece = (len - done).min(readable).min(writable);
        // At most `len`, which is a u32.
        memory.copy(from, to, piece as u32)?;
        done += piece;
    }
    Ok(())
}

fn fill_broken(
    pattern: u64,
    [first, second]: [u64; 2],
    len: u32,
    memory: &mut impl Memory,
) -> Result<(), crate::MemoryError> {
    // At most BREAK.
    let on_first = len.min(page_left(first) as u32);
    memory.fill(first, pattern, on_first)?;
    if on_first == len {
        return Ok(());
    }
    // The pattern goes on where it was.
    memory.fill(second, pattern.rotate_right(on_first % 8 * 8), len - on_first)
}

/// A descriptor that passed all checks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Descriptor {
    pub(crate) operation: Operation,
    pub(crate) control: Control,
    pub(crate) next: u64,
    /// Its place and, if it has an extended descriptor, that one's: 1 or 2.
    pub(crate) slots: u16,
    /// What stands above the first dword, if the result shall be written into that.
    pub(crate) write_back: Option<u32>,
}

/// What decoding depends on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// The most bytes per descriptor.
    pub(crate) xfercap: u64,
    pub(crate) capability: DmaCapability,
    /// How many descriptors DMACOUNT allows; at least 1.
    pub(crate) allowed: u16,
}

impl Descriptor {
    /// Checks and reads the words of a descriptor, and what belongs to it in memory; or says which
    /// CHANERR bit it earns.
    pub(crate) fn decode(
        words: Words,
        limits: Limits,
        memory: &mut impl Memory,
    ) -> Result<Self, ChanErr> {
        let head = words[0];
        let [.., op] = head.to_le_bytes();
        let (len, flags) = (head as u32, (head >> 32) as u32 & CONTROL_MASK);
        let descriptor = match op {
            OP_COPY => Self::copy(words, flags, limits.capability),
            OP_FILL => Self::fill(words, flags, limits.capability),
            OP_XOR..=OP_PQ_UPDATE | OP_PQ_16S | OP_PQ_VAL_16S => {
                parity::decode(op, flags, words, limits, memory)
            }
            _ => Err(ChanErr::DESCRIPTOR_CONTROL),
        }?;
        // A null descriptor's size must not be zero either, though it moves nothing.
        if len == 0 || u64::from(len) > limits.xfercap {
            return Err(ChanErr::LENGTH);
        }
        if !descriptor.next.is_multiple_of(DESCRIPTOR_SIZE) {
            return Err(ChanErr::DESCRIPTOR);
        }
        Ok(descriptor)
    }

    fn copy(words: Words, flags: u32, capability: DmaCapability) -> Result<Self, ChanErr> {
        let [head, source, target, next, next_source, next_target, ..] = words;
        let len = head as u32;
        let control = check(flags, Control::COPY, capability)?;
        let breaks = (control & (Control::SRC_BRK | Control::DEST_BRK)).bits();
        let operation = if control.contains(Control::NULL) {
            Operation::Null
        } else if breaks == 0 {
            Operation::Copy { source, target, len }
        } else {
            let second = |bit, first, second| {
                if control.contains(bit) {
                    second_page(first, second, len)
                } else {
                    Ok([first, after_page(first)])
                }
            };
            Operation::BrokenCopy {
                source: second(Control::SRC_BRK, source, next_source)?,
                target: second(Control::DEST_BRK, target, next_target)?,
                len,
            }
        };
        Ok(Self { operation, control, next, slots: 1, write_back: None })
    }

    fn fill(words: Words, flags: u32, capability: DmaCapability) -> Result<Self, ChanErr> {
        if !capability.contains(DmaCapability::BLOCK_FILL) {
            return Err(ChanErr::DESCRIPTOR_CONTROL);
        }
        let [head, pattern, target, next, _, next_target, ..] = words;
        let len = head as u32;
        let control = check(flags, Control::COMMON | Control::DEST_BRK, capability)?;
        let operation = if control.contains(Control::DEST_BRK) {
            let target = second_page(target, next_target, len)?;
            Operation::BrokenFill { pattern, target, len }
        } else {
            Operation::Fill { pattern, target, len }
        };
        Ok(Self { operation, control, next, slots: 1, write_back: None })
    }
}

/// Takes flags, if they are among `known` ones.
fn check(flags: u32, known: Control, capability: DmaCapability) -> Result<Control, ChanErr> {
    let mut known = known;
    if !capability.contains(DmaCapability::PAGE_BREAK) {
        known -= Control::SRC_BRK | Control::DEST_BRK;
    }
    let control = Control::from_bits(flags).ok_or(ChanErr::DESCRIPTOR_CONTROL)?;
    if known.contains(control) { Ok(control) } else { Err(ChanErr::DESCRIPTOR_CONTROL) }
}

/// The two pages of a broken side. One page follows the break, not more.
const fn second_page(first: u64, second: u64, len: u32) -> Result<[u64; 2], ChanErr> {
    if len as u64 > page_left(first) + BREAK { Err(ChanErr::LENGTH) } else { Ok([first, second]) }
}

/// Where an unbroken side goes on.
const fn after_page(first: u64) -> u64 {
    first.wrapping_add(page_left(first))
}
