//! Whether an engine is trusted for the moment.

use std::time::Duration;

/// How long an engine rests after its first failure. A failure costs a CPU copy and possibly a
/// channel restart (some microseconds to milliseconds), so this bounds its share.
const FIRST_REST: Duration = Duration::from_millis(1);

/// The longest rest. One failure must never disable the engine for good.
const LONGEST_REST: Duration = Duration::from_secs(1);

/// The rest of an engine that could not be reset. Trying to holds everything up for the time that a
/// reset may take, so that this bounds its share to some hundredths.
const REST_AFTER_FAILED_RESET: Duration = Duration::from_secs(10);

/// A circuit breaker between a client and an engine that may fail.
///
/// ```text
///            failed                    rest over
///   closed ----------> open until ... -----------> half open: one probe is with the engine
///     ^                   ^                            |            |
///     |                   `------- failed: longer -----'            |
///     `---------------------- the probe succeeded ------------------'
/// ```
///
/// *Closed*, everything goes to the engine. *Open*, nothing does. *Half open*, one operation does,
/// and everything else waits for what becomes of it: an engine that hangs costs one operation's
/// time-out, not a ring's.
///
/// Rests grow from 1 ms to 1 s for as long as the engine fails again before it has worked for longer
/// than it rested; an engine that works and then hangs, in turns, is found out too. After a reset
/// that failed the rest is 10 s.
///
/// It has no clock: `now` is the time since any fixed moment.
///
/// ```
/// use std::time::Duration;
/// use dmaengine::Breaker;
///
/// let mut breaker = Breaker::new();
/// let now = Duration::from_secs(1);
/// assert!(breaker.admits(now));
/// breaker.failed(now);
/// assert!(!breaker.admits(now), "it rests");
/// let later = now + Duration::from_millis(1);
/// assert!(breaker.admits(later), "the probe");
/// assert!(!breaker.admits(later), "only one");
/// breaker.succeeded(later);
/// assert!(breaker.is_closed());
/// ```
#[derive(Clone, Debug)]
pub struct Breaker {
    state: State,
    /// The last one; zero before the first.
    rest: Duration,
    /// When it was last closed.
    closed_at: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Closed,
    Open { until: Duration },
    HalfOpen,
}

impl Default for Breaker {
    fn default() -> Self {
        Self::new()
    }
}

impl Breaker {
    /// A breaker that is closed.
    #[must_use]
    pub const fn new() -> Self {
        Self { state: State::Closed, rest: Duration::ZERO, closed_at: Duration::ZERO }
    }

    /// Whether the engine is trusted with everything.
    #[must_use]
    pub const fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    /// Whether a probe is with the engine.
    #[must_use]
    pub const fn is_half_open(&self) -> bool {
        matches!(self.state, State::HalfOpen)
    }

    /// Whether an operation may be given to the engine. After a rest it may once: the breaker is
    /// half open then, and hears of that operation by [`succeeded`](Self::succeeded),
    /// [`failed`](Self::failed) or [`withdraw_probe`](Self::withdraw_probe).
    #[must_use]
    pub fn admits(&mut self, now: Duration) -> bool {
        match self.state {
            State::Closed => true,
            State::Open { until } if until <= now => {
                self.state = State::HalfOpen;
                true
            }
            State::Open { .. } | State::HalfOpen => false,
        }
    }

    /// The probe came to nothing that says anything of the engine: it was refused, or given up. The
    /// next operation is the probe.
    pub const fn withdraw_probe(&mut self) {
        if self.is_half_open() {
            self.state = State::Open { until: Duration::ZERO };
        }
    }

    /// The probe succeeded. Nothing else that succeeds closes the breaker: it may have been given to
    /// the engine before it failed.
    pub const fn succeeded(&mut self, now: Duration) {
        if self.is_half_open() {
            self.state = State::Closed;
            self.closed_at = now;
        }
    }

    /// An operation failed. Several that fail together count once.
    pub fn failed(&mut self, now: Duration) {
        self.rest = match self.state {
            State::Open { .. } => return,
            State::Closed if now.saturating_sub(self.closed_at) > self.rest => FIRST_REST,
            State::Closed | State::HalfOpen => (self.rest * 2).clamp(FIRST_REST, LONGEST_REST),
        };
        self.state = State::Open { until: now + self.rest };
    }

    /// The engine could not be reset.
    pub fn reset_failed(&mut self, now: Duration) {
        self.rest = LONGEST_REST;
        self.state = State::Open { until: now + REST_AFTER_FAILED_RESET };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lets it rest until it admits a probe; how long that took.
    fn rest(breaker: &mut Breaker, now: &mut Duration) -> Duration {
        let from = *now;
        while !breaker.admits(*now) {
            *now += Duration::from_micros(500);
        }
        *now - from
    }

    #[test]
    fn rests_longer_each_time_and_always_comes_back() {
        let mut breaker = Breaker::new();
        let mut now = Duration::from_secs(1);
        let mut rests = Vec::new();
        breaker.failed(now);
        for _ in 0..14 {
            breaker.failed(now);
            rests.push(rest(&mut breaker, &mut now));
            assert!(breaker.is_half_open());
            breaker.failed(now);
        }
        assert_eq!(rests[..3], [1, 2, 4].map(|factor| FIRST_REST * factor));
        assert_eq!(rests[13], LONGEST_REST);
    }

    #[test]
    fn half_open_it_admits_one_until_that_has_succeeded() {
        let mut breaker = Breaker::new();
        let mut now = Duration::from_secs(1);
        breaker.failed(now);
        breaker.succeeded(now);
        assert!(!breaker.is_closed(), "what was given to it earlier says nothing");
        rest(&mut breaker, &mut now);
        assert!(!breaker.admits(now + LONGEST_REST));
        breaker.withdraw_probe();
        assert!(breaker.admits(now), "the next one is the probe");
        breaker.succeeded(now);
        assert!(breaker.is_closed() && breaker.admits(now) && breaker.admits(now));
    }

    #[test]
    fn an_engine_that_fails_soon_after_its_probe_rests_longer_and_one_that_worked_does_not() {
        let mut breaker = Breaker::new();
        let mut now = Duration::from_secs(1);
        for rests in 0..4 {
            breaker.failed(now);
            assert_eq!(rest(&mut breaker, &mut now), FIRST_REST * (1 << rests));
            breaker.succeeded(now);
        }
        now += FIRST_REST * 9;
        breaker.failed(now);
        assert_eq!(rest(&mut breaker, &mut now), FIRST_REST);
    }

    #[test]
    fn after_a_failed_reset_it_rests_longest() {
        let mut breaker = Breaker::new();
        let mut now = Duration::from_secs(1);
        breaker.failed(now);
        breaker.reset_failed(now);
        assert_eq!(rest(&mut breaker, &mut now), REST_AFTER_FAILED_RESET);
        breaker.failed(now);
        assert_eq!(rest(&mut breaker, &mut now), LONGEST_REST);
    }
}
