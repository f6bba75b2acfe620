//! Who drives the shard, and how threads wait.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use netstack::Instant;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use crate::core::{Core, Driver, Key, LONGEST_SLEEP, Waiter};

/// Looks at the engine this many times before a driver that has nothing else to do blocks on its
/// event. Blocking costs an `eventfd` write by the engine, a `poll(2)` and a switch of context: some
/// microseconds, and so does the copy that is waited for.
const SPINS_BEFORE_BLOCKING: u32 = 64;

/// What all threads of a shard share.
pub(crate) struct Shared {
    core: Mutex<Core>,
    epoch: std::time::Instant,
    /// Wakes the driver out of `poll(2)`.
    kick: OwnedFd,
    link_event: Option<OwnedFd>,
    engine_event: Option<OwnedFd>,
    /// Turns that program threads drove so far: how the background thread sees, without the lock,
    /// that it is not needed.
    pub(crate) turns: AtomicU64,
    /// The last handle is gone.
    pub(crate) closing: AtomicBool,
}

impl Shared {
    pub(crate) fn new(core: Core) -> io::Result<Self> {
        let own = |fd: Option<BorrowedFd<'_>>| fd.map(|fd| fd.try_clone_to_owned()).transpose();
        Ok(Self {
            link_event: own(core.link().event())?,
            engine_event: own(core.offload.event())?,
            kick: eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?,
            core: Mutex::new(core),
            epoch: std::time::Instant::now(),
            turns: AtomicU64::new(0),
            closing: AtomicBool::new(false),
        })
    }

    /// The time that the stack sees: since this shard was made.
    pub(crate) fn now(&self) -> Instant {
        Instant::from(self.epoch.elapsed())
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Core> {
        // A thread that panicked inside the lock left a state that may be wrong for its connection,
        // but memory under DMA must still be collected: go on.
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the driver so that it looks at the state again.
    pub(crate) fn kick(&self) {
        // The counter is full only if it was never read: then the driver is awake already.
        let _full = rustix::io::write(&self.kick, &1u64.to_ne_bytes());
    }

    /// Blocks until the link or the engine has something, a kick, or `until`. The caller must have
    /// done all there was to do, and drives.
    pub(crate) fn block<'a>(
        &'a self,
        mut core: MutexGuard<'a, Core>,
        until: Option<Instant>,
    ) -> MutexGuard<'a, Core> {
        let copying = core.offload.poll_timeout().is_some();
        if copying && !core.offload.arm() {
            // The copies have ended meanwhile, or the engine has no event: look again.
            drop(core);
            std::thread::yield_now();
            return self.lock();
        }
        let due = earliest(core.deadline(), until);
        core.sleeping_until = Some(due.unwrap_or_else(|| self.now() + LONGEST_SLEEP));
        // A link without receive buffers has no event: they come back with the program's reads.
        let link = if core.link().event().is_some() { &self.link_event } else { &None };
        let engine = if copying { &self.engine_event } else { &None };
        drop(core);
        self.poll([Some(self.kick.as_fd()), as_fd(link), as_fd(engine)], due);
        let mut drained = [0; 8];
        let _empty = rustix::io::read(&self.kick, &mut drained);
        let mut core = self.lock();
        core.sleeping_until = None;
        core
    }

    fn poll(&self, fds: [Option<BorrowedFd<'_>>; 3], until: Option<Instant>) {
        let timeout = until.map_or(LONGEST_SLEEP, |until| until - self.now()).min(LONGEST_SLEEP);
        let mut polled = fds.map(|fd| {
            // A missing descriptor stands in as the kick, which is polled anyway.
            PollFd::from_borrowed_fd(fd.unwrap_or_else(|| self.kick.as_fd()), PollFlags::IN)
        });
        // EINTR is a wake-up like any other: the caller looks at the state again.
        let _interrupted = poll(&mut polled, Some(&timespec(timeout)));
    }
}

fn as_fd(fd: &Option<OwnedFd>) -> Option<BorrowedFd<'_>> {
    fd.as_ref().map(OwnedFd::as_fd)
}

fn earliest(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    [a, b].into_iter().flatten().min()
}

fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: duration.as_secs().min(i32::MAX as u64).cast_signed(),
        tv_nsec: duration.subsec_nanos().into(),
    }
}

/// A thread inside a call. It holds the shard's lock except while it sleeps.
pub(crate) struct Call<'a> {
    shared: &'a Shared,
    /// `None` only while the thread sleeps, inside [`Call::wait`].
    core: Option<MutexGuard<'a, Core>>,
    drives: bool,
}

impl<'a> Call<'a> {
    pub(crate) fn enter(shared: &'a Shared) -> Self {
        Self { shared, core: Some(shared.lock()), drives: false }
    }

    pub(crate) fn core(&mut self) -> &mut Core {
        self.core.as_mut().expect("the lock is held while a call is not asleep")
    }

    pub(crate) fn now(&self) -> Instant {
        self.shared.now()
    }

    /// Makes progress towards whatever the caller waits for: one turn, or one sleep until something
    /// happened to `key`, or `until`. The caller then looks whether its condition holds.
    pub(crate) fn wait(&mut self, key: Key, until: Option<Instant>) {
        if !self.drives && self.core().driver == Driver::Program {
            self.sleep(key, until);
        } else {
            self.drive(until);
        }
    }

    /// Makes progress while an engine copies into this call's buffer: does the work that there is,
    /// or waits for the engine.
    pub(crate) fn wait_for_copies(&mut self) {
        if !self.drives && self.core().driver == Driver::Program {
            // The driver may be asleep without having asked the engine for an event.
            self.wait_for_engine();
        } else {
            self.drive(None);
        }
    }

    fn drive(&mut self, until: Option<Instant>) {
        let now = self.now();
        let core = self.core.as_mut().expect("held");
        if !self.drives {
            if core.driver == Driver::Background {
                self.shared.kick();
            }
            core.driver = Driver::Program;
            self.drives = true;
        }
        // Relaxed, and not one addition: a hint, written under the lock.
        let turns = self.shared.turns.load(Ordering::Relaxed);
        self.shared.turns.store(turns.wrapping_add(1), Ordering::Relaxed);
        if core.turn(now) || self.spin() {
            return;
        }
        let core = self.core.take().expect("held");
        self.core = Some(self.shared.block(core, until));
    }

    /// Looks at the engine for a moment before anybody blocks on it. Returns whether a receive's
    /// copies have all ended.
    fn spin(&mut self) -> bool {
        for _ in 0..SPINS_BEFORE_BLOCKING {
            let now = self.shared.now();
            let core = self.core();
            if core.offload.poll_timeout().is_none() {
                return false;
            }
            if core.reap(now) {
                return true;
            }
            std::hint::spin_loop();
        }
        false
    }

    fn wait_for_engine(&mut self) {
        if self.spin() {
            return;
        }
        let until = self.core().offload.poll_timeout();
        if self.core().offload.arm() {
            self.core = None;
            self.shared.poll([as_fd(&self.shared.engine_event), None, None], until);
        } else {
            self.core = None;
            std::thread::yield_now();
        }
        self.core = Some(self.shared.lock());
        let now = self.now();
        self.core().reap(now);
    }

    /// Sleeps until the driver wakes this thread.
    fn sleep(&mut self, key: Key, until: Option<Instant>) {
        thread_local! {
            static WAITER: Arc<Waiter> = Arc::default();
        }
        self.kick_if_due_earlier();
        let timeout = until.map_or(LONGEST_SLEEP, |until| until - self.now());
        WAITER.with(|waiter| {
            let mut core = self.core.take().expect("held");
            core.start_waiting(key, waiter);
            // Relaxed: written and read under the shard's lock.
            let (mut core, _timed_out) = waiter
                .condvar
                .wait_timeout_while(core, timeout, |_| !waiter.woken.load(Ordering::Relaxed))
                .unwrap_or_else(PoisonError::into_inner);
            core.stop_waiting(waiter);
            self.core = Some(core);
        });
    }

    /// If something is due before the driver wakes by itself, wakes it now.
    fn kick_if_due_earlier(&mut self) {
        let core = self.core();
        let Some(sleeping_until) = core.sleeping_until else { return };
        if core.deadline().is_some_and(|due| due < sleeping_until) {
            self.shared.kick();
        }
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        if self.drives {
            self.core().driver = Driver::Nobody;
        } else {
            self.kick_if_due_earlier();
        }
        let core = self.core();
        // Not only a driver hands over: a thread that was woken to drive, and finds that what it
        // waited for has happened, leaves without having driven.
        if core.driver == Driver::Nobody
            && !core.promote()
            && let Some(background) = core.sleeping_background.take()
        {
            background.unpark();
        }
    }
}
