//! Two strikes for a channel that makes no progress.

use std::time::Duration;

/// What is to be done about a channel that has work and stands still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Strike {
    /// Nothing yet.
    None,
    /// Ring the doorbell again: the device may have missed it.
    Doorbell,
    /// Reset it.
    Reset,
}

/// Whether a channel makes progress.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Watchdog {
    /// Since when it stands still, or its doorbell was rung again; `None` if it was not seen to.
    since: Option<Duration>,
    /// Its doorbell was rung again.
    struck: bool,
}

impl Watchdog {
    /// There was progress, or there is nothing to do.
    pub(crate) const fn progress(&mut self) {
        *self = Self { since: None, struck: false };
    }

    /// The channel has work at `now`, and will be asked about later.
    pub(crate) fn starts(&mut self, now: Duration) {
        self.since.get_or_insert(now);
    }

    /// The channel has work at `now`. The first call since there was progress starts the time.
    pub(crate) fn stands_still(&mut self, now: Duration, timeout: Duration) -> Strike {
        let since = *self.since.get_or_insert(now);
        if now.saturating_sub(since) < timeout {
            return Strike::None;
        }
        self.since = Some(now);
        if std::mem::replace(&mut self.struck, true) { Strike::Reset } else { Strike::Doorbell }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strikes_twice_and_forgets_with_progress() {
        const TIMEOUT: Duration = Duration::from_millis(10);
        let mut watchdog = Watchdog::default();
        for start in [1, 100_u64] {
            let mut at =
                |millis| watchdog.stands_still(Duration::from_millis(start + millis), TIMEOUT);
            let strikes = [0, 9, 10, 11, 19, 20].map(&mut at);
            let none = Strike::None;
            assert_eq!(strikes, [none, none, Strike::Doorbell, none, none, Strike::Reset]);
            watchdog.progress();
        }
        assert_eq!(watchdog.stands_still(Duration::ZERO, TIMEOUT), Strike::None);
        assert_eq!(watchdog.stands_still(TIMEOUT, TIMEOUT), Strike::Doorbell);
        watchdog.progress();
        assert_eq!(watchdog.stands_still(TIMEOUT * 3, TIMEOUT), Strike::None);
    }
}
