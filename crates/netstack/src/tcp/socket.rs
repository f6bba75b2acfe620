use std::net::SocketAddrV4;

use super::{
    ConnectionError, TcpInfo, TcpState,
    connection::{Connection, Outgoing, Room},
    endpoints::Endpoints,
    receive_queue::ReceiveQueue,
    syn_received::SynReceived,
    syn_sent::SynSent,
    time_wait::TimeWait,
};
use crate::{Instant, PacketBuffer, Readiness, TcpStatistics, slab::Key};

/// Who will get, has, or had a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// It waits for its handshake's end or for `accept`.
    Listener(Key),
    Program,
    /// The program has closed it.
    Nobody,
}

/// RFC 9293's states; those between ESTABLISHED and LAST-ACK share one.
#[derive(Debug)]
pub(crate) enum Phase<B> {
    SynSent(SynSent),
    SynReceived(SynReceived),
    Synchronized(Box<Connection<B>>),
    TimeWait(TimeWait),
    Closed,
}

/// A connection with its place among all others.
#[derive(Debug)]
pub(crate) struct Socket<B> {
    pub(crate) endpoints: Endpoints,
    pub(crate) owner: Owner,
    pub(crate) phase: Phase<B>,
    pub(crate) queue: ReceiveQueue<B>,
    /// What [`charged`](Self::charged) was when it was last accounted for.
    pub(crate) accounted: usize,
    /// Why it failed, until somebody is told: Linux's `sk_err`.
    pub(crate) error: Option<ConnectionError>,
    /// It was established.
    pub(crate) connected: bool,
    /// The peer's stream is complete.
    pub(crate) peer_closed: bool,
    /// The program sends nothing more.
    pub(crate) shut_down: bool,
    /// The program receives nothing more but what is queued.
    pub(crate) receive_shut_down: bool,
    /// How many bytes are worth a wake-up: `SO_RCVLOWAT`.
    pub(crate) low_water: usize,
    pub(crate) nodelay: bool,
    /// The program found no room for all it had to send, and has not been told of any since.
    pub(crate) wants_space: bool,
    /// What has changed since the last event.
    pub(crate) changes: Readiness,
    pub(crate) in_event_queue: bool,
    pub(crate) in_transmit_queue: bool,
    /// It cannot transmit until its next hop is resolved.
    pub(crate) is_parked: bool,
}

impl<B: PacketBuffer> Socket<B> {
    pub(crate) const fn new(endpoints: Endpoints, owner: Owner, phase: Phase<B>) -> Self {
        Self {
            endpoints,
            owner,
            phase,
            queue: ReceiveQueue::new(),
            accounted: 0,
            error: None,
            connected: false,
            peer_closed: false,
            shut_down: false,
            receive_shut_down: false,
            low_water: 1,
            nodelay: false,
            wants_space: false,
            changes: Readiness::empty(),
            in_event_queue: false,
            in_transmit_queue: false,
            is_parked: false,
        }
    }

    pub(crate) fn connection(&self) -> Option<&Connection<B>> {
        match &self.phase {
            Phase::Synchronized(connection) => Some(connection),
            _ => None,
        }
    }

    /// The packet memory that it holds, in bytes of truesize.
    pub(crate) fn charged(&self) -> usize {
        let out_of_order =
            self.connection().map_or(0, |connection| connection.receiver().out_of_order_charged());
        self.queue.charged() + out_of_order
    }

    /// What Linux calls `TCP_CLOSE`: TIME-WAIT is not the socket's any more.
    pub(crate) const fn is_closed(&self) -> bool {
        matches!(self.phase, Phase::Closed | Phase::TimeWait(_))
    }

    /// `RCV_SHUTDOWN`: nothing is received but what is queued.
    pub(crate) const fn is_receive_shut_down(&self) -> bool {
        self.peer_closed || self.receive_shut_down || self.is_closed()
    }

    /// There is nothing left that anybody could ask for.
    pub(crate) fn is_finished(&self) -> bool {
        matches!((&self.phase, self.owner), (Phase::Closed, Owner::Nobody))
    }

    /// Bytes, or the end of the stream, were sent or are to be, and not acknowledged.
    pub(crate) fn has_undelivered(&self) -> bool {
        self.connection().is_some_and(|connection| {
            !connection.sender().buffer().is_empty() || connection.state().awaits_fin_ack()
        })
    }

    /// Ports as a header has them: ours, theirs.
    fn ports(&self) -> (u16, u16) {
        (self.endpoints.local_port, self.endpoints.remote.port())
    }

    pub(crate) const fn remote(&self) -> SocketAddrV4 {
        self.endpoints.remote
    }

    /// How many bytes the send buffer has room for.
    pub(crate) fn send_space(&self) -> usize {
        match self.connection() {
            Some(connection) if connection.state().can_send() => {
                connection.sender().buffer().space()
            }
            _ => 0,
        }
    }

    /// Tells a program that found no room when a third of the send buffer is free, as Linux does:
    /// for less it is not worth waking up.
    pub(crate) fn note_space(&mut self) {
        if self.wants_space && self.is_worth_sending() {
            self.wants_space = false;
            self.changes |= Readiness::WRITABLE;
        }
    }

    /// A third of the send buffer is free.
    pub(crate) fn is_worth_sending(&self) -> bool {
        self.connection().is_some_and(|connection| {
            let buffer = connection.sender().buffer();
            buffer.space() >= buffer.capacity() / 3
        })
    }

    /// The next segment; if there is one, it counts as sent. `free` is the memory that no socket
    /// holds.
    pub(crate) fn poll_transmit(
        &mut self,
        now: Instant,
        free: usize,
        room: Room,
        statistics: &mut TcpStatistics,
    ) -> Option<Outgoing> {
        let ports = self.ports();
        let header = match &mut self.phase {
            Phase::SynSent(syn_sent) => syn_sent.poll_transmit(now, ports),
            Phase::SynReceived(syn_received) => syn_received.poll_transmit(now, ports),
            Phase::Synchronized(connection) => {
                let endpoints = self.endpoints;
                let queue = &self.queue;
                return connection.poll_transmit(now, endpoints, queue, free, room, statistics);
            }
            Phase::TimeWait(time_wait) => time_wait.poll_transmit(now, ports),
            Phase::Closed => None,
        };
        header.map(|header| Outgoing { header, offset: 0, len: 0 })
    }

    /// Copies the payload of a segment that is being sent.
    pub(crate) fn copy_payload(&self, outgoing: &Outgoing, target: &mut [u8]) {
        if let Some(connection) = self.connection() {
            connection.sender().buffer().copy_to(outgoing.offset, target);
        }
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        match &self.phase {
            Phase::SynSent(syn_sent) => syn_sent.timer.deadline(),
            Phase::SynReceived(syn_received) => syn_received.timer.deadline(),
            Phase::Synchronized(connection) => connection.deadline(),
            Phase::TimeWait(time_wait) => Some(time_wait.deadline),
            Phase::Closed => None,
        }
    }

    pub(crate) fn info(&self) -> TcpInfo {
        let state = match &self.phase {
            Phase::SynSent(_) => TcpState::SynSent,
            Phase::SynReceived(_) => TcpState::SynReceived,
            Phase::Synchronized(connection) => connection.state().into(),
            Phase::TimeWait(_) => TcpState::TimeWait,
            Phase::Closed => TcpState::Closed,
        };
        let mut info = TcpInfo {
            state,
            receive_queue: self.queue.available(),
            receive_charged: self.charged(),
            ..TcpInfo::CLOSED
        };
        if let Some(connection) = self.connection() {
            let (sender, receiver) = (connection.sender(), connection.receiver());
            info.snd_mss = sender.mss();
            info.rcv_mss = receiver.mss();
            info.snd_cwnd = sender.congestion().window();
            info.snd_ssthresh = sender.congestion().threshold();
            info.snd_wnd = sender.window();
            info.rcv_wnd = receiver.window();
            info.srtt = sender.rtt().srtt().unwrap_or_default();
            info.rttvar = sender.rtt().rttvar().unwrap_or_default();
            info.rto = sender.rtt().rto();
            info.bytes_in_flight = sender.in_flight();
            info.send_queue = sender.buffer().len();
            info.retransmits = sender.retransmits();
            info.timestamps = connection.has_timestamps();
            info.snd_wscale = connection.peer_scale();
            info.rcv_wscale = receiver.scale();
        }
        info
    }
}
