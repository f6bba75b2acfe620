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
        /// The peer has announced urgent data, or it has arrived: `SIGURG`.
        const URGENT = 1 << 6;
    }
}

bitflags::bitflags! {
    /// What a socket is ready for, with the meaning and the values of `epoll`'s events: see
    /// [`poll`](crate::Stack::poll).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct PollFlags: u32 {
        /// A receive call would not wait: at least as many bytes as the low-water mark says are
        /// there, or their end, or a connection to accept (`EPOLLIN`).
        const IN = 0x001;
        /// The urgent byte is there (`EPOLLPRI`).
        const PRI = 0x002;
        /// A third of the send buffer is free, or a send call would fail at once (`EPOLLOUT`).
        const OUT = 0x004;
        /// The connection has failed, and nobody has taken the error (`EPOLLERR`).
        const ERR = 0x008;
        /// Both directions are over (`EPOLLHUP`).
        const HUP = 0x010;
        /// Nothing more will be received (`EPOLLRDHUP`).
        const RDHUP = 0x2000;
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
