//! TCP (RFC 9293): all connections of a host.
//!
//! ```text
//!  segment in --> Tcp::on_segment --> Phase::on_segment: a state's file says what follows
//!                     |                 syn_sent, syn_received, connection, time_wait
//!                     v
//!                  Sockets::settle: event queue, transmit queue, timers
//!                     |
//!  segment out <-- Socket::poll_transmit
//!                     Sender: what may be sent     Receiver: what is acknowledged
//! ```
//!
//! Nothing is sent while a segment is processed. A connection notes what it owes, and decides when
//! it is asked for a segment; so a batch of segments is answered once. What is answered without a
//! connection (resets, TIME-WAIT) is queued as a [`Reply`].

mod congestion;
mod connection;
mod endpoints;
mod error;
mod handshake;
mod info;
mod isn;
mod listener;
mod out_of_order;
mod rate_limit;
mod receive_memory;
mod receive_queue;
mod receiver;
mod recovery;
mod rtt;
mod segment;
mod send_buffer;
mod sender;
pub(crate) mod seq;
mod socket;
mod sockets;
mod state;
mod syn_received;
mod syn_sent;
#[cfg(test)]
pub(crate) mod test_buffer;
mod time_wait;
mod timer_heap;
mod timestamps;
mod urgent;

pub use error::{
    ConnectError, ConnectState, ConnectionError, ListenError, ReceiveStatus, SendError, UrgentError,
};
pub use info::{TcpInfo, TcpState};

pub(crate) use connection::Room;
pub(crate) use endpoints::{Endpoints, KeyedHash};
pub(crate) use isn::EPHEMERAL_PORTS;
pub(crate) use segment::{Incoming, Reply};
pub(crate) use socket::{Owner, Phase, Socket};

use crate::{
    Config, DropReason, Instant, PacketBuffer, Readiness, TcpConfig, TcpStatistics,
    slab::Key,
    tcp::{
        connection::{Connection, Effects, End},
        handshake::{Negotiated, Offer},
        isn::Secret,
        listener::Listeners,
        seq::SeqNumber,
        sockets::Sockets,
        syn_received::{Opening, SynReceived},
        syn_sent::SynSent,
        timestamps::TimestampClock,
    },
    wire::{icmp::Unreachable, tcp::Flags},
};

/// IPv4 and TCP headers without options, in bytes.
const HEADERS: usize = 40;
/// The smallest path MTU that a router is believed: Linux's `min_pmtu`.
const MIN_PATH_MTU: usize = 552;

/// See the module.
#[derive(Debug)]
pub(crate) struct Tcp<B> {
    config: TcpConfig,
    mtu: usize,
    pub(crate) secret: Secret,
    pub(crate) sockets: Sockets<B>,
    pub(crate) listeners: Listeners,
    /// Connections in TIME-WAIT.
    time_waits: usize,
}

/// What a segment was dropped for, and the reply that it gets nevertheless.
pub(crate) struct Dropped {
    pub(crate) reason: DropReason,
    pub(crate) reply: Option<Reply>,
}

impl From<DropReason> for Dropped {
    fn from(reason: DropReason) -> Self {
        Self { reason, reply: None }
    }
}

impl Dropped {
    const fn with(reason: DropReason, reply: Reply) -> Self {
        Self { reason, reply: Some(reply) }
    }
}

impl<B: PacketBuffer> Tcp<B> {
    pub(crate) fn new(config: &Config) -> Self {
        let hash = KeyedHash::new(config.seed);
        Self {
            config: config.tcp,
            mtu: config.link.mtu,
            secret: Secret::new(config.seed),
            sockets: Sockets::new(hash.clone(), config.tcp.receive_memory),
            listeners: Listeners::new(hash),
            time_waits: 0,
        }
    }

    fn offer(&self, endpoints: Endpoints) -> Offer {
        let clock = TimestampClock { offset: self.secret.timestamp_offset(endpoints) };
        Offer::new(self.mtu, &self.config, clock)
    }

    /// Asks for a connection that does not exist yet.
    pub(crate) fn connect(
        &mut self,
        now: Instant,
        endpoints: Endpoints,
        statistics: &mut TcpStatistics,
    ) -> Key {
        let iss = self.secret.initial_sequence(now, endpoints);
        let phase = Phase::SynSent(SynSent::new(iss, self.offer(endpoints)));
        let key = self.sockets.insert(Socket::new(endpoints, Owner::Program, phase));
        self.sockets.settle(key);
        statistics.active_opens += 1;
        key
    }

    /// Processes a segment.
    pub(crate) fn on_segment(
        &mut self,
        now: Instant,
        segment: Incoming<B>,
        statistics: &mut TcpStatistics,
    ) -> Result<(), Dropped> {
        statistics.segments_received += 1;
        match self.sockets.find(&segment.endpoints) {
            Some(key) => self.on_known(now, key, segment, statistics),
            None => self.on_unknown(now, &segment),
        }
    }

    /// A segment of a connection that exists.
    fn on_known(
        &mut self,
        now: Instant,
        key: Key,
        segment: Incoming<B>,
        statistics: &mut TcpStatistics,
    ) -> Result<(), Dropped> {
        let Some(socket) = self.sockets.get_mut(key) else { return Ok(()) };
        let result = match &mut socket.phase {
            Phase::SynSent(syn_sent) => {
                let outcome = syn_sent.on_segment(now, &segment);
                self.on_syn_sent(now, key, outcome, statistics)
            }
            Phase::SynReceived(syn_received) => {
                let outcome = syn_received.on_segment(now, &segment);
                self.on_syn_received(now, key, outcome, segment, statistics)
            }
            Phase::Synchronized(_) => self.on_synchronized(now, key, segment, statistics),
            Phase::TimeWait(time_wait) => match time_wait.on_segment(now, &segment) {
                time_wait::Outcome::Reopen => {
                    self.end(now, key, End::Closed, statistics);
                    self.sockets.settle(key);
                    return self.on_unknown(now, &segment);
                }
                time_wait::Outcome::Nothing => Ok(()),
                time_wait::Outcome::Drop(reason) => Err(reason.into()),
            },
            // Closed sockets are not found by their connection.
            Phase::Closed => Err(DropReason::TcpNoSocket.into()),
        };
        self.sockets.settle(key);
        result
    }

    fn on_syn_sent(
        &mut self,
        now: Instant,
        key: Key,
        outcome: syn_sent::Outcome,
        statistics: &mut TcpStatistics,
    ) -> Result<(), Dropped> {
        match outcome {
            syn_sent::Outcome::Established(negotiated) => {
                self.establish(now, key, &negotiated);
                Ok(())
            }
            syn_sent::Outcome::Simultaneous(syn_received) => {
                if let Some(socket) = self.sockets.get_mut(key) {
                    socket.phase = Phase::SynReceived(syn_received);
                }
                Ok(())
            }
            syn_sent::Outcome::Refused => {
                self.end(now, key, End::Failed(ConnectionError::Refused), statistics);
                Ok(())
            }
            syn_sent::Outcome::Drop(reason) => Err(reason.into()),
            syn_sent::Outcome::DropAndReply(reason, reply) => Err(Dropped::with(reason, reply)),
        }
    }

    fn on_syn_received(
        &mut self,
        now: Instant,
        key: Key,
        outcome: syn_received::Outcome,
        segment: Incoming<B>,
        statistics: &mut TcpStatistics,
    ) -> Result<(), Dropped> {
        match outcome {
            syn_received::Outcome::Established(negotiated) => {
                let owner = self.sockets.get(key).map(|socket| socket.owner);
                if let Some(Owner::Listener(listener)) = owner {
                    let Some(entry) = self.listeners.get_mut(listener) else { return Ok(()) };
                    if !entry.can_establish() {
                        // The peer sends again, or answers our next SYN-ACK.
                        return Err(DropReason::TcpBacklogFull.into());
                    }
                    entry.on_established(key);
                    if !entry.in_event_queue {
                        entry.in_event_queue = true;
                        self.sockets.push_listener_event(listener);
                    }
                    statistics.passive_opens += 1;
                }
                self.establish(now, key, &negotiated);
                if segment.has(Flags::SYN) {
                    return Ok(());
                }
                self.on_synchronized(now, key, segment, statistics)
            }
            syn_received::Outcome::Reset => {
                self.end(now, key, End::Failed(ConnectionError::Refused), statistics);
                Ok(())
            }
            syn_received::Outcome::Drop(reason) => Err(reason.into()),
            syn_received::Outcome::DropAndReply(reason, reply) => Err(Dropped::with(reason, reply)),
        }
    }

    /// A handshake is complete. The peer may not know yet, so it gets an acknowledgment unless its
    /// segment was one.
    fn establish(&mut self, now: Instant, key: Key, negotiated: &Negotiated) {
        let Some(socket) = self.sockets.get_mut(key) else { return };
        let mut connection = Connection::new(now, negotiated, &self.config, socket.nodelay);
        if socket.owner == Owner::Program {
            connection.owe_ack();
        }
        if socket.shut_down {
            connection.close();
        }
        if socket.receive_shut_down {
            connection.shut_down_receive();
        }
        socket.phase = Phase::Synchronized(Box::new(connection));
        socket.connected = true;
        socket.changes |= Readiness::CONNECTED | Readiness::WRITABLE;
    }

    fn on_synchronized(
        &mut self,
        now: Instant,
        key: Key,
        segment: Incoming<B>,
        statistics: &mut TcpStatistics,
    ) -> Result<(), Dropped> {
        let free = self.sockets.receive_memory().free();
        let Some(socket) = self.sockets.get_mut(key) else { return Ok(()) };
        let Phase::Synchronized(connection) = &mut socket.phase else { return Ok(()) };
        let effects = connection.on_segment(now, &mut socket.queue, free, segment, statistics)?;
        self.apply(now, key, effects, statistics)
    }

    /// Tells the program, and ends the connection if it is over.
    fn apply(
        &mut self,
        now: Instant,
        key: Key,
        effects: Effects,
        statistics: &mut TcpStatistics,
    ) -> Result<(), Dropped> {
        let Effects { readable, urgent, peer_closed, acknowledged, end } = effects;
        let Some(socket) = self.sockets.get_mut(key) else { return Ok(()) };
        if readable {
            socket.changes |= Readiness::READABLE;
        }
        if urgent {
            socket.changes |= Readiness::URGENT;
        }
        if peer_closed {
            socket.peer_closed = true;
            socket.changes |= Readiness::PEER_CLOSED;
        }
        if acknowledged {
            socket.note_space();
        }
        if let Some(end) = end {
            self.end(now, key, end, statistics);
            if let End::Reset(reply) = end {
                return Err(Dropped::with(DropReason::TcpDataAfterClose, reply));
            }
        }
        Ok(())
    }

    /// Takes a connection out of service. The socket stays until its program has closed it.
    fn end(&mut self, now: Instant, key: Key, end: End, statistics: &mut TcpStatistics) {
        let free = self.sockets.receive_memory().free();
        let Some(socket) = self.sockets.get_mut(key) else { return };
        if let Phase::TimeWait(_) = socket.phase {
            self.time_waits -= 1;
        }
        let half_open = matches!(socket.phase, Phase::SynReceived(_));
        let mut next = Phase::Closed;
        match end {
            End::TimeWait => {
                if self.time_waits >= self.config.time_wait_max {
                    statistics.time_wait_overflows += 1;
                } else if let Phase::Synchronized(connection) = &mut socket.phase {
                    self.time_waits += 1;
                    let queue = &socket.queue;
                    next = Phase::TimeWait(connection.time_wait(now, queue, free, &self.config));
                }
            }
            End::Failed(error) => {
                socket.error = Some(error);
                socket.changes |= Readiness::ERROR;
                if !socket.connected {
                    statistics.failed_opens += 1;
                }
            }
            End::Reset(_) => {
                socket.error = Some(ConnectionError::Reset);
                socket.changes |= Readiness::ERROR;
            }
            End::Closed => {}
        }
        socket.phase = next;
        socket.changes |= Readiness::CLOSED;
        // A connection that has failed before anybody accepted it is nobody's business.
        if let Owner::Listener(listener) = socket.owner
            && matches!(socket.phase, Phase::Closed)
        {
            if let Some(listener) = self.listeners.get_mut(listener) {
                if half_open {
                    listener.on_half_open_gone();
                } else {
                    listener.forget(key);
                }
            }
            socket.owner = Owner::Nobody;
        }
    }

    /// A segment of no connection: RFC 9293 sections 3.10.7.1 and 3.10.7.2.
    fn on_unknown(&mut self, now: Instant, segment: &Incoming<B>) -> Result<(), Dropped> {
        if segment.has(Flags::RST) {
            return Err(DropReason::TcpBadReset.into());
        }
        let endpoints = segment.endpoints;
        let Some(listener) = self.listeners.by_port(endpoints.local_port) else {
            return Err(Dropped::with(DropReason::TcpNoSocket, Reply::reset(segment)));
        };
        // "Any acknowledgment is bad if it arrives on a connection still in the LISTEN state."
        if segment.has(Flags::ACK) {
            return Err(Dropped::with(DropReason::TcpBadAck, Reply::reset(segment)));
        }
        if !segment.has(Flags::SYN) || segment.has(Flags::FIN) {
            return Err(DropReason::TcpUnexpectedFlags.into());
        }
        let Some(entry) = self.listeners.get_mut(listener).filter(|entry| entry.has_room()) else {
            return Err(DropReason::TcpBacklogFull.into());
        };
        entry.on_half_open();
        let iss = self.secret.initial_sequence(now, endpoints);
        let opening = Opening { iss, offer: self.offer(endpoints) };
        let phase = Phase::SynReceived(SynReceived::new(opening, &segment.header));
        let key = self.sockets.insert(Socket::new(endpoints, Owner::Listener(listener), phase));
        self.sockets.settle(key);
        Ok(())
    }

    /// An ICMP message says that a packet, which began with `seq`, did not reach the peer.
    pub(crate) fn on_unreachable(
        &mut self,
        now: Instant,
        endpoints: Endpoints,
        seq: SeqNumber,
        reason: Unreachable,
        statistics: &mut TcpStatistics,
    ) -> Result<(), DropReason> {
        let key = self.sockets.find(&endpoints).ok_or(DropReason::IcmpUnrelated)?;
        let socket = self.sockets.get_mut(key).ok_or(DropReason::IcmpUnrelated)?;
        // RFC 5927 section 4.1: only about something that is in flight.
        let mut refused = false;
        match &mut socket.phase {
            Phase::SynSent(syn_sent) if seq == syn_sent.iss() => match reason {
                Unreachable::Port | Unreachable::Protocol => refused = true,
                Unreachable::Other => {
                    syn_sent.soft_error = Some(ConnectionError::HostUnreachable);
                }
                Unreachable::FragmentationNeeded { .. } => return Err(DropReason::IcmpUnrelated),
            },
            Phase::SynReceived(syn_received) if seq == syn_received.iss() => {
                refused = matches!(reason, Unreachable::Port | Unreachable::Protocol);
            }
            Phase::Synchronized(connection) => {
                let sender = connection.sender_mut();
                if seq.is_before(sender.una()) || !seq.is_before(sender.max()) {
                    return Err(DropReason::IcmpUnrelated);
                }
                // RFC 5927 sections 5.2 and 6: in an established connection even the hard errors
                // are only hints, which retransmission copes with.
                if let Unreachable::FragmentationNeeded { mtu } = reason {
                    // RFC 1191 section 4, "the MTU": old routers do not give it.
                    let mtu = usize::from(mtu).max(MIN_PATH_MTU);
                    let options = if connection.has_timestamps() {
                        crate::wire::tcp::TIMESTAMPS_LEN
                    } else {
                        0
                    };
                    connection.sender_mut().reduce_mss(mtu - HEADERS - options);
                }
            }
            _ => return Err(DropReason::IcmpUnrelated),
        }
        if refused {
            self.end(now, key, End::Failed(ConnectionError::Refused), statistics);
        }
        self.sockets.settle(key);
        Ok(())
    }

    /// The next hop of a socket is resolved (`reachable`), or does not answer.
    pub(crate) fn on_resolved(
        &mut self,
        now: Instant,
        key: Key,
        reachable: bool,
        statistics: &mut TcpStatistics,
    ) {
        let Some(socket) = self.sockets.get_mut(key) else { return };
        socket.is_parked = false;
        if !reachable && matches!(socket.phase, Phase::SynSent(_)) {
            let error = ConnectionError::HostUnreachable;
            self.end(now, key, End::Failed(error), statistics);
        }
        self.sockets.settle(key);
    }

    /// Does what is due at `now`.
    pub(crate) fn handle_timeout(&mut self, now: Instant, statistics: &mut TcpStatistics) {
        while let Some(key) = self.sockets.pop_expired(now) {
            let Some(socket) = self.sockets.get_mut(key) else { continue };
            let end = match &mut socket.phase {
                Phase::SynSent(syn_sent) => syn_sent.on_timeout(now).map(End::Failed),
                Phase::SynReceived(syn_received) => {
                    let given_up = !syn_received.on_timeout(now);
                    given_up.then_some(End::Failed(ConnectionError::TimedOut))
                }
                Phase::Synchronized(connection) => connection.on_timeout(now, statistics),
                Phase::TimeWait(time_wait) => (now >= time_wait.deadline).then_some(End::Closed),
                Phase::Closed => None,
            };
            if let Some(end) = end {
                self.end(now, key, end, statistics);
            }
            self.sockets.settle(key);
        }
    }

    /// The program closes a socket; the reset that the peer gets, if any. `abort`: at once, and
    /// without delivering anything more.
    pub(crate) fn close(
        &mut self,
        now: Instant,
        key: Key,
        abort: bool,
        statistics: &mut TcpStatistics,
    ) -> Option<Reply> {
        let socket = self.sockets.get_mut(key)?;
        // RFC 2525 section 2.17: the peer must not think that unread bytes were read.
        let unread = socket.queue.available() > 0;
        let endpoints = socket.endpoints;
        socket.owner = Owner::Nobody;
        socket.queue.clear();
        let mut reply = None;
        let end = match &mut socket.phase {
            Phase::SynSent(_) => true,
            Phase::SynReceived(syn_received) => {
                reply = Some(syn_received.reset(endpoints));
                true
            }
            Phase::Synchronized(connection) if abort || unread => {
                reply = Some(connection.reset(endpoints));
                true
            }
            Phase::Synchronized(connection) => {
                connection.close();
                connection.disown(now);
                false
            }
            // No reset is needed in TIME-WAIT: both ends know that the other has closed.
            Phase::TimeWait(_) | Phase::Closed => false,
        };
        if end {
            self.end(now, key, End::Closed, statistics);
        }
        self.sockets.settle(key);
        reply
    }

    /// Stops listening; a reset for each connection that nobody accepted is given to `reply`.
    pub(crate) fn close_listener(
        &mut self,
        now: Instant,
        listener: Key,
        statistics: &mut TcpStatistics,
        mut reply: impl FnMut(Reply),
    ) {
        let Some(removed) = self.listeners.remove(listener) else { return };
        if removed.in_event_queue {
            self.sockets.forget_listener_event(listener);
        }
        let waiting = self.sockets.find_all(|socket| socket.owner == Owner::Listener(listener));
        for key in waiting {
            if let Some(reset) = self.close(now, key, true, statistics) {
                reply(reset);
            }
        }
    }

    /// The next event.
    pub(crate) fn poll_event(&mut self) -> Option<crate::Event> {
        let event = self.sockets.pop_event()?;
        if let crate::Event::Acceptable(id) = event
            && let Some(listener) = self.listeners.get_mut(id.0)
        {
            listener.in_event_queue = false;
        }
        Some(event)
    }
}
