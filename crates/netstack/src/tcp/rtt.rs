//! The round-trip time and the retransmission timeout (RFC 6298).

use std::time::Duration;

use super::seq::SeqNumber;
use crate::Instant;

/// The timeout before there is a sample (RFC 6298 section 2.1).
pub(crate) const INITIAL_RTO: Duration = Duration::from_secs(1);
/// The timeout to begin with if the SYN had to be sent again (RFC 6298 section 5.7).
const INITIAL_RTO_AFTER_LOSS: Duration = Duration::from_secs(3);
/// Linux's `TCP_RTO_MIN`. RFC 6298 section 2.4 asks for a second, which no widespread stack waits.
const MIN_RTO: Duration = Duration::from_millis(200);
/// Linux's `TCP_RTO_MAX`; RFC 6298 section 2.5 allows any limit of at least 60 s.
const MAX_RTO: Duration = Duration::from_secs(120);

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct RttEstimator {
    /// SRTT and RTTVAR, once there was a sample.
    smoothed: Option<(Duration, Duration)>,
    /// The timeout without backoff.
    rto: Duration,
    /// How often it has been doubled.
    backoff: u32,
    /// The segment that is being timed: where it ends, and when it was sent. One at a time, as the
    /// gains of RFC 6298 section 2 assume about one sample per round trip (RFC 7323 appendix G).
    timed: Option<(SeqNumber, Instant)>,
}

impl RttEstimator {
    pub(crate) const fn new() -> Self {
        Self { smoothed: None, rto: INITIAL_RTO, backoff: 0, timed: None }
    }

    /// For a connection whose SYN had to be sent again.
    pub(crate) const fn after_lost_syn() -> Self {
        Self { rto: INITIAL_RTO_AFTER_LOSS, ..Self::new() }
    }

    /// New data was sent up to `end`.
    pub(crate) const fn on_send(&mut self, now: Instant, end: SeqNumber) {
        if self.timed.is_none() {
            self.timed = Some((end, now));
        }
    }

    /// Something was sent again: its acknowledgment could be for either (Karn's algorithm, RFC 6298
    /// section 3).
    pub(crate) const fn on_retransmit(&mut self) {
        self.timed = None;
    }

    /// New data was acknowledged. `echoed` is the age of the timestamp that it echoes, which is
    /// right even for what was sent twice (RFC 7323 section 4.1).
    pub(crate) fn on_ack(&mut self, now: Instant, ack: SeqNumber, echoed: Option<Duration>) {
        self.end_backoff();
        match self.timed {
            Some((end, sent)) if !ack.is_before(end) => {
                self.timed = None;
                self.sample(now - sent);
            }
            Some(_) => {}
            None => {
                if let Some(age) = echoed {
                    self.sample(age);
                }
            }
        }
    }

    /// RFC 6298 sections 2.2 and 2.3.
    pub(crate) fn sample(&mut self, rtt: Duration) {
        let (srtt, rttvar) = match self.smoothed {
            None => (rtt, rtt / 2),
            Some((srtt, rttvar)) => {
                (srtt * 7 / 8 + rtt / 8, rttvar * 3 / 4 + srtt.abs_diff(rtt) / 4)
            }
        };
        self.smoothed = Some((srtt, rttvar));
        // As Linux does, the minimum is applied to the variance's part: a delayed acknowledgment
        // on a long path must not look like a loss.
        self.rto = (srtt + (rttvar * 4).max(MIN_RTO)).min(MAX_RTO);
    }

    /// The timer has expired (RFC 6298 section 5.5).
    pub(crate) const fn back_off(&mut self) {
        self.backoff = self.backoff.saturating_add(1);
    }

    /// The peer answers again.
    pub(crate) const fn end_backoff(&mut self) {
        self.backoff = 0;
    }

    /// The retransmission timeout.
    pub(crate) fn rto(&self) -> Duration {
        2_u32
            .checked_pow(self.backoff)
            .and_then(|factor| self.rto.checked_mul(factor))
            .map_or(MAX_RTO, |rto| rto.min(MAX_RTO))
    }

    /// The smoothed round-trip time; `None` before the first sample.
    pub(crate) fn srtt(&self) -> Option<Duration> {
        self.smoothed.map(|(srtt, _)| srtt)
    }

    /// Its mean deviation; `None` before the first sample.
    pub(crate) fn rttvar(&self) -> Option<Duration> {
        self.smoothed.map(|(_, rttvar)| rttvar)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn first_sample_and_smoothing() {
        let mut rtt = RttEstimator::new();
        assert_eq!(rtt.rto(), INITIAL_RTO);
        rtt.sample(100 * MS);
        assert_eq!((rtt.srtt(), rtt.rttvar()), (Some(100 * MS), Some(50 * MS)));
        assert_eq!(rtt.rto(), 300 * MS);
        rtt.sample(180 * MS);
        assert_eq!(
            (rtt.srtt(), rtt.rttvar()),
            (Some(110 * MS), Some(Duration::from_micros(57_500)))
        );
    }

    #[test]
    fn backoff_doubles_up_to_the_limit_and_ends_with_an_ack() {
        let mut rtt = RttEstimator::new();
        rtt.sample(MS);
        let first = rtt.rto();
        rtt.back_off();
        assert_eq!(rtt.rto(), 2 * first);
        for _ in 0..100 {
            rtt.back_off();
        }
        assert_eq!(rtt.rto(), MAX_RTO);
        rtt.on_ack(Instant::from_millis(9), SeqNumber(1), None);
        assert_eq!(rtt.rto(), first);
    }

    #[test]
    fn karn() {
        let mut rtt = RttEstimator::new();
        rtt.on_send(Instant::from_millis(0), SeqNumber(100));
        rtt.on_send(Instant::from_millis(5), SeqNumber(200));
        rtt.on_ack(Instant::from_millis(10), SeqNumber(50), None);
        assert_eq!(rtt.srtt(), None);
        rtt.on_ack(Instant::from_millis(20), SeqNumber(100), None);
        assert_eq!(rtt.srtt(), Some(20 * MS));

        rtt.on_send(Instant::from_millis(30), SeqNumber(300));
        rtt.on_retransmit();
        rtt.on_ack(Instant::from_millis(900), SeqNumber(300), None);
        assert_eq!(rtt.srtt(), Some(20 * MS));
        rtt.on_ack(Instant::from_millis(900), SeqNumber(300), Some(28 * MS));
        assert_eq!(rtt.srtt(), Some(21 * MS));
    }
}
