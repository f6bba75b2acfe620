//! Faults to order.

use std::collections::BTreeMap;

use crate::registers::ChanErr;

/// What goes wrong at a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// It fails with these CHANERR bits and moves nothing.
    Error(ChanErr),
    /// The channel halts before it, with CHANERR 0.
    Halt,
    /// The channel neither works nor suspends from here on, until it is reset.
    Hang,
    /// As `Hang`, and a reset does not end either.
    Dead,
    /// It is done, but its completion word is not written.
    LostCompletion,
}

/// Which descriptors meet with a [`Fault`].
///
/// Descriptors of a channel are counted from 0, from the model's start and across resets; null
/// descriptors count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    by_position: BTreeMap<(usize, u64), Fault>,
}

impl Faults {
    /// No faults.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Adds `fault` at the given descriptor of `channel`, in place of one ordered there before.
    #[must_use]
    pub fn at(mut self, channel: usize, descriptor: u64, fault: Fault) -> Self {
        self.by_position.insert((channel, descriptor), fault);
        self
    }

    /// Takes out the fault for this descriptor.
    pub(crate) fn take(&mut self, channel: usize, descriptor: u64) -> Option<Fault> {
        self.by_position.remove(&(channel, descriptor))
    }
}
