//! Descriptors of exclusive or and P+Q: where their sources are.
//!
//! ```text
//!   word    0     1    2   3     4     5     6     7
//!   XOR    head  s1   P   next  s2    s3    s4    s5      extended: s6 s7 s8 next
//!   PQ     head  s1   P   next  s2    s3    coef  Q       extended: s4 s5 s6 next s7 s8
//!   update head  old  P   next  new   P in  Q in  Q
//!   16S    head  s1   P   next  s2    SED   coef  Q       SED: coef s3 .. s9, s10 .. s16
//! ```
//!
//! An extended descriptor stands where `next` leads, is counted by DMACOUNT, and has the `next` that
//! the chain follows. A super extended descriptor (SED) stands anywhere and is not counted.

use super::{
    Control, DESCRIPTOR_SIZE, Descriptor, Limits, OP_PQ, OP_PQ_16S, OP_PQ_UPDATE, OP_PQ_VAL,
    OP_PQ_VAL_16S, OP_XOR, OP_XOR_VAL, Operation, Words, check,
};
use crate::{
    memory::{Memory, MemoryError},
    parity::Parity,
    registers::{ChanErr, DmaCapability},
};

/// Bits 7:5 of the control word: sources, less 2 (with 9 to 16 sources: less 9).
const SOURCES_SHIFT: u32 = 5;
const SOURCES_MASK: u32 = 7 << SOURCES_SHIFT;
/// Bits 23:16 of an update's control word.
const COEFFICIENT_SHIFT: u32 = 16;
const COEFFICIENT_MASK: u32 = 0xff << COEFFICIENT_SHIFT;

/// Sources in a descriptor and behind it: which words, in their order.
struct Layout {
    own: &'static [usize],
    extended: &'static [usize],
}

const XOR: Layout = Layout { own: &[1, 4, 5, 6, 7], extended: &[0, 1, 2] };
const PQ: Layout = Layout { own: &[1, 4, 5], extended: &[0, 1, 2, 4, 5] };

pub(super) fn decode(
    op: u8,
    flags: u32,
    words: Words,
    limits: Limits,
    memory: &mut impl Memory,
) -> Result<Descriptor, ChanErr> {
    let needed = match op {
        OP_XOR | OP_XOR_VAL => DmaCapability::XOR,
        OP_PQ_16S | OP_PQ_VAL_16S => DmaCapability::PQ | DmaCapability::RAID16SS,
        _ => DmaCapability::PQ,
    };
    if !limits.capability.contains(needed) {
        return Err(ChanErr::DESCRIPTOR_CONTROL);
    }
    let control = control(op, flags, limits.capability)?;
    let written = ((flags & SOURCES_MASK) >> SOURCES_SHIFT) as usize;
    let mut parity = Parity::new(words[0] as u32);
    if !control.contains(Control::P_DISABLE) {
        parity.set_p(words[2]);
    }
    if !matches!(op, OP_XOR | OP_XOR_VAL) && !control.contains(Control::Q_DISABLE) {
        parity.set_q(words[7]);
    }
    let mut descriptor = Placed { next: words[3], slots: 1 };
    match op {
        OP_XOR | OP_XOR_VAL => {
            descriptor.sources(&mut parity, &XOR, written + 2, words, [0; 8], limits, memory)?;
        }
        OP_PQ | OP_PQ_VAL => {
            let coefficients = words[6].to_le_bytes();
            descriptor.sources(
                &mut parity,
                &PQ,
                written + 2,
                words,
                coefficients,
                limits,
                memory,
            )?;
        }
        OP_PQ_UPDATE => {
            if written != 0 {
                return Err(ChanErr::DESCRIPTOR_CONTROL);
            }
            let coefficient = ((flags & COEFFICIENT_MASK) >> COEFFICIENT_SHIFT) as u8;
            parity.add(words[1], coefficient);
            parity.add(words[4], coefficient);
            parity.add_to_p(words[5]);
            parity.add_to_q(words[6]);
        }
        _ => super_extended(&mut parity, written + 9, words, memory)?,
    }
    let check = matches!(op, OP_XOR_VAL | OP_PQ_VAL | OP_PQ_VAL_16S);
    if check {
        parity.set_check();
    }
    let write_back = control.contains(Control::WB_EN).then_some((words[0] >> 32) as u32);
    let Placed { next, slots } = descriptor;
    let operation = Operation::Parity(Box::new(parity));
    Ok(Descriptor { operation, control, next, slots, write_back })
}

/// The flags that an operation may have, without the number of its sources.
fn control(op: u8, flags: u32, capability: DmaCapability) -> Result<Control, ChanErr> {
    let disable = Control::P_DISABLE | Control::Q_DISABLE;
    let known = match op {
        OP_XOR | OP_XOR_VAL => Control::COMMON,
        OP_PQ | OP_PQ_16S | OP_PQ_UPDATE => Control::COMMON | disable,
        _ if capability.contains(DmaCapability::DWBES) => {
            Control::COMMON | disable | Control::WB_EN
        }
        _ => Control::COMMON | disable,
    };
    let fields = if op == OP_PQ_UPDATE { SOURCES_MASK | COEFFICIENT_MASK } else { SOURCES_MASK };
    let control = check(flags & !fields, known, capability)?;
    // Nothing would be left to do.
    if control.contains(disable) { Err(ChanErr::DESCRIPTOR_CONTROL) } else { Ok(control) }
}

/// How a descriptor lies in its chain.
struct Placed {
    next: u64,
    slots: u16,
}

impl Placed {
    /// Takes the sources of a descriptor and of its extended one.
    #[expect(clippy::too_many_arguments)]
    fn sources(
        &mut self,
        parity: &mut Parity,
        layout: &Layout,
        count: usize,
        words: Words,
        coefficients: [u8; 8],
        limits: Limits,
        memory: &mut impl Memory,
    ) -> Result<(), ChanErr> {
        let mut coefficients = coefficients.into_iter();
        let mut take = |words: Words, places: &[usize]| {
            for place in places {
                parity.add(words[*place], coefficients.next().unwrap_or(0));
            }
        };
        let own = count.min(layout.own.len());
        take(words, &layout.own[..own]);
        if count == own {
            return Ok(());
        }
        let rest = layout.extended.get(..count - own).ok_or(ChanErr::DESCRIPTOR_CONTROL)?;
        if limits.allowed < 2 {
            return Err(ChanErr::DESCRIPTOR_COUNT);
        }
        if !self.next.is_multiple_of(DESCRIPTOR_SIZE) {
            return Err(ChanErr::DESCRIPTOR);
        }
        let mut extended = [0; 8];
        memory.read(self.next, &mut extended).map_err(|error| match error {
            MemoryError::Address => ChanErr::NEXT_ADDRESS,
            MemoryError::Data => ChanErr::DESCRIPTOR,
        })?;
        take(extended, rest);
        *self = Self { next: extended[3], slots: 2 };
        Ok(())
    }
}

/// Takes 9 to 16 sources.
fn super_extended(
    parity: &mut Parity,
    count: usize,
    words: Words,
    memory: &mut impl Memory,
) -> Result<(), ChanErr> {
    let address = words[5];
    if !address.is_multiple_of(DESCRIPTOR_SIZE) {
        return Err(ChanErr::SOFT);
    }
    let mut block = |address: u64| {
        let mut words = [0; 8];
        memory.read(address, &mut words).map(|()| words).map_err(|_| ChanErr::SOFT)
    };
    let first = block(address)?;
    // With 9 sources, Linux allocates the first half only.
    let second = if count > 9 { block(address.wrapping_add(DESCRIPTOR_SIZE))? } else { [0; 8] };
    let sources = [words[1], words[4]].into_iter().chain(first[1..].iter().copied()).chain(second);
    let coefficients = words[6].to_le_bytes().into_iter().chain(first[0].to_le_bytes());
    for (source, coefficient) in sources.zip(coefficients).take(count) {
        parity.add(source, coefficient);
    }
    Ok(())
}
