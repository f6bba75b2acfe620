//! What a reader pays to look at what the engine has copied.
//!
//! An engine leaves bytes outside the caches of the thread that reads them; where the CPU copies, they
//! are inside. A reader that looks at them pays for that, after the receive has returned; one that
//! hands them on does not. So of some receives a few lines are read and timed: right after the engine
//! has written them, which is what they cost the reader; and when the engine is about to write over
//! them, as the reader has left them. What it has looked at comes as fast as from a cache.
//!
//! Buffers that are longer than a cache are left out: of what the CPU has copied into them little is
//! still in the cache when the receive returns.
//!
//! The two look at different pages, so that neither finds what the other has fetched.

use std::time::Duration;

/// Reads a byte of each cache line, and tells how long that took.
pub type ReadLines = fn(&[u8]) -> Duration;

const PAGE: usize = 4096;
/// How much is looked at, at least, so that it can be timed; and at most, so that it is little beside the
/// receive.
const BYTES: (usize, usize) = (512, 2048);

/// What counts less than this beside lines that the engine has just written was in a cache.
const CACHED: f64 = 0.6;
/// How much of a new cost counts.
const WEIGHT: f64 = 1.0 / 4.0;
/// A cost that is so many times the known one is that of a thread that had lost its processor.
const OUTLIER: f64 = 4.0;

/// When lines are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    /// The engine has just written them.
    Written,
    /// It will write over them: so the reader has left what the engine wrote before.
    Left,
}

/// What is looked at of a piece of a buffer; `None` if it has too little.
pub(crate) fn lines(piece: &[u8], moment: Moment) -> Option<&[u8]> {
    let address = piece.as_ptr().addr();
    let to_next_page = PAGE - address % PAGE;
    let is_even = (address / PAGE).is_multiple_of(2);
    let (skip, page) = match is_even == (moment == Moment::Written) {
        true => (0, to_next_page),
        false => (to_next_page, PAGE),
    };
    let rest = piece.get(skip..)?;
    let len = rest.len().min(page).min(BYTES.1);
    (len >= BYTES.0).then(|| &rest[..len])
}

/// What looking at a byte has cost, in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading {
    written: Option<f64>,
    left: Option<f64>,
}

impl Reading {
    pub(crate) const fn new() -> Self {
        Self { written: None, left: None }
    }

    pub(crate) fn learn(&mut self, moment: Moment, bytes: usize, time: Duration) {
        let cost = time.as_nanos() as f64 / bytes as f64;
        let known = match moment {
            Moment::Written => &mut self.written,
            Moment::Left => &mut self.left,
        };
        let known = known.get_or_insert(cost);
        *known += WEIGHT * (cost.min(OUTLIER * *known) - *known);
    }

    /// What it costs the reader, in nanoseconds a byte, that the engine has copied; `None` before it is
    /// known, and of buffers that come again too late to tell. Those cost little: their lines have left
    /// the engine's own cache when they are read, one after the other, and are fetched ahead.
    pub(crate) fn cost(self) -> Option<f64> {
        let (written, left) = (self.written?, self.left?);
        Some(if left < CACHED * written { written - left } else { 0.0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[repr(align(8192))]
    struct Pages([u8; 4 * PAGE]);

    #[test]
    fn each_moment_has_pages_of_its_own() {
        let pages = Pages([0; 4 * PAGE]);
        let at = |range: std::ops::Range<usize>, moment| {
            let found = lines(&pages.0[range], moment)?;
            Some((found.as_ptr().addr() - pages.0.as_ptr().addr(), found.len()))
        };
        let both = |range: std::ops::Range<usize>| {
            (at(range.clone(), Moment::Written), at(range, Moment::Left))
        };
        assert_eq!(both(0..4 * PAGE), (Some((0, 2048)), Some((PAGE, 2048))));
        assert_eq!(both(PAGE..3 * PAGE), (Some((2 * PAGE, 2048)), Some((PAGE, 2048))));
        assert_eq!(both(100..1548), (Some((100, 1448)), None));
        assert_eq!(both(PAGE - 700..PAGE + 748), (Some((PAGE - 700, 700)), Some((PAGE, 748))));
        assert_eq!(both(PAGE - 511..PAGE + 511), (None, None));
        assert_eq!(both(0..0), (None, None));
    }

    #[test]
    fn what_is_not_looked_at_costs_nothing() {
        let mut reading = Reading::new();
        let mut learn = |moment, nanos| {
            (0..60).for_each(|_| reading.learn(moment, 1024, Duration::from_nanos(nanos)));
            reading.cost().map(|cost| (cost * 1024.0).round())
        };
        assert_eq!(learn(Moment::Left, 100), None);
        assert_eq!(learn(Moment::Written, 1000), Some(900.0), "it came from a cache");
        assert_eq!(learn(Moment::Left, 900), Some(0.0), "it did not");
        assert_eq!(learn(Moment::Left, 50), Some(950.0));
    }

    #[test]
    fn a_lost_processor_changes_little() {
        let mut reading = Reading::new();
        reading.learn(Moment::Written, 1000, Duration::from_nanos(500));
        assert_eq!(reading.cost(), None, "whether the reader looks is not known");
        reading.learn(Moment::Left, 1000, Duration::ZERO);
        reading.learn(Moment::Written, 1000, Duration::from_millis(1));
        assert!(reading.cost().is_some_and(|cost| (0.5..1.0).contains(&cost)), "{reading:?}");
    }
}
