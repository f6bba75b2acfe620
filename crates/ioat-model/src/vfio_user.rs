//! The device served over a Unix socket with the vfio-user protocol, to QEMU for one.
//!
//! # Model
//!
//! ```text
//!   QEMU, or any client                        this process
//!   -------------------                        ---------------------------------------
//!   accesses to BAR and      --- messages ---> [ Server::run ]   one client after the other
//!   configuration space      <-- replies ----        |
//!   guest memory: a file     --- DMA_MAP ----> [ regions ]  <--- descriptors, bytes ---+
//!   eventfd of each vector   --- SET_IRQS ---> [ vectors ]  <--- interrupts -----------+
//!                                              [ Model on a thread, "ioat-model" ]
//! ```
//!
//! [`Server::bind`] powers the device up, and it stays powered. When a client goes, its memory and
//! its eventfds are given up before the next is listened to, and the registers keep their values, as
//! the protocol wants it: a client that comes back goes on where it was, one that wants a fresh
//! device resets it. (QEMU does, as part of resetting its machine.)
//!
//! # What a client can do
//!
//! Only harm itself. Every length and offset is checked before it is used. A message that makes sense
//! but cannot be done is answered with an error. One whose length makes no sense ends the
//! connection, for nobody knows where the next begins; so does one that is not finished within five
//! seconds. A client can make the server allocate 64 KiB for a message, 2^20 regions of memory, and
//! address space for 1024 files.
//!
//! Memory can be reached if it came with a file in memory (a memfd, or a file in a tmpfs or
//! hugetlbfs), only as far as the file goes, and only with the access that was given. DMA elsewhere
//! halts the channel with the error of the silicon. The file stays the client's: if it truncates
//! it under the device, that is an uncorrectable error of memory (`READ_DATA`, `WRITE_DATA`), and
//! nothing happens to this process. `DMA_UNMAP` is answered when nothing moves in the memory any
//! more. What may be read and written through messages only (`DMA_READ`, `DMA_WRITE`) is not used:
//! memory without a file cannot be reached.
//!
//! # Why not the `vfio_user` crate
//!
//! Its server takes lengths at the client's word: it allocates what a message says it has, which can
//! end the process, and there is no way back from a message that it could not read. It blocks in
//! `accept` and in reads, without a way to stop it. The part of the protocol that a PCI device
//! without migration needs is small.
//!
//! # How to attach QEMU
//!
//! QEMU 10.1 or later, with memory that can be shared:
//!
//! ```text
//! ioat emulate --socket /run/ioat.sock &
//! qemu-system-x86_64 -machine q35,memory-backend=mem \
//!     -object memory-backend-memfd,id=mem,size=1G,share=on -m 1G \
//!     -device '{"driver":"vfio-user-pci","socket":{"type":"unix","path":"/run/ioat.sock"}}' …
//! ```

mod device;
mod interrupts;
mod mapping;
mod memory;
mod message;
mod regions;
mod session;
mod socket;

use std::{
    fmt, io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::{
            fs::{FileTypeExt, MetadataExt},
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::{event::PollFlags, io::Errno};

use self::{
    device::Device,
    session::Session,
    socket::{Connection, Ended, pause, wait},
};
use crate::model;

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another server listens there.
    #[error("{}: another server listens there; end it, or choose another path", .0.display())]
    InUse(PathBuf),
    /// There is a file that is no socket.
    #[error("{}: there is a file, and it is no socket; choose another path", .0.display())]
    NotASocket(PathBuf),
    /// The socket cannot be made.
    #[error("{}: {source}", path.display())]
    Socket {
        /// Where it should be.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The kernel does not copy memory for this process.
    #[error(
        "the kernel refuses process_vm_readv: {0}; a container's seccomp profile may forbid it: \
         allow process_vm_readv and process_vm_writev"
    )]
    Copies(io::Error),
    /// The device's thread cannot be started.
    #[error("starting the device's thread: {0}")]
    Thread(io::Error),
}

/// What happens at a [`Server`], for people to read.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// A client cannot be accepted for want of files or memory, and waits until it can. Of several
    /// attempts in a row only the first is reported.
    Postponed {
        /// What the system says.
        error: io::Error,
    },
    /// A client has connected.
    Connected,
    /// The client has read registers.
    Read {
        /// In configuration space; else in BAR 0.
        config: bool,
        /// Where.
        offset: u64,
        /// How many bytes.
        len: usize,
        /// What, if it is no longer than eight bytes; else its first eight.
        value: u64,
    },
    /// The client writes registers.
    Write {
        /// In configuration space; else in BAR 0.
        config: bool,
        /// Where.
        offset: u64,
        /// How many bytes.
        len: usize,
        /// What, if it is no longer than eight bytes; else its first eight.
        value: u64,
    },
    /// A request was answered with an error. Of each connection only the first few are reported.
    Refused {
        /// The number of the command.
        command: u16,
        /// What the client was told.
        error: io::Error,
    },
    /// A connection has ended.
    Disconnected {
        /// Messages that were answered.
        messages: u64,
        /// How many of them with an error.
        refused: u64,
        /// Why it ended.
        reason: String,
    },
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Postponed { error } => write!(
                f,
                "a client has to wait, because it cannot be accepted: {error}; raise that limit, or \
                 free some of it"
            ),
            Self::Connected => f.write_str("a client has connected"),
            Self::Read { config, offset, len, value } => {
                write!(f, "{} {offset:#05x} {len} -> {value:#x}", place(*config))
            }
            Self::Write { config, offset, len, value } => {
                write!(f, "{} {offset:#05x} {len} <- {value:#x}", place(*config))
            }
            Self::Refused { command, error } => write!(f, "command {command} refused: {error}"),
            Self::Disconnected { messages, refused, reason } => {
                write!(f, "connection over: {reason} ({messages} messages, {refused} refused)")
            }
        }
    }
}

const fn place(config: bool) -> &'static str {
    if config { "config" } else { "bar" }
}

/// The most [`Event::Refused`] of one connection: a hostile client shall not fill a log.
const REPORTED: u64 = 8;

/// How long a client that cannot be accepted waits for the next attempt. Until one succeeds the
/// listener stays readable, so nothing says when that may be.
const RETRY: Duration = Duration::from_millis(100);

/// A device that waits for its client.
///
/// Dropping it ends the device and removes the socket.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode of the socket's file.
    identity: (u64, u64),
    device: Device,
}

impl Server {
    /// Powers a device up, and listens at `path`. A socket that a server left there, and that nobody
    /// listens at, is replaced.
    ///
    /// # Errors
    ///
    /// [`BindError`].
    pub fn bind(path: &Path, config: model::Config) -> Result<Self, BindError> {
        mapping::can_copy().map_err(BindError::Copies)?;
        remove_stale(path)?;
        let failed = |source| BindError::Socket { path: path.to_owned(), source };
        let listener = UnixListener::bind(path).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let metadata = path.symlink_metadata().map_err(failed)?;
        let identity = (metadata.dev(), metadata.ino());
        let device = Device::start(config).map_err(BindError::Thread)?;
        Ok(Self { listener, path: path.to_owned(), identity, device })
    }

    /// Serves one client after the other, until `stop` is readable. Later clients wait, and so does
    /// one for which the process, or the system, has no file left.
    ///
    /// # Errors
    ///
    /// When the system no longer lets the server wait for clients. What clients do wrong is
    /// reported to `observer` only.
    pub fn run(&self, stop: BorrowedFd<'_>, observer: &mut dyn FnMut(Event)) -> io::Result<()> {
        let mut postponed = false;
        loop {
            let ready = wait(self.listener.as_fd(), stop, PollFlags::IN, None);
            let accepted = ready.and_then(|()| match self.listener.accept() {
                Ok((stream, _)) => Ok(Some(stream)),
                // It has gone again.
                Err(error) if is_transient(&error) => Ok(None),
                Err(error) if is_shortage(&error) => {
                    if !postponed {
                        postponed = true;
                        observer(Event::Postponed { error });
                    }
                    pause(stop, RETRY).map(|()| None)
                }
                Err(error) => Err(Ended::Io(error)),
            });
            let stream = match accepted {
                Ok(Some(stream)) => stream,
                Ok(None) => continue,
                Err(Ended::Io(error)) => return Err(error),
                Err(_) => return Ok(()),
            };
            postponed = false;
            observer(Event::Connected);
            if let Ended::Stopped = self.serve(stream, stop, observer) {
                return Ok(());
            }
        }
    }

    /// Serves one connection.
    fn serve(
        &self,
        stream: UnixStream,
        stop: BorrowedFd<'_>,
        observer: &mut dyn FnMut(Event),
    ) -> Ended {
        let (mut messages, mut refused) = (0, 0);
        let mut session = Session::new(&self.device);
        let serve = || -> Result<(), Ended> {
            let mut connection = Connection::new(stream, stop)?;
            loop {
                let received = connection.receive()?;
                let header = received.header;
                let outcome = session.handle(received, observer);
                messages += 1;
                if let Err(errno) = outcome {
                    refused += 1;
                    if refused <= REPORTED {
                        let error = Errno::into(errno);
                        observer(Event::Refused { command: header.command, error });
                    }
                }
                if !header.no_reply {
                    connection.send(&header.reply(outcome))?;
                }
            }
        };
        let ended = match serve() {
            Ok(()) => Ended::Closed,
            Err(ended) => ended,
        };
        self.device.disconnect();
        observer(Event::Disconnected { messages, refused, reason: ended.to_string() });
        ended
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let ours = self.path.symlink_metadata();
        if ours.is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == self.identity) {
            // If it cannot be removed, the next server replaces it.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Removes a socket that nobody listens at.
fn remove_stale(path: &Path) -> Result<(), BindError> {
    let failed = |source| BindError::Socket { path: path.to_owned(), source };
    match path.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(BindError::NotASocket(path.to_owned()));
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(failed)
        }
        Ok(_) => Err(BindError::InUse(path.to_owned())),
        Err(error) => Err(failed(error)),
    }
}

/// Whether `accept` may work when something else has given back what it has. The client is in the
/// listener's queue as before.
fn is_shortage(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    matches!(errno, Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM))
}

/// Whether `accept` may work the next time.
fn is_transient(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock
            | io::ErrorKind::Interrupted
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
    )
}
