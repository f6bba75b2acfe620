//! SYN-SENT (RFC 9293 section 3.10.7.3).

use super::{
    handshake::{Negotiated, Offer, SynTimer},
    segment::{Incoming, Reply},
    seq::SeqNumber,
    syn_received::{Opening, SynReceived},
};
use crate::{
    ConnectionError, DropReason, Instant,
    wire::tcp::{Flags, Header},
};

/// How often the SYN is repeated: Linux's `tcp_syn_retries`.
const RETRIES: u8 = 6;

/// We have asked for a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SynSent {
    iss: SeqNumber,
    offer: Offer,
    pub(crate) timer: SynTimer,
    /// What an ICMP message said about the peer. RFC 1122 section 4.2.3.9: that does not end the
    /// attempt, but tells why it failed.
    pub(crate) soft_error: Option<ConnectionError>,
}

/// What a segment leads to.
#[derive(Debug)]
pub(crate) enum Outcome {
    Established(Negotiated),
    /// Both ends have sent a SYN at the same time (RFC 9293 section 3.5, figure 8).
    Simultaneous(SynReceived),
    Refused,
    Drop(DropReason),
    DropAndReply(DropReason, Reply),
}

impl SynSent {
    pub(crate) const fn new(iss: SeqNumber, offer: Offer) -> Self {
        Self { iss, offer, timer: SynTimer::new(), soft_error: None }
    }

    pub(crate) const fn iss(&self) -> SeqNumber {
        self.iss
    }

    pub(crate) fn on_segment<B>(&self, now: Instant, segment: &Incoming<B>) -> Outcome {
        let Self { iss, offer, timer, soft_error: _ } = *self;
        let header = &segment.header;
        if segment.has(Flags::ACK) {
            // "If SEG.ACK =< ISS or SEG.ACK > SND.NXT, send a reset".
            if header.ack != iss + 1 {
                if segment.has(Flags::RST) {
                    return Outcome::Drop(DropReason::TcpBadReset);
                }
                return Outcome::DropAndReply(DropReason::TcpBadAck, Reply::reset(segment));
            }
            if segment.has(Flags::RST) {
                return Outcome::Refused;
            }
        } else if segment.has(Flags::RST) {
            return Outcome::Drop(DropReason::TcpBadReset);
        }
        if !segment.has(Flags::SYN) {
            return Outcome::Drop(DropReason::TcpUnexpectedFlags);
        }
        if !segment.has(Flags::ACK) {
            let opening = Opening { iss, offer };
            return Outcome::Simultaneous(SynReceived::new(opening, header));
        }
        Outcome::Established(Negotiated {
            iss,
            irs: header.seq,
            offer,
            options: header.options,
            // RFC 7323 section 2.2: the window of a SYN is not scaled.
            window: usize::from(header.window),
            syn_lost: timer.is_lost(),
            rtt: timer.rtt(now),
        })
    }

    /// The SYN, if it is due.
    pub(crate) fn poll_transmit(&mut self, now: Instant, ports: (u16, u16)) -> Option<Header> {
        self.timer.take(now).then(|| Header {
            source_port: ports.0,
            destination_port: ports.1,
            seq: self.iss,
            ack: SeqNumber(0),
            flags: Flags::SYN,
            window: self.offer.window,
            urgent: 0,
            options: self.offer.options(now),
        })
    }

    /// Does what is due; why the attempt has failed, if it has.
    pub(crate) fn on_timeout(&mut self, now: Instant) -> Option<ConnectionError> {
        if self.timer.on_timeout(now, RETRIES) {
            return None;
        }
        Some(self.soft_error.unwrap_or(ConnectionError::TimedOut))
    }
}
