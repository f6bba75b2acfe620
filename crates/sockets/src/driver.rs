//! Who drives the shard, and how threads wait.
//!
//! One thread at a time *drives*: it does turns and, when there is nothing to do, sleeps in
//! `poll(2)` on the link and the engine. Other threads in calls sleep on a condition variable each,
//! and are woken when something happened to what they wait for. Three rules keep a wake-up from
//! being lost:
//!
//! - Whoever changes what a call waits for wakes its key, and that reaches a sleeping driver too.
//! - Whoever leaves a call while nobody drives passes the role on: to a thread that waits, else to
//!   the background thread.
//! - Whoever leaves something due earlier than the driver wakes, or a copy that it does not watch,
//!   kicks it.

use std::{
    cell::Cell,
    io,
    os::fd::{BorrowedFd, OwnedFd},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    task::Waker,
    thread::Thread,
    time::Duration,
};

use netstack::Instant;
use parking_lot::{Mutex, MutexGuard};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::{
    core::{Asleep, Core, Driver, Key, Kicks, LONGEST_SLEEP, PollerId, TaskId, Waiter},
    patience::Patience,
};

/// What all threads of a shard share.
pub(crate) struct Shared {
    core: Mutex<Core>,
    epoch: std::time::Instant,
    kicks: Arc<Kicks>,
    link_event: Option<OwnedFd>,
    engine_event: Option<OwnedFd>,
    /// Turns that program threads drove so far: how the background thread sees, without the lock,
    /// that it is not needed.
    pub(crate) turns: AtomicU64,
    /// The last handle is gone.
    pub(crate) closing: AtomicBool,
    /// A thread was interrupted, and the driver has not looked which.
    interruption: AtomicBool,
    /// How many wait for the stack outside of its calls: then the background thread drives whenever
    /// no call does.
    watchers: AtomicUsize,
    /// A task waits, which is the same.
    has_tasks: AtomicBool,
    /// The thread that then drives.
    pub(crate) background: OnceLock<Thread>,
}

impl Shared {
    pub(crate) fn new(core: Core) -> io::Result<Self> {
        let own = |fd: Option<BorrowedFd<'_>>| fd.map(|fd| fd.try_clone_to_owned()).transpose();
        Ok(Self {
            link_event: own(core.link().event())?,
            engine_event: own(core.offload.event())?,
            kicks: Arc::clone(&core.kicks),
            core: Mutex::new(core),
            epoch: std::time::Instant::now(),
            turns: AtomicU64::new(0),
            closing: AtomicBool::new(false),
            interruption: AtomicBool::new(false),
            watchers: AtomicUsize::new(0),
            has_tasks: AtomicBool::new(false),
            background: OnceLock::new(),
        })
    }

    /// The time that the stack sees: since this shard was made.
    pub(crate) fn now(&self) -> Instant {
        Instant::from(self.epoch.elapsed())
    }

    /// The lock is not poisoned by a thread that panicked in it: its connection may be wrong then,
    /// but memory under DMA must still be collected.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Core> {
        self.core.lock()
    }

    /// One turn; `false` if there was nothing to do. Gives the lock to a thread that waits for it
    /// afterwards, so that a flood of packets does not keep calls out.
    pub(crate) fn turn(&self, core: &mut MutexGuard<'_, Core>) -> bool {
        // Relaxed first, as this is looked at in every turn. Acquire: pairs with `on_interruption`.
        if self.interruption.load(Ordering::Relaxed)
            && self.interruption.swap(false, Ordering::Acquire)
        {
            core.wake_interrupted();
        }
        let worked = core.turn(self.now());
        self.deliver(core);
        if worked {
            MutexGuard::bump(core);
        }
        worked
    }

    /// Wakes the tasks that are to be woken, with the lock released meanwhile.
    fn deliver(&self, core: &mut MutexGuard<'_, Core>) {
        if let Some(woken) = core.tasks().take_woken() {
            MutexGuard::unlocked(core, || woken.call());
        }
        // Relaxed: see `is_watched`.
        self.has_tasks.store(core.tasks().is_waiting(), Ordering::Relaxed);
    }

    /// A thread was interrupted. The driver looks which: this may be a signal handler.
    pub(crate) fn on_interruption(&self) {
        // Release: the thread's own flag comes before it.
        self.interruption.store(true, Ordering::Release);
        self.kicks.kick_all();
    }

    /// Whether somebody waits for the stack outside of its calls.
    pub(crate) fn is_watched(&self) -> bool {
        // Relaxed: it guards nothing else. Who begins to watch wakes the background thread.
        self.watchers.load(Ordering::Relaxed) > 0 || self.has_tasks.load(Ordering::Relaxed)
    }

    /// Looks for the end of copies, while the engine is expected to need less time than sleeping
    /// takes. Returns whether a call's copies have all ended.
    fn look_for_ends(&self, core: &mut MutexGuard<'_, Core>) -> bool {
        /// Between two looks: the engine's word of its progress moves from its cache to ours and back
        /// with each.
        const PAUSES: u32 = 4;

        let in_flight = core.offload.bytes_in_flight();
        let patience = core.patience.look_for(in_flight);
        if patience.is_zero() || in_flight == 0 {
            return false;
        }
        let start = self.now();
        let mut before = start;
        loop {
            for _ in 0..PAUSES {
                std::hint::spin_loop();
            }
            let now = self.now();
            // First: it is a cost of what is seen to have ended.
            core.offload.add_wait(now - before);
            before = now;
            let (ended, looked) = (core.reap(now), now - start);
            if ended || looked >= patience {
                let left = core.offload.bytes_in_flight();
                let bytes = if ended { in_flight.saturating_sub(left) } else { 0 };
                core.patience.learn(in_flight, bytes, looked);
                return ended;
            }
            MutexGuard::bump(core);
        }
    }

    /// Blocks the driver until the link or the engine has something, a kick, or `until`. It must
    /// have done all there was to do. `key` is what it waits for itself.
    pub(crate) fn block(
        &self,
        core: &mut MutexGuard<'_, Core>,
        key: Option<Key>,
        until: Option<Instant>,
    ) {
        // Whatever was reaped since the last turn may have opened a window, or ended a receive.
        core.transmit(self.now());
        self.deliver(core);
        let watches_engine = core.offload.poll_timeout().is_some();
        if watches_engine && !core.offload.arm() {
            // The copies have ended meanwhile, or the engine has no event: look again.
            MutexGuard::unlocked(core, std::thread::yield_now);
            return;
        }
        let role = core.driver;
        let latest = self.now() + LONGEST_SLEEP;
        let until = [core.deadline(), until, Some(latest)].into_iter().flatten().min();
        let until = until.unwrap_or(latest);
        core.asleep = Some(Asleep { key, until, watches_engine });
        let kick = match role {
            Driver::Program => &self.kicks.program,
            Driver::Background | Driver::Nobody => &self.kicks.background,
        };
        let link = self.link_event.as_ref().filter(|_| core.awaits_link());
        let engine = self.engine_event.as_ref().filter(|_| watches_engine);
        MutexGuard::unlocked(core, || self.poll(kick, link, engine, until));
        // Whoever took the role over has slept, or not, since.
        if core.driver == role {
            core.asleep = None;
        }
    }

    fn poll(
        &self,
        kick: &OwnedFd,
        link: Option<&OwnedFd>,
        engine: Option<&OwnedFd>,
        until: Instant,
    ) {
        let timeout = timespec(until - self.now());
        // The kick stands in for what is not waited for.
        let mut fds = [
            PollFd::new(kick, PollFlags::IN),
            PollFd::new(link.unwrap_or(kick), PollFlags::IN),
            PollFd::new(engine.unwrap_or(kick), PollFlags::IN),
        ];
        // EINTR is a wake-up like any other: the caller looks at the state again.
        let _interrupted = poll(&mut fds, Some(&timeout));
        if !fds[0].revents().is_empty() {
            // Only this role reads it.
            let _empty = rustix::io::read(kick, &mut [0; 8]);
        }
    }
}

fn timespec(duration: Duration) -> Timespec {
    Timespec {
        // At most `LONGEST_SLEEP`.
        tv_sec: duration.as_secs().cast_signed(),
        tv_nsec: duration.subsec_nanos().into(),
    }
}

/// What the calling thread waits on, in all stacks.
pub(crate) fn current_waiter() -> Arc<Waiter> {
    WAITER.with(Arc::clone)
}

thread_local! {
    static WAITER: Arc<Waiter> = Arc::default();
}

/// A thread inside a call. It holds the shard's lock except while it sleeps.
pub(crate) struct Call<'a> {
    shared: &'a Shared,
    core: MutexGuard<'a, Core>,
    drives: bool,
    /// Since the call last slept or did a turn: to read the clock costs as much as to copy a kilobyte.
    time: Cell<Option<Instant>>,
}

impl<'a> Call<'a> {
    pub(crate) fn enter(shared: &'a Shared) -> Self {
        Self { shared, core: shared.lock(), drives: false, time: Cell::new(None) }
    }

    pub(crate) fn core(&mut self) -> &mut Core {
        &mut self.core
    }

    /// The time, as of the first question since the call last slept or did a turn.
    pub(crate) fn now(&self) -> Instant {
        let now = self.time.get().unwrap_or_else(|| self.shared.now());
        self.time.set(Some(now));
        now
    }

    /// Whether the calling thread was interrupted.
    pub(crate) fn take_interruption(&self) -> bool {
        WAITER.with(|waiter| waiter.take_interruption())
    }

    /// Sees to what has arrived, unless another thread drives.
    pub(crate) fn turn(&mut self) {
        if self.core.driver == Driver::Nobody || self.drives {
            self.count_turn();
            self.shared.turn(&mut self.core);
            self.time.take();
        }
    }

    /// Gives a poller an event, which is watched from outside.
    pub(crate) fn signal_with(&mut self, poller: PollerId, event: &Arc<OwnedFd>) {
        if self.core.signal_with(poller, event) {
            // Relaxed: see `is_watched`.
            self.shared.watchers.fetch_add(1, Ordering::Relaxed);
            if let Some(background) = self.shared.background.get() {
                background.unpark();
            }
        }
    }

    pub(crate) fn remove_poller(&mut self, poller: PollerId) {
        if self.core.remove_poller(poller) {
            // Relaxed: see `is_watched`.
            self.shared.watchers.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Has a task woken when something happens to `key`, once, instead of what `id` says. Returns
    /// the waker that it replaces, which is to be dropped after the call.
    pub(crate) fn wake_task(
        &mut self,
        id: &mut Option<TaskId>,
        key: Key,
        waker: &Waker,
    ) -> Option<Waker> {
        let old = self.core.tasks().add(id, key, waker);
        // Relaxed: see `is_watched`.
        if !self.shared.has_tasks.swap(true, Ordering::Relaxed)
            && let Some(background) = self.shared.background.get()
        {
            background.unpark();
        }
        old
    }

    /// Does not wake a task. Returns its waker, which is to be dropped after the call.
    pub(crate) fn forget_task(&mut self, id: Option<TaskId>) -> Option<Waker> {
        self.core.tasks().remove(id)
    }

    /// Makes progress towards whatever the caller waits for: one turn, or one sleep until something
    /// happened to `key`, or `until`. The caller then looks whether its condition holds.
    pub(crate) fn wait(&mut self, key: Key, until: Option<Instant>) {
        if self.takes_role() {
            self.drive(key, until);
        } else {
            self.sleep(key, until);
        }
    }

    /// Makes progress while an engine copies into the buffer of this call, which is for the socket
    /// that `key` names: does the work that there is, or waits for the engine.
    pub(crate) fn wait_for_copies(&mut self, key: Key) {
        let sleeps = if self.takes_role() {
            self.drive(key, None)
        } else {
            let now = self.now();
            let sleeps = !self.core.reap(now);
            if sleeps {
                self.core.have_driver_watch_engine();
                self.sleep(key, None);
            }
            sleeps
        };
        if sleeps {
            self.core.offload.add_wait(Patience::LIMIT);
        }
    }

    /// Whether this thread drives, from now on if no other program thread does.
    fn takes_role(&mut self) -> bool {
        if !self.drives && self.core.driver != Driver::Program {
            // The background thread, if it drives and is asleep, must see that it is replaced.
            self.core.kick_driver();
            self.core.driver = Driver::Program;
            self.drives = true;
        }
        self.drives
    }

    fn count_turn(&self) {
        // Relaxed, and not one addition: a hint, written under the lock.
        let turns = self.shared.turns.load(Ordering::Relaxed);
        self.shared.turns.store(turns.wrapping_add(1), Ordering::Relaxed);
    }

    /// One turn, or one sleep; whether it slept.
    fn drive(&mut self, key: Key, until: Option<Instant>) -> bool {
        self.count_turn();
        let shared = self.shared;
        let sleeps = !shared.turn(&mut self.core) && !shared.look_for_ends(&mut self.core);
        if sleeps {
            shared.block(&mut self.core, Some(key), until);
        }
        self.time.take();
        sleeps
    }

    /// Sleeps until something happened to `key`, or the role is passed on to this thread.
    fn sleep(&mut self, key: Key, until: Option<Instant>) {
        self.core.kick_driver_if_due();
        self.shared.deliver(&mut self.core);
        let timeout = until.map_or(LONGEST_SLEEP, |until| until - self.now()).min(LONGEST_SLEEP);
        WAITER.with(|waiter| {
            self.core.start_waiting(key, waiter);
            // Relaxed: written and read under the shard's lock.
            let asleep = |_: &mut Core| !waiter.woken.load(Ordering::Relaxed);
            waiter.condvar.wait_while_for(&mut self.core, asleep, timeout);
            self.core.stop_waiting(waiter);
        });
        self.time.take();
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.shared.deliver(&mut self.core);
        let core = &mut *self.core;
        if self.drives {
            core.driver = Driver::Nobody;
        }
        if core.driver != Driver::Nobody {
            core.kick_driver_if_due();
        } else if !core.promote()
            && let Some(background) = core.sleeping_background.take()
        {
            background.unpark();
        }
    }
}
