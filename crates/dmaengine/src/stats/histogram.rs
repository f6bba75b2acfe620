//! How often which value was seen: log-linear buckets, as those of HDR histograms.

use std::ops::RangeInclusive;

use super::counter::Counter;

/// Buckets in each power of two, as a logarithm: a bucket is at most 1/32 of its values wide.
const STEPS_LOG2: u32 = 5;
const STEPS: usize = 1 << STEPS_LOG2;

/// Values of this many bits and more are counted as the greatest below: 18 minutes in nanoseconds.
const MAX_BITS: u32 = 40;

/// Two rows of exact values, then one for each further power of two.
const BUCKETS: usize = STEPS * (MAX_BITS - STEPS_LOG2 + 1) as usize;

/// The bucket of a value. Below `2 * STEPS` the value itself; above, its leading bits.
const fn bucket(value: u64) -> usize {
    let value = if value >> MAX_BITS == 0 { value } else { (1 << MAX_BITS) - 1 };
    let bits = u64::BITS - value.leading_zeros();
    let shift = bits.saturating_sub(STEPS_LOG2 + 1);
    shift as usize * STEPS + (value >> shift) as usize
}

/// The values of a bucket.
const fn values(bucket: usize) -> RangeInclusive<u64> {
    let shift = (bucket / STEPS).saturating_sub(1);
    let first = ((bucket - shift * STEPS) as u64) << shift;
    first..=first + (1 << shift) - 1
}

/// Written by one thread, read by any.
#[derive(Debug)]
pub(super) struct Histogram(Box<[Counter; BUCKETS]>);

impl Default for Histogram {
    fn default() -> Self {
        Self(Box::new([const { Counter::new() }; BUCKETS]))
    }
}

impl Histogram {
    pub(super) fn record(&self, value: u64) {
        self.0[bucket(value)].add(1);
    }

    pub(super) fn snapshot(&self) -> Distribution {
        let mut counts: Vec<u64> = self.0.iter().map(Counter::get).collect();
        let used = counts.iter().rposition(|&count| count != 0).map_or(0, |last| last + 1);
        counts.truncate(used);
        Distribution { counts: counts.into() }
    }
}

/// How often which value was seen, at one moment. A value is known to within 1/32 of itself; below
/// 64 it is exact.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Distribution {
    /// By bucket, as far as there are any.
    counts: Box<[u64]>,
}

// Percentiles of some hundred counts are one loop: a histogram crate would be given each count only
// to do the same.
impl Distribution {
    /// Values seen.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The least value (rounded up, within the precision) that the part `quantile` of all values
    /// does not exceed: 0.5 is the median, 0.999 is p99.9. `None` if nothing was seen.
    #[must_use]
    pub fn quantile(&self, quantile: f64) -> Option<u64> {
        let count = self.count();
        // The rank, from 1 on. Not a number is the smallest.
        let rank = ((quantile * count as f64).ceil() as u64).clamp(1, count.max(1));
        let mut seen = 0;
        self.buckets().find_map(|(values, count)| {
            seen += count;
            (seen >= rank).then_some(*values.end())
        })
    }

    /// The mean of all values, within the precision; `None` if nothing was seen.
    #[must_use]
    pub fn mean(&self) -> Option<f64> {
        let middle = |values: &RangeInclusive<u64>| (*values.start() + *values.end()) as f64 / 2.0;
        let sum: f64 = self.buckets().map(|(values, count)| middle(&values) * count as f64).sum();
        let count = self.count();
        (count != 0).then(|| sum / count as f64)
    }

    /// The values that were seen, in ascending order, and how often: what a picture is made of.
    pub fn buckets(&self) -> impl Iterator<Item = (RangeInclusive<u64>, u64)> {
        let counts = self.counts.iter().enumerate();
        counts.filter(|&(_, &count)| count != 0).map(|(at, &count)| (values(at), count))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn buckets_follow_each_other_without_a_gap() {
        let mut next = 0;
        for at in 0..BUCKETS {
            assert_eq!((*values(at).start(), bucket(next)), (next, at));
            next = *values(at).end() + 1;
            assert_eq!(bucket(next - 1), at);
        }
        assert_eq!(next, 1 << MAX_BITS);
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn of_nothing_there_is_no_quantile() {
        let nothing = Histogram::default().snapshot();
        assert_eq!((nothing.count(), nothing.quantile(0.5), nothing.mean()), (0, None, None));
    }

    #[test]
    fn ranks_at_the_ends() {
        let histogram = Histogram::default();
        (1..=10).for_each(|value| histogram.record(value));
        let seen = histogram.snapshot();
        for (quantile, value) in
            [(0.0, 1), (0.1, 1), (0.11, 2), (0.5, 5), (1.0, 10), (7.0, 10), (f64::NAN, 1)]
        {
            assert_eq!(seen.quantile(quantile), Some(value), "{quantile}");
        }
        assert_eq!(seen.mean(), Some(5.5));
        assert_eq!(seen.buckets().nth(3), Some((4..=4, 1)));
    }

    proptest! {
        /// Against the sorted values themselves.
        #[test]
        #[cfg_attr(miri, ignore = "long, and nothing unsafe")]
        fn quantiles_are_those_of_the_values(
            mut seen in prop::collection::vec(0..1u64 << MAX_BITS, 1..200),
            quantile in 0.0..1.0f64,
        ) {
            let histogram = Histogram::default();
            seen.iter().for_each(|&value| histogram.record(value));
            seen.sort_unstable();
            let rank = ((quantile * seen.len() as f64).ceil() as usize).max(1);
            let exact = seen[rank - 1];
            let found = histogram.snapshot().quantile(quantile).unwrap();
            prop_assert!(found >= exact && found - exact <= exact >> STEPS_LOG2, "{found} {exact}");
        }
    }
}
