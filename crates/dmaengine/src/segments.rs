//! A large copy as a row of segments, so that its completed prefix can be used before its end.
//!
//! The state alone, without memory and without a channel: who has those asks [`Segments::next`] what
//! to submit, and tells what became of it.

use std::ops::Range;

use crate::Status;

/// The most segments of one copy in flight: the bits of a word. It is more than an engine works on
/// at a time, and leaves most of a ring to others.
const WINDOW: usize = 64;

/// What has become of a copy's segments.
///
/// ```text
///      usable prefix         ended, behind one that has not     in flight         not submitted
///   [ 0 .. prefix ) --- prefix --- bits of `ended` --- submitted --- next() --- segment count
/// ```
#[derive(Debug)]
pub(crate) struct Segments {
    len: usize,
    segment_len: usize,
    /// Segments that ended with success and have none before them that did not.
    prefix: usize,
    /// Segments that were submitted.
    submitted: usize,
    /// Bit `n`: segment `prefix + n` ended with success.
    ended: u64,
    in_flight: usize,
    /// How the first to fail failed; nothing more is submitted then.
    failure: Option<Status>,
}

impl Segments {
    /// A copy of `len` bytes in segments of `segment_len`; the last may be shorter.
    pub(crate) const fn new(len: usize, segment_len: usize) -> Self {
        Self { len, segment_len, prefix: 0, submitted: 0, ended: 0, in_flight: 0, failure: None }
    }

    /// The next segment to submit, with its number; `None` if there is none now.
    pub(crate) fn next(&self) -> Option<(usize, Range<usize>)> {
        let start = self.submitted.checked_mul(self.segment_len)?;
        let is_open = self.failure.is_none() && self.submitted - self.prefix < WINDOW;
        (is_open && start < self.len)
            .then(|| (self.submitted, start..self.len.min(start.saturating_add(self.segment_len))))
    }

    /// The segment that [`next`](Self::next) named was submitted.
    pub(crate) const fn submit(&mut self) {
        self.submitted += 1;
        self.in_flight += 1;
    }

    /// A segment that was submitted has ended.
    pub(crate) fn end(&mut self, segment: usize, status: Status) {
        self.in_flight -= 1;
        if status != Status::Success {
            self.fail(status);
            return;
        }
        // In the window: it was submitted, and a prefix does not pass a segment that has not ended.
        self.ended |= 1 << (segment - self.prefix);
        let run = self.ended.trailing_ones();
        self.ended = self.ended.checked_shr(run).unwrap_or(0);
        self.prefix += run as usize;
    }

    /// Nothing more is to be submitted.
    pub(crate) fn fail(&mut self, status: Status) {
        self.failure.get_or_insert(status);
    }

    /// The bytes from the start that are at the target, for good.
    pub(crate) fn ready(&self) -> usize {
        self.len.min(self.prefix.saturating_mul(self.segment_len))
    }

    /// The length of the whole copy in bytes.
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// How the first segment to fail failed.
    pub(crate) const fn failure(&self) -> Option<Status> {
        self.failure
    }

    /// Whether no segment is in flight and none will be.
    pub(crate) fn is_over(&self) -> bool {
        self.in_flight == 0 && (self.failure.is_some() || self.ready() == self.len)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Segments end in any order; one of them may fail.
        #[test]
        #[cfg_attr(miri, ignore = "long, and nothing unsafe")]
        fn the_prefix_is_what_ended_in_a_row(
            len in 1..5000_usize,
            segment_len in 1..200_usize,
            failing in prop::option::of(0..100_usize),
            choices in prop::collection::vec(any::<prop::sample::Index>(), 1..40),
        ) {
            let mut segments = Segments::new(len, segment_len);
            let mut in_flight = Vec::new();
            let mut ended = vec![false; len];
            for choice in choices.iter().cycle() {
                while let Some((segment, range)) = segments.next() {
                    prop_assert_eq!(range.start, segment * segment_len);
                    prop_assert!(range.end == len || range.len() == segment_len);
                    segments.submit();
                    in_flight.push((segment, range));
                }
                prop_assert!(in_flight.len() <= WINDOW);
                prop_assert_eq!(segments.is_over(), in_flight.is_empty());
                if in_flight.is_empty() {
                    break;
                }
                let (segment, range) = in_flight.swap_remove(choice.index(in_flight.len()));
                if failing == Some(segment) {
                    segments.end(segment, Status::ReadError);
                } else {
                    segments.end(segment, Status::Success);
                    ended[range].fill(true);
                }
                prop_assert_eq!(
                    segments.ready(),
                    ended.iter().position(|ended| !ended).unwrap_or(len)
                );
            }
            let failed = failing.is_some_and(|failing| failing < len.div_ceil(segment_len));
            prop_assert_eq!(segments.failure(), failed.then_some(Status::ReadError));
            prop_assert_eq!(segments.ready() == len, !failed);
        }
    }
}
