//! Finding operations that do not end.

use std::time::Duration;

use crate::Cookie;

/// Slower than any engine, in bytes a millisecond: what an engine has to move before an operation
/// ends is allowed so much time besides the time-out.
const SLOWEST: usize = 100_000;

/// Finds an operation that has been with the engine for too long, without a time for each.
///
/// At some reading of the clock it *marks* operations. When all of those have ended it marks again.
/// If one has not after the time-out, it is overdue, however many others have ended meanwhile.
///
/// Of an engine that ends in order the oldest operation is marked: it can only wait for itself. Of
/// another all are, since each may be the one that others hide. One that comes just after a mark is
/// then found after two time-outs at the latest.
#[derive(Debug)]
pub(super) struct Watch {
    timeout: Duration,
    /// Polls since the clock was read.
    polls: u32,
    mark: Option<Mark>,
}

#[derive(Clone, Copy, Debug)]
struct Mark {
    /// The first operation that does not belong to it.
    end: Cookie,
    /// When one that does is overdue.
    due: Duration,
}

/// What an engine has to do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    /// The oldest operation that has not ended.
    pub(super) oldest: Cookie,
    /// After the last operation that would be marked now.
    pub(super) end: Cookie,
    /// Bytes that those to be marked move.
    pub(super) bytes: usize,
}

impl Watch {
    pub(super) const fn new(timeout: Duration) -> Self {
        Self { timeout, polls: 0, mark: None }
    }

    /// Counts a poll; whether it is time to read the clock.
    pub(super) const fn count_poll(&mut self, polls_per_reading: u32) -> bool {
        self.polls = self.polls.saturating_add(1);
        self.polls >= polls_per_reading
    }

    /// Has the clock read at the next poll.
    pub(super) const fn hasten(&mut self) {
        self.polls = u32::MAX - 1;
    }

    /// When something is overdue, at the earliest.
    pub(super) fn due(&self) -> Option<Duration> {
        self.mark.map(|mark| mark.due)
    }

    /// The clock was read: whether an operation is overdue. `load` is `None` if the doorbell has
    /// rung for none that has not ended.
    pub(super) fn check(&mut self, now: Duration, load: Option<Load>) -> bool {
        self.polls = 0;
        if let (Some(load), Some(mark)) = (load, self.mark)
            && load.oldest.is_before(mark.end)
        {
            return now >= mark.due;
        }
        self.mark = load.map(|Load { end, bytes, .. }| {
            let moving = Duration::from_millis((bytes / SLOWEST) as u64);
            Mark { end, due: now + self.timeout + moving }
        });
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_millis(200);

    const fn at(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    /// Cookies that wrap.
    const fn cookie(number: u64) -> Cookie {
        Cookie::new((u64::MAX - 10).wrapping_add(number))
    }

    fn load(oldest: u64, end: u64, bytes: usize) -> Option<Load> {
        Some(Load { oldest: cookie(oldest), end: cookie(end), bytes })
    }

    #[test]
    fn progress_of_others_hides_nothing() {
        let mut watch = Watch::new(TIMEOUT);
        assert!(!watch.check(at(0), load(1, 4, 0)));
        for (now, overdue) in [(100, false), (199, false), (200, true)] {
            // Everything after operation 2 ends.
            assert_eq!(watch.check(at(now), load(2, 4 + now, 0)), overdue);
        }
    }

    #[test]
    fn one_that_comes_after_a_mark_is_found_after_two_timeouts() {
        let mut watch = Watch::new(TIMEOUT);
        assert!(!watch.check(at(0), load(1, 2, 0)));
        assert!(!watch.check(at(199), load(2, 3, 0)), "the first has ended");
        assert_eq!(watch.due(), Some(at(399)));
        assert!(!watch.check(at(398), load(2, 30, 0)));
        assert!(watch.check(at(399), load(2, 30, 0)));
    }

    #[test]
    fn much_to_do_takes_longer() {
        let mut watch = Watch::new(TIMEOUT);
        assert!(!watch.check(at(0), load(1, 2, 1 << 30)));
        assert!(!watch.check(at(10_000), load(1, 2, 1 << 30)));
        assert!(watch.check(at(11_000), load(1, 2, 1 << 30)));
    }

    #[test]
    fn with_nothing_to_do_nothing_is_due() {
        let mut watch = Watch::new(TIMEOUT);
        assert!(!watch.check(at(0), load(1, 2, 0)));
        assert!(!watch.check(at(1000), None), "it has ended");
        assert_eq!(watch.due(), None);
        assert!(!watch.check(at(2000), load(2, 3, 0)));
        assert_eq!(watch.due(), Some(at(2200)));
    }
}
