use std::time::Duration;

use crate::Instant;

/// Limits a rate, and lets a burst pass.
#[derive(Debug)]
pub(super) struct TokenBucket {
    interval: Duration,
    burst: u32,
    /// When the bucket would have been empty if every token had been taken when it came.
    used_until: Instant,
}

impl TokenBucket {
    /// One token per `interval`, and at most `burst` at a time.
    pub(super) const fn new(interval: Duration, burst: u32) -> Self {
        Self { interval, burst, used_until: Instant::ZERO }
    }

    /// Takes a token, if there is one.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let used_until = self.used_until.max(now) + self.interval;
        let permits = used_until - now <= self.interval * self.burst;
        if permits {
            self.used_until = used_until;
        }
        permits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_the_rate() {
        let mut bucket = TokenBucket::new(Duration::from_millis(10), 3);
        let taken = |bucket: &mut TokenBucket, now| (0..10).filter(|_| bucket.take(now)).count();
        assert_eq!(taken(&mut bucket, Instant::from_millis(5)), 3);
        assert_eq!(taken(&mut bucket, Instant::from_millis(14)), 0);
        assert_eq!(taken(&mut bucket, Instant::from_millis(25)), 2);
        assert_eq!(taken(&mut bucket, Instant::from_millis(1000)), 3);
    }
}
