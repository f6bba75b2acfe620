//! Copies by many owners of one channel, waited for with `.await` or by blocking.
//!
//! # Model
//!
//! A [`Copier`] is a handle that can be cloned. [`Copier::copy`] takes source and target and returns
//! a future that gives them back:
//!
//! ```text
//!   Copier, Copier, ..  ------+
//!   Copying, Copying, .. -----+---> slots and a Queue, behind one lock <--- reaper, a thread
//!     (slot, generation)      |     (source, target, deadline, waker)       (wakes, enforces deadlines)
//! ```
//!
//! A copy is submitted and issued by `copy` itself; the future only waits. Whoever polls one polls
//! the channel for all, and wakes those whose copies have ended. While every future sleeps, the
//! reaper blocks on the channel's event; on a channel without events it polls, in growing steps. No
//! runtime is needed, and none is disturbed: no method but [`Copying::wait`] ever blocks for a copy.
//!
//! If the ring is full a copy waits for its turn, in the order of the calls.
//!
//! # Invariants
//!
//! 1. Memory belongs to the channel's side, the [`Queue`] and the slots, never to a future. Dropping
//!    a future cancels nothing: it detaches, and the memory is freed when the copy has ended.
//!    Forgetting one leaks the slot with its memory.
//! 2. A slot is named by index and generation: an end that comes after its slot was given up finds a
//!    newer generation, and only its memory is dropped.
//! 3. Every copy has a deadline. When it passes, the channel is terminated: that copy ends as
//!    [`Status::TimedOut`](crate::Status::TimedOut), others in flight as [`Status::Aborted`](crate::Status::Aborted). If the channel cannot be proven
//!    idle within a second, the future ends with [`CopyError::Stuck`] and the memory stays with the
//!    queue: it comes free if the engine comes back, and is leaked if it does not.
//! 4. A forked child has neither the reaper nor the lock's other users: there a copier refuses, a
//!    future ends as [`CopyError::Stuck`], and dropping them leaks. Nothing takes the lock.
//! 5. Wakers are called and dropped, and memory is dropped, with the lock released: they may be
//!    anybody's code, this copier's users' as well.

mod reaper;
mod state;

use std::{
    fmt, io,
    os::fd::OwnedFd,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use self::state::{Key, Outbox, State, Watch};
use crate::{
    Channel, ChannelInfo, ChannelStats, DmaSource, DmaTarget, Done, Queue, Refused, SubmitError,
    Wait, fork::Owner,
};

/// The longest sleep while copies are in flight: what a lost event costs.
const MAX_SLEEP: Duration = Duration::from_millis(100);

/// How a copy by a [`Copier`] ended: with its memory and a status, or not at all.
pub type Copied<S, D> = Result<Done<S, D, ()>, CopyError<S, D>>;

/// Why a copy was not done, or not known to be.
#[derive(Debug, thiserror::Error)]
pub enum CopyError<S, D> {
    /// The channel did not take it; the memory is in here. [`SubmitError::RingFull`] if there was no
    /// room until the deadline.
    #[error(transparent)]
    Refused(Refused<S, D, ()>),
    /// It did not end in time, and the engine could not be stopped. The memory stays with the
    /// channel.
    #[error(
        "the copy did not end in time and the engine could not be stopped: its memory stays with the \
         engine, use another channel"
    )]
    Stuck,
}

/// One handle to a channel that copies owned buffers, for any number of threads and tasks.
///
/// Cloning makes another handle. When the last handle and the last future are gone, the channel is
/// released as soon as nothing is in flight.
///
/// ```
/// use std::{sync::Arc, time::Duration};
/// use dmaengine::{Copier, Registry, Status, ThreadsDevice};
///
/// # fn block_on<F: Future>(future: F) -> F::Output {
/// #     use std::task::{Context, Poll, Wake, Waker};
/// #     struct Unpark(std::thread::Thread);
/// #     impl Wake for Unpark {
/// #         fn wake(self: Arc<Self>) {
/// #             self.0.unpark();
/// #         }
/// #     }
/// #     let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
/// #     let mut future = std::pin::pin!(future);
/// #     loop {
/// #         match future.as_mut().poll(&mut Context::from_waker(&waker)) {
/// #             Poll::Ready(output) => return output,
/// #             Poll::Pending => std::thread::park(),
/// #         }
/// #     }
/// # }
/// let registry = Registry::new();
/// registry.register(Arc::new(ThreadsDevice::new(1)));
/// let copier = Copier::new(registry.request("dma0chan0")?, Duration::from_secs(5))?;
///
/// // Blocking:
/// let done = copier.copy(b"hello".to_vec(), vec![0; 5]).wait()?;
/// assert_eq!((done.status, &done.target[..]), (Status::Success, &b"hello"[..]));
///
/// // Asynchronous, with any executor. Both copies are under way before the first is waited for:
/// let [first, second] = ["one", "two"].map(|text| copier.copy(text.into(), vec![0; 3]));
/// block_on(async {
///     assert_eq!(first.await?.target, b"one");
///     assert_eq!(second.await?.target, b"two");
///     Ok::<(), Box<dyn std::error::Error>>(())
/// })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Copier<S: DmaSource, D: DmaTarget> {
    handles: Arc<Handles<S, D>>,
}

impl<S: DmaSource, D: DmaTarget> Copier<S, D> {
    /// A copier over `channel`, whose copies have `timeout` to end in. It starts a thread.
    ///
    /// # Errors
    ///
    /// If the operating system has no thread or no file descriptor for it.
    pub fn new(channel: impl Into<Channel>, timeout: Duration) -> io::Result<Self> {
        let queue = Queue::new(channel);
        let wake = reaper::wake_fd()?;
        let sleeper = reaper::Sleeper::new(&wake, queue.event())?;
        let core = Arc::new(Core {
            owner: Owner::current(),
            info: queue.info().clone(),
            stats: Arc::clone(queue.stats()),
            state: Mutex::new(State::new(queue)),
            ended: Condvar::new(),
            wake,
        });
        reaper::start(Arc::clone(&core), sleeper)?;
        Ok(Self { handles: Arc::new(Handles { core, timeout }) })
    }

    /// Copies all of `source` to all of `target`. The copy is under way when this returns, whether
    /// the future is polled or not.
    pub fn copy(&self, source: S, target: D) -> Copying<S, D> {
        self.copy_within(source, target, self.handles.timeout)
    }

    /// As [`copy`](Self::copy), with another time to end in.
    pub fn copy_within(&self, source: S, target: D, timeout: Duration) -> Copying<S, D> {
        // No clock goes that far: as good as never, but not never.
        const FOREVER: Duration = Duration::from_secs(60 * 60 * 24 * 365);
        let deadline = Instant::now() + timeout.min(FOREVER);
        let core = &self.handles.core;
        let started = if core.owner.is_here() {
            core.with(|state| state.start(source, target, deadline))
        } else {
            Err(Refused { error: SubmitError::Forked, source, target, tag: () })
        };
        let progress = match started {
            Ok(key) => Progress::Started(key),
            Err(refused) => Progress::Refused(refused),
        };
        Copying { handles: Arc::clone(&self.handles), progress }
    }

    /// The channel's fixed properties.
    #[must_use]
    pub fn info(&self) -> &ChannelInfo {
        &self.handles.core.info
    }

    /// What the channel has done.
    #[must_use]
    pub fn stats(&self) -> &Arc<ChannelStats> {
        &self.handles.core.stats
    }
}

impl<S: DmaSource, D: DmaTarget> Clone for Copier<S, D> {
    fn clone(&self) -> Self {
        Self { handles: Arc::clone(&self.handles) }
    }
}

impl<S: DmaSource, D: DmaTarget> fmt::Debug for Copier<S, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Copier").field("info", self.info()).finish_non_exhaustive()
    }
}

/// A copy that a [`Copier`] has started. It ends with or without this future; who drops it gives up
/// the result and the memory, which is freed when the copy has ended.
#[must_use = "the memory comes back through it; dropped, it is freed when the copy has ended"]
pub struct Copying<S: DmaSource, D: DmaTarget> {
    handles: Arc<Handles<S, D>>,
    progress: Progress<S, D>,
}

enum Progress<S, D> {
    Refused(Refused<S, D, ()>),
    Started(Key),
    /// The result was given out.
    Finished,
}

/// The memory is not in it, or is moved out: it is never pinned.
impl<S: DmaSource, D: DmaTarget> Unpin for Copying<S, D> {}

impl<S: DmaSource, D: DmaTarget> Copying<S, D> {
    /// Waits for the end, as [`Wait::default`] does.
    ///
    /// # Errors
    ///
    /// See [`CopyError`].
    pub fn wait(mut self) -> Copied<S, D> {
        let key = self.key()?;
        let core = &self.handles.core;
        let start = Instant::now();
        loop {
            let now = Instant::now();
            let copied = core.with(|state| {
                state.reap();
                state.expire(now);
                state.take(key)
            });
            if let Some(copied) = copied {
                self.progress = Progress::Finished;
                return copied;
            }
            if now - start < Wait::SPIN {
                std::hint::spin_loop();
            } else {
                core.block(key);
            }
        }
    }

    /// The copy to wait for, if it is not over.
    fn key(&mut self) -> Result<Key, CopyError<S, D>> {
        match std::mem::replace(&mut self.progress, Progress::Finished) {
            Progress::Started(key) if self.handles.core.owner.is_here() => {
                self.progress = Progress::Started(key);
                Ok(key)
            }
            Progress::Started(_) => Err(CopyError::Stuck),
            Progress::Refused(refused) => Err(CopyError::Refused(refused)),
            Progress::Finished => panic!("a copy was polled after its end"),
        }
    }
}

impl<S: DmaSource, D: DmaTarget> Future for Copying<S, D> {
    type Output = Copied<S, D>;

    /// # Panics
    ///
    /// If it was ready before.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Copied<S, D>> {
        let key = self.key()?;
        let polled = self.handles.core.with(|state| state.poll(key, context.waker()));
        if polled.is_ready() {
            self.progress = Progress::Finished;
        }
        polled
    }
}

impl<S: DmaSource, D: DmaTarget> Drop for Copying<S, D> {
    fn drop(&mut self) {
        if let Progress::Started(key) = self.progress
            && self.handles.core.owner.is_here()
        {
            self.handles.core.with(|state| state.detach(key));
        }
    }
}

impl<S: DmaSource, D: DmaTarget> fmt::Debug for Copying<S, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let progress: &dyn fmt::Debug = match &self.progress {
            Progress::Refused(Refused { error, .. }) => error,
            Progress::Started(key) => key,
            Progress::Finished => &"finished",
        };
        f.debug_tuple("Copying").field(progress).finish()
    }
}

/// What all handles and futures of a copier hold. With it the users are gone.
struct Handles<S: DmaSource, D: DmaTarget> {
    core: Arc<Core<S, D>>,
    timeout: Duration,
}

impl<S: DmaSource, D: DmaTarget> Drop for Handles<S, D> {
    fn drop(&mut self) {
        if self.core.owner.is_here() {
            self.core.with(State::close);
        }
    }
}

/// What users and reaper share.
struct Core<S: DmaSource, D: DmaTarget> {
    owner: Owner,
    info: ChannelInfo,
    stats: Arc<ChannelStats>,
    state: Mutex<State<S, D>>,
    /// For [`Copying::wait`]: some copy has ended.
    ended: Condvar,
    /// Ends the reaper's sleep.
    wake: OwnedFd,
}

impl<S: DmaSource, D: DmaTarget> Core<S, D> {
    fn lock(&self) -> MutexGuard<'_, State<S, D>> {
        // The state is valid whenever foreign code runs: the driver, and `as_ref` and its like of the
        // memory.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `body` under the lock, and what follows from it without.
    fn with<R>(&self, body: impl FnOnce(&mut State<S, D>) -> R) -> R {
        let mut state = self.lock();
        let result = body(&mut state);
        self.deliver(state);
        result
    }

    /// Blocks until some copy has ended, but not for long.
    fn block(&self, key: Key) {
        let mut state = self.lock();
        if let Watch::ByReaper(left) = state.watch_blocking(key, Instant::now()) {
            state.blocked += 1;
            let (mut state, _) = self
                .ended
                .wait_timeout(state, left.min(MAX_SLEEP))
                .unwrap_or_else(PoisonError::into_inner);
            state.blocked -= 1;
            self.deliver(state);
        } else {
            self.deliver(state);
            std::thread::yield_now();
        }
    }

    /// Wakes and drops what has to be, with the lock released.
    fn deliver(&self, mut state: MutexGuard<'_, State<S, D>>) {
        if state.outbox.is_empty() {
            return;
        }
        let mut outbox = std::mem::take(&mut state.outbox);
        drop(state);
        let Outbox { notify_reaper, notify_blocked, wakers, old_wakers, memory } = &mut outbox;
        if std::mem::take(notify_reaper) {
            // It can only fail with EAGAIN, at a count of 2^64 - 2: readable all the same.
            let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
        }
        if std::mem::take(notify_blocked) {
            self.ended.notify_all();
        }
        // One waker or buffer that panics, which its owner is told by the panic hook, must not keep
        // the others from theirs.
        for waker in wakers.drain(..) {
            let _ = catch_unwind(AssertUnwindSafe(|| waker.wake()));
        }
        for waker in old_wakers.drain(..) {
            let _ = catch_unwind(AssertUnwindSafe(|| drop(waker)));
        }
        for copied in memory.drain(..) {
            let _ = catch_unwind(AssertUnwindSafe(|| drop(copied)));
        }
        // The room is used again: nothing is allocated per copy.
        self.lock().reuse(outbox);
    }
}

#[cfg(test)]
mod tests;
