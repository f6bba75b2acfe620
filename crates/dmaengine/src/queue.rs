//! The safe way to use a channel: owned memory in, owned memory out.
//!
//! # Model
//!
//! A [`Queue`] owns a channel and, of every operation in flight on it, the memory and a tag:
//!
//! ```text
//!   copy(source, target, tag) --> slots, by cookie --> poll: Done { status, source, target, tag }
//!                                 (source, target, tag)
//! ```
//!
//! What goes in comes out with the operation's end, and not before: while a copy is in flight its
//! buffers cannot be named, so there is nothing that a borrow checker would have to check. What `S`
//! and `D` are decides what the queue can do:
//!
//! | source `S` | target `D` | operations |
//! | --- | --- | --- |
//! | [`DmaSource`] | [`DmaTarget`] | [`copy`](Queue::copy), [`fill`](Queue::fill) |
//! | `Vec` of [`DmaSource`] | `Vec` of [`DmaTarget`] | [`copy_sg`](Queue::copy_sg) |
//! | `Vec` of [`DmaSource`] | [`Syndromes`] of [`DmaTarget`] | [`xor`](Queue::xor), [`pq`](Queue::pq) and their checks |
//! | anything | anything | [`submit`](Queue::submit), which is unsafe: all others stand on it |
//!
//! # Invariants
//!
//! 1. A slot is filled when the channel took its operation, and emptied when the channel reported
//!    it. Nothing between the two can unwind and drop the memory.
//! 2. A completion that names no filled slot is counted, and nothing else.
//! 3. Dropping the queue terminates the channel. What is in the slots is dropped if the channel was
//!    proven idle, and leaked if not.

mod in_flight;
mod lists;
mod wait;

use std::{error::Error, fmt, mem::ManuallyDrop, os::fd::BorrowedFd, sync::Arc, time::Duration};

pub(crate) use self::{
    in_flight::InFlight,
    lists::Lists,
    wait::{Waiting, block},
};
pub use self::{
    lists::Syndromes,
    wait::{Wait, WaitTimeout},
};
use crate::{
    Channel, ChannelInfo, ChannelStats, Completion, Cookie, DmaChannel, DmaSource, DmaTarget,
    FallbackCause, Flags, Operation, Status, Stuck, SubmitError,
};

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

/// An operation that was not submitted, with its memory.
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

impl<S, D, T> Done<S, D, T> {
    pub(crate) fn new(completion: Completion, source: S, target: D, tag: T) -> Self {
        let Completion { cookie, status, bytes, fallback } = completion;
        Self { cookie, status, bytes, fallback, source, target, tag }
    }
}

impl<S, D, T> fmt::Display for Refused<S, D, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl<S: fmt::Debug, D: fmt::Debug, T: fmt::Debug> Error for Refused<S, D, T> {}

impl<S, D, T> From<Refused<S, D, T>> for SubmitError {
    /// Lets go of the memory.
    fn from(refused: Refused<S, D, T>) -> Self {
        refused.error
    }
}

/// A channel that owns the memory of the operations in flight on it.
///
/// Nothing is allocated per operation. (On a channel that completes out of order the slots grow
/// while one operation stays behind many others.)
///
/// ```
/// use std::{sync::Arc, time::Duration};
/// use dmaengine::{Queue, Registry, Status, ThreadsDevice};
///
/// let registry = Registry::new();
/// registry.register(Arc::new(ThreadsDevice::new(1)));
/// let mut queue = Queue::new(registry.request("dma0chan0")?);
///
/// let (source, target) = (b"hello".to_vec(), vec![0; 5]);
/// queue.copy(source, target, "the first").map_err(|refused| refused.error)?;
/// queue.wait(Duration::from_secs(5), |done| {
///     assert_eq!(done.status, Status::Success);
///     assert_eq!((&done.target[..], done.tag), (&b"hello"[..], "the first"));
/// })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// With pool tokens: packets that a link received go to an application's buffers, and both go back
/// to their arena when they are dropped. Memory of an arena can be reached by every engine that the
/// arena was mapped for, which is why engines of IOVAs take no other.
///
/// ```
/// use std::{sync::Arc, time::Duration};
/// use dmaengine::{Arena, DmaBuf, PacketBuf, PacketPool, Queue, Registry, ThreadsDevice};
///
/// let registry = Registry::new();
/// registry.register(Arc::new(ThreadsDevice::new(1)));
/// let arena = Arena::new(1 << 20)?;
/// registry.map(&arena)?;
/// let pool = PacketPool::new(&arena, 2048, 16)?;
/// let mut queue: Queue<PacketBuf, DmaBuf, ()> = Queue::new(registry.request("dma0chan0")?);
///
/// let mut packet = pool.take().expect("a fresh pool has buffers");
/// packet.as_mut()[..5].copy_from_slice(b"hello");
/// let packet = packet.freeze(5);
/// let shared = packet.clone(); // a packet can be read by others while the engine reads it
/// queue.copy(packet, arena.alloc(5)?, ()).map_err(|refused| refused.error)?;
/// assert_eq!(shared.as_ref(), b"hello");
/// queue.wait(Duration::from_secs(5), |done| assert_eq!(&done.target[..], b"hello"))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Queue<S, D, T> {
    channel: Channel,
    /// Never dropped with memory in it that the engine may touch: see `Drop`.
    in_flight: ManuallyDrop<InFlight<(S, D, T)>>,
    lists: Lists,
}

impl<S, D, T> Queue<S, D, T> {
    /// A queue over `channel`, from a [`Registry`](crate::Registry) or a bare
    /// [`DmaChannel`]. Operations that were submitted to it before are none of
    /// the queue's: their completions are [spurious](Self::spurious_completions).
    #[must_use]
    pub fn new(channel: impl Into<Channel>) -> Self {
        let channel = channel.into();
        let capacity = channel.info().ring_size;
        Self {
            channel,
            in_flight: ManuallyDrop::new(InFlight::with_capacity(capacity)),
            lists: Lists::default(),
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
        self.in_flight.len()
    }

    /// Whether nothing is in flight.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// Completions that named no operation in flight: other than 0 is a defect of driver or device.
    #[must_use]
    pub fn spurious_completions(&self) -> u64 {
        self.in_flight.spurious()
    }

    /// Descriptors that can be submitted now. [`ChannelInfo::check`] tells how many an operation takes.
    #[must_use]
    pub fn space(&self) -> usize {
        self.channel.space()
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
    /// If the driver breaks its promise that cookies are consecutive. The operation's memory is
    /// leaked: nobody could tell when the engine is through with it.
    ///
    /// # Safety
    ///
    /// As for [`DmaChannel::submit`]: as long as `source` and `target`
    /// exist, however they are moved, what the operation reads stays valid and unwritten, and what
    /// it writes stays valid and exclusively the operation's. They exist until they are given back,
    /// and a queue that is leaked does not end their lifetimes: if the memory is borrowed, the caller
    /// sees to it that the operation has ended, or the channel was terminated, when the borrow does.
    ///
    /// ```
    /// use std::time::Duration;
    /// use dmaengine::{CpuDevice, DmaDevice, Flags, Operation, Queue};
    ///
    /// static GREETING: [u8; 5] = *b"hello";
    /// let mut queue = Queue::new(CpuDevice::new(1).request_channel(0)?);
    /// let mut target = vec![0u8; 5];
    /// let copy = Operation::Memcpy { source: GREETING.as_ptr(), target: target.as_mut_ptr(), len: 5 };
    /// // SAFETY: a static is always there and never written. The target's `Vec` is its only owner and
    /// // goes in with the operation; moving it neither moves nor touches its bytes.
    /// let submitted = unsafe { queue.submit(&copy, Flags::empty(), &GREETING, target, ()) };
    /// submitted.map_err(|refused| refused.error)?;
    /// queue.wait(Duration::from_secs(5), |done| assert_eq!(done.target, GREETING))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub unsafe fn submit(
        &mut self,
        operation: &Operation<'_>,
        flags: Flags,
        source: S,
        target: D,
        tag: T,
    ) -> Result<Cookie, Refused<S, D, T>> {
        let memory = (source, target, tag);
        // SAFETY: by the caller's promise. The memory is kept in `in_flight` until the channel
        // reports the operation; if the queue goes first, `drop` proves the channel idle or leaks it.
        let submitted =
            unsafe { self.in_flight.submit(&mut self.channel, operation, flags, memory) };
        submitted.map_err(|(error, (source, target, tag))| Refused { error, source, target, tag })
    }

    /// Rings the doorbell for all that was submitted.
    #[inline]
    pub fn issue_pending(&mut self) {
        self.channel.issue_pending();
    }

    /// Gives each operation that has ended since the last call to `each`, and returns how many
    /// there were. Never waits.
    #[inline]
    pub fn poll(&mut self, mut each: impl FnMut(Done<S, D, T>)) -> usize {
        self.in_flight.poll(&mut self.channel, |completion, (source, target, tag)| {
            each(Done::new(completion, source, target, tag));
        })
    }

    /// Asks for one event when everything issued so far has ended; `false` if there is nothing to
    /// wait for or the channel has no event.
    pub fn arm(&mut self) -> bool {
        self.channel.arm()
    }

    /// What becomes readable when the armed event fires.
    #[must_use]
    pub fn event(&self) -> Option<BorrowedFd<'_>> {
        self.channel.event()
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
        self.channel.terminate_sync(timeout)?;
        self.poll(each);
        Ok(())
    }
}

impl<S: DmaSource, D: DmaTarget, T> Queue<S, D, T> {
    /// Submits a copy of all of `source` to all of `target`; `tag` comes back with the result.
    /// Call [`issue_pending`](Self::issue_pending) after the last of a batch.
    ///
    /// # Errors
    ///
    /// [`Refused`] gives everything back and says why; nothing was submitted.
    ///
    /// # Panics
    ///
    /// As for [`submit`](Self::submit).
    #[inline]
    pub fn copy(&mut self, source: S, target: D, tag: T) -> Result<Cookie, Refused<S, D, T>> {
        self.copy_with(source, target, Flags::empty(), tag)
    }

    /// As [`copy`](Self::copy), with `flags`.
    ///
    /// # Errors
    ///
    /// As for [`copy`](Self::copy).
    ///
    /// # Panics
    ///
    /// As for [`submit`](Self::submit).
    #[inline]
    pub fn copy_with(
        &mut self,
        source: S,
        mut target: D,
        flags: Flags,
        tag: T,
    ) -> Result<Cookie, Refused<S, D, T>> {
        let from = source.as_ref();
        let to = target.as_mut();
        let (source_len, target_len) = (from.len(), to.len());
        let copy =
            Operation::Memcpy { source: from.as_ptr(), target: to.as_mut_ptr(), len: source_len };
        if source_len != target_len {
            let error = SubmitError::LengthMismatch { source_len, target_len };
            return Err(Refused { error, source, target, tag });
        }
        if source_len == 0 {
            return Err(Refused { error: SubmitError::ZeroLength, source, target, tag });
        }
        // SAFETY:
        // - valid and unwritten, respectively exclusive: `DmaSource` and `DmaTarget` promise it for
        //   as long as the two values exist. They own the memory, so no borrow can end before;
        // - no overlap: memory that somebody owns exclusively is nobody's shared source;
        // - the references above are not used after this call.
        unsafe { self.submit(&copy, flags, source, target, tag) }
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
    /// As for [`submit`](Self::submit).
    pub fn fill(&mut self, pattern: u64, target: D, tag: T) -> Result<Cookie, Refused<S, D, T>>
    where
        S: Default,
    {
        self.fill_with(pattern, target, Flags::empty(), tag)
    }

    /// As [`fill`](Self::fill), with `flags`.
    ///
    /// # Errors
    ///
    /// As for [`copy`](Self::copy).
    ///
    /// # Panics
    ///
    /// As for [`submit`](Self::submit).
    pub fn fill_with(
        &mut self,
        pattern: u64,
        mut target: D,
        flags: Flags,
        tag: T,
    ) -> Result<Cookie, Refused<S, D, T>>
    where
        S: Default,
    {
        // The caller's code, which may panic: not while the engine has a target that nobody keeps.
        let source = S::default();
        let to = target.as_mut();
        let fill = Operation::Memset { pattern, target: to.as_mut_ptr(), len: to.len() };
        if fill.is_empty() {
            return Err(Refused { error: SubmitError::ZeroLength, source, target, tag });
        }
        // SAFETY: as in `copy_with`, for the target.
        unsafe { self.submit(&fill, flags, source, target, tag) }
    }
}

impl<S, D, T> Drop for Queue<S, D, T> {
    fn drop(&mut self) {
        let Self { channel, in_flight, lists: _ } = self;
        if in_flight.is_empty() || channel.terminate_sync(DROP_TIMEOUT).is_ok() {
            // The engine is idle, so the memory may be freed. Polled for, for the counters.
            in_flight.poll(channel, |_, memory| drop(memory));
            // SAFETY: the field is dropped here and nowhere else, and not used afterwards.
            unsafe { ManuallyDrop::drop(in_flight) };
        }
        // Otherwise the engine may still write that memory: it is leaked.
    }
}

impl<S, D, T> fmt::Debug for Queue<S, D, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue")
            .field("channel", &self.channel)
            .field("in_flight", &self.in_flight())
            .field("spurious", &self.spurious_completions())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
