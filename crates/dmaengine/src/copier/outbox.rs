use std::task::Waker;

use super::slots::Ended;

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
    pub(super) memory: Vec<Ended<S, D>>,
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
