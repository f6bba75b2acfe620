//! How much of a call's copies the engine gets, so that it and the CPU end together.
//!
//! A reader that waits for the engine alone has saved nothing: it looks on while the engine takes as
//! long as the CPU would have. So of what a call takes off the queue before it returns, the front goes
//! to the engine, the CPU copies the back, and both are done at the same time. A receive that nobody
//! waits for, because its buffer was posted ahead of the data or has room for more, is in no such
//! hurry: all of it is the engine's. Only when that has a [backlog](Share::BACKLOG) the CPU
//! [helps](Share::HELP): not with as much as it could, since the thread that posts its buffers ahead
//! wants to be spared, but such that a stream runs faster than the engine copies.
//!
//! How fast the two are is learned from the calls: whenever the engine is seen to end late, its rate and
//! the CPU's are known. When it is not late it may be faster than thought, and gets a little more.

use std::time::Duration;

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Share {
    /// By the logarithm to base 2 of a call's bytes.
    classes: [Class; usize::BITS as usize],
    /// What the CPU takes for a byte, in nanoseconds.
    cpu_ns_per_byte: Option<f64>,
    /// What the CPU owes the engine, in bytes.
    owed: usize,
}

/// What calls of about the same length have taught.
#[derive(Clone, Copy, Debug)]
struct Class {
    /// For the engine, of 1.
    share: f64,
    /// Calls until an engine that was left out gets a piece again.
    rest: u32,
    /// As many it will be after that.
    interval: u32,
}

/// A call's copies that are shared, as far as they are done.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shared {
    /// What was to be copied.
    pub(crate) bytes: usize,
    /// What the engine had to do before.
    pub(crate) backlog: usize,
    /// What of that was the CPU's.
    pub(crate) cpu_bytes: usize,
    /// When the first was given to the engine, by the clock of the work.
    pub(crate) start: Duration,
    /// When the CPU was done with its part.
    pub(crate) cpu_end: Duration,
}

impl Share {
    /// The smallest piece of a segment that is worth an operation of its own.
    pub(crate) const PIECE_MIN: usize = 4 << 10;

    /// With so many bytes in flight an engine is late: some 50 µs of copying, which is longer than
    /// falling asleep and waking up takes, and shorter than programs notice.
    pub(crate) const BACKLOG: usize = 512 << 10;
    /// A late engine is helped with one byte of so many.
    pub(crate) const HELP: usize = 8;

    /// How much of what is learned from a late end counts.
    const WEIGHT: f64 = 1.0 / 8.0;
    /// What the engine gets more after it was not late.
    const STEP: f64 = 1.0 / 256.0;
    /// Calls for which an engine is left out whose share is less than a piece, at first and at most: if
    /// it has to wait for this thread's processor, each try costs two changes between threads.
    const INTERVALS: (u32, u32) = (32, 8192);

    /// An engine that can do all.
    pub(crate) const fn new() -> Self {
        let class = Class { share: 1.0, rest: 0, interval: Self::INTERVALS.0 };
        Self { classes: [class; usize::BITS as usize], cpu_ns_per_byte: None, owed: 0 }
    }

    /// How many of `bytes` the engine gets that are all that a call still takes, and is to return with.
    /// `backlog` is what the engine has to do before.
    pub(crate) fn of(&self, bytes: usize, backlog: usize) -> usize {
        // Both rates give: (backlog + x) / engine = (bytes - x) / cpu.
        let of_all = (self.classes[class(bytes)].share * (bytes + backlog) as f64) as usize;
        of_all.saturating_sub(backlog).min(bytes)
    }

    /// How many of `bytes` the engine gets that nobody waits for.
    pub(crate) fn of_unawaited(&mut self, bytes: usize, backlog: usize) -> usize {
        if backlog < Self::BACKLOG {
            return bytes;
        }
        self.owed += bytes / Self::HELP;
        // What is too little for a piece is paid with a later segment.
        if self.owed < bytes.min(Self::PIECE_MIN) {
            return bytes;
        }
        let paid = self.owed.min(bytes);
        self.owed -= paid;
        bytes - paid
    }

    /// The CPU has looked for the engine's end, which was no later than `end`. `is_late`: it had to
    /// wait for it.
    pub(crate) fn learn(&mut self, shared: &Shared, end: Duration, is_late: bool) {
        let Shared { bytes, backlog, cpu_bytes, start, cpu_end } = *shared;
        let nanos = |from: Duration, to: Duration| to.saturating_sub(from).as_nanos() as f64;
        if cpu_bytes >= Self::PIECE_MIN {
            // A thread that has lost its processor meanwhile would be taken for a slow copy.
            let seen = nanos(start, cpu_end) / cpu_bytes as f64;
            let known = self.cpu_ns_per_byte.get_or_insert(seen);
            *known += Self::WEIGHT * (seen.min(4.0 * *known) - *known);
        }
        let Class { share, rest, interval } = &mut self.classes[class(bytes)];
        if !is_late {
            *share = (*share + Self::STEP).min(1.0);
            *interval = Self::INTERVALS.0;
            return;
        }
        let engine_bytes = (bytes + backlog).saturating_sub(cpu_bytes).max(1);
        let engine = nanos(start, end) / engine_bytes as f64;
        // Before the CPU's rate is known it is taken for as fast.
        let cpu = self.cpu_ns_per_byte.unwrap_or(engine).max(f64::MIN_POSITIVE);
        let ideal = cpu / (cpu + engine);
        *share += Self::WEIGHT * (ideal - *share);
        if (*share * bytes as f64) < Self::PIECE_MIN as f64 {
            *rest = *interval;
            *interval = (2 * *interval).min(Self::INTERVALS.1);
        }
    }

    /// The engine had no part, because its share was too small: now and then it gets one again.
    pub(crate) fn was_left_out(&mut self, bytes: usize) {
        let class = &mut self.classes[class(bytes)];
        class.rest = class.rest.saturating_sub(1);
        if class.rest == 0 {
            let two_pieces = 2.0 * Self::PIECE_MIN as f64 / bytes as f64;
            class.share = class.share.max(two_pieces.min(0.5));
        }
    }
}

fn class(bytes: usize) -> usize {
    bytes.max(1).ilog2() as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEN: usize = 64 << 10;

    /// So many calls on a machine with these costs of a byte in nanoseconds, and a delay of the engine.
    fn calls(share: &mut Share, count: u32, cpu: f64, engine: f64, delay: f64) {
        for _ in 0..count {
            let engine_bytes = share.of(LEN, 0);
            let cpu_bytes = LEN - engine_bytes;
            if engine_bytes < Share::PIECE_MIN {
                share.was_left_out(LEN);
                continue;
            }
            let time = |nanos: f64| Duration::from_nanos(1000 + nanos as u64);
            let cpu_end = time(cpu * cpu_bytes as f64);
            let end = time(delay + engine * engine_bytes as f64);
            let shared = Shared { bytes: LEN, backlog: 0, cpu_bytes, start: time(0.0), cpu_end };
            share.learn(&shared, end.max(cpu_end), end > cpu_end);
        }
    }

    fn of_engine(share: &Share) -> f64 {
        share.of(LEN, 0) as f64 / LEN as f64
    }

    #[test]
    fn both_end_together_whatever_they_were_thought_to_be() {
        let mut share = Share::new();
        for (cpu, engine, delay, ideal) in [
            (0.1, 0.1, 0.0, 0.5),
            (0.1, 0.3, 0.0, 0.25),
            (0.3, 0.1, 0.0, 0.75),
            // 0.1 (1 - s) LEN = 1000 + 0.1 s LEN
            (0.1, 0.1, 1000.0, 0.424),
        ] {
            calls(&mut share, 400, cpu, engine, delay);
            let got = of_engine(&share);
            assert!((got - ideal).abs() < 0.05, "{cpu} {engine} {delay}: {got}, not {ideal}");
        }
    }

    #[test]
    fn what_the_engine_has_to_do_already_counts() {
        let mut share = Share::new();
        calls(&mut share, 400, 0.1, 0.1, 0.0);
        let alone = share.of(LEN, 0);
        let behind = share.of(LEN, 16 << 10);
        assert!((behind + (8 << 10)).abs_diff(alone) < 1 << 10, "{behind}, {alone} without");
        assert_eq!(share.of(LEN, 1 << 20), 0, "it would be late");
    }

    #[test]
    fn an_engine_that_is_far_too_slow_is_left_out_and_comes_back() {
        let mut share = Share::new();
        calls(&mut share, 200, 0.1, 0.1, 1e5);
        let mut tries = 0;
        for _ in 0..20_000 {
            tries += u32::from(share.of(LEN, 0) >= Share::PIECE_MIN);
            calls(&mut share, 1, 0.1, 0.1, 1e5);
        }
        assert!((1..60).contains(&tries), "{tries} of 20,000");
        calls(&mut share, 9000, 0.1, 0.1, 0.0);
        assert!(of_engine(&share) > 0.4, "{}", of_engine(&share));
    }

    #[test]
    fn one_call_that_lost_its_processor_changes_little() {
        let mut share = Share::new();
        calls(&mut share, 400, 0.1, 0.1, 0.0);
        let before = of_engine(&share);
        calls(&mut share, 1, 0.1, 0.1, 1e7);
        assert!(of_engine(&share) > 0.8 * before);
    }

    #[test]
    fn a_late_engine_is_helped_with_an_eighth() {
        for segment in [1448, 5000, LEN] {
            let mut share = Share::new();
            assert_eq!(share.of_unawaited(segment, Share::BACKLOG - 1), segment, "it is not late");
            let engines: usize =
                (0..1000).map(|_| share.of_unawaited(segment, Share::BACKLOG)).sum();
            let of_cpu = 1.0 - engines as f64 / (1000 * segment) as f64;
            assert!((0.12..0.13).contains(&of_cpu), "{segment}: {of_cpu}");
        }
    }
}
