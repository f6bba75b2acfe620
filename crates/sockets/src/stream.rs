use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddrV4},
    sync::Arc,
    time::Duration,
};

use netdma::{Copybreak, RecvFlags};
use netstack::{ConnectState, PollFlags, SocketId, TcpInfo};

use crate::{
    Stack,
    core::{Core, Key},
    errno::{self, Errno},
    poller::sealed,
};

mod recv;
mod send;
mod settings;

pub use send::SendFlags;
pub(crate) use settings::Settings;

/// A TCP connection, as [`std::net::TcpStream`].
///
/// `Read` and `Write` are implemented for references too, so that one thread can read while another
/// one writes. Two threads that read get their bytes one after the other, each from one place of the
/// stream.
///
/// What calls return, how many bytes and which error, is what Linux's do: the error numbers are in
/// [`io::Error::raw_os_error`]; a connection's error is told once, and then comes the end of the
/// stream.
#[derive(Debug)]
pub struct TcpStream {
    stack: Stack,
    id: SocketId,
    settings: Arc<Settings>,
}

impl TcpStream {
    pub(crate) fn new(stack: Stack, id: SocketId) -> Self {
        Self { stack, id, settings: Arc::default() }
    }

    pub(crate) const fn id(&self) -> SocketId {
        self.id
    }

    pub(crate) const fn settings(&self) -> &Arc<Settings> {
        &self.settings
    }

    /// Connects to `peer`, and waits until the connection is established.
    ///
    /// # Errors
    ///
    /// `ConnectionRefused`, `TimedOut`, `HostUnreachable`, `NetworkUnreachable`,
    /// `AddrNotAvailable`, as for the kernel's sockets.
    pub fn connect(stack: &Stack, peer: SocketAddrV4) -> io::Result<Self> {
        let id = {
            let mut call = stack.call();
            call.core().check_link()?;
            let now = call.now();
            let id = call.core().stack.connect(now, peer).map_err(errno::of_connect)?;
            call.core().transmit(now);
            id
        };
        // From here on the socket is closed when the stream is dropped, also on an error.
        let stream = Self::new(stack.clone(), id);
        let mut call = stack.call();
        let outcome = loop {
            match call.core().stack.connect_state(id) {
                ConnectState::Connected => break Ok(()),
                ConnectState::Failed(error) => break Err(errno::of_connection(error).into()),
                ConnectState::InProgress => {}
            }
            if let Err(gone) = call.core().check_link() {
                break Err(gone);
            }
            if call.take_interruption() {
                break Err(Errno::INTR.into());
            }
            call.wait(Key::Socket(id), None);
        };
        drop(call);
        outcome.map(|()| stream)
    }

    /// Begins to connect to `peer`, on a stream that is [non-blocking](Self::set_nonblocking). It is
    /// writable once that is over; [`take_error`](Self::take_error) then says how it went.
    ///
    /// # Errors
    ///
    /// `NetworkUnreachable`, `AddrNotAvailable`, as for the kernel's sockets. (`EINPROGRESS` is not
    /// an error here.)
    pub fn connect_nonblocking(stack: &Stack, peer: SocketAddrV4) -> io::Result<Self> {
        let mut call = stack.call();
        call.core().check_link()?;
        let now = call.now();
        let id = call.core().stack.connect(now, peer).map_err(errno::of_connect)?;
        call.core().transmit(now);
        let stream = Self::new(stack.clone(), id);
        stream.set_nonblocking(true)?;
        Ok(stream)
    }

    /// Whether calls fail with `WouldBlock` rather than wait (`O_NONBLOCK`). [`Poller`](crate::Poller)
    /// says when to call again.
    ///
    /// # Errors
    ///
    /// None, at present: the signature is [`std::net`]'s.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.settings.set_nonblocking(nonblocking);
        Ok(())
    }

    /// The connection's error, if it has failed and nobody was told yet (`SO_ERROR`).
    ///
    /// # Errors
    ///
    /// None, at present: the signature is [`std::net`]'s.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        let error = self.stack.call().core().stack.take_error(self.id);
        Ok(error.map(|error| errno::of_connection(error).into()))
    }

    /// What the stream is ready for now, as `poll(2)` would say.
    #[must_use]
    pub fn poll(&self) -> PollFlags {
        let mut call = self.stack.call();
        call.turn();
        call.core().poll(Key::Socket(self.id))
    }

    /// The stack that it belongs to.
    #[must_use]
    pub const fn stack(&self) -> &Stack {
        &self.stack
    }

    /// The peer's address.
    ///
    /// # Errors
    ///
    /// `NotConnected` once the connection is gone.
    pub fn peer_addr(&self) -> io::Result<SocketAddrV4> {
        self.stack.call().core().stack.peer_address(self.id).ok_or_else(not_connected)
    }

    /// This end's address.
    ///
    /// # Errors
    ///
    /// `NotConnected` once the connection is gone.
    pub fn local_addr(&self) -> io::Result<SocketAddrV4> {
        self.stack.call().core().stack.local_address(self.id).ok_or_else(not_connected)
    }

    /// A snapshot of the connection, as Linux's `TCP_INFO`.
    ///
    /// # Errors
    ///
    /// `NotConnected` once the connection is gone.
    pub fn tcp_info(&self) -> io::Result<TcpInfo> {
        self.stack.call().core().stack.tcp_info(self.id).ok_or_else(not_connected)
    }

    /// How long a read waits before it fails with `WouldBlock`; `None` for ever (`SO_RCVTIMEO`).
    ///
    /// # Errors
    ///
    /// `InvalidInput` for a timeout of zero.
    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.settings.read_timeout.set(timeout)
    }

    /// How long a read waits.
    #[must_use]
    pub fn read_timeout(&self) -> Option<Duration> {
        self.settings.read_timeout.get()
    }

    /// How long a write waits for room before it fails with `WouldBlock`; `None` for ever
    /// (`SO_SNDTIMEO`).
    ///
    /// # Errors
    ///
    /// `InvalidInput` for a timeout of zero.
    pub fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.settings.write_timeout.set(timeout)
    }

    /// How long a write waits.
    #[must_use]
    pub fn write_timeout(&self) -> Option<Duration> {
        self.settings.write_timeout.get()
    }

    /// Which reads of this stream are offloaded to the engine from now on; `None`: those that the
    /// [stack's](Stack::set_tcp_dma_copybreak) copybreak says, as at first.
    pub fn set_tcp_dma_copybreak(&self, copybreak: Option<Copybreak>) {
        *self.settings.copybreak.lock() = copybreak;
    }

    /// The copybreak of this stream, if it has one of its own.
    #[must_use]
    pub fn tcp_dma_copybreak(&self) -> Option<Copybreak> {
        *self.settings.copybreak.lock()
    }

    /// With how many bytes a read returns, and the stream is readable (`SO_RCVLOWAT`): 1 at first,
    /// half the receive buffer at most. As in Linux, a read that cannot wait takes fewer.
    pub fn set_rcvlowat(&self, bytes: usize) {
        let mut call = self.stack.call();
        call.core().stack.set_low_water(self.id, bytes);
        // It may be readable now.
        call.core().tell_pollers(Key::Socket(self.id), PollFlags::IN);
    }

    /// With how many bytes a read returns.
    #[must_use]
    pub fn rcvlowat(&self) -> usize {
        self.stack.call().core().stack.low_water(self.id)
    }

    /// Whether urgent bytes are read with the others, where they are in the stream (`SO_OOBINLINE`);
    /// off at first.
    pub fn set_out_of_band_inline(&self, inline: bool) {
        self.stack.call().core().stack.set_urgent_inline(self.id, inline);
    }

    /// Whether urgent bytes are read with the others.
    #[must_use]
    pub fn out_of_band_inline(&self) -> bool {
        self.stack.call().core().stack.urgent_inline(self.id)
    }

    /// Switches Nagle's algorithm off or on (`TCP_NODELAY`).
    ///
    /// # Errors
    ///
    /// `NotConnected` once the connection is gone.
    pub fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        let mut call = self.stack.call();
        let now = call.now();
        call.core().stack.local_address(self.id).ok_or_else(not_connected)?;
        call.core().stack.set_nodelay(now, self.id, nodelay);
        call.core().transmit(now);
        Ok(())
    }

    /// Ends one or both directions. What was written before is still delivered.
    ///
    /// # Errors
    ///
    /// `NotConnected` once the connection is gone.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        let mut call = self.stack.call();
        let now = call.now();
        let Core { stack, .. } = call.core();
        // Both, also if the connection is gone: later calls find this end shut down.
        let receive = (how != Shutdown::Write).then(|| stack.shutdown_receive(self.id));
        let send = (how != Shutdown::Read).then(|| stack.shutdown(now, self.id));
        call.core().transmit(now);
        // Readers and writers that wait see it.
        let key = Key::Socket(self.id);
        call.core().wake(key);
        call.core().tell_pollers(key, PollFlags::all());
        receive.into_iter().chain(send).collect::<Result<_, _>>().map_err(|_gone| not_connected())
    }

    /// Closes at once, throws away what was not delivered, and resets the connection (`SO_LINGER`
    /// with a time of 0).
    pub fn abort(self) {
        let mut call = self.stack.call();
        let now = call.now();
        call.core().stack.abort(now, self.id);
        call.core().transmit(now);
    }
}

impl Read for &TcpStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // As read(2), and unlike recv(2).
        if buffer.is_empty() {
            return Ok(0);
        }
        self.recv(buffer, RecvFlags::empty())
    }
}

impl Read for TcpStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (&*self).read(buffer)
    }
}

impl Write for &TcpStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.send(bytes, SendFlags::empty())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Write for TcpStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&*self).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl sealed::Pollable for TcpStream {
    fn source(&self) -> sealed::Source<'_> {
        sealed::Source { stack: &self.stack, key: Key::Socket(self.id) }
    }
}

impl Drop for TcpStream {
    fn drop(&mut self) {
        let mut call = self.stack.call();
        let now = call.now();
        call.core().stack.close(now, self.id);
        call.core().forget(Key::Socket(self.id));
        // Receives that are still posted come back.
        call.core().wake(Key::Socket(self.id));
        call.core().transmit(now);
    }
}

fn not_connected() -> io::Error {
    Errno::NOTCONN.into()
}
