use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// Where a [`Fallback`](crate::Fallback) has its time from.
#[derive(Clone, Debug, Default)]
pub enum Clock {
    /// The system's monotonic clock. Reading it costs more than a poll, so it is read at every
    /// [`POLLS_PER_READING`]th only.
    #[default]
    Monotonic,
    /// Time that the client tells, at no cost: of a client that has no clock itself, or whose time is
    /// virtual.
    Driven(DrivenClock),
}

/// Polls between two readings of the system's clock: some 100 ns of polling in vain, and some
/// 100 ms for a client that sleeps for milliseconds between polls.
const POLLS_PER_READING: u32 = 32;

/// A clock that stands still until it is told the time. Its clones are the same clock.
#[derive(Clone, Debug, Default)]
pub struct DrivenClock(Arc<AtomicU64>);

impl DrivenClock {
    /// A clock that stands at zero.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Tells it the time since any fixed moment.
    pub fn set(&self, now: Duration) {
        // Relaxed: it orders nothing. 2^64 ns are 584 years.
        self.0.store(nanoseconds(now), Ordering::Relaxed);
    }

    fn now(&self) -> Duration {
        // Relaxed: as above.
        Duration::from_nanos(self.0.load(Ordering::Relaxed))
    }
}

/// As many as fit.
pub(super) fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// A [`Clock`] that a channel reads.
#[derive(Debug)]
pub(super) enum Time {
    Since(Instant),
    Driven(DrivenClock),
}

impl Time {
    pub(super) fn new(clock: &Clock) -> Self {
        match clock {
            Clock::Monotonic => Self::Since(Instant::now()),
            Clock::Driven(clock) => Self::Driven(clock.clone()),
        }
    }

    pub(super) fn now(&self) -> Duration {
        match self {
            Self::Since(start) => start.elapsed(),
            Self::Driven(clock) => clock.now(),
        }
    }

    pub(super) const fn is_driven(&self) -> bool {
        matches!(self, Self::Driven(_))
    }

    pub(super) const fn polls_per_reading(&self) -> u32 {
        if self.is_driven() { 1 } else { POLLS_PER_READING }
    }
}
