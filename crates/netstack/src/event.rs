bitflags::bitflags! {
    /// What has changed at a socket.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct Readiness: u8 {
        /// The connection that [`connect`](crate::Stack::connect) asked for is established.
        const CONNECTED = 1 << 0;
        /// More bytes can be [taken](crate::Stack::take).
        const READABLE = 1 << 1;
        /// There is room again after a [`send`](crate::Stack::send) that could not take everything.
        const WRITABLE = 1 << 2;
        /// The peer has sent everything it had to: after the queued bytes comes the end.
        const PEER_CLOSED = 1 << 3;
        /// The connection has failed; [`receive_status`](crate::Stack::receive_status) says why.
        const ERROR = 1 << 4;
        /// The connection is over in both directions, whether in order or by an error.
        const CLOSED = 1 << 5;
    }
}

/// Something that a program may wait for has happened. Events are hints to look: any number of
/// changes between two polls is one event per socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A connection waits for [`accept`](crate::Stack::accept).
    Acceptable(ListenerId),
    /// A socket has changed.
    Socket {
        /// Which.
        id: SocketId,
        /// All that has changed since its last event.
        ready: Readiness,
    },
}

/// Names a TCP socket. An id is never used again: one that outlives its socket names nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SocketId(pub(crate) Key);

/// Names a listener. An id is never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ListenerId(pub(crate) Key);

use crate::slab::Key;
