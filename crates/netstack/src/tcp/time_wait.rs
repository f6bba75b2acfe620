//! TIME-WAIT (RFC 9293 section 3.10.7.4, RFC 1337, RFC 6191).

use std::time::Duration;

use super::{
    rate_limit::ChallengeLimit, segment::Incoming, seq::SeqNumber, timestamps::Timestamping,
};
use crate::{
    DropReason, Instant,
    wire::tcp::{Flags, Header, Options},
};

/// Both ends have closed. Late segments of the connection must not be taken for those of a new one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TimeWait {
    /// SND.NXT.
    pub(crate) send_next: SeqNumber,
    /// RCV.NXT.
    pub(crate) receive_next: SeqNumber,
    pub(crate) timestamps: Option<Timestamping>,
    /// The wait, and when it ends.
    pub(crate) wait: Duration,
    pub(crate) deadline: Instant,
    pub(crate) limit: ChallengeLimit,
    /// The window field of acknowledgments.
    pub(crate) window: u16,
    pub(crate) owes_ack: bool,
}

/// What a segment leads to.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// A SYN that cannot be an old one: a new connection may take its place.
    Reopen,
    /// The acknowledgment of our last segment: nothing is to be done.
    Nothing,
    Drop(DropReason),
}

impl TimeWait {
    pub(crate) fn on_segment<B>(&mut self, now: Instant, segment: &Incoming<B>) -> Outcome {
        let header = &segment.header;
        if segment.has(Flags::RST) {
            // RFC 1337 section 3, fix F1: a reset does not end the wait.
            return Outcome::Drop(DropReason::TcpBadReset);
        }
        if segment.has(Flags::SYN) && !segment.has(Flags::ACK) {
            // RFC 6191 section 2: a higher timestamp or, without timestamps, a higher sequence
            // number than the old connection's.
            let newer = match (&self.timestamps, header.options.timestamps) {
                (Some(ours), Some(theirs)) => {
                    (theirs.value.wrapping_sub(ours.recent) as i32) > 0
                        || (theirs.value == ours.recent && header.seq.is_after(self.receive_next))
                }
                _ => header.seq.is_after(self.receive_next),
            };
            if newer {
                return Outcome::Reopen;
            }
        }
        if segment.len() == 0 && header.seq == self.receive_next {
            return Outcome::Nothing;
        }
        if segment.has(Flags::FIN) && header.seq + segment.len() == self.receive_next {
            // "The only thing that can arrive in this state is a retransmission of the remote FIN.
            // Acknowledge it, and restart the 2 MSL timeout."
            self.deadline = now + self.wait;
            self.owes_ack = true;
        } else if !segment.payload.is_empty() || self.limit.permits(now) {
            self.owes_ack = true;
        }
        Outcome::Drop(DropReason::TcpOutsideWindow)
    }

    /// The acknowledgment, if one is owed.
    pub(crate) fn poll_transmit(&mut self, now: Instant, ports: (u16, u16)) -> Option<Header> {
        std::mem::take(&mut self.owes_ack).then(|| Header {
            source_port: ports.0,
            destination_port: ports.1,
            seq: self.send_next,
            ack: self.receive_next,
            flags: Flags::ACK,
            window: self.window,
            urgent: 0,
            options: Options {
                timestamps: self.timestamps.map(|timestamps| timestamps.option(now)),
                ..Options::default()
            },
        })
    }
}
