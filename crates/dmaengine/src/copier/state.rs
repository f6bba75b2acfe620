//! What a copier knows of each operation.

use std::{
    cmp::Ordering,
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    task::{Poll, Waker},
    time::{Duration, Instant},
};

use super::{
    MAX_SLEEP,
    memory::{Memory, MemoryQueue},
    outbox::Outbox,
    slots::{Backlog, Ended, Key, Phase, Slots},
};
use crate::{
    Completion, Cookie, DmaSource, DmaTarget, Done, Flags, Status, Stuck, SubmitError, queue::Lists,
};

/// How long a termination may hold the lock.
const STOP_ATTEMPT: Duration = Duration::from_millis(10);
/// Between two terminations of a channel that does not stop, so that others get the lock.
const STOP_PAUSE: Duration = Duration::from_millis(10);
/// After how long of failed terminations an operation is given up as stuck.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// What the queue gives back with an operation's memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ticket {
    pub(super) key: Key,
    pub(super) flags: Flags,
}

/// When the doorbell is rung for an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doorbell {
    Now,
    Later,
}

/// Who will notice that an operation has ended.
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
    queue: MemoryQueue<S, D>,
    lists: Lists,
    slots: Slots<S, D>,
    /// In the order of their turn. Those that are no longer in the backlog are skipped.
    backlog: VecDeque<Key>,
    /// What a termination aborted without need; empty between calls.
    again: Vec<(Cookie, Key)>,
    /// No operation has an earlier deadline.
    next_deadline: Option<Instant>,
    /// Since when the channel does not stop.
    stuck_since: Option<Instant>,
    /// The channel takes nothing until the reaper has terminated it, which it tries from then on.
    down_until: Option<Instant>,
    /// Operations were submitted without a doorbell.
    is_unissued: bool,
    /// Nobody will notice their end, unless that is seen to when the doorbell rings.
    is_unwatched: bool,
    /// An event was asked for, and has not been answered.
    is_armed: bool,
    /// Operations were started since the reaper last looked.
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
    pub(super) fn new(queue: MemoryQueue<S, D>) -> Self {
        Self {
            queue,
            lists: Lists::default(),
            slots: Slots::new(),
            backlog: VecDeque::new(),
            again: Vec::new(),
            next_deadline: None,
            stuck_since: None,
            down_until: None,
            is_unissued: false,
            is_unwatched: false,
            is_armed: false,
            is_active: false,
            is_reaper_awake: true,
            reaper_wakes: None,
            is_closing: false,
            blocked: 0,
            outbox: Outbox::default(),
        }
    }

    /// Starts an operation, or puts it into the backlog.
    pub(super) fn start(
        &mut self,
        memory: Memory<S, D>,
        flags: Flags,
        deadline: Instant,
        doorbell: Doorbell,
    ) -> Result<Key, (SubmitError, Memory<S, D>)> {
        if !self.backlog.is_empty() {
            self.reap();
        }
        let key = self.slots.vacant();
        let backlog = Backlog { memory, flags, aborted: None };
        let phase = if self.backlog.is_empty() {
            self.submit(backlog, key, Down::IsRestarted)
        } else {
            Phase::Backlog(backlog)
        };
        match phase {
            Phase::Ended(Ended::Refused(error, memory)) => return Err((error, memory)),
            Phase::Backlog(_) => {
                self.backlog.push_back(key);
                // Only what the engine does makes room.
                self.issue();
            }
            _ if doorbell == Doorbell::Now => self.issue(),
            _ => {}
        }
        self.slots.occupy(key, phase, deadline);

        self.is_active = true;
        if self.next_deadline.is_none_or(|next| deadline < next) {
            self.next_deadline = Some(deadline);
        }
        if self.reaper_wakes.is_none_or(|wakes| deadline < wakes) {
            self.notify_reaper();
        }
        Ok(key)
    }

    /// Submits an operation, which is then in flight, or in the backlog if it has to wait for its
    /// turn, or over if it is refused.
    fn submit(&mut self, backlog: Backlog<S, D>, key: Key, down: Down) -> Phase<S, D> {
        if self.down_until.is_some() {
            self.notify_reaper();
            return Phase::Backlog(backlog);
        }
        let Backlog { memory, flags, aborted } = backlog;
        match memory.submit(&mut self.queue, &mut self.lists, Ticket { key, flags }) {
            Ok(_) => {
                self.is_unissued = true;
                Phase::InFlight
            }
            // With nothing in flight, nothing makes room.
            Err((SubmitError::RingFull, memory)) if !self.queue.is_idle() => {
                Phase::Backlog(Backlog { memory, flags, aborted })
            }
            Err((SubmitError::ChannelDown, memory)) if down == Down::IsRestarted => {
                self.down_until = Some(Instant::now());
                self.notify_reaper();
                Phase::Backlog(Backlog { memory, flags, aborted })
            }
            Err((error, memory)) => Phase::Ended(match aborted {
                None => Ended::Refused(error, memory),
                Some(cookie) => {
                    Ended::Reported(Completion::failed(cookie, Status::Aborted), memory)
                }
            }),
        }
    }

    /// Rings the doorbell for what was submitted without.
    pub(super) fn issue(&mut self) {
        if std::mem::take(&mut self.is_unissued) {
            self.queue.issue_pending();
        }
        if std::mem::take(&mut self.is_unwatched) {
            self.watch();
        }
    }

    /// Looks what has ended, for whomever, and submits what has waited for room.
    pub(super) fn reap(&mut self) {
        let Self { queue, slots, outbox, again, blocked, .. } = self;
        if queue.poll(|done| end(done, None, slots, outbox, again)) > 0 {
            outbox.notify_blocked |= *blocked > 0;
            self.submit_backlog(Down::IsRestarted);
        }
    }

    fn submit_backlog(&mut self, down: Down) {
        let mut submitted = false;
        while let Some(&key) = self.backlog.front() {
            let phase = self.slots.get(key).map(|slot| {
                // It is in flight when nobody knows what became of it: if its memory panics.
                std::mem::replace(&mut slot.phase, Phase::InFlight)
            });
            match phase {
                Some(Phase::Backlog(backlog)) => match self.submit(backlog, key, down) {
                    Phase::Ended(ended) => {
                        finish(key, ended, &mut self.slots, &mut self.outbox);
                        self.outbox.notify_blocked |= self.blocked > 0;
                    }
                    Phase::Backlog(backlog) => {
                        self.slots.current(key).phase = Phase::Backlog(backlog);
                        break;
                    }
                    Phase::InFlight | Phase::Free => submitted = true,
                },
                // Its time was up.
                Some(other) => self.slots.current(key).phase = other,
                // Its future is gone.
                None => {}
            }
            self.backlog.pop_front();
        }
        if submitted {
            self.issue();
        }
    }

    /// Terminates the channel. What the engine had not ended is submitted again, in order and before
    /// all others, unless its own time is up, or its future is gone.
    fn terminate(&mut self, now: Instant) -> Result<(), Stuck> {
        let Self { queue, slots, outbox, again, backlog, .. } = self;
        queue.terminate_sync(STOP_ATTEMPT, |done| end(done, Some(now), slots, outbox, again))?;
        again.sort_unstable_by(
            |(a, _), (b, _)| {
                if a.is_before(*b) { Ordering::Less } else { Ordering::Greater }
            },
        );
        while let Some((_, key)) = again.pop() {
            backlog.push_front(key);
        }
        (self.down_until, self.is_unissued) = (None, false);
        Ok(())
    }

    /// Ends operations whose deadline has passed, if need be by terminating the channel.
    pub(super) fn expire(&mut self, now: Instant) {
        if self.next_deadline.is_none_or(|deadline| now < deadline) {
            return;
        }
        if self.slots.any(|slot| matches!(slot.phase, Phase::InFlight) && slot.deadline <= now) {
            // A driver that panics has not told that the engine is idle.
            let terminated = catch_unwind(AssertUnwindSafe(|| self.terminate(now)));
            self.stuck_since = match terminated.unwrap_or(Err(Stuck)) {
                Ok(()) => None,
                Err(Stuck) => self.stuck_since.or(Some(now)),
            };
        }
        // Or the channel has stopped, and has not reported all that it had.
        let give_up = self.stuck_since.is_none_or(|since| now - since >= STOP_TIMEOUT);
        let refusal = if self.down_until.is_some() {
            SubmitError::ChannelDown
        } else {
            SubmitError::RingFull
        };
        let mut next_deadline: Option<Instant> = None;
        for index in 0..self.slots.len() {
            let (key, slot) = self.slots.at(index);
            let is_late = slot.deadline <= now;
            let ended = match std::mem::replace(&mut slot.phase, Phase::InFlight) {
                Phase::Backlog(Backlog { memory, aborted, .. }) if is_late => match aborted {
                    None => Ended::Refused(refusal, memory),
                    Some(cookie) => {
                        Ended::Reported(Completion::failed(cookie, Status::TimedOut), memory)
                    }
                },
                // The queue keeps the memory, and names a generation that is over.
                Phase::InFlight if is_late && give_up => Ended::Stuck,
                other => {
                    slot.phase = other;
                    if matches!(slot.phase, Phase::Backlog(_) | Phase::InFlight) {
                        // A channel that does not stop is told again, soon.
                        let at =
                            if is_late { now + STOP_ATTEMPT + STOP_PAUSE } else { slot.deadline };
                        next_deadline = Some(next_deadline.map_or(at, |next| next.min(at)));
                    }
                    continue;
                }
            };
            finish(key, ended, &mut self.slots, &mut self.outbox);
        }
        self.next_deadline = next_deadline;
        self.outbox.notify_blocked |= self.blocked > 0;
        self.submit_backlog(Down::IsRestarted);
    }

    /// Brings a channel back that is down, if that is waited for.
    fn restart(&mut self, now: Instant) {
        if self.down_until.is_none_or(|at| now < at) || self.backlog.is_empty() {
            return;
        }
        match self.terminate(now) {
            Ok(()) => self.submit_backlog(Down::IsLost),
            Err(Stuck) => {
                self.down_until = Some(now + STOP_ATTEMPT + STOP_PAUSE);
                // Those that have given up are forgotten.
                self.submit_backlog(Down::IsRestarted);
            }
        }
    }

    /// The operation's result if it has ended; its slot is free then.
    pub(super) fn take(&mut self, key: Key) -> Option<Ended<S, D>> {
        let slot = self.slots.current(key);
        match std::mem::replace(&mut slot.phase, Phase::Free) {
            Phase::Ended(ended) => {
                self.outbox.old_wakers.extend(slot.waker.take());
                self.slots.release(key);
                Some(ended)
            }
            other => {
                slot.phase = other;
                None
            }
        }
    }

    /// What a future does.
    pub(super) fn poll(&mut self, key: Key, waker: &Waker) -> Poll<Ended<S, D>> {
        self.issue();
        self.reap();
        if let Some(ended) = self.take(key) {
            return Poll::Ready(ended);
        }
        let slot = self.slots.current(key);
        if !slot.waker.as_ref().is_some_and(|old| old.will_wake(waker)) {
            let old = slot.waker.replace(waker.clone());
            self.outbox.old_wakers.extend(old);
        }
        if !self.arm() {
            // Has it ended just now? Otherwise there is no event, and the reaper has to poll.
            if let Some(ended) = self.take(key) {
                return Poll::Ready(ended);
            }
            self.notify_reaper();
        }
        Poll::Pending
    }

    /// Who is to notice the end of an operation that a thread is about to block for.
    pub(super) fn watch_blocking(&mut self, key: Key, now: Instant) -> Watch {
        self.issue();
        let is_armed = self.arm();
        let slot = self.slots.current(key);
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

    /// Sees to it that somebody notices what ends.
    fn watch(&mut self) {
        if !self.arm() && !self.queue.is_idle() {
            self.notify_reaper();
        }
    }

    /// The future of an operation is gone.
    pub(super) fn detach(&mut self, key: Key) {
        let slot = self.slots.current(key);
        self.outbox.old_wakers.extend(slot.waker.take());
        let ended = match std::mem::replace(&mut slot.phase, Phase::InFlight) {
            Phase::InFlight => {
                slot.is_detached = true;
                // Somebody has to free the memory when the time has come.
                if self.is_unissued {
                    self.is_unwatched = true;
                } else {
                    self.watch();
                }
                return;
            }
            Phase::Backlog(Backlog { memory, .. }) => Ended::Refused(SubmitError::RingFull, memory),
            Phase::Ended(ended) => ended,
            Phase::Free => unreachable!("a future's slot is its own until it gives it up"),
        };
        self.outbox.memory.push(ended);
        self.slots.release(key);
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
        self.restart(now);
        self.expire(now);
        let is_watched = if self.is_unissued {
            // A batch is being put together: it is watched from its doorbell on.
            self.is_unwatched = true;
            true
        } else {
            self.arm()
        };
        let waits = self.slots.any(|slot| matches!(slot.phase, Phase::InFlight));
        if self.is_closing && !waits {
            return Next::Close;
        }
        let is_restarting = self.down_until.is_some() && !self.backlog.is_empty();
        self.is_reaper_awake = is_restarting || (waits && !is_watched);
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
}

/// What it means that a channel is down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Down {
    /// The reaper will bring it back.
    IsRestarted,
    /// It was terminated just now, and nothing else could bring it back.
    IsLost,
}

/// Puts the end that an operation was reported with into its slot. If the channel was terminated at
/// that moment, operations are late, or are to be submitted again.
fn end<S, D>(
    done: Done<Memory<S, D>, (), Ticket>,
    terminated: Option<Instant>,
    slots: &mut Slots<S, D>,
    outbox: &mut Outbox<S, D>,
    again: &mut Vec<(Cookie, Key)>,
) {
    let Done { cookie, mut status, bytes, fallback, source: memory, target: (), tag } = done;
    let Ticket { key, flags } = tag;
    let slot = slots.get(key).filter(|slot| matches!(slot.phase, Phase::InFlight));
    let is_awaited = slot.is_some();
    if let (Some(slot), Some(now), Status::Aborted) = (slot, terminated, status) {
        if slot.deadline <= now {
            status = Status::TimedOut;
        } else if !slot.is_detached {
            slot.phase = Phase::Backlog(Backlog { memory, flags, aborted: Some(cookie) });
            again.push((cookie, key));
            return;
        }
    }
    let ended = Ended::Reported(Completion { cookie, status, bytes, fallback }, memory);
    if is_awaited {
        finish(key, ended, slots, outbox);
    } else {
        // It was given up as stuck, and the engine came back.
        outbox.memory.push(ended);
    }
}

/// Gives its end to an operation's future.
fn finish<S, D>(key: Key, ended: Ended<S, D>, slots: &mut Slots<S, D>, outbox: &mut Outbox<S, D>) {
    let slot = slots.current(key);
    if slot.is_detached {
        outbox.memory.push(ended);
        slots.release(key);
    } else {
        slot.phase = Phase::Ended(ended);
        outbox.wakers.extend(slot.waker.take());
    }
}
