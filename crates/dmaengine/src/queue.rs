//! The safe way to use a channel: owned memory in, owned memory out.

use std::{
    collections::VecDeque,
    fmt,
    mem::ManuallyDrop,
    os::fd::BorrowedFd,
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec},
    io::Errno,
};

use crate::{
    Channel, ChannelInfo, ChannelStats, Completion, Cookie, DmaSource, DmaTarget, FallbackCause,
    Flags, Operation, OperationKind, Status, Stuck, SubmitError,
};

/// How long [`Queue::wait`] polls before it blocks: about what blocking and waking cost.
const WAIT_SPIN: Duration = Duration::from_micros(10);

/// How long dropping a [`Queue`] waits for the engine to be proven idle before it leaks the memory.
const DROP_TIMEOUT: Duration = Duration::from_secs(1);

/// An operation that has ended, with the memory it owned and what the caller attached to it.
#[derive(Debug)]
#[must_use = "the memory comes back in here, and the status may say that the bytes did not arrive"]
pub struct Done<S, D, T> {
    /// Which operation.
    pub cookie: Cookie,
    /// How it ended.
    pub status: Status,
    /// The prefix that is certainly at the target, in bytes.
    pub bytes: usize,
    /// Why the CPU did it; `None` if the engine did.
    pub fallback: Option<FallbackCause>,
    /// The memory that was read.
    pub source: S,
    /// The memory that was written.
    pub target: D,
    /// What the caller attached.
    pub tag: T,
}

/// A copy that was not submitted, with its memory.
#[derive(Debug)]
pub struct Refused<S, D, T> {
    /// Why.
    pub error: SubmitError,
    /// The memory that would have been read.
    pub source: S,
    /// The memory that would have been written.
    pub target: D,
    /// What the caller attached.
    pub tag: T,
}

/// Operations were still in flight at the deadline of [`Queue::wait`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{in_flight} operations did not end in time: wait again, or terminate the channel")]
pub struct WaitTimeout {
    /// How many.
    pub in_flight: usize,
}

struct InFlight<S, D, T> {
    kind: OperationKind,
    len: usize,
    source: S,
    target: D,
    tag: T,
}

/// A channel that owns the memory of the operations in flight on it.
///
/// Nothing is allocated per operation once the queue has grown to the ring's size.
pub struct Queue<S, D, T> {
    channel: Channel,
    /// Operations submitted and not reported, in submission order; `None` marks one that ended
    /// before an earlier one (out-of-order channels). Never dropped with entries in it: see `Drop`.
    in_flight: ManuallyDrop<VecDeque<Option<InFlight<S, D, T>>>>,
    /// Cookie of the front entry, if there is one.
    front: Cookie,
    /// The entries of `in_flight` that are `None`.
    ended_early: usize,
    /// Completions that named no operation in flight: a driver's or device's defect.
    spurious: u64,
}

impl<S, D, T> Queue<S, D, T> {
    /// A queue over `channel`, from a [`Registry`](crate::Registry) or a bare
    /// [`DmaChannel`](crate::DmaChannel). Operations that were submitted to it before are none of
    /// the queue's: their completions are [spurious](Self::spurious_completions).
    #[must_use]
    pub fn new(channel: impl Into<Channel>) -> Self {
        let channel = channel.into();
        let capacity = channel.info().ring_size;
        Self {
            channel,
            in_flight: ManuallyDrop::new(VecDeque::with_capacity(capacity)),
            front: Cookie::FIRST,
            ended_early: 0,
            spurious: 0,
        }
    }

    /// The channel's name, `dma<N>chan<M>`.
    #[must_use]
    pub fn name(&self) -> &str {
        self.channel.name()
    }

    /// What the channel has done.
    #[must_use]
    pub fn stats(&self) -> &Arc<ChannelStats> {
        self.channel.stats()
    }

    /// The channel's fixed properties.
    #[must_use]
    pub fn info(&self) -> &ChannelInfo {
        self.channel.info()
    }

    /// Operations submitted and not yet reported.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.len() - self.ended_early
    }

    /// Whether nothing is in flight.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// Completions that named no operation in flight, since the queue was made.
    #[must_use]
    pub const fn spurious_completions(&self) -> u64 {
        self.spurious
    }

    /// Descriptors that can be submitted now ([`ChannelInfo::descriptors`]).
    #[must_use]
    pub fn space(&self) -> usize {
        self.channel.raw.space()
    }

    /// Submits any operation on any memory, and keeps `source`, `target` and `tag` until it is
    /// reported. The queue does not look at them: what they own is the caller's choice.
    ///
    /// # Errors
    ///
    /// [`Refused`] gives everything back and says why; nothing was submitted.
    ///
    /// # Panics
    ///
    /// As for [`copy`](Self::copy).
    ///
    /// # Safety
    ///
    /// As for [`DmaChannel::submit`](crate::DmaChannel::submit), for as long as `source` and
    /// `target` exist, however they are moved. They exist until they are given back.
    pub unsafe fn submit(
        &mut self,
        operation: &Operation<'_>,
        flags: Flags,
        source: S,
        target: D,
        tag: T,
    ) -> Result<Cookie, Refused<S, D, T>> {
        self.in_flight.reserve(1);
        // SAFETY: by the caller's promise. Source and target are kept in `in_flight` until the
        // channel reports the operation; if the queue goes first, `drop` proves the channel idle or
        // leaks them.
        match unsafe { self.channel.raw.submit(operation, flags) } {
            Ok(cookie) => {
                let (kind, len) = (operation.kind(), operation.len());
                self.keep(cookie, InFlight { kind, len, source, target, tag });
                Ok(cookie)
            }
            Err(error) => Err(Refused { error, source, target, tag }),
        }
    }

    /// Submits a copy of all of `source` to all of `target`; `tag` comes back with the result.
    /// Call [`issue_pending`](Self::issue_pending) after the last of a batch.
    ///
    /// # Errors
    ///
    /// [`Refused`] gives everything back and says why; nothing was submitted.
    ///
    /// # Panics
    ///
    /// If the driver breaks its promise that cookies are consecutive. The operation's memory is
    /// leaked: nobody could tell when the engine is through with it.
    pub fn copy(&mut self, source: S, mut target: D, tag: T) -> Result<Cookie, Refused<S, D, T>>
    where
        S: DmaSource,
        D: DmaTarget,
    {
        self.in_flight.reserve(1);
        let from = source.as_ref();
        let to = target.as_mut();
        let len = from.len();
        let copy = Operation::Memcpy { source: from.as_ptr(), target: to.as_mut_ptr(), len };
        let submitted = if to.len() != len {
            Err(SubmitError::LengthMismatch { source_len: len, target_len: to.len() })
        } else if len == 0 {
            Err(SubmitError::ZeroLength)
        } else {
            // SAFETY:
            // - valid and unwritten, respectively exclusive: `DmaSource` and `DmaTarget` promise it
            //   for as long as the two values exist. They are kept in `in_flight` until the channel
            //   reports the operation; if the queue goes first, `drop` proves the channel idle or
            //   leaks them;
            // - no overlap: memory that somebody owns exclusively is nobody's shared source;
            // - the references above are not used after this call.
            unsafe { self.channel.raw.submit(&copy, Flags::empty()) }
        };
        match submitted {
            Ok(cookie) => {
                self.keep(cookie, InFlight { kind: copy.kind(), len, source, target, tag });
                Ok(cookie)
            }
            Err(error) => Err(Refused { error, source, target, tag }),
        }
    }

    /// Submits a fill of all of `target` with `pattern`, repeated from the first byte on, lowest
    /// byte first. A fill reads nothing: the source that comes back is the default one.
    ///
    /// # Errors
    ///
    /// As for [`copy`](Self::copy).
    ///
    /// # Panics
    ///
    /// As for [`copy`](Self::copy).
    pub fn fill(&mut self, pattern: u64, mut target: D, tag: T) -> Result<Cookie, Refused<S, D, T>>
    where
        S: DmaSource + Default,
        D: DmaTarget,
    {
        // The caller's code, which may panic: not while the engine has a target that nobody keeps.
        let source = S::default();
        self.in_flight.reserve(1);
        let to = target.as_mut();
        let len = to.len();
        let fill = Operation::Memset { pattern, target: to.as_mut_ptr(), len };
        let submitted = if len == 0 {
            Err(SubmitError::ZeroLength)
        } else {
            // SAFETY: as in `copy`, for the target.
            unsafe { self.channel.raw.submit(&fill, Flags::empty()) }
        };
        match submitted {
            Ok(cookie) => {
                self.keep(cookie, InFlight { kind: fill.kind(), len, source, target, tag });
                Ok(cookie)
            }
            Err(error) => Err(Refused { error, source, target, tag }),
        }
    }

    /// Keeps what belongs to an operation that the engine has got. From its submission to here
    /// nothing may unwind; the caller has reserved the room.
    fn keep(&mut self, cookie: Cookie, operation: InFlight<S, D, T>) {
        // Leaked if the check fails.
        let operation = ManuallyDrop::new(operation);
        if self.in_flight.is_empty() {
            self.front = cookie;
        }
        // A completion finds its operation by this count. With a wrong one it would give back the
        // memory of another, which the engine still has.
        assert_eq!(
            cookie.since(self.front),
            Some(self.in_flight.len() as u64),
            "the driver of {} breaks the contract of DmaChannel: cookies are consecutive",
            self.channel.name(),
        );
        let kind = operation.kind;
        self.in_flight.push_back(Some(ManuallyDrop::into_inner(operation)));
        self.channel.stats.count_submit(kind);
    }

    /// Rings the doorbell for all that was submitted.
    pub fn issue_pending(&mut self) {
        self.channel.raw.issue_pending();
    }

    /// Gives each operation that has ended since the last call to `each`, and returns how many
    /// there were. Never waits.
    pub fn poll(&mut self, mut each: impl FnMut(Done<S, D, T>)) -> usize {
        let Self { channel, in_flight, front, ended_early, spurious } = self;
        let Channel { raw, stats, .. } = channel;
        let mut ended = 0;
        raw.poll(&mut |completion: Completion| {
            let Completion { cookie, status, bytes, fallback } = completion;
            let operation = cookie
                .since(*front)
                .and_then(|index| in_flight.get_mut(usize::try_from(index).ok()?))
                .and_then(Option::take);
            let Some(InFlight { kind, len, source, target, tag }) = operation else {
                *spurious += 1;
                return;
            };
            *ended_early += 1;
            while let Some(None) = in_flight.front() {
                in_flight.pop_front();
                *front = front.next();
                *ended_early -= 1;
            }
            ended += 1;
            let bytes = if status == Status::Success { len } else { bytes.min(len) };
            stats.count_end(kind, &Completion { bytes, ..completion });
            each(Done { cookie, status, bytes, fallback, source, target, tag });
        });
        ended
    }

    /// Asks for one event when everything issued so far has ended; `false` if there is nothing to
    /// wait for or the channel has no event.
    pub fn arm(&mut self) -> bool {
        self.channel.raw.arm()
    }

    /// What becomes readable when the armed event fires.
    #[must_use]
    pub fn event(&self) -> Option<BorrowedFd<'_>> {
        self.channel.raw.event()
    }

    /// Issues what was submitted, and waits until nothing is in flight. Each operation that ends is
    /// given to `each`.
    ///
    /// Polls for a moment, then blocks on the channel's event; if it has none, yields the processor
    /// between polls.
    ///
    /// # Errors
    ///
    /// [`WaitTimeout`] if operations are still in flight after `timeout`. They stay there.
    pub fn wait(
        &mut self,
        timeout: Duration,
        mut each: impl FnMut(Done<S, D, T>),
    ) -> Result<(), WaitTimeout> {
        self.issue_pending();
        let start = Instant::now();
        loop {
            self.poll(&mut each);
            if self.is_idle() {
                return Ok(());
            }
            let waited = start.elapsed();
            let Some(remaining) = timeout.checked_sub(waited).filter(|left| !left.is_zero()) else {
                return Err(WaitTimeout { in_flight: self.in_flight() });
            };
            if waited < WAIT_SPIN {
                std::hint::spin_loop();
            } else if !(self.arm() && self.block(remaining)) {
                std::thread::yield_now();
            }
        }
    }

    /// Blocks until the armed event fires, but no longer than `timeout`. `false` if it cannot.
    fn block(&self, timeout: Duration) -> bool {
        let Some(event) = self.event() else { return false };
        // A timeout too long for the kernel's type is as good as none.
        let timeout = Timespec::try_from(timeout).ok();
        match rustix::event::poll(&mut [PollFd::new(&event, PollFlags::IN)], timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => true,
            // Out of kernel memory: polling goes on.
            Err(_) => false,
        }
    }

    /// Stops the engine and gives every operation in flight to `each`: those that had ended with
    /// their status, the others as [`Status::Aborted`].
    ///
    /// # Errors
    ///
    /// [`Stuck`] if the engine could not be proven idle within `timeout`; what is in flight stays
    /// there.
    pub fn terminate_sync(
        &mut self,
        timeout: Duration,
        each: impl FnMut(Done<S, D, T>),
    ) -> Result<(), Stuck> {
        self.channel.raw.terminate_sync(timeout)?;
        self.poll(each);
        Ok(())
    }
}

impl<S, D, T> Drop for Queue<S, D, T> {
    fn drop(&mut self) {
        let Self { channel: Channel { raw, stats, .. }, in_flight, front, .. } = self;
        let idle = in_flight.is_empty() || raw.terminate_sync(DROP_TIMEOUT).is_ok();
        if idle {
            raw.poll(&mut |completion| {
                let index = completion.cookie.since(*front).and_then(|at| usize::try_from(at).ok());
                let operation = index.and_then(|index| in_flight.get(index)?.as_ref());
                if let Some(InFlight { kind, .. }) = operation {
                    stats.count_end(*kind, &completion);
                }
            });
            // SAFETY: the field is dropped here and nowhere else, and not used afterwards. The
            // engine is idle, so the memory in it may be freed.
            unsafe { ManuallyDrop::drop(&mut self.in_flight) };
        }
        // Otherwise the engine may still write that memory: it is leaked.
    }
}

impl<S, D, T> fmt::Debug for Queue<S, D, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue")
            .field("channel", &self.channel)
            .field("in_flight", &self.in_flight.len())
            .field("spurious", &self.spurious)
            .finish()
    }
}

#[cfg(test)]
mod tests;
