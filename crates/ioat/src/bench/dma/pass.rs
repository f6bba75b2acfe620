//! The loops that are timed. Those of `bench/dpdk/dma.c` are the same.

use std::time::Duration;

use dmaengine::{ArenaFull, Status, SubmitError, WaitTimeout};
use hdrhistogram::Histogram;

use super::{
    figures::{Cost, Percentiles},
    pairs::Pairs,
};
use crate::{bench::Clock, lab::thread_preemptions};

/// How long an engine may stand still.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// Significant decimal digits of a latency.
const DIGITS: u8 = 3;

/// Something that copies for this thread, and the pairs of buffers that it walks over.
pub(super) trait Subject {
    /// Submits a copy of each of the next `batch` pairs and rings the doorbell. Each pair's number
    /// goes to `each`.
    fn submit(&mut self, batch: usize, each: impl FnMut(usize)) -> Result<(), PassError>;

    /// Gives the number of each pair that has been copied since the last call to `each`; how many
    /// there were.
    fn poll(&mut self, each: impl FnMut(usize)) -> usize;

    /// Waits until nothing is in flight; how many ended. Fails if any has failed since the beginning.
    fn drain(&mut self) -> Result<usize, PassError>;

    /// The pairs. While nothing is in flight all of them are idle.
    fn pairs(&mut self) -> &mut Pairs;
}

/// Why a pass came to no end, or to a bad one.
#[derive(Debug, thiserror::Error)]
pub enum PassError {
    /// No room for the buffers.
    #[error(transparent)]
    Memory(#[from] ArenaFull),
    /// The engine took no more.
    #[error("a copy was refused: {0}")]
    Refused(#[from] SubmitError),
    /// A copy failed.
    #[error("a copy ended with the status {0:?}")]
    Failed(Status),
    /// The engine stands still at the end of a pass.
    #[error(transparent)]
    Timeout(#[from] WaitTimeout),
    /// Targets or sources do not hold what they must.
    #[error("the copies are wrong")]
    Wrong,
    /// The engine stands still.
    #[error("no copy ended within {0:?}")]
    NothingEnded(Duration),
}

/// How a subject is kept busy, and for how long.
#[derive(Clone, Copy)]
pub(super) struct Plan<'a> {
    pub(super) clock: &'a Clock,
    pub(super) batch: usize,
    /// The most operations in flight.
    pub(super) depth: usize,
    pub(super) duration: Duration,
    /// Whether the subject copies: one that does not is checked for that.
    pub(super) copies: bool,
}

impl<'a> Plan<'a> {
    /// A pass that measures what the calling thread pays.
    pub(super) fn cost(self, subject: &mut impl Subject) -> Result<Cost, PassError> {
        let mut pass = Pass::new(self, subject);
        pass.cost_for(self.warm_up())?;
        let cost = pass.cost_for(self.duration)?;
        pass.finish()?;
        Ok(cost)
    }

    /// A pass that measures how long operations take.
    pub(super) fn latency(self, subject: &mut impl Subject) -> Result<Percentiles, PassError> {
        let mut pass = Pass::new(self, subject);
        pass.cost_for(self.warm_up())?;
        pass.drain()?;
        let ticks = pass.latency_ticks()?;
        pass.finish()?;
        Percentiles::of(&ticks, self.clock).ok_or(PassError::NothingEnded(PATIENCE))
    }

    /// Fills the pipeline, wakes the engine's threads and warms the caches.
    const fn warm_up(&self) -> Duration {
        Duration::from_nanos(self.duration.as_nanos() as u64 / 10)
    }
}

/// A pipelined loop over a subject.
struct Pass<'a, S> {
    plan: Plan<'a>,
    subject: &'a mut S,
    submitted: u64,
    completed: u64,
}

impl<'a, S: Subject> Pass<'a, S> {
    fn new(plan: Plan<'a>, subject: &'a mut S) -> Self {
        subject.pairs().spoil();
        Self { plan, subject, submitted: 0, completed: 0 }
    }

    #[inline]
    fn submit_if_there_is_room(&mut self, each: impl FnMut(usize)) -> Result<bool, PassError> {
        let Plan { batch, depth, .. } = self.plan;
        if (self.submitted - self.completed) as usize + batch > depth {
            return Ok(false);
        }
        self.subject.submit(batch, each)?;
        self.submitted += batch as u64;
        Ok(true)
    }

    #[inline]
    fn poll(&mut self, each: impl FnMut(usize)) -> usize {
        let ended = self.subject.poll(each);
        self.completed += ended as u64;
        ended
    }

    /// Goes on for longer if nothing ended: the engine's thread may have had to wait for its CPU.
    fn cost_for(&mut self, duration: Duration) -> Result<Cost, PassError> {
        let clock = self.plan.clock;
        let (duration_ticks, patience_ticks) = (clock.ticks(duration), clock.ticks(PATIENCE));
        let before = (self.submitted, self.completed);
        let preemptions = thread_preemptions().unwrap_or(0);
        let (mut submit_ticks, mut poll_ticks) = (0, 0);
        let start = Clock::now();
        let mut last = start;
        let goes_on = |pass: &Self, ticks| {
            let idle = pass.submitted == before.0 || pass.completed == before.1;
            ticks < duration_ticks || (idle && ticks < patience_ticks)
        };
        while goes_on(self, last - start) {
            if self.submit_if_there_is_room(|_| ())? {
                let time = Clock::now();
                submit_ticks += clock.since(last, time);
                last = time;
            }
            let ended = self.poll(|_| ());
            let time = Clock::now();
            if ended > 0 {
                poll_ticks += clock.since(last, time);
            }
            last = time;
        }
        let (submitted, operations) = (self.submitted - before.0, self.completed - before.1);
        if submitted == 0 || operations == 0 {
            return Err(PassError::NothingEnded(PATIENCE));
        }
        Ok(Cost {
            operations,
            seconds: clock.ns(last - start) / 1e9,
            submit_ns: clock.ns(submit_ticks) / submitted as f64,
            poll_ns: clock.ns(poll_ticks) / operations as f64,
            preemptions: thread_preemptions().unwrap_or(0).saturating_sub(preemptions),
        })
    }

    /// As [`cost_for`](Self::cost_for), if nothing ended.
    fn latency_ticks(&mut self) -> Result<Histogram<u64>, PassError> {
        let Plan { clock, depth, duration, .. } = self.plan;
        let (duration_ticks, patience_ticks) = (clock.ticks(duration), clock.ticks(PATIENCE));
        let mut histogram = Histogram::new_with_bounds(1, patience_ticks.max(2), DIGITS)
            .expect("the bounds and the digits are among those that there are");
        // By the number of the pair, which is in flight once.
        let mut begun = vec![0; self.subject.pairs().count()];
        let mut ended = Vec::with_capacity(depth);
        let start = Clock::now();
        let mut last = start;
        while last - start < duration_ticks
            || (histogram.is_empty() && last - start < patience_ticks)
        {
            self.submit_if_there_is_room(|pair| begun[pair] = last)?;
            self.poll(|pair| ended.push(pair));
            last = Clock::now();
            for pair in ended.drain(..) {
                histogram.saturating_record(clock.since(begun[pair], last));
            }
        }
        Ok(histogram)
    }

    fn drain(&mut self) -> Result<(), PassError> {
        self.completed += self.subject.drain()? as u64;
        Ok(())
    }

    /// Ends what is in flight and checks all that was done.
    fn finish(mut self) -> Result<(), PassError> {
        self.drain()?;
        let copied = if self.plan.copies { self.completed } else { 0 };
        if self.completed != self.submitted || !self.subject.pairs().verify(copied) {
            return Err(PassError::Wrong);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
