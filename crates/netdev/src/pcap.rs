//! Captures, over any link.

use std::{
    borrow::Cow,
    io::{self, BufWriter, Write},
    os::fd::BorrowedFd,
    time::Duration,
};

use dmaengine::PacketBuf;
use pcap_file::{
    DataLink, Endianness, PcapError, TsResolution,
    pcap::{PcapHeader, PcapPacket, PcapWriter},
};

use crate::{
    Link, LinkInfo, ReceiveError, RxInfo, Statistics, TransmitError, TxInfo,
    offload::MAX_SUPER_FRAME_LEN,
};

/// A link whose frames, of both directions, are also written to a capture (pcap, Ethernet,
/// nanoseconds), for Wireshark or tcpdump.
///
/// Frames with a partial checksum show up with a wrong one there, as those that a kernel hands to a
/// NIC do: tell the tool not to verify. Transmitted frames are captured if the link took them.
///
/// The capture is a witness, not part of the link: if it cannot be written it ends, and
/// [`take_error`](Self::take_error) tells why; the link goes on.
#[derive(Debug)]
pub struct Capture<L, W: Write> {
    link: L,
    capture: Recorder<W>,
}

#[derive(Debug)]
struct Recorder<W: Write> {
    /// `None` after an error.
    writer: Option<PcapWriter<BufWriter<W>>>,
    error: Option<io::Error>,
    /// The time since 1970 at which `now` was zero.
    epoch: Duration,
}

impl<L: Link, W: Write + Send> Capture<L, W> {
    /// Captures what passes `link` to `writer`, which is buffered here. `epoch` is the time since
    /// 1970 at which `now` is zero; take zero for virtual time.
    ///
    /// # Errors
    ///
    /// The capture's header could not be written.
    pub fn new(link: L, writer: W, epoch: Duration) -> io::Result<Self> {
        let header = PcapHeader {
            snaplen: MAX_SUPER_FRAME_LEN as u32,
            datalink: DataLink::ETHERNET,
            ts_resolution: TsResolution::NanoSecond,
            endianness: Endianness::native(),
            ..PcapHeader::default()
        };
        let writer =
            PcapWriter::with_header(BufWriter::new(writer), header).map_err(into_io_error)?;
        Ok(Self { link, capture: Recorder { writer: Some(writer), error: None, epoch } })
    }

    /// Why the capture has ended early, once.
    pub const fn take_error(&mut self) -> Option<io::Error> {
        self.capture.error.take()
    }

    /// Ends the capture and gives back the link and the writer.
    ///
    /// # Errors
    ///
    /// In place of the writer: why the capture is incomplete, unless
    /// [`take_error`](Self::take_error) has told it.
    pub fn finish(self) -> (L, io::Result<Option<W>>) {
        let Recorder { writer, error, epoch: _ } = self.capture;
        let written = match (error, writer) {
            (Some(error), _) => Err(error),
            (None, Some(writer)) => {
                writer.into_writer().into_inner().map(Some).map_err(io::IntoInnerError::into_error)
            }
            (None, None) => Ok(None),
        };
        (self.link, written)
    }
}

impl<W: Write> Recorder<W> {
    fn record(&mut self, now: Duration, frame: &[u8]) {
        let Some(writer) = &mut self.writer else { return };
        // A frame that no link carries would end the capture: it is cut as `snaplen` says.
        let kept = &frame[..frame.len().min(MAX_SUPER_FRAME_LEN)];
        let packet = PcapPacket {
            timestamp: self.epoch.saturating_add(now),
            orig_len: u32::try_from(frame.len()).unwrap_or(u32::MAX),
            data: Cow::Borrowed(kept),
        };
        if let Err(error) = writer.write_packet(&packet) {
            self.error = Some(into_io_error(error));
            if let Some(writer) = self.writer.take() {
                // What is still buffered cannot be written either; dropping would try again.
                drop(writer.into_writer().into_parts());
            }
        }
    }
}

fn into_io_error(error: PcapError) -> io::Error {
    match error {
        PcapError::IoError(error) => error,
        error => io::Error::other(error),
    }
}

impl<L: Link, W: Write + Send> Link for Capture<L, W> {
    fn info(&self) -> &LinkInfo {
        self.link.info()
    }

    fn statistics(&self) -> &Statistics {
        self.link.statistics()
    }

    fn receive(
        &mut self,
        now: Duration,
        max: usize,
        each: &mut dyn FnMut(PacketBuf, RxInfo),
    ) -> Result<usize, ReceiveError> {
        let Self { link, capture } = self;
        link.receive(now, max, &mut |frame, info| {
            capture.record(now, frame.as_ref());
            each(frame, info);
        })
    }

    fn transmit(&mut self, now: Duration, frame: &[u8], info: TxInfo) -> Result<(), TransmitError> {
        self.link.transmit(now, frame, info)?;
        self.capture.record(now, frame);
        Ok(())
    }

    fn event(&self) -> Option<BorrowedFd<'_>> {
        self.link.event()
    }

    fn poll_timeout(&self) -> Option<Duration> {
        self.link.poll_timeout()
    }
}

#[cfg(test)]
mod tests;
