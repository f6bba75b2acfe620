//! What two SYNs agree upon.

use std::time::Duration;

use super::{rtt::INITIAL_RTO, seq::SeqNumber, timestamps::TimestampClock};
use crate::{Instant, TcpConfig, wire::tcp};

/// The MSS of a peer that does not say (RFC 9293 section 3.7.1).
const DEFAULT_MSS: u16 = 536;
/// The smallest MSS that is believed: Linux's `tcp_min_snd_mss`. A smaller one would make us send
/// little more than headers (CVE-2019-11479).
const MIN_MSS: u16 = 48;
/// The largest shift (RFC 7323 section 2.3).
const MAX_SCALE: u8 = 14;
/// IPv4 and TCP headers without options, in bytes: the MSS does not count them, nor options
/// (RFC 6691).
const HEADERS: usize = 40;

/// What we offer in a SYN.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Offer {
    pub(crate) mss: u16,
    pub(crate) scale: u8,
    pub(crate) clock: TimestampClock,
    /// The initial window in bytes; it cannot be scaled.
    pub(crate) window: u16,
}

impl Offer {
    pub(crate) fn new(mtu: usize, config: &TcpConfig, clock: TimestampClock) -> Self {
        let mut scale = 0;
        while scale < MAX_SCALE && config.receive_buffer >> scale > usize::from(u16::MAX) {
            scale += 1;
        }
        Self {
            mss: u16::try_from(mtu - HEADERS).unwrap_or(u16::MAX),
            scale,
            clock,
            window: u16::try_from(config.receive_buffer).unwrap_or(u16::MAX),
        }
    }

    /// The options of a SYN that is not an answer.
    pub(crate) const fn options(&self, now: Instant) -> tcp::Options {
        tcp::Options {
            mss: Some(self.mss),
            window_scale: Some(self.scale),
            timestamps: Some(tcp::Timestamps { value: self.clock.value(now), echo: 0 }),
        }
    }

    /// The options of a SYN that answers a peer with `options`: only what it offers, too
    /// (RFC 7323 sections 2.2 and 3.2).
    pub(crate) fn answer(&self, now: Instant, options: &tcp::Options) -> tcp::Options {
        let value = self.clock.value(now);
        tcp::Options {
            mss: Some(self.mss),
            window_scale: options.window_scale.map(|_| self.scale),
            timestamps: options
                .timestamps
                .map(|timestamps| tcp::Timestamps { value, echo: timestamps.value }),
        }
    }
}

/// A handshake that is complete.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Negotiated {
    pub(crate) iss: SeqNumber,
    pub(crate) irs: SeqNumber,
    pub(crate) offer: Offer,
    /// The options of the peer's SYN.
    pub(crate) options: tcp::Options,
    /// The window that the peer offers, in bytes.
    pub(crate) window: usize,
    /// Our SYN had to be sent more than once.
    pub(crate) syn_lost: bool,
    pub(crate) rtt: Option<Duration>,
}

impl Negotiated {
    /// The shifts of the peer's windows and of ours.
    pub(crate) fn scales(&self) -> (u8, u8) {
        self.options.window_scale.map_or((0, 0), |scale| (scale.min(MAX_SCALE), self.offer.scale))
    }

    /// Payload of the largest segments that we send and that we allow, in bytes.
    pub(crate) fn segment_sizes(&self) -> (usize, usize) {
        let options = if self.options.timestamps.is_some() { tcp::TIMESTAMPS_LEN } else { 0 };
        let theirs = self.options.mss.unwrap_or(DEFAULT_MSS).max(MIN_MSS);
        let ours = usize::from(self.offer.mss);
        (usize::from(theirs).min(ours) - options, ours - options)
    }
}

/// The retransmission of a SYN.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SynTimer {
    /// It is to be sent now.
    due: bool,
    first_sent: Option<Instant>,
    /// How often it was sent because of the timeout, with the first time.
    sent: u8,
    /// It was sent because the peer asked for it.
    repeated: bool,
    deadline: Option<Instant>,
}

impl SynTimer {
    pub(crate) const fn new() -> Self {
        Self { due: true, first_sent: None, sent: 0, repeated: false, deadline: None }
    }

    /// Whether to send the SYN now; if so, it counts as sent.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        if !self.due {
            return false;
        }
        self.due = false;
        self.first_sent.get_or_insert(now);
        if self.deadline.is_none() {
            self.deadline = Some(now + INITIAL_RTO * 2_u32.saturating_pow(u32::from(self.sent)));
            self.sent = self.sent.saturating_add(1);
        } else {
            self.repeated = true;
        }
        true
    }

    /// The peer has not got it: send it again at once. The timeout keeps running.
    pub(crate) const fn repeat(&mut self) {
        self.due = true;
    }

    pub(crate) const fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Does what is due at `now`; `false`: it was sent `1 + retries` times in vain.
    pub(crate) fn on_timeout(&mut self, now: Instant, retries: u8) -> bool {
        if self.deadline.is_some_and(|deadline| now >= deadline) {
            self.deadline = None;
            self.due = true;
            return self.sent <= retries;
        }
        true
    }

    pub(crate) const fn is_lost(&self) -> bool {
        self.sent > 1
    }

    /// The handshake's round trip, if it is clear which SYN was answered.
    pub(crate) fn rtt(&self, now: Instant) -> Option<Duration> {
        self.first_sent.filter(|_| self.sent == 1 && !self.repeated).map(|sent| now - sent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(receive_buffer: usize) -> Offer {
        let config = TcpConfig { receive_buffer, ..TcpConfig::default() };
        Offer::new(1500, &config, TimestampClock { offset: 0 })
    }

    #[test]
    fn the_scale_follows_from_the_buffer() {
        for (buffer, scale) in [(65_535, 0), (65_536, 1), (4 << 20, 7), (1 << 30, 14)] {
            assert_eq!(offer(buffer).scale, scale, "{buffer}");
        }
        assert_eq!(offer(4096).window, 4096);
        assert_eq!(offer(4 << 20).window, u16::MAX);
        assert_eq!(offer(4096).mss, 1460);
    }

    #[test]
    fn segment_sizes() {
        let mut negotiated = Negotiated {
            iss: SeqNumber(0),
            irs: SeqNumber(0),
            offer: offer(4096),
            options: tcp::Options::default(),
            window: 1,
            syn_lost: false,
            rtt: None,
        };
        assert_eq!(negotiated.segment_sizes(), (536, 1460));
        assert_eq!(negotiated.scales(), (0, 0));
        negotiated.options.timestamps = Some(tcp::Timestamps { value: 1, echo: 0 });
        negotiated.options.mss = Some(1);
        negotiated.options.window_scale = Some(15);
        assert_eq!(negotiated.segment_sizes(), (36, 1448));
        assert_eq!(negotiated.scales(), (14, 0));
        negotiated.options.mss = Some(9000);
        assert_eq!(negotiated.segment_sizes(), (1448, 1448));
    }

    #[test]
    fn a_syn_is_repeated_with_backoff_and_given_up() {
        let mut timer = SynTimer::new();
        let mut now = Instant::ZERO;
        let mut sent_at = Vec::new();
        loop {
            if timer.take(now) {
                sent_at.push(now.as_millis() / 1000);
            }
            now = timer.deadline().expect("running");
            if !timer.on_timeout(now, 3) {
                break;
            }
        }
        assert_eq!(sent_at, [0, 1, 3, 7]);
        assert_eq!(now, Instant::from_millis(15_000));
        assert!(timer.is_lost() && timer.rtt(now).is_none());
    }
}
