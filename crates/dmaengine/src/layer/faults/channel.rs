//! A channel with faults.
//!
//! ```text
//!    front                next            issued           submitted
//!      |  reported, ended,  |  wait to be    |  wait for the   |
//!      |  or under way below|  passed on     |  doorbell       |
//!   ---+--------------------+----------------+-----------------+---> positions, never wrapping
//! ```
//!
//! Operations are dealt with in the order of their submission: passed on to the channel below, or
//! ended without. One is dealt with when it is submitted, so that the channel below can refuse it,
//! unless it cannot be yet: it, or one before it, is fenced and earlier ones run, or it is to fail
//! without being passed on, which no operation does before its doorbell.
//!
//! Garbage is written to a target only by the thread that uses the channel, between the operation's
//! doorbell and its report, and either before the doorbell below or after the end there. A
//! fenced operation may use the same memory as those before it. So it is passed on only when all of
//! those have ended below and have their garbage.

use std::{
    num::NonZeroU64,
    ops::Range,
    os::fd::BorrowedFd,
    ptr::NonNull,
    time::{Duration, Instant},
};

use super::{
    fate::{Fate, Fates},
    garbage::{for_each_part, overwrite},
    plan::{Delay, Fault, FaultPlan, Fences},
};
use crate::{
    Capabilities, ChannelInfo, Completion, Cookie, DmaChannel, FallbackCause, Flags, Operation,
    OperationKind, Ordering, Status, Stuck, SubmitError, layer::passed::Passed, random::SplitMix64,
    software::Descriptor,
};

/// A delay in later operations ends after so many polls in any case: the client may wait for this
/// one before it submits another.
const MOST_POLLS: u64 = 256;

#[derive(Debug)]
pub(super) struct FaultsChannel {
    below: Box<dyn DmaChannel>,
    info: ChannelInfo,
    plan: Settings,
    fates: Fates,
    random: SplitMix64,
    /// Of a position: the position modulo the ring's size.
    slots: Box<[Slot]>,
    /// All before it are reported.
    front: u64,
    /// The first that was not dealt with.
    next: u64,
    issued: u64,
    submitted: u64,
    /// Descriptors of the operations between `front` and `submitted`.
    used: usize,
    passed: Passed,
    /// Operations that the channel below has and has not ended.
    under_way: usize,
    /// Operations not reported that the plan lets fail.
    failing: usize,
    /// Operations whose completions are lost.
    lost: usize,
    /// Of an out-of-order channel: ended and not reported.
    ready: Vec<u64>,
    /// Of those: to be reported now, the last one first.
    due: Vec<u64>,
    /// What the channel below has just reported; empty between calls.
    ended: Vec<Completion>,
    polls: u64,
    /// The next poll reports all that it can: the client asked what there is to wait for, and was
    /// told that there is nothing.
    flush: bool,
    /// A `terminate_sync` has not succeeded yet.
    stopping: bool,
    /// Stops to be refused.
    refusals: u64,
    /// The engine has halted or vanished.
    is_down: bool,
    vanished: Option<Vanished>,
    /// Memory that operations no longer own, to be written all the same.
    scribbles: Vec<Scribble>,
}

/// What is needed of a plan beside its rules.
#[derive(Clone, Copy, Debug)]
struct Settings {
    reorder: bool,
    poison: bool,
    partial: bool,
    tidy: bool,
    fences: Fences,
    stuck: u64,
}

#[derive(Debug, Default)]
struct Slot {
    descriptor: Descriptor,
    /// Ring descriptors that it takes.
    count: usize,
    course: Course,
    delay: Option<Delay>,
    scribble: bool,
    state: State,
}

/// What an operation's fate makes of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Course {
    /// As the channel below does it.
    #[default]
    Natural,
    /// It fails, after the channel below did it or without.
    Fail { status: Status, passed: bool },
    /// It is not attempted.
    Skip,
    /// It ends, and nobody is told.
    Lose,
    /// The engine halts before it.
    Halt(Status),
    /// The engine vanishes.
    Vanish { stops: Option<NonZeroU64> },
}

#[derive(Clone, Copy, Debug, Default)]
enum State {
    /// Not dealt with.
    #[default]
    Waiting,
    /// Under way below.
    Passed,
    Ended(End),
    /// Ended, and nobody is told.
    Lost,
    Reported,
}

#[derive(Clone, Copy, Debug)]
struct End {
    status: Status,
    bytes: usize,
    fallback: Option<FallbackCause>,
    /// The number of the poll, for a delay in polls.
    poll: u64,
    /// For a delay in time.
    at: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Vanished {
    stops: Option<NonZeroU64>,
}

#[derive(Clone, Copy, Debug)]
struct Scribble {
    address: NonNull<u8>,
    value: u8,
}

// SAFETY: the address leads to memory that stays valid and unshared, whichever thread has the
// channel: who asked for scribbles promised that.
unsafe impl Send for Scribble {}

/// Whether an operation could be dealt with.
enum Step {
    Done,
    /// It has to wait for others.
    Wait,
}

impl FaultsChannel {
    pub(super) fn new(
        below: Box<dyn DmaChannel>,
        info: ChannelInfo,
        plan: &FaultPlan,
        fates: Fates,
        random: SplitMix64,
    ) -> Self {
        let FaultPlan { rules: _, reorder, poison, partial, tidy, fences, stuck, seed: _ } = *plan;
        let ring_size = info.ring_size;
        Self {
            below,
            plan: Settings { reorder, poison, partial, tidy, fences, stuck },
            fates,
            random,
            slots: (0..ring_size).map(|_| Slot::default()).collect(),
            front: 0,
            next: 0,
            issued: 0,
            submitted: 0,
            used: 0,
            passed: Passed::new(ring_size),
            under_way: 0,
            failing: 0,
            lost: 0,
            ready: Vec::with_capacity(ring_size),
            due: Vec::with_capacity(ring_size),
            ended: Vec::with_capacity(ring_size),
            polls: 0,
            flush: false,
            stopping: false,
            refusals: stuck,
            is_down: false,
            vanished: None,
            scribbles: Vec::new(),
            info,
        }
    }

    const fn slot(&mut self, position: u64) -> &mut Slot {
        let index = position as usize % self.slots.len();
        &mut self.slots[index]
    }

    /// What becomes of an operation that the client submits now.
    fn course(&mut self, fate: Fate, flags: Flags) -> Course {
        match fate.fault {
            Some(Fault::Fail(Status::NotAttempted)) => Course::Skip,
            Some(Fault::Fail(status)) => Course::Fail { status, passed: self.random.below(2) == 0 },
            Some(Fault::Lose) => Course::Lose,
            Some(Fault::Halt(status)) => Course::Halt(status),
            Some(Fault::Vanish { stops }) => Course::Vanish { stops },
            // `Full` has been dealt with: there is no operation.
            Some(Fault::Delay(_) | Fault::Full) | None => {
                let is_behind_failure = flags.contains(Flags::FENCE) && self.failing > 0;
                let skip = is_behind_failure
                    && match self.plan.fences {
                        Fences::Either => self.random.below(2) == 0,
                        Fences::Done => false,
                        Fences::NotAttempted => true,
                    };
                if skip { Course::Skip } else { Course::Natural }
            }
        }
    }

    /// Takes in what has ended below, and deals with those that waited for it. Whether anything
    /// happened.
    fn advance(&mut self) -> bool {
        let has_ended = self.collect();
        self.deal_with_issued() || has_ended
    }

    /// Takes in what has ended below.
    fn collect(&mut self) -> bool {
        let mut ended = std::mem::take(&mut self.ended);
        self.below.poll(&mut |completion| ended.push(completion));
        let any = !ended.is_empty();
        for completion in ended.drain(..) {
            if let Some(position) = self.passed.take(completion.cookie) {
                self.under_way -= 1;
                self.end_passed(position, completion);
            }
        }
        self.ended = ended;
        any
    }

    /// The channel below has ended an operation.
    fn end_passed(&mut self, position: u64, completion: Completion) {
        let Completion { cookie: _, status, bytes, fallback } = completion;
        let Slot { descriptor, course, state, .. } = self.slot(position);
        let (len, kind, course) = (descriptor.len(), descriptor.operation().kind(), *course);
        if course == Course::Lose {
            *state = State::Lost;
        }
        match course {
            _ if self.vanished.is_some() => {
                self.garble(position, 0..len);
                self.end(position, Status::DeviceLost, 0, None);
            }
            Course::Lose => self.lost += 1,
            Course::Fail { status: failure, .. } if status.is_done() => {
                let is_copy = matches!(kind, OperationKind::Memcpy | OperationKind::MemcpySg);
                let arrived = if self.plan.partial && is_copy { self.random.below(len) } else { 0 };
                self.garble(position, arrived..len);
                self.end(position, failure, arrived, fallback);
            }
            _ => self.end(position, status, bytes, fallback),
        }
    }

    /// Deals with operations that were issued, as far as that can be.
    fn deal_with_issued(&mut self) -> bool {
        let mut any = false;
        while self.next < self.issued && !self.stopping {
            let position = self.next;
            let Step::Done = self.deal_with(position) else { break };
            // A halt deals with those behind it too.
            self.next = self.next.max(position + 1);
            any = true;
        }
        if any {
            // What was passed on before this has been issued: nothing is passed on unissued while
            // an issued one waits.
            self.below.issue_pending();
        }
        any
    }

    /// Deals with an operation that was issued, the first that was not dealt with.
    fn deal_with(&mut self, position: u64) -> Step {
        let others = self.under_way > 0;
        let Slot { descriptor, course, .. } = self.slot(position);
        let len = descriptor.len();
        let is_fenced = descriptor.flags().contains(Flags::FENCE);
        match *course {
            Course::Vanish { stops } => self.vanish(stops),
            _ if is_fenced && others => return Step::Wait,
            Course::Halt(_) if others => return Step::Wait,
            Course::Halt(status) => self.halt(position, status),
            Course::Skip => self.end(position, Status::NotAttempted, 0, None),
            Course::Fail { status, passed: false } => {
                self.garble(position, 0..len);
                self.end(position, status, 0, None);
            }
            Course::Fail { .. } | Course::Lose | Course::Natural => match self.pass_on(position) {
                Ok(()) => {}
                Err(SubmitError::RingFull) => return Step::Wait,
                Err(SubmitError::Unreachable { .. }) => {
                    self.end(position, Status::BadAddress, 0, None);
                }
                Err(_) => self.end(position, Status::Aborted, 0, None),
            },
        }
        Step::Done
    }

    /// Submits an operation to the channel below.
    fn pass_on(&mut self, position: u64) -> Result<(), SubmitError> {
        let index = position as usize % self.slots.len();
        let Slot { descriptor, state, .. } = &mut self.slots[index];
        // SAFETY: our client keeps its promise about the operation's memory until we report it, or
        // our `terminate_sync` succeeds; both come after the same of the channel below. If it is
        // fenced, all that may share its memory have ended.
        let cookie = unsafe { self.below.submit(&descriptor.operation(), descriptor.flags())? };
        *state = State::Passed;
        self.under_way += 1;
        self.passed.push(cookie, position);
        Ok(())
    }

    /// Overwrites the targets of an operation that was passed on, and whose doorbell below is about
    /// to be rung.
    fn poison(&mut self, position: u64) {
        let pattern = self.random.next();
        let Slot { descriptor, .. } = self.slot(position);
        // SAFETY: the targets are the operation's. The channel below may not look at them before
        // the doorbell, which this thread rings later. If the operation is fenced, all that may
        // share its memory have ended; otherwise nothing does.
        unsafe { overwrite(&descriptor.operation(), 0..descriptor.len(), pattern) };
    }

    /// Writes garbage somewhere in a range of the targets of an operation that is not reported, and
    /// that the channel below has not got, or has ended.
    fn garble(&mut self, position: u64, range: Range<usize>) {
        if self.plan.tidy {
            return;
        }
        let start = range.start + self.random.below(range.len());
        let end = start + 1 + self.random.below(range.end - start);
        let pattern = self.random.next();
        let operation = self.slot(position).descriptor.operation();
        // SAFETY: the targets are the operation's until we report it, and the channel below does
        // not touch them now. No other operation that may use the same memory, which is a fenced
        // one behind it, has been passed on: this one has not ended for us.
        unsafe { overwrite(&operation, start..end, pattern) };
    }

    /// An operation has ended, and is to be reported.
    fn end(
        &mut self,
        position: u64,
        status: Status,
        bytes: usize,
        fallback: Option<FallbackCause>,
    ) {
        let poll = self.polls;
        let is_in_order = self.info.ordering == Ordering::InOrder;
        let Slot { state, delay, .. } = self.slot(position);
        let at = matches!(delay, Some(Delay::Time(_))).then(Instant::now);
        let is_new = !matches!(state, State::Ended(_));
        *state = State::Ended(End { status, bytes, fallback, poll, at });
        if is_new && !is_in_order {
            self.ready.push(position);
        }
    }

    /// The engine halts at an operation: those before it have ended below.
    fn halt(&mut self, position: u64, status: Status) {
        let len = self.slot(position).descriptor.len();
        self.garble(position, 0..len);
        self.end(position, status, 0, None);
        for behind in position + 1..self.submitted {
            self.end(behind, Status::Aborted, 0, None);
        }
        self.is_down = true;
        (self.next, self.issued) = (self.submitted, self.submitted);
    }

    /// The engine vanishes. What the channel below still has ends when it ends there.
    fn vanish(&mut self, stops: Option<NonZeroU64>) {
        self.vanished = Some(Vanished { stops });
        self.is_down = true;
        self.lost = 0;
        for position in self.front..self.submitted {
            if !matches!(self.slot(position).state, State::Passed | State::Reported) {
                self.end(position, Status::DeviceLost, 0, None);
            }
        }
        (self.next, self.issued) = (self.submitted, self.submitted);
    }

    /// The end of an operation, if it has one that can be reported.
    fn due(&self, position: u64) -> Option<End> {
        let slot = &self.slots[position as usize % self.slots.len()];
        let State::Ended(end) = slot.state else { return None };
        let is_due = match slot.delay {
            None => true,
            Some(Delay::Polls(polls)) => self.flush || self.polls - end.poll >= polls,
            Some(Delay::Operations(count)) => {
                self.flush
                    || self.submitted - position > count
                    || self.polls - end.poll >= MOST_POLLS
            }
            Some(Delay::Time(time)) => end.at.is_none_or(|at| at.elapsed() >= time),
        };
        is_due.then_some(end)
    }

    fn report_in_order(&mut self, report: &mut dyn FnMut(Completion)) {
        while self.front < self.submitted
            && let Some(end) = self.due(self.front)
        {
            self.report(self.front, end, report);
        }
    }

    fn report_out_of_order(&mut self, report: &mut dyn FnMut(Completion)) {
        let mut index = 0;
        while let Some(&position) = self.ready.get(index) {
            let holds_back = self.plan.reorder && self.random.below(4) == 0 && !self.flush;
            if holds_back || self.due(position).is_none() {
                index += 1;
            } else {
                self.ready.remove(index);
                self.due.push(position);
            }
        }
        self.due.reverse();
        if self.plan.reorder && !self.flush {
            for last in (1..self.due.len()).rev() {
                self.due.swap(last, self.random.below(last + 1));
            }
        }
        while let Some(position) = self.due.pop() {
            if let State::Ended(end) = self.slot(position).state {
                self.report(position, end, report);
            }
        }
    }

    fn report(&mut self, position: u64, end: End, report: &mut dyn FnMut(Completion)) {
        let Slot { descriptor, course, scribble, state, .. } = self.slot(position);
        *state = State::Reported;
        let is_failure = course.is_failure();
        if *scribble {
            let len = descriptor.len();
            self.plan_scribbles(position, len);
        }
        self.failing -= usize::from(is_failure);
        while self.front < self.submitted
            && let Slot { state: State::Reported, count, .. } = *self.slot(self.front)
        {
            self.used -= count;
            self.front += 1;
        }
        let End { status, bytes, fallback, .. } = end;
        report(Completion { cookie: cookie(position), status, bytes, fallback });
    }

    /// Notes some bytes of an operation's targets, to be written when it no longer owns them.
    fn plan_scribbles(&mut self, position: u64, len: usize) {
        let byte = self.random.below(len);
        let value = self.random.next() as u8 | 1;
        let Self { slots, scribbles, .. } = self;
        let operation = slots[position as usize % slots.len()].descriptor.operation();
        for_each_part(&operation, byte..byte + 1, |address, _| {
            scribbles.push(Scribble { address, value });
        });
    }

    /// Writes over memory that operations no longer own.
    fn scribble(&mut self) {
        for Scribble { address, value } in self.scribbles.drain(..) {
            // SAFETY: this breaks the contract of `DmaChannel`. Who made the layer with scribbles
            // promised that the memory is still valid, and that nobody uses it during this call.
            unsafe { address.write(address.read() ^ value) };
        }
    }
}

impl Course {
    /// Whether the plan lets the operation fail.
    const fn is_failure(self) -> bool {
        !matches!(self, Self::Natural | Self::Lose)
    }

    /// Whether the channel below gets it.
    const fn is_passed_on(self) -> bool {
        matches!(self, Self::Natural | Self::Lose | Self::Fail { passed: true, .. })
    }
}

// SAFETY:
// - cookies count positions;
// - an operation is reported when its state is `Ended`, which makes it `Reported`, and a position is
//   used once;
// - it becomes `Ended` when the channel below has reported it, which touches it no more and whose
//   writes are visible to this thread, or if that never got it; or when the channel below has been
//   stopped. This layer writes its targets before it becomes `Ended`. (With scribbles, whose
//   constructor is unsafe for that reason, also afterwards.)
// - the channel below writes nothing else, and this layer writes the targets only;
// - a refused operation is not in the ring, and was refused by the channel below or not shown to it;
// - `terminate_sync` succeeds after that of the channel below, and everything is `Ended` or
//   `Reported` then. Dropping drops the channel below.
unsafe impl DmaChannel for FaultsChannel {
    fn info(&self) -> &ChannelInfo {
        &self.info
    }

    fn space(&self) -> usize {
        self.info.ring_size.saturating_sub(self.used)
    }

    unsafe fn submit(
        &mut self,
        operation: &Operation<'_>,
        flags: Flags,
    ) -> Result<Cookie, SubmitError> {
        let mut count = self.info.check(operation, flags)?;
        if self.stopping || self.is_down {
            return Err(SubmitError::ChannelDown);
        }
        if self.space() < count {
            return Err(SubmitError::RingFull);
        }
        let fate = self.fates.next();
        if fate.fault == Some(Fault::Full) {
            return Err(SubmitError::RingFull);
        }
        let course = self.course(fate, flags);
        let position = self.submitted;
        let slot = self.slot(position);
        slot.descriptor.set(operation, flags);
        slot.course = course;
        slot.delay = fate.delay;
        slot.scribble = fate.scribble;
        slot.state = State::Waiting;
        let must_wait = flags.contains(Flags::FENCE) && self.under_way > 0;
        if self.next == position && course.is_passed_on() && !must_wait {
            let before = self.below.space();
            self.pass_on(position)?;
            self.next += 1;
            // Of several sources it may take more.
            count = count.max(before.saturating_sub(self.below.space()));
        }
        self.slot(position).count = count;
        self.submitted += 1;
        self.used += count;
        self.failing += usize::from(course.is_failure());
        Ok(cookie(position))
    }

    fn issue_pending(&mut self) {
        if self.plan.poison {
            for position in self.issued..self.submitted {
                if matches!(self.slot(position).state, State::Passed) {
                    self.poison(position);
                }
            }
        }
        self.issued = self.submitted;
        self.below.issue_pending();
        self.deal_with_issued();
    }

    fn poll(&mut self, report: &mut dyn FnMut(Completion)) {
        self.scribble();
        self.polls += 1;
        self.advance();
        match self.info.ordering {
            Ordering::InOrder => self.report_in_order(report),
            Ordering::OutOfOrder => self.report_out_of_order(report),
        }
        self.flush = false;
    }

    fn arm(&mut self) -> bool {
        let has_event = self.info.capabilities.contains(Capabilities::INTERRUPT);
        loop {
            if has_event && self.below.arm() {
                return true;
            }
            if !self.advance() {
                break;
            }
        }
        if self.under_way > 0 {
            return false;
        }
        // Everything that was issued has ended: the next poll reports it, or it is lost, and then
        // its event is too.
        self.flush = true;
        let can_report = match self.info.ordering {
            Ordering::InOrder => self.front < self.submitted && self.due(self.front).is_some(),
            Ordering::OutOfOrder => !self.ready.is_empty(),
        };
        has_event && self.lost > 0 && !can_report
    }

    fn event(&self) -> Option<BorrowedFd<'_>> {
        let has_event = self.info.capabilities.contains(Capabilities::INTERRUPT);
        self.below.event().filter(|_| has_event)
    }

    fn terminate_sync(&mut self, timeout: Duration) -> Result<(), Stuck> {
        self.scribble();
        self.stopping = true;
        if self.refusals > 0 {
            self.refusals -= 1;
            return Err(Stuck);
        }
        self.below.terminate_sync(timeout)?;
        self.collect();
        for position in self.front..self.submitted {
            let slot = self.slot(position);
            slot.delay = None;
            if !matches!(slot.state, State::Ended(_) | State::Reported) {
                self.end(position, Status::Aborted, 0, None);
            }
        }
        self.passed.clear();
        (self.under_way, self.lost) = (0, 0);
        (self.next, self.issued) = (self.submitted, self.submitted);
        self.vanished = self.vanished.and_then(Vanished::after_stop);
        self.is_down = self.vanished.is_some();
        self.refusals = self.plan.stuck;
        self.stopping = false;
        self.flush = true;
        Ok(())
    }
}

impl Vanished {
    /// What is left of it after a stop that succeeded.
    fn after_stop(self) -> Option<Self> {
        let Some(stops) = self.stops else { return Some(self) };
        NonZeroU64::new(stops.get() - 1).map(|stops| Self { stops: Some(stops) })
    }
}

impl Drop for FaultsChannel {
    fn drop(&mut self) {
        self.scribble();
    }
}

/// The cookie of the operation at a position.
const fn cookie(position: u64) -> Cookie {
    Cookie::new(Cookie::FIRST.get().wrapping_add(position))
}
