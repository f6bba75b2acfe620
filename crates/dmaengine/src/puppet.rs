//! A channel that does what a test says, right or wrong.
//!
//! Nothing ends by itself. A test holds the [`Strings`]: it ends operations one by one, at which
//! moment the engine writes its target; it makes the channel hang, lie about cookies or report an end
//! twice. Memory made with [`Strings::memory`] knows the engine: if it is dropped while the engine has
//! it, that is noted, so that a test of ownership fails even where nothing crashes.

use std::{
    collections::VecDeque,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rustix::event::EventfdFlags;

use crate::{
    Capabilities, Channel, ChannelInfo, Completion, Cookie, DmaChannel, DmaSource, DmaTarget,
    Flags, Kind, Operation, Status, Stuck, SubmitError, Successes,
    software::{self, Descriptor},
};

/// A channel on strings.
#[derive(Debug)]
pub(crate) struct Puppet {
    info: ChannelInfo,
    strings: Strings,
    event: Option<Arc<OwnedFd>>,
}

/// What a test does with a [`Puppet`], from any thread.
#[derive(Clone, Debug)]
pub(crate) struct Strings(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    next: Cookie,
    ring_size: usize,
    event: Option<Arc<OwnedFd>>,
    /// Submitted and not reported: the engine has their memory.
    ring: Vec<Op>,
    /// Reports beside those of `ring`.
    lies: VecDeque<Completion>,
    /// What the next look at successes finds, if not [`Successes::UNKNOWN`].
    successes: VecDeque<Successes>,
    /// Each operation ends at this many polls after it was issued; `None` for not by itself.
    ends_after_polls: Option<u32>,
    is_stuck: bool,
    /// The next termination is the last that succeeds, and leaves the channel down.
    breaks_when_stopped: bool,
    is_down: bool,
    terminations: usize,
    /// The longest time that a termination was given.
    patience: Duration,
    doorbells: usize,
    armed: bool,
    /// Events that were asked for so far.
    arms: usize,
    panic: Option<&'static str>,
    /// So many polls to come panic.
    polls_that_panic: usize,
    /// Memory that was dropped while the engine had it.
    dropped_in_flight: usize,
    /// Memory that was dropped.
    dropped: usize,
}

#[derive(Debug)]
struct Op {
    cookie: Cookie,
    descriptor: Descriptor,
    issued: bool,
    polls: u32,
    end: Option<Completion>,
    /// The channel was terminated: the engine does not have the memory any more.
    released: bool,
}

impl Op {
    fn run(&mut self, status: Status) {
        let operation = self.descriptor.operation();
        let status = match status {
            // SAFETY: by the contract of `submit`, the memory is the operation's: this is what the
            // tests are about.
            Status::Success => unsafe { software::execute(&operation, self.descriptor.flags()) },
            status => status,
        };
        self.end = Some(Completion::of(self.cookie, status, operation.len()));
    }

    /// Whether the engine has any of the `len` bytes from `first` on.
    fn has(&self, first: *const u8, len: usize) -> bool {
        if self.released {
            return false;
        }
        let overlaps = |other: *const u8, other_len: usize| {
            let (a, b) = (first.addr(), other.addr());
            a < b + other_len && b < a + len
        };
        match self.descriptor.operation() {
            Operation::Memcpy { source, target, len } => {
                overlaps(source, len) || overlaps(target, len)
            }
            Operation::MemcpySg { sources, targets } => {
                sources.iter().any(|piece| overlaps(piece.address, piece.len))
                    || targets.iter().any(|piece| overlaps(piece.address, piece.len))
            }
            Operation::Memset { target, len, .. } => overlaps(target, len),
            Operation::Xor { sources, target, len } => {
                overlaps(target, len) || sources.iter().any(|&source| overlaps(source, len))
            }
            Operation::XorVal { sources, len } => {
                sources.iter().any(|&source| overlaps(source, len))
            }
            Operation::Pq { sources, p, q, len, .. }
            | Operation::PqVal { sources, p, q, len, .. } => {
                sources.iter().any(|&source| overlaps(source, len))
                    || [p, q].into_iter().flatten().any(|to| overlaps(to.as_ptr(), len))
            }
        }
    }
}

impl Puppet {
    /// A channel without an event, with a ring of 8.
    pub(crate) fn channel() -> (Channel, Strings) {
        Self::with_ring(8)
    }

    pub(crate) fn with_ring(ring_size: usize) -> (Channel, Strings) {
        let (puppet, strings) = Self::new(ring_size, None);
        (Channel::from(Box::new(puppet) as Box<dyn DmaChannel>), strings)
    }

    /// A channel with an event.
    pub(crate) fn with_event() -> (Channel, Strings) {
        let event = rustix::event::eventfd(0, EventfdFlags::NONBLOCK).unwrap();
        let (puppet, strings) = Self::new(8, Some(Arc::new(event)));
        (Channel::from(Box::new(puppet) as Box<dyn DmaChannel>), strings)
    }

    /// A channel that can do no more than this.
    pub(crate) fn with_capabilities(capabilities: Capabilities) -> (Channel, Strings) {
        let (mut puppet, strings) = Self::new(8, None);
        puppet.info.capabilities = capabilities;
        (Channel::from(Box::new(puppet) as Box<dyn DmaChannel>), strings)
    }

    fn new(ring_size: usize, event: Option<Arc<OwnedFd>>) -> (Self, Strings) {
        let info = ChannelInfo {
            capabilities: software::CAPABILITIES,
            ordering: crate::Ordering::OutOfOrder,
            ring_size,
            max_sg: 16,
            max_xor: 16,
            max_pq: 16,
            ..ChannelInfo::new("puppet", Kind::Software)
        };
        let strings = Strings(Arc::new(Mutex::new(State {
            next: Cookie::FIRST,
            ring_size,
            event: event.clone(),
            ring: Vec::new(),
            lies: VecDeque::new(),
            successes: VecDeque::new(),
            ends_after_polls: None,
            is_stuck: false,
            breaks_when_stopped: false,
            is_down: false,
            terminations: 0,
            patience: Duration::ZERO,
            doorbells: 0,
            armed: false,
            arms: 0,
            panic: None,
            polls_that_panic: 0,
            dropped_in_flight: 0,
            dropped: 0,
        })));
        (Self { info, strings: strings.clone(), event }, strings)
    }
}

impl State {
    fn fire_if_due(&mut self) {
        let all_ended = self.ring.iter().all(|op| !op.issued || op.end.is_some());
        if let Some(event) = &self.event
            && self.armed
            && all_ended
        {
            self.armed = false;
            rustix::io::write(event, &1u64.to_ne_bytes()).unwrap();
        }
    }
}

impl Strings {
    fn state(&self) -> MutexGuard<'_, State> {
        // A test that failed elsewhere is to fail there.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Operations whose memory the engine has.
    pub(crate) fn in_ring(&self) -> usize {
        self.state().ring.len()
    }

    /// Cookies of those, oldest first.
    pub(crate) fn cookies(&self) -> Vec<Cookie> {
        self.state().ring.iter().map(|op| op.cookie).collect()
    }

    /// How those are to be done, oldest first.
    pub(crate) fn flags(&self) -> Vec<Flags> {
        self.state().ring.iter().map(|op| op.descriptor.flags()).collect()
    }

    /// Doorbells so far.
    pub(crate) fn doorbells(&self) -> usize {
        self.state().doorbells
    }

    /// Events that were asked for so far.
    pub(crate) fn arms(&self) -> usize {
        self.state().arms
    }

    pub(crate) fn terminations(&self) -> usize {
        self.state().terminations
    }

    /// The longest time that a termination was given.
    pub(crate) fn patience(&self) -> Duration {
        self.state().patience
    }

    /// How much [memory](Self::memory) was dropped, and how much of that while the engine had it.
    pub(crate) fn dropped(&self) -> (usize, usize) {
        let state = self.state();
        (state.dropped, state.dropped_in_flight)
    }

    /// Ends the operation in this place of the ring; it is reported by the next poll.
    pub(crate) fn end(&self, place: usize, status: Status) {
        let mut state = self.state();
        state.ring[place].run(status);
        state.fire_if_due();
    }

    /// From now on operations end by themselves, at this many polls after they were issued.
    pub(crate) fn end_after_polls(&self, polls: u32) {
        self.state().ends_after_polls = Some(polls);
    }

    /// The next cookie is this one.
    pub(crate) fn set_next(&self, cookie: Cookie) {
        self.state().next = cookie;
    }

    /// Reports an end out of the blue.
    pub(crate) fn lie(&self, cookie: Cookie) {
        self.state().lies.push_back(Completion::success(cookie, 0));
    }

    /// Reports successes at once, of operations that have ended or out of the blue.
    pub(crate) fn succeed(&self, first: Cookie, count: usize, more: bool) {
        let mut state = self.state();
        let is_one = |op: &Op| op.cookie.since(first).is_some_and(|at| at < count as u64);
        state.ring.retain(|op| !(is_one(op) && op.end.is_some()));
        state.successes.push_back(Successes { first, count, more });
    }

    /// Whether terminating fails.
    pub(crate) fn set_stuck(&self, is_stuck: bool) {
        self.state().is_stuck = is_stuck;
    }

    /// The next termination is the last that succeeds, and leaves the channel down.
    pub(crate) fn break_when_stopped(&self) {
        self.state().breaks_when_stopped = true;
    }

    /// The next submission is taken by the engine, and then panics.
    pub(crate) fn panic_in_submit(&self, message: &'static str) {
        self.state().panic = Some(message);
    }

    /// So many polls to come panic, and report nothing.
    pub(crate) fn panic_in_poll(&self, polls: usize) {
        self.state().polls_that_panic = polls;
    }

    /// Polls that are still to panic.
    pub(crate) fn panics_to_come(&self) -> usize {
        self.state().polls_that_panic
    }

    /// Memory that is `bytes`, and notes if it is dropped while the engine has it.
    pub(crate) fn memory(&self, bytes: &[u8]) -> Memory {
        Memory { bytes: bytes.to_vec(), strings: self.clone() }
    }
}

/// See [`Strings::memory`].
#[derive(Debug)]
pub(crate) struct Memory {
    bytes: Vec<u8>,
    strings: Strings,
}

impl AsRef<[u8]> for Memory {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl AsMut<[u8]> for Memory {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

// SAFETY: the bytes are those of a vector that is not touched while the value exists.
unsafe impl DmaSource for Memory {}
// SAFETY: as above.
unsafe impl DmaTarget for Memory {}

impl Drop for Memory {
    fn drop(&mut self) {
        let (first, len) = (self.bytes.as_ptr(), self.bytes.len());
        let mut state = self.strings.state();
        state.dropped += 1;
        if state.ring.iter().any(|op| op.has(first, len)) {
            state.dropped_in_flight += 1;
            // The engine will write it: it must stay for the test to go on.
            std::mem::forget(std::mem::take(&mut self.bytes));
        }
    }
}

// SAFETY: an operation is in the ring, and touched, from its submission until its report or a
// termination. What a test does with the strings beside that is its subject.
unsafe impl DmaChannel for Puppet {
    fn info(&self) -> &ChannelInfo {
        &self.info
    }

    fn space(&self) -> usize {
        let state = self.strings.state();
        state.ring_size - state.ring.len()
    }

    unsafe fn submit(
        &mut self,
        operation: &Operation<'_>,
        flags: Flags,
    ) -> Result<Cookie, SubmitError> {
        self.info.check(operation, flags)?;
        let mut state = self.strings.state();
        if state.is_down {
            return Err(SubmitError::ChannelDown);
        }
        if state.ring.len() == state.ring_size {
            return Err(SubmitError::RingFull);
        }
        let cookie = state.next;
        state.next = cookie.next();
        let mut descriptor = Descriptor::default();
        descriptor.set(operation, flags);
        state.ring.push(Op {
            cookie,
            descriptor,
            issued: false,
            polls: 0,
            end: None,
            released: false,
        });
        if let Some(message) = state.panic.take() {
            drop(state);
            panic!("{message}");
        }
        Ok(cookie)
    }

    fn issue_pending(&mut self) {
        let mut state = self.strings.state();
        state.doorbells += 1;
        state.ring.iter_mut().for_each(|op| op.issued = true);
    }

    fn poll(&mut self, report: &mut dyn FnMut(Completion)) {
        let mut state = self.strings.state();
        if let Some(left) = state.polls_that_panic.checked_sub(1) {
            state.polls_that_panic = left;
            drop(state);
            panic!("the driver panics in poll");
        }
        if let Some(after) = state.ends_after_polls {
            for op in state.ring.iter_mut().filter(|op| op.issued && op.end.is_none()) {
                op.polls += 1;
                if op.polls > after {
                    op.run(Status::Success);
                }
            }
        }
        let mut reports: Vec<_> = state.lies.drain(..).collect();
        state.ring.retain(|op| {
            reports.extend(op.end);
            op.end.is_none()
        });
        drop(state);
        reports.into_iter().for_each(report);
    }

    fn poll_successes(&mut self) -> Successes {
        self.strings.state().successes.pop_front().unwrap_or(Successes::UNKNOWN)
    }

    fn arm(&mut self) -> bool {
        let mut state = self.strings.state();
        state.arms += 1;
        let Some(event) = &self.event else { return false };
        let _ = rustix::io::read(event, &mut [0u8; 8]);
        if !state.ring.iter().any(|op| op.issued && op.end.is_none()) {
            return false;
        }
        state.armed = true;
        true
    }

    fn event(&self) -> Option<BorrowedFd<'_>> {
        self.event.as_ref().map(|event| event.as_fd())
    }

    fn terminate_sync(&mut self, timeout: Duration) -> Result<(), Stuck> {
        let mut state = self.strings.state();
        state.patience = state.patience.max(timeout);
        state.terminations += 1;
        if state.is_stuck {
            return Err(Stuck);
        }
        if state.breaks_when_stopped {
            (state.is_down, state.is_stuck) = (true, true);
        }
        for op in state.ring.iter_mut().filter(|op| op.end.is_none()) {
            op.run(Status::Aborted);
        }
        state.ring.iter_mut().for_each(|op| op.released = true);
        state.fire_if_due();
        Ok(())
    }
}
