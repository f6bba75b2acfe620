//! Operations of random length and place, every byte checked: Linux's `dmatest`.
//!
//! Each test fills its buffers with patterns that tell every byte's place and fate, has an operation
//! done on a random part of them, and checks all of all of them: that the sources are unchanged,
//! that what was to be written was, in order, and that no byte before or after it was touched.
//!
//! | [`Operation`] | what is done |
//! | --- | --- |
//! | `Memcpy` | a copy |
//! | `Memset` | a fill with 8 random bytes |
//! | `Xor` | the exclusive or of [`xor_sources`](Params::xor_sources) sources; if the channel has `xor_val`, it then checks that parity itself, as it is and with a byte of it changed |
//! | `Pq` | P and Q of [`pq_sources`](Params::pq_sources) sources; with `pq_val` likewise, with a byte of P, of Q or of both changed |
//!
//! The parameters' names are Linux's, and so are the defaults but for `iterations`. Three mean something
//! else here:
//!
//! * `threads_per_chan`: a channel belongs to one thread, so what Linux has threads for are
//!   operations in flight together, each with buffers of its own;
//! * `timeout`: there is always one;
//! * `iterations`: 1000 unless told otherwise; 0, for ever, which is Linux's default, is for
//!   [`run_while`].
//!
//! ```
//! use dmaengine::{Arena, DmaDevice, ThreadsDevice, dmatest};
//!
//! let channel = ThreadsDevice::new(1).request_channel(0)?;
//! let params = dmatest::Params { iterations: 100, ..dmatest::Params::default() };
//! let summary = dmatest::run(channel, &Arena::new(params.arena_len())?, &params, |_| ())?;
//! assert_eq!((summary.tests, summary.failures), (100, 0));
//! println!("{summary}");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod buffers;
mod params;
mod pattern;
mod result;

use std::{
    ops::ControlFlow,
    time::{Duration, Instant},
};

use self::buffers::{Buffers, Lists, Step, Test};
pub use self::{
    params::{Operation, Params, RunError},
    pattern::{Buffer, Mismatch},
    result::{Cause, Summary, TestResult},
};
use crate::{Arena, Channel, Done, Flags, Queue, Refused, Status, SubmitError, random::SplitMix64};

/// How many failures a [`Summary`] describes; more are only counted (Linux prints as many).
const MAX_FAILURES: usize = 32;

/// How far a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress<'a> {
    /// Tests that have ended.
    pub tests: u64,
    /// Tests in all; `None` if there is no end.
    pub total: Option<u64>,
    /// Tests that failed.
    pub failures: u64,
    /// The tests that have ended since the last call.
    pub results: &'a [TestResult],
}

/// Runs the tests on `channel`, with buffers out of `arena`, which is mapped for the channel's
/// device and has [`Params::arena_len`] bytes free. `progress` is called after each round of
/// operations.
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
    mut progress: impl FnMut(Progress<'_>),
) -> Result<Summary, RunError> {
    if params.iterations == 0 {
        return Err(RunError::Endless);
    }
    run_while(channel, arena, params, |now| {
        progress(now);
        ControlFlow::Continue(())
    })
}

/// As [`run`], until `progress` breaks it off; with `iterations` 0 nothing else ends it.
///
/// # Errors
///
/// As for [`run`].
pub fn run_while(
    channel: impl Into<Channel>,
    arena: &Arena,
    params: &Params,
    mut progress: impl FnMut(Progress<'_>) -> ControlFlow<()>,
) -> Result<Summary, RunError> {
    let mut run = Run::new(channel.into(), arena, params)?;
    let total = (params.iterations > 0)
        .then(|| params.iterations.saturating_mul(params.threads_per_chan as u64));
    while total.is_none_or(|total| run.started < total) && !run.summary.stuck {
        let results = run.round(total);
        let Summary { tests, failures, .. } = run.summary;
        if progress(Progress { tests, total, failures, results: &results }).is_break() {
            break;
        }
    }
    Ok(run.summary)
}

struct Run<'a> {
    params: &'a Params,
    /// The tag tells the operation's place in its batch.
    queue: Queue<(), Buffers, usize>,
    /// Not in flight.
    idle: Vec<Buffers>,
    lists: Lists,
    /// The channel can check what it has computed.
    has_check: bool,
    /// All places and lengths are multiples of it.
    alignment: usize,
    started: u64,
    random: SplitMix64,
    /// Spent between submission and the last completion, without filling and checking.
    busy: Duration,
    /// Operations that have ended well, and their bytes.
    operations: u64,
    bytes: u64,
    summary: Summary,
}

/// An operation that is over, with its buffers unless the channel still has them.
struct Ended {
    test: Test,
    outcome: Result<Status, Cause>,
    buffers: Option<Buffers>,
}

impl<'a> Run<'a> {
    fn new(channel: Channel, arena: &Arena, params: &'a Params) -> Result<Self, RunError> {
        params.check(channel.info())?;
        let idle = (0..params.threads_per_chan)
            .map(|_| Buffers::new(arena, params))
            .collect::<Result<_, _>>()?;
        let has_check = params.can_check(channel.info());
        let alignment = params.alignment(channel.info());
        let summary = Summary::of_channel(channel.name(), params.operation);
        Ok(Self {
            params,
            queue: Queue::new(channel),
            idle,
            lists: Lists::new(params.buffers().0),
            has_check,
            alignment,
            started: 0,
            random: SplitMix64::new(params.seed),
            busy: Duration::ZERO,
            operations: 0,
            bytes: 0,
            summary,
        })
    }

    /// Tests once with each of the buffers: fills, operates, checks.
    fn round(&mut self, total: Option<u64>) -> Vec<TestResult> {
        let left = total.map_or(u64::MAX, |total| total - self.started);
        let count = left.min(self.idle.len() as u64) as usize;
        let mut prepared: Vec<_> = self.idle.drain(..count).collect();
        let mut batch = Vec::with_capacity(count);
        for mut buffers in prepared.drain(..) {
            let test = self.next_test();
            if !self.params.noverify {
                buffers.fill(&test);
            }
            batch.push((test, buffers));
        }
        let mut results = Vec::with_capacity(count);
        let mut steps = vec![Step::Compute];
        if self.has_check && !self.params.noverify {
            steps.extend([Step::Check, Step::CheckDamaged(self.random.next())]);
        }
        for (index, &step) in steps.iter().enumerate() {
            let last = index + 1 == steps.len();
            for Ended { test, outcome, buffers } in self.batch(std::mem::take(&mut batch), step) {
                let judged = outcome.and_then(|status| {
                    buffers
                        .as_ref()
                        .map_or(Ok(()), |buffers| self.judge(&test, buffers, step, status))
                });
                if judged.is_ok() {
                    self.operations += 1;
                    self.bytes += test.len as u64;
                }
                match (judged, buffers) {
                    (Ok(()), Some(mut buffers)) if !last => {
                        if let Step::CheckDamaged(seed) = steps[index + 1] {
                            buffers.damage(&test, seed);
                        }
                        batch.push((test, buffers));
                    }
                    (judged, buffers) => {
                        self.idle.extend(buffers);
                        results.push(self.summary.count(&test, judged));
                    }
                }
            }
        }
        results.sort_by_key(|result| result.test);
        self.summary.rate(self.busy, self.operations, self.bytes);
        results
    }

    /// Has one step of each test done, all together, and measures it.
    fn batch(&mut self, batch: Vec<(Test, Buffers)>, step: Step) -> Vec<Ended> {
        let mut ended: Vec<Ended> = batch
            .iter()
            .map(|(test, _)| Ended { test: *test, outcome: Err(Cause::TimedOut), buffers: None })
            .collect();
        let start = Instant::now();
        for (index, (test, buffers)) in batch.into_iter().enumerate() {
            if let Err((cause, buffers)) = self.submit(index, &test, buffers, step, &mut ended) {
                (ended[index].outcome, ended[index].buffers) = (Err(cause), Some(buffers));
            }
        }
        let in_time = self.wait(&mut ended);
        self.busy += start.elapsed();
        let is_down =
            |ended: &Ended| matches!(ended.outcome, Err(Cause::Submit(SubmitError::ChannelDown)));
        if !in_time || ended.iter().any(is_down) {
            // Whatever they end with now, they are late. A channel that is down is back after this,
            // for the next test.
            let terminated = self.queue.terminate_sync(self.params.timeout, |done| {
                ended[done.tag].buffers = Some(done.target);
            });
            self.summary.stuck = terminated.is_err();
        }
        ended
    }

    fn submit(
        &mut self,
        index: usize,
        test: &Test,
        mut buffers: Buffers,
        step: Step,
        ended: &mut [Ended],
    ) -> Result<(), (Cause, Buffers)> {
        loop {
            let operation = buffers.operation(test, step, &mut self.lists);
            // SAFETY: the operation's memory are different buffers (of those, a check reads all),
            // which go in with it, stay where they are when they are moved, and are not looked at
            // until they come back out.
            let submitted =
                unsafe { self.queue.submit(&operation, Flags::empty(), (), buffers, index) };
            let Err(Refused { error, target, .. }) = submitted else { return Ok(()) };
            buffers = target;
            // More threads than the ring has room for: some take turns.
            if error != SubmitError::RingFull || self.queue.is_idle() || !self.wait(ended) {
                return Err((Cause::Submit(error), buffers));
            }
        }
    }

    /// Waits until nothing is in flight; `false` if that takes too long.
    fn wait(&mut self, ended: &mut [Ended]) -> bool {
        let timeout = self.params.timeout;
        let mut end = |done: Done<(), Buffers, usize>| {
            let place = &mut ended[done.tag];
            (place.outcome, place.buffers) = (Ok(done.status), Some(done.target));
        };
        if !self.params.polled {
            return self.queue.wait(timeout, end).is_ok();
        }
        self.queue.issue_pending();
        let start = Instant::now();
        loop {
            self.queue.poll(&mut end);
            if self.queue.is_idle() {
                return true;
            }
            if start.elapsed() >= timeout {
                return false;
            }
            std::hint::spin_loop();
        }
    }

    /// Whether an operation did what it was for, which ended with `status`.
    fn judge(
        &self,
        test: &Test,
        buffers: &Buffers,
        step: Step,
        status: Status,
    ) -> Result<(), Cause> {
        let expected = buffers.expected_status(step);
        if status != expected {
            return Err(if status == Status::Success {
                Cause::Missed(expected)
            } else {
                Cause::Completion(status)
            });
        }
        if self.params.noverify {
            return Ok(());
        }
        buffers.verify(test, step).map_or(Ok(()), |mismatch| Err(Cause::Data(mismatch)))
    }

    fn next_test(&mut self) -> Test {
        let Params { test_buf_size: size, transfer_size, norandom, .. } = *self.params;
        let mut random = |bound| if norandom { 0 } else { self.random.below(bound) };
        let len = match transfer_size {
            0 if norandom => size,
            0 => 1 + random(size),
            len => len,
        };
        let down = |offset: usize| offset / self.alignment * self.alignment;
        let len = down(len).max(self.alignment);
        let source_offset = down(random(size - len + 1));
        let target_offset = down(random(size - len + 1));
        self.started += 1;
        let pattern = self.random.next();
        Test { number: self.started, source_offset, target_offset, len, pattern }
    }
}

#[cfg(test)]
mod tests;
