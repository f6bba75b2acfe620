//! A channel that shares large copies with the calling thread.

use std::{
    collections::VecDeque,
    ops::Range,
    os::fd::BorrowedFd,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    clock::Clock,
    controller::{Between, Controller, Share, class},
    shares::Shares,
};
use crate::{
    ChannelInfo, Completion, Cookie, DmaChannel, FallbackCause, Flags, Operation, Ordering, Status,
    Stuck, SubmitError, layer::passed::Passed, software,
};

/// Bytes that the CPU copies between two looks at the engine: some microseconds' worth.
const CHUNK: usize = 128 << 10;

/// What a side gets of a shared copy is not less than so many borders.
const MIN_BORDERS: usize = 2;

#[derive(Debug)]
pub(super) struct SplitChannel {
    below: Box<dyn DmaChannel>,
    info: ChannelInfo,
    pub(super) min_len: usize,
    /// The parts meet at a multiple of it in the target's addresses: a power of two.
    border: usize,
    pub(super) controller: Controller,
    clock: Box<dyn Clock>,
    shares: Arc<Shares>,
    /// Of a position, which never wraps: the position modulo the ring's size.
    slots: Box<[Slot]>,
    /// All before it are reported.
    front: u64,
    issued: u64,
    submitted: u64,
    /// Descriptors of the operations between `front` and `submitted`.
    used: usize,
    passed: Passed,
    /// Operations that have not ended.
    running: usize,
    /// Of an out-of-order channel: ended and not reported.
    ready: VecDeque<u64>,
    /// What the channel below has just reported; empty between calls.
    ended: Vec<Completion>,
    /// Operations of which the CPU has something to copy.
    cpu_parts: VecDeque<u64>,
    /// Bytes in them.
    cpu_backlog: usize,
    /// Bytes that the channel below has to move.
    engine_backlog: usize,
    /// A fenced operation was submitted behind parts of the CPU's that are not copied.
    is_fenced: bool,
    /// Parts of the engine's that are timed, submitted and under way.
    timed: usize,
    engine: EngineTimes,
    /// A `terminate_sync` has not succeeded yet.
    stopping: bool,
}

/// What was seen of the engine while a part of it was timed.
#[derive(Debug, Default)]
struct EngineTimes {
    /// What has not ended for us had not ended then.
    last_look: Option<Instant>,
    /// The client waits for the engine's event: whatever it then sees has just ended, as far as it
    /// is concerned.
    is_awaited: bool,
    /// The last operation ended after the first, and by the second.
    last_end: Option<(Instant, Instant)>,
}

#[derive(Debug)]
struct Slot {
    len: usize,
    /// Ring descriptors that the operation takes.
    count: usize,
    /// The engine's part: the first so many bytes.
    engine_len: usize,
    /// Whether the engine's part is timed.
    is_timed: bool,
    issued_at: Option<Instant>,
    /// The CPU's part, if it has one.
    cpu: Option<CpuPart>,
    state: State,
    /// How the engine's part ended.
    status: Status,
    bytes: usize,
    fallback: Option<FallbackCause>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Waits for the engine, for the CPU or both.
    Running {
        engine: bool,
        cpu: bool,
    },
    Ended,
    Reported,
}

/// A copy by the CPU.
#[derive(Clone, Copy, Debug)]
struct CpuPart {
    source: *const u8,
    target: *mut u8,
    len: usize,
    flags: Flags,
}

// SAFETY: the pointers lead to memory that belongs to the operation, whichever thread has the
// channel.
unsafe impl Send for CpuPart {}

impl Default for Slot {
    /// Of no operation.
    fn default() -> Self {
        Self {
            len: 0,
            count: 0,
            engine_len: 0,
            is_timed: false,
            issued_at: None,
            cpu: None,
            state: State::Reported,
            status: Status::Success,
            bytes: 0,
            fallback: None,
        }
    }
}

impl SplitChannel {
    pub(super) fn new(
        below: Box<dyn DmaChannel>,
        min_len: usize,
        border: usize,
        clock: Box<dyn Clock>,
        shares: Arc<Shares>,
    ) -> Self {
        let info = below.info().clone();
        let ring_size = info.ring_size;
        Self {
            below,
            min_len,
            border,
            controller: Controller::new(),
            clock,
            shares,
            slots: (0..ring_size).map(|_| Slot::default()).collect(),
            front: 0,
            issued: 0,
            submitted: 0,
            used: 0,
            passed: Passed::new(ring_size),
            running: 0,
            ready: VecDeque::with_capacity(ring_size),
            ended: Vec::with_capacity(ring_size),
            cpu_parts: VecDeque::with_capacity(ring_size),
            cpu_backlog: 0,
            engine_backlog: 0,
            is_fenced: false,
            timed: 0,
            engine: EngineTimes::default(),
            stopping: false,
            info,
        }
    }

    const fn slot(&mut self, position: u64) -> &mut Slot {
        let index = position as usize % self.slots.len();
        &mut self.slots[index]
    }

    /// How many bytes of a copy the engine gets, the first ones.
    fn engine_part(&mut self, target: *mut u8, len: usize) -> usize {
        let least = MIN_BORDERS * self.border;
        let (engine, cpu) = (self.engine_backlog as f64, self.cpu_backlog as f64);
        let part = match self.controller.next_share(len) {
            Share::Of(0.0) => 0.0,
            Share::Of(share) => share * (engine + cpu + len as f64) - engine,
            // Enough of both to be a part, wherever the border then is.
            Share::Trial(share) => {
                let (share, len) = (share * len as f64, len as f64);
                share.min(len - (least + self.border) as f64).max((least + self.border) as f64)
            }
        };
        let part = (part.max(0.0) as usize).min(len);
        // To the nearest border.
        let meeting = (target.addr() + part + self.border / 2) & !(self.border - 1);
        let part = meeting.saturating_sub(target.addr()).min(len);
        if part < least {
            0
        } else if len - part < least {
            len
        } else {
            part
        }
    }

    /// Takes in what the engine has done.
    fn collect(&mut self) {
        // Only copies that are shared are worth a look at the clock.
        let now = (self.timed > 0).then(|| self.clock.now());
        let mut ended = std::mem::take(&mut self.ended);
        self.below.poll(&mut |completion| ended.push(completion));
        for completion in &ended {
            if let Some(position) = self.passed.take(completion.cookie) {
                self.engine_part_ended(position, completion, now);
            }
        }
        self.engine.is_awaited &= ended.is_empty();
        ended.clear();
        self.ended = ended;
        self.engine.last_look = now;
    }

    fn engine_part_ended(&mut self, position: u64, completion: &Completion, now: Option<Instant>) {
        let Completion { cookie: _, status, bytes, fallback } = *completion;
        let slot = self.slot(position);
        let Slot { len, engine_len, is_timed, issued_at, .. } = *slot;
        (slot.status, slot.bytes, slot.fallback) = (status, bytes, fallback);
        if let State::Running { engine, .. } = &mut slot.state {
            *engine = false;
        }
        self.engine_backlog -= engine_len;
        self.timed -= usize::from(is_timed);
        if let Some(now) = now {
            let time = self.engine.ended(issued_at, now);
            if is_timed && status.is_done() && fallback.is_none() {
                let known = self.controller.engine_took(len, engine_len, time);
                self.shares.publish(class(len), &known);
            }
        }
        self.end_if_both_have(position);
    }

    fn end_if_both_have(&mut self, position: u64) {
        let is_out_of_order = self.info.ordering == Ordering::OutOfOrder;
        let slot = self.slot(position);
        if slot.state != (State::Running { engine: false, cpu: false }) {
            return;
        }
        slot.state = State::Ended;
        if slot.status.is_done() {
            slot.bytes = slot.len;
        } else if slot.status == Status::NotAttempted && slot.cpu.is_some() {
            // The engine did not look at its part, but the CPU has copied the other.
            slot.status = Status::Aborted;
        }
        self.running -= 1;
        if is_out_of_order {
            self.ready.push_back(position);
        }
    }

    /// Copies the CPU's parts of all that was issued, in order.
    fn copy_cpu_parts(&mut self) {
        while let Some(position) = self.cpu_parts.pop_front() {
            let slot = self.slot(position);
            let (len, cpu) = (slot.len, slot.cpu);
            let Some(CpuPart { source, target, len: part, flags }) = cpu else { continue };
            let start = self.clock.now();
            for offset in (0..part).step_by(CHUNK) {
                let chunk = Operation::Memcpy {
                    source: source.wrapping_add(offset),
                    target: target.wrapping_add(offset),
                    len: CHUNK.min(part - offset),
                };
                // SAFETY: a piece of an operation that was submitted and not reported, whose memory
                // is ours. The channel below has the first part of it only, which ends where this
                // begins; if the operation is fenced, all before it had ended when it was submitted.
                unsafe { software::execute(&chunk, flags) };
                if self.timed > 0 {
                    self.collect();
                }
            }
            let ns = as_ns(self.clock.now().saturating_duration_since(start));
            self.cpu_backlog -= part;
            let known = self.controller.cpu_took(len, part, ns);
            self.shares.publish(class(len), &known);
            if let State::Running { cpu, .. } = &mut self.slot(position).state {
                *cpu = false;
            }
            self.end_if_both_have(position);
        }
    }

    /// Rings the doorbell for a batch, while a part of the engine's is timed.
    fn ring_and_time(&mut self, batch: Range<u64>) {
        let now = self.clock.now();
        let mut timed = 0;
        for position in batch.clone() {
            let slot = self.slot(position);
            slot.issued_at = Some(now);
            timed += u64::from(slot.is_timed);
        }
        self.engine.last_look = Some(now);
        self.below.issue_pending();
        let doorbell_ns = as_ns(self.clock.now().saturating_duration_since(now));
        for position in batch {
            let Slot { is_timed, len, .. } = *self.slot(position);
            if is_timed {
                self.controller.doorbell_took(len, doorbell_ns / timed);
            }
        }
    }

    fn report(&mut self, position: u64, report: &mut dyn FnMut(Completion)) {
        let slot = self.slot(position);
        slot.state = State::Reported;
        let Slot { status, bytes, fallback, .. } = *slot;
        while self.front < self.submitted
            && let Slot { state: State::Reported, count, .. } = *self.slot(self.front)
        {
            self.used -= count;
            self.front += 1;
        }
        report(Completion { cookie: cookie(position), status, bytes, fallback });
    }
}

impl EngineTimes {
    /// An operation is seen to have ended: how long the engine was at it, if it was issued at
    /// `issued_at`. It began when the one before it had ended.
    fn ended(&mut self, issued_at: Option<Instant>, now: Instant) -> Between {
        let look = self.last_look.filter(|_| !self.is_awaited);
        let after = look.unwrap_or(now);
        let issued_at = issued_at.unwrap_or(after);
        let began = self.last_end.replace((after, now)).unwrap_or((issued_at, issued_at));
        let (first, last) = (began.0.max(issued_at), began.1.max(issued_at));
        Between {
            after_ns: as_ns(after.saturating_duration_since(last)),
            by_ns: as_ns(now.saturating_duration_since(first)),
        }
    }
}

// SAFETY:
// - cookies count positions;
// - an operation is reported when its state is `Ended`, which makes it `Reported`, and a position is
//   used once;
// - it is `Ended` when the channel below has reported its first part, which that touches no more and
//   whose bytes this thread sees, and this thread has copied the second; or when the channel below
//   has been stopped, after which no part of the CPU's is left to copy;
// - the two parts are disjoint and make up the operation, so nothing else is written;
// - a refused operation is not in the ring, and was refused by the channel below or not shown to it;
// - the CPU copies in `issue_pending` only. So after `terminate_sync`, which forgets the parts that
//   were not issued, and after a drop, only the channel below could touch memory, and it does not.
unsafe impl DmaChannel for SplitChannel {
    fn info(&self) -> &ChannelInfo {
        &self.info
    }

    fn space(&self) -> usize {
        self.info.ring_size - self.used
    }

    unsafe fn submit(
        &mut self,
        operation: &Operation<'_>,
        mut flags: Flags,
    ) -> Result<Cookie, SubmitError> {
        let count = self.info.check(operation, flags)?;
        if self.stopping {
            return Err(SubmitError::ChannelDown);
        }
        if self.space() < count {
            return Err(SubmitError::RingFull);
        }
        let (len, is_fenced) = (operation.len(), flags.contains(Flags::FENCE));
        let is_large = matches!(operation, Operation::Memcpy { .. }) && len >= self.min_len;
        if is_large || is_fenced {
            // What is under way matters to both.
            self.collect();
        }
        let must_wait = is_fenced && self.running > 0;
        let (mut engine_len, mut cpu) = (len, None);
        if let Operation::Memcpy { source, target, len } = *operation
            && is_large
            && !must_wait
        {
            engine_len = self.engine_part(target, len);
            // Neither side sees by its part how long the copy is.
            if len >= software::TOO_LONG_TO_CACHE && !flags.contains(Flags::TO_CACHE) {
                flags |= Flags::TO_MEMORY;
            }
            let part = |at: usize| CpuPart {
                source: source.wrapping_add(at),
                target: target.wrapping_add(at),
                len: len - at,
                flags,
            };
            cpu = (engine_len < len).then(|| part(engine_len));
        }
        let position = self.submitted;
        if engine_len > 0 {
            let cookie = match *operation {
                Operation::Memcpy { source, target, .. } => {
                    let first = Operation::Memcpy { source, target, len: engine_len };
                    // SAFETY: our client keeps its promise about the operation's memory, which this
                    // is the first part of, until we report the operation or our `terminate_sync`
                    // succeeds; both come after the same of the channel below.
                    unsafe { self.below.submit(&first, flags)? }
                }
                // SAFETY: as above, for all of the operation.
                _ => unsafe { self.below.submit(operation, flags)? },
            };
            self.passed.push(cookie, position);
            self.engine_backlog += engine_len;
            self.is_fenced |= must_wait && !self.cpu_parts.is_empty();
        }
        if let Some(CpuPart { len, .. }) = cpu {
            self.cpu_parts.push_back(position);
            self.cpu_backlog += len;
        }
        let is_timed = is_large && !must_wait && engine_len > 0;
        self.timed += usize::from(is_timed);
        *self.slot(position) = Slot {
            len,
            count,
            engine_len,
            is_timed,
            issued_at: None,
            cpu,
            state: State::Running { engine: engine_len > 0, cpu: cpu.is_some() },
            // Of a part of no bytes.
            status: Status::Success,
            bytes: 0,
            fallback: None,
        };
        self.submitted += 1;
        self.used += count;
        self.running += 1;
        Ok(cookie(position))
    }

    fn issue_pending(&mut self) {
        if self.stopping {
            return;
        }
        if std::mem::take(&mut self.is_fenced) {
            // What the engine has behind the fence begins when these are done too.
            self.copy_cpu_parts();
        }
        let batch = self.issued..self.submitted;
        self.issued = self.submitted;
        if self.timed > 0 {
            self.ring_and_time(batch);
        } else {
            self.below.issue_pending();
        }
        self.copy_cpu_parts();
    }

    fn poll(&mut self, report: &mut dyn FnMut(Completion)) {
        self.collect();
        match self.info.ordering {
            Ordering::InOrder => {
                while self.front < self.submitted && self.slot(self.front).state == State::Ended {
                    self.report(self.front, report);
                }
            }
            Ordering::OutOfOrder => {
                while let Some(position) = self.ready.pop_front() {
                    self.report(position, report);
                }
            }
        }
    }

    fn arm(&mut self) -> bool {
        // The CPU's parts of what was issued are done.
        self.engine.is_awaited = self.below.arm();
        self.engine.is_awaited
    }

    fn event(&self) -> Option<BorrowedFd<'_>> {
        self.below.event()
    }

    fn terminate_sync(&mut self, timeout: Duration) -> Result<(), Stuck> {
        self.stopping = true;
        self.below.terminate_sync(timeout)?;
        self.collect();
        for position in self.front..self.submitted {
            let slot = self.slot(position);
            if let State::Running { .. } = slot.state {
                slot.status = Status::Aborted;
                slot.state = State::Running { engine: false, cpu: false };
                self.end_if_both_have(position);
            }
        }
        self.passed.clear();
        self.cpu_parts.clear();
        (self.cpu_backlog, self.engine_backlog, self.timed) = (0, 0, 0);
        self.is_fenced = false;
        self.issued = self.submitted;
        self.stopping = false;
        Ok(())
    }
}

/// The cookie of the operation at a position.
const fn cookie(position: u64) -> Cookie {
    Cookie::new(Cookie::FIRST.get().wrapping_add(position))
}

/// Nanoseconds, of a duration of less than 584 years.
const fn as_ns(duration: Duration) -> u64 {
    duration.as_nanos() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_engine_is_at_an_operation_from_the_end_of_the_one_before() {
        let start = Instant::now();
        let at = |ns| start + Duration::from_nanos(ns);
        let mut engine = EngineTimes { last_look: Some(at(100)), ..EngineTimes::default() };
        let mut ended = |look, now, is_awaited| {
            engine.last_look = Some(at(look));
            engine.is_awaited = is_awaited;
            let Between { after_ns, by_ns } = engine.ended(Some(at(100)), at(now));
            (after_ns, by_ns)
        };
        assert_eq!(ended(150, 160, false), (50, 60));
        // It began between 150 and 160.
        assert_eq!(ended(200, 300, false), (40, 150));
        // Seen at the same time: it took between nothing and all that time.
        assert_eq!(ended(200, 300, false), (0, 100));
        // The client had slept: until the end, and not longer.
        assert_eq!(ended(310, 500, true), (200, 300));
        // One that was issued before anything was timed, and ended after.
        let Between { after_ns, by_ns } = EngineTimes::default().ended(None, at(900));
        assert_eq!((after_ns, by_ns), (0, 0));
    }
}
