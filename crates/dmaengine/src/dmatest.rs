//! Copies and fills of random length and place, every byte checked: Linux's `dmatest`.
//!
//! Each test fills a source and a target buffer with patterns that tell every byte's place and
//! fate, has a random part of one copied to a random place in the other, and checks all of both:
//! that the source is unchanged, that what was to be copied arrived, in order, and that no byte
//! before or after it was touched.
//!
//! ```
//! use dmaengine::{Arena, DmaDevice, ThreadsDevice, dmatest};
//!
//! let channel = ThreadsDevice::new(1).request_channel(0)?;
//! let params = dmatest::Params { iterations: 100, ..dmatest::Params::default() };
//! let summary = dmatest::run(channel, &Arena::new(1 << 20)?, &params, |_| ())?;
//! assert_eq!((summary.tests, summary.failures), (100, 0));
//! println!("{summary}");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod pattern;
mod result;

use std::time::{Duration, Instant};

pub use self::{
    pattern::{Buffer, Mismatch},
    result::{Cause, Failure, Summary},
};
use crate::{
    Arena, ArenaFull, Channel, DmaBuf, DmaSlice, Done, Queue, Refused, Status, SubmitError,
    random::SplitMix64,
};

/// How many failures a [`Summary`] describes; more are only counted (Linux prints as many).
const MAX_FAILURES: usize = 32;

/// What is tested.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Operation {
    /// Copies.
    #[default]
    Memcpy,
    /// Fills with a random pattern of 8 bytes.
    Memset,
}

/// How it is tested. The names and defaults are Linux's, where it has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Params {
    /// What is tested.
    pub operation: Operation,
    /// Tests per thread.
    pub iterations: u64,
    /// Operations in flight at a time, each with buffers of its own.
    pub threads_per_chan: usize,
    /// The length of the buffers, in bytes. Operations are of 1 up to this many.
    pub test_buf_size: usize,
    /// Completions are polled for, and not waited for with the channel's event.
    pub polled: bool,
    /// Where the random numbers begin: the same seed makes the same tests.
    pub seed: u64,
    /// How long an operation may take.
    pub timeout: Duration,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            operation: Operation::Memcpy,
            iterations: 1000,
            threads_per_chan: 1,
            test_buf_size: 16384,
            polled: false,
            seed: 1,
            timeout: Duration::from_secs(3),
        }
    }
}

/// How far a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Tests that have ended.
    pub tests: u64,
    /// Tests in all.
    pub total: u64,
    /// Tests that failed.
    pub failures: u64,
}

/// Why nothing was tested.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RunError {
    /// A parameter is zero that must not be.
    #[error("threads per channel and buffer size must be at least 1")]
    Zero,
    /// A buffer of this size does not fit the channel's ring.
    #[error(transparent)]
    TooLong(#[from] SubmitError),
    /// The arena has no room for the buffers.
    #[error(transparent)]
    ArenaFull(#[from] ArenaFull),
}

/// Runs the tests on `channel`, with buffers out of `arena`, which is mapped for the channel's
/// device. `progress` is called after each round of operations.
///
/// A run ends early, with [`Summary::stuck`] set, if the channel can neither finish nor stop.
///
/// # Errors
///
/// [`RunError`]: nothing was tested. Failed tests are no error; [`Summary::failures`] counts them.
pub fn run(
    channel: impl Into<Channel>,
    arena: &Arena,
    params: &Params,
    mut progress: impl FnMut(Progress),
) -> Result<Summary, RunError> {
    let mut run = Run::new(channel.into(), arena, params)?;
    let total = params.iterations.saturating_mul(params.threads_per_chan as u64);
    while run.started < total && !run.summary.stuck {
        run.round(total);
        let Summary { tests, failures, .. } = run.summary;
        progress(Progress { tests, total, failures });
    }
    Ok(run.summary)
}

/// One operation to be tested.
#[derive(Clone, Copy, Debug)]
struct Test {
    /// From 1 on.
    number: u64,
    source_offset: usize,
    target_offset: usize,
    len: usize,
    /// Of a fill.
    pattern: u64,
}

/// The memory of one operation at a time: what Linux has a thread for.
#[derive(Debug)]
struct Buffers {
    source: DmaBuf,
    target: DmaBuf,
}

/// An operation that has ended: what it was, how it ended, and its buffers.
type Ended = Done<DmaSlice, DmaSlice, (Test, DmaBuf)>;

struct Run<'a> {
    params: &'a Params,
    /// A fill's source buffer, which is not to change, travels with its tag.
    queue: Queue<DmaSlice, DmaSlice, (Test, DmaBuf)>,
    /// Not in flight.
    idle: Vec<Buffers>,
    started: u64,
    random: SplitMix64,
    /// Spent between submission and the last completion, without filling and checking.
    busy: Duration,
    bytes: u64,
    summary: Summary,
}

impl<'a> Run<'a> {
    fn new(channel: Channel, arena: &Arena, params: &'a Params) -> Result<Self, RunError> {
        let len = params.test_buf_size;
        if len == 0 || params.threads_per_chan == 0 {
            return Err(RunError::Zero);
        }
        let info = channel.info();
        if info.descriptors(len) > info.ring_size {
            let max = info.xfercap.get().saturating_mul(info.ring_size);
            return Err(RunError::TooLong(SubmitError::TooLong { len, max }));
        }
        let idle = (0..params.threads_per_chan)
            .map(|_| Ok(Buffers { source: arena.alloc(len)?, target: arena.alloc(len)? }))
            .collect::<Result<_, ArenaFull>>()?;
        let summary = Summary::new(channel.name().to_owned(), params.operation);
        Ok(Self {
            params,
            queue: Queue::new(channel),
            idle,
            started: 0,
            random: SplitMix64::new(params.seed),
            busy: Duration::ZERO,
            bytes: 0,
            summary,
        })
    }

    /// Tests once with each of the buffers: fills, operates, checks.
    fn round(&mut self, total: u64) {
        let count = (total - self.started).min(self.idle.len() as u64) as usize;
        let mut prepared: Vec<(Test, Buffers)> = Vec::with_capacity(count);
        for mut buffers in self.idle.drain(..count).collect::<Vec<_>>() {
            let test = self.next_test();
            pattern::fill_source(&mut buffers.source, test.source_range());
            pattern::fill_target(&mut buffers.target, test.target_range());
            prepared.push((test, buffers));
        }
        let mut ended = Vec::with_capacity(count);

        let start = Instant::now();
        for (test, buffers) in prepared {
            if let Err((cause, buffers)) = self.submit(test, buffers, &mut ended) {
                self.summary.fail(test, cause);
                self.idle.push(buffers);
            }
        }
        let in_time = self.wait(&mut ended);
        self.busy += start.elapsed();

        let timely = ended.len();
        if !in_time {
            self.terminate(&mut ended);
        }
        for (index, done) in ended.into_iter().enumerate() {
            self.check(done, index < timely);
        }
        self.summary.rate(self.busy, self.bytes);
    }

    fn submit(
        &mut self,
        test: Test,
        buffers: Buffers,
        ended: &mut Vec<Ended>,
    ) -> Result<(), (Cause, Buffers)> {
        let Buffers { mut source, mut target } = buffers;
        loop {
            let to = target.slice(test.target_range());
            let submitted = match self.params.operation {
                Operation::Memcpy => {
                    let from = source.slice(test.source_range());
                    self.queue.copy(from, to, (test, DmaBuf::default()))
                }
                Operation::Memset => self.queue.fill(test.pattern, to, (test, source)),
            };
            let Err(Refused { error, source: from, target: to, tag: (_, kept) }) = submitted else {
                return Ok(());
            };
            target = to.into_inner();
            source = match self.params.operation {
                Operation::Memcpy => from.into_inner(),
                Operation::Memset => kept,
            };
            // More threads than the ring has room for: some take turns.
            if error != SubmitError::RingFull || self.queue.is_idle() || !self.wait(ended) {
                return Err((Cause::Submit(error), Buffers { source, target }));
            }
        }
    }

    /// Waits until nothing is in flight; `false` if that takes too long.
    fn wait(&mut self, ended: &mut Vec<Ended>) -> bool {
        let timeout = self.params.timeout;
        if !self.params.polled {
            return self.queue.wait(timeout, |done| ended.push(done)).is_ok();
        }
        self.queue.issue_pending();
        let start = Instant::now();
        loop {
            self.queue.poll(|done| ended.push(done));
            if self.queue.is_idle() {
                return true;
            }
            if start.elapsed() >= timeout {
                return false;
            }
            std::hint::spin_loop();
        }
    }

    /// Gets back what is in flight after a timeout.
    fn terminate(&mut self, ended: &mut Vec<Ended>) {
        if self.queue.terminate_sync(self.params.timeout, |done| ended.push(done)).is_err() {
            self.summary.stuck = true;
            let lost = self.queue.in_flight() as u64;
            self.summary.tests += lost;
            self.summary.failures += lost;
        }
    }

    /// Checks the buffers of an operation that has ended, `timely` or because it was terminated.
    fn check(&mut self, done: Ended, timely: bool) {
        let Done { status, source, target, tag: (test, kept), .. } = done;
        let source = match self.params.operation {
            Operation::Memcpy => source.into_inner(),
            Operation::Memset => kept,
        };
        let buffers = Buffers { source, target: target.into_inner() };
        let outcome = match status {
            _ if !timely => Err(Cause::TimedOut),
            Status::Success => self.verify(&test, &buffers),
            status => Err(Cause::Completion(status)),
        };
        match outcome {
            Ok(()) => {
                self.summary.tests += 1;
                self.bytes += test.len as u64;
            }
            Err(cause) => self.summary.fail(test, cause),
        }
        self.idle.push(buffers);
    }

    fn verify(&self, test: &Test, buffers: &Buffers) -> Result<(), Cause> {
        let (from, to) = (test.source_range(), test.target_range());
        let source = pattern::check_source(&buffers.source, from);
        let target = match self.params.operation {
            Operation::Memcpy => pattern::check_copied(&buffers.target, to, test.source_offset),
            Operation::Memset => pattern::check_filled(&buffers.target, to, test.pattern),
        };
        match source.or(target) {
            None => Ok(()),
            Some(first) => Err(Cause::Data(first)),
        }
    }

    fn next_test(&mut self) -> Test {
        let size = self.params.test_buf_size;
        let len = 1 + self.random.below(size);
        let (source_offset, target_offset) =
            (self.random.below(size - len + 1), self.random.below(size - len + 1));
        self.started += 1;
        Test {
            number: self.started,
            source_offset,
            target_offset,
            len,
            pattern: self.random.next(),
        }
    }
}

impl Test {
    const fn source_range(&self) -> std::ops::Range<usize> {
        self.source_offset..self.source_offset + self.len
    }

    const fn target_range(&self) -> std::ops::Range<usize> {
        self.target_offset..self.target_offset + self.len
    }
}

#[cfg(test)]
mod tests;
