//! Timestamps on an established connection, and protection against wrapped sequence numbers
//! (RFC 7323 sections 4 and 5).

use std::time::Duration;

use super::seq::SeqNumber;
use crate::{Instant, wire::tcp};

/// A TS.Recent that is older than this cannot be compared any more (RFC 7323 section 5.5).
const MAX_AGE: Duration = Duration::from_secs(24 * 24 * 60 * 60);

/// The timestamp clock: it ticks every millisecond, from where nobody can guess.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TimestampClock {
    pub(crate) offset: u32,
}

impl TimestampClock {
    /// What to send at `now`.
    pub(crate) const fn value(self, now: Instant) -> u32 {
        // Truncation is arithmetic modulo 2^32.
        (now.as_millis() as u32).wrapping_add(self.offset)
    }

    /// How long ago `value` was sent; `None` if that cannot be one of ours.
    pub(crate) fn age(self, now: Instant, value: u32) -> Option<Duration> {
        let age = self.value(now).wrapping_sub(value);
        // An echo of zero comes from segments that have nothing to echo.
        (value != 0 && age < 1 << 31).then(|| Duration::from_millis(u64::from(age).max(1)))
    }
}

/// The timestamps of one connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timestamping {
    pub(crate) clock: TimestampClock,
    /// TS.Recent.
    pub(crate) recent: u32,
    /// When it was last written.
    pub(crate) recent_at: Instant,
}

impl Timestamping {
    /// The option of a segment that is sent at `now`.
    pub(crate) const fn option(&self, now: Instant) -> tcp::Timestamps {
        tcp::Timestamps { value: self.clock.value(now), echo: self.recent }
    }

    /// Whether a segment is older than the last one: RFC 7323 section 5.3 R1.
    pub(crate) fn is_old(&self, now: Instant, value: u32) -> bool {
        (value.wrapping_sub(self.recent) as i32) < 0 && now - self.recent_at < MAX_AGE
    }

    /// RFC 7323 section 4.3 (2): remembers the timestamp of a segment that begins at or before the
    /// last acknowledgment.
    pub(crate) fn on_segment(
        &mut self,
        now: Instant,
        value: u32,
        seq: SeqNumber,
        last_ack_sent: SeqNumber,
    ) {
        if !self.is_old(now, value) && !seq.is_after(last_ack_sent) {
            self.recent = value;
            self.recent_at = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_ones_are_told_apart_until_they_expire() {
        let clock = TimestampClock { offset: u32::MAX };
        let mut timestamping =
            Timestamping { clock, recent: u32::MAX, recent_at: Instant::from_millis(1) };
        let now = Instant::from_millis(2);
        assert!(timestamping.is_old(now, u32::MAX - 1));
        assert!(!timestamping.is_old(now, 1));
        timestamping.on_segment(now, 1, SeqNumber(10), SeqNumber(9));
        assert_eq!(timestamping.recent, u32::MAX);
        timestamping.on_segment(now, 1, SeqNumber(9), SeqNumber(9));
        assert_eq!(timestamping.option(now), tcp::Timestamps { value: 1, echo: 1 });
        assert!(!timestamping.is_old(now + MAX_AGE, 0));
    }

    #[test]
    fn ages() {
        let clock = TimestampClock { offset: 5 };
        let now = Instant::from_millis(100);
        assert_eq!(clock.age(now, 95), Some(Duration::from_millis(10)));
        assert_eq!(clock.age(now, 106), None);
        assert_eq!(clock.age(now, 0), None);
    }
}
