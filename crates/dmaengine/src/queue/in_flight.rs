//! Who keeps the memory of the operations in flight on a channel.

use std::{fmt, mem::MaybeUninit};

use crate::{
    Channel, Completion, Cookie, DmaChannel, Flags, Operation, OperationKind, Status, SubmitError,
    Successes, stats::Meter,
};

/// The fewest slots that are used at once.
const MIN_SLOTS: usize = 16;

/// The operations of one channel that were submitted and not reported, each with what is kept for it.
///
/// A ring that is indexed by cookie: what a completion names is found with one subtraction. What is
/// kept is written to its slot once, before the engine is given the operation, and read once. No more
/// slots are used than were ever needed at a time, though more are there: those of few operations
/// stay in the nearest cache.
///
/// The slots reach from the oldest operation to the newest, whatever has ended between them. An
/// operation that does not end while others do (its engine hangs, and cannot be stopped) would make
/// them ever more: when at most half of them are in use, the oldest leaves its slot and is kept
/// beside them. So there are at most four times as many slots as operations ever were in flight.
pub(crate) struct InFlight<M> {
    slots: Box<[Slot<M>]>,
    /// Slots in use, from the first on: a power of two, or zero. The operation with cookie `c` is in
    /// slot `c` modulo this.
    room: usize,
    /// The oldest operation in flight; `next` if there is none.
    front: Cookie,
    /// What the next operation's cookie must be, unless nothing is in flight.
    next: Cookie,
    /// Slots between `front` and `next` that are empty: operations that ended before an earlier one.
    ended_early: usize,
    /// Operations in flight from before `front`, in the order of their submission.
    overtaken: Vec<Overtaken<M>>,
    /// Completions that named no operation in flight: a driver's or device's defect.
    spurious: u64,
}

#[derive(Debug)]
struct Slot<M> {
    /// Initialised between `front` and `next`, if there is a kind.
    memory: MaybeUninit<M>,
    len: usize,
    /// `None` for empty. Outside of `front` and `next` it means nothing.
    kind: Option<OperationKind>,
}

/// An operation that left its slot.
struct Overtaken<M> {
    cookie: Cookie,
    kind: OperationKind,
    len: usize,
    memory: M,
}

impl<M> Slot<M> {
    const fn new() -> Self {
        Self { memory: MaybeUninit::uninit(), len: 0, kind: None }
    }
}

impl<M> InFlight<M> {
    /// Room for `capacity` operations.
    pub(crate) fn with_capacity(capacity: usize) -> Self {
        let slots = if capacity == 0 { 0 } else { capacity.next_power_of_two() };
        Self {
            slots: std::iter::repeat_with(Slot::new).take(slots).collect(),
            room: slots.min(MIN_SLOTS),
            front: Cookie::FIRST,
            next: Cookie::FIRST,
            ended_early: 0,
            overtaken: Vec::new(),
            spurious: 0,
        }
    }

    /// Operations in flight.
    #[inline]
    pub(crate) const fn len(&self) -> usize {
        self.span() - self.ended_early + self.overtaken.len()
    }

    #[inline]
    pub(crate) const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the operation is in flight.
    pub(crate) fn contains(&self, cookie: Cookie) -> bool {
        if self.distance(cookie) < self.span() {
            self.slots[self.slot(cookie)].kind.is_some()
        } else {
            self.find_overtaken(cookie).is_some()
        }
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
        if self.span() == self.room {
            self.make_room();
        }
        let (kind, at) = (operation.kind(), self.slot(self.next));
        // From here on nothing drops it, whatever unwinds: the slot is none between `front` and
        // `next` until `next` is beyond it.
        let slot = &mut self.slots[at];
        slot.memory.write(memory);
        (slot.len, slot.kind) = (operation.len(), Some(kind));
        // SAFETY: by the caller's promise.
        match unsafe { channel.submit(operation, flags) } {
            Ok(cookie) => {
                if cookie != self.next {
                    self.resynchronise(cookie, channel);
                }
                self.next = cookie.next();
                channel.count_submit(cookie, kind, self.len());
                Ok(cookie)
            }
            // SAFETY: written above, and read once: `next` stays, so the slot stays unused.
            Err(error) => Err((error, unsafe { self.slots[at].memory.assume_init_read() })),
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
        let Some((channel, meter)) = channel.begin_poll(before) else { return 0 };
        let successes @ Successes { first, count, more } = channel.poll_successes();
        if first == self.front && count <= self.span() && self.ended_early == 0 {
            self.end_all(count, meter, &mut each);
        } else {
            self.end_those_in_flight(successes, meter, &mut each);
        }
        if more {
            channel.poll(&mut |completion| self.end(completion, meter, &mut each));
        }
        before - self.len()
    }

    /// Ends the first `count` operations in flight, all with success. None has ended early.
    #[inline]
    fn end_all(&mut self, count: usize, meter: &mut Meter, each: &mut impl FnMut(Completion, M)) {
        // All are counted before any is given away: that keeps the counts in registers.
        meter.count_successes((0..count as u64).filter_map(|at| {
            let cookie = self.front.plus(at);
            let Slot { len, kind, .. } = self.slots[self.slot(cookie)];
            Some((cookie, kind?, len))
        }));
        for _ in 0..count {
            let cookie = self.front;
            let Slot { memory, len, kind: Some(_) } = &self.slots[self.slot(cookie)] else {
                debug_assert!(false, "an empty slot, and none has ended early");
                return;
            };
            // SAFETY: between `front` and `next`, and there is a kind. Read once: it is before
            // `front` now.
            let (len, memory) = (*len, unsafe { memory.assume_init_read() });
            self.front = cookie.next();
            each(Completion::success(cookie, len), memory);
        }
    }

    /// Deals with successes that are not, or not only, those of the oldest in flight.
    #[cold]
    fn end_those_in_flight(
        &mut self,
        Successes { first, count, .. }: Successes,
        meter: &mut Meter,
        each: &mut impl FnMut(Completion, M),
    ) {
        let mut spurious = count as u64;
        let is_named = |cookie: Cookie| cookie.get().wrapping_sub(first.get()) < count as u64;
        // The length is the operation's, whatever is said here.
        let mut end = |in_flight: &mut Self, cookie| {
            spurious -= 1;
            in_flight.end(Completion::success(cookie, 0), meter, each);
        };
        let mut index = 0;
        while let Some(&Overtaken { cookie, .. }) = self.overtaken.get(index) {
            if is_named(cookie) {
                end(self, cookie);
            } else {
                index += 1;
            }
        }
        let (mut cookie, next) = (self.front, self.next);
        while cookie != next {
            if is_named(cookie) && self.contains(cookie) {
                end(self, cookie);
            }
            cookie = cookie.next();
        }
        self.spurious = self.spurious.saturating_add(spurious);
    }

    /// Deals with a completion of any operation, or of none.
    #[inline]
    fn end(
        &mut self,
        mut completion: Completion,
        meter: &mut Meter,
        each: &mut impl FnMut(Completion, M),
    ) {
        let Some((kind, len, memory)) = self.take(completion.cookie) else {
            self.spurious += 1;
            return;
        };
        completion.bytes = match completion.status {
            Status::Success => len,
            _ => completion.bytes.min(len),
        };
        meter.count_end(kind, &completion);
        each(completion, memory);
    }

    /// Takes out what was kept for an operation, if it is in flight, with its kind and length.
    #[inline]
    fn take(&mut self, cookie: Cookie) -> Option<(OperationKind, usize, M)> {
        if self.distance(cookie) >= self.span() {
            return self.take_overtaken(cookie);
        }
        let at = self.slot(cookie);
        let slot = &mut self.slots[at];
        let kind = slot.kind.take()?;
        // SAFETY: between `front` and `next`, and there was a kind. Read once: there is none now.
        let memory = unsafe { slot.memory.assume_init_read() };
        let len = slot.len;
        if cookie == self.front && self.ended_early == 0 {
            self.front = cookie.next();
        } else {
            self.note_early_end();
        }
        Some((kind, len, memory))
    }

    /// Moves `front` past what has ended.
    #[cold]
    fn note_early_end(&mut self) {
        self.ended_early += 1;
        while self.front != self.next && self.slots[self.slot(self.front)].kind.is_none() {
            self.front = self.front.next();
            self.ended_early -= 1;
        }
    }

    /// Where an overtaken operation is. Their distances from the first ascend, also where cookies
    /// wrap.
    fn find_overtaken(&self, cookie: Cookie) -> Option<usize> {
        let first = self.overtaken.first()?.cookie;
        let distance = |other: Cookie| other.get().wrapping_sub(first.get());
        let key = distance(cookie);
        self.overtaken.binary_search_by_key(&key, |overtaken| distance(overtaken.cookie)).ok()
    }

    #[cold]
    fn take_overtaken(&mut self, cookie: Cookie) -> Option<(OperationKind, usize, M)> {
        let index = self.find_overtaken(cookie)?;
        let Overtaken { kind, len, memory, .. } = self.overtaken.remove(index);
        Some((kind, len, memory))
    }

    /// Takes out all that is kept, of operations that will not be reported.
    pub(crate) fn drain(&mut self, mut each: impl FnMut(M)) {
        self.overtaken.drain(..).for_each(|overtaken| each(overtaken.memory));
        while self.front != self.next {
            if let Some((_, _, memory)) = self.take(self.front) {
                each(memory);
            } else {
                debug_assert!(false, "the slot at the front is never empty");
                return;
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
        // What was kept for it goes to its slot.
        let (is, is_to_be) = (self.slot(self.next), self.slot(cookie));
        self.slots.swap(is, is_to_be);
        self.front = cookie;
    }

    /// Makes room for one more operation at least.
    #[cold]
    fn make_room(&mut self) {
        if self.ended_early < self.room.div_ceil(2) || self.room == 0 {
            return self.double_room();
        }
        let cookie = self.front;
        if let Some((kind, len, memory)) = self.take(cookie) {
            self.overtaken.push(Overtaken { cookie, kind, len, memory });
        } else {
            debug_assert!(false, "the slot at the front is never empty");
        }
    }

    fn double_room(&mut self) {
        let (old, new) = (self.room, (self.room * 2).max(MIN_SLOTS));
        if new > self.slots.len() {
            let mut slots = std::mem::take(&mut self.slots).into_vec();
            slots.resize_with(new, Slot::new);
            self.slots = slots.into();
        }
        self.room = new;
        let mut cookie = self.front;
        while cookie != self.next {
            // Either the same, or as far behind the old ones as it was among them.
            let (is, is_to_be) = (cookie.get() as usize & (old - 1), self.slot(cookie));
            self.slots.swap(is, is_to_be);
            cookie = cookie.next();
        }
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
        cookie.get() as usize & self.room.wrapping_sub(1)
    }
}

impl<M> Drop for InFlight<M> {
    fn drop(&mut self) {
        self.drain(drop);
    }
}

impl<M> fmt::Debug for InFlight<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InFlight")
            .field("front", &self.front)
            .field("next", &self.next)
            .field("ended_early", &self.ended_early)
            .field("overtaken", &self.overtaken.len())
            .field("spurious", &self.spurious)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
