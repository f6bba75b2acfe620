//! What programs call.

use std::net::SocketAddrV4;

use super::control::{Control, IpControl};
use crate::{
    Charge, ConnectError, ConnectState, ConnectionError, Instant, ListenError, ListenerId,
    PacketBuffer, Readiness, ReceiveStatus, Segment, SendError, SocketId, Stack, Statistics,
    TcpInfo,
    config::is_host,
    tcp::{EPHEMERAL_PORTS, Endpoints, Owner, Phase, Socket, Tcp},
};

impl<B: PacketBuffer> Stack<B> {
    /// Listens on `address`: this host's or 0.0.0.0, and a port, or port 0 for a free one
    /// ([`listener_address`](Self::listener_address) tells which). At most `backlog` connections
    /// wait for [`accept`](Self::accept), and as many for the end of their handshake; further ones
    /// are not answered, so that their peers try again.
    ///
    /// # Errors
    ///
    /// See [`ListenError`].
    pub fn listen(
        &mut self,
        address: SocketAddrV4,
        backlog: usize,
    ) -> Result<ListenerId, ListenError> {
        let any = address.ip().is_unspecified();
        if !any && *address.ip() != self.config.address.address {
            return Err(ListenError::AddressNotAvailable(address));
        }
        let listeners = &mut self.tcp.listeners;
        let port = match address.port() {
            0 => EPHEMERAL_PORTS
                .into_iter()
                .find(|&port| listeners.by_port(port).is_none())
                .ok_or(ListenError::PortsExhausted)?,
            port if listeners.by_port(port).is_some() => {
                return Err(ListenError::AddressInUse(port));
            }
            port => port,
        };
        let address = SocketAddrV4::new(*address.ip(), port);
        Ok(ListenerId(listeners.insert(address, backlog)))
    }

    /// The address that a listener listens on; `None` if it is closed.
    #[must_use]
    pub fn listener_address(&self, id: ListenerId) -> Option<SocketAddrV4> {
        self.tcp.listeners.get(id.0).map(|listener| listener.address)
    }

    /// The oldest connection that waits, with its peer; `None` if none does, or the listener is
    /// closed.
    pub fn accept(&mut self, id: ListenerId) -> Option<(SocketId, SocketAddrV4)> {
        let key = self.tcp.listeners.get_mut(id.0)?.accept()?;
        let socket = self.tcp.sockets.get_mut(key)?;
        let peer = socket.remote();
        socket.owner = Owner::Program;
        // The program knows that it is connected. What else has happened is news.
        socket.changes -= Readiness::CONNECTED | Readiness::WRITABLE;
        self.tcp.sockets.settle(key);
        Some((SocketId(key), peer))
    }

    /// Stops listening. Connections that nobody accepted are reset.
    pub fn close_listener(&mut self, now: Instant, id: ListenerId) {
        let now = self.advance(now);
        let Self { tcp, statistics, controls, .. } = self;
        let Statistics { tcp: counters, replies_suppressed, .. } = statistics;
        tcp.close_listener(now, id.0, counters, |reset| {
            if !controls.push(Control::Ip(IpControl::Tcp(reset))) {
                *replies_suppressed += 1;
            }
        });
    }

    /// Opens a connection from an ephemeral port. An event with
    /// [`CONNECTED`](crate::Readiness::CONNECTED) or [`ERROR`](crate::Readiness::ERROR) follows.
    ///
    /// # Errors
    ///
    /// See [`ConnectError`]; no socket was made.
    pub fn connect(
        &mut self,
        now: Instant,
        remote: SocketAddrV4,
    ) -> Result<SocketId, ConnectError> {
        let now = self.advance(now);
        let address = self.config.address;
        let peer = *remote.ip();
        let reachable = is_host(peer) && Some(peer) != address.broadcast();
        if !reachable || peer == address.address || remote.port() == 0 {
            return Err(ConnectError::AddressNotAvailable(remote));
        }
        if self.next_hop(peer).is_none() {
            return Err(ConnectError::NetworkUnreachable(remote));
        }
        let Tcp { secret, sockets, listeners, .. } = &mut self.tcp;
        let local_port = secret
            .ephemeral_port(remote, |local_port| {
                listeners.by_port(local_port).is_none()
                    && sockets.find(&Endpoints { remote, local_port }).is_none()
            })
            .ok_or(ConnectError::PortsExhausted(remote))?;
        let endpoints = Endpoints { remote, local_port };
        Ok(SocketId(self.tcp.connect(now, endpoints, &mut self.statistics.tcp)))
    }

    /// How far [`connect`](Self::connect) has come.
    #[must_use]
    pub fn connect_state(&self, id: SocketId) -> ConnectState {
        match self.tcp.sockets.open(id) {
            None => ConnectState::Failed(ConnectionError::NotOpen),
            Some(socket) if socket.connected => ConnectState::Connected,
            Some(socket) => match socket.error {
                Some(error) => ConnectState::Failed(error),
                None if socket.is_closed() => ConnectState::Failed(ConnectionError::NotOpen),
                None => ConnectState::InProgress,
            },
        }
    }

    /// Copies as much of `data` into the send buffer as there is room for; returns how many bytes.
    /// That is 0 only if `data` is empty.
    ///
    /// # Errors
    ///
    /// See [`SendError`]; nothing was taken. A connection's error is told once.
    pub fn send(&mut self, now: Instant, id: SocketId, data: &[u8]) -> Result<usize, SendError> {
        self.send_with(now, id, data, false)
    }

    pub(super) fn send_with(
        &mut self,
        now: Instant,
        id: SocketId,
        data: &[u8],
        urgent: bool,
    ) -> Result<usize, SendError> {
        self.advance(now);
        let socket = self.tcp.sockets.open_mut(id).ok_or(ConnectionError::NotOpen)?;
        if let Some(error) = socket.error.take() {
            return Err(error.into());
        }
        if socket.shut_down {
            return Err(SendError::ShutDown);
        }
        let connection = match &mut socket.phase {
            Phase::SynSent(_) | Phase::SynReceived(_) => {
                socket.wants_space = true;
                return Err(SendError::WouldBlock);
            }
            Phase::Synchronized(connection) => connection,
            Phase::TimeWait(_) | Phase::Closed => return Err(SendError::ShutDown),
        };
        if data.is_empty() {
            return Ok(0);
        }
        let taken = connection.sender_mut().push(data);
        // Not reset here: another of the program's threads may wait for the room that this one's
        // send still found.
        socket.wants_space |= taken < data.len();
        if taken == 0 {
            return Err(SendError::WouldBlock);
        }
        if urgent {
            connection.sender_mut().mark_urgent();
        }
        self.tcp.sockets.settle(id.0);
        Ok(taken)
    }

    /// How many bytes [`send`](Self::send) would take now; 0 if it would fail.
    #[must_use]
    pub fn send_space(&self, id: SocketId) -> usize {
        self.tcp.sockets.open(id).map_or(0, Socket::send_space)
    }

    /// Bytes in order that [`take`](Self::take) has not handed out yet. An urgent byte is one of
    /// them.
    #[must_use]
    pub fn receive_available(&self, id: SocketId) -> usize {
        self.tcp.sockets.open(id).map_or(0, |socket| socket.queue.available())
    }

    /// Takes the next piece of the stream, of at most `max` bytes; `None` if there is nothing, or
    /// `max` is 0. The pieces are as the peer's segments came: call it again for more. None goes
    /// across the [urgent mark](Self::is_at_mark). If the next byte is the urgent one, it is left
    /// out first, and is gone, unless it is read [inline](Self::set_urgent_inline).
    ///
    /// The memory stays charged until [`release`](Self::release) gets [`Segment::charge`]. If `max`
    /// cuts a segment, the buffer is cloned, and is charged until all of its pieces are released.
    pub fn take(&mut self, id: SocketId, max: usize) -> Option<Segment<B>> {
        let queue = &mut self.tcp.sockets.open_mut(id)?.queue;
        let charged = queue.charged();
        let segment = queue.take(max);
        if queue.charged() < charged {
            // An urgent byte was alone in its frame.
            self.update_window(id);
        }
        segment
    }

    /// The bytes that [`take`](Self::take) would give, up to `max` or the urgent mark, and an
    /// urgent byte before them left out: `MSG_PEEK`.
    pub fn peek(&self, id: SocketId, max: usize) -> impl Iterator<Item = &[u8]> {
        self.tcp.sockets.open(id).into_iter().flat_map(move |socket| socket.queue.peek(max))
    }

    /// Gives back what [`take`](Self::take) charged, which opens the window, and announces it when
    /// that is worth a packet. Does nothing if the socket is gone: closing it gave back everything.
    pub fn release(&mut self, now: Instant, id: SocketId, charge: Charge) {
        self.advance(now);
        let Some(socket) = self.tcp.sockets.open_mut(id) else { return };
        socket.queue.release(charge);
        self.update_window(id);
    }

    /// The socket holds less than before.
    fn update_window(&mut self, id: SocketId) {
        self.tcp.sockets.account(id.0);
        let free = self.tcp.sockets.receive_memory().free();
        if let Some(socket) = self.tcp.sockets.open_mut(id)
            && let Phase::Synchronized(connection) = &mut socket.phase
            && connection.on_release(&socket.queue, free)
        {
            self.tcp.sockets.settle(id.0);
        }
    }

    /// The packet memory that all sockets hold, in bytes of truesize: the sum of their
    /// [`TcpInfo::receive_charged`]. [`TcpConfig::receive_memory`](crate::TcpConfig::receive_memory)
    /// limits it.
    #[must_use]
    pub const fn receive_memory_charged(&self) -> usize {
        self.tcp.sockets.receive_memory().charged()
    }

    /// Whether a socket holds more than half of its receive buffer: then a reader that waits for
    /// more should go on with what it has.
    #[must_use]
    pub fn is_receive_buffer_half_full(&self, id: SocketId) -> bool {
        let half = self.config.tcp.receive_buffer / 2;
        self.tcp.sockets.open(id).is_some_and(|socket| socket.charged() > half)
    }

    /// What follows the bytes that can be taken. The end of the stream hides an error, as in Linux;
    /// [`take_error`](Self::take_error) tells it.
    #[must_use]
    pub fn receive_status(&self, id: SocketId) -> ReceiveStatus {
        let Some(socket) = self.tcp.sockets.open(id) else {
            return ReceiveStatus::Failed(ConnectionError::NotOpen);
        };
        match socket.error {
            _ if socket.peer_closed => ReceiveStatus::EndOfStream,
            Some(error) => ReceiveStatus::Failed(error),
            None if socket.is_receive_shut_down() => ReceiveStatus::EndOfStream,
            None => ReceiveStatus::Open,
        }
    }

    /// Why the connection failed. It is told once, by this, by [`send`](Self::send), or by whoever
    /// saw [`ReceiveStatus::Failed`] and took it: `SO_ERROR`.
    pub fn take_error(&mut self, id: SocketId) -> Option<ConnectionError> {
        self.tcp.sockets.open_mut(id)?.error.take()
    }

    /// Receives nothing more but what is queued; what arrives meanwhile is still queued
    /// (`SHUT_RD`). The peer is not told, but reset if it sends after this end has been
    /// [shut down](Self::shutdown) for sending as well.
    ///
    /// # Errors
    ///
    /// [`ConnectionError::NotOpen`] if there is no connection (`ENOTCONN`); later receive calls
    /// find the end of the stream all the same.
    pub fn shutdown_receive(&mut self, id: SocketId) -> Result<(), ConnectionError> {
        let socket = self.tcp.sockets.open_mut(id).ok_or(ConnectionError::NotOpen)?;
        socket.receive_shut_down = true;
        if let Phase::Synchronized(connection) = &mut socket.phase {
            connection.shut_down_receive();
        }
        if socket.is_closed() { Err(ConnectionError::NotOpen) } else { Ok(()) }
    }

    /// Closes the sending side: the peer gets everything that was sent, then the end of the stream.
    /// Receiving goes on. Shutting down twice does nothing.
    ///
    /// # Errors
    ///
    /// [`ConnectionError::NotOpen`] if there is no connection (`ENOTCONN`).
    pub fn shutdown(&mut self, now: Instant, id: SocketId) -> Result<(), ConnectionError> {
        self.advance(now);
        let socket = self.tcp.sockets.open_mut(id).ok_or(ConnectionError::NotOpen)?;
        if socket.is_closed() {
            socket.shut_down = true;
            return Err(ConnectionError::NotOpen);
        }
        if !socket.shut_down {
            socket.shut_down = true;
            if let Phase::Synchronized(connection) = &mut socket.phase {
                connection.close();
            }
            self.tcp.sockets.settle(id.0);
        }
        Ok(())
    }

    /// Closes the socket, whose id names nothing from here on. What was sent is still delivered,
    /// in the background. But if there are received bytes that nobody took, or more arrive later,
    /// the connection is reset, since the peer would otherwise think them read (RFC 2525 section
    /// 2.17). Does nothing if the socket is gone.
    pub fn close(&mut self, now: Instant, id: SocketId) {
        self.end(now, id, false);
    }

    /// Closes the socket, throws away what was not delivered yet, and resets the connection. Does
    /// nothing if the socket is gone.
    pub fn abort(&mut self, now: Instant, id: SocketId) {
        self.end(now, id, true);
    }

    /// Whether small segments are sent at once although earlier ones are not acknowledged
    /// (`TCP_NODELAY`); off at first, so Nagle's algorithm holds them back. Does nothing if the
    /// socket is gone.
    pub fn set_nodelay(&mut self, now: Instant, id: SocketId, nodelay: bool) {
        self.advance(now);
        let Some(socket) = self.tcp.sockets.open_mut(id) else { return };
        socket.nodelay = nodelay;
        if let Phase::Synchronized(connection) = &mut socket.phase {
            connection.sender_mut().set_nodelay(nodelay);
            self.tcp.sockets.settle(id.0);
        }
    }

    /// Whether [`set_nodelay`](Self::set_nodelay) is on.
    #[must_use]
    pub fn nodelay(&self, id: SocketId) -> bool {
        self.tcp.sockets.open(id).is_some_and(|socket| socket.nodelay)
    }

    /// This end's address; `None` if the socket is gone.
    #[must_use]
    pub fn local_address(&self, id: SocketId) -> Option<SocketAddrV4> {
        let socket = self.tcp.sockets.open(id)?;
        Some(SocketAddrV4::new(self.config.address.address, socket.endpoints.local_port))
    }

    /// The peer's address; `None` if the socket is gone.
    #[must_use]
    pub fn peer_address(&self, id: SocketId) -> Option<SocketAddrV4> {
        self.tcp.sockets.open(id).map(Socket::remote)
    }

    /// A snapshot of the connection; `None` if the socket is gone.
    #[must_use]
    pub fn tcp_info(&self, id: SocketId) -> Option<TcpInfo> {
        self.tcp.sockets.open(id).map(Socket::info)
    }

    /// Whether a socket, closed or not, has bytes or the end of its stream under way that the peer
    /// has not acknowledged. A host that goes away before loses them. Looks at every connection.
    #[must_use]
    pub fn has_undelivered(&self) -> bool {
        !self.tcp.sockets.find_all(Socket::has_undelivered).is_empty()
    }

    fn end(&mut self, now: Instant, id: SocketId, abort: bool) {
        let now = self.advance(now);
        if self.tcp.sockets.open(id).is_none() {
            return;
        }
        if let Some(reset) = self.tcp.close(now, id.0, abort, &mut self.statistics.tcp) {
            self.answer(Control::Ip(IpControl::Tcp(reset)));
        }
    }
}
