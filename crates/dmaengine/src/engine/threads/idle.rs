//! How long a worker without work looks for some before it sleeps.

use std::time::Duration;

/// The time that a worker spends looking, learnt from how long it has slept.
///
/// Looking costs a processor; sleeping costs the wake-up, which the client and the operation pay.
/// Who looks for as long as a wake-up costs, and then sleeps, never pays more than twice what it
/// would have paid had it known the future (the ski rental problem). That is the limit. It is in
/// vain where work always comes later, so there the time is halved with every such sleep, down to
/// what going to sleep costs by itself; and it is at the limit again after one sleep that came to an
/// end within it. (Linux's halt polling learns in the same way.)
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    limit: Duration,
    now: Duration,
}

impl Patience {
    /// What going to sleep costs: a `membarrier` and the call that parks.
    const LEAST: Duration = Duration::from_micros(10);

    /// Never more than `limit`, and this at first.
    pub(super) const fn new(limit: Duration) -> Self {
        Self { limit, now: limit }
    }

    /// How long to look this time.
    pub(super) const fn get(self) -> Duration {
        self.now
    }

    /// Learns that a worker which had run out of work and went to sleep got some after `gap`.
    pub(super) fn learn(&mut self, gap: Duration) {
        self.now = if gap <= self.limit {
            self.limit
        } else {
            (self.now / 2).max(Self::LEAST).min(self.limit)
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_micros(50);

    #[test]
    fn looking_in_vain_becomes_short_and_one_early_end_makes_it_long_again() {
        let mut patience = Patience::new(LIMIT);
        assert_eq!(patience.get(), LIMIT);
        patience.learn(LIMIT * 2);
        assert_eq!(patience.get(), LIMIT / 2);
        for _ in 0..10 {
            patience.learn(Duration::from_secs(1));
        }
        assert_eq!(patience.get(), Patience::LEAST);
        patience.learn(LIMIT);
        assert_eq!(patience.get(), LIMIT);
    }

    #[test]
    fn the_limit_holds() {
        for limit in [Duration::ZERO, Patience::LEAST / 2] {
            let mut patience = Patience::new(limit);
            for gap in [Duration::ZERO, limit, Duration::from_secs(1), Duration::MAX] {
                patience.learn(gap);
                assert_eq!(patience.get(), limit);
            }
        }
    }
}
