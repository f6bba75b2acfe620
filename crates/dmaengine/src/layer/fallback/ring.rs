//! The operations of a channel, from their submission to their report.

use std::collections::VecDeque;

use super::{
    aside::{Aside, Kept},
    watch::Load,
};
use crate::{
    Completion, Cookie, FallbackCause, Flags, Operation, Ordering, Status,
    software::{self, Descriptor},
};

/// The operations that were submitted and not reported, in the order of their submission, and where
/// each of them is.
///
/// ```text
///        tail          started            issued            head
///   ------|---------------|------------------|----------------|------
///         | engine, CPU,  | behind a fence   | no doorbell    |
///         | or ended      |                  | yet            |
/// ```
///
/// `started` may be past `issued`: without a fence before it an operation is given to the engine as
/// soon as it is submitted, and only its doorbell waits.
///
/// Reported out of order, an operation leaves its slot when it ends. The ring may then come round to
/// the slot of one that the engine still has, which is put [aside](Aside). It can be in no other
/// place: what waits, or has no doorbell, has only the like behind it, which fills the ring.
#[derive(Debug)]
pub(super) struct Ring {
    /// Of a position, which never wraps: the position modulo the ring's size, a power of two.
    slots: Box<[Slot]>,
    /// In order, the oldest that was not reported. Out of order, how many were reported.
    tail: u64,
    /// The first that was neither given to the engine nor to the CPU.
    started: u64,
    /// The first that waits for the doorbell.
    issued: u64,
    /// Of the next operation to be submitted.
    head: u64,
    /// The position of what the engine knows by a cookie: the cookie modulo the ring's size. Of the
    /// operations in the slots, no two share a place: their cookies are closer than their positions.
    given: Box<[u64]>,
    aside: Aside,
    /// No cookie before it is with the engine, but for those put aside.
    oldest: Cookie,
    /// After the last that was given to the engine.
    next: Cookie,
    /// After the last that the engine's doorbell has rung for.
    rung: Cookie,
    in_engine: usize,
    bytes_in_engine: usize,
    /// Waiting to be executed by the CPU.
    on_cpu: usize,
    /// No position before it waits for the CPU.
    on_cpu_from: u64,
    /// What can be reported, out of order. In order, it is what has ended from `tail` on.
    ended: Option<VecDeque<Completion>>,
}

#[derive(Debug, Default)]
struct Slot {
    descriptor: Descriptor,
    place: Place,
}

#[derive(Clone, Copy, Debug, Default)]
enum Place {
    /// There is no operation here.
    #[default]
    Free,
    /// Behind a fence, or behind something that is.
    Waiting,
    /// With the engine, which knows it by this.
    Engine(Cookie),
    /// Waiting for the doorbell, to be executed by the CPU.
    Cpu(FallbackCause),
    /// In order alone: not reported yet.
    Ended { status: Status, fallback: Option<FallbackCause>, bytes: usize },
}

/// What a completion of the engine meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The operation did what it was for.
    Done,
    /// The engine failed it: the CPU has to do it again.
    Failed,
    /// The engine does not have such an operation.
    Spurious,
}

impl Ring {
    /// A ring for `size` operations, a power of two, which are reported in this order.
    pub(super) fn new(size: usize, ordering: Ordering) -> Self {
        assert!(size.is_power_of_two(), "a position is masked");
        Self {
            slots: (0..size).map(|_| Slot::default()).collect(),
            tail: 0,
            started: 0,
            issued: 0,
            head: 0,
            given: vec![0; size].into_boxed_slice(),
            aside: Aside::default(),
            oldest: Cookie::FIRST,
            next: Cookie::FIRST,
            rung: Cookie::FIRST,
            in_engine: 0,
            bytes_in_engine: 0,
            on_cpu: 0,
            on_cpu_from: 0,
            ended: (ordering == Ordering::OutOfOrder).then(|| VecDeque::with_capacity(size)),
        }
    }

    const fn mask(&self) -> usize {
        self.slots.len() - 1
    }

    const fn slot(&mut self, position: u64) -> &mut Slot {
        let index = position as usize & self.mask();
        &mut self.slots[index]
    }

    const fn given(&mut self, cookie: Cookie) -> &mut u64 {
        let index = cookie.get() as usize & self.mask();
        &mut self.given[index]
    }

    pub(super) const fn space(&self) -> usize {
        self.slots.len() - (self.head - self.tail) as usize
    }

    /// Whether anything is with the engine.
    pub(super) const fn is_with_engine(&self) -> bool {
        self.in_engine > 0
    }

    /// Whether the engine has operations that its doorbell has not rung for.
    pub(super) fn is_unrung(&self) -> bool {
        self.rung != self.next
    }

    /// The engine's doorbell has rung.
    pub(super) const fn ring_all(&mut self) {
        self.rung = self.next;
    }

    /// Whether the next operation to be added, with these flags, can be started at once.
    #[inline]
    pub(super) const fn starts_at_once(&self, flags: Flags) -> bool {
        self.started == self.head && (!flags.contains(Flags::FENCE) || self.is_quiet())
    }

    /// Whether everything that was started has ended.
    const fn is_quiet(&self) -> bool {
        self.in_engine + self.on_cpu == 0 && self.aside.is_settled()
    }

    /// Adds an operation and returns its position; there must be space.
    #[inline]
    pub(super) fn push(&mut self, operation: &Operation<'_>, flags: Flags) -> u64 {
        let position = self.head;
        if !matches!(self.slot(position).place, Place::Free) {
            self.put_aside(position);
        }
        let slot = self.slot(position);
        slot.descriptor.set(operation, flags);
        slot.place = Place::Waiting;
        self.head += 1;
        position
    }

    /// Makes room for the operation at `position`.
    #[cold]
    fn put_aside(&mut self, position: u64) {
        let lapped = position - self.slots.len() as u64;
        let Slot { descriptor, place } = self.slot(position);
        let Place::Engine(engines) = *place else {
            unreachable!("only what the engine has stays behind: {place:?}")
        };
        let descriptor = std::mem::take(descriptor);
        self.aside.put(engines, cookie(lapped), descriptor);
    }

    /// Whether there is nothing to start or to execute until the doorbell rings or something ends.
    #[inline]
    pub(super) const fn is_settled(&self) -> bool {
        self.started >= self.issued && self.on_cpu == 0 && self.aside.is_settled()
    }

    /// The operation that is to be started next, unless it waits for its doorbell or at its fence.
    pub(super) fn next_to_start(&mut self) -> Option<u64> {
        if self.started >= self.issued {
            return None;
        }
        let position = self.started;
        let fenced = self.slot(position).descriptor.flags().contains(Flags::FENCE);
        (!fenced || self.is_quiet()).then_some(position)
    }

    /// The operation at a position.
    pub(super) fn operation(&self, position: u64) -> (Operation<'_>, Flags) {
        let descriptor = &self.slots[position as usize & self.mask()].descriptor;
        (descriptor.operation(), descriptor.flags())
    }

    /// The next operation was submitted to the engine.
    #[inline]
    pub(super) fn give(&mut self, position: u64, cookie: Cookie) {
        debug_assert_eq!(position, self.started, "operations start in order");
        if self.in_engine == 0 {
            self.oldest = cookie;
        }
        if !self.is_unrung() {
            // Before the first, the engine may have begun its cookies anywhere.
            self.rung = cookie;
        }
        *self.given(cookie) = position;
        let slot = self.slot(position);
        slot.place = Place::Engine(cookie);
        self.bytes_in_engine += slot.descriptor.len();
        self.in_engine += 1;
        self.next = cookie.next();
        self.started = position + 1;
    }

    /// The next operation is the CPU's.
    pub(super) fn assign(&mut self, position: u64, cause: FallbackCause) {
        debug_assert_eq!(position, self.started, "operations start in order");
        self.started = position + 1;
        self.put_on_cpu(position, cause);
    }

    fn put_on_cpu(&mut self, position: u64, cause: FallbackCause) {
        self.slot(position).place = Place::Cpu(cause);
        let from = if self.on_cpu == 0 { position } else { self.on_cpu_from.min(position) };
        self.on_cpu_from = from;
        self.on_cpu += 1;
    }

    /// Everything submitted so far may move. Whether that is news.
    pub(super) const fn issue(&mut self) -> bool {
        let any = self.issued != self.head;
        self.issued = self.head;
        any
    }

    /// The oldest operation that is with the engine, and its length.
    fn oldest_in_engine(&mut self) -> Option<(Cookie, usize)> {
        if self.in_engine == 0 {
            return None;
        }
        if let Some(oldest) = self.aside.oldest() {
            return Some(oldest);
        }
        while self.oldest.is_before(self.next) {
            let oldest = self.oldest;
            let position = *self.given(oldest);
            if self.is_engines(position, oldest) {
                return Some((oldest, self.slot(position).descriptor.len()));
            }
            self.oldest = oldest.next();
        }
        None
    }

    /// What the engine, which ends in this order, has to do; `None` if its doorbell has rung for
    /// nothing of it.
    pub(super) fn load(&mut self, ordering: Ordering) -> Option<Load> {
        let (oldest, len) = self.oldest_in_engine()?;
        if !oldest.is_before(self.rung) {
            return None;
        }
        let (end, bytes) = match ordering {
            Ordering::InOrder => (oldest.next(), len),
            Ordering::OutOfOrder => (self.rung, self.bytes_in_engine),
        };
        Some(Load { oldest, end, bytes })
    }

    #[inline]
    fn is_engines(&mut self, position: u64, cookie: Cookie) -> bool {
        matches!(self.slot(position).place, Place::Engine(engines) if engines == cookie)
    }

    #[inline]
    fn leave_engine(&mut self, position: u64) {
        self.in_engine -= 1;
        self.bytes_in_engine -= self.slot(position).descriptor.len();
    }

    /// The engine reports `completion`: it is reported at once if it can be. If the engine failed
    /// the operation, the CPU is to do it again, for this cause.
    #[inline]
    pub(super) fn end_and_report(
        &mut self,
        completion: &Completion,
        cause: FallbackCause,
        report: &mut dyn FnMut(Completion),
    ) -> End {
        let position = *self.given(completion.cookie);
        let first = self.ended.is_some() || position == self.tail;
        if !first || !completion.status.is_done() || !self.is_engines(position, completion.cookie) {
            return self.end(completion, cause);
        }
        self.leave_engine(position);
        self.slot(position).place = Place::Free;
        self.tail += 1;
        report(Completion { cookie: cookie(position), ..*completion });
        End::Done
    }

    /// As [`end_and_report`](Self::end_and_report), but it is kept to be reported.
    pub(super) fn end(&mut self, completion: &Completion, cause: FallbackCause) -> End {
        let position = *self.given(completion.cookie);
        if self.is_engines(position, completion.cookie) {
            self.leave_engine(position);
            if completion.status.is_done() {
                self.set_ended(Completion { cookie: cookie(position), ..*completion }, position);
                return End::Done;
            }
            self.put_on_cpu(position, cause);
            return End::Failed;
        }
        let Some((cookie, len)) = self.aside.end(completion, cause) else { return End::Spurious };
        self.in_engine -= 1;
        self.bytes_in_engine -= len;
        if completion.status.is_done() {
            self.report_later(Completion { cookie, ..*completion });
            return End::Done;
        }
        End::Failed
    }

    /// The operation at `position` has ended like this.
    fn set_ended(&mut self, completion: Completion, position: u64) {
        let Completion { status, fallback, bytes, .. } = completion;
        if self.ended.is_some() {
            self.slot(position).place = Place::Free;
            self.report_later(completion);
        } else {
            self.slot(position).place = Place::Ended { status, fallback, bytes };
        }
    }

    /// Out of order.
    fn report_later(&mut self, completion: Completion) {
        if let Some(ended) = &mut self.ended {
            // At most as many as can be in flight: it does not grow.
            ended.push_back(completion);
        }
    }

    /// The engine has been proven idle, and has reported all that it will: the rest is the CPU's,
    /// for this cause.
    pub(super) fn take_from_engine(&mut self, cause: FallbackCause) {
        while let Some((oldest, len)) = self.oldest_in_engine() {
            let position = *self.given(oldest);
            self.in_engine -= 1;
            self.bytes_in_engine -= len;
            if self.is_engines(position, oldest) {
                self.put_on_cpu(position, cause);
            } else {
                self.aside.end(&Completion::failed(oldest, Status::Aborted), cause);
            }
        }
    }

    /// Executes what is the CPU's and whose doorbell has rung. Tells the cause and length of each;
    /// returns whether there was any.
    pub(super) fn execute(&mut self, mut each: impl FnMut(FallbackCause, usize)) -> bool {
        let end = self.issued.min(self.started);
        let mut any = false;
        while let Some((Kept { cookie, descriptor, .. }, cause)) = self.aside.next_on_cpu() {
            // SAFETY: as below; the engine has reported it, or was proven idle.
            let completion = unsafe { execute(&descriptor, cookie, cause) };
            self.report_later(completion);
            each(cause, completion.bytes);
            any = true;
        }
        while self.on_cpu > 0 && self.on_cpu_from < end {
            let position = self.on_cpu_from;
            let Slot { descriptor, place } = self.slot(position);
            if let Place::Cpu(cause) = *place {
                // SAFETY: the operation was submitted and not reported, so its memory is ours by
                // the contract of `submit`, and the engine's no more: it was never given to it, or
                // was reported by it, or the engine was proven idle.
                let completion = unsafe { execute(descriptor, cookie(position), cause) };
                self.on_cpu -= 1;
                self.set_ended(completion, position);
                each(cause, completion.bytes);
                any = true;
            }
            self.on_cpu_from += 1;
        }
        any
    }

    /// Whether something can be reported.
    pub(super) fn has_ended(&mut self) -> bool {
        match &self.ended {
            Some(ended) => !ended.is_empty(),
            None => {
                let tail = self.tail;
                tail < self.head && matches!(self.slot(tail).place, Place::Ended { .. })
            }
        }
    }

    /// Reports what has ended: in order, as far as there is no gap.
    #[inline]
    pub(super) fn report(&mut self, report: &mut dyn FnMut(Completion)) {
        while let Some(completion) = self.next_to_report() {
            self.tail += 1;
            report(completion);
        }
    }

    fn next_to_report(&mut self) -> Option<Completion> {
        if let Some(ended) = &mut self.ended {
            return ended.pop_front();
        }
        let position = self.tail;
        if position == self.head {
            return None;
        }
        let place = &mut self.slot(position).place;
        let Place::Ended { status, fallback, bytes } = *place else { return None };
        *place = Place::Free;
        Some(Completion { cookie: cookie(position), status, bytes, fallback })
    }

    /// Ends everything that has not ended, as aborted. The engine must have been proven idle.
    pub(super) fn abort(&mut self) {
        while let Some(cookie) = self.aside.abort() {
            self.report_later(Completion::failed(cookie, Status::Aborted));
        }
        for position in self.head.saturating_sub(self.slots.len() as u64)..self.head {
            if !matches!(self.slot(position).place, Place::Free | Place::Ended { .. }) {
                self.set_ended(Completion::failed(cookie(position), Status::Aborted), position);
            }
        }
        (self.in_engine, self.bytes_in_engine, self.on_cpu) = (0, 0, 0);
        (self.started, self.issued) = (self.head, self.head);
        self.rung = self.next;
    }
}

/// Has the CPU do an operation, for this cause.
///
/// # Safety
///
/// Its memory is ours, as `submit` demands, and no engine has it.
unsafe fn execute(descriptor: &Descriptor, cookie: Cookie, cause: FallbackCause) -> Completion {
    // SAFETY: by contract.
    let status = unsafe { software::execute(&descriptor.operation(), descriptor.flags()) };
    Completion { cookie, status, bytes: descriptor.len(), fallback: Some(cause) }
}

/// The cookie of the operation at a position.
pub(super) const fn cookie(position: u64) -> Cookie {
    Cookie::new(Cookie::FIRST.get().wrapping_add(position))
}
