//! An engine that does what the test tells it.

use std::{
    collections::VecDeque,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use rustix::event::EventfdFlags;

use crate::{
    Capabilities, ChannelInfo, Completion, Cookie, DmaChannel, Flags, Kind, Operation, Ordering,
    Status, Stuck, SubmitError,
    software::{self, Descriptor},
};

/// The engine, as the channel below the layer.
#[derive(Debug)]
pub(super) struct Puppet {
    info: ChannelInfo,
    strings: Strings,
    event: Option<OwnedFd>,
}

/// The test's hold on the engine.
#[derive(Clone, Debug)]
pub(super) struct Strings(Arc<Mutex<State>>);

#[derive(Debug)]
pub(super) struct State {
    next: Cookie,
    /// Submitted, and neither ended nor lost.
    held: Vec<Held>,
    ended: VecDeque<Completion>,
    /// What every submission is refused with.
    pub(super) refuse: Option<SubmitError>,
    /// Whether it executes by itself, in `poll`, what was issued; the newest first if it may.
    pub(super) works: bool,
    /// Whether it cannot be stopped.
    pub(super) stuck: bool,
    /// Whether it reports nothing of what it held when it was stopped.
    pub(super) silent: bool,
    pub(super) doorbells: usize,
    /// Calls of `terminate_sync`.
    pub(super) stops: usize,
}

#[derive(Debug)]
struct Held {
    cookie: Cookie,
    descriptor: Descriptor,
    issued: bool,
}

/// The plainest engine: copies, in order, and has room for 8.
pub(super) fn plain() -> ChannelInfo {
    ChannelInfo {
        capabilities: Capabilities::MEMCPY,
        ring_size: 8,
        ..ChannelInfo::new("puppet", Kind::Software)
    }
}

impl Puppet {
    pub(super) fn new(info: ChannelInfo) -> (Self, Strings) {
        let strings = Strings(Arc::new(Mutex::new(State {
            // It need not begin at the first, and wraps soon.
            next: Cookie::new(u64::MAX - 20),
            held: Vec::new(),
            ended: VecDeque::new(),
            refuse: None,
            works: false,
            stuck: false,
            silent: false,
            doorbells: 0,
            stops: 0,
        })));
        let event = info.capabilities.contains(Capabilities::INTERRUPT).then(|| {
            rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap()
        });
        (Self { info, strings: strings.clone(), event }, strings)
    }
}

impl Strings {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Operations that it has.
    pub(super) fn held(&self) -> usize {
        self.state().held.len()
    }

    /// Whether the doorbell has rung for this one.
    pub(super) fn is_issued(&self, index: usize) -> bool {
        self.state().held[index].issued
    }

    /// Does the operation that is `index`th oldest of those it has, and reports success.
    pub(super) fn finish(&self, index: usize) {
        let completion = self.state().execute(index);
        self.state().ended.push_back(completion);
    }

    /// Does it, and reports nothing.
    pub(super) fn lose(&self, index: usize) {
        self.state().execute(index);
    }

    /// Does it, and reports it twice.
    pub(super) fn finish_twice(&self, index: usize) {
        let completion = self.state().execute(index);
        self.state().ended.extend([completion; 2]);
    }

    /// Writes rubbish to its target and reports `status`.
    pub(super) fn fail(&self, index: usize, status: Status) {
        let mut state = self.state();
        let Held { cookie, descriptor, .. } = state.held.remove(index);
        scribble(&descriptor.operation());
        state.ended.push_back(Completion::failed(cookie, status));
    }

    /// Reports an operation that it never had, or no longer has.
    pub(super) fn invent(&self, cookie: Cookie) {
        self.state().ended.push_back(Completion::success(cookie, 64));
    }
}

impl State {
    fn execute(&mut self, index: usize) -> Completion {
        let Held { cookie, descriptor, issued } = self.held.remove(index);
        assert!(issued, "the doorbell has not rung for it");
        // SAFETY: submitted and not reported: its memory is ours.
        let status = unsafe { software::execute(&descriptor.operation(), descriptor.flags()) };
        Completion::of(cookie, status, descriptor.len())
    }
}

fn scribble(operation: &Operation<'_>) {
    let target = |target: *mut u8, len: usize| {
        // SAFETY: the operation has not been reported: its targets are ours.
        unsafe { target.write_bytes(0xee, len) };
    };
    match *operation {
        Operation::Memcpy { target: to, len, .. }
        | Operation::Memset { target: to, len, .. }
        | Operation::Xor { target: to, len, .. } => target(to, len),
        Operation::MemcpySg { targets, .. } => {
            targets.iter().for_each(|piece| target(piece.address, piece.len));
        }
        Operation::Pq { p, q, len, .. } => {
            [p, q].into_iter().flatten().for_each(|to| target(to.as_ptr(), len));
        }
        Operation::XorVal { .. } | Operation::PqVal { .. } => {}
    }
}

// SAFETY: memory is touched between submission and report alone, and after a stop not at all; only
// the completions that a test asks for break the rules, and it says so.
unsafe impl DmaChannel for Puppet {
    fn info(&self) -> &ChannelInfo {
        &self.info
    }

    fn space(&self) -> usize {
        let state = self.strings.state();
        self.info.ring_size.saturating_sub(state.held.len() + state.ended.len())
    }

    unsafe fn submit(
        &mut self,
        operation: &Operation<'_>,
        flags: Flags,
    ) -> Result<Cookie, SubmitError> {
        let descriptors = self.info.check(operation, flags)?;
        if descriptors > self.space() {
            return Err(SubmitError::RingFull);
        }
        let mut state = self.strings.state();
        if let Some(error) = state.refuse {
            return Err(error);
        }
        let cookie = state.next;
        state.next = cookie.next();
        let mut descriptor = Descriptor::default();
        descriptor.set(operation, flags);
        state.held.push(Held { cookie, descriptor, issued: false });
        Ok(cookie)
    }

    fn issue_pending(&mut self) {
        let mut state = self.strings.state();
        state.doorbells += 1;
        state.held.iter_mut().for_each(|held| held.issued = true);
    }

    fn poll(&mut self, report: &mut dyn FnMut(Completion)) {
        let mut state = self.strings.state();
        while state.works {
            let mut issued = state.held.iter();
            let next = match self.info.ordering {
                Ordering::InOrder => issued.position(|held| held.issued),
                Ordering::OutOfOrder => issued.rposition(|held| held.issued),
            };
            let Some(next) = next else { break };
            let completion = state.execute(next);
            state.ended.push_back(completion);
        }
        while let Some(completion) = state.ended.pop_front() {
            report(completion);
        }
    }

    fn arm(&mut self) -> bool {
        let state = self.strings.state();
        self.event.is_some() && state.ended.is_empty() && state.held.iter().any(|held| held.issued)
    }

    fn event(&self) -> Option<BorrowedFd<'_>> {
        self.event.as_ref().map(|event| event.as_fd())
    }

    fn terminate_sync(&mut self, _: Duration) -> Result<(), Stuck> {
        let mut state = self.strings.state();
        state.stops += 1;
        if state.stuck {
            return Err(Stuck);
        }
        state.refuse.take_if(|error| *error == SubmitError::ChannelDown);
        let held = std::mem::take(&mut state.held);
        if !state.silent {
            let aborted = held.iter().map(|held| Completion::failed(held.cookie, Status::Aborted));
            state.ended.extend(aborted);
        }
        Ok(())
    }
}
