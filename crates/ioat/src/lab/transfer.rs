//! One stream from the kernel's TCP to a receiver, measured or checked.

use std::{io, net::SocketAddrV4, ops::Sub, sync::Arc, time::Duration};

use netdma::Counters;

use super::{Pattern, PeerNamespace, Sender, SenderConfig, SenderError, Sent};
use crate::measure::{Measured, Pieces, receive_all};

/// What receives: a TCP/IP stack that listens somewhere.
pub trait Receiver {
    /// Where the sender connects to.
    fn address(&self) -> SocketAddrV4;

    /// Where the sender runs; the process's own namespace if `None`.
    fn sender_namespace(&self) -> Option<Arc<PeerNamespace>>;

    /// Waits for the sender's connection; not for ever. What it brings is received in reads into
    /// `buffer`, or in pieces of that length at most.
    ///
    /// # Errors
    ///
    /// `TimedOut` if nobody came, and what the stack says.
    fn accept<'a>(&'a self, buffer: &'a mut [u8]) -> io::Result<Box<dyn Pieces + 'a>>;

    /// Who copied received bytes to their readers so far; `None` if it keeps no account.
    fn copied(&self) -> Option<Copied>;

    /// All that its offload counts; `None` if it has none.
    fn counters(&self) -> Option<Counters>;
}

/// Who copied received bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copied {
    /// Bytes copied by the engine.
    pub by_engine: u64,
    /// Bytes copied by the CPU of the receiving side.
    pub by_cpu: u64,
    /// CPU time that a software engine, or a device model, has used.
    pub engine_cpu: Duration,
}

impl Sub for Copied {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            by_engine: self.by_engine - earlier.by_engine,
            by_cpu: self.by_cpu - earlier.by_cpu,
            engine_cpu: self.engine_cpu.saturating_sub(earlier.engine_cpu),
        }
    }
}

/// What to transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// How many bytes.
    pub bytes: u64,
    /// Whether the content differs at every offset and every byte is checked. Otherwise nobody
    /// looks at it, so that checking is not in what is measured.
    pub checked: bool,
    /// The CPU that the sender runs on; any if `None`.
    pub sender_cpu: Option<usize>,
}

/// Why a stream did not arrive whole.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// The sender failed.
    #[error(transparent)]
    Sender(#[from] SenderError),
    /// The receiver failed.
    #[error("receiving failed: {0}")]
    Receive(#[source] io::Error),
    /// The stream ended early, or went on.
    #[error("{received} bytes came, and {sent} were sent")]
    Length {
        /// Bytes received.
        received: u64,
        /// Bytes sent.
        sent: u64,
    },
    /// A byte is wrong.
    #[error("the byte at offset {offset} is wrong")]
    WrongByte {
        /// Its offset in the stream.
        offset: u64,
    },
}

const PATTERN: Pattern = Pattern::new(0x10a7);

impl Transfer {
    /// Sends to `receiver`, which receives in the calling thread, in reads of `buffer`'s length.
    /// `progress` gets the length of each read.
    ///
    /// # Errors
    ///
    /// See [`TransferError`].
    pub fn run(
        self,
        receiver: &dyn Receiver,
        buffer: &mut [u8],
        mut progress: impl FnMut(usize),
    ) -> Result<(Measured, Sent), TransferError> {
        let Self { bytes, checked, sender_cpu } = self;
        let sender = Sender::start(SenderConfig {
            to: receiver.address(),
            bytes,
            pattern: PATTERN,
            unique: checked,
            namespace: receiver.sender_namespace(),
            cpu: sender_cpu,
        })?;
        let mut wrong = |offset, piece: &[u8]| {
            progress(piece.len());
            if checked { PATTERN.first_wrong(offset, piece) } else { None }
        };
        receive_stream(receiver, buffer, &mut wrong, || sender.join())
    }
}

/// Receives one stream in the calling thread, in reads of `buffer`'s length. Each piece is given to
/// `wrong` with its offset, which says where the first wrong byte is, if there is one; after that
/// it is not asked again. `join` waits for the sender.
///
/// # Errors
///
/// See [`TransferError`].
pub fn receive_stream(
    receiver: &dyn Receiver,
    buffer: &mut [u8],
    mut wrong: impl FnMut(u64, &[u8]) -> Option<u64>,
    join: impl FnOnce() -> Result<Sent, SenderError>,
) -> Result<(Measured, Sent), TransferError> {
    let mut pieces = match receiver.accept(buffer) {
        Ok(pieces) => pieces,
        // Why nobody came is what the sender knows.
        Err(error) => {
            return Err(join().err().map_or(TransferError::Receive(error), Into::into));
        }
    };
    let mut offset = 0;
    let mut first_wrong = None;
    let measured = receive_all(&mut *pieces, |piece| {
        if first_wrong.is_none() {
            first_wrong = wrong(offset, piece);
        }
        offset += piece.len() as u64;
        Ok(())
    })
    .map_err(TransferError::Receive)?;
    let sent = join()?;
    if let Some(offset) = first_wrong {
        return Err(TransferError::WrongByte { offset });
    }
    if measured.bytes != sent.bytes {
        return Err(TransferError::Length { received: measured.bytes, sent: sent.bytes });
    }
    Ok((measured, sent))
}
