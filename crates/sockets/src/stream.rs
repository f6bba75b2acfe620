use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddrV4},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use dmaengine::{Target, lend};
use netstack::{ConnectState, Instant, PollFlags, ReceiveStatus, SendError, SocketId, TcpInfo};

use crate::{
    Stack,
    core::{Core, Key},
    driver::Call,
    errno::{self, Errno},
    poller::sealed,
};

/// A TCP connection, as [`std::net::TcpStream`].
///
/// `Read` and `Write` are implemented for references too, so that one thread can read while another
/// one writes. Two threads that read get their bytes one after the other.
#[derive(Debug)]
pub struct TcpStream {
    stack: Stack,
    id: SocketId,
    read_timeout: Timeout,
    write_timeout: Timeout,
    nonblocking: AtomicBool,
}

/// A timeout in nanoseconds, 0 for none.
#[derive(Debug, Default)]
struct Timeout(AtomicU64);

impl Timeout {
    fn set(&self, timeout: Option<Duration>) -> io::Result<()> {
        if timeout == Some(Duration::ZERO) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a timeout of zero would never wait: use None to wait for ever",
            ));
        }
        let nanos =
            timeout.map_or(0, |timeout| u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX));
        // Relaxed: it guards nothing else.
        self.0.store(nanos, Ordering::Relaxed);
        Ok(())
    }

    fn get(&self) -> Option<Duration> {
        // Relaxed: it guards nothing else.
        match self.0.load(Ordering::Relaxed) {
            0 => None,
            nanos => Some(Duration::from_nanos(nanos)),
        }
    }

    fn deadline(&self, now: Instant) -> Option<Instant> {
        self.get().map(|timeout| now + timeout)
    }
}

impl TcpStream {
    pub(crate) fn new(stack: Stack, id: SocketId) -> Self {
        Self {
            stack,
            id,
            read_timeout: Timeout::default(),
            write_timeout: Timeout::default(),
            nonblocking: AtomicBool::new(false),
        }
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
        // Relaxed: it guards nothing else.
        self.nonblocking.store(nonblocking, Ordering::Relaxed);
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

    /// How long a read waits before it fails with `WouldBlock`; `None` for ever.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for a timeout of zero.
    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.read_timeout.set(timeout)
    }

    /// How long a read waits.
    #[must_use]
    pub fn read_timeout(&self) -> Option<Duration> {
        self.read_timeout.get()
    }

    /// How long a write waits for room before it fails with `WouldBlock`; `None` for ever.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for a timeout of zero.
    pub fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.write_timeout.set(timeout)
    }

    /// How long a write waits.
    #[must_use]
    pub fn write_timeout(&self) -> Option<Duration> {
        self.write_timeout.get()
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

    fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        lend(buffer, |target| self.receive_into(target))
    }

    /// Receives into `target`. Returns only when no piece of it is out, or the engine is lost.
    fn receive_into(&self, target: Target) -> io::Result<usize> {
        let mut call = self.stack.call();
        let deadline = self.read_timeout.deadline(call.now());
        let nonblocking = self.is_nonblocking();
        if nonblocking {
            call.turn();
        }
        let key = Key::Socket(self.id);
        // Each call has its own state; one after the other on the same socket, so that each gets
        // contiguous bytes.
        while call.core().is_receiving(self.id) {
            if nonblocking || passed(deadline, call.now()) {
                return Err(Errno::AGAIN.into());
            }
            if call.take_interruption() {
                return Err(Errno::INTR.into());
            }
            call.wait(key, deadline);
        }
        let mut receive = Posted::new(call, self.id, target);
        let outcome = loop {
            let Some(progress) = receive.progress() else { break Err(not_connected()) };
            if progress.in_flight > 0 {
                if receive.call.core().offload.is_engine_lost() {
                    break Err(io::Error::other("the copy engine cannot be stopped"));
                }
                receive.call.wait_for_copies(key);
                continue;
            }
            if progress.taken > 0 {
                break Ok(progress.taken);
            }
            match receive.call.core().stack.receive_status(self.id) {
                ReceiveStatus::Open => {}
                ReceiveStatus::EndOfStream => break Ok(0),
                ReceiveStatus::Failed(error) => {
                    receive.call.core().stack.take_error(self.id);
                    break Err(errno::of_connection(error).into());
                }
            }
            if let Err(gone) = receive.call.core().check_link() {
                break Err(gone);
            }
            if nonblocking || passed(deadline, receive.call.now()) {
                break Err(Errno::AGAIN.into());
            }
            if receive.call.take_interruption() {
                break Err(Errno::INTR.into());
            }
            receive.call.wait(key, deadline);
        };
        drop(receive);
        outcome
    }

    fn is_nonblocking(&self) -> bool {
        // Relaxed: it guards nothing else.
        self.nonblocking.load(Ordering::Relaxed)
    }

    fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        let mut call = self.stack.call();
        let deadline = self.write_timeout.deadline(call.now());
        let nonblocking = self.is_nonblocking();
        let mut tried_again = false;
        loop {
            let now = call.now();
            match call.core().stack.send(now, self.id, bytes) {
                Ok(taken) => {
                    call.core().transmit(now);
                    return Ok(taken);
                }
                Err(SendError::WouldBlock) => {}
                Err(SendError::ShutDown) => return Err(Errno::PIPE.into()),
                Err(SendError::Connection(error)) => return Err(errno::of_connection(error).into()),
            }
            call.core().check_link()?;
            if nonblocking && !tried_again {
                // Acknowledgments may have arrived that nobody has looked at.
                tried_again = true;
                call.turn();
                continue;
            }
            if nonblocking || passed(deadline, now) {
                return Err(Errno::AGAIN.into());
            }
            if call.take_interruption() {
                return Err(Errno::INTR.into());
            }
            call.wait(Key::Socket(self.id), deadline);
        }
    }
}

impl Read for &TcpStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.receive(buffer)
    }
}

impl Read for TcpStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.receive(buffer)
    }
}

impl Write for &TcpStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.send(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Write for TcpStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.send(bytes)
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
        call.core().transmit(now);
    }
}

/// A receive call whose buffer is posted. Dropping it waits for the copies into the buffer, also
/// when the call unwinds.
struct Posted<'a> {
    call: Call<'a>,
    socket: SocketId,
    id: netdma::ReceiveId,
}

impl<'a> Posted<'a> {
    fn new(mut call: Call<'a>, socket: SocketId, target: Target) -> Self {
        let now = call.now();
        let id = call.core().post(now, socket, target);
        Self { call, socket, id }
    }

    fn progress(&mut self) -> Option<netdma::Progress> {
        self.call.core().offload.progress(self.id)
    }
}

impl Drop for Posted<'_> {
    fn drop(&mut self) {
        while self.call.core().withdraw(self.id).is_err() {
            if self.call.core().offload.is_engine_lost() {
                // Pieces of the buffer are out for good: `lend` ends the process.
                return;
            }
            self.call.wait_for_copies(Key::Socket(self.socket));
        }
        // The window may have opened.
        let now = self.call.now();
        self.call.core().transmit(now);
    }
}

fn passed(deadline: Option<Instant>, now: Instant) -> bool {
    deadline.is_some_and(|deadline| deadline <= now)
}

fn not_connected() -> io::Error {
    Errno::NOTCONN.into()
}
