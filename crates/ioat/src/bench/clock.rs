//! A clock fine enough for parts of a loop that take some nanoseconds.

use std::time::{Duration, Instant};

/// The processor's time stamp counter, in *ticks*; on other processors the system's clock, whose
/// ticks are nanoseconds.
///
/// Reading it takes about as long as submitting a copy. What it takes is measured first and is not
/// counted by [`since`](Self::since).
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    ns_per_tick: f64,
    /// Between two readings with nothing in between.
    cost_ticks: u64,
}

impl Clock {
    /// How long ticks are compared with the system's clock: two readings of that are some 50 ns off.
    const CALIBRATION: Duration = Duration::from_millis(20);

    /// Measures the clock itself.
    #[must_use]
    pub fn calibrate() -> Self {
        let (start, first) = (Instant::now(), Self::now());
        while start.elapsed() < Self::CALIBRATION {
            std::hint::spin_loop();
        }
        let (time, last) = (start.elapsed(), Self::now());
        let ns_per_tick = time.as_nanos() as f64 / (last - first).max(1) as f64;
        Self { ns_per_tick, cost_ticks: Self::cost_ticks() }
    }

    /// The median of many short runs: an interrupt in one of them changes nothing.
    fn cost_ticks() -> u64 {
        const RUNS: usize = 1001;
        const READINGS: u64 = 16;
        let mut runs: Vec<u64> = (0..RUNS)
            .map(|_| {
                let start = Self::now();
                let mut end = start;
                for _ in 0..READINGS {
                    end = Self::now();
                }
                (end - start) / READINGS
            })
            .collect();
        runs.sort_unstable();
        runs[RUNS / 2]
    }

    /// Ticks since some moment in the past.
    #[cfg(target_arch = "x86_64")]
    #[inline]
    #[must_use]
    pub fn now() -> u64 {
        let mut cpu = 0;
        // Unlike rdtsc it waits for the loads before it: the cache miss of a poll belongs to the
        // poll, not to what comes after it.
        // SAFETY: every x86-64 processor that runs Linux in user space has it, and it only writes
        // `cpu`.
        unsafe { std::arch::x86_64::__rdtscp(&raw mut cpu) }
    }

    /// Ticks since some moment in the past.
    #[cfg(not(target_arch = "x86_64"))]
    #[inline]
    #[must_use]
    pub fn now() -> u64 {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        // Since the machine started: neither part is negative.
        time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()
    }

    /// The ticks between two readings, without what the reading took.
    #[inline]
    #[must_use]
    pub const fn since(&self, start: u64, end: u64) -> u64 {
        end.saturating_sub(start).saturating_sub(self.cost_ticks)
    }

    /// Ticks in nanoseconds.
    #[must_use]
    pub fn ns(&self, ticks: u64) -> f64 {
        ticks as f64 * self.ns_per_tick
    }

    /// A duration in ticks.
    #[must_use]
    pub fn ticks(&self, duration: Duration) -> u64 {
        (duration.as_nanos() as f64 / self.ns_per_tick) as u64
    }

    /// What a reading takes, in nanoseconds.
    #[must_use]
    pub fn cost_ns(&self) -> f64 {
        self.ns(self.cost_ticks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_forward_and_its_own_time_is_not_counted() {
        let clock = Clock { ns_per_tick: 0.5, cost_ticks: 40 };
        assert_eq!(clock.since(1000, 1100), 60);
        assert_eq!(clock.since(1000, 1039), 0);
        assert_eq!(clock.since(1000, 900), 0);
        assert_eq!((clock.ns(60), clock.cost_ns()), (30.0, 20.0));
        assert_eq!(clock.ticks(Duration::from_micros(1)), 2000);
        let start = Clock::now();
        assert!(Clock::now() >= start);
        let calibrated = Clock::calibrate();
        assert!(calibrated.ns_per_tick > 0.0 && calibrated.cost_ticks > 0, "{calibrated:?}");
    }
}
