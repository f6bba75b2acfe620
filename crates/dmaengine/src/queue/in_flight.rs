//! Who keeps the memory of the operations in flight on a channel.

use std::mem::ManuallyDrop;

use crate::{
    Channel, Completion, Cookie, DmaChannel, Flags, Operation, OperationKind, Status, SubmitError,
    stats::Meter,
};

/// The fewest slots that are allocated at once.
const MIN_SLOTS: usize = 16;

/// The operations of one channel that were submitted and not reported, each with what is kept for it.
///
/// A ring that is indexed by cookie: what a completion names is found with one subtraction, and
/// nothing moves but what is put in and taken out. It grows with the distance between the oldest
/// operation in flight and the newest; on a channel that completes in order that is the channel's
/// ring at most.
#[derive(Debug)]
pub(crate) struct InFlight<M> {
    /// The operation with cookie `c` is in slot `c` modulo their number, a power of two or zero.
    slots: Box<[Option<Entry<M>>]>,
    /// The oldest operation in flight; `next` if there is none.
    front: Cookie,
    /// What the next operation's cookie must be, unless nothing is in flight.
    next: Cookie,
    /// Slots between `front` and `next` that are empty: operations that ended before an earlier one.
    ended_early: usize,
    /// Completions that named no operation in flight: a driver's or device's defect.
    spurious: u64,
}

#[derive(Debug)]
struct Entry<M> {
    kind: OperationKind,
    len: usize,
    memory: M,
}

impl<M> Entry<M> {
    /// Counts the end of the operation and reports it.
    #[inline]
    fn end(
        self,
        meter: &mut Meter,
        mut completion: Completion,
        each: &mut impl FnMut(Completion, M),
    ) {
        let Self { kind, len, memory } = self;
        completion.bytes = match completion.status {
            Status::Success => len,
            _ => completion.bytes.min(len),
        };
        meter.count_end(kind, &completion);
        each(completion, memory);
    }
}

impl<M> InFlight<M> {
    /// Room for `capacity` operations.
    pub(crate) fn with_capacity(capacity: usize) -> Self {
        let slots = if capacity == 0 { 0 } else { capacity.next_power_of_two() };
        Self {
            slots: std::iter::repeat_with(|| None).take(slots).collect(),
            front: Cookie::FIRST,
            next: Cookie::FIRST,
            ended_early: 0,
            spurious: 0,
        }
    }

    /// Operations in flight.
    #[inline]
    pub(crate) const fn len(&self) -> usize {
        self.span() - self.ended_early
    }

    #[inline]
    pub(crate) const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the operation is in flight.
    pub(crate) fn contains(&self, cookie: Cookie) -> bool {
        self.distance(cookie) < self.span() && self.slots[self.slot(cookie)].is_some()
    }

    /// Completions that named no operation in flight.
    pub(crate) const fn spurious(&self) -> u64 {
        self.spurious
    }

    /// Submits `operation` and keeps `memory` until it is reported.
    ///
    /// # Errors
    ///
    /// The channel's refusal, with the memory; nothing was submitted.
    ///
    /// # Panics
    ///
    /// If the driver breaks its promise that cookies are consecutive, or panics itself. The memory
    /// is leaked: nobody could tell when the engine is through with it.
    ///
    /// # Safety
    ///
    /// As for [`DmaChannel::submit`], as long as `memory` exists or
    /// however else the caller makes sure of it.
    #[inline]
    pub(crate) unsafe fn submit(
        &mut self,
        channel: &mut Channel,
        operation: &Operation<'_>,
        flags: Flags,
        memory: M,
    ) -> Result<Cookie, (SubmitError, M)> {
        // From the submission until the slot is filled nothing may unwind that would drop it.
        let memory = ManuallyDrop::new(memory);
        if self.span() == self.slots.len() {
            self.grow();
        }
        // SAFETY: by the caller's promise.
        match unsafe { channel.submit(operation, flags) } {
            Ok(cookie) => {
                if cookie != self.next {
                    self.resynchronise(cookie, channel);
                }
                let kind = operation.kind();
                channel.count_submit(cookie, kind);
                let memory = ManuallyDrop::into_inner(memory);
                let entry = Entry { kind, len: operation.len(), memory };
                let slot = self.slot(cookie);
                // The slot is empty; forgetting what is in it saves the question.
                std::mem::forget(self.slots[slot].replace(entry));
                self.next = cookie.next();
                Ok(cookie)
            }
            Err(error) => Err((error, ManuallyDrop::into_inner(memory))),
        }
    }

    /// Gives each operation that has ended since the last call to `each`, with what was kept for
    /// it, and returns how many there were.
    #[inline]
    pub(crate) fn poll(
        &mut self,
        channel: &mut Channel,
        mut each: impl FnMut(Completion, M),
    ) -> usize {
        let before = self.len();
        let in_flight: &mut Self = self;
        channel.poll_counted(move |completion, meter| {
            let cookie = completion.cookie;
            if cookie != in_flight.front || in_flight.ended_early != 0 {
                in_flight.end_out_of_order(meter, completion, &mut each);
            } else if let Some(entry) = in_flight.take(cookie) {
                in_flight.front = cookie.next();
                entry.end(meter, completion, &mut each);
            }
        });
        before - self.len()
    }

    /// Takes out what was kept for an operation that was reported.
    #[inline]
    fn take(&mut self, cookie: Cookie) -> Option<Entry<M>> {
        let slot = self.slot(cookie);
        let entry = self.slots.get_mut(slot).and_then(Option::take);
        if entry.is_none() {
            self.spurious += 1;
        }
        entry
    }

    /// Deals with a completion that is not the next in order, or comes while others have ended
    /// early. Not inlined: the path beside it needs no registers saved.
    #[cold]
    #[inline(never)]
    fn end_out_of_order(
        &mut self,
        meter: &mut Meter,
        completion: Completion,
        each: &mut impl FnMut(Completion, M),
    ) {
        let cookie = completion.cookie;
        if self.distance(cookie) >= self.span() {
            self.spurious += 1;
        } else if let Some(entry) = self.take(cookie) {
            self.ended_early += 1;
            while self.front != self.next && self.slots[self.slot(self.front)].is_none() {
                self.front = self.front.next();
                self.ended_early -= 1;
            }
            entry.end(meter, completion, each);
        }
    }

    /// Takes out all that is kept, of operations that will not be reported.
    pub(crate) fn drain(&mut self, mut each: impl FnMut(M)) {
        while self.front != self.next {
            let slot = self.slot(self.front);
            self.front = self.front.next();
            match self.slots[slot].take() {
                Some(entry) => each(entry.memory),
                None => self.ended_early -= 1,
            }
        }
    }

    /// The first operation after a pause may have any cookie: others may have used the channel.
    #[cold]
    fn resynchronise(&mut self, cookie: Cookie, channel: &Channel) {
        // A completion finds its operation by its cookie. With a wrong one it would give back the
        // memory of another, which the engine still has.
        assert!(
            self.is_empty(),
            "the driver of {} breaks the contract of DmaChannel: cookies are consecutive",
            channel.name(),
        );
        (self.front, self.next) = (cookie, cookie);
    }

    /// Makes room for more.
    #[cold]
    fn grow(&mut self) {
        let count = (self.slots.len() * 2).max(MIN_SLOTS);
        let mut slots: Box<[Option<Entry<M>>]> =
            std::iter::repeat_with(|| None).take(count).collect();
        let mut cookie = self.front;
        while cookie != self.next {
            slots[cookie.get() as usize & (count - 1)] = self.slots[self.slot(cookie)].take();
            cookie = cookie.next();
        }
        self.slots = slots;
    }

    /// Slots in use, with those that are empty between others.
    #[inline]
    const fn span(&self) -> usize {
        self.distance(self.next)
    }

    /// How far `cookie` is from the front; a number of at least `span` for those not in flight.
    #[inline]
    const fn distance(&self, cookie: Cookie) -> usize {
        cookie.get().wrapping_sub(self.front.get()) as usize
    }

    #[inline]
    const fn slot(&self, cookie: Cookie) -> usize {
        cookie.get() as usize & self.slots.len().wrapping_sub(1)
    }
}

#[cfg(test)]
mod tests;
