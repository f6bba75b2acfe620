use std::collections::{HashMap, VecDeque};

use super::{
    endpoints::{Endpoints, KeyedHash},
    receive_memory::ReceiveMemory,
    socket::{Owner, Phase, Socket},
    timer_heap::TimerHeap,
};
use crate::{
    Event, Instant, ListenerId, PacketBuffer, SocketId,
    slab::{Key, Slab},
};

/// Whose event it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Socket(Key),
    Listener(Key),
}

/// All sockets, and which of them need attention: none is looked at without a reason.
#[derive(Debug)]
pub(crate) struct Sockets<B> {
    sockets: Slab<Socket<B>>,
    by_endpoints: HashMap<Endpoints, Key, KeyedHash>,
    timers: TimerHeap,
    receive_memory: ReceiveMemory,
    /// Those that may have something to send; names may be stale.
    transmit: VecDeque<Key>,
    /// Those that have changed.
    events: VecDeque<Source>,
}

impl<B: PacketBuffer> Sockets<B> {
    /// None yet; together they may hold `receive_memory` bytes of truesize.
    pub(crate) fn new(hash: KeyedHash, receive_memory: usize) -> Self {
        Self {
            sockets: Slab::new(),
            by_endpoints: HashMap::with_hasher(hash),
            timers: TimerHeap::default(),
            receive_memory: ReceiveMemory::new(receive_memory),
            transmit: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    pub(crate) fn get(&self, key: Key) -> Option<&Socket<B>> {
        self.sockets.get(key)
    }

    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut Socket<B>> {
        self.sockets.get_mut(key)
    }

    /// A socket that its program has not closed.
    pub(crate) fn open(&self, id: SocketId) -> Option<&Socket<B>> {
        self.get(id.0).filter(|socket| socket.owner == Owner::Program)
    }

    /// A socket that its program has not closed.
    pub(crate) fn open_mut(&mut self, id: SocketId) -> Option<&mut Socket<B>> {
        self.get_mut(id.0).filter(|socket| socket.owner == Owner::Program)
    }

    pub(crate) fn find(&self, endpoints: &Endpoints) -> Option<Key> {
        self.by_endpoints.get(endpoints).copied()
    }

    /// Adds a socket; its connection must not exist yet.
    pub(crate) fn insert(&mut self, socket: Socket<B>) -> Key {
        let endpoints = socket.endpoints;
        let key = self.sockets.insert(socket);
        let other = self.by_endpoints.insert(endpoints, key);
        debug_assert_eq!(other, None, "a connection exists once");
        key
    }

    /// The names of sockets for which `holds`. Looks at all of them.
    pub(crate) fn find_all(&self, holds: impl Fn(&Socket<B>) -> bool) -> Vec<Key> {
        self.by_endpoints
            .values()
            .copied()
            .filter(|&key| self.get(key).is_some_and(&holds))
            .collect()
    }

    /// What all of them hold.
    pub(crate) const fn receive_memory(&self) -> &ReceiveMemory {
        &self.receive_memory
    }

    /// To be called after what a socket holds has changed; [`settle`](Self::settle) does it, too.
    pub(crate) fn account(&mut self, key: Key) {
        if let Some(socket) = self.sockets.get_mut(key) {
            let charged = socket.charged();
            self.receive_memory.account(&mut socket.accounted, charged);
        }
    }

    /// Puts a socket into every queue that it belongs to, and removes it if nobody needs it. To be
    /// called after anything happened to it.
    pub(crate) fn settle(&mut self, key: Key) {
        self.account(key);
        let Some(socket) = self.sockets.get_mut(key) else { return };
        if !socket.changes.is_empty() && socket.owner == Owner::Program && !socket.in_event_queue {
            socket.in_event_queue = true;
            self.events.push_back(Source::Socket(key));
        }
        if matches!(socket.phase, Phase::Closed) {
            if self.by_endpoints.get(&socket.endpoints) == Some(&key) {
                self.by_endpoints.remove(&socket.endpoints);
            }
            self.timers.disarm(key.index);
            if socket.is_finished() {
                if socket.in_event_queue {
                    self.events.retain(|&source| source != Source::Socket(key));
                }
                self.sockets.remove(key);
            }
            return;
        }
        if !socket.in_transmit_queue && !socket.is_parked {
            socket.in_transmit_queue = true;
            self.transmit.push_back(key);
        }
        self.arm(key);
    }

    fn arm(&mut self, key: Key) {
        if let Some(deadline) = self.get(key).and_then(Socket::deadline) {
            self.timers.arm(key.index, deadline);
        }
    }

    /// The next socket that may have something to send.
    pub(crate) fn pop_transmit(&mut self) -> Option<Key> {
        loop {
            let key = self.transmit.pop_front()?;
            if let Some(socket) = self.sockets.get_mut(key) {
                socket.in_transmit_queue = false;
                return Some(key);
            }
        }
    }

    /// After a socket was asked for a segment: `sent` if it had one, and so may have more.
    pub(crate) fn after_transmit(&mut self, key: Key, sent: bool) {
        if sent {
            self.settle(key);
        } else {
            self.arm(key);
        }
    }

    /// When the first socket must be called.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.timers.first().map(|(deadline, _)| deadline)
    }

    /// The next socket whose deadline has come; it is forgotten until the socket is settled.
    pub(crate) fn pop_expired(&mut self, now: Instant) -> Option<Key> {
        while let Some((deadline, index)) = self.timers.first() {
            if deadline > now {
                return None;
            }
            self.timers.disarm(index);
            if let Some(key) = self.sockets.key_at(index) {
                return Some(key);
            }
        }
        None
    }

    pub(crate) fn push_listener_event(&mut self, listener: Key) {
        self.events.push_back(Source::Listener(listener));
    }

    pub(crate) fn forget_listener_event(&mut self, listener: Key) {
        self.events.retain(|&source| source != Source::Listener(listener));
    }

    pub(crate) fn pop_event(&mut self) -> Option<Event> {
        loop {
            match self.events.pop_front()? {
                Source::Listener(key) => return Some(Event::Acceptable(ListenerId(key))),
                Source::Socket(key) => {
                    let Some(socket) = self.sockets.get_mut(key) else { continue };
                    socket.in_event_queue = false;
                    let ready = std::mem::replace(&mut socket.changes, crate::Readiness::empty());
                    if socket.owner == Owner::Program {
                        return Some(Event::Socket { id: SocketId(key), ready });
                    }
                }
            }
        }
    }
}
