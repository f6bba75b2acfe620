//! The kernel's TCP as a sender.

use std::{
    io::{self, Write},
    net::{SocketAddr, SocketAddrV4, TcpStream},
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use rustix::net::sockopt::set_tcp_congestion;

use super::{NamespaceError, Pattern, PeerNamespace, pin_to_cpu, thread_cpu_time};

/// Bytes of one `write`: large enough that the call itself does not count, and the buffer stays in
/// the second-level cache.
const WRITE_LEN: usize = 256 << 10;

/// How long to wait for the connection, and for room in the socket, before giving up.
const PATIENCE: Duration = Duration::from_secs(20);

/// What to send, and where.
#[derive(Clone, Debug)]
pub struct SenderConfig {
    /// The receiver, which must be listening.
    pub to: SocketAddrV4,
    /// How many bytes.
    pub bytes: u64,
    /// What the stream consists of.
    pub pattern: Pattern,
    /// Whether the whole stream is the pattern, so that every byte can be checked; this costs the
    /// sender's CPU time. Otherwise the first 256 KiB of it are repeated, at no cost.
    pub unique: bool,
    /// The namespace to send from; the process's own if `None`.
    pub namespace: Option<Arc<PeerNamespace>>,
    /// The CPU to run on; any if `None`.
    pub cpu: Option<usize>,
}

/// What was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Bytes accepted by the socket: all that were asked for.
    pub bytes: u64,
    /// CPU time of the sending thread.
    pub cpu_time: Duration,
}

/// Why not everything was sent.
#[derive(Debug, thiserror::Error)]
pub enum SenderError {
    /// There is no thread to send on.
    #[error("starting the sender's thread failed: {0}")]
    Thread(#[source] io::Error),
    /// The namespace could not be entered.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    /// The thread could not be pinned.
    #[error("the sender cannot run on CPU {cpu}: {source}")]
    Cpu {
        /// The CPU asked for.
        cpu: usize,
        /// What the system said.
        source: io::Error,
    },
    /// No connection.
    #[error("the kernel cannot connect to {to}: {source}")]
    Connect {
        /// The receiver.
        to: SocketAddrV4,
        /// What the system said.
        source: io::Error,
    },
    /// The connection broke, or the receiver took nothing for twenty seconds.
    #[error("sending to {to} stopped after {bytes} bytes: {source}")]
    Send {
        /// The receiver.
        to: SocketAddrV4,
        /// What the socket had accepted until then.
        bytes: u64,
        /// What the system said.
        source: io::Error,
    },
}

/// A thread that sends through a kernel socket as fast as it can, then closes the connection. Buffer
/// sizes tune themselves. Congestion control is CUBIC, Linux's own default, or Reno: BBR, which some
/// systems prefer, paces with timers that run where the ACK arrived, and that is the CPU of the
/// receiver under test.
#[derive(Debug)]
#[must_use = "join it to learn whether everything was sent"]
pub struct Sender {
    thread: JoinHandle<Result<Sent, SenderError>>,
}

impl Sender {
    /// Starts sending.
    ///
    /// # Errors
    ///
    /// [`SenderError::Thread`]; other errors come from [`join`](Self::join).
    pub fn start(config: SenderConfig) -> Result<Self, SenderError> {
        let thread = thread::Builder::new()
            .name("ioat-sender".to_owned())
            .spawn(move || run(&config))
            .map_err(SenderError::Thread)?;
        Ok(Self { thread })
    }

    /// Waits until everything was sent.
    ///
    /// # Errors
    ///
    /// See [`SenderError`].
    pub fn join(self) -> Result<Sent, SenderError> {
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

fn run(config: &SenderConfig) -> Result<Sent, SenderError> {
    let SenderConfig { to, bytes, pattern, unique, ref namespace, cpu } = *config;
    if let Some(namespace) = namespace {
        namespace.enter_thread()?;
    }
    if let Some(cpu) = cpu {
        pin_to_cpu(cpu).map_err(|source| SenderError::Cpu { cpu, source })?;
    }
    let mut stream = connect(to).map_err(|source| SenderError::Connect { to, source })?;
    let mut buffer = vec![0; WRITE_LEN];
    pattern.fill(0, &mut buffer);
    let mut sent = 0;
    while sent < bytes {
        let len = WRITE_LEN.min(usize::try_from(bytes - sent).unwrap_or(WRITE_LEN));
        if unique {
            pattern.fill(sent, &mut buffer[..len]);
        }
        let written = stream.write_all(&buffer[..len]);
        written.map_err(|source| SenderError::Send { to, bytes: sent, source })?;
        sent += len as u64;
    }
    Ok(Sent { bytes, cpu_time: thread_cpu_time() })
}

fn connect(to: SocketAddrV4) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&SocketAddr::V4(to), PATIENCE)?;
    stream.set_write_timeout(Some(PATIENCE))?;
    set_tcp_congestion(&stream, "cubic").or_else(|_absent| set_tcp_congestion(&stream, "reno"))?;
    Ok(stream)
}
