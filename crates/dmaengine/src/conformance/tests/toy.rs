//! An engine that is good in all ways that the contract leaves open, or bad in one that it does not.

use std::{
    collections::VecDeque,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{Arc, Mutex},
    thread::ThreadId,
    time::Duration,
};

use rustix::event::EventfdFlags;

use super::super::Failure;
use crate::{
    Addressing, Arena, Capabilities, ChannelInfo, Completion, Cookie, DmaChannel, Flags, Kind,
    Operation, OperationKind, Ordering, Status, Stuck, SubmitError, Successes,
    random::SplitMix64,
    software::{Descriptor, execute},
};

/// What is wrong with an engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Defect {
    OneByteMore,
    OneByteLess,
    OneByteBefore,
    SourceWritten,
    /// Every piece of XFERCAP bytes begins with the source's first byte.
    SourceRestarts,
    /// A fill's pattern begins at a multiple of 8, not at its target.
    PatternByAddress,
    LastPieceLeftOut,
    LastSourceLeftOut,
    ChecksAlwaysPass,
    PAndQConfused,
    ReportsTwice,
    SuccessesReportedTwice,
    SuccessesHideTheRest,
    Loses,
    LosesWithoutStatus,
    LosesOnAnotherThread,
    ReportsOutOfOrder,
    MovesBeforeTheDoorbell,
    EndsBeforeTheDoorbell,
    IgnoresFences,
    RefusesFences,
    LeaksSpace,
    TakesTooMuchSpace,
    ListsTakeTooMuchSpace,
    RefusalTakesSpace,
    RingOneShort,
    RingOneTooLong,
    ScribblesAfterTheEnd,
    ScribblesAfterAStop,
    ScribblesAfterADrop,
    MovesForAnotherChannel,
    SkipsACookie,
    CookiesOf16Bits,
    /// As Linux's, which are never 0.
    CookiesSkipZero,
    CookiesRestartAtAStop,
    TakesOverlaps,
    TakesWhatItCannot,
    TakesStrangeMemory,
    NamesAWrongLimit,
    SaysAborted,
    SaysTooFewBytes,
    NoEvent,
    ArmsWithNothingInFlight,
    StopForgets,
    StopSaysTimedOut,
    DoesNotStop,
    // Of errors.
    FailureHidden,
    FailureMisnamed,
    FailureReportedTwice,
    FailureAbortsEarlierOnes,
    FailureLosesLaterOnes,
    FailureSkipsLaterOnes,
    FailureWritesOutside,
    FailureLeavesGarbage,
    NotAttemptedAndTouched,
    FailureIsForEver,
}

/// What becomes of the operations behind one that fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AfterFailure {
    GoOn,
    Abort,
    DoNotAttempt,
    /// Aborts, and is down until it is stopped.
    GoDown,
}

/// A kind of toy.
#[derive(Clone, Debug)]
pub(super) struct Toys {
    pub(super) info: ChannelInfo,
    pub(super) defect: Option<Defect>,
    pub(super) after_failure: AfterFailure,
    /// Of the first operation.
    pub(super) first: Cookie,
    /// The descriptors that an operation of so many pieces takes.
    pub(super) descriptors: fn(OperationKind, usize) -> usize,
    /// What an engine of IOVAs can reach.
    pub(super) arena: Arena,
    /// What one toy leaves for the next to do.
    left: Arc<Mutex<Vec<Descriptor>>>,
}

impl Toys {
    pub(super) fn new(arena: &Arena) -> Self {
        let info = ChannelInfo {
            capabilities: Capabilities::all() - Capabilities::PRIVATE,
            ring_size: 32,
            max_sg: 4,
            max_xor: 4,
            max_pq: 3,
            xfercap: 4096.try_into().unwrap(),
            ..ChannelInfo::new("toy", Kind::Cpu)
        };
        Self {
            info,
            defect: None,
            after_failure: AfterFailure::GoOn,
            first: Cookie::FIRST,
            descriptors: |_, pieces| pieces,
            arena: arena.clone(),
            left: Arc::default(),
        }
    }

    pub(super) fn channel(&self, failures: &[Failure]) -> Box<dyn DmaChannel> {
        let has_event = self.info.capabilities.contains(Capabilities::INTERRUPT);
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        Box::new(Toy {
            toys: self.clone(),
            failures: failures.to_vec(),
            random: SplitMix64::new(9),
            waiting: VecDeque::new(),
            issued: 0,
            ended: VecDeque::new(),
            used: 0,
            next: self.first,
            submitted: 0,
            last: None,
            event: has_event.then(|| rustix::event::eventfd(0, flags).unwrap()),
            down: false,
        })
    }
}

#[derive(Debug)]
struct Job {
    number: u64,
    cookie: Cookie,
    descriptor: Descriptor,
    /// Of the ring.
    taken: usize,
    thread: ThreadId,
}

#[derive(Debug)]
struct Toy {
    toys: Toys,
    failures: Vec<Failure>,
    random: SplitMix64,
    /// Submitted and not done.
    waiting: VecDeque<Job>,
    /// How many of `waiting` were issued.
    issued: usize,
    /// Done and not reported, with what they take of the ring.
    ended: VecDeque<(Completion, usize)>,
    used: usize,
    next: Cookie,
    submitted: u64,
    /// What was done last.
    last: Option<Descriptor>,
    event: Option<OwnedFd>,
    down: bool,
}

impl Toy {
    fn is(&self, defect: Defect) -> bool {
        self.toys.defect == Some(defect)
    }

    /// As [`is`](Self::is), for some of the operations only.
    fn now(&self, defect: Defect, number: u64) -> bool {
        self.is(defect) && number % 3 == 2
    }

    fn failure(&self, job: &Job) -> Option<Status> {
        let mut failures = self.failures.iter();
        failures.find(|failure| failure.index == job.number).map(|failure| failure.status)
    }

    /// What comes next: anything that has been issued, if the order is free, but nothing with a
    /// fence before what it waits for.
    fn choose(&mut self) -> Option<usize> {
        if self.issued == 0 {
            return None;
        }
        if self.toys.info.ordering == Ordering::InOrder {
            return Some(0);
        }
        let chosen = self.random.below(self.issued);
        let fenced = self.waiting[chosen].descriptor.flags().contains(Flags::FENCE);
        Some(if fenced && !self.is(Defect::IgnoresFences) { 0 } else { chosen })
    }

    /// Does one operation.
    fn step(&mut self) -> bool {
        let Some(index) = self.choose() else { return false };
        let job = self.waiting.remove(index).unwrap();
        self.issued -= 1;
        let lost = match self.toys.defect {
            Some(Defect::Loses) => job.number == 40,
            Some(Defect::LosesWithoutStatus) => job.descriptor.flags().contains(Flags::NO_STATUS),
            Some(Defect::LosesOnAnotherThread) => job.thread != std::thread::current().id(),
            _ => false,
        };
        if lost {
            return true;
        }
        let failure = self.failure(&job);
        let mut completion = match failure {
            Some(status) => self.fail(&job, status),
            None => Completion::of(job.cookie, self.perform(&job), job.descriptor.len()),
        };
        if self.now(Defect::SaysAborted, job.number) {
            completion = Completion::failed(job.cookie, Status::Aborted);
        }
        if self.now(Defect::SaysTooFewBytes, job.number) {
            completion.bytes -= 1;
        }
        let Job { number, taken, descriptor, .. } = job;
        self.last = Some(descriptor);
        let place = if self.toys.info.ordering == Ordering::OutOfOrder
            || self.now(Defect::ReportsOutOfOrder, number)
        {
            self.random.below(self.ended.len() + 1)
        } else {
            self.ended.len()
        };
        self.ended.insert(place, (completion, taken));
        if self.now(Defect::ReportsTwice, number)
            || (failure.is_some() && self.is(Defect::FailureReportedTwice))
        {
            self.ended.push_back((completion, 0));
        }
        if failure.is_some() {
            self.after_failure();
        }
        true
    }

    fn perform(&mut self, job: &Job) -> Status {
        let number = job.number;
        if self.now(Defect::ScribblesAfterTheEnd, number)
            && let Some(last) = &self.last
        {
            // SAFETY: it breaks the contract within the suite's arena, as all defects do. The
            // memory of an operation that has ended is the suite's still: it keeps its blocks
            // while it tests one kind of operation, and others lie in the same arena.
            unsafe { execute(&last.operation(), Flags::empty()) };
        }
        let mut place = Descriptor::default();
        place.set(&job.descriptor.operation(), Flags::empty());
        if self.now(Defect::MovesForAnotherChannel, number) {
            self.toys.left.lock().unwrap().push(place);
            return Status::Success;
        }
        let mut operation = place.operation();
        match &mut operation {
            Operation::Memcpy { len, .. } if self.is(Defect::OneByteLess) => *len -= 1,
            Operation::MemcpySg { targets, .. } if self.is(Defect::LastPieceLeftOut) => {
                *targets = &targets[..targets.len() - 1];
            }
            Operation::Xor { sources, .. } | Operation::XorVal { sources, .. }
                if self.is(Defect::LastSourceLeftOut) && sources.len() > 1 =>
            {
                *sources = &sources[..sources.len() - 1];
            }
            Operation::Memset { pattern, target, .. } if self.is(Defect::PatternByAddress) => {
                *pattern = pattern.rotate_right(8 * (target.addr() % 8) as u32);
            }
            Operation::Pq { p, q, .. } if self.is(Defect::PAndQConfused) => std::mem::swap(p, q),
            _ => {}
        }
        // SAFETY: submitted and not reported: it is ours.
        let status = unsafe { execute(&operation, Flags::empty()) };
        if let Operation::Memcpy { source, target, len } = operation {
            let xfercap = self.toys.info.xfercap.get();
            // SAFETY: the suite has guards around all targets, and its sources can be written.
            unsafe {
                match self.toys.defect {
                    Some(Defect::OneByteMore) => *target.add(len) ^= 0xff,
                    Some(Defect::OneByteBefore) => *target.sub(1) ^= 0xff,
                    Some(Defect::SourceWritten) => *source.cast_mut() ^= 0xff,
                    Some(Defect::SourceRestarts) if len > xfercap => {
                        target.add(xfercap).copy_from_nonoverlapping(source, len - xfercap);
                    }
                    _ => {}
                }
            }
        }
        match status {
            _ if self.is(Defect::ChecksAlwaysPass) => Status::Success,
            Status::MismatchP if self.is(Defect::PAndQConfused) => Status::MismatchQ,
            status => status,
        }
    }

    /// Fails as planned, having done half of it.
    fn fail(&mut self, job: &Job, status: Status) -> Completion {
        let Operation::Memcpy { source, target, len } = job.descriptor.operation() else {
            unreachable!("only copies are to fail")
        };
        let half = if status == Status::NotAttempted && !self.is(Defect::NotAttemptedAndTouched) {
            0
        } else {
            len / 2
        };
        // SAFETY: submitted and not reported: it is ours. Beyond it are guards.
        unsafe {
            target.copy_from_nonoverlapping(source, half);
            match self.toys.defect {
                Some(Defect::FailureWritesOutside) => *target.add(len) ^= 0xff,
                Some(Defect::FailureLeavesGarbage) => *target.add(len - 1) = !*source.add(len - 1),
                _ => {}
            }
        }
        let bytes = if self.toys.info.partial_completion { half } else { 0 };
        let status = match self.toys.defect {
            Some(Defect::FailureHidden) => {
                return Completion::success(job.cookie, len);
            }
            Some(Defect::FailureMisnamed) if status == Status::ReadError => Status::WriteError,
            _ => status,
        };
        Completion { bytes, ..Completion::failed(job.cookie, status) }
    }

    fn after_failure(&mut self) {
        match self.toys.defect {
            Some(Defect::FailureLosesLaterOnes) => {
                self.waiting.drain(..self.issued);
                self.issued = 0;
            }
            Some(Defect::FailureSkipsLaterOnes) => {
                for Job { cookie, taken, descriptor, .. } in self.waiting.drain(..self.issued) {
                    let completion = Completion::success(cookie, descriptor.len());
                    self.ended.push_back((completion, taken));
                }
                self.issued = 0;
            }
            Some(Defect::FailureAbortsEarlierOnes) => {
                if let Some((first, _)) = self.ended.front_mut() {
                    *first = Completion::failed(first.cookie, Status::Aborted);
                }
            }
            Some(Defect::FailureIsForEver) => self.down = true,
            _ => {}
        }
        match self.toys.after_failure {
            AfterFailure::GoOn => {}
            AfterFailure::Abort => self.end_waiting(self.issued, Status::Aborted),
            AfterFailure::DoNotAttempt => self.end_waiting(self.issued, Status::NotAttempted),
            AfterFailure::GoDown => {
                self.end_waiting(self.issued, Status::Aborted);
                self.down = true;
            }
        }
    }

    /// Ends the first of what waits without doing it.
    fn end_waiting(&mut self, count: usize, status: Status) {
        for Job { cookie, taken, .. } in self.waiting.drain(..count) {
            self.ended.push_back((Completion::failed(cookie, status), taken));
        }
        self.issued = self.issued.saturating_sub(count);
    }

    /// What is not reachable, if this is an engine of IOVAs.
    fn check_reach(&self, operation: &Operation<'_>) -> Result<(), SubmitError> {
        if self.toys.info.addressing == Addressing::Process || self.is(Defect::TakesStrangeMemory) {
            return Ok(());
        }
        let reach = |address: *const u8, len| {
            let reachable = self.toys.arena.contains(address, len);
            if reachable { Ok(()) } else { Err(operation.unreachable(address)) }
        };
        match *operation {
            Operation::Memcpy { source, target, len } => {
                reach(source, len)?;
                reach(target, len)
            }
            Operation::Memset { target, len, .. } => reach(target, len),
            Operation::MemcpySg { sources, targets } => {
                sources.iter().try_for_each(|piece| reach(piece.address, piece.len))?;
                targets.iter().try_for_each(|piece| reach(piece.address, piece.len))
            }
            Operation::Xor { sources, target, len } => {
                sources.iter().try_for_each(|&source| reach(source, len))?;
                reach(target, len)
            }
            Operation::XorVal { sources, len } => {
                sources.iter().try_for_each(|&source| reach(source, len))
            }
            Operation::Pq { sources, p, q, len, .. }
            | Operation::PqVal { sources, p, q, len, .. } => {
                sources.iter().try_for_each(|&source| reach(source, len))?;
                [p, q].into_iter().flatten().try_for_each(|place| reach(place.as_ptr(), len))
            }
        }
    }

    fn check(&mut self, operation: &Operation<'_>, flags: Flags) -> Result<usize, SubmitError> {
        let checked = self.toys.info.check(operation, flags);
        let taken = match (self.toys.defect, checked) {
            (Some(Defect::TakesOverlaps), Err(SubmitError::Overlap { .. }))
            | (Some(Defect::TakesWhatItCannot), Err(SubmitError::Unsupported { .. })) => 1,
            (
                Some(Defect::NamesAWrongLimit),
                Err(SubmitError::TooManySegments { list, segments, max }),
            ) => {
                return Err(SubmitError::TooManySegments { list, segments, max: max + 1 });
            }
            (Some(Defect::RefusesFences), Ok(_)) if flags.contains(Flags::FENCE) => {
                return Err(SubmitError::UnsupportedFence);
            }
            (Some(Defect::RefusalTakesSpace), Err(error)) => {
                self.used += 1;
                return Err(error);
            }
            (Some(Defect::TakesTooMuchSpace), Ok(taken))
                if operation.kind() == OperationKind::Memset =>
            {
                taken + 1
            }
            (Some(Defect::ListsTakeTooMuchSpace), Ok(taken))
                if operation.kind() == OperationKind::MemcpySg =>
            {
                taken + 1
            }
            (_, checked) => (self.toys.descriptors)(operation.kind(), checked?),
        };
        self.check_reach(operation)?;
        Ok(taken)
    }
}

// SAFETY: without a defect, an operation is in `waiting` until it was done or ended, then in `ended`
// until it is reported, and is done by the thread that polls. With one, it breaks the promises within
// the suite's arena only.
unsafe impl DmaChannel for Toy {
    fn info(&self) -> &ChannelInfo {
        &self.toys.info
    }

    fn space(&self) -> usize {
        self.toys.info.ring_size.saturating_sub(self.used)
    }

    unsafe fn submit(
        &mut self,
        operation: &Operation<'_>,
        flags: Flags,
    ) -> Result<Cookie, SubmitError> {
        let taken = self.check(operation, flags)?;
        if self.down {
            return Err(SubmitError::ChannelDown);
        }
        let space = match self.toys.defect {
            Some(Defect::RingOneShort) => self.space().saturating_sub(1),
            Some(Defect::RingOneTooLong) => self.space() + 1,
            _ => self.space(),
        };
        if taken > space {
            return Err(SubmitError::RingFull);
        }
        let mut descriptor = Descriptor::default();
        descriptor.set(operation, flags);
        let number = self.submitted;
        self.submitted += 1;
        self.used += taken;
        let mut cookie = self.next;
        match self.toys.defect {
            Some(Defect::SkipsACookie) if number == 100 => cookie = cookie.next(),
            Some(Defect::CookiesOf16Bits) => cookie = Cookie::new(cookie.get() & 0xffff),
            Some(Defect::CookiesSkipZero) if cookie.get() == 0 => cookie = cookie.next(),
            _ => {}
        }
        self.next = cookie.next();
        let thread = std::thread::current().id();
        let job = Job { number, cookie, descriptor, taken, thread };
        if self.is(Defect::MovesBeforeTheDoorbell) {
            self.perform(&job);
        }
        self.waiting.push_back(job);
        Ok(cookie)
    }

    fn issue_pending(&mut self) {
        self.issued = self.waiting.len();
    }

    fn poll(&mut self, report: &mut dyn FnMut(Completion)) {
        for descriptor in self.toys.left.lock().unwrap().drain(..) {
            // SAFETY: a defect, as above.
            unsafe { execute(&descriptor.operation(), Flags::empty()) };
        }
        if self.is(Defect::EndsBeforeTheDoorbell) {
            self.issue_pending();
        }
        for _ in 0..3 {
            self.step();
        }
        while let Some((completion, taken)) = self.ended.pop_front() {
            self.used -= taken;
            if self.is(Defect::LeaksSpace) && completion.cookie.get() % 50 == 0 {
                self.used += 1;
            }
            report(completion);
        }
    }

    fn poll_successes(&mut self) -> Successes {
        let said = match self.toys.defect {
            Some(Defect::SuccessesReportedTwice) => self.ended.front(),
            Some(Defect::SuccessesHideTheRest) => {
                return Successes { more: false, ..Successes::UNKNOWN };
            }
            _ => None,
        };
        said.map_or(Successes::UNKNOWN, |(completion, _)| Successes {
            first: completion.cookie,
            count: 1,
            more: true,
        })
    }

    fn arm(&mut self) -> bool {
        let Some(event) = &self.event else { return false };
        let _ = rustix::io::read(event, &mut [0; 8]);
        if self.issued == 0 {
            return self.is(Defect::ArmsWithNothingInFlight);
        }
        // Its own thread would get that far while the client waits.
        if !self.is(Defect::NoEvent) {
            rustix::io::write(event, &1_u64.to_ne_bytes()).unwrap();
        }
        while self.step() {}
        true
    }

    fn event(&self) -> Option<BorrowedFd<'_>> {
        self.event.as_ref().map(AsFd::as_fd)
    }

    fn terminate_sync(&mut self, timeout: Duration) -> Result<(), Stuck> {
        // It needs some time.
        if timeout.is_zero() || self.is(Defect::DoesNotStop) {
            return Err(Stuck);
        }
        match self.toys.defect {
            Some(Defect::StopForgets) => {
                self.waiting.clear();
                self.issued = 0;
            }
            Some(Defect::ScribblesAfterAStop) => {
                let left = self.waiting.iter_mut().map(|job| std::mem::take(&mut job.descriptor));
                self.toys.left.lock().unwrap().extend(left);
            }
            Some(Defect::CookiesRestartAtAStop) => self.next = Cookie::FIRST,
            _ => {}
        }
        let status =
            if self.is(Defect::StopSaysTimedOut) { Status::TimedOut } else { Status::Aborted };
        self.end_waiting(self.waiting.len(), status);
        self.down &= self.is(Defect::FailureIsForEver);
        Ok(())
    }
}

impl Drop for Toy {
    fn drop(&mut self) {
        if self.is(Defect::ScribblesAfterADrop) {
            let left = self.waiting.drain(..).map(|job| job.descriptor);
            self.toys.left.lock().unwrap().extend(left);
        }
    }
}
