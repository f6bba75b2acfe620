use std::{
    io::{self, Read},
    net::{Ipv4Addr, SocketAddrV4},
    sync::Arc,
    time::Duration,
};

use netdma::Counters;
use sockets::{
    Policy, PollEvents, PollFlags, Poller, ReceiveRing, Received, TcpListener, TcpStream, Trigger,
};

use super::{Copied, Mode, PeerNamespace, Receiver};
use crate::{
    host::Host,
    measure::{Pieces, Reads},
};

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

    /// What the stack's policy `auto` knows.
    #[must_use]
    pub fn policy(&self) -> Policy {
        self.host.stack().policy()
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

    fn accept<'a>(&'a self, buffer: &'a mut [u8]) -> io::Result<Box<dyn Pieces + 'a>> {
        Ok(Box::new(Reads { stream: self.stream()?, buffer }))
    }

    fn copied(&self) -> Option<Copied> {
        let offload = self.host.stack().statistics().offload;
        Some(Copied {
            by_engine: offload.bytes_by_engine,
            by_cpu: offload.bytes_by_cpu_total(),
            engine_cpu: self.host.device().cpu_time().unwrap_or_default(),
        })
    }

    fn counters(&self) -> Option<Counters> {
        Some(self.host.stack().statistics().offload)
    }
}

/// A program that receives in a way of its own.
#[derive(Debug)]
pub struct Program<'a> {
    /// Its stack.
    pub receiver: &'a StackReceiver,
    /// The way.
    pub mode: Mode,
}

impl Program<'_> {
    /// The buffers of `len` bytes that are posted: as many as make 2 MiB, so that a thread that sleeps
    /// until they are full is woken seldom, but at least 4 and at most 64.
    #[must_use]
    pub fn posted(len: usize) -> usize {
        ((2 << 20) / len.max(1)).clamp(4, 64)
    }
}

impl Receiver for Program<'_> {
    fn address(&self) -> SocketAddrV4 {
        self.receiver.address()
    }

    fn sender_namespace(&self) -> Option<Arc<PeerNamespace>> {
        self.receiver.sender_namespace()
    }

    fn accept<'a>(&'a self, buffer: &'a mut [u8]) -> io::Result<Box<dyn Pieces + 'a>> {
        match self.mode {
            Mode::Blocking => self.receiver.accept(buffer),
            Mode::Nonblocking => {
                let stream = self.receiver.stream()?;
                stream.set_nonblocking(true)?;
                let poller = Poller::new(self.receiver.host.stack());
                poller.add(&stream, 0, PollFlags::IN, Trigger::Level)?;
                let events = PollEvents::with_capacity(1);
                Ok(Box::new(Reads { stream: WhenReadable { stream, poller, events }, buffer }))
            }
            Mode::Posted => {
                let stream = self.receiver.stream()?;
                let mut ring = ReceiveRing::new(&stream);
                for _ in 0..Self::posted(buffer.len()) {
                    let buffer = self.receiver.host.buffer(buffer.len());
                    ring.post(buffer.map_err(io::Error::other)?);
                }
                Ok(Box::new(Posted { ring, _stream: stream }))
            }
        }
    }

    fn copied(&self) -> Option<Copied> {
        self.receiver.copied()
    }

    fn counters(&self) -> Option<Counters> {
        self.receiver.counters()
    }
}

/// Reads do not wait: the waiting is done before.
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

/// Buffers that go round.
#[derive(Debug)]
struct Posted {
    ring: ReceiveRing,
    _stream: TcpStream,
}

impl Pieces for Posted {
    fn next(&mut self, each: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<bool> {
        let Some(Received { buffer, result }) = self.ring.wait(Some(PATIENCE))? else {
            return Ok(false);
        };
        let len = result?;
        if len == 0 {
            return Ok(false);
        }
        each(&buffer[..len])?;
        self.ring.post(buffer);
        Ok(true)
    }
}
