//! Segments between the stack and the connections.

use std::ops::Range;

use super::{endpoints::Endpoints, seq::SeqNumber};
use crate::wire::tcp::{Flags, Header, Options, Timestamps};

/// A received segment that is addressed to us and whose checksum is right.
#[derive(Clone, Debug)]
pub(crate) struct Incoming<B> {
    pub(crate) endpoints: Endpoints,
    pub(crate) header: Header,
    /// The whole frame.
    pub(crate) buffer: B,
    /// Where in it the payload is.
    pub(crate) payload: Range<usize>,
}

impl<B> Incoming<B> {
    pub(crate) const fn has(&self, flags: Flags) -> bool {
        self.header.flags.contains(flags)
    }

    /// SEG.LEN: SYN and FIN count.
    pub(crate) fn len(&self) -> usize {
        let flags = self.header.flags;
        self.payload.len()
            + usize::from(flags.contains(Flags::SYN))
            + usize::from(flags.contains(Flags::FIN))
    }
}

/// A segment without payload that some segment is answered with, outside of any connection's
/// sending order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) endpoints: Endpoints,
    pub(crate) seq: SeqNumber,
    pub(crate) ack: Option<SeqNumber>,
    pub(crate) rst: bool,
    pub(crate) window: u16,
    pub(crate) timestamps: Option<Timestamps>,
}

impl Reply {
    /// The reset that answers a segment for no connection: RFC 9293 section 3.10.7.1.
    pub(crate) fn reset<B>(segment: &Incoming<B>) -> Self {
        let Incoming { endpoints, header, .. } = segment;
        let (seq, ack) = if segment.has(Flags::ACK) {
            (header.ack, None)
        } else {
            (SeqNumber(0), Some(header.seq + segment.len()))
        };
        Self { endpoints: *endpoints, seq, ack, rst: true, window: 0, timestamps: None }
    }

    pub(crate) fn header(&self) -> Header {
        let Self { endpoints, seq, ack, rst, window, timestamps } = *self;
        let mut flags = Flags::empty();
        flags.set(Flags::ACK, ack.is_some());
        flags.set(Flags::RST, rst);
        Header {
            source_port: endpoints.local_port,
            destination_port: endpoints.remote.port(),
            seq,
            ack: ack.unwrap_or(SeqNumber(0)),
            flags,
            window,
            urgent: 0,
            options: Options { timestamps, ..Options::default() },
        }
    }
}
