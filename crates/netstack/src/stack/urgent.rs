//! Urgent data: RFC 9293 section 3.8.5 with RFC 6093, as Linux has it.

use crate::{Instant, PacketBuffer, SendError, SocketId, Stack, UrgentError};

impl<B: PacketBuffer> Stack<B> {
    /// As [`send`](Self::send), and marks the last byte that was taken as urgent (`MSG_OOB`).
    ///
    /// # Errors
    ///
    /// As for [`send`](Self::send).
    pub fn send_urgent(
        &mut self,
        now: Instant,
        id: SocketId,
        data: &[u8],
    ) -> Result<usize, SendError> {
        self.send_with(now, id, data, true)
    }

    /// Takes the urgent byte out of band, or only looks at it; `None` if the stream has ended and
    /// none will come. Bytes before it in the stream need not have been taken.
    ///
    /// # Errors
    ///
    /// See [`UrgentError`].
    pub fn receive_urgent(&mut self, id: SocketId, peek: bool) -> Result<Option<u8>, UrgentError> {
        let socket = self.tcp.sockets.open_mut(id).ok_or(UrgentError::NotConnected)?;
        let (closed, shut_down) = (socket.is_closed(), socket.is_receive_shut_down());
        let (inline, ended) = (socket.queue.urgent_inline, socket.peer_closed);
        let mark = socket.queue.urgent_mut().filter(|mark| !inline && !mark.is_read());
        let mark = mark.ok_or(UrgentError::Nothing)?;
        if closed && !ended {
            return Err(UrgentError::NotConnected);
        }
        match mark.byte() {
            Some(byte) => {
                if !peek {
                    mark.set_read();
                }
                Ok(Some(byte))
            }
            None if shut_down => Ok(None),
            None => Err(UrgentError::NotArrived),
        }
    }

    /// Whether the next byte to take is the urgent one: `SIOCATMARK`. A receive call that has taken
    /// bytes must stop here.
    #[must_use]
    pub fn is_at_mark(&self, id: SocketId) -> bool {
        self.tcp.sockets.open(id).is_some_and(|socket| socket.queue.is_at_mark())
    }

    /// How far ahead the urgent byte is, if it is: a receive call takes so many bytes at most.
    #[must_use]
    pub fn bytes_until_mark(&self, id: SocketId) -> Option<usize> {
        self.tcp.sockets.open(id)?.queue.until_mark()
    }

    /// Bytes that receive calls would give before they come to the urgent mark: `SIOCINQ`, also
    /// called `FIONREAD`.
    #[must_use]
    pub fn bytes_to_mark(&self, id: SocketId) -> usize {
        let Some(socket) = self.tcp.sockets.open(id) else { return 0 };
        let queue = &socket.queue;
        let ahead = queue.until_mark().filter(|_| !queue.urgent_inline);
        let at_mark = queue.is_at_mark() && !queue.urgent_inline && queue.available() > 0;
        if at_mark { 0 } else { queue.available().min(ahead.unwrap_or(usize::MAX)) }
    }

    /// Whether urgent bytes are read with the others (`SO_OOBINLINE`); off at first.
    pub fn set_urgent_inline(&mut self, id: SocketId, inline: bool) {
        if let Some(socket) = self.tcp.sockets.open_mut(id) {
            socket.queue.urgent_inline = inline;
        }
    }

    /// Whether [`set_urgent_inline`](Self::set_urgent_inline) is on.
    #[must_use]
    pub fn urgent_inline(&self, id: SocketId) -> bool {
        self.tcp.sockets.open(id).is_some_and(|socket| socket.queue.urgent_inline)
    }
}
