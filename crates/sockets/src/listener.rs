use std::{
    io,
    net::SocketAddrV4,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use netstack::ListenerId;

use crate::{
    Stack, TcpStream,
    core::Key,
    errno::{self, Errno},
    poller::sealed,
};

/// Connections that wait for `accept`, as Linux's `SOMAXCONN` has it since 5.4.
const BACKLOG: usize = 4096;

/// A TCP socket that listens, as [`std::net::TcpListener`].
#[derive(Debug)]
pub struct TcpListener {
    stack: Stack,
    id: ListenerId,
    address: SocketAddrV4,
    nonblocking: AtomicBool,
}

impl TcpListener {
    /// Listens at `address`; port 0 asks for a free one.
    ///
    /// # Errors
    ///
    /// `AddrInUse` if another listener has the port, `AddrNotAvailable` if the address is not the
    /// stack's.
    pub fn bind(stack: &Stack, address: SocketAddrV4) -> io::Result<Self> {
        let mut call = stack.call();
        call.core().check_link()?;
        let id = call.core().stack.listen(address, BACKLOG).map_err(errno::of_listen)?;
        let address = call.core().stack.listener_address(id).unwrap_or(address);
        drop(call);
        Ok(Self { stack: stack.clone(), id, address, nonblocking: AtomicBool::new(false) })
    }

    /// Where it listens.
    #[must_use]
    pub const fn local_addr(&self) -> SocketAddrV4 {
        self.address
    }

    /// Whether [`accept`](Self::accept) fails with `WouldBlock` rather than wait.
    ///
    /// # Errors
    ///
    /// None, at present: the signature is [`std::net`]'s.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        // Relaxed: it guards nothing else.
        self.nonblocking.store(nonblocking, Ordering::Relaxed);
        Ok(())
    }

    /// Waits for a connection.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if there is none and the listener is
    /// [non-blocking](Self::set_nonblocking), `Interrupted` if the thread's
    /// [`Interrupter`](crate::Interrupter) said so, `NetworkDown` if the link is gone.
    pub fn accept(&self) -> io::Result<(TcpStream, SocketAddrV4)> {
        self.accept_until(None)
    }

    /// Waits for a connection, for at most `timeout`.
    ///
    /// # Errors
    ///
    /// `TimedOut` if none came; otherwise as for [`accept`](Self::accept).
    pub fn accept_timeout(&self, timeout: Duration) -> io::Result<(TcpStream, SocketAddrV4)> {
        self.accept_until(Some(timeout))
    }

    fn accept_until(&self, timeout: Option<Duration>) -> io::Result<(TcpStream, SocketAddrV4)> {
        let mut call = self.stack.call();
        let deadline = timeout.map(|timeout| call.now() + timeout);
        // Relaxed: it guards nothing else.
        let nonblocking = self.nonblocking.load(Ordering::Relaxed);
        if nonblocking {
            call.turn();
        }
        loop {
            if let Some((id, peer)) = call.core().stack.accept(self.id) {
                drop(call);
                return Ok((TcpStream::new(self.stack.clone(), id), peer));
            }
            call.core().check_link()?;
            if nonblocking {
                return Err(Errno::AGAIN.into());
            }
            if deadline.is_some_and(|deadline| deadline <= call.now()) {
                return Err(io::ErrorKind::TimedOut.into());
            }
            if call.take_interruption() {
                return Err(Errno::INTR.into());
            }
            call.wait(Key::Listener(self.id), deadline);
        }
    }

    /// The connections, one `accept` after the other.
    #[must_use]
    pub const fn incoming(&self) -> Incoming<'_> {
        Incoming { listener: self }
    }
}

impl sealed::Pollable for TcpListener {
    fn source(&self) -> sealed::Source<'_> {
        sealed::Source { stack: &self.stack, key: Key::Listener(self.id) }
    }
}

impl Drop for TcpListener {
    fn drop(&mut self) {
        let mut call = self.stack.call();
        let now = call.now();
        call.core().stack.close_listener(now, self.id);
        call.core().forget(Key::Listener(self.id));
        call.core().transmit(now);
    }
}

/// The iterator of [`TcpListener::incoming`]. It never ends.
#[derive(Debug)]
pub struct Incoming<'a> {
    listener: &'a TcpListener,
}

impl Iterator for Incoming<'_> {
    type Item = io::Result<TcpStream>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(self.listener.accept().map(|(stream, _peer)| stream))
    }
}
