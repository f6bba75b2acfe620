//! The ring between a channel and its worker thread.
//!
//! ```text
//!     reported         done          issued       submitted
//!        |  to report   |  to execute  |  to issue   |
//!   -----+--------------+--------------+-------------+-----> positions, never wrapping
//!    submitter's     worker's      submitter's   submitter's
//!     private         shared         shared        private
//! ```
//!
//! A position is the number of operations before it; its slot is the position modulo the ring's
//! size. A slot belongs to the submitter, except between `done` and `issued`, where it belongs to
//! the worker. `submitted - reported` never exceeds the ring's size, so positions that share a slot
//! are never both in use.
//!
//! Two questions cross between the two threads with a store on one side and a load on the other,
//! each behind a fence, so that at least one side sees the other's store:
//!
//! | submitter | worker | never lost |
//! | --- | --- | --- |
//! | stores `issued`, looks at `sleeping` | stores `sleeping`, looks at `issued` | the wake-up |
//! | stores `armed`, looks at `done` | stores `done`, looks at `armed` | the event |
//!
//! The worker has one fence for both, before it sleeps. Until then it looks at `issued` and `armed`
//! again and again, and what it overlooked once it sees the next time. So the fence is seldom there
//! and frequent at the submitter, whose half costs nothing ([`AsymmetricFence`]).
//!
//! Stopping needs no fence: the submitter always unparks, and an unpark before the park is kept.
//!
//! # What crosses between the processors
//!
//! A cache line that the other side has written costs as much to read as all the rest of an
//! operation, so the submitter reads one, with `done` in it, for all operations that a poll reports.
//! It keeps their lengths itself, and looks into slots only if `failures` says that it must. Of
//! short operations the worker executes several before it writes `done` ([`PUBLISH_BYTES`]), and of
//! those with [`Flags::NO_STATUS`] all that it finds.
//!
//! Slots are only written by the submitter then, but for the status, which the worker writes even if
//! it is success. That takes the line from the submitter's cache. When the submitter comes back to
//! the slot, its stores miss, and a processor works on many such misses at a time. On a line that it
//! still has, shared with the worker, each store would wait for the other copy to go, one after the
//! other: 10 ns a slot where 1.6 ns are enough, on a Zen 4 with both threads on one L3.

use std::time::{Duration, Instant};

use super::{
    fence::AsymmetricFence,
    idle::Patience,
    prefetch::prefetch_for_write,
    staged::{Copy, Staged},
    sync::{Arc, AtomicBool, AtomicU64, Ordering, UnsafeCell, current_cpu, park, park_timeout},
};
use crate::{Flags, Operation, OperationKind, Status, software::Descriptor};

/// `armed` when no event was asked for: no position reaches it.
const NEVER: u64 = u64::MAX;
/// `control` when the worker is to end. Other values: even is run, odd is stop; each change is the
/// next number, so that the worker's answer to one stop is not taken for the answer to a later one.
const EXIT: u64 = u64::MAX;

/// Spins between two looks at the clock: about a microsecond.
const SPINS_PER_CLOCK: u32 = 32;

/// Two looks at the clock that are so far apart had something else between them: another thread,
/// which wants this processor. (Interrupts are shorter.)
const PREEMPTED: Duration = Duration::from_micros(100);

/// With so many bytes done since it last wrote `done`, the worker writes it, though more is issued:
/// about a microsecond of copying, which no completion waits longer for.
const PUBLISH_BYTES: usize = 16 << 10;

/// How many slots ahead of the one that is submitted the submitter fetches. As many lines come at a
/// time as the processor can wait for, however many stores its client has between two of ours.
const PREFETCH_DISTANCE: usize = 32;

/// A slot that is so many beyond what the worker has done is written at once, in slots: the worker's
/// processor reads ahead of the worker, but not so far.
const FAR: u64 = 64;

/// How long a worker sleeps that may not be woken, because the kernel has withdrawn `membarrier`.
const NAP: Duration = Duration::from_millis(1);

/// Keeps what different threads write on different cache lines, two because processors fetch lines
/// in pairs.
#[derive(Debug)]
#[repr(align(128))]
struct CacheLines<T>(T);

/// One descriptor: a cache line.
#[derive(Debug)]
#[repr(align(64))]
struct Slot(UnsafeCell<Entry>);

#[derive(Debug)]
struct Entry {
    descriptor: Descriptor,
    /// How it ended, once it is done.
    status: Status,
}

impl Default for Entry {
    fn default() -> Self {
        Self { descriptor: Descriptor::default(), status: Status::Success }
    }
}

#[cfg(not(all(test, loom)))]
const _: () = assert!(size_of::<Slot>() == 64);

#[derive(Debug)]
struct Shared {
    slots: Box<[Slot]>,
    /// Written by the submitter.
    issued: CacheLines<AtomicU64>,
    /// Written by the worker; by the submitter while the worker is stopped.
    ends: CacheLines<Ends>,
    signals: CacheLines<Signals>,
    fence: AsymmetricFence,
    start: Instant,
}

#[derive(Debug)]
struct Ends {
    done: AtomicU64,
    /// How many have ended otherwise than with success. It may count some that `done` does not yet.
    failures: AtomicU64,
}

/// Written rarely, so that looking at them costs nothing.
#[derive(Debug)]
struct Signals {
    /// The worker parks, or is about to.
    sleeping: AtomicBool,
    /// Fire an event when `done` reaches this position.
    armed: AtomicU64,
    /// What the submitter wants of the worker: see [`EXIT`].
    control: AtomicU64,
    /// The stop that the worker obeys: it touches nothing until `control` changes.
    stopped: AtomicU64,
    /// Where the submitter ran when it last woke the worker: a processor's number.
    submitter_cpu: AtomicU64,
    /// When that was, in nanoseconds since `Shared::start`.
    woken: AtomicU64,
}

// SAFETY: each slot is accessed by the side to which the positions assign it; all else is atomic.
unsafe impl Sync for Shared {}

impl Shared {
    fn slot(&self, position: u64) -> &UnsafeCell<Entry> {
        &self.slots[self.index(position)].0
    }

    /// The index of a position's slot.
    fn index(&self, position: u64) -> usize {
        // The size is a power of two.
        position as usize & (self.slots.len() - 1)
    }

    fn now(&self) -> u64 {
        // For 584 years.
        self.start.elapsed().as_nanos() as u64
    }
}

/// Makes a ring of `size` slots, a power of two.
pub(super) fn ring(size: usize) -> (Submitter, Worker) {
    assert!(size.is_power_of_two());
    let shared = Arc::new(Shared {
        slots: (0..size).map(|_| Slot(UnsafeCell::new(Entry::default()))).collect(),
        issued: CacheLines(AtomicU64::new(0)),
        ends: CacheLines(Ends { done: AtomicU64::new(0), failures: AtomicU64::new(0) }),
        signals: CacheLines(Signals {
            sleeping: AtomicBool::new(false),
            armed: AtomicU64::new(NEVER),
            control: AtomicU64::new(0),
            stopped: AtomicU64::new(0),
            submitter_cpu: AtomicU64::new(u64::MAX),
            woken: AtomicU64::new(0),
        }),
        fence: AsymmetricFence::new(),
        start: Instant::now(),
    });
    let submitter = Submitter {
        shared: Arc::clone(&shared),
        submitted: 0,
        issued: 0,
        done: 0,
        reported: 0,
        failures: 0,
        reported_failures: 0,
        lens: vec![0; size].into(),
        staged: Staged::new(),
        control: 0,
    };
    (submitter, Worker { shared, done: 0 })
}

/// Whether the worker's thread must be unparked now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "without the unpark the worker may sleep on"]
pub(super) enum Wake {
    Unpark,
    NotNeeded,
}

/// How an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct End {
    pub(super) status: Status,
    pub(super) len: usize,
}

/// The channel's end of the ring.
#[derive(Debug)]
pub(super) struct Submitter {
    shared: Arc<Shared>,
    submitted: u64,
    issued: u64,
    /// What `Ends::done` was when last looked at.
    done: u64,
    reported: u64,
    /// What `Ends::failures` was when last looked at.
    failures: u64,
    reported_failures: u64,
    /// Of each slot's operation, in bytes.
    lens: Box<[usize]>,
    /// Of those that were submitted and not issued, some from the second on: their slots are not
    /// written yet.
    staged: Staged,
    /// What `Signals::control` is.
    control: u64,
}

impl Submitter {
    /// Slots that are free.
    pub(super) fn space(&self) -> usize {
        self.shared.slots.len() - (self.submitted - self.reported) as usize
    }

    /// Adds an operation, and returns its position; `None` if the ring is full.
    pub(super) fn submit(&mut self, operation: &Operation<'_>, flags: Flags) -> Option<u64> {
        if let Operation::Memcpy { source, target, len } = *operation {
            return self.submit_memcpy(source, target, len, flags);
        }
        if self.space() == 0 {
            return None;
        }
        self.write(self.submitted, |descriptor| descriptor.set(operation, flags));
        Some(self.add(operation.len()))
    }

    /// Adds a copy.
    ///
    /// Its words come one by one, in registers. The caller of a channel has just written them into
    /// an [`Operation`]; if they were read from there two at a time, the store buffer could not
    /// answer. The load would wait until that is empty, and with it for every slot so far to come
    /// from the worker's cache.
    #[inline]
    pub(super) fn submit_memcpy(
        &mut self,
        source: *const u8,
        target: *mut u8,
        len: usize,
        flags: Flags,
    ) -> Option<u64> {
        let space = self.space();
        if space == 0 {
            return None;
        }
        // The first of a batch may be the only one: its slot is written at once.
        let place = (self.submitted - self.issued).wrapping_sub(1);
        let is_far = self.submitted - self.done >= FAR;
        if is_far || !self.staged.put(place, Copy { source, target, len, flags }) {
            self.write(self.submitted, |descriptor| {
                descriptor.set_memcpy(source, target, len, flags);
            });
        }
        if space > PREFETCH_DISTANCE {
            let later = self.submitted + PREFETCH_DISTANCE as u64;
            // The slot is free: ours.
            self.shared.slot(later).with_mut(|slot| prefetch_for_write(slot));
        }
        Some(self.add(len))
    }

    /// Counts an operation whose slot is written, or which is staged, and returns its position.
    #[inline]
    fn add(&mut self, len: usize) -> u64 {
        let position = self.submitted;
        self.lens[self.shared.index(position)] = len;
        self.submitted = position + 1;
        position
    }

    /// Writes the slots of what is staged.
    #[inline]
    fn write_staged(&mut self) {
        let Self { shared, staged, issued, .. } = self;
        for (position, &Copy { source, target, len, flags }) in (*issued + 1..).zip(staged.take()) {
            shared.slot(position).with_mut(|slot| {
                // SAFETY: as in `write`.
                unsafe { (*slot).descriptor.set_memcpy(source, target, len, flags) };
            });
        }
    }

    /// Writes the slot of a position that is not issued.
    #[inline]
    fn write(&self, position: u64, set: impl FnOnce(&mut Descriptor)) {
        debug_assert!(position >= self.issued && position - self.reported < self.lens.len() as u64);
        self.shared.slot(position).with_mut(|slot| {
            // SAFETY: the position is not issued, and what used the slot before was reported.
            set(unsafe { &mut (*slot).descriptor });
        });
    }

    /// The position of the operation that is reported next.
    #[inline]
    pub(super) const fn reported(&self) -> u64 {
        self.reported
    }

    /// Shows the worker what was submitted.
    pub(super) fn issue(&mut self) -> Wake {
        if self.issued == self.submitted {
            return Wake::NotNeeded;
        }
        self.write_staged();
        self.issued = self.submitted;
        // Release: the slots, and all that the caller wrote to the sources, come before.
        self.shared.issued.0.store(self.issued, Ordering::Release);
        // With the worker's fence in `Worker::sleep`, either we see `sleeping` or it sees `issued`.
        self.shared.fence.frequent();
        // Relaxed: the fence orders it.
        if self.shared.signals.0.sleeping.load(Ordering::Relaxed) {
            self.wake();
            return Wake::Unpark;
        }
        Wake::NotNeeded
    }

    #[cold]
    fn wake(&self) {
        let signals = &self.shared.signals.0;
        // Relaxed, all. Once is enough, so that the doorbells until it is awake cost nothing: the
        // unpark comes after this store, so a worker that does not sleep now, and whose next
        // `sleeping` this store may undo, does not sleep then either. The others are hints.
        signals.sleeping.store(false, Ordering::Relaxed);
        signals.submitter_cpu.store(current_cpu(), Ordering::Relaxed);
        signals.woken.store(self.shared.now(), Ordering::Relaxed);
    }

    /// Looks which operations have ended, for [`next_end`](Self::next_end).
    #[inline]
    pub(super) fn look(&mut self) {
        let Ends { done, failures } = &self.shared.ends.0;
        // Acquire: what the worker wrote to the targets comes before.
        self.done = done.load(Ordering::Acquire);
        // Relaxed: the acquire has made those visible that `done` counts.
        self.failures = failures.load(Ordering::Relaxed);
    }

    /// Takes all that had ended at the last look, if all with success; how many they are.
    #[inline]
    pub(super) fn take_successes(&mut self) -> usize {
        if self.failures != self.reported_failures {
            return 0;
        }
        let count = self.done - self.reported;
        self.reported = self.done;
        count as usize
    }

    /// Whether [`next_end`](Self::next_end) has one.
    #[inline]
    pub(super) const fn has_ended(&self) -> bool {
        self.reported != self.done
    }

    /// The next operation that had ended at the last look, in order of submission.
    #[inline]
    pub(super) fn next_end(&mut self) -> Option<End> {
        if !self.has_ended() {
            return None;
        }
        let position = self.reported;
        self.reported += 1;
        let len = self.lens[self.shared.index(position)];
        let status = if self.failures == self.reported_failures {
            Status::Success
        } else {
            self.look_into(position)
        };
        Some(End { status, len })
    }

    #[cold]
    fn look_into(&mut self, position: u64) -> Status {
        // SAFETY: the position is done: the worker does not come back to the slot.
        let status = self.shared.slot(position).with(|slot| unsafe { (*slot).status });
        self.reported_failures += u64::from(status != Status::Success);
        status
    }

    /// Asks for an event when all that was issued is done; `false`, and no event, if it is.
    ///
    /// An event for an earlier request may still come.
    pub(super) fn arm(&mut self) -> bool {
        // Acquire, here and below: as in `look`.
        let done = &self.shared.ends.0.done;
        if done.load(Ordering::Acquire) >= self.issued {
            return false;
        }
        let armed = &self.shared.signals.0.armed;
        // Relaxed: the fence orders it.
        armed.store(self.issued, Ordering::Relaxed);
        // With the worker's fence in `Worker::sleep`, either we see `done` or it sees `armed`.
        self.shared.fence.frequent();
        if done.load(Ordering::Acquire) < self.issued {
            return true;
        }
        // All ended just now. If the position is gone, the event comes. Relaxed: who swaps out the
        // position decides; nothing else depends.
        armed.swap(NEVER, Ordering::Relaxed) == NEVER
    }

    /// Tells the worker to stop before its next operation. Unpark it then.
    pub(super) fn stop(&mut self) {
        if self.control.is_multiple_of(2) {
            self.set_control(self.control + 1);
        }
    }

    /// Whether the worker has stopped.
    pub(super) fn is_stopped(&self) -> bool {
        // Acquire: all that the worker did comes before.
        self.shared.signals.0.stopped.load(Ordering::Acquire) == self.control
    }

    /// Aborts what a stopped worker has not executed and lets it run again. Unpark it then.
    pub(super) fn abort_and_resume(&mut self) {
        debug_assert!(self.is_stopped());
        let Ends { done: shared_done, failures } = &self.shared.ends.0;
        // Relaxed, here and below: `is_stopped` acquired both, and the worker does not write now.
        let done = shared_done.load(Ordering::Relaxed);
        for position in done..self.submitted {
            // SAFETY: the worker has stopped, so all slots are ours.
            self.shared.slot(position).with_mut(|slot| unsafe { (*slot).status = Status::Aborted });
        }
        // They are aborted by now.
        self.staged.take();
        self.issued = self.submitted;
        let failures_before = failures.load(Ordering::Relaxed);
        // Relaxed, all: `set_control` releases them.
        self.shared.issued.0.store(self.submitted, Ordering::Relaxed);
        failures.store(failures_before + (self.submitted - done), Ordering::Relaxed);
        shared_done.store(self.submitted, Ordering::Relaxed);
        self.set_control(self.control + 1);
    }

    /// Makes the worker's `run` return before its next operation. Unpark it then.
    pub(super) fn exit(&mut self) {
        self.set_control(EXIT);
    }

    fn set_control(&mut self, control: u64) {
        self.control = control;
        // Release: the positions that `abort_and_resume` set come before.
        self.shared.signals.0.control.store(control, Ordering::Release);
    }
}

/// The worker's end of the ring.
#[derive(Debug)]
pub(super) struct Worker {
    shared: Arc<Shared>,
    /// Operations executed: what `Ends::done` is, or is about to be.
    done: u64,
}

impl Worker {
    /// Gives each issued operation to `execute`, in order, until [`Submitter::exit`]. Calls `fire`
    /// once for each event that was asked for and has come.
    ///
    /// With nothing to do it looks for work, for `spin` at most, and then parks its thread.
    pub(super) fn run(
        mut self,
        spin: Duration,
        mut execute: impl FnMut(&Descriptor) -> Status,
        mut fire: impl FnMut(),
    ) {
        let mut patience = Patience::new(spin);
        loop {
            // Acquire: for the positions that `Submitter::abort_and_resume` set.
            match self.shared.signals.0.control.load(Ordering::Acquire) {
                EXIT => return,
                run if run.is_multiple_of(2) => {}
                _ => {
                    self.halt();
                    continue;
                }
            }
            // Acquire: the slots, and the bytes of the sources.
            let issued = self.shared.issued.0.load(Ordering::Acquire);
            if self.done == issued {
                self.idle(&mut patience, &mut fire);
            } else {
                self.work(issued, &mut execute, &mut fire);
            }
        }
    }

    /// Executes what is issued, up to a command.
    fn work(
        &mut self,
        issued: u64,
        execute: &mut impl FnMut(&Descriptor) -> Status,
        fire: &mut impl FnMut(),
    ) {
        let signals = &self.shared.signals.0;
        let failures = &self.shared.ends.0.failures;
        let mut unpublished_bytes = 0;
        loop {
            unpublished_bytes += self.shared.slot(self.done).with_mut(|slot| {
                // SAFETY: the position is issued and not done, so the slot is ours.
                let Entry { descriptor, status } = unsafe { &mut *slot };
                *status = execute(descriptor);
                if *status != Status::Success {
                    // Relaxed, both: `done` is released after it, and we alone write it.
                    failures.store(failures.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
                }
                bytes_to_publish(descriptor)
            });
            self.done += 1;
            // Relaxed: `run` looks again with acquire.
            let go_on =
                self.done != issued && signals.control.load(Ordering::Relaxed).is_multiple_of(2);
            if !go_on || unpublished_bytes >= PUBLISH_BYTES {
                unpublished_bytes = 0;
                self.publish(fire);
            }
            if !go_on {
                return;
            }
        }
    }

    /// Shows the submitter what is done, and fires its event if it is due.
    fn publish(&self, fire: &mut impl FnMut()) {
        // Release: what was written to the targets, and our use of the slots, come before.
        self.shared.ends.0.done.store(self.done, Ordering::Release);
        self.fire_if_due(fire);
    }

    /// Fires the event if its position is reached. Without a fence between the store of `done` and
    /// this, a request may be overlooked; it is seen the next time, at the latest in `sleep`.
    fn fire_if_due(&self, fire: &mut impl FnMut()) {
        let signal = &self.shared.signals.0.armed;
        // Relaxed, all: who swaps out the position decides, and the event itself orders.
        let armed = signal.load(Ordering::Relaxed);
        if armed <= self.done
            && signal.compare_exchange(armed, NEVER, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        {
            fire();
        }
    }

    /// Waits for work or a command; may return early.
    fn idle(&self, patience: &mut Patience, fire: &mut impl FnMut()) {
        if patience.get().is_zero() {
            return self.sleep(fire);
        }
        // Work that comes at once does not wait for a look at the clock.
        if self.spin(fire) {
            return;
        }
        let start = self.shared.now();
        let mut last = start;
        while last - start < patience.get().as_nanos() as u64 && !self.shares_cpu() {
            if self.spin(fire) {
                return;
            }
            let now = self.shared.now();
            if now - last > PREEMPTED.as_nanos() as u64 {
                break;
            }
            last = now;
        }
        self.sleep(fire);
        // Relaxed: a hint.
        let woken = self.shared.signals.0.woken.load(Ordering::Relaxed);
        if woken >= start {
            patience.learn(Duration::from_nanos(woken - start));
        }
    }

    /// Looks for work or a command, about a microsecond long; whether there is any.
    fn spin(&self, fire: &mut impl FnMut()) -> bool {
        for _ in 0..SPINS_PER_CLOCK {
            if self.has_work() {
                return true;
            }
            self.fire_if_due(fire);
            std::hint::spin_loop();
        }
        false
    }

    /// Parks the thread if there is nothing to do.
    fn sleep(&self, fire: &mut impl FnMut()) {
        let sleeping = &self.shared.signals.0.sleeping;
        // Relaxed: the fence orders it.
        sleeping.store(true, Ordering::Relaxed);
        // With the fences in `Submitter::issue` and `Submitter::arm`: either we see `issued` or it
        // sees `sleeping`, and then it unparks us; either we see `armed` or it sees `done`.
        let certain = self.shared.fence.seldom();
        self.fire_if_due(fire);
        if !self.has_work() {
            if certain {
                park();
            } else {
                park_timeout(NAP);
            }
        }
        // Relaxed: seen late it costs an unpark too many.
        sleeping.store(false, Ordering::Relaxed);
    }

    /// Whether this thread seems to hold the processor that the submitter needs. On a busy machine
    /// the kernel may wake us there, ahead of the submitter: whoever spins then spins in its time.
    fn shares_cpu(&self) -> bool {
        // Relaxed: a hint.
        self.shared.signals.0.submitter_cpu.load(Ordering::Relaxed) == current_cpu()
    }

    /// Whether there is an operation or a command.
    fn has_work(&self) -> bool {
        // Relaxed, both: `run` looks again with acquire.
        let control = self.shared.signals.0.control.load(Ordering::Relaxed);
        self.shared.issued.0.load(Ordering::Relaxed) != self.done || !control.is_multiple_of(2)
    }

    /// Answers a stop and waits until it is over.
    fn halt(&mut self) {
        let signals = &self.shared.signals.0;
        loop {
            // Acquire: as in `run`.
            let control = signals.control.load(Ordering::Acquire);
            if control == EXIT || control.is_multiple_of(2) {
                break;
            }
            // Release: all that we did comes before.
            signals.stopped.store(control, Ordering::Release);
            park();
        }
        // Relaxed: ordered by `control`.
        self.done = self.shared.ends.0.done.load(Ordering::Relaxed);
    }
}

/// What an operation that was executed adds to [`PUBLISH_BYTES`].
const fn bytes_to_publish(descriptor: &Descriptor) -> usize {
    if descriptor.flags().contains(Flags::NO_STATUS) {
        return 0;
    }
    match descriptor.kind() {
        OperationKind::Memcpy | OperationKind::MemcpySg | OperationKind::Memset => descriptor.len(),
        // They take longer than a copy, and there are not so many.
        OperationKind::Xor | OperationKind::XorVal | OperationKind::Pq | OperationKind::PqVal => {
            PUBLISH_BYTES
        }
    }
}

#[cfg(all(test, loom))]
mod model;
#[cfg(all(test, not(loom)))]
mod tests;
