//! One channel, used by several threads at the same time.

use std::{
    os::fd::{AsFd, OwnedFd},
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, atomic::AtomicBool},
    time::{Duration, Instant},
};

use crate::registry::{lease::Lease, name::ChannelName};
use crate::{
    Channel, ChannelStats, Completion, Cookie, DmaChannel, DmaDevice, Flags, Operation,
    OperationKind, RequestError, Status, Stuck, SubmitError, Wait, queue::block,
};

/// How long an engine that did not end an operation in time is given to be proven idle.
const TERMINATE_TIMEOUT: Duration = Duration::from_secs(1);

/// A shared channel. It is opened when it is first needed.
///
/// Each thread submits and polls under the lock, and waits outside it. Whoever polls takes note of
/// the others' ends too. One thread at a time, the *sentinel*, blocks on the channel's event, which
/// only one can arm; the others wait for it to come back.
#[derive(Debug)]
pub(in crate::registry) struct Core {
    line: Mutex<Line>,
    /// Ends of others' operations were noted, or the sentinel came back.
    changed: Condvar,
    /// The channel's event: what the sentinel blocks on without the lock.
    event: OnceLock<OwnedFd>,
    device: Arc<dyn DmaDevice>,
    stats: Arc<ChannelStats>,
    removing: Arc<AtomicBool>,
    /// Last: the channel is free when it is closed.
    lease: Lease,
}

#[derive(Debug, Default)]
struct Line {
    /// `None` until somebody needs it.
    channel: Option<Channel>,
    /// In flight, or ended and not yet seen by its thread.
    operations: Vec<InFlight>,
    /// A thread blocks on the event.
    has_sentinel: bool,
    /// Threads that wait for `changed`.
    waiting: usize,
}

#[derive(Debug)]
struct InFlight {
    cookie: Cookie,
    kind: OperationKind,
    len: usize,
    end: Option<Completion>,
    /// Its thread has gone: the engine could not be stopped, or the driver panicked.
    abandoned: bool,
}

/// Why there is no completion.
#[derive(Debug)]
pub(in crate::registry) enum ExecuteError {
    /// The channel did not open; nothing was submitted.
    Open(RequestError),
    /// Nothing was submitted.
    Submit(SubmitError),
    /// The operation's memory belongs to the engine.
    Stuck(Stuck),
}

impl Core {
    pub(in crate::registry) fn new(
        lease: Lease,
        device: Arc<dyn DmaDevice>,
        stats: Arc<ChannelStats>,
        removing: Arc<AtomicBool>,
    ) -> Self {
        Self {
            line: Mutex::default(),
            changed: Condvar::new(),
            event: OnceLock::new(),
            device,
            stats,
            removing,
            lease,
        }
    }

    pub(in crate::registry) const fn name(&self) -> ChannelName {
        self.lease.name()
    }

    /// Opens the channel, if it is not.
    pub(in crate::registry) fn open(&self) -> Result<(), RequestError> {
        self.opened().map(drop)
    }

    /// Submits an operation and waits until it has ended, or, from `deadline` on, until the channel
    /// is reset: every thread's operations on it are aborted then.
    ///
    /// # Safety
    ///
    /// As [`DmaChannel::submit`], until this returns, but not with [`ExecuteError::Stuck`]: the
    /// memory belongs to the engine from then on. So it does if this panics.
    pub(in crate::registry) unsafe fn execute(
        &self,
        operation: &Operation<'_>,
        flags: Flags,
        deadline: Option<Instant>,
    ) -> Result<Completion, ExecuteError> {
        let mut line = self.opened().map_err(ExecuteError::Open)?;
        let start = Instant::now();
        // SAFETY: the caller's promise, passed on.
        while let Err(error) = unsafe { line.submit(operation, flags) } {
            // What makes room is that the others' operations end.
            if error != SubmitError::RingFull || line.operations.is_empty() || is_past(deadline) {
                return Err(ExecuteError::Submit(error));
            }
            line = self.progress(line, start, deadline);
        }
        let Some(&InFlight { cookie, .. }) = line.operations.last() else {
            unreachable!("`submit` has put it there")
        };
        let end = catch_unwind(AssertUnwindSafe(|| self.wait_for(cookie, line, deadline)));
        end.unwrap_or_else(|panic| {
            // The driver's. This thread will not come back for the end.
            self.lock().abandon(cookie);
            resume_unwind(panic)
        })
        .map_err(ExecuteError::Stuck)
    }

    /// Waits until an operation has ended, or ends it at `deadline`.
    fn wait_for<'a>(
        &'a self,
        cookie: Cookie,
        mut line: MutexGuard<'a, Line>,
        deadline: Option<Instant>,
    ) -> Result<Completion, Stuck> {
        let start = Instant::now();
        loop {
            if let Some(completion) = line.take(cookie) {
                return Ok(completion);
            }
            if is_past(deadline) {
                break;
            }
            line = self.progress(line, start, deadline);
        }
        let terminated = line.terminate(cookie);
        // Others may have ended as well, or be the next to find out that none will.
        self.changed.notify_all();
        terminated
    }

    /// Notes what has ended; if nothing has, waits for a while.
    fn progress<'a>(
        &'a self,
        mut line: MutexGuard<'a, Line>,
        start: Instant,
        deadline: Option<Instant>,
    ) -> MutexGuard<'a, Line> {
        if line.poll() {
            if line.waiting > 0 {
                self.changed.notify_all();
            }
            return line;
        }
        if start.elapsed() < Wait::SPIN {
            drop(line);
            std::hint::spin_loop();
            return self.lock();
        }
        if line.has_sentinel {
            line.waiting += 1;
            line = match remaining(deadline) {
                None => self.changed.wait(line).unwrap_or_else(PoisonError::into_inner),
                Some(time) => {
                    let woken = self.changed.wait_timeout(line, time);
                    woken.unwrap_or_else(PoisonError::into_inner).0
                }
            };
            line.waiting -= 1;
            return line;
        }
        let event = self.event.get().filter(|_| line.arm());
        line.has_sentinel = event.is_some();
        drop(line);
        let left = remaining(deadline).unwrap_or(Duration::MAX);
        if !event.is_some_and(|event| block(event.as_fd(), left)) {
            std::thread::yield_now();
        }
        let mut line = self.lock();
        if event.is_some() {
            line.has_sentinel = false;
            if line.waiting > 0 {
                // One of them is the next.
                self.changed.notify_all();
            }
        }
        line
    }

    fn opened(&self) -> Result<MutexGuard<'_, Line>, RequestError> {
        let mut line = self.lock();
        if line.channel.is_none() {
            let ChannelName { channel: index, .. } = self.name();
            let raw = self.device.request_channel(index)?;
            let event = raw.event().map(|event| event.try_clone_to_owned()).transpose();
            let event = event.map_err(|error| RequestError::Failed(error.into()))?;
            if let Some(event) = event {
                // Empty: there is one channel, and it is opened once.
                let _ = self.event.set(event);
            }
            if let Some(stats) = raw.fallback_stats() {
                self.lease.tell_fallback_stats(stats);
            }
            let (stats, removing) = (Arc::clone(&self.stats), Arc::clone(&self.removing));
            let channel = Channel::new(raw, self.name().to_string(), stats, removing, None);
            line.channel = Some(channel);
        }
        Ok(line)
    }

    fn lock(&self) -> MutexGuard<'_, Line> {
        // Valid even if a driver panicked: an operation is noted as soon as it is submitted.
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Line {
    /// # Safety
    ///
    /// As [`DmaChannel::submit`].
    unsafe fn submit(
        &mut self,
        operation: &Operation<'_>,
        flags: Flags,
    ) -> Result<(), SubmitError> {
        // Not while the engine has it.
        self.operations.reserve(1);
        let channel = self.channel.as_mut().ok_or(SubmitError::ChannelDown)?;
        // SAFETY: the caller's promise, passed on.
        let cookie = unsafe { channel.submit(operation, flags) }?;
        let (kind, len) = (operation.kind(), operation.len());
        self.operations.push(InFlight { cookie, kind, len, end: None, abandoned: false });
        let depth = self.operations.iter().filter(|operation| operation.end.is_none()).count();
        channel.count_submit(cookie, kind, depth);
        channel.issue_pending();
        Ok(())
    }

    /// Notes what has ended; whether anything has.
    fn poll(&mut self) -> bool {
        let Self { channel: Some(channel), operations, .. } = self else { return false };
        let depth = operations.iter().filter(|operation| operation.end.is_none()).count();
        let Some((channel, meter)) = channel.begin_poll(depth) else { return false };
        let mut ended = false;
        channel.poll(&mut |completion| {
            let Completion { cookie, status, bytes, .. } = completion;
            let is_it = |it: &&mut InFlight| it.cookie == cookie && it.end.is_none();
            // A completion of nothing in flight is the driver's or the device's defect.
            let Some(operation) = operations.iter_mut().find(is_it) else { return };
            let InFlight { kind, len, .. } = *operation;
            let bytes = if status == Status::Success { len } else { bytes.min(len) };
            let completion = Completion { bytes, ..completion };
            meter.count_end(kind, &completion);
            operation.end = Some(completion);
            ended = true;
        });
        self.forget_abandoned();
        ended
    }

    /// The end of an operation, once.
    fn take(&mut self, cookie: Cookie) -> Option<Completion> {
        let is_it = |it: &InFlight| it.cookie == cookie && it.end.is_some();
        let at = self.operations.iter().position(is_it)?;
        self.operations.swap_remove(at).end
    }

    /// Ends an operation that did not end in time, and all others with it.
    fn terminate(&mut self, cookie: Cookie) -> Result<Completion, Stuck> {
        let stopped = match &mut self.channel {
            Some(channel) => channel.terminate_sync(TERMINATE_TIMEOUT),
            None => Err(Stuck),
        };
        if stopped.is_ok() {
            self.poll();
            if let Some(completion) = self.take(cookie) {
                let late = completion.status == Status::Aborted;
                let status = if late { Status::TimedOut } else { completion.status };
                return Ok(Completion { status, ..completion });
            }
        }
        self.abandon(cookie);
        Err(Stuck)
    }

    /// Nobody will take an operation's end.
    fn abandon(&mut self, cookie: Cookie) {
        for operation in &mut self.operations {
            operation.abandoned |= operation.cookie == cookie;
        }
        self.forget_abandoned();
    }

    /// Forgets operations that have ended and that nobody asks for.
    fn forget_abandoned(&mut self) {
        self.operations.retain(|operation| !(operation.abandoned && operation.end.is_some()));
    }

    fn arm(&mut self) -> bool {
        self.channel.as_mut().is_some_and(DmaChannel::arm)
    }
}

fn is_past(deadline: Option<Instant>) -> bool {
    deadline.is_some_and(|deadline| Instant::now() >= deadline)
}

/// `None` is for ever.
fn remaining(deadline: Option<Instant>) -> Option<Duration> {
    deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
}
