//! A client that trusts nothing.

use std::{
    collections::VecDeque,
    os::fd::BorrowedFd,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec},
    io::Errno,
};

use super::{Suite, memory::Block};
use crate::{
    Arena, Capabilities, ChannelInfo, Completion, Cookie, DmaChannel, Flags, Operation,
    OperationKind, Ordering, Status, Stuck, SubmitError,
};

/// A channel whose every answer is held against the contract of [`DmaChannel`]:
///
/// * what [`ChannelInfo::check`] refuses is refused, with the same error, and costs no space;
/// * cookies are consecutive, whatever happened in between;
/// * an operation takes space when it is submitted, and all space is back when nothing is in flight;
/// * an operation is reported once, in order on a channel that says so, with as many bytes as its
///   status allows, and with a mismatch only if it was a check.
pub(super) struct Client {
    channel: Box<dyn DmaChannel>,
    info: ChannelInfo,
    arena: Arena,
    timeout: Duration,
    /// Submitted and not reported, in order; `None` if it was reported before an earlier one.
    in_flight: VecDeque<Option<InFlight>>,
    /// Of the first in `in_flight`.
    front: Cookie,
    /// What the next submission must give; `None` before the first.
    next: Option<Cookie>,
    submitted: u64,
    ended: Vec<Ended>,
    polls: u64,
}

struct InFlight {
    number: u64,
    kind: OperationKind,
    len: usize,
    tag: usize,
}

/// An operation that was reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ended {
    /// Counted from 0, by submission.
    pub(super) number: u64,
    /// What the test attached.
    pub(super) tag: usize,
    pub(super) status: Status,
    pub(super) bytes: usize,
}

impl Client {
    pub(super) fn new(suite: &Suite<'_>, channel: Box<dyn DmaChannel>) -> Self {
        let info = channel.info().clone();
        assert!(
            info.capabilities.contains(Capabilities::MEMCPY),
            "the suite needs a channel that copies: it has no MEMCPY"
        );
        assert!(
            info.alignment.get().is_power_of_two() && info.alignment.get() <= 4096,
            "the suite knows alignments that are powers of two up to 4096"
        );
        let client = Self {
            channel,
            info,
            arena: suite.arena.clone(),
            timeout: suite.timeout,
            in_flight: VecDeque::new(),
            front: Cookie::FIRST,
            next: None,
            submitted: 0,
            ended: Vec::new(),
            polls: 0,
        };
        assert_eq!(client.space(), client.info.ring_size, "a fresh channel has all of its ring");
        client
    }

    pub(super) const fn info(&self) -> &ChannelInfo {
        &self.info
    }

    pub(super) const fn arena(&self) -> &Arena {
        &self.arena
    }

    pub(super) fn can(&self, kind: OperationKind) -> bool {
        self.info.capabilities.contains(kind.capability())
    }

    /// `len`, rounded up to what the channel takes.
    pub(super) const fn aligned(&self, len: usize) -> usize {
        len.next_multiple_of(self.info.alignment.get())
    }

    /// At most `len`, aligned, such that `count` of them fit the ring at once, as far as the length
    /// goes.
    pub(super) fn fitting(&self, len: usize, count: usize) -> usize {
        let descriptors = (self.info.ring_size / count).max(1);
        let most = self.info.xfercap.get().saturating_mul(descriptors);
        let alignment = self.info.alignment.get();
        (len.min(most) / alignment * alignment).max(alignment)
    }

    pub(super) fn space(&self) -> usize {
        self.channel.space()
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.iter().flatten().count()
    }

    /// Submits what the channel must take.
    ///
    /// # Safety
    ///
    /// As for [`DmaChannel::submit`].
    #[track_caller]
    pub(super) unsafe fn submit(&mut self, operation: &Operation<'_>, flags: Flags, tag: usize) {
        // SAFETY: the caller's promise.
        if let Err(error) = unsafe { self.try_submit(operation, flags, tag) } {
            panic!("{} of {} bytes: {error}", operation.kind(), operation.len());
        }
    }

    /// Submits, if the channel takes it; what it took of the ring.
    ///
    /// # Safety
    ///
    /// As for [`DmaChannel::submit`].
    #[track_caller]
    pub(super) unsafe fn try_submit(
        &mut self,
        operation: &Operation<'_>,
        flags: Flags,
        tag: usize,
    ) -> Result<usize, SubmitError> {
        let (kind, len) = (operation.kind(), operation.len());
        let allowed = self.info.check(operation, flags);
        let before = self.space();
        // SAFETY: the caller's promise.
        let submitted = unsafe { self.channel.submit(operation, flags) };
        let after = self.space();
        let (cookie, count) = match (submitted, allowed) {
            (Ok(cookie), Ok(count)) => (cookie, count),
            (Ok(_), Err(error)) => {
                panic!("{kind} of {len} bytes was taken; it should be refused: {error}")
            }
            (Err(error), allowed) => {
                let state = matches!(
                    error,
                    SubmitError::RingFull
                        | SubmitError::ChannelDown
                        | SubmitError::Unreachable { .. }
                );
                match allowed {
                    Err(expected) => assert_eq!(error, expected, "{kind} of {len} bytes"),
                    Ok(count) => {
                        assert!(state, "{kind} of {len} bytes is allowed, but: {error}");
                        assert!(
                            error != SubmitError::RingFull || before < most(kind, count),
                            "{kind} of {len} bytes: {error}, but {before} descriptors are free"
                        );
                    }
                }
                assert_eq!(after, before, "a refused {kind} changed the space: {error}");
                return Err(error);
            }
        };
        if let Some(next) = self.next {
            assert_eq!(cookie, next, "cookies are consecutive");
        }
        self.next = Some(cookie.next());
        assert!(after < before, "{kind} took no space: {before} before, {after} after");
        let taken = before - after;
        if matches!(kind, OperationKind::Memcpy | OperationKind::Memset) {
            assert_eq!(taken, count, "space taken by {kind} of {len} bytes");
        }
        let most = most(kind, count);
        assert!(taken <= most, "space taken by {kind} of {len} bytes: {taken}, at most {most}");
        if self.in_flight.is_empty() {
            self.front = cookie;
        }
        let number = self.submitted;
        self.submitted += 1;
        self.in_flight.push_back(Some(InFlight { number, kind, len, tag }));
        Ok(taken)
    }

    /// Offers what the channel must refuse, with this error and no other.
    ///
    /// # Safety
    ///
    /// As for [`DmaChannel::submit`], but for overlaps: a channel that takes it is found out.
    #[track_caller]
    pub(super) unsafe fn refuse(
        &mut self,
        operation: &Operation<'_>,
        flags: Flags,
        expected: SubmitError,
    ) {
        // SAFETY: the caller's promise.
        match unsafe { self.try_submit(operation, flags, 0) } {
            Ok(_) => panic!("{operation:?} was taken; it should be refused: {expected}"),
            Err(error) => assert_eq!(error, expected, "{operation:?}"),
        }
    }

    pub(super) fn issue(&mut self) {
        self.channel.issue_pending();
    }

    /// Polls once, and returns how many operations were reported.
    #[track_caller]
    pub(super) fn poll(&mut self) -> usize {
        let Self { channel, info, in_flight, front, ended, polls, .. } = self;
        let before = ended.len();
        let mut report = |cookie: Cookie, status: Status, bytes: Option<usize>| {
            let index = cookie.since(*front).and_then(|index| usize::try_from(index).ok());
            let place = index.and_then(|index| in_flight.get_mut(index));
            let Some(InFlight { number, kind, len, tag }) = place.and_then(Option::take) else {
                panic!("reported and not in flight, or twice: cookie {cookie}, {status}");
            };
            let in_turn = info.ordering == Ordering::OutOfOrder || index == Some(0);
            assert!(in_turn, "{kind} {number} was reported before an earlier one");
            let bytes = bytes.unwrap_or(len);
            if status.is_done() {
                assert_eq!(bytes, len, "bytes completed of {kind} {number}, {status}");
            } else {
                let most = if info.partial_completion { len } else { 0 };
                assert!(bytes <= most, "{kind} {number}, {status}: {bytes} bytes completed");
            }
            let is_check = matches!(kind, OperationKind::XorVal | OperationKind::PqVal);
            let success = status == Status::Success;
            assert!(!status.is_done() || success || is_check, "{kind} {number} ended: {status}");
            ended.push(Ended { number, tag, status, bytes });
            while let Some(None) = in_flight.front() {
                in_flight.pop_front();
                *front = front.next();
            }
        };
        *polls += 1;
        let mut more = true;
        // Every other time, first those that it reports together.
        if polls.is_multiple_of(2) {
            let successes = channel.poll_successes();
            more = successes.more;
            for at in 0..successes.count {
                report(successes.first.plus(at as u64), Status::Success, None);
            }
        }
        if more {
            channel.poll(&mut |Completion { cookie, status, bytes, .. }| {
                report(cookie, status, Some(bytes));
            });
        }
        let reported = self.ended.len() - before;
        if self.in_flight.is_empty() {
            assert_eq!(self.space(), self.info.ring_size, "the space of an idle channel");
        }
        reported
    }

    /// Everything reported since the last call, in the order of submission.
    pub(super) fn take_ended(&mut self) -> Vec<Ended> {
        self.ended.sort_by_key(|ended| ended.number);
        std::mem::take(&mut self.ended)
    }

    /// Issues what was submitted, polls until nothing is in flight, and returns what has ended.
    #[track_caller]
    pub(super) fn wait(&mut self) -> Vec<Ended> {
        self.issue();
        self.poll_until_idle();
        self.take_ended()
    }

    #[track_caller]
    pub(super) fn poll_until_idle(&mut self) {
        let mut start = Instant::now();
        let mut polls = 0_u32;
        while !self.in_flight.is_empty() {
            if self.poll() > 0 {
                (start, polls) = (Instant::now(), 0);
                continue;
            }
            self.check_deadline(start);
            polls += 1;
            if polls < 100 { std::hint::spin_loop() } else { std::thread::yield_now() }
        }
    }

    #[track_caller]
    pub(super) fn check_deadline(&self, start: Instant) {
        assert!(
            start.elapsed() < self.timeout,
            "operations were lost: {} in flight, none reported for {:?}",
            self.in_flight(),
            self.timeout
        );
    }

    /// As [`wait`](Self::wait); everything must have succeeded.
    #[track_caller]
    pub(super) fn wait_for_success(&mut self) -> Vec<Ended> {
        let ended = self.wait();
        for Ended { number, status, .. } in &ended {
            assert_eq!(*status, Status::Success, "operation {number}");
        }
        ended
    }

    /// Submits, waits, and returns how it ended.
    ///
    /// # Safety
    ///
    /// As for [`DmaChannel::submit`].
    #[track_caller]
    pub(super) unsafe fn run(&mut self, operation: &Operation<'_>, flags: Flags) -> Status {
        // SAFETY: the caller's promise.
        unsafe { self.submit(operation, flags, 0) };
        let ended = self.wait();
        assert_eq!(ended.len(), 1, "one operation was submitted");
        ended[0].status
    }

    pub(super) fn arm(&mut self) -> bool {
        self.channel.arm()
    }

    pub(super) fn event(&self) -> Option<BorrowedFd<'_>> {
        self.channel.event()
    }

    /// Waits for the armed event.
    #[track_caller]
    pub(super) fn wait_for_event(&self) {
        let event = self.event().expect("a channel that armed has an event");
        let timeout = Timespec::try_from(self.timeout).ok();
        loop {
            match rustix::event::poll(&mut [PollFd::new(&event, PollFlags::IN)], timeout.as_ref()) {
                Err(Errno::INTR) => {}
                result => {
                    assert_eq!(result, Ok(1), "the event did not come in {:?}", self.timeout);
                    return;
                }
            }
        }
    }

    /// Stops the channel; every operation must be reported by the next poll. Returns all of them.
    #[track_caller]
    pub(super) fn terminate(&mut self) -> Vec<Ended> {
        self.stop();
        self.poll();
        assert_eq!(self.in_flight(), 0, "in flight after a stop and a poll");
        self.take_ended()
    }

    /// Stops the channel, which must do it, and polls for nothing.
    #[track_caller]
    pub(super) fn stop(&mut self) {
        self.terminate_within(self.timeout).expect("a channel can be stopped");
    }

    /// Stops the channel and polls for nothing.
    pub(super) fn terminate_within(&mut self, timeout: Duration) -> Result<(), Stuck> {
        self.channel.terminate_sync(timeout)
    }

    /// Some copies, every byte of which must arrive.
    #[track_caller]
    pub(super) fn works(&mut self) {
        const COUNT: usize = 8;
        let len = self.fitting(64, COUNT);
        let source = Block::random(&self.arena, COUNT * len, self.submitted);
        let mut target = Block::new(&self.arena, COUNT * len);
        for index in 0..COUNT.min(self.info.ring_size) {
            let at = index * len;
            let copy = Operation::Memcpy { source: source.at(at), target: target.at(at), len };
            // SAFETY: the blocks stay until `wait_for_success` has seen the end of it.
            unsafe { self.submit(&copy, Flags::empty(), index) };
            target.expect(at, source.expected(at..at + len));
        }
        self.wait_for_success();
        source.check("the source of a copy");
        target.check("the target of copies");
    }

    /// The channel works, nothing is in flight, and nothing more is reported.
    #[track_caller]
    pub(super) fn finish(mut self) {
        self.works();
        for _ in 0..3 {
            self.poll();
        }
        assert_eq!(self.take_ended(), [], "reported after everything had ended");
    }
}

/// The most descriptors that an operation takes of which [`ChannelInfo::check`] counts so many pieces.
const fn most(kind: OperationKind, pieces: usize) -> usize {
    match kind {
        OperationKind::Memcpy | OperationKind::Memset | OperationKind::MemcpySg => pieces,
        OperationKind::Xor | OperationKind::XorVal | OperationKind::Pq | OperationKind::PqVal => {
            2 * pieces + 1
        }
    }
}
