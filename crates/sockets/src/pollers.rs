//! All pollers of a shard.

use std::{os::fd::OwnedFd, sync::Arc};

use netstack::PollFlags;

use crate::{
    core::{Key, PollerId},
    poll_set::PollSet,
    poller::PollEvents,
};

#[derive(Debug)]
struct Entry {
    id: PollerId,
    set: PollSet,
    /// Somebody asked for one wait to end.
    is_notified: bool,
    /// What is readable while a wait may have something to tell, if that was asked for.
    event: Option<Arc<OwnedFd>>,
    is_signalled: bool,
}

impl Entry {
    /// Makes the event say what is so.
    fn signal(&mut self) {
        let pending = self.is_notified || self.set.has_queued();
        let Some(event) = &self.event else { return };
        if pending == self.is_signalled {
            return;
        }
        self.is_signalled = pending;
        // Neither can fail: the counter is 0 or 1.
        if pending {
            let _ = rustix::io::write(event, &1u64.to_ne_bytes());
        } else {
            let _ = rustix::io::read(event, &mut [0; 8]);
        }
    }
}

/// See the module. There are few.
#[derive(Debug, Default)]
pub(crate) struct Pollers {
    entries: Vec<Entry>,
    next: u64,
}

impl Pollers {
    pub(crate) fn add(&mut self) -> PollerId {
        let id = PollerId(self.next);
        self.next += 1;
        self.entries.push(Entry {
            id,
            set: PollSet::default(),
            is_notified: false,
            event: None,
            is_signalled: false,
        });
        id
    }

    /// Returns whether the poller had an event.
    pub(crate) fn remove(&mut self, id: PollerId) -> bool {
        let position = self.entries.iter().position(|entry| entry.id == id);
        position.is_some_and(|position| self.entries.swap_remove(position).event.is_some())
    }

    /// Changes the set of a poller by `body`, and says through its event whether it has something
    /// to tell since. Nothing happens if it is gone.
    pub(crate) fn with<R: Default>(
        &mut self,
        id: PollerId,
        body: impl FnOnce(&mut PollSet) -> R,
    ) -> R {
        let Some(entry) = self.entries.iter_mut().find(|entry| entry.id == id) else {
            return R::default();
        };
        let result = body(&mut entry.set);
        entry.signal();
        result
    }

    /// One wait of the poller is to end.
    pub(crate) fn notify(&mut self, id: PollerId) {
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.id == id) {
            entry.is_notified = true;
            entry.signal();
        }
    }

    /// Collects what is ready, as `poll` says it; `true` if the wait is to end anyway.
    pub(crate) fn collect(
        &mut self,
        id: PollerId,
        events: &mut PollEvents,
        poll: impl FnMut(Key) -> PollFlags,
    ) -> bool {
        let Some(entry) = self.entries.iter_mut().find(|entry| entry.id == id) else { return true };
        let PollEvents { events, max } = events;
        entry.set.collect(events, *max, poll);
        let notified = std::mem::take(&mut entry.is_notified);
        entry.signal();
        notified
    }

    /// Gives a poller an event; `false` if it has one.
    pub(crate) fn signal_with(&mut self, id: PollerId, event: &Arc<OwnedFd>) -> bool {
        let Some(entry) = self.entries.iter_mut().find(|entry| entry.id == id) else {
            return false;
        };
        let is_first = entry.event.is_none();
        if is_first {
            entry.event = Some(Arc::clone(event));
            entry.signal();
        }
        is_first
    }

    /// Something has happened to a socket. Each poller that watches it for that is given to `wake`.
    pub(crate) fn on_event(&mut self, key: Key, flags: PollFlags, mut wake: impl FnMut(PollerId)) {
        for entry in &mut self.entries {
            if entry.set.on_event(key, flags) {
                entry.signal();
                wake(entry.id);
            }
        }
    }

    /// Something has happened to all sockets.
    pub(crate) fn on_event_for_all(&mut self) {
        for entry in &mut self.entries {
            entry.set.on_event_for_all();
            entry.signal();
        }
    }

    /// A socket is gone.
    pub(crate) fn forget(&mut self, key: Key) {
        for entry in &mut self.entries {
            entry.set.remove(key);
        }
    }
}
