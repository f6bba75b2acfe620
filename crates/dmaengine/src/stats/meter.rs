use std::{sync::Arc, time::Instant};

use super::ChannelStats;
use crate::{Completion, Cookie, OperationKind, Status};

/// One in this many operations is timed. Two looks at the clock, about 20 ns each, are then less
/// than 1 ns per operation.
const TIMED: u32 = 64;

/// The least distance between two cookies that are timed (see [`is_timed`]; a test tells).
const TIMED_APART: u64 = 34;

/// Whether an operation is timed.
///
/// The cookies' multiples of the golden ratio are spread as evenly as can be, whatever the length
/// of a client's batches: every place in a batch has its turn. To take each 64th would always time
/// the first of a batch of 32. And it is decided without looking at what is in flight: a sample that
/// waited for the last one to end would leave out most of those that wait long.
#[inline]
const fn is_timed(cookie: Cookie) -> bool {
    /// 2^32 divided by the golden ratio, odd.
    const GOLDEN: u32 = 0x9e37_79b1;

    (cookie.get() as u32).wrapping_mul(GOLDEN) < u32::MAX / TIMED
}

/// The writer's side of [`ChannelStats`]: who owns the channel counts here.
#[derive(Debug)]
pub(crate) struct Meter {
    stats: Arc<ChannelStats>,
    /// When the timed operations in flight were submitted. As many places, a power of two, as
    /// operations in flight can be timed.
    started: Box<[Option<(Cookie, Instant)>]>,
}

impl Meter {
    /// Counts in `stats` for a channel with a ring of `ring_size`.
    pub(crate) fn new(stats: Arc<ChannelStats>, ring_size: usize) -> Self {
        let places = (ring_size / TIMED_APART as usize + 1).next_power_of_two();
        Self { stats, started: vec![None; places].into() }
    }

    pub(crate) const fn stats(&self) -> &Arc<ChannelStats> {
        &self.stats
    }

    /// Counts an operation that was submitted; `depth` are now in flight.
    #[inline]
    pub(crate) fn count_submit(&mut self, cookie: Cookie, kind: OperationKind, depth: usize) {
        self.stats.operations[kind as usize].submitted.add(1);
        if is_timed(cookie) {
            self.start(cookie, depth);
        }
    }

    /// Counts the end of an operation whose submission was counted, once.
    #[inline]
    pub(crate) fn count_end(&mut self, kind: OperationKind, completion: &Completion) {
        let operation = &self.stats.operations[kind as usize];
        operation.ended[completion.status as usize].add(1);
        operation.bytes.add(completion.bytes as u64);
        if let Some(cause) = completion.fallback {
            operation.fallbacks[cause as usize].add(1);
        }
        if is_timed(completion.cookie) {
            self.end(completion.cookie, kind);
        }
    }

    /// For many ends with success at once.
    #[inline]
    pub(crate) const fn tally(&mut self) -> Tally<'_> {
        Tally { meter: self, kind: OperationKind::Memcpy, count: 0, bytes: 0 }
    }

    /// Notes that `depth` operations are in flight.
    #[inline]
    pub(crate) fn note_depth(&self, depth: usize) {
        self.stats.max_depth.raise(depth as u64);
    }

    #[cold]
    fn start(&mut self, cookie: Cookie, depth: usize) {
        self.stats.depth.record(depth as u64);
        *self.place(cookie) = Some((cookie, Instant::now()));
    }

    #[cold]
    fn end(&mut self, cookie: Cookie, kind: OperationKind) {
        // Another's place only if the driver has more in flight than it said: it goes untimed.
        if let Some((_, start)) = self.place(cookie).take_if(|(started, _)| *started == cookie) {
            // More than 584 years are not told apart.
            let nanoseconds = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
            self.stats.operations[kind as usize].latency_ns.record(nanoseconds);
        }
    }

    fn place(&mut self, cookie: Cookie) -> &mut Option<(Cookie, Instant)> {
        let places = self.started.len();
        // Timed cookies lie further apart, so neighbours have different places.
        &mut self.started[(cookie.get() / TIMED_APART) as usize % places]
    }
}

/// Counts ends with success in registers, as long as they are of one kind, and in the channel's
/// counters when they are of another, or when it is dropped.
#[derive(Debug)]
pub(crate) struct Tally<'a> {
    meter: &'a mut Meter,
    kind: OperationKind,
    count: u64,
    bytes: u64,
}

impl Tally<'_> {
    /// As [`Meter::count_end`], of an operation of `len` bytes that the engine did.
    #[inline]
    pub(crate) fn count(&mut self, cookie: Cookie, kind: OperationKind, len: usize) {
        if kind != self.kind {
            self.flush();
            self.kind = kind;
        }
        self.count += 1;
        self.bytes += len as u64;
        if is_timed(cookie) {
            self.meter.end(cookie, kind);
        }
    }

    fn flush(&mut self) {
        let operation = &self.meter.stats.operations[self.kind as usize];
        operation.ended[Status::Success as usize].add(self.count);
        operation.bytes.add(self.bytes);
        (self.count, self.bytes) = (0, 0);
    }
}

impl Drop for Tally<'_> {
    fn drop(&mut self) {
        self.flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FallbackCause;

    /// The cookies that are timed, from `first` on.
    fn timed(first: u64) -> impl Iterator<Item = Cookie> {
        (0..).map(move |at: u64| Cookie::new(first.wrapping_add(at))).filter(|&it| is_timed(it))
    }

    #[test]
    fn timed_operations_are_one_in_64_and_neither_crowded_nor_rare() {
        // Across the wrap of the hash's 32 bits, and of the cookies.
        for first in [1, u64::from(u32::MAX) - 50_000, u64::MAX - 50_000] {
            let mut last = None;
            for cookie in timed(first).take(2000) {
                let apart = last.and_then(|last| cookie.since(last));
                // Where 2^32 wraps, the pattern begins anew: a little less, once.
                assert!(apart.is_none_or(|apart| (TIMED_APART - 1..=89).contains(&apart)));
                last = Some(cookie);
            }
            let length = last.unwrap().since(Cookie::new(first)).unwrap();
            assert!((63..=65).contains(&(length / 2000)), "{length}");
        }
    }

    #[test]
    fn every_place_in_a_batch_is_timed_as_often() {
        for batch in [2, 8, 32, 64, 100, 128] {
            let mut times = vec![0; batch];
            timed(1).take(batch * 100).for_each(|it| times[it.get() as usize % batch] += 1);
            assert!(times.iter().all(|times| (80..=120).contains(times)), "{batch}: {times:?}");
        }
    }

    #[test]
    fn what_is_timed_has_a_latency_and_a_depth() {
        let stats = Arc::new(ChannelStats::default());
        let mut meter = Meter::new(Arc::clone(&stats), 1024);
        let cookies: Vec<_> = (1..=1024).map(Cookie::new).collect();
        for (&cookie, depth) in cookies.iter().zip(1..) {
            meter.count_submit(cookie, OperationKind::Xor, depth);
        }
        meter.note_depth(1024);
        // As an out-of-order engine ends them.
        for &cookie in cookies.iter().rev() {
            meter.count_end(OperationKind::Xor, &Completion::success(cookie, 10));
        }
        // A second end of the same: a driver's defect, counted but timed once.
        cookies.iter().for_each(|&cookie| meter.end(cookie, OperationKind::Xor));
        let snapshot = stats.snapshot();
        let timed = cookies.iter().filter(|&&cookie| is_timed(cookie)).count() as u64;
        assert!(timed >= 15);
        assert_eq!(snapshot.operation(OperationKind::Xor).latency_ns.count(), timed);
        assert_eq!(snapshot.operation(OperationKind::Pq).latency_ns.count(), 0);
        assert_eq!((snapshot.depth.now, snapshot.depth.max), (0, 1024));
        assert_eq!(snapshot.depth.distribution.count(), timed);
        assert!(snapshot.depth.distribution.quantile(0.0).unwrap() >= 1);
        assert_eq!(snapshot.bytes_transferred(), 10 * 1024);
    }

    #[test]
    fn who_reads_meanwhile_never_sees_a_counter_go_back() {
        let stats = Arc::new(ChannelStats::default());
        let mut meter = Meter::new(Arc::clone(&stats), 4);
        std::thread::scope(|scope| {
            let writer = scope.spawn(move || {
                for cookie in (1..=100_000).map(Cookie::new) {
                    meter.count_submit(cookie, OperationKind::Memset, 1);
                    meter.note_depth(1);
                    meter.count_end(OperationKind::Memset, &Completion::success(cookie, 3));
                }
            });
            let mut last = stats.snapshot();
            while !writer.is_finished() {
                let now = stats.snapshot();
                assert!(now.submitted() >= last.submitted() && now.completed() >= last.completed());
                assert!(now.bytes_transferred() >= last.bytes_transferred());
                last = now;
            }
        });
        let last = stats.snapshot();
        assert_eq!((last.completed(), last.bytes_transferred()), (100_000, 300_000));
        assert_eq!((last.depth.now, last.depth.max), (0, 1));
    }

    #[test]
    fn successes_that_are_counted_together_are_counted_as_one_by_one() {
        use OperationKind::{Memcpy, Memset, Xor};
        let kinds = [Memset, Memcpy, Memcpy, Xor, Xor, Memcpy].into_iter().cycle().take(600);
        let count = |together: bool| {
            let stats = Arc::new(ChannelStats::default());
            let mut meter = Meter::new(Arc::clone(&stats), 1024);
            for (kind, at) in kinds.clone().zip(1..) {
                meter.count_submit(Cookie::new(at), kind, at as usize);
            }
            let mut tally = meter.tally();
            for (kind, at) in kinds.clone().zip(1..).filter(|_| together) {
                tally.count(Cookie::new(at), kind, at as usize);
            }
            drop(tally);
            for (kind, at) in kinds.clone().zip(1..).filter(|_| !together) {
                meter.count_end(kind, &Completion::success(Cookie::new(at), at as usize));
            }
            stats.snapshot().operations.map(|of_kind| {
                (of_kind.submitted, of_kind.completed(), of_kind.bytes, of_kind.latency_ns.count())
            })
        };
        assert_eq!(count(true), count(false));
        assert_eq!(count(true)[Memcpy as usize].1, 300);
    }

    #[test]
    fn ends_are_counted_by_kind_status_and_cause() {
        let stats = Arc::new(ChannelStats::default());
        let mut meter = Meter::new(Arc::clone(&stats), 8);
        meter.count_submit(Cookie::new(1), OperationKind::Memcpy, 1);
        meter.count_submit(Cookie::new(2), OperationKind::Memset, 2);
        meter.count_submit(Cookie::new(3), OperationKind::MemcpySg, 3);
        let fallback = Some(FallbackCause::Failed);
        for (kind, status, bytes, fallback) in [
            (OperationKind::Memcpy, Status::Success, 100, fallback),
            (OperationKind::Memset, Status::DeviceLost, 7, None),
        ] {
            let completion = Completion { cookie: Cookie::FIRST, status, bytes, fallback };
            meter.count_end(kind, &completion);
        }
        let snapshot = stats.snapshot();
        assert_eq!((snapshot.submitted(), snapshot.memcpy_count()), (3, 2));
        assert_eq!((snapshot.completed(), snapshot.failed()), (2, 1));
        assert_eq!((snapshot.ended(Status::DeviceLost), snapshot.ended(Status::Aborted)), (1, 0));
        assert_eq!((snapshot.bytes_transferred(), snapshot.depth.now), (107, 1));
        assert_eq!(snapshot.fallbacks(FallbackCause::Failed), 1);
        assert_eq!(snapshot.fallbacks(FallbackCause::RingFull), 0);
        let memset = snapshot.operation(OperationKind::Memset);
        assert_eq!(
            (memset.submitted, memset.completed(), memset.failed(), memset.bytes),
            (1, 1, 1, 7)
        );
        assert_eq!(memset.fallbacks(FallbackCause::Failed), 0);
        // The same, without a snapshot.
        assert_eq!((stats.submitted(), stats.memcpy_count(), stats.completed()), (3, 2, 2));
        assert_eq!((stats.failed(), stats.ended(Status::DeviceLost)), (1, 1));
        assert_eq!(stats.bytes_transferred(), 107);
    }
}
