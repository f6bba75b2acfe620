//! Tasks that wait: what an executor polls when something has happened.

use std::{
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
    task::Waker,
};

use crate::core::Key;

/// Names the wait of a task. Ids are not used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TaskId(u64);

#[derive(Debug)]
struct Task {
    id: TaskId,
    key: Key,
    waker: Waker,
}

/// See the module. Wakers are anybody's code: they are called and dropped by who has released the
/// shard's lock.
#[derive(Debug, Default)]
pub(crate) struct Tasks {
    waiting: Vec<Task>,
    woken: Vec<Waker>,
    next: u64,
}

impl Tasks {
    /// Has a task woken when something happens to `key`, once, instead of what `id` says. Returns
    /// the waker that it replaces.
    pub(crate) fn add(
        &mut self,
        id: &mut Option<TaskId>,
        key: Key,
        waker: &Waker,
    ) -> Option<Waker> {
        let same = |task: &&mut Task| Some(task.id) == *id;
        if let Some(task) = self.waiting.iter_mut().find(same) {
            task.key = key;
            let other = !task.waker.will_wake(waker);
            return other.then(|| mem::replace(&mut task.waker, waker.clone()));
        }
        let new = TaskId(self.next);
        self.next += 1;
        *id = Some(new);
        self.waiting.push(Task { id: new, key, waker: waker.clone() });
        None
    }

    /// Does not wake a task. Returns its waker, if it was not woken.
    pub(crate) fn remove(&mut self, id: Option<TaskId>) -> Option<Waker> {
        let position = self.waiting.iter().position(|task| Some(task.id) == id)?;
        Some(self.waiting.swap_remove(position).waker)
    }

    /// Whether any waits.
    pub(crate) const fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Something has happened to `key`.
    pub(crate) fn wake(&mut self, key: Key) {
        let tasks = self.waiting.extract_if(.., |task| task.key == key);
        self.woken.extend(tasks.map(|task| task.waker));
    }

    /// Something has happened to all.
    pub(crate) fn wake_all(&mut self) {
        self.woken.extend(self.waiting.drain(..).map(|task| task.waker));
    }

    /// Those that are to be [called](Woken::call), with the lock released.
    pub(crate) fn take_woken(&mut self) -> Option<Woken> {
        (!self.woken.is_empty()).then(|| Woken(mem::take(&mut self.woken)))
    }
}

/// Wakers that are to be called.
#[must_use]
pub(crate) struct Woken(Vec<Waker>);

impl Woken {
    /// Calls them. The shard's lock must not be held.
    pub(crate) fn call(self) {
        for waker in self.0 {
            // One that panics, which its owner is told by the panic hook, must not keep the others
            // from theirs, nor end the thread that drives.
            let _ = catch_unwind(AssertUnwindSafe(|| waker.wake()));
        }
    }
}
