use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddrV4,
};

use super::endpoints::KeyedHash;
use crate::slab::{Key, Slab};

/// A port that connections can be opened to, with those that nobody has accepted yet.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) address: SocketAddrV4,
    /// The most connections in either of the two below.
    backlog: usize,
    /// Handshakes under way.
    half_open: usize,
    /// Established connections.
    established: VecDeque<Key>,
    pub(crate) in_event_queue: bool,
}

impl Listener {
    /// Whether another handshake can begin. A full queue of established connections stops new
    /// ones, as in Linux.
    pub(crate) fn has_room(&self) -> bool {
        self.half_open < self.backlog && self.can_establish()
    }

    /// Whether another handshake can end.
    pub(crate) fn can_establish(&self) -> bool {
        self.established.len() < self.backlog
    }

    pub(crate) const fn on_half_open(&mut self) {
        self.half_open += 1;
    }

    pub(crate) const fn on_half_open_gone(&mut self) {
        self.half_open -= 1;
    }

    pub(crate) fn on_established(&mut self, socket: Key) {
        self.half_open -= 1;
        self.established.push_back(socket);
    }

    /// An established connection was reset before anybody accepted it.
    pub(crate) fn forget(&mut self, socket: Key) {
        self.established.retain(|&waiting| waiting != socket);
    }

    /// Whether a connection waits to be accepted.
    pub(crate) fn has_waiting(&self) -> bool {
        !self.established.is_empty()
    }

    pub(crate) fn accept(&mut self) -> Option<Key> {
        self.established.pop_front()
    }
}

/// All listeners, by port.
#[derive(Debug)]
pub(crate) struct Listeners {
    listeners: Slab<Listener>,
    by_port: HashMap<u16, Key, KeyedHash>,
}

impl Listeners {
    pub(crate) fn new(hash: KeyedHash) -> Self {
        Self { listeners: Slab::new(), by_port: HashMap::with_hasher(hash) }
    }

    pub(crate) fn get(&self, key: Key) -> Option<&Listener> {
        self.listeners.get(key)
    }

    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut Listener> {
        self.listeners.get_mut(key)
    }

    pub(crate) fn by_port(&self, port: u16) -> Option<Key> {
        self.by_port.get(&port).copied()
    }

    pub(crate) fn insert(&mut self, address: SocketAddrV4, backlog: usize) -> Key {
        let key = self.listeners.insert(Listener {
            address,
            backlog: backlog.max(1),
            half_open: 0,
            established: VecDeque::new(),
            in_event_queue: false,
        });
        self.by_port.insert(address.port(), key);
        key
    }

    pub(crate) fn remove(&mut self, key: Key) -> Option<Listener> {
        let listener = self.listeners.remove(key)?;
        self.by_port.remove(&listener.address.port());
        Some(listener)
    }
}
