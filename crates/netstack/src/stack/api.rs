//! What programs call.

use std::net::SocketAddrV4;

use crate::{
    ConnectError, ConnectState, ConnectionError, Instant, ListenError, ListenerId, PacketBuffer,
    ReceiveStatus, Segment, SendError, SocketId, Stack, TcpInfo,
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
        let _ = (address, backlog);
        unimplemented!()
    }

    /// The address that a listener listens on; `None` if it is closed.
    #[must_use]
    pub fn listener_address(&self, id: ListenerId) -> Option<SocketAddrV4> {
        let _ = id;
        unimplemented!()
    }

    /// The oldest connection that waits, with its peer; `None` if none does, or the listener is
    /// closed.
    pub fn accept(&mut self, id: ListenerId) -> Option<(SocketId, SocketAddrV4)> {
        let _ = id;
        unimplemented!()
    }

    /// Stops listening. Connections that nobody accepted are reset.
    pub fn close_listener(&mut self, now: Instant, id: ListenerId) {
        let _ = (now, id);
        unimplemented!()
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
        let _ = (now, remote);
        unimplemented!()
    }

    /// How far [`connect`](Self::connect) has come.
    #[must_use]
    pub fn connect_state(&self, id: SocketId) -> ConnectState {
        let _ = id;
        unimplemented!()
    }

    /// Copies as much of `data` into the send buffer as there is room for; returns how many bytes.
    /// That is 0 only if `data` is empty.
    ///
    /// # Errors
    ///
    /// See [`SendError`]; nothing was taken.
    pub fn send(&mut self, now: Instant, id: SocketId, data: &[u8]) -> Result<usize, SendError> {
        let _ = (now, id, data);
        unimplemented!()
    }

    /// How many bytes [`send`](Self::send) would take now; 0 if it would fail.
    #[must_use]
    pub fn send_space(&self, id: SocketId) -> usize {
        let _ = id;
        unimplemented!()
    }

    /// Bytes in order that [`take`](Self::take) has not handed out yet.
    #[must_use]
    pub fn receive_available(&self, id: SocketId) -> usize {
        let _ = id;
        unimplemented!()
    }

    /// Takes the next piece of the stream, of at most `max` bytes; `None` if there is nothing, or
    /// `max` is 0. The pieces are as the peer's segments came: call it again for more.
    ///
    /// The memory stays charged until [`release`](Self::release) gets [`Segment::charge`]. If `max`
    /// cuts a segment, the buffer is cloned and the charge comes with its last piece.
    pub fn take(&mut self, id: SocketId, max: usize) -> Option<Segment<B>> {
        let _ = (id, max);
        unimplemented!()
    }

    /// Gives back what [`take`](Self::take) charged, which opens the window, and announces it when
    /// that is worth a packet. Charges can be added up. Does nothing if the socket is gone.
    pub fn release(&mut self, now: Instant, id: SocketId, charge: usize) {
        let _ = (now, id, charge);
        unimplemented!()
    }

    /// What follows the bytes that can be taken.
    #[must_use]
    pub fn receive_status(&self, id: SocketId) -> ReceiveStatus {
        let _ = id;
        unimplemented!()
    }

    /// Closes the sending side: the peer gets everything that was sent, then the end of the stream.
    /// Receiving goes on. Shutting down twice does nothing.
    ///
    /// # Errors
    ///
    /// [`ConnectionError`] if there is no connection.
    pub fn shutdown(&mut self, now: Instant, id: SocketId) -> Result<(), ConnectionError> {
        let _ = (now, id);
        unimplemented!()
    }

    /// Closes the socket, whose id names nothing from here on. What was sent is still delivered,
    /// in the background. But if there are received bytes that nobody took, or more arrive later,
    /// the connection is reset, since the peer would otherwise think them read (RFC 2525 section
    /// 2.17). Does nothing if the socket is gone.
    pub fn close(&mut self, now: Instant, id: SocketId) {
        let _ = (now, id);
        unimplemented!()
    }

    /// Closes the socket, throws away what was not delivered yet, and resets the connection. Does
    /// nothing if the socket is gone.
    pub fn abort(&mut self, now: Instant, id: SocketId) {
        let _ = (now, id);
        unimplemented!()
    }

    /// Whether small segments are sent at once although earlier ones are not acknowledged
    /// (`TCP_NODELAY`); off at first, so Nagle's algorithm holds them back. Does nothing if the
    /// socket is gone.
    pub fn set_nodelay(&mut self, now: Instant, id: SocketId, nodelay: bool) {
        let _ = (now, id, nodelay);
        unimplemented!()
    }

    /// Whether [`set_nodelay`](Self::set_nodelay) is on.
    #[must_use]
    pub fn nodelay(&self, id: SocketId) -> bool {
        let _ = id;
        unimplemented!()
    }

    /// This end's address; `None` if the socket is gone.
    #[must_use]
    pub fn local_address(&self, id: SocketId) -> Option<SocketAddrV4> {
        let _ = id;
        unimplemented!()
    }

    /// The peer's address; `None` if the socket is gone.
    #[must_use]
    pub fn peer_address(&self, id: SocketId) -> Option<SocketAddrV4> {
        let _ = id;
        unimplemented!()
    }

    /// A snapshot of the connection; `None` if the socket is gone.
    #[must_use]
    pub fn tcp_info(&self, id: SocketId) -> Option<TcpInfo> {
        let _ = id;
        unimplemented!()
    }
}
