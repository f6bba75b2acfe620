//! What a copier knows of each copy.

use std::{
    collections::VecDeque,
    task::{Poll, Waker},
    time::{Duration, Instant},
};

use super::{Copied, CopyError, MAX_SLEEP};
use crate::{DmaSource, DmaTarget, Done, Queue, Refused, Status, Stuck, SubmitError};

/// How long a termination may hold the lock.
const STOP_ATTEMPT: Duration = Duration::from_millis(10);
/// After how long of failed terminations a copy is given up as stuck.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// Names a slot for the length of one copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    index: u32,
    generation: u32,
}

struct Slot<S, D> {
    /// Of the copy that is in it, or will be next.
    generation: u32,
    phase: Phase<S, D>,
    deadline: Instant,
    /// Of the future, once it was polled.
    waker: Option<Waker>,
    /// The future is gone.
    is_detached: bool,
}

enum Phase<S, D> {
    Free,
    /// Waits for room in the ring.
    Backlog {
        source: S,
        target: D,
    },
    /// The queue has the memory.
    InFlight,
    /// Waits for the future to take it.
    Ended(Copied<S, D>),
}

/// What is to be done when the lock is released: it is foreign code, or a system call.
pub(super) struct Outbox<S, D> {
    pub(super) notify_reaper: bool,
    /// Threads that block are to look again.
    pub(super) notify_blocked: bool,
    /// To be woken.
    pub(super) wakers: Vec<Waker>,
    /// To be dropped, which may drop a task and futures in it.
    pub(super) old_wakers: Vec<Waker>,
    /// To be dropped.
    pub(super) memory: Vec<Copied<S, D>>,
}

impl<S, D> Default for Outbox<S, D> {
    fn default() -> Self {
        Self {
            notify_reaper: false,
            notify_blocked: false,
            wakers: Vec::new(),
            old_wakers: Vec::new(),
            memory: Vec::new(),
        }
    }
}

impl<S, D> Outbox<S, D> {
    pub(super) const fn is_empty(&self) -> bool {
        let Self { notify_reaper, notify_blocked, wakers, old_wakers, memory } = self;
        !*notify_reaper
            && !*notify_blocked
            && wakers.is_empty()
            && old_wakers.is_empty()
            && memory.is_empty()
    }
}

/// Who will notice that a copy has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Watch {
    /// The reaper, by the channel's event, or at the latest after this time, the deadline.
    ByReaper(Duration),
    /// Who polls.
    ByPolling,
}

/// What the reaper does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Sleeps until something happens, but no longer than this.
    Sleep(Option<Duration>),
    /// Polls again after a short pause.
    Step,
    /// Nobody uses the copier any more, and no copy is waited for.
    Close,
}

pub(super) struct State<S: DmaSource, D: DmaTarget> {
    queue: Queue<S, D, Key>,
    slots: Vec<Slot<S, D>>,
    /// Indices of free slots.
    free: Vec<u32>,
    /// In the order of their turn. Those that are no longer in the backlog are skipped.
    backlog: VecDeque<Key>,
    /// No copy has an earlier deadline.
    next_deadline: Option<Instant>,
    /// Since when the channel does not stop.
    stuck_since: Option<Instant>,
    /// An event was asked for, and has not been answered.
    is_armed: bool,
    /// Copies were started since the reaper last looked.
    is_active: bool,
    /// The reaper will look at everything before it sleeps.
    is_reaper_awake: bool,
    /// Until when it sleeps at most, otherwise; `None` for until it is woken.
    reaper_wakes: Option<Instant>,
    /// Nobody uses the copier any more.
    is_closing: bool,
    /// Threads that block.
    pub(super) blocked: usize,
    pub(super) outbox: Outbox<S, D>,
}

impl<S: DmaSource, D: DmaTarget> State<S, D> {
    pub(super) fn new(queue: Queue<S, D, Key>) -> Self {
        Self {
            queue,
            slots: Vec::new(),
            free: Vec::new(),
            backlog: VecDeque::new(),
            next_deadline: None,
            stuck_since: None,
            is_armed: false,
            is_active: false,
            is_reaper_awake: true,
            reaper_wakes: None,
            is_closing: false,
            blocked: 0,
            outbox: Outbox::default(),
        }
    }

    /// Starts a copy, or puts it into the backlog.
    pub(super) fn start(
        &mut self,
        source: S,
        target: D,
        deadline: Instant,
    ) -> Result<Key, Refused<S, D, ()>> {
        if !self.backlog.is_empty() {
            self.reap();
        }
        let key = self.vacant();
        let phase = if self.backlog.is_empty() {
            self.submit(source, target, key)?
        } else {
            Phase::Backlog { source, target }
        };
        if matches!(phase, Phase::Backlog { .. }) {
            self.backlog.push_back(key);
        } else {
            self.queue.issue_pending();
        }
        self.occupy(key, phase, deadline);

        self.is_active = true;
        if self.next_deadline.is_none_or(|next| deadline < next) {
            self.next_deadline = Some(deadline);
        }
        if self.reaper_wakes.is_none_or(|wakes| deadline < wakes) {
            self.notify_reaper();
        }
        Ok(key)
    }

    /// Submits a copy, which is then in flight, or in the backlog if there is no room.
    fn submit(&mut self, source: S, target: D, key: Key) -> Result<Phase<S, D>, Refused<S, D, ()>> {
        match self.queue.copy(source, target, key) {
            Ok(_) => Ok(Phase::InFlight),
            Err(Refused { error, source, target, tag: _ }) => {
                // With nothing in flight, nothing makes room.
                if error == SubmitError::RingFull && !self.queue.is_idle() {
                    Ok(Phase::Backlog { source, target })
                } else {
                    Err(Refused { error, source, target, tag: () })
                }
            }
        }
    }

    /// Looks what has ended, for whomever, and submits what has waited for room.
    pub(super) fn reap(&mut self) {
        let Self { queue, slots, free, outbox, blocked, .. } = self;
        if queue.poll(|done| end(done, None, slots, free, outbox)) > 0 {
            outbox.notify_blocked |= *blocked > 0;
            self.submit_backlog();
        }
    }

    fn submit_backlog(&mut self) {
        let mut submitted = false;
        while let Some(&key) = self.backlog.front() {
            let slot = &mut self.slots[key.index as usize];
            let is_current = slot.generation == key.generation;
            let phase = match std::mem::replace(&mut slot.phase, Phase::InFlight) {
                Phase::Backlog { source, target } if is_current => {
                    match self.submit(source, target, key) {
                        Ok(phase) => phase,
                        Err(refused) => Phase::Ended(Err(CopyError::Refused(refused))),
                    }
                }
                other => {
                    // Its future is gone, or its time was up.
                    self.slots[key.index as usize].phase = other;
                    self.backlog.pop_front();
                    continue;
                }
            };
            let slot = &mut self.slots[key.index as usize];
            slot.phase = phase;
            match slot.phase {
                Phase::Backlog { .. } => break,
                Phase::Ended(_) => {
                    self.outbox.wakers.extend(slot.waker.take());
                    self.outbox.notify_blocked |= self.blocked > 0;
                }
                Phase::InFlight | Phase::Free => submitted = true,
            }
            self.backlog.pop_front();
        }
        if submitted {
            self.queue.issue_pending();
        }
    }

    /// Ends copies whose deadline has passed, if need be by terminating the channel.
    pub(super) fn expire(&mut self, now: Instant) {
        if self.next_deadline.is_none_or(|deadline| now < deadline) {
            return;
        }
        let is_overdue =
            |slot: &Slot<S, D>| matches!(slot.phase, Phase::InFlight) && slot.deadline <= now;
        if self.slots.iter().any(is_overdue) {
            let Self { queue, slots, free, outbox, .. } = self;
            let stopped = queue
                .terminate_sync(STOP_ATTEMPT, |done| end(done, Some(now), slots, free, outbox));
            self.stuck_since = match stopped {
                Ok(()) => None,
                Err(Stuck) => self.stuck_since.or(Some(now)),
            };
        }
        // Or the channel has stopped, and has not reported all that it had.
        let give_up = self.stuck_since.is_none_or(|since| now - since >= STOP_TIMEOUT);
        let mut next_deadline: Option<Instant> = None;
        for (index, slot) in (0..).zip(&mut self.slots) {
            let is_late = slot.deadline <= now;
            let ended = match std::mem::replace(&mut slot.phase, Phase::InFlight) {
                Phase::Backlog { source, target } if is_late => {
                    let error = SubmitError::RingFull;
                    Err(CopyError::Refused(Refused { error, source, target, tag: () }))
                }
                // The queue keeps the memory, and names a generation that is over.
                Phase::InFlight if is_late && give_up => Err(CopyError::Stuck),
                other => {
                    slot.phase = other;
                    if matches!(slot.phase, Phase::Backlog { .. } | Phase::InFlight) {
                        // A channel that does not stop is told again, soon.
                        let at = if is_late { now + STOP_ATTEMPT } else { slot.deadline };
                        next_deadline = Some(next_deadline.map_or(at, |next| next.min(at)));
                    }
                    continue;
                }
            };
            if slot.is_detached {
                self.outbox.memory.push(ended);
                slot.release(index, &mut self.free);
            } else {
                slot.phase = Phase::Ended(ended);
                self.outbox.wakers.extend(slot.waker.take());
            }
        }
        self.next_deadline = next_deadline;
        self.outbox.notify_blocked |= self.blocked > 0;
        self.submit_backlog();
    }

    /// The copy's result if it has ended; its slot is free then.
    pub(super) fn take(&mut self, key: Key) -> Option<Copied<S, D>> {
        let Self { slots, free, outbox, .. } = self;
        let slot = current(slots, key);
        match std::mem::replace(&mut slot.phase, Phase::Free) {
            Phase::Ended(copied) => {
                outbox.old_wakers.extend(slot.waker.take());
                slot.release(key.index, free);
                Some(copied)
            }
            other => {
                slot.phase = other;
                None
            }
        }
    }

    /// What a future does.
    pub(super) fn poll(&mut self, key: Key, waker: &Waker) -> Poll<Copied<S, D>> {
        self.reap();
        if let Some(copied) = self.take(key) {
            return Poll::Ready(copied);
        }
        let slot = current(&mut self.slots, key);
        if !slot.waker.as_ref().is_some_and(|old| old.will_wake(waker)) {
            let old = slot.waker.replace(waker.clone());
            self.outbox.old_wakers.extend(old);
        }
        if !self.arm() {
            // Has it ended just now? Otherwise there is no event, and the reaper has to poll.
            if let Some(copied) = self.take(key) {
                return Poll::Ready(copied);
            }
            self.notify_reaper();
        }
        Poll::Pending
    }

    /// Who is to notice the end of a copy that a thread is about to block for.
    pub(super) fn watch_blocking(&mut self, key: Key, now: Instant) -> Watch {
        let is_armed = self.arm();
        let slot = current(&mut self.slots, key);
        let has_ended = matches!(slot.phase, Phase::Ended(_));
        match slot.deadline.checked_duration_since(now) {
            Some(left) if is_armed && !has_ended => Watch::ByReaper(left),
            _ => Watch::ByPolling,
        }
    }

    /// Has the reaper woken when all that is in flight has ended; `false` if there is no event. What
    /// has ended meanwhile is reaped.
    fn arm(&mut self) -> bool {
        if !self.is_armed && !self.queue.is_idle() {
            self.is_armed = self.queue.arm();
            if !self.is_armed {
                self.reap();
            }
        }
        self.is_armed
    }

    /// The future of a copy is gone.
    pub(super) fn detach(&mut self, key: Key) {
        let Self { slots, free, outbox, .. } = self;
        let slot = current(slots, key);
        outbox.old_wakers.extend(slot.waker.take());
        let copied = match std::mem::replace(&mut slot.phase, Phase::InFlight) {
            Phase::InFlight => {
                slot.is_detached = true;
                // Somebody has to free the memory when the time has come.
                if !self.arm() && !self.queue.is_idle() {
                    self.notify_reaper();
                }
                return;
            }
            Phase::Backlog { source, target } => {
                let error = SubmitError::RingFull;
                Err(CopyError::Refused(Refused { error, source, target, tag: () }))
            }
            Phase::Ended(copied) => copied,
            Phase::Free => unreachable!("a future's slot is its own until it gives it up"),
        };
        outbox.memory.push(copied);
        slot.release(key.index, free);
    }

    /// The last user is gone.
    pub(super) fn close(&mut self) {
        self.is_closing = true;
        self.notify_reaper();
    }

    /// What the reaper does when it is awake.
    pub(super) fn turn(&mut self, now: Instant) -> Next {
        self.is_armed = false;
        self.reap();
        self.expire(now);
        let is_watched = self.arm();
        let waits = self.slots.iter().any(|slot| matches!(slot.phase, Phase::InFlight));
        if self.is_closing && !waits {
            return Next::Close;
        }
        self.is_reaper_awake = waits && !is_watched;
        if self.is_reaper_awake {
            return Next::Step;
        }
        // While copies come and go it does not sleep for good: they would have to wake it each time.
        let sleep = if std::mem::take(&mut self.is_active) || !self.queue.is_idle() {
            let until_deadline =
                self.next_deadline.map(|deadline| deadline.saturating_duration_since(now));
            Some(until_deadline.unwrap_or(MAX_SLEEP).min(MAX_SLEEP))
        } else {
            None
        };
        self.reaper_wakes = sleep.map(|sleep| now + sleep);
        Next::Sleep(sleep)
    }

    /// Tries to have the channel idle before it goes; `false` if the engine still has memory.
    pub(super) fn stop(&mut self) -> bool {
        self.queue.is_idle() || self.queue.terminate_sync(STOP_TIMEOUT, drop).is_ok()
    }

    /// Takes emptied lists back.
    pub(super) fn reuse(&mut self, emptied: Outbox<S, D>) {
        if self.outbox.is_empty() {
            self.outbox = emptied;
        }
    }

    fn notify_reaper(&mut self) {
        if !self.is_reaper_awake {
            self.is_reaper_awake = true;
            self.outbox.notify_reaper = true;
        }
    }

    /// A free slot, which is not taken yet. No other may be released in between.
    fn vacant(&mut self) -> Key {
        if self.free.is_empty() {
            let index = u32::try_from(self.slots.len()).expect("memory for 2^32 copies");
            self.slots.push(Slot {
                generation: 0,
                phase: Phase::Free,
                deadline: Instant::now(),
                waker: None,
                is_detached: false,
            });
            self.free.push(index);
        }
        let index = self.free[self.free.len() - 1];
        Key { index, generation: self.slots[index as usize].generation }
    }

    /// Takes the slot that was vacant.
    fn occupy(&mut self, key: Key, phase: Phase<S, D>, deadline: Instant) {
        let taken = self.free.pop();
        debug_assert_eq!(taken, Some(key.index));
        let slot = &mut self.slots[key.index as usize];
        (slot.phase, slot.deadline, slot.is_detached) = (phase, deadline, false);
    }
}

/// The slot of a copy whose future exists.
fn current<S, D>(slots: &mut [Slot<S, D>], key: Key) -> &mut Slot<S, D> {
    let slot = &mut slots[key.index as usize];
    assert_eq!(slot.generation, key.generation, "a future's slot is its own");
    slot
}

impl<S, D> Slot<S, D> {
    /// Makes the slot free for another copy.
    fn release(&mut self, index: u32, free: &mut Vec<u32>) {
        self.phase = Phase::Free;
        self.generation = self.generation.wrapping_add(1);
        free.push(index);
    }
}

/// Puts the end of a copy into its slot. If the channel was terminated because copies were `late`,
/// that is why those were aborted.
fn end<S, D>(
    done: Done<S, D, Key>,
    late: Option<Instant>,
    slots: &mut [Slot<S, D>],
    free: &mut Vec<u32>,
    outbox: &mut Outbox<S, D>,
) {
    let Done { cookie, mut status, bytes, fallback, source, target, tag: key } = done;
    let slot = &mut slots[key.index as usize];
    if status == Status::Aborted && late.is_some_and(|now| slot.deadline <= now) {
        status = Status::TimedOut;
    }
    let copied = Ok(Done { cookie, status, bytes, fallback, source, target, tag: () });
    let is_awaited = slot.generation == key.generation && matches!(slot.phase, Phase::InFlight);
    if !is_awaited {
        // It was given up as stuck, and the engine came back.
        outbox.memory.push(copied);
    } else if slot.is_detached {
        outbox.memory.push(copied);
        slot.release(key.index, free);
    } else {
        slot.phase = Phase::Ended(copied);
        outbox.wakers.extend(slot.waker.take());
    }
}
