//! What a socket is ready for.

use crate::{ListenerId, PacketBuffer, PollFlags, SocketId, Stack, tcp::Phase};

impl<B: PacketBuffer> Stack<B> {
    /// What a socket is ready for now, as Linux's `tcp_poll` says it; nothing if it is closed. A
    /// program that finds it not ready to send gets an event with
    /// [`WRITABLE`](crate::Readiness::WRITABLE) when that changes.
    pub fn poll(&mut self, id: SocketId) -> PollFlags {
        let mut flags = PollFlags::empty();
        let limit = self.config.tcp.receive_buffer - self.config.tcp.receive_buffer / 8;
        let Some(socket) = self.tcp.sockets.open_mut(id) else { return flags };
        let receive_shut_down = socket.is_receive_shut_down();
        let send_shut_down = socket.shut_down || socket.is_closed();
        flags.set(PollFlags::HUP, receive_shut_down && send_shut_down);
        flags.set(PollFlags::IN | PollFlags::RDHUP, receive_shut_down);
        flags.set(PollFlags::ERR, socket.error.is_some());
        if matches!(socket.phase, Phase::SynSent(_) | Phase::SynReceived(_)) {
            return flags;
        }

        let queue = &socket.queue;
        // An urgent byte that is left out is nothing to read.
        let hole = usize::from(queue.is_at_mark() && !queue.urgent_inline);
        let available = queue.available();
        // However high the low-water mark: what cannot grow must be read.
        let full = socket.charged() > limit
            || socket.connection().is_some_and(|connection| {
                let receiver = connection.receiver();
                receiver.window() <= receiver.mss()
            });
        let readable = available > 0 && (available >= socket.low_water + hole || full);
        flags.set(PollFlags::IN, receive_shut_down || readable);
        flags.set(PollFlags::PRI, queue.urgent().is_some_and(|mark| mark.byte().is_some()));

        let writable = send_shut_down || socket.is_worth_sending();
        flags.set(PollFlags::OUT, writable);
        socket.wants_space |= !writable;
        flags
    }

    /// What a listener is ready for: a connection to accept.
    #[must_use]
    pub fn poll_listener(&self, id: ListenerId) -> PollFlags {
        let waits = self.tcp.listeners.get(id.0).is_some_and(|listener| listener.has_waiting());
        if waits { PollFlags::IN } else { PollFlags::empty() }
    }

    /// Sets how many bytes must be there for a socket to be readable, and for a receive call to
    /// return (`SO_RCVLOWAT`): at least 1, and at most limit the receive buffer.
    pub fn set_low_water(&mut self, id: SocketId, bytes: usize) {
        let most = self.config.tcp.receive_buffer / 2;
        if let Some(socket) = self.tcp.sockets.open_mut(id) {
            socket.low_water = bytes.clamp(1, most);
        }
    }

    /// The low-water mark: 1 at first.
    #[must_use]
    pub fn low_water(&self, id: SocketId) -> usize {
        self.tcp.sockets.open(id).map_or(1, |socket| socket.low_water)
    }
}
