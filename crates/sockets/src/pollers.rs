//! All pollers of a shard.

use std::{os::fd::OwnedFd, sync::Arc};

use netdma::RxPacket;
use netstack::{Event, PollFlags, Readiness};

use crate::{
    core::{Core, Key, PollerId, notify_all},
    poll_set::{Interest, PollSet},
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

/// What pollers ask of the shard, and are told by it.
impl Core {
    /// What a socket is ready for. Once the link is gone, for an error.
    pub(crate) fn poll(&mut self, key: Key) -> PollFlags {
        let Self { stack, link_failure, .. } = self;
        poll(stack, link_failure.is_some(), key)
    }

    pub(crate) fn add_poller(&mut self) -> PollerId {
        self.pollers.add()
    }

    /// Returns whether the poller had an event.
    pub(crate) fn remove_poller(&mut self, id: PollerId) -> bool {
        self.pollers.remove(id)
    }

    /// Gives a poller an event; `false` if it has one.
    pub(crate) fn signal_with(&mut self, id: PollerId, event: &Arc<OwnedFd>) -> bool {
        self.pollers.signal_with(id, event)
    }

    /// Has a poller watch a socket; `false` if it does already.
    pub(crate) fn watch(&mut self, id: PollerId, key: Key, interest: Interest) -> bool {
        let added = self.pollers.with(id, |set| set.add(key, interest));
        self.wake(Key::Poller(id));
        added
    }

    /// Has a poller watch a socket for something else; `false` if it does not watch it.
    pub(crate) fn rewatch(&mut self, id: PollerId, key: Key, interest: Interest) -> bool {
        let modified = self.pollers.with(id, |set| set.modify(key, interest));
        self.wake(Key::Poller(id));
        modified
    }

    /// Has a poller watch a socket no more; `false` if it does not.
    pub(crate) fn unwatch(&mut self, id: PollerId, key: Key) -> bool {
        self.pollers.with(id, |set| set.remove(key))
    }

    /// Collects what is ready; `true` if the wait is to end anyway.
    pub(crate) fn collect_events(&mut self, id: PollerId, events: &mut PollEvents) -> bool {
        let Self { pollers, stack, link_failure, .. } = self;
        let is_down = link_failure.is_some();
        pollers.collect(id, events, |key| poll(stack, is_down, key))
    }

    /// Ends one wait of a poller.
    pub(crate) fn notify_poller(&mut self, id: PollerId) {
        self.pollers.notify(id);
        self.wake(Key::Poller(id));
    }

    /// Tells pollers that a socket may be ready.
    pub(crate) fn tell_pollers(&mut self, key: Key, flags: PollFlags) {
        let Self { pollers, waiting, asleep, .. } = self;
        let mut kick = false;
        pollers.on_event(key, flags, |poller| {
            let key = Key::Poller(poller);
            notify_all(waiting, key);
            kick |= asleep.is_some_and(|driver| driver.key == Some(key));
        });
        if kick {
            self.kick_driver();
        }
    }

    /// No poller watches a socket that is gone.
    pub(crate) fn forget(&mut self, key: Key) {
        self.pollers.forget(key);
    }
}

/// What a socket is ready for.
fn poll(stack: &mut netstack::Stack<RxPacket>, is_down: bool, key: Key) -> PollFlags {
    let flags = match key {
        Key::Socket(id) => stack.poll(id),
        Key::Listener(id) => stack.poll_listener(id),
        Key::Poller(_) => PollFlags::empty(),
    };
    let down = PollFlags::IN | PollFlags::OUT | PollFlags::ERR | PollFlags::HUP;
    if is_down { flags | down } else { flags }
}

/// What a socket may be ready for after an event.
pub(crate) fn flags_of(event: Event) -> PollFlags {
    let Event::Socket { ready, .. } = event else { return PollFlags::IN };
    let mut flags = PollFlags::empty();
    for (change, what) in [
        (Readiness::READABLE, PollFlags::IN),
        (Readiness::URGENT, PollFlags::IN | PollFlags::PRI),
        (Readiness::WRITABLE | Readiness::CONNECTED, PollFlags::OUT),
        (Readiness::PEER_CLOSED, PollFlags::IN | PollFlags::RDHUP | PollFlags::HUP),
        (Readiness::ERROR | Readiness::CLOSED, PollFlags::all()),
    ] {
        if ready.intersects(change) {
            flags |= what;
        }
    }
    flags
}
