use std::{os::fd::BorrowedFd, sync::Arc, time::Duration};

use super::{
    FallbackOptions, FallbackStats,
    clock::Time,
    ring::{End, Ring, cookie},
    wake::Wake,
    watch::Watch,
};
use crate::{
    Breaker, ChannelInfo, Completion, Cookie, DmaChannel, FallbackCause, Flags, Operation, Status,
    Stuck, SubmitError,
};

/// The longest time between two resets of an engine that cannot be stopped. Each holds up a poll for
/// as long as a reset may take.
const LONGEST_RETRY: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct FallbackChannel {
    info: ChannelInfo,
    engine: Box<dyn DmaChannel>,
    ring: Ring,
    breaker: Breaker,
    /// What the engine was given to find out whether it works.
    probe: Option<Cookie>,
    watch: Watch,
    /// The engine is to be reset, and is given nothing until it is.
    reset: Option<Reset>,
    time: Time,
    timeout: Duration,
    reset_timeout: Duration,
    /// Only with the system's clock. Without it, as after a failure to make it, the event is the
    /// engine's.
    wake: Option<Wake>,
    stats: Arc<FallbackStats>,
}

#[derive(Clone, Copy, Debug)]
struct Reset {
    /// When to try.
    at: Duration,
    /// Why.
    cause: FallbackCause,
    /// Until the next try, if this one fails.
    retry: Duration,
}

impl FallbackChannel {
    pub(super) fn new(
        info: ChannelInfo,
        engine: Box<dyn DmaChannel>,
        options: &FallbackOptions,
        stats: Arc<FallbackStats>,
    ) -> Self {
        let FallbackOptions { timeout, reset_timeout, ref clock, .. } = *options;
        let time = Time::new(clock);
        let wake = engine.event().filter(|_| !time.is_driven()).and_then(|fd| Wake::new(fd).ok());
        Self {
            ring: Ring::new(info.ring_size, info.ordering),
            info,
            engine,
            breaker: Breaker::new(),
            probe: None,
            watch: Watch::new(timeout),
            reset: None,
            time,
            timeout,
            reset_timeout,
            wake,
            stats,
        }
    }

    /// Whether the engine may be given an operation.
    #[inline]
    fn admit(&mut self) -> Result<(), FallbackCause> {
        if self.breaker.is_closed() && self.reset.is_none() {
            return Ok(());
        }
        self.admit_probe()
    }

    #[cold]
    fn admit_probe(&mut self) -> Result<(), FallbackCause> {
        if self.reset.is_none() && self.breaker.admits(self.time.now()) {
            return Ok(());
        }
        Err(FallbackCause::Resting)
    }

    /// The next operation was given to the engine, or was not.
    #[inline]
    fn start(&mut self, position: u64, given: Result<Cookie, FallbackCause>) {
        match given {
            Ok(cookie) => {
                self.ring.give(position, cookie);
                if self.breaker.is_half_open() {
                    self.probe = Some(cookie);
                    self.stats.count_probe();
                }
            }
            Err(cause) => self.ring.assign(position, cause),
        }
    }

    /// Starts the operation at `position`, which has waited.
    fn start_kept(&mut self, position: u64) {
        let given = self.admit().and_then(|()| {
            let (operation, flags) = self.ring.operation(position);
            // SAFETY: as in `submit`; it has not been reported since.
            let given = unsafe { self.engine.submit(&operation, below(flags)) };
            given.map_err(|error| self.refused(error))
        });
        self.start(position, given);
    }

    /// The engine has refused an operation.
    #[cold]
    fn refused(&mut self, error: SubmitError) -> FallbackCause {
        if error == SubmitError::ChannelDown {
            let now = self.time.now();
            self.fail(now);
            let cause = FallbackCause::Failed;
            self.reset = Some(Reset { at: now, cause, retry: self.timeout });
            self.watch.hasten();
            self.stats.set_due(self.due());
            return cause;
        }
        // Half open, nothing but the probe is submitted.
        self.breaker.withdraw_probe();
        match error {
            SubmitError::RingFull => FallbackCause::RingFull,
            SubmitError::Unreachable { .. } => FallbackCause::Unreachable,
            // Of an operation that has waited, which must end.
            SubmitError::Removed | SubmitError::Forked => FallbackCause::Failed,
            _ => FallbackCause::Unsupported,
        }
    }

    /// The engine has failed at something.
    fn fail(&mut self, now: Duration) {
        if self.breaker.is_closed() {
            self.stats.count_opened();
        }
        self.breaker.failed(now);
    }

    /// Takes the completions of the engine. What it failed is the CPU's.
    #[inline]
    fn collect(&mut self, report: &mut dyn FnMut(Completion)) {
        let Self { engine, ring, probe, stats, .. } = self;
        let (mut failed, mut probed) = (false, false);
        engine.poll(&mut |completion| match ring.end_and_report(
            &completion,
            FallbackCause::Failed,
            report,
        ) {
            End::Done => probed |= *probe == Some(completion.cookie),
            End::Failed => failed = true,
            End::Spurious => stats.count_spurious(),
        });
        if failed || probed {
            self.judge(failed, probed);
        }
    }

    /// Takes the last completions of an engine that was proven idle, to be reported later. Those
    /// for which `counts` is false are left out.
    fn collect_last(&mut self, cause: FallbackCause, counts: impl Fn(Status) -> bool) {
        let Self { engine, ring, stats, .. } = self;
        engine.poll(&mut |completion| {
            if counts(completion.status) && ring.end(&completion, cause) == End::Spurious {
                stats.count_spurious();
            }
        });
    }

    #[cold]
    fn judge(&mut self, failed: bool, probed: bool) {
        let now = self.time.now();
        if probed {
            self.probe = None;
            if self.breaker.is_half_open() {
                self.breaker.succeeded(now);
                self.stats.count_closed();
            }
        }
        if failed {
            self.fail(now);
        }
    }

    /// Reads the clock, and resets an engine that is overdue or down.
    fn keep_time(&mut self) {
        let now = self.time.now();
        if self.is_overdue(now) && self.reset.is_none() {
            let cause = FallbackCause::TimedOut;
            self.reset = Some(Reset { at: now, cause, retry: self.timeout });
        }
        if let Some(reset) = self.reset
            && reset.at <= now
        {
            self.reset_engine(now, reset);
        }
        self.stats.set_due(self.due());
    }

    fn is_overdue(&mut self, now: Duration) -> bool {
        let load = self.ring.load(self.engine.info().ordering);
        self.watch.check(now, load)
    }

    /// When to read the clock at the latest.
    fn due(&self) -> Option<Duration> {
        self.reset.map(|reset| reset.at).or_else(|| self.watch.due())
    }

    #[cold]
    fn reset_engine(&mut self, now: Duration, reset: Reset) {
        let stopped = self.engine.terminate_sync(self.reset_timeout).is_ok();
        self.stats.count_reset(stopped);
        if stopped {
            self.collect_last(reset.cause, |_| true);
            // Of a completion that was lost nobody will hear; and the engine is idle.
            self.ring.take_from_engine(reset.cause);
            self.recovered();
            self.fail(self.time.now());
            self.watch.check(now, None);
        } else {
            // A driven clock has not moved meanwhile.
            let now = self.time.now().max(now + self.reset_timeout);
            self.stuck(now, reset.retry);
        }
    }

    /// The engine could not be proven idle.
    fn stuck(&mut self, now: Duration, retry: Duration) {
        self.fail(now);
        self.breaker.reset_failed(now);
        let cause = FallbackCause::TimedOut;
        let next = (retry * 2).min(LONGEST_RETRY);
        self.reset = Some(Reset { at: now + retry, cause, retry: next });
    }

    /// The engine was proven idle.
    fn recovered(&mut self) {
        self.reset = None;
        self.stats.reset_is_over();
    }

    /// Starts what is no longer behind a fence, and executes what is the CPU's.
    #[inline]
    fn advance(&mut self) {
        if !self.ring.is_settled() {
            self.advance_some();
        }
    }

    fn advance_some(&mut self) {
        loop {
            let mut any = false;
            while let Some(position) = self.ring.next_to_start() {
                self.start_kept(position);
                any = true;
            }
            if any {
                // It rings for these alone: what was submitted behind an operation that waited has
                // waited too, and was issued, or it would not have been started.
                self.doorbell();
            }
            let stats = &self.stats;
            if !self.ring.execute(|cause, len| stats.count_fallback(cause, len)) {
                return;
            }
        }
    }

    #[inline]
    fn doorbell(&mut self) {
        if self.ring.is_unrung() {
            self.engine.issue_pending();
            self.ring.ring_all();
        }
    }
}

/// The flags as the engine gets them: the layer keeps the fences.
const fn below(flags: Flags) -> Flags {
    flags.difference(Flags::FENCE)
}

// SAFETY:
// - consecutive cookies: they count positions, of which every accepted operation has the next;
// - at most once, with its cookie: a slot is reported when it has ended, and is free then;
// - not touched after its report, and visible: an operation has ended when the engine has reported
//   it, so that the engine's promise holds; or when this thread has executed it, which happens
//   only if the engine never had it, has reported it, or was proven idle;
// - nothing else written: neither the engine nor `software::execute` does;
// - refused operations are not kept;
// - `terminate_sync`: when it returns `Ok`, the engine's has, and all that is kept has ended. `drop`:
//   that of the engine; this thread executes nothing after it.
unsafe impl DmaChannel for FallbackChannel {
    fn info(&self) -> &ChannelInfo {
        &self.info
    }

    fn space(&self) -> usize {
        self.ring.space()
    }

    unsafe fn submit(
        &mut self,
        operation: &Operation<'_>,
        flags: Flags,
    ) -> Result<Cookie, SubmitError> {
        if self.ring.space() == 0 {
            self.info.check(operation, flags)?;
            return Err(SubmitError::RingFull);
        }
        if !self.ring.starts_at_once(flags) {
            self.info.check(operation, flags)?;
            return Ok(cookie(self.ring.push(operation, flags)));
        }
        // What the engine takes its driver has checked; but the ring must be able to keep the lists.
        if !matches!(operation, Operation::Memcpy { .. } | Operation::Memset { .. }) {
            self.info.check(operation, flags)?;
        }
        let given = match self.admit() {
            // SAFETY: the memory is ours by contract; `ring` lets nobody else have it until the
            // engine has reported it or was proven idle.
            Ok(()) => match unsafe { self.engine.submit(operation, below(flags)) } {
                Ok(cookie) => Ok(cookie),
                Err(gone @ (SubmitError::Removed | SubmitError::Forked)) => {
                    self.breaker.withdraw_probe();
                    return Err(gone);
                }
                Err(error) => Err(self.refused(error)),
            },
            Err(cause) => Err(cause),
        };
        if given.is_err() {
            self.info.check(operation, flags)?;
        }
        let position = self.ring.push(operation, flags);
        self.start(position, given);
        Ok(cookie(position))
    }

    fn issue_pending(&mut self) {
        if !self.ring.issue() {
            return;
        }
        self.doorbell();
        self.advance();
        // A client that tells the time asks when to come back; others need no reading of the clock
        // for each batch.
        if self.time.is_driven() && self.watch.due().is_none() {
            let now = self.time.now();
            self.is_overdue(now);
            self.stats.set_due(self.due());
        }
    }

    fn poll(&mut self, report: &mut dyn FnMut(Completion)) {
        // In the order in which they ended: these did at the doorbell.
        self.ring.report(report);
        if self.ring.is_with_engine() || self.reset.is_some() {
            self.collect(report);
            if self.watch.count_poll(self.time.polls_per_reading()) {
                self.keep_time();
            }
        }
        self.advance();
        self.ring.report(report);
    }

    fn arm(&mut self) -> bool {
        if self.ring.has_ended() || !self.ring.is_with_engine() || !self.engine.arm() {
            return false;
        }
        if self.wake.is_none() {
            return true;
        }
        let now = self.time.now();
        let overdue = self.is_overdue(now);
        // Who wakes up looks at the clock, whatever has woken it.
        self.watch.hasten();
        let due = self.due();
        if let (Some(wake), Some(due)) = (&mut self.wake, due) {
            wake.set(now, due);
        }
        !overdue
    }

    fn event(&self) -> Option<BorrowedFd<'_>> {
        self.wake.as_ref().map(Wake::event).or_else(|| self.engine.event())
    }

    fn fallback_stats(&self) -> Option<&Arc<FallbackStats>> {
        Some(&self.stats)
    }

    fn terminate_sync(&mut self, timeout: Duration) -> Result<(), Stuck> {
        if let Err(stuck) = self.engine.terminate_sync(timeout) {
            let retry = self.reset.map_or(self.timeout, |reset| reset.retry);
            self.stuck(self.time.now(), retry);
            self.stats.set_due(self.due());
            return Err(stuck);
        }
        // What has failed is not repeated any more: it is aborted with the others.
        self.collect_last(FallbackCause::Failed, Status::is_done);
        self.ring.abort();
        // Of the probe nobody will know.
        self.breaker.withdraw_probe();
        self.probe = None;
        self.recovered();
        self.watch.check(Duration::ZERO, None);
        self.stats.set_due(None);
        Ok(())
    }
}
