//! Copies and fills by many owners of one channel, waited for with `.await` or by blocking.
//!
//! # Model
//!
//! A [`Copier`] is a handle that can be cloned. [`Copier::copy`] and its siblings take memory and
//! return a future that gives it back:
//!
//! ```text
//!   Copier, Copier, ..  ------+
//!   Copying, Copying, .. -----+---> slots and a Queue, behind one lock <--- reaper, a thread
//!     (slot, generation)      |     (memory, deadline, waker)               (wakes, enforces deadlines)
//! ```
//!
//! An operation is submitted and issued by the call itself, or with others of a [`Batch`]; the future
//! only waits. Whoever polls one polls the channel for all, and wakes those whose operations have
//! ended. While every future sleeps, the reaper blocks on the channel's event; on a channel without
//! events it polls, in growing steps. No runtime is needed, and none is disturbed: no method but
//! [`Copying::wait`] ever blocks for an operation.
//!
//! If the ring is full an operation waits for its turn, in the order of the calls.
//!
//! Each submission and each poll takes the lock once, and holds it while the driver is called: a
//! thread that wants none has a channel of its own and a [`Queue`].
//!
//! # Deadlines
//!
//! Every operation has a deadline. When it passes, the engine may still write the memory, so the
//! channel is terminated, and the operation ends as [`Status::TimedOut`](crate::Status::TimedOut). A
//! termination aborts all that is in flight. Those that are not late do not suffer for the one that
//! is: they are submitted again, in order and before what waits for its turn, and keep their own
//! deadlines. That is right because memory is owned: no byte of a source has changed, and nobody
//! has seen the target. Their futures cannot tell, but by the time and by the cookie, which is that of
//! the last submission; the channel's statistics count both. If the channel does not take one again
//! it ends as [`Status::Aborted`](crate::Status::Aborted), with its memory.
//!
//! If the channel cannot be proven idle within a second, the late future ends with
//! [`CopyError::Stuck`], and the memory stays with the queue: it comes free if the engine comes back,
//! and is leaked if it does not.
//!
//! A channel that is down ([`SubmitError::ChannelDown`]) is terminated by the reaper, and what was to
//! be submitted waits for that. If it still is down then, it is refused.
//!
//! # Invariants
//!
//! 1. Memory belongs to the channel's side, the [`Queue`] and the slots, never to a future. Dropping
//!    a future cancels nothing: it detaches, and the memory is freed when the operation has ended.
//!    Forgetting one leaks the slot with its memory.
//! 2. A slot is named by index and generation: an end that comes after its slot was given up finds a
//!    newer generation, and only its memory is dropped.
//! 3. A forked child has neither the reaper nor the lock's other users: there a copier refuses, a
//!    future ends as [`CopyError::Stuck`], and dropping them leaks. Nothing takes the lock.
//! 4. A driver that panics is heard of by the thread that polled; the memory stays with the queue. The
//!    reaper goes on, and so do deadlines.
//! 5. Wakers are called and dropped, and memory is dropped, with the lock released: they may be
//!    anybody's code, this copier's users' as well.

mod batch;
mod memory;
mod options;
mod outbox;
mod reaper;
mod slots;
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

pub use self::{batch::Batch, options::CopyOptions};
use self::{
    memory::Memory,
    outbox::Outbox,
    slots::{Ended, Key},
    state::{Doorbell, State, Watch},
};
use crate::{
    Channel, ChannelInfo, ChannelStats, DmaSource, DmaTarget, Done, Queue, Refused, SubmitError,
    Wait, fork::Owner,
};

/// The longest sleep while operations are in flight: what a lost event costs.
const MAX_SLEEP: Duration = Duration::from_millis(100);

/// How an operation of a [`Copier`] ended: with its memory and a status, or not at all.
pub type Copied<S, D> = Result<Done<S, D, ()>, CopyError<S, D>>;

/// Why an operation was not done, or not known to be.
#[derive(Debug, thiserror::Error)]
pub enum CopyError<S, D> {
    /// The channel did not take it; the memory is in here. [`SubmitError::RingFull`] if there was no
    /// room until the deadline.
    #[error(transparent)]
    Refused(Refused<S, D, ()>),
    /// It did not end in time, and the engine could not be stopped. The memory stays with the
    /// channel.
    #[error(
        "the operation did not end in time and the engine could not be stopped: its memory stays with the \
         engine, use another channel"
    )]
    Stuck,
}

/// One handle to a channel that copies and fills owned buffers, for any number of threads and tasks.
///
/// What can be submitted: [`copy`](Self::copy), [`fill`](Self::fill) and [`copy_sg`](Self::copy_sg),
/// each at once or with others in a [`batch`](Self::batch), and each `_with` [flags or a
/// deadline](CopyOptions) of its own. A channel that lacks an operation or a flag refuses it. For
/// parities there is [`Queue`].
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
    /// A copier over `channel`, whose operations have `timeout` to end in, unless they say otherwise.
    /// It starts a thread.
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
        self.copy_with(source, target, CopyOptions::default())
    }

    /// As [`copy`](Self::copy), with flags or a deadline of its own.
    pub fn copy_with(
        &self,
        source: S,
        target: D,
        options: impl Into<CopyOptions>,
    ) -> Copying<S, D> {
        let memory = Memory::Copy { source, target };
        self.start(memory, options.into(), Doorbell::Now, Memory::of_copy)
    }

    /// Fills all of `target` with `pattern`, repeated from the first byte on, lowest byte first. There
    /// is no source.
    pub fn fill(&self, pattern: u64, target: D) -> Copying<S, D, (), D> {
        self.fill_with(pattern, target, CopyOptions::default())
    }

    /// As [`fill`](Self::fill), with flags or a deadline of its own.
    pub fn fill_with(
        &self,
        pattern: u64,
        target: D,
        options: impl Into<CopyOptions>,
    ) -> Copying<S, D, (), D> {
        let memory = Memory::Fill { pattern, target };
        self.start(memory, options.into(), Doorbell::Now, Memory::of_fill)
    }

    /// Copies all sources, one after the other, to all targets, one after the other. Both sides have
    /// the same length in all; their pieces need not match. The two lists come back with the result:
    /// who uses them again allocates nothing.
    ///
    /// ```
    /// use std::time::Duration;
    /// use dmaengine::{Copier, CpuDevice, DmaDevice};
    ///
    /// let copier = Copier::new(CpuDevice::new(1).request_channel(0)?, Duration::from_secs(5))?;
    /// let sources = vec![b"scat".to_vec(), b"tered".to_vec()];
    /// let done = copier.copy_sg(sources, vec![vec![0; 2], vec![0; 7]]).wait()?;
    /// assert_eq!(done.target, [b"sc".to_vec(), b"attered".to_vec()]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn copy_sg(&self, sources: Vec<S>, targets: Vec<D>) -> Copying<S, D, Vec<S>, Vec<D>> {
        self.copy_sg_with(sources, targets, CopyOptions::default())
    }

    /// As [`copy_sg`](Self::copy_sg), with flags or a deadline of its own.
    pub fn copy_sg_with(
        &self,
        sources: Vec<S>,
        targets: Vec<D>,
        options: impl Into<CopyOptions>,
    ) -> Copying<S, D, Vec<S>, Vec<D>> {
        let memory = Memory::Lists { sources, targets };
        self.start(memory, options.into(), Doorbell::Now, Memory::of_lists)
    }

    /// Begins a batch: operations that are started together, with one doorbell.
    pub const fn batch(&self) -> Batch<'_, S, D> {
        Batch::new(self)
    }

    fn start<X, Y>(
        &self,
        memory: Memory<S, D>,
        options: CopyOptions,
        doorbell: Doorbell,
        parts: fn(Memory<S, D>) -> (X, Y),
    ) -> Copying<S, D, X, Y> {
        // No clock goes that far: as good as never, but not never.
        const FOREVER: Duration = Duration::from_secs(60 * 60 * 24 * 365);
        let CopyOptions { flags, timeout } = options;
        let deadline = Instant::now() + timeout.unwrap_or(self.handles.timeout).min(FOREVER);
        let core = &self.handles.core;
        let started = if core.owner.is_here() {
            core.with(|state| state.start(memory, flags, deadline, doorbell))
        } else {
            Err((SubmitError::Forked, memory))
        };
        let progress = match started {
            Ok(key) => Progress::Started(key),
            Err((error, memory)) => Progress::Refused(error, memory),
        };
        Copying { handles: Arc::clone(&self.handles), progress, parts }
    }

    /// Rings the doorbell for what was submitted without.
    fn issue(&self) {
        if self.handles.core.owner.is_here() {
            self.handles.core.with(State::issue);
        }
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

/// An operation that a [`Copier`] has started. It ends with or without this future; who drops it gives
/// up the result and the memory, which is freed when the operation has ended.
///
/// `X` and `Y` are what comes back as source and target: those of a copy, [`Vec`]s of them of a
/// scatter-gather copy, and `()` for the source of a fill.
#[must_use = "the memory comes back through it; dropped, it is freed when the operation has ended"]
pub struct Copying<S: DmaSource, D: DmaTarget, X = S, Y = D> {
    handles: Arc<Handles<S, D>>,
    progress: Progress<S, D>,
    /// Takes the memory of this kind of operation apart.
    parts: fn(Memory<S, D>) -> (X, Y),
}

enum Progress<S, D> {
    Refused(SubmitError, Memory<S, D>),
    Started(Key),
    /// The result was given out.
    Finished,
}

/// The memory is not in it, or is moved out: it is never pinned.
impl<S: DmaSource, D: DmaTarget, X, Y> Unpin for Copying<S, D, X, Y> {}

impl<S: DmaSource, D: DmaTarget, X, Y> Copying<S, D, X, Y> {
    /// Waits for the end, as [`Wait::default`] does.
    ///
    /// # Errors
    ///
    /// See [`CopyError`].
    pub fn wait(mut self) -> Copied<X, Y> {
        let key = self.key()?;
        let core = &self.handles.core;
        let start = Instant::now();
        loop {
            let now = Instant::now();
            let ended = core.with(|state| {
                state.issue();
                state.reap();
                state.expire(now);
                state.take(key)
            });
            if let Some(ended) = ended {
                self.progress = Progress::Finished;
                return self.finish(ended);
            }
            if now - start < Wait::SPIN {
                std::hint::spin_loop();
            } else {
                core.block(key);
            }
        }
    }

    /// The operation to wait for, if it is not over.
    fn key(&mut self) -> Result<Key, CopyError<X, Y>> {
        match std::mem::replace(&mut self.progress, Progress::Finished) {
            Progress::Started(key) if self.handles.core.owner.is_here() => {
                self.progress = Progress::Started(key);
                Ok(key)
            }
            Progress::Started(_) => Err(CopyError::Stuck),
            Progress::Refused(error, memory) => Err(self.refuse(error, memory)),
            Progress::Finished => panic!("a copy was polled after its end"),
        }
    }

    fn finish(&self, ended: Ended<S, D>) -> Copied<X, Y> {
        match ended {
            Ended::Reported(completion, memory) => {
                let (source, target) = (self.parts)(memory);
                Ok(Done::new(completion, source, target, ()))
            }
            Ended::Refused(error, memory) => Err(self.refuse(error, memory)),
            Ended::Stuck => Err(CopyError::Stuck),
        }
    }

    fn refuse(&self, error: SubmitError, memory: Memory<S, D>) -> CopyError<X, Y> {
        let (source, target) = (self.parts)(memory);
        CopyError::Refused(Refused { error, source, target, tag: () })
    }
}

impl<S: DmaSource, D: DmaTarget, X, Y> Future for Copying<S, D, X, Y> {
    type Output = Copied<X, Y>;

    /// # Panics
    ///
    /// If it was ready before.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Copied<X, Y>> {
        let key = self.key()?;
        let polled = self.handles.core.with(|state| state.poll(key, context.waker()));
        if polled.is_ready() {
            self.progress = Progress::Finished;
        }
        polled.map(|ended| self.finish(ended))
    }
}

impl<S: DmaSource, D: DmaTarget, X, Y> Drop for Copying<S, D, X, Y> {
    fn drop(&mut self) {
        if let Progress::Started(key) = self.progress
            && self.handles.core.owner.is_here()
        {
            self.handles.core.with(|state| state.detach(key));
        }
    }
}

impl<S: DmaSource, D: DmaTarget, X, Y> fmt::Debug for Copying<S, D, X, Y> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let progress: &dyn fmt::Debug = match &self.progress {
            Progress::Refused(error, _) => error,
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
    /// For [`Copying::wait`]: some operation has ended.
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

    /// Blocks until some operation has ended, but not for long.
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
        for ended in memory.drain(..) {
            let _ = catch_unwind(AssertUnwindSafe(|| drop(ended)));
        }
        // The room is used again: nothing is allocated per operation.
        self.lock().reuse(outbox);
    }
}

#[cfg(test)]
mod tests;
