use std::{
    io::{self, Read},
    net::{Ipv4Addr, SocketAddrV4},
    sync::Arc,
    time::Duration,
};

use sockets::{PollEvents, PollFlags, Poller, TcpListener, TcpStream, Trigger};

use super::{Copied, PeerNamespace, Receiver};
use crate::host::Host;

const PORT: u16 = 9000;

/// How long to wait for the sender, and for bytes.
const PATIENCE: Duration = Duration::from_secs(20);

/// A stack of ours, listening.
#[derive(Debug)]
pub struct StackReceiver {
    listener: TcpListener,
    host: Host,
}

impl StackReceiver {
    /// Listens at `address`, which is the host's.
    ///
    /// # Errors
    ///
    /// See [`TcpListener::bind`].
    pub fn listen(host: Host, address: Ipv4Addr) -> io::Result<Self> {
        let listener = TcpListener::bind(host.stack(), SocketAddrV4::new(address, PORT))?;
        Ok(Self { listener, host })
    }

    fn stream(&self) -> io::Result<TcpStream> {
        let (stream, _) = self.listener.accept_timeout(PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(stream)
    }
}

impl Receiver for StackReceiver {
    fn address(&self) -> SocketAddrV4 {
        self.listener.local_addr()
    }

    fn sender_namespace(&self) -> Option<Arc<PeerNamespace>> {
        None
    }

    fn accept(&self) -> io::Result<Box<dyn Read + '_>> {
        Ok(Box::new(self.stream()?))
    }

    fn copied(&self) -> Option<Copied> {
        let offload = self.host.stack().statistics().offload;
        Some(Copied {
            by_engine: offload.bytes_by_engine,
            by_cpu: offload.bytes_by_cpu_total(),
            engine_cpu: self.host.device().cpu_time().unwrap_or_default(),
        })
    }
}

/// The same, by a program with an event loop: it waits until the stream is readable, then reads, which
/// does not wait.
#[derive(Debug)]
pub struct ReadinessReceiver<'a>(pub &'a StackReceiver);

impl Receiver for ReadinessReceiver<'_> {
    fn address(&self) -> SocketAddrV4 {
        self.0.address()
    }

    fn sender_namespace(&self) -> Option<Arc<PeerNamespace>> {
        self.0.sender_namespace()
    }

    fn accept(&self) -> io::Result<Box<dyn Read + '_>> {
        let stream = self.0.stream()?;
        stream.set_nonblocking(true)?;
        let poller = Poller::new(self.0.host.stack());
        poller.add(&stream, 0, PollFlags::IN, Trigger::Level)?;
        Ok(Box::new(WhenReadable { stream, poller, events: PollEvents::with_capacity(1) }))
    }

    fn copied(&self) -> Option<Copied> {
        self.0.copied()
    }
}

#[derive(Debug)]
struct WhenReadable {
    stream: TcpStream,
    poller: Poller,
    events: PollEvents,
}

impl Read for WhenReadable {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            self.poller.wait(&mut self.events, Some(PATIENCE))?;
            if self.events.is_empty() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            match self.stream.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                outcome => return outcome,
            }
        }
    }
}
