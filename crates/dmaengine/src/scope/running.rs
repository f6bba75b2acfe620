//! The operations of a scope, and their end.

use std::time::{Duration, Instant};

use super::failure::Failures;
use crate::{
    Channel, DmaChannel, Flags, Operation, OperationKind, Status, SubmitError, Wait,
    memory::abort_for_memory,
    queue::{InFlight, Waiting},
    segmented::status_of,
    segments::Segments,
};

/// How long an engine that did not end its operations in time may take to stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// How long one attempt to stop it may take.
const STOP_ATTEMPT: Duration = Duration::from_millis(100);
/// Between two attempts.
const STOP_PAUSE: Duration = Duration::from_millis(1);

/// What is kept for an operation in flight.
#[derive(Clone, Copy, Debug)]
struct Started {
    /// The how many-th of the scope it is.
    operation: usize,
    kind: OperationKind,
    /// If it is part of a copy in segments: which one, and the segment's number.
    segment: Option<(usize, usize)>,
}

/// A copy in segments.
#[derive(Debug)]
struct SegmentedCopy {
    operation: usize,
    source: *const u8,
    target: *mut u8,
    segments: Segments,
}

/// The operations that a scope has started and must see end.
#[derive(Debug)]
pub(super) struct Running<'scope> {
    engine: Engine<'scope>,
    timeout: Duration,
    /// Operations started so far.
    operations: usize,
    segmented: Vec<SegmentedCopy>,
    failures: Failures,
}

#[derive(Debug)]
struct Engine<'scope> {
    channel: &'scope mut Channel,
    in_flight: InFlight<Started>,
    /// The driver is being given an operation. If this stays, it panicked, and whether the engine has
    /// the operation is unknown.
    is_submitting: bool,
}

impl Engine<'_> {
    /// # Safety
    ///
    /// As for [`crate::DmaChannel::submit`], until the operation has ended or the channel was proven
    /// idle.
    unsafe fn submit(
        &mut self,
        operation: &Operation<'_>,
        started: Started,
    ) -> Result<(), SubmitError> {
        self.is_submitting = true;
        // SAFETY: by the caller's promise.
        let submitted =
            unsafe { self.in_flight.submit(self.channel, operation, Flags::empty(), started) };
        self.is_submitting = false;
        submitted.map(drop).map_err(|(error, _)| error)
    }
}

impl<'scope> Running<'scope> {
    pub(super) fn new(channel: &'scope mut Channel, timeout: Duration) -> Self {
        // Nothing is allocated by a scope that starts nothing.
        let in_flight = InFlight::with_capacity(0);
        Self {
            engine: Engine { channel, in_flight, is_submitting: false },
            timeout,
            operations: 0,
            segmented: Vec::new(),
            failures: Failures::default(),
        }
    }

    pub(super) const fn in_flight(&self) -> usize {
        self.engine.in_flight.len()
    }

    pub(super) fn issue_pending(&mut self) {
        self.engine.channel.issue_pending();
    }

    /// Submits `operation`. If the ring is full, it waits for room first.
    ///
    /// # Safety
    ///
    /// As for [`crate::DmaChannel::submit`], until the operation has ended, or [`join`](Self::join)
    /// has returned.
    pub(super) unsafe fn start(&mut self, operation: &Operation<'_>) -> Result<(), SubmitError> {
        let started = Started { operation: self.operations, kind: operation.kind(), segment: None };
        // SAFETY: by the caller's promise.
        unsafe { self.submit(operation, started)? };
        self.operations += 1;
        Ok(())
    }

    /// Starts a copy in segments, and returns its number among those. The rest of it is submitted by
    /// and by, with [`advance`](Self::advance).
    ///
    /// # Safety
    ///
    /// As for [`start`](Self::start), with the whole source and target, until
    /// [`is_over`](Self::is_over) or `join` has returned.
    pub(super) unsafe fn start_segmented(
        &mut self,
        source: *const u8,
        target: *mut u8,
        mut segments: Segments,
    ) -> Result<usize, SubmitError> {
        let copy = self.segmented.len();
        let Some((segment, range)) = segments.next() else { return Err(SubmitError::ZeroLength) };
        self.segmented.reserve(1);
        let started = Started {
            operation: self.operations,
            kind: OperationKind::Memcpy,
            segment: Some((copy, segment)),
        };
        // SAFETY: by the caller's promise. The first segment alone is enough to learn whether the
        // channel takes such copies; nothing that may fail comes after.
        unsafe {
            self.submit(&Operation::Memcpy { source, target, len: range.len() }, started)?;
        }
        segments.submit();
        let operation = self.operations;
        self.segmented.push(SegmentedCopy { operation, source, target, segments });
        self.operations += 1;
        self.submit_segments();
        Ok(copy)
    }

    /// # Safety
    ///
    /// As for [`start`](Self::start).
    unsafe fn submit(
        &mut self,
        operation: &Operation<'_>,
        started: Started,
    ) -> Result<(), SubmitError> {
        if operation.is_empty() {
            return Err(SubmitError::ZeroLength);
        }
        let waiting = Waiting::new(Wait::default(), self.timeout);
        loop {
            // SAFETY: by the caller's promise.
            let submitted = unsafe { self.engine.submit(operation, started) };
            // With nothing in flight, nothing would make room.
            if submitted != Err(SubmitError::RingFull) || self.engine.in_flight.is_empty() {
                return submitted;
            }
            self.issue_pending();
            if self.reap(false) == 0 && !waiting.pause(self.engine.channel) {
                return submitted;
            }
        }
    }

    /// Goes on with copies in segments, issues and looks what has ended.
    pub(super) fn advance(&mut self) {
        self.submit_segments();
        self.issue_pending();
        self.reap(false);
    }

    /// Submits segments, as many as there is room for.
    fn submit_segments(&mut self) {
        let Self { engine, segmented, failures, .. } = self;
        for (copy, entry) in segmented.iter_mut().enumerate() {
            let SegmentedCopy { operation, source, target, segments } = entry;
            while let Some((segment, range)) = segments.next() {
                let part = Operation::Memcpy {
                    source: source.wrapping_add(range.start),
                    target: target.wrapping_add(range.start),
                    len: range.len(),
                };
                let kind = part.kind();
                let started =
                    Started { operation: *operation, kind, segment: Some((copy, segment)) };
                // SAFETY: a part of what the caller of `start_segmented` promised.
                match unsafe { engine.submit(&part, started) } {
                    Ok(()) => segments.submit(),
                    Err(SubmitError::RingFull) => return,
                    Err(error) => {
                        let status = status_of(error);
                        segments.fail(status);
                        failures.record(*operation, kind, status);
                    }
                }
            }
        }
    }

    /// Takes note of what has ended, and returns how many operations that were. If the channel was
    /// terminated because they were `late`, that is why they were aborted.
    fn reap(&mut self, late: bool) -> usize {
        let Self { engine: Engine { channel, in_flight, .. }, segmented, failures, .. } = self;
        in_flight.poll(channel, |completion, started| {
            let status = match completion.status {
                Status::Aborted if late => Status::TimedOut,
                status => status,
            };
            end(started, status, segmented, failures);
        })
    }

    /// What a copy in segments has reached.
    pub(super) fn segments(&self, copy: usize) -> &Segments {
        &self.segmented[copy].segments
    }

    /// The channel, to wait for.
    pub(super) const fn channel(&mut self) -> &mut Channel {
        self.engine.channel
    }

    fn is_over(&self) -> bool {
        self.engine.in_flight.is_empty()
            && self.segmented.iter().all(|copy| copy.segments.is_over())
    }

    /// Waits until all has ended, and sees to it if it does not by itself. Returns with no operation
    /// in flight, or does not.
    pub(super) fn join(&mut self) -> Failures {
        let waiting = Waiting::new(Wait::default(), self.timeout);
        while !self.engine.is_submitting && !self.engine.channel.is_forked() {
            self.advance();
            if self.is_over() {
                return std::mem::take(&mut self.failures);
            }
            if !waiting.pause(self.engine.channel) {
                break;
            }
        }

        let start = Instant::now();
        // In a forked child there is no engine that could have the child's memory, and nothing to
        // stop.
        while !self.engine.channel.is_forked()
            && self.engine.channel.terminate_sync(STOP_ATTEMPT).is_err()
        {
            if start.elapsed() >= STOP_TIMEOUT {
                abort_for_memory();
            }
            std::thread::sleep(STOP_PAUSE);
        }
        self.reap(true);
        // The engine is idle: what the channel has not reported has ended as well.
        let Self { engine: Engine { in_flight, .. }, segmented, failures, .. } = self;
        in_flight.drain(|started| end(started, Status::TimedOut, segmented, failures));
        for SegmentedCopy { operation, segments, .. } in segmented {
            if !segments.is_over() {
                segments.fail(Status::TimedOut);
                failures.record(*operation, OperationKind::Memcpy, Status::TimedOut);
            }
        }
        std::mem::take(failures)
    }
}

/// Takes note of the end of one operation.
fn end(started: Started, status: Status, segmented: &mut [SegmentedCopy], failures: &mut Failures) {
    let Started { operation, kind, segment } = started;
    let mut is_first = true;
    if let Some((copy, segment)) = segment {
        // One operation, however many of its segments fail. The first of all is submitted before the
        // copy is in the list, and reaped later.
        let segments = &mut segmented[copy].segments;
        is_first = segments.failure().is_none();
        segments.end(segment, status);
    }
    if status != Status::Success && is_first {
        failures.record(operation, kind, status);
    }
}
