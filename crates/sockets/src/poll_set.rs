//! The sockets that a poller watches, and those of them that may be ready: the two lists of an epoll
//! instance. No waiting happens here.

use std::collections::{HashMap, VecDeque};

use netstack::PollFlags;

use crate::core::Key;

/// What epoll reports whether it was asked for or not.
const ALWAYS: PollFlags = PollFlags::ERR.union(PollFlags::HUP);

/// How often a socket is reported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Trigger {
    /// As long as it is ready.
    #[default]
    Level,
    /// When something has happened to it, with everything that it is ready for then (`EPOLLET`).
    Edge,
    /// Once, until it is [modified](crate::Poller::modify) (`EPOLLONESHOT`).
    OneShot,
}

/// A socket that is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PollEvent {
    /// What it was [added](crate::Poller::add) with.
    pub token: usize,
    /// What it is ready for, of what was asked for; errors and hang-ups are always told.
    pub flags: PollFlags,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Interest {
    pub(crate) token: usize,
    pub(crate) flags: PollFlags,
    pub(crate) trigger: Trigger,
}

#[derive(Debug)]
struct Entry {
    interest: Interest,
    /// It is in the list of those that may be ready.
    is_queued: bool,
    /// A one-shot that was reported.
    is_spent: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct PollSet {
    entries: HashMap<Key, Entry>,
    queue: VecDeque<Key>,
}

impl PollSet {
    /// Watches a socket; `false` if it is watched already. It may be ready.
    pub(crate) fn add(&mut self, key: Key, interest: Interest) -> bool {
        if self.entries.contains_key(&key) {
            return false;
        }
        self.entries.insert(key, Entry { interest, is_queued: false, is_spent: false });
        self.enqueue(key);
        true
    }

    /// Watches a socket for something else; `false` if it is not watched.
    pub(crate) fn modify(&mut self, key: Key, interest: Interest) -> bool {
        let Some(entry) = self.entries.get_mut(&key) else { return false };
        entry.interest = interest;
        entry.is_spent = false;
        self.enqueue(key);
        true
    }

    /// Watches a socket no more; `false` if it was not.
    pub(crate) fn remove(&mut self, key: Key) -> bool {
        // What is left of it in the queue is passed over.
        self.entries.remove(&key).is_some()
    }

    /// Something has happened to a socket; `true` if it may be ready for something that is asked
    /// for.
    pub(crate) fn on_event(&mut self, key: Key, flags: PollFlags) -> bool {
        let asked_for = self.entries.get(&key).is_some_and(|entry| {
            !entry.is_spent && flags.intersects(entry.interest.flags | ALWAYS)
        });
        if asked_for {
            self.enqueue(key);
        }
        asked_for
    }

    /// Something has happened to all of them.
    pub(crate) fn on_event_for_all(&mut self) {
        let keys: Vec<_> = self.entries.keys().copied().collect();
        for key in keys {
            self.on_event(key, ALWAYS);
        }
    }

    /// Whether any may be ready.
    pub(crate) fn has_queued(&self) -> bool {
        !self.queue.is_empty()
    }

    fn enqueue(&mut self, key: Key) {
        if let Some(entry) = self.entries.get_mut(&key)
            && !entry.is_queued
        {
            entry.is_queued = true;
            self.queue.push_back(key);
        }
    }

    /// Appends up to `max` sockets that are ready, as `poll` says it. Those that are and stay so
    /// come last the next time.
    pub(crate) fn collect(
        &mut self,
        events: &mut Vec<PollEvent>,
        max: usize,
        mut poll: impl FnMut(Key) -> PollFlags,
    ) {
        for _ in 0..self.queue.len() {
            if events.len() >= max {
                break;
            }
            let Some(key) = self.queue.pop_front() else { break };
            let Some(entry) = self.entries.get_mut(&key).filter(|entry| entry.is_queued) else {
                continue;
            };
            entry.is_queued = false;
            let Interest { token, flags, trigger } = entry.interest;
            let flags = poll(key) & (flags | ALWAYS);
            if flags.is_empty() || entry.is_spent {
                continue;
            }
            events.push(PollEvent { token, flags });
            match trigger {
                Trigger::Level => self.enqueue(key),
                Trigger::Edge => {}
                Trigger::OneShot => entry.is_spent = true,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::PollerId;

    const IN: PollFlags = PollFlags::IN;
    const OUT: PollFlags = PollFlags::OUT;

    /// Any keys will do.
    const A: Key = Key::Poller(PollerId(1));
    const B: Key = Key::Poller(PollerId(2));

    fn interest(token: usize, flags: PollFlags, trigger: Trigger) -> Interest {
        Interest { token, flags, trigger }
    }

    fn tokens(set: &mut PollSet, max: usize, ready: PollFlags) -> Vec<usize> {
        let mut events = Vec::new();
        set.collect(&mut events, max, |_| ready);
        events.iter().map(|event| event.token).collect()
    }

    #[test]
    fn a_level_is_reported_while_it_lasts_and_an_edge_when_it_comes() {
        let mut set = PollSet::default();
        assert!(set.add(A, interest(1, IN, Trigger::Level)));
        assert!(set.add(B, interest(2, IN, Trigger::Edge)));
        assert!(!set.add(A, interest(3, IN, Trigger::Level)), "it is watched already");
        assert_eq!(tokens(&mut set, 10, IN), [1, 2]);
        assert_eq!(tokens(&mut set, 10, IN), [1]);
        assert_eq!(tokens(&mut set, 10, OUT), [0; 0]);
        assert!(!set.has_queued());
        assert!(!set.on_event(B, OUT), "nobody asked");
        assert!(set.on_event(B, IN) && set.on_event(B, IN));
        assert_eq!(tokens(&mut set, 10, IN), [2]);
        assert!(set.on_event(B, PollFlags::ERR), "errors are always told");
        assert_eq!(tokens(&mut set, 10, PollFlags::ERR), [2]);
    }

    #[test]
    fn a_one_shot_is_reported_once_until_it_is_modified() {
        let mut set = PollSet::default();
        set.add(A, interest(1, IN, Trigger::OneShot));
        assert_eq!(tokens(&mut set, 10, IN), [1]);
        assert!(!set.on_event(A, IN));
        assert_eq!(tokens(&mut set, 10, IN), [0; 0]);
        assert!(set.modify(A, interest(4, IN, Trigger::OneShot)));
        assert_eq!(tokens(&mut set, 10, IN), [4]);
        assert!(set.remove(A) && !set.remove(A) && !set.modify(A, interest(5, IN, Trigger::Edge)));
    }

    #[test]
    fn those_that_are_ready_take_turns() {
        let mut set = PollSet::default();
        set.add(A, interest(1, IN, Trigger::Level));
        set.add(B, interest(2, IN, Trigger::Level));
        let seen: Vec<_> = (0..4).flat_map(|_| tokens(&mut set, 1, IN)).collect();
        assert_eq!(seen, [1, 2, 1, 2]);
    }

    #[test]
    fn a_socket_that_was_removed_and_added_again_is_reported_once() {
        let mut set = PollSet::default();
        set.add(A, interest(1, IN, Trigger::Edge));
        set.remove(A);
        set.add(A, interest(2, IN, Trigger::Edge));
        assert_eq!(tokens(&mut set, 10, IN), [2]);
        assert!(!set.has_queued());
    }
}
