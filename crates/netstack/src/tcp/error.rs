use std::net::SocketAddrV4;

/// Why a connection is no more, or never was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ConnectionError {
    /// The peer answered the SYN with a reset, or with an ICMP port or protocol unreachable
    /// (`ECONNREFUSED`).
    #[error("connection refused: nothing listens on that port of the peer")]
    Refused,
    /// The peer reset the connection (`ECONNRESET`).
    #[error("connection reset by the peer")]
    Reset,
    /// The peer reset the connection after it had ended its stream (`EPIPE`).
    #[error("connection reset by the peer, which has sent everything: read what has arrived")]
    BrokenPipe,
    /// The peer has not answered for too long (`ETIMEDOUT`).
    #[error("connection timed out: the peer does not answer")]
    TimedOut,
    /// A router, or the lack of any ARP answer, says that the peer cannot be reached
    /// (`EHOSTUNREACH`).
    #[error("the peer cannot be reached: check its address and the route to it")]
    HostUnreachable,
    /// The id names no open socket: it was closed, or never existed (`EBADF`).
    #[error("no such socket: it has been closed")]
    NotOpen,
}

/// Why [`listen`](crate::Stack::listen) failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ListenError {
    /// Another listener has this port (`EADDRINUSE`).
    #[error("port {0} is in use: close its listener, or take another port")]
    AddressInUse(u16),
    /// The address is not this host's (`EADDRNOTAVAIL`).
    #[error("{0} is not an address of this host: use its own address or 0.0.0.0")]
    AddressNotAvailable(SocketAddrV4),
    /// Every ephemeral port is in use.
    #[error("no port is free: close some listeners")]
    PortsExhausted,
}

/// Why [`connect`](crate::Stack::connect) failed at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ConnectError {
    /// The address cannot be a peer's: a group, port 0, or this host itself.
    #[error("{0} cannot be connected to: use another host's unicast address and a port above 0")]
    AddressNotAvailable(SocketAddrV4),
    /// The peer is in another network and there is no gateway (`ENETUNREACH`).
    #[error("there is no route to {0}: configure a gateway")]
    NetworkUnreachable(SocketAddrV4),
    /// Every ephemeral port is connected to this peer already (`EADDRNOTAVAIL`).
    #[error("every local port is connected to {0} already: close some connections")]
    PortsExhausted(SocketAddrV4),
}

/// Why [`send`](crate::Stack::send) took nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum SendError {
    /// The send buffer is full, or the connection not yet established (`EAGAIN`). An event with
    /// [`WRITABLE`](crate::Readiness::WRITABLE) or [`CONNECTED`](crate::Readiness::CONNECTED) says
    /// when to try again.
    #[error("no room: wait until the socket is writable")]
    WouldBlock,
    /// This end has been shut down (`EPIPE`).
    #[error("the socket is shut down for sending")]
    ShutDown,
    /// There is no connection.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
}

/// How far [`connect`](crate::Stack::connect) has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConnectState {
    /// The handshake is under way.
    InProgress,
    /// The connection is, or has been, established.
    Connected,
    /// It failed.
    Failed(ConnectionError),
}

/// Why there is no urgent byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum UrgentError {
    /// None was announced, it was read already, or it is read inline (`EINVAL`).
    #[error("no urgent data: none has come, or it is read with the stream")]
    Nothing,
    /// It was announced and is under way (`EAGAIN`).
    #[error("urgent data is under way: wait until the socket has POLLPRI")]
    NotArrived,
    /// The connection is gone (`ENOTCONN`).
    #[error("the connection is gone")]
    NotConnected,
}

/// What follows the bytes that can be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReceiveStatus {
    /// More may come.
    Open,
    /// The peer has sent its last byte, or nothing more is received: this end has been shut down
    /// for receiving, or the connection is gone and its error was [taken](crate::Stack::take_error).
    EndOfStream,
    /// The connection has failed. Bytes that arrived before that can still be taken.
    Failed(ConnectionError),
}
