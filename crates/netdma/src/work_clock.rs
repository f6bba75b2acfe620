use std::time::Duration;

/// The clock by which work is timed: it runs while a call does, other than the `now` that calls are
/// given.
#[derive(Clone, Copy, Debug, Default)]
pub enum WorkClock {
    /// It stands still, and nothing is learned from how long things take: decisions depend on nothing
    /// but the calls. For simulations.
    #[default]
    Still,
    /// This function tells the time since any fixed moment.
    Running(fn() -> Duration),
}

impl WorkClock {
    pub(crate) const fn stands_still(self) -> bool {
        matches!(self, Self::Still)
    }

    pub(crate) fn now(self) -> Duration {
        match self {
            Self::Still => Duration::ZERO,
            Self::Running(now) => now(),
        }
    }
}
