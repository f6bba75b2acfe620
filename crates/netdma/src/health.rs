//! Whether the engine is trusted for the moment.

use std::time::Duration;

use netstack::Instant;

/// How long the engine rests after its first failure. A failure costs a CPU copy and possibly a
/// channel restart (some microseconds to milliseconds), so this bounds its share.
const FIRST_REST: Duration = Duration::from_millis(1);

/// The longest rest. One failure must never disable the engine for good.
const LONGEST_REST: Duration = Duration::from_secs(1);

/// The rest of an engine that could not be reset. Trying to holds everything up for the time that a
/// reset may take, so that this bounds its share to some hundredths.
const REST_AFTER_FAILED_RESET: Duration = Duration::from_secs(10);

/// A circuit breaker: after a failure the engine rests, longer each time it fails again.
#[derive(Debug)]
pub(crate) struct Health {
    rest: Duration,
    resting_until: Option<Instant>,
}

impl Health {
    pub(crate) const fn new() -> Self {
        Self { rest: FIRST_REST, resting_until: None }
    }

    /// Whether copies may be given to the engine.
    pub(crate) fn is_trusted(&mut self, now: Instant) -> bool {
        match self.resting_until {
            Some(until) if now < until => false,
            _ => {
                self.resting_until = None;
                true
            }
        }
    }

    /// A copy failed. Several that fail together count once.
    pub(crate) fn failed(&mut self, now: Instant) {
        if self.resting_until.is_none() {
            self.resting_until = Some(now + self.rest);
            self.rest = (self.rest * 2).min(LONGEST_REST);
        }
    }

    /// It could not be reset, which took until `now`.
    pub(crate) fn reset_failed(&mut self, now: Instant) {
        self.resting_until = Some(now + REST_AFTER_FAILED_RESET);
        self.rest = LONGEST_REST;
    }

    /// A copy succeeded.
    pub(crate) fn succeeded(&mut self) {
        if self.resting_until.is_none() {
            self.rest = FIRST_REST;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rests_longer_each_time_and_always_comes_back() {
        let mut health = Health::new();
        let mut now = Instant::from(Duration::from_secs(1));
        let mut rests = Vec::new();
        for _ in 0..14 {
            assert!(health.is_trusted(now));
            health.failed(now);
            health.failed(now);
            let failed_at = now;
            while !health.is_trusted(now) {
                now += Duration::from_micros(500);
            }
            rests.push(now - failed_at);
        }
        assert_eq!(rests[0], FIRST_REST);
        assert_eq!(rests[1], FIRST_REST * 2);
        assert_eq!(*rests.last().unwrap(), LONGEST_REST);
        health.succeeded();
        health.failed(now);
        assert!(health.is_trusted(now + FIRST_REST));
    }
}
