//! SYN-RECEIVED (RFC 9293 section 3.10.7.4).

use super::{
    handshake::{Negotiated, Offer, SynTimer},
    segment::{Incoming, Reply},
    seq::SeqNumber,
};
use crate::{
    DropReason, Instant,
    wire::tcp::{Flags, Header, Options},
};

/// How often the SYN-ACK is repeated: Linux's `tcp_synack_retries`.
const RETRIES: u8 = 5;

/// Our side of a connection to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Opening {
    pub(crate) iss: SeqNumber,
    pub(crate) offer: Offer,
}

/// The peer has asked for a connection, and we have not heard that it got our SYN.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SynReceived {
    opening: Opening,
    irs: SeqNumber,
    options: Options,
    pub(crate) timer: SynTimer,
}

/// What a segment leads to.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The connection takes the segment as its first.
    Established(Negotiated),
    /// A valid reset.
    Reset,
    Drop(DropReason),
    DropAndReply(DropReason, Reply),
}

impl SynReceived {
    /// After a SYN with this header.
    pub(crate) const fn new(opening: Opening, syn: &Header) -> Self {
        Self { opening, irs: syn.seq, options: syn.options, timer: SynTimer::new() }
    }

    pub(crate) const fn iss(&self) -> SeqNumber {
        self.opening.iss
    }

    pub(crate) fn on_segment<B>(&mut self, now: Instant, segment: &Incoming<B>) -> Outcome {
        let Self { opening: Opening { iss, offer }, irs, options, timer } = self;
        let header = &segment.header;
        let next = *irs + 1;
        let answers = segment.has(Flags::ACK) && header.ack == *iss + 1;

        if segment.has(Flags::SYN) && header.seq == *irs && !segment.has(Flags::RST) {
            // The peer's SYN again. With our SYN's acknowledgment it completes a simultaneous open;
            // without, ours was lost.
            if !answers {
                timer.repeat();
                return Outcome::Drop(DropReason::TcpUnexpectedSyn);
            }
        } else {
            // Any sequence number in the window that we offered.
            let window = usize::from(offer.window);
            if header.seq.is_before(next) || header.seq.is_after(next + window) {
                if !segment.has(Flags::RST) {
                    timer.repeat();
                }
                return Outcome::Drop(DropReason::TcpOutsideWindow);
            }
            if segment.has(Flags::RST) {
                // RFC 5961 section 3.2: exactly the next one. There is nothing to challenge yet.
                if header.seq == next {
                    return Outcome::Reset;
                }
                return Outcome::Drop(DropReason::TcpBadReset);
            }
            if segment.has(Flags::SYN) {
                return Outcome::Drop(DropReason::TcpUnexpectedSyn);
            }
        }
        if !segment.has(Flags::ACK) {
            return Outcome::Drop(DropReason::TcpUnexpectedFlags);
        }
        if !answers {
            return Outcome::DropAndReply(DropReason::TcpBadAck, Reply::reset(segment));
        }
        let mut negotiated = Negotiated {
            iss: *iss,
            irs: *irs,
            offer: *offer,
            options: *options,
            window: 0,
            syn_lost: timer.is_lost(),
            rtt: timer.rtt(now),
        };
        let (scale, _) = negotiated.scales();
        let scale = if segment.has(Flags::SYN) { 0 } else { scale };
        negotiated.window = usize::from(header.window) << scale;
        Outcome::Established(negotiated)
    }

    /// The SYN-ACK, if it is due.
    pub(crate) fn poll_transmit(&mut self, now: Instant, ports: (u16, u16)) -> Option<Header> {
        self.timer.take(now).then(|| Header {
            source_port: ports.0,
            destination_port: ports.1,
            seq: self.opening.iss,
            ack: self.irs + 1,
            flags: Flags::SYN | Flags::ACK,
            window: self.opening.offer.window,
            urgent: 0,
            options: self.opening.offer.answer(now, &self.options),
        })
    }

    /// Does what is due; `false`: the peer does not answer.
    pub(crate) fn on_timeout(&mut self, now: Instant) -> bool {
        self.timer.on_timeout(now, RETRIES)
    }

    /// The reset for a program that no longer wants the connection.
    pub(crate) fn reset(&self, endpoints: super::endpoints::Endpoints) -> Reply {
        Reply {
            endpoints,
            seq: self.opening.iss + 1,
            ack: Some(self.irs + 1),
            rst: true,
            window: 0,
            timestamps: None,
        }
    }
}
