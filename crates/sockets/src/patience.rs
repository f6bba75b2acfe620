//! Whether a thread looks for the end of copies or sleeps until an event tells it.

use std::time::Duration;

/// How long the driver looks for the end of an engine's copies before it sleeps, learnt from how long
/// such copies take.
///
/// Looking costs the time that the engine takes; sleeping costs what it takes to fall asleep and to
/// wake up again, which in a virtual machine is more than the copy of 64 KiB. So short waits are
/// looked through and long ones slept through. What was expected to be short and is not ends in
/// sleep as well: never more than [`LIMIT`](Self::LIMIT) twice is lost. A sleeping thread does not
/// see when the engine was done; so now and then one that expects a long wait looks all the same.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// What copying a byte takes, on average, as the driver sees it.
    nanos_per_byte: f64,
    /// Expected long waits until one is looked through.
    until_look: u32,
    /// As many it will be after that.
    interval: u32,
}

impl Patience {
    /// What sleeping costs the thread: some 5 µs on bare metal, 15 to 20 µs in a virtual machine, where
    /// an idle processor is given back to the host.
    pub(crate) const LIMIT: Duration = Duration::from_micros(20);

    /// Expected long waits between two that are looked through, at most. The first come sooner: what
    /// seemed long may have been a thread that had lost its processor.
    const INTERVAL_MAX: u32 = 64;

    /// How much a wait counts in the average.
    const WEIGHT: f64 = 1.0 / 8.0;

    /// For how long to look for the end of `bytes` in flight.
    pub(crate) fn look_for(&mut self, bytes: usize) -> Duration {
        if self.expected(bytes) <= Self::LIMIT {
            return 2 * Self::LIMIT;
        }
        if self.until_look > 0 {
            self.until_look -= 1;
            return Duration::ZERO;
        }
        self.until_look = self.interval;
        self.interval = (2 * self.interval).min(Self::INTERVAL_MAX);
        Self::LIMIT
    }

    /// The driver looked for `looked`, and saw copies of `ended` of the `in_flight` bytes end; 0 if it
    /// gave up.
    pub(crate) fn learn(&mut self, in_flight: usize, ended: usize, looked: Duration) {
        // A thread that has lost its processor meanwhile has not seen the engine.
        let looked = looked.min(4 * Self::LIMIT).as_nanos() as f64;
        let sample = match ended {
            // It takes longer than that; how long is not known.
            0 => (2.0 * looked / in_flight.max(1) as f64).max(self.nanos_per_byte),
            ended => looked / ended as f64,
        };
        self.nanos_per_byte += (sample - self.nanos_per_byte) * Self::WEIGHT;
        // Not only that something ended: the whole would have been worth looking.
        if ended > 0 && sample * in_flight as f64 <= Self::LIMIT.as_nanos() as f64 {
            (self.until_look, self.interval) = (0, 1);
        }
    }

    fn expected(&self, bytes: usize) -> Duration {
        Duration::from_nanos((self.nanos_per_byte * bytes as f64) as u64)
    }
}

impl Default for Patience {
    /// Expects 10 GB/s: a processor's copy of cold memory.
    fn default() -> Self {
        Self { nanos_per_byte: 0.1, until_look: 1, interval: 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: usize = 64 << 10;
    const LONG: usize = 1 << 20;

    #[test]
    fn short_waits_are_looked_through_and_long_ones_slept() {
        let mut patience = Patience::default();
        assert!(patience.look_for(SHORT) > Patience::LIMIT);
        assert_eq!(patience.look_for(LONG), Duration::ZERO);
        assert!(patience.look_for(SHORT) > Patience::LIMIT);
    }

    #[test]
    fn an_engine_that_is_slow_is_soon_slept_through() {
        let mut patience = Patience::default();
        let mut looks = 0;
        for _ in 0..1000 {
            let looked = patience.look_for(SHORT);
            looks += u32::from(looked > Duration::ZERO);
            patience.learn(SHORT, 0, looked);
        }
        assert!((16..48).contains(&looks), "{looks}: some at first, then one of 65");
    }

    #[test]
    fn an_engine_that_has_become_fast_is_found_out() {
        let mut patience = Patience::default();
        for _ in 0..100 {
            let looked = patience.look_for(SHORT);
            patience.learn(SHORT, 0, looked);
        }
        // The next wait that is looked through tells, and so does each after it.
        let mut slept = 0;
        loop {
            let looked = patience.look_for(SHORT);
            if looked > Patience::LIMIT {
                break;
            }
            if looked.is_zero() {
                slept += 1;
            } else {
                patience.learn(SHORT, SHORT, Duration::from_micros(6));
            }
            assert!(slept < 2 * Patience::INTERVAL_MAX, "{patience:?}");
        }
    }

    #[test]
    fn one_long_look_changes_little() {
        let mut patience = Patience::default();
        patience.learn(SHORT, SHORT, Duration::from_millis(10));
        assert!(patience.look_for(SHORT) > Patience::LIMIT);
    }

    #[test]
    fn a_few_long_looks_are_soon_forgotten() {
        let mut patience = Patience::default();
        for _ in 0..3 {
            patience.learn(SHORT, SHORT, Duration::from_millis(10));
        }
        let mut slept = 0;
        for _ in 0..100 {
            match patience.look_for(SHORT) {
                Duration::ZERO => slept += 1,
                _ => patience.learn(SHORT, SHORT, Duration::from_micros(6)),
            }
        }
        assert!(slept <= 4, "{slept} of 100");
    }

    #[test]
    fn a_part_that_ends_soon_does_not_make_the_whole_short() {
        let mut patience = Patience::default();
        let mut looks = 0;
        for _ in 0..1000 {
            if patience.look_for(LONG) > Duration::ZERO {
                looks += 1;
                patience.learn(LONG, SHORT, Duration::from_micros(6));
            }
        }
        assert!(looks < 32, "{looks} of 1000");
    }
}
