//! The memory of one operation at a time: what Linux has a thread for.

use std::{ops::Range, ptr::NonNull};

use super::{Mismatch, Operation, Params, params::PAGE, pattern};
use crate::{Arena, ArenaFull, DmaBuf, Status, random::SplitMix64, software::gf256};

/// One operation to be tested.
#[derive(Clone, Copy, Debug)]
pub(super) struct Test {
    /// From 1 on.
    pub(super) number: u64,
    pub(super) source_offset: usize,
    pub(super) target_offset: usize,
    pub(super) len: usize,
    /// Of a fill.
    pub(super) pattern: u64,
}

impl Test {
    const fn source_range(&self) -> Range<usize> {
        self.source_offset..self.source_offset + self.len
    }

    const fn target_range(&self) -> Range<usize> {
        self.target_offset..self.target_offset + self.len
    }
}

/// What is done in a test, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The operation itself.
    Compute,
    /// The channel checks its own result.
    Check,
    /// It does so again, after the result was damaged at random.
    CheckDamaged(u64),
}

/// The lists of an operation: needed while it is submitted.
#[derive(Debug, Default)]
pub(super) struct Lists {
    sources: Vec<*const u8>,
    coefficients: Vec<u8>,
}

impl Lists {
    /// For that many sources. The coefficients are those of RAID 6, the powers of 2.
    pub(super) fn new(sources: usize) -> Self {
        let twice = |&power: &u8| Some(gf256::multiply(power, 2));
        let coefficients = std::iter::successors(Some(1), twice).take(sources).collect();
        // A check of parity has one more.
        Self { sources: Vec::with_capacity(sources + 1), coefficients }
    }
}

/// Sources and targets of one operation.
#[derive(Debug)]
pub(super) struct Buffers {
    operation: Operation,
    /// The buffers' length in bytes; the memory may be longer.
    size: usize,
    sources: Vec<DmaBuf>,
    /// Of P and Q, in this order, if there are two.
    targets: Vec<DmaBuf>,
    /// What a check of the damaged targets must find.
    damage: Status,
}

impl Buffers {
    pub(super) fn new(arena: &Arena, params: &Params) -> Result<Self, ArenaFull> {
        let size = params.test_buf_size;
        let (sources, targets) = params.buffers();
        // From a page on, a buffer begins at a page.
        let buffers = |count| -> Result<Vec<DmaBuf>, ArenaFull> {
            (0..count).map(|_| arena.alloc(size.max(PAGE))).collect()
        };
        Ok(Self {
            operation: params.operation,
            size,
            sources: buffers(sources)?,
            targets: buffers(targets)?,
            damage: Status::Success,
        })
    }

    pub(super) fn fill(&mut self, test: &Test) {
        for (number, source) in self.sources.iter_mut().enumerate() {
            pattern::fill_source(&mut source[..self.size], test.source_range(), number);
        }
        for target in &mut self.targets {
            pattern::fill_target(&mut target[..self.size], test.target_range());
        }
    }

    /// The operation of a step. All that it reads and writes are parts of different buffers, but
    /// that a check reads what was written.
    pub(super) fn operation<'a>(
        &mut self,
        test: &Test,
        step: Step,
        lists: &'a mut Lists,
    ) -> crate::Operation<'a> {
        let Test { len, pattern, .. } = *test;
        let Lists { sources, coefficients } = lists;
        sources.clear();
        sources.extend(self.sources.iter().map(|buffer| buffer[test.source_range()].as_ptr()));
        let mut targets =
            self.targets.iter_mut().map(|buffer| buffer[test.target_range()].as_mut_ptr());
        let target = targets.next().unwrap_or_default();
        let (p, q) = (NonNull::new(target), targets.next().and_then(NonNull::new));
        match (self.operation, step) {
            (Operation::Memcpy, _) => crate::Operation::Memcpy { source: sources[0], target, len },
            (Operation::Memset, _) => crate::Operation::Memset { pattern, target, len },
            (Operation::Xor, Step::Compute) => crate::Operation::Xor { sources, target, len },
            (Operation::Xor, _) => {
                sources.push(target);
                crate::Operation::XorVal { sources, len }
            }
            (Operation::Pq, Step::Compute) => {
                crate::Operation::Pq { sources, coefficients, p, q, len }
            }
            (Operation::Pq, _) => crate::Operation::PqVal { sources, coefficients, p, q, len },
        }
    }

    /// Damages one of the targets, or both.
    pub(super) fn damage(&mut self, test: &Test, seed: u64) {
        let mut random = SplitMix64::new(seed ^ test.number);
        let which = 1 + random.below((1 << self.targets.len()) - 1);
        for (index, target) in self.targets.iter_mut().enumerate() {
            if which & 1 << index != 0 {
                target[test.target_offset + random.below(test.len)] ^= 1 << random.below(8);
            }
        }
        self.damage = match which {
            1 => Status::MismatchP,
            2 => Status::MismatchQ,
            _ => Status::MismatchPq,
        };
    }

    /// How a step must end.
    pub(super) const fn expected_status(&self, step: Step) -> Status {
        match step {
            Step::Compute | Step::Check => Status::Success,
            Step::CheckDamaged(_) => self.damage,
        }
    }

    /// All bytes must be what they should be after a step; the first that is not.
    pub(super) fn verify(&self, test: &Test, step: Step) -> Option<Mismatch> {
        let (from, to) = (test.source_range(), test.target_range());
        let sources = self.sources.iter().enumerate().find_map(|(number, source)| {
            pattern::check_source(&source[..self.size], from.clone(), number)
        });
        if sources.is_some() || matches!(step, Step::CheckDamaged(_)) {
            return sources;
        }
        let count = self.sources.len();
        let byte = |index: usize, number| pattern::copied_byte(test.source_offset + index, number);
        let xor = |index: usize| (0..count).fold(0, |sum, number| sum ^ byte(index, number));
        let check = |target: usize, written: &dyn Fn(usize) -> u8| {
            pattern::check_target(&self.targets[target][..self.size], to.clone(), written)
        };
        match self.operation {
            Operation::Memcpy => check(0, &|index| byte(index, 0)),
            Operation::Memset => {
                let pattern = test.pattern.to_le_bytes();
                check(0, &|index| pattern[index % pattern.len()])
            }
            Operation::Xor => check(0, &xor),
            Operation::Pq => check(0, &xor).or_else(|| {
                let coefficients = Lists::new(count).coefficients;
                let product = |number: usize, index| {
                    let coefficient = usize::from(coefficients[number]);
                    gf256::NIBBLES[coefficient].times(byte(index, number))
                };
                check(1, &|index| (0..count).fold(0, |sum, number| sum ^ product(number, index)))
            }),
        }
    }
}
