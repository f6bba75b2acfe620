//! The connection: whole messages with their files in, replies out.
//!
//! Neither a client that stops in the middle of a message nor one that takes no replies holds the
//! server up: what has begun must end within [`PATIENCE`]. Between messages a client may be silent
//! for as long as it likes.

use std::{
    io::{IoSliceMut, Read, Write},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, recvmsg},
};

use super::message::{FramingError, HEADER_SIZE, Header, MAX_FDS};

/// How long the rest of a message, or the taking of a reply, may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ended {
    /// The client closed it between two messages.
    #[error("closed by the client")]
    Closed,
    /// The client closed it in the middle of a message.
    #[error("closed by the client in the middle of a message")]
    Truncated,
    /// The client began a message, or was sent a reply, and did nothing more.
    #[error("the client left a message unfinished, or took no replies, for {PATIENCE:?}")]
    Stalled,
    /// What the client sends makes no sense any more.
    #[error(transparent)]
    Framing(#[from] FramingError),
    /// The server shall stop.
    #[error("the server stops")]
    Stopped,
    /// The system says no.
    #[error("the socket: {0}")]
    Io(#[from] std::io::Error),
}

/// One message.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) header: Header,
    pub(super) body: Vec<u8>,
    pub(super) files: Vec<OwnedFd>,
    /// More files came than [`MAX_FDS`]; the rest are lost.
    pub(super) too_many_files: bool,
}

/// A client's connection.
#[derive(Debug)]
pub(super) struct Connection<'a> {
    stream: UnixStream,
    /// Readable when the server shall stop.
    stop: BorrowedFd<'a>,
}

impl<'a> Connection<'a> {
    pub(super) fn new(stream: UnixStream, stop: BorrowedFd<'a>) -> std::io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self { stream, stop })
    }

    /// The next message.
    pub(super) fn receive(&mut self) -> Result<Received, Ended> {
        let mut header = [0; HEADER_SIZE];
        let mut files = Vec::new();
        let mut too_many_files = false;
        let mut have = 0;
        let mut deadline = None;
        while have < HEADER_SIZE {
            self.wait(PollFlags::IN, deadline)?;
            // Files come with the first byte of what was sent with them. A message's are taken with
            // its header; any that come later the kernel closes, for the body is read without them.
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
            let mut ancillary = RecvAncillaryBuffer::new(&mut space);
            let mut parts = [IoSliceMut::new(header.get_mut(have..).unwrap_or_default())];
            let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
            let received = match recvmsg(&self.stream, &mut parts, &mut ancillary, flags) {
                Ok(received) => received,
                Err(Errno::AGAIN | Errno::INTR) => continue,
                Err(Errno::CONNRESET) if have == 0 => return Err(Ended::Closed),
                Err(errno) => return Err(Ended::Io(errno.into())),
            };
            for message in ancillary.drain() {
                if let RecvAncillaryMessage::ScmRights(received) = message {
                    files.extend(received);
                }
            }
            too_many_files |= received.flags.contains(ReturnFlags::CTRUNC) || files.len() > MAX_FDS;
            match received.bytes {
                0 if have == 0 => return Err(Ended::Closed),
                0 => return Err(Ended::Truncated),
                bytes => have += bytes,
            }
            deadline.get_or_insert_with(|| Instant::now() + PATIENCE);
        }
        let header = Header::parse(header)?;
        // No longer than a message may be: `Header::parse` has seen to it.
        let mut body = vec![0; header.body];
        let mut have = 0;
        while let Some(rest @ [_, ..]) = body.get_mut(have..) {
            match self.stream.read(rest) {
                Ok(0) => return Err(Ended::Truncated),
                Ok(bytes) => have += bytes,
                Err(error) => self.wait_after(error, PollFlags::IN, deadline)?,
            }
        }
        Ok(Received { header, body, files, too_many_files })
    }

    /// Sends a reply.
    pub(super) fn send(&mut self, reply: &[u8]) -> Result<(), Ended> {
        let deadline = Some(Instant::now() + PATIENCE);
        let mut sent = 0;
        while let Some(rest @ [_, ..]) = reply.get(sent..) {
            match self.stream.write(rest) {
                Ok(bytes) => sent += bytes,
                Err(error) => self.wait_after(error, PollFlags::OUT, deadline)?,
            }
        }
        Ok(())
    }

    /// Waits if that is what an error means.
    fn wait_after(
        &self,
        error: std::io::Error,
        events: PollFlags,
        deadline: Option<Instant>,
    ) -> Result<(), Ended> {
        match error.kind() {
            std::io::ErrorKind::WouldBlock => self.wait(events, deadline),
            std::io::ErrorKind::Interrupted => Ok(()),
            _ => Err(Ended::Io(error)),
        }
    }

    /// Waits for the socket.
    fn wait(&self, events: PollFlags, deadline: Option<Instant>) -> Result<(), Ended> {
        wait(self.stream.as_fd(), self.stop, events, deadline)
    }
}

/// Waits until `file` is ready, the deadline has passed, or `stop` is readable.
pub(super) fn wait(
    file: BorrowedFd<'_>,
    stop: BorrowedFd<'_>,
    events: PollFlags,
    deadline: Option<Instant>,
) -> Result<(), Ended> {
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let timeout = left.map(|left| Timespec {
            tv_sec: left.as_secs().cast_signed(),
            tv_nsec: left.subsec_nanos().into(),
        });
        let mut files =
            [PollFd::from_borrowed_fd(file, events), PollFd::from_borrowed_fd(stop, PollFlags::IN)];
        match poll(&mut files, timeout.as_ref()) {
            Ok(0) => return Err(Ended::Stalled),
            Ok(_) if !files[1].revents().is_empty() => return Err(Ended::Stopped),
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(Ended::Io(errno.into())),
        }
    }
}

/// Lets time pass, unless `stop` is readable before its end.
pub(super) fn pause(stop: BorrowedFd<'_>, time: Duration) -> Result<(), Ended> {
    // There is no other file to wait for.
    match wait(stop, stop, PollFlags::empty(), Some(Instant::now() + time)) {
        Err(Ended::Stalled) => Ok(()),
        outcome => outcome,
    }
}
