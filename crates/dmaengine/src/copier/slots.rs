//! The places of a copier's operations, each its future's own.

use std::{task::Waker, time::Instant};

use super::memory::Memory;
use crate::{Completion, Cookie, Flags, SubmitError};

/// Names a slot for the length of one operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) index: u32,
    generation: u32,
}

pub(super) struct Slots<S, D> {
    slots: Vec<Slot<S, D>>,
    /// Indices of free ones.
    free: Vec<u32>,
}

pub(super) struct Slot<S, D> {
    /// Of the operation that is in it, or will be next.
    generation: u32,
    pub(super) phase: Phase<S, D>,
    pub(super) deadline: Instant,
    /// Of the future, once it was polled.
    pub(super) waker: Option<Waker>,
    /// The future is gone.
    pub(super) is_detached: bool,
}

pub(super) enum Phase<S, D> {
    Free,
    /// Waits for its turn.
    Backlog(Backlog<S, D>),
    /// The queue has the memory.
    InFlight,
    /// Waits for the future to take it.
    Ended(Ended<S, D>),
}

/// An operation that is to be submitted.
pub(super) struct Backlog<S, D> {
    pub(super) memory: Memory<S, D>,
    pub(super) flags: Flags,
    /// What it was when it was last submitted: it was aborted because another was late.
    pub(super) aborted: Option<Cookie>,
}

/// How an operation ended.
pub(super) enum Ended<S, D> {
    Reported(Completion, Memory<S, D>),
    Refused(SubmitError, Memory<S, D>),
    /// The engine has the memory.
    Stuck,
}

impl<S, D> Slots<S, D> {
    pub(super) const fn new() -> Self {
        Self { slots: Vec::new(), free: Vec::new() }
    }

    /// A free slot, which is not taken yet. No other may be released in between.
    pub(super) fn vacant(&mut self) -> Key {
        if self.free.is_empty() {
            let index = u32::try_from(self.slots.len()).expect("memory for 2^32 operations");
            self.slots.push(Slot {
                generation: 0,
                phase: Phase::Free,
                deadline: Instant::now(),
                waker: None,
                is_detached: false,
            });
            self.free.push(index);
        }
        let index = self.free[self.free.len() - 1];
        Key { index, generation: self.slots[index as usize].generation }
    }

    /// Takes the slot that was vacant.
    pub(super) fn occupy(&mut self, key: Key, phase: Phase<S, D>, deadline: Instant) {
        let taken = self.free.pop();
        debug_assert_eq!(taken, Some(key.index));
        let slot = &mut self.slots[key.index as usize];
        (slot.phase, slot.deadline, slot.is_detached) = (phase, deadline, false);
    }

    /// The slot of an operation; `None` if that was given up.
    pub(super) fn get(&mut self, key: Key) -> Option<&mut Slot<S, D>> {
        let slot = &mut self.slots[key.index as usize];
        (slot.generation == key.generation).then_some(slot)
    }

    /// The slot of an operation whose future exists.
    pub(super) fn current(&mut self, key: Key) -> &mut Slot<S, D> {
        self.get(key).expect("a future's slot is its own until it gives it up")
    }

    /// How many there are, free ones included.
    pub(super) const fn len(&self) -> usize {
        self.slots.len()
    }

    /// The slot in this place, with the name of its operation.
    pub(super) fn at(&mut self, index: usize) -> (Key, &mut Slot<S, D>) {
        let slot = &mut self.slots[index];
        // There are at most 2^32.
        (Key { index: index as u32, generation: slot.generation }, slot)
    }

    /// Whether one of them is like that.
    pub(super) fn any(&self, is_it: impl FnMut(&Slot<S, D>) -> bool) -> bool {
        self.slots.iter().any(is_it)
    }

    /// Makes the slot free for another operation.
    pub(super) fn release(&mut self, key: Key) {
        let slot = self.current(key);
        slot.phase = Phase::Free;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(key.index);
    }
}
