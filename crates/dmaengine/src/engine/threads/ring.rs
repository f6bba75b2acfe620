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
//! Three questions cross between the two threads with a store on one side and a load on the other,
//! each behind a sequentially consistent fence, so that at least one side sees the other's store:
//!
//! | submitter | worker | never lost |
//! | --- | --- | --- |
//! | stores `issued`, looks at `sleeping` | stores `sleeping`, looks at `issued` | the wake-up |
//! | stores `armed`, looks at `done` | stores `done`, looks at `armed` | the event |
//!
//! Stopping needs no fence: the submitter always unparks, and an unpark before the park is kept.

use std::time::{Duration, Instant};

use super::sync::{Arc, AtomicBool, AtomicU64, Ordering, UnsafeCell, current_cpu, fence, park};
use crate::{Flags, Operation, Status, software::Descriptor};

/// `armed` when no event was asked for: no position reaches it.
const NEVER: u64 = u64::MAX;
/// `control` when the worker is to end. Other values: even is run, odd is stop; each change is the
/// next number, so that the worker's answer to one stop is not taken for the answer to a later one.
const EXIT: u64 = u64::MAX;

/// Spins between two looks at the clock: about a microsecond.
const SPINS_PER_CLOCK: u32 = 32;

/// Keeps what different threads write on different cache lines, two because processors fetch lines
/// in pairs.
#[derive(Debug)]
#[repr(align(128))]
struct CacheLines<T>(T);

/// One descriptor: a cache line.
#[derive(Debug)]
#[repr(align(64))]
struct Slot(UnsafeCell<Entry>);

#[derive(Debug, Default)]
struct Entry {
    descriptor: Descriptor,
    /// How it ended, once it is done.
    status: Option<Status>,
}

#[cfg(not(all(test, loom)))]
const _: () = assert!(size_of::<Slot>() == 64);

#[derive(Debug)]
struct Shared {
    slots: Box<[Slot]>,
    /// Written by the submitter.
    issued: CacheLines<AtomicU64>,
    /// Written by the worker; by the submitter while the worker is stopped.
    done: CacheLines<AtomicU64>,
    signals: CacheLines<Signals>,
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
}

// SAFETY: each slot is accessed by the side to which the positions assign it; all else is atomic.
unsafe impl Sync for Shared {}

impl Shared {
    fn slot(&self, position: u64) -> &UnsafeCell<Entry> {
        // The size is a power of two.
        &self.slots[position as usize & (self.slots.len() - 1)].0
    }
}

/// Makes a ring of `size` slots, a power of two.
pub(super) fn ring(size: usize) -> (Submitter, Worker) {
    assert!(size.is_power_of_two());
    let shared = Arc::new(Shared {
        slots: (0..size).map(|_| Slot(UnsafeCell::new(Entry::default()))).collect(),
        issued: CacheLines(AtomicU64::new(0)),
        done: CacheLines(AtomicU64::new(0)),
        signals: CacheLines(Signals {
            sleeping: AtomicBool::new(false),
            armed: AtomicU64::new(NEVER),
            control: AtomicU64::new(0),
            stopped: AtomicU64::new(0),
            submitter_cpu: AtomicU64::new(u64::MAX),
        }),
    });
    let submitter = Submitter {
        shared: Arc::clone(&shared),
        submitted: 0,
        issued: 0,
        done: 0,
        reported: 0,
        control: 0,
    };
    (submitter, Worker { shared, issued: 0, done: 0 })
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
    /// What `Shared::done` was when last looked at.
    done: u64,
    reported: u64,
    /// What `Signals::control` is.
    control: u64,
}

impl Submitter {
    /// Slots that are free.
    pub(super) fn space(&self) -> usize {
        self.shared.slots.len() - (self.submitted - self.reported) as usize
    }

    /// Adds an operation; `false` if the ring is full.
    pub(super) fn submit(&mut self, operation: &Operation<'_>, flags: Flags) -> bool {
        if self.space() == 0 {
            return false;
        }
        self.shared.slot(self.submitted).with_mut(|slot| {
            // SAFETY: the position is not issued, and what used the slot before was reported.
            unsafe { (*slot).descriptor.set(operation, flags) };
        });
        self.submitted += 1;
        true
    }

    /// Shows the worker what was submitted.
    pub(super) fn issue(&mut self) -> Wake {
        if self.issued == self.submitted {
            return Wake::NotNeeded;
        }
        self.issued = self.submitted;
        // Release: the slots, and all that the caller wrote to the sources, come before.
        self.shared.issued.0.store(self.issued, Ordering::Release);
        // SeqCst: with the fence in `Worker::idle`, either we see `sleeping` or it sees `issued`.
        fence(Ordering::SeqCst);
        let signals = &self.shared.signals.0;
        // Relaxed: the fence orders it.
        if !signals.sleeping.load(Ordering::Relaxed) {
            return Wake::NotNeeded;
        }
        // Relaxed: a hint.
        signals.submitter_cpu.store(current_cpu(), Ordering::Relaxed);
        Wake::Unpark
    }

    /// The next operation that has ended, in order of submission.
    pub(super) fn next_end(&mut self) -> Option<End> {
        if self.reported == self.done {
            // Acquire: what the worker wrote to the targets comes before.
            self.done = self.shared.done.0.load(Ordering::Acquire);
            if self.reported == self.done {
                return None;
            }
        }
        let end = self.shared.slot(self.reported).with(|slot| {
            // SAFETY: the position is done: the worker does not come back to the slot.
            let Entry { descriptor, status } = unsafe { &*slot };
            End { status: status.unwrap_or(Status::Aborted), len: descriptor.len() }
        });
        self.reported += 1;
        Some(end)
    }

    /// Asks for an event when all that was issued is done; `false`, and no event, if it is.
    ///
    /// An event for an earlier request may still come.
    pub(super) fn arm(&mut self) -> bool {
        // Acquire, here and below: as in `next_end`.
        if self.shared.done.0.load(Ordering::Acquire) >= self.issued {
            return false;
        }
        let armed = &self.shared.signals.0.armed;
        // Relaxed: the fence orders it.
        armed.store(self.issued, Ordering::Relaxed);
        // SeqCst: with the fence in `Worker::idle`, either we see `done` or it sees `armed`.
        fence(Ordering::SeqCst);
        if self.shared.done.0.load(Ordering::Acquire) < self.issued {
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
        // Relaxed: `is_stopped` acquired it, and the worker does not write it now.
        let done = self.shared.done.0.load(Ordering::Relaxed);
        for position in done..self.submitted {
            // SAFETY: the worker has stopped, so all slots are ours.
            self.shared.slot(position).with_mut(|slot| unsafe { (*slot).status = None });
        }
        self.issued = self.submitted;
        // Relaxed, both: `set_control` releases them.
        self.shared.issued.0.store(self.submitted, Ordering::Relaxed);
        self.shared.done.0.store(self.submitted, Ordering::Relaxed);
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
    /// What `Shared::issued` was when last looked at.
    issued: u64,
    /// What `Shared::done` is.
    done: u64,
}

impl Worker {
    /// Gives each issued operation to `execute`, in order, until [`Submitter::exit`]. Calls `fire`
    /// once for each event that was asked for and has come.
    ///
    /// With nothing to do it looks for work during `spin` and then parks its thread.
    pub(super) fn run(
        mut self,
        spin: Duration,
        mut execute: impl FnMut(&Descriptor) -> Status,
        mut fire: impl FnMut(),
    ) {
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
            if self.done == self.issued {
                // Acquire: the slots, and the bytes of the sources.
                self.issued = self.shared.issued.0.load(Ordering::Acquire);
                if self.done == self.issued {
                    self.idle(spin, &mut fire);
                    continue;
                }
            }
            self.shared.slot(self.done).with_mut(|slot| {
                // SAFETY: the position is issued and not done, so the slot is ours.
                let Entry { descriptor, status } = unsafe { &mut *slot };
                *status = Some(execute(descriptor));
            });
            self.done += 1;
            // Release: what was written to the target, and our use of the slot, come before.
            self.shared.done.0.store(self.done, Ordering::Release);
            self.fire_if_due(&mut fire);
        }
    }

    /// Fires the event if its position is reached. Without a fence between the store of `done` and
    /// this, a request may be seen late: at the next operation, or at the latest in `idle`.
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
    fn idle(&self, spin: Duration, fire: &mut impl FnMut()) {
        // SeqCst: with the fence in `Submitter::arm`, either we see `armed` or it sees `done`.
        fence(Ordering::SeqCst);
        self.fire_if_due(fire);

        if !spin.is_zero() {
            let start = Instant::now();
            while start.elapsed() < spin && !self.shares_cpu() {
                for _ in 0..SPINS_PER_CLOCK {
                    if self.has_work() {
                        return;
                    }
                    std::hint::spin_loop();
                }
            }
        }

        let sleeping = &self.shared.signals.0.sleeping;
        // Relaxed: the fence orders it.
        sleeping.store(true, Ordering::Relaxed);
        // SeqCst: with the fence in `Submitter::issue`, either we see `issued` or it sees
        // `sleeping`, and then it unparks us.
        fence(Ordering::SeqCst);
        if !self.has_work() {
            park();
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
        // Relaxed: ordered by `control`. Not `issued`, which may be further on already.
        self.done = self.shared.done.0.load(Ordering::Relaxed);
        self.issued = self.done;
    }
}

#[cfg(all(test, loom))]
mod model;
#[cfg(all(test, not(loom)))]
mod tests;
