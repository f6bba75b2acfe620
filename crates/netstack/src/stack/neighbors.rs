//! Which Ethernet address a neighbour has: ARP's cache and resolver (RFC 826, RFC 1122 section
//! 2.3.2).

use std::{
    collections::{HashMap, VecDeque},
    net::Ipv4Addr,
    time::Duration,
};

use crate::{Instant, MacAddress, slab::Key, tcp::KeyedHash};

use super::control::IpControl;

/// How long an answer is believed before it is asked for again: the upper end of Linux's
/// `base_reachable_time`, which it varies between 15 and 45 s.
const FRESH: Duration = Duration::from_secs(45);
/// How long an answer is waited for: Linux's `retrans_time` (RFC 1122 section 2.3.2.1: at most one
/// request per second).
const ANSWER: Duration = Duration::from_secs(1);
/// How often is asked: Linux's `mcast_solicit`.
const TRIES: u8 = 3;
/// How long a neighbour that has not answered is not asked again.
const HOLD_DOWN: Duration = Duration::from_secs(3);
/// The most neighbours: Linux's `gc_thresh3`.
const MAX_ENTRIES: usize = 1024;
/// Packets that wait for one neighbour (RFC 1122 section 2.3.2.2: at least the latest).
const MAX_WAITING: usize = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Fresh { until: Instant },
    Asked { tries: u8, deadline: Instant },
    Failed { until: Instant },
}

/// What waits for a neighbour's answer.
#[derive(Debug)]
pub(super) struct Waiting<B> {
    /// Sockets, whose segments are not made yet.
    pub(super) sockets: Vec<Key>,
    pub(super) packets: VecDeque<IpControl<B>>,
}

impl<B> Waiting<B> {
    const fn new() -> Self {
        Self { sockets: Vec::new(), packets: VecDeque::new() }
    }
}

#[derive(Debug)]
struct Entry<B> {
    /// What it was at the last answer.
    mac: Option<MacAddress>,
    state: State,
    waiting: Waiting<B>,
}

/// What is known about a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lookup {
    Reachable(MacAddress),
    /// It has been asked: wait.
    Asked,
    /// It does not answer.
    Unreachable,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Neighbors<B> {
    entries: HashMap<Ipv4Addr, Entry<B>, KeyedHash>,
    /// Those in [`State::Asked`].
    asked: Vec<Ipv4Addr>,
    /// Requests to send.
    requests: VecDeque<Ipv4Addr>,
}

impl<B> Neighbors<B> {
    pub(super) fn new(hash: KeyedHash) -> Self {
        Self { entries: HashMap::with_hasher(hash), asked: Vec::new(), requests: VecDeque::new() }
    }

    /// Where to send packets for `address`. Asks if that is not known.
    pub(super) fn lookup(&mut self, now: Instant, address: Ipv4Addr) -> Lookup {
        if !self.entries.contains_key(&address) {
            if !self.make_room() {
                return Lookup::Unreachable;
            }
            let entry =
                Entry { mac: None, state: State::Failed { until: now }, waiting: Waiting::new() };
            self.entries.insert(address, entry);
        }
        let Some(entry) = self.entries.get_mut(&address) else { return Lookup::Unreachable };
        match entry.state {
            State::Failed { until } if now < until => return Lookup::Unreachable,
            State::Failed { .. } => {
                entry.state = State::Asked { tries: 1, deadline: now + ANSWER };
                self.asked.push(address);
                self.requests.push_back(address);
            }
            State::Fresh { .. } | State::Asked { .. } => {}
        }
        // An old answer serves until it is known to be wrong.
        entry.mac.map_or(Lookup::Asked, Lookup::Reachable)
    }

    /// A packet is sent to `address`: asks again if the answer is old.
    pub(super) fn touch(&mut self, now: Instant, address: Ipv4Addr) {
        if let Some(entry) = self.entries.get_mut(&address)
            && matches!(entry.state, State::Fresh { until } if now >= until)
        {
            entry.state = State::Asked { tries: 1, deadline: now + ANSWER };
            self.asked.push(address);
            self.requests.push_back(address);
        }
    }

    /// What waits for a neighbour that has been asked.
    pub(super) fn waiting(&mut self, address: Ipv4Addr) -> Option<&mut Waiting<B>> {
        self.entries.get_mut(&address).map(|entry| &mut entry.waiting)
    }

    /// Lets a packet wait; `false` if too many do.
    pub(super) fn wait(&mut self, address: Ipv4Addr, packet: IpControl<B>) -> bool {
        match self.waiting(address) {
            Some(waiting) if waiting.packets.len() < MAX_WAITING => {
                waiting.packets.push_back(packet);
                true
            }
            _ => false,
        }
    }

    /// A neighbour has told its address: in its answer, if `solicited`, else in its request to us.
    /// Returns what has waited for it; `None` if nobody had asked for an answer.
    pub(super) fn learn(
        &mut self,
        now: Instant,
        address: Ipv4Addr,
        mac: MacAddress,
        solicited: bool,
    ) -> Option<Waiting<B>> {
        let is_asked = |entry: &Entry<B>| matches!(entry.state, State::Asked { .. });
        if solicited && !self.entries.get(&address).is_some_and(is_asked) {
            return None;
        }
        if !self.entries.contains_key(&address) && !self.make_room() {
            return None;
        }
        let state = State::Fresh { until: now + FRESH };
        let entry = self.entries.entry(address).or_insert_with(|| Entry {
            mac: None,
            state,
            waiting: Waiting::new(),
        });
        if is_asked(entry) {
            self.asked.retain(|&asked| asked != address);
        }
        entry.mac = Some(mac);
        entry.state = state;
        Some(std::mem::replace(&mut entry.waiting, Waiting::new()))
    }

    /// Makes room for one more entry; `false` if all are needed.
    fn make_room(&mut self) -> bool {
        if self.entries.len() < MAX_ENTRIES {
            return true;
        }
        // The one that has been there longest without a new answer. This looks at all, but only
        // when a thousand neighbours are in use.
        let victim = self
            .entries
            .iter()
            .filter_map(|(address, entry)| match entry.state {
                State::Fresh { until } | State::Failed { until } => Some((until, *address)),
                State::Asked { .. } => None,
            })
            .min();
        victim.is_some_and(|(_, address)| self.entries.remove(&address).is_some())
    }

    /// The next request to send: whose address is asked for.
    pub(super) fn pop_request(&mut self) -> Option<Ipv4Addr> {
        self.requests.pop_front()
    }

    pub(super) fn has_requests(&self) -> bool {
        !self.requests.is_empty()
    }

    /// When [`handle_timeout`](Self::handle_timeout) must be called.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.asked
            .iter()
            .filter_map(|address| match self.entries.get(address)?.state {
                State::Asked { deadline, .. } => Some(deadline),
                State::Fresh { .. } | State::Failed { .. } => None,
            })
            .min()
    }

    /// Asks again where no answer came; gives what has waited in vain to `failed`.
    pub(super) fn handle_timeout(&mut self, now: Instant, mut failed: impl FnMut(Waiting<B>)) {
        let Self { entries, asked, requests } = self;
        asked.retain(|address| {
            let Some(entry) = entries.get_mut(address) else { return false };
            let State::Asked { tries, deadline } = &mut entry.state else { return false };
            if now < *deadline {
                return true;
            }
            if *tries < TRIES {
                *tries += 1;
                *deadline = now + ANSWER;
                requests.push_back(*address);
                return true;
            }
            entry.mac = None;
            entry.state = State::Failed { until: now + HOLD_DOWN };
            failed(std::mem::replace(&mut entry.waiting, Waiting::new()));
            false
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
    const MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 2]);

    fn neighbors() -> Neighbors<Vec<u8>> {
        Neighbors::new(KeyedHash::new([0; 16]))
    }

    #[test]
    fn asks_three_times_then_holds_down_then_asks_again() {
        let mut neighbors = neighbors();
        let mut now = Instant::ZERO;
        assert_eq!(neighbors.lookup(now, PEER), Lookup::Asked);
        let mut failures = 0;
        for _ in 0..TRIES {
            assert_eq!(neighbors.pop_request(), Some(PEER));
            assert_eq!(neighbors.pop_request(), None);
            now = neighbors.deadline().expect("waiting");
            neighbors.handle_timeout(now, |_| failures += 1);
        }
        assert_eq!((failures, neighbors.deadline()), (1, None));
        assert_eq!(neighbors.lookup(now, PEER), Lookup::Unreachable);
        assert_eq!(neighbors.lookup(now + HOLD_DOWN, PEER), Lookup::Asked);
    }

    #[test]
    fn only_answers_to_questions_are_believed() {
        let mut neighbors = neighbors();
        let now = Instant::ZERO;
        assert!(neighbors.learn(now, PEER, MAC, true).is_none());
        neighbors.lookup(now, PEER);
        assert!(neighbors.learn(now, PEER, MAC, true).is_some());
        assert_eq!(neighbors.lookup(now, PEER), Lookup::Reachable(MAC));
        assert!(neighbors.learn(now, PEER, MacAddress([4; 6]), true).is_none());
        assert_eq!(neighbors.lookup(now, PEER), Lookup::Reachable(MAC));
    }

    #[test]
    fn an_old_answer_serves_while_it_is_refreshed() {
        let mut neighbors = neighbors();
        let now = Instant::ZERO;
        assert!(neighbors.learn(now, PEER, MAC, false).is_some());
        assert_eq!(neighbors.pop_request(), None);
        neighbors.touch(now, PEER);
        assert_eq!(neighbors.lookup(now + FRESH, PEER), Lookup::Reachable(MAC));
        assert_eq!(neighbors.pop_request(), None);
        neighbors.touch(now + FRESH, PEER);
        assert_eq!(neighbors.pop_request(), Some(PEER));
        assert_eq!(neighbors.lookup(now + FRESH, PEER), Lookup::Reachable(MAC));
    }

    #[test]
    fn the_table_is_bounded() {
        let mut neighbors = neighbors();
        let address = |n: u32| Ipv4Addr::from_bits(PEER.to_bits() + n);
        for n in 0..3000 {
            assert!(neighbors.learn(Instant::ZERO, address(n), MAC, false).is_some());
        }
        assert_eq!(neighbors.entries.len(), MAX_ENTRIES);
        for n in 5000..8000 {
            neighbors.lookup(Instant::ZERO, address(n));
        }
        assert_eq!(neighbors.entries.len(), MAX_ENTRIES);
        assert_eq!(neighbors.asked.len(), MAX_ENTRIES);
        assert_eq!(neighbors.lookup(Instant::ZERO, address(9000)), Lookup::Unreachable);
    }
}
