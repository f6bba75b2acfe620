//! A large copy of owned memory whose completed prefix can be read before its end.

use std::{fmt, mem::ManuallyDrop, num::NonZeroUsize, time::Duration};

use crate::{
    Channel, Cookie, DmaChannel, DmaSource, DmaTarget, Done, Flags, Operation, PrefixError,
    Refused, Status, SubmitError, Wait,
    queue::{InFlight, Waiting},
    segments::Segments,
};

/// How long an engine that did not end a copy in time may take to stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// A copy in segments that owns its source, its target and, until it is over, the channel.
///
/// The completed prefix of the target can be read while the engine writes behind it; bytes of the
/// prefix stay what they are. The rest of the target cannot be reached before
/// [`finish`](Self::finish) gives everything back. Segments are submitted as far as the ring and a
/// window of 64 reach, and further with each call.
///
/// Dropping it terminates the channel, and then frees the memory; if the engine cannot be stopped
/// the memory is leaked. Forgetting it leaks all of it.
///
/// ```
/// use std::{num::NonZeroUsize, sync::Arc, time::Duration};
/// use dmaengine::{Registry, SegmentedCopy, Status, ThreadsDevice};
///
/// let registry = Registry::new();
/// registry.register(Arc::new(ThreadsDevice::new(1)));
/// let channel = registry.request("dma0chan0")?;
/// let segment_len = NonZeroUsize::new(64 << 10).expect("not zero");
/// let timeout = Duration::from_secs(5);
///
/// let (source, target) = (vec![1u8; 1 << 20], vec![0u8; 1 << 20]);
/// let mut copy = SegmentedCopy::start(channel, source, target, segment_len)
///     .map_err(|(_, refused)| refused.error)?;
/// let header = &copy.wait_for(4, timeout)?[..4];
/// assert_eq!(header, [1; 4]); // read while the rest is copied
/// let (_channel, done) = copy.finish(timeout).map_err(|_| "the engine does not stop")?;
/// assert_eq!((done.status, done.target.len()), (Status::Success, 1 << 20));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct SegmentedCopy<S: DmaSource, D: DmaTarget> {
    /// `None` when it was taken to be given back.
    parts: Option<Box<Parts<S, D>>>,
}

struct Parts<S, D> {
    channel: Channel,
    /// With the number of each segment.
    in_flight: InFlight<usize>,
    segments: Segments,
    first: Cookie,
    /// The first byte of each of the two, which are not touched otherwise while anything is in flight.
    from: *const u8,
    to: *mut u8,
    /// Freed when the engine is through with them.
    memory: ManuallyDrop<(S, D)>,
}

// SAFETY: the pointers lead into `memory`, which goes along; channel and memory can be sent.
unsafe impl<S: Send, D: Send> Send for Parts<S, D> {}

impl<S: DmaSource, D: DmaTarget> SegmentedCopy<S, D> {
    /// Starts to copy all of `source` to all of `target`, in segments of `segment_len` bytes.
    ///
    /// # Errors
    ///
    /// [`Refused`] says why and gives all back; nothing was submitted.
    #[expect(clippy::result_large_err, reason = "the channel and the memory come back, unboxed")]
    pub fn start(
        channel: Channel,
        source: S,
        mut target: D,
        segment_len: NonZeroUsize,
    ) -> Result<Self, (Channel, Refused<S, D, ()>)> {
        let bytes = source.as_ref();
        let (from, source_len) = (bytes.as_ptr(), bytes.len());
        // Once: a second reference to the target would end what the first one's pointer may do.
        let bytes = target.as_mut();
        let (to, target_len) = (bytes.as_mut_ptr(), bytes.len());
        let mut parts = Parts {
            channel,
            in_flight: InFlight::with_capacity(0),
            segments: Segments::new(source_len, segment_len.get()),
            first: Cookie::FIRST,
            from,
            to,
            memory: ManuallyDrop::new((source, target)),
        };
        let started = if source_len != target_len {
            Err(SubmitError::LengthMismatch { source_len, target_len })
        } else if source_len == 0 {
            Err(SubmitError::ZeroLength)
        } else {
            parts.submit_next()
        };
        match started {
            Ok(first) => {
                parts.first = first;
                let mut copy = Self { parts: Some(Box::new(parts)) };
                copy.parts().advance();
                Ok(copy)
            }
            Err(error) => {
                let Parts { channel, memory, .. } = parts;
                let (source, target) = ManuallyDrop::into_inner(memory);
                Err((channel, Refused { error, source, target, tag: () }))
            }
        }
    }

    /// The prefix of the target that is there now. Looking at it also keeps the copy going.
    pub fn ready(&mut self) -> &[u8] {
        let parts = self.parts();
        parts.advance();
        parts.bytes()
    }

    /// Waits until at least `len` bytes are there, or the whole copy if that is less, and returns all
    /// that are.
    ///
    /// # Errors
    ///
    /// [`PrefixError`] if a segment before that failed, or it takes longer than `timeout`.
    pub fn wait_for(&mut self, len: usize, timeout: Duration) -> Result<&[u8], PrefixError> {
        let parts = self.parts();
        let waiting = Waiting::new(Wait::default(), timeout);
        loop {
            parts.advance();
            let ready = parts.segments.ready();
            if ready >= len.min(parts.segments.len()) {
                return Ok(parts.bytes());
            }
            if let Some(status) = parts.segments.failure() {
                return Err(PrefixError::Failed { status, ready });
            }
            if !waiting.pause(&mut parts.channel) {
                return Err(PrefixError::TimedOut { ready });
            }
        }
    }

    /// Waits for the end and gives everything back: the channel, the memory, how the copy ended, and
    /// how many bytes are certainly there. After `timeout` the channel is terminated, and it has
    /// [timed out](Status::TimedOut).
    ///
    /// # Errors
    ///
    /// The copy itself, if the engine cannot be stopped: its memory cannot be given back. Try again,
    /// or drop it, which leaks the memory.
    pub fn finish(mut self, timeout: Duration) -> Result<(Channel, Done<S, D, ()>), Self> {
        let parts = self.parts();
        let waiting = Waiting::new(Wait::default(), timeout);
        loop {
            parts.advance();
            if parts.segments.is_over() {
                break;
            }
            if !waiting.pause(&mut parts.channel) {
                if !parts.stop() {
                    return Err(self);
                }
                break;
            }
        }
        let Some(parts) = self.parts.take() else { unreachable!("only here it is taken") };
        let Parts { channel, segments, first, memory, .. } = *parts;
        let (source, target) = ManuallyDrop::into_inner(memory);
        let done = Done {
            cookie: first,
            status: segments.failure().unwrap_or(Status::Success),
            bytes: segments.ready(),
            fallback: None,
            source,
            target,
            tag: (),
        };
        Ok((channel, done))
    }

    fn parts(&mut self) -> &mut Parts<S, D> {
        let Some(parts) = &mut self.parts else {
            unreachable!("`finish` takes it with the handle")
        };
        parts
    }
}

impl<S, D> Parts<S, D> {
    /// Submits the next segment, which there is.
    fn submit_next(&mut self) -> Result<Cookie, SubmitError> {
        let Some((segment, range)) = self.segments.next() else {
            unreachable!("the caller has asked, or it is the first")
        };
        let copy = Operation::Memcpy {
            source: self.from.wrapping_add(range.start),
            target: self.to.wrapping_add(range.start),
            len: range.len(),
        };
        let Self { channel, in_flight, segments, .. } = self;
        // SAFETY:
        // - valid and unwritten, respectively exclusive: `memory` owns the bytes. It is freed or
        //   given back when nothing is in flight, or leaked;
        // - what is lent out of the target is the prefix that has ended, which no segment to come
        //   covers, and no reference to the rest exists.
        let submitted = unsafe { in_flight.submit(channel, &copy, Flags::empty(), segment) };
        match submitted {
            Ok(cookie) => {
                segments.submit();
                Ok(cookie)
            }
            Err((error, _)) => Err(error),
        }
    }

    /// Submits what there is room for, issues it and looks what has ended.
    fn advance(&mut self) {
        while self.segments.next().is_some() {
            match self.submit_next() {
                Ok(_) => {}
                Err(SubmitError::RingFull) => break,
                Err(error) => self.segments.fail(status_of(error)),
            }
        }
        self.channel.issue_pending();
        self.reap(false);
    }

    fn reap(&mut self, late: bool) {
        let Self { channel, in_flight, segments, .. } = self;
        in_flight.poll(channel, |completion, segment| match completion.status {
            Status::Aborted if late => segments.end(segment, Status::TimedOut),
            status => segments.end(segment, status),
        });
    }

    /// Ends what is in flight; `false` if the engine cannot be stopped.
    fn stop(&mut self) -> bool {
        if self.channel.terminate_sync(STOP_TIMEOUT).is_err() {
            return false;
        }
        self.reap(true);
        // The engine is idle: what the channel has not reported has ended as well.
        let Self { in_flight, segments, .. } = self;
        in_flight.drain(|segment| segments.end(segment, Status::TimedOut));
        if !segments.is_over() {
            segments.fail(Status::TimedOut);
        }
        true
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY:
        // - valid: a prefix of the target, which `memory` owns;
        // - unwritten: the segments of these bytes have ended with success, so the engine is through
        //   with them, and nobody else can reach the target.
        unsafe { std::slice::from_raw_parts(self.to, self.segments.ready()) }
    }
}

/// What becomes of a segment that the channel does not take, after it took others.
pub(crate) const fn status_of(error: SubmitError) -> Status {
    match error {
        SubmitError::Unreachable { .. } => Status::BadAddress,
        SubmitError::ChannelDown | SubmitError::Removed | SubmitError::Forked => Status::Aborted,
        _ => Status::BadDescriptor,
    }
}

impl<S: DmaSource, D: DmaTarget> Drop for SegmentedCopy<S, D> {
    fn drop(&mut self) {
        if let Some(mut parts) = self.parts.take()
            && (parts.in_flight.is_empty() || parts.stop())
        {
            // The engine is idle, so the memory may be freed.
            drop(ManuallyDrop::into_inner(parts.memory));
        }
        // Otherwise the engine may still write it: it is leaked.
    }
}

impl<S: DmaSource, D: DmaTarget> fmt::Debug for SegmentedCopy<S, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let segments = self.parts.as_ref().map(|parts| &parts.segments);
        f.debug_struct("SegmentedCopy").field("segments", &segments).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
