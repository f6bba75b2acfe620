//! The baseline: the kernel receives from itself, over a veth pair.

use std::{
    io::{self, Read},
    net::{Ipv4Addr, SocketAddrV4, TcpListener},
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    NamespaceError, Pattern, PeerNamespace, Sender, SenderConfig, SenderError, thread_cpu_time,
};
use crate::netlink::{Netlink, NetlinkError};

const RECEIVER: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 1);
const SENDER: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 2);
const PREFIX_LEN: u8 = 24;
const RECEIVER_LINK: &str = "veth0";
const SENDER_LINK: &str = "veth1";

/// How long the receiver waits for bytes before it gives up.
const PATIENCE: Duration = Duration::from_secs(20);

/// How one transfer went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measured {
    /// Bytes received.
    pub bytes: u64,
    /// From the accepted connection to the end of the stream.
    pub elapsed: Duration,
    /// CPU time of the receiving thread in that span.
    pub receiver_cpu_time: Duration,
    /// CPU time of the sending thread.
    pub sender_cpu_time: Duration,
}

/// Why there is no baseline.
#[derive(Debug, thiserror::Error)]
pub enum VethError {
    /// There is no second namespace.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    /// The links could not be made or set up.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// The sender failed.
    #[error(transparent)]
    Sender(#[from] SenderError),
    /// The receiving socket failed.
    #[error("receiving over veth failed: {0}")]
    Receive(#[source] io::Error),
    /// The stream ended early, or went on.
    #[error("{received} bytes came over veth, and {sent} were sent")]
    Length {
        /// Bytes received.
        received: u64,
        /// Bytes sent.
        sent: u64,
    },
    /// A byte is wrong.
    #[error("the byte at offset {offset} is wrong after veth")]
    WrongByte {
        /// Its offset in the stream.
        offset: u64,
    },
}

/// Two namespaces joined by a veth pair: the calling thread's, which receives, and a new one, which
/// sends.
#[derive(Debug)]
pub struct VethBaseline {
    peer: Arc<PeerNamespace>,
    link: u32,
}

impl VethBaseline {
    /// Makes the second namespace and the links.
    ///
    /// # Errors
    ///
    /// See [`VethError`].
    pub fn new() -> Result<Self, VethError> {
        let peer = Arc::new(PeerNamespace::new()?);
        let mut netlink = Netlink::open()?;
        netlink.add_veth(RECEIVER_LINK, SENDER_LINK, &*peer)?;
        // From here on dropping it removes both ends.
        let link = netlink.link(RECEIVER_LINK)?.index;
        let baseline = Self { peer, link };
        netlink.add_address(link, RECEIVER, PREFIX_LEN)?;
        netlink.set_up(link)?;
        baseline.peer.run(|| {
            let mut netlink = Netlink::open()?;
            let link = netlink.link(SENDER_LINK)?.index;
            netlink.add_address(link, SENDER, PREFIX_LEN)?;
            netlink.set_up(link)
        })??;
        Ok(baseline)
    }

    /// Transfers `bytes` with reads of up to `read_len` bytes, in the calling thread, and calls
    /// `progress` with the bytes received so far after each read. Nothing looks at the content.
    ///
    /// # Errors
    ///
    /// See [`VethError`].
    pub fn measure(
        &self,
        bytes: u64,
        read_len: usize,
        mut progress: impl FnMut(u64),
    ) -> Result<Measured, VethError> {
        self.transfer(bytes, read_len, false, |received, _| {
            progress(received);
            Ok(())
        })
    }

    /// Transfers `bytes` as [`measure`](Self::measure) does, and checks each.
    ///
    /// # Errors
    ///
    /// See [`VethError`].
    pub fn verify(
        &self,
        bytes: u64,
        read_len: usize,
        mut progress: impl FnMut(u64),
    ) -> Result<(), VethError> {
        self.transfer(bytes, read_len, true, |received, content| {
            progress(received);
            let at = received - content.len() as u64;
            PATTERN
                .first_wrong(at, content)
                .map_or(Ok(()), |offset| Err(VethError::WrongByte { offset }))
        })
        .map(drop)
    }

    fn transfer(
        &self,
        bytes: u64,
        read_len: usize,
        unique: bool,
        mut each: impl FnMut(u64, &[u8]) -> Result<(), VethError>,
    ) -> Result<Measured, VethError> {
        let listener = TcpListener::bind((RECEIVER, 0)).map_err(VethError::Receive)?;
        let port = listener.local_addr().map_err(VethError::Receive)?.port();
        let sender = Sender::start(SenderConfig {
            to: SocketAddrV4::new(RECEIVER, port),
            bytes,
            pattern: PATTERN,
            unique,
            namespace: Some(Arc::clone(&self.peer)),
            cpu: None,
        })?;
        let mut stream = match accept(&listener) {
            Ok(stream) => stream,
            // Why nobody came is what the sender knows.
            Err(error) => {
                return Err(sender.join().err().map_or(VethError::Receive(error), Into::into));
            }
        };
        let mut buffer = vec![0; read_len];
        let mut received = 0;
        let cpu_start = thread_cpu_time();
        let start = Instant::now();
        loop {
            match stream.read(&mut buffer).map_err(VethError::Receive)? {
                0 => break,
                len => {
                    received += len as u64;
                    each(received, &buffer[..len])?;
                }
            }
        }
        let elapsed = start.elapsed();
        let receiver_cpu_time = thread_cpu_time() - cpu_start;
        let sent = sender.join()?;
        if received != sent.bytes {
            return Err(VethError::Length { received, sent: sent.bytes });
        }
        let sender_cpu_time = sent.cpu_time;
        Ok(Measured { bytes: received, elapsed, receiver_cpu_time, sender_cpu_time })
    }
}

impl Drop for VethBaseline {
    fn drop(&mut self) {
        // If it fails the links go with the process.
        let _ = Netlink::open().and_then(|mut netlink| netlink.delete(self.link));
    }
}

const PATTERN: Pattern = Pattern::new(0x10a7);

/// Accepts one connection in time.
fn accept(listener: &TcpListener) -> io::Result<std::net::TcpStream> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let timeout = Timespec::try_from(PATIENCE).map_err(io::Error::other)?;
    if poll(&mut [PollFd::new(listener, PollFlags::IN)], Some(&timeout))? == 0 {
        return Err(io::ErrorKind::TimedOut.into());
    }
    let (stream, _) = listener.accept()?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}
