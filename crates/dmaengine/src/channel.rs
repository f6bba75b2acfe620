use std::{
    fmt::{self, Debug},
    os::fd::BorrowedFd,
    sync::Arc,
    time::Duration,
};

use crate::{
    ChannelInfo, Completion, Cookie, FallbackStats, Flags, Operation, OperationKind, Successes,
};

/// A part of an operation, as errors name it. Sources and targets are counted from 0; the only one
/// is number 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Argument {
    /// A source, or a piece of the list of sources.
    Source(usize),
    /// A target, or a piece of the list of targets.
    Target(usize),
    /// The list of sources.
    Sources,
    /// The list of targets.
    Targets,
    /// The exclusive or of the sources.
    P,
    /// Their sum with coefficients.
    Q,
    /// The length.
    Length,
}

impl fmt::Display for Argument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Source(number) => write!(f, "source {number}"),
            Self::Target(number) => write!(f, "target {number}"),
            Self::Sources => f.write_str("the sources"),
            Self::Targets => f.write_str("the targets"),
            Self::P => f.write_str("P"),
            Self::Q => f.write_str("Q"),
            Self::Length => f.write_str("the length"),
        }
    }
}

/// Why an operation was not submitted. Nothing of it was shown to the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum SubmitError {
    /// No room for its descriptors until some that are in flight are reported by `poll`.
    #[error("the ring is full: poll for completions, or copy with the CPU")]
    RingFull,
    /// It takes more descriptors than the ring will ever have free.
    #[error("{len} bytes need more descriptors than the ring holds; the most is {max} bytes")]
    TooLong {
        /// The length asked for, in bytes.
        len: usize,
        /// The greatest length that fits an empty ring, in bytes.
        max: usize,
    },
    /// A length of zero moves nothing.
    #[error("the length is zero: there is nothing to do")]
    ZeroLength,
    /// A piece of a scatter-gather list is empty, and others are not.
    #[error("{piece} has a length of zero: leave it out")]
    EmptyPiece {
        /// Which.
        piece: Argument,
    },
    /// Source and target lengths differ.
    #[error("the source has {source_len} bytes and the target {target_len}; they must be equal")]
    LengthMismatch {
        /// The source's length in bytes.
        source_len: usize,
        /// The target's length in bytes.
        target_len: usize,
    },
    /// A source or a parity is not as long as the first source.
    #[error("{argument} has {len} bytes and the first source {first_len}; they must be equal")]
    UnequalLengths {
        /// Which.
        argument: Argument,
        /// Its length in bytes.
        len: usize,
        /// The first source's length in bytes.
        first_len: usize,
    },
    /// What is written shares bytes with something else of the operation.
    #[error("{target} and {other} overlap: give it memory of its own")]
    Overlap {
        /// What is written.
        target: Argument,
        /// What it shares bytes with.
        other: Argument,
    },
    /// Memory is in no arena that is mapped for this engine ([`crate::Operation::unreachable`]).
    #[error("{argument}, at {address:#x}, is not mapped for this engine: use arena memory")]
    Unreachable {
        /// What it is of.
        argument: Argument,
        /// Where what cannot be reached begins: the argument, or a piece of it.
        address: usize,
    },
    /// The channel cannot do this operation ([`crate::Capabilities`]).
    #[error("the channel cannot do {operation}: request one that can, or use the CPU")]
    Unsupported {
        /// What was asked for.
        operation: OperationKind,
    },
    /// The channel cannot keep operations in order ([`crate::Capabilities::FENCE`]).
    #[error("the channel has no fences: wait for the earlier operations instead")]
    UnsupportedFence,
    /// An address or a length is not a multiple of what the engine needs.
    #[error(
        "{argument} is not aligned: addresses and lengths must be multiples of {alignment} bytes for \
         this engine"
    )]
    Misaligned {
        /// Which: of a piece of a scatter-gather list its address or its length.
        argument: Argument,
        /// The engine's alignment in bytes ([`crate::ChannelInfo::alignment`]).
        alignment: usize,
    },
    /// A scatter-gather list is too long.
    #[error("{list} have {segments} segments; the channel takes at most {max} on each side")]
    TooManySegments {
        /// Which list: [`Argument::Sources`] or [`Argument::Targets`].
        list: Argument,
        /// Its segments.
        segments: usize,
        /// The most ([`crate::ChannelInfo::max_sg`]).
        max: usize,
    },
    /// The pieces of a scatter-gather copy never fit the ring.
    #[error("the lists need {descriptors} descriptors; the ring holds {max}")]
    TooManyDescriptors {
        /// Descriptors needed.
        descriptors: usize,
        /// Descriptors that the ring holds.
        max: usize,
    },
    /// Too few or too many sources.
    #[error("there are {sources} sources; the channel takes 1 to {max}")]
    SourceCount {
        /// Sources given.
        sources: usize,
        /// The most ([`crate::ChannelInfo::max_xor`], [`crate::ChannelInfo::max_pq`]).
        max: usize,
    },
    /// Not one coefficient for each source.
    #[error("there are {coefficients} coefficients for {sources} sources; they must be as many")]
    CoefficientCount {
        /// Sources given.
        sources: usize,
        /// Coefficients given.
        coefficients: usize,
    },
    /// Neither P nor Q was asked for.
    #[error("neither P nor Q is given: name at least one")]
    NoTarget,
    /// The channel is out of service until it has been terminated with success.
    #[error("the channel is down: terminate it to bring it back")]
    ChannelDown,
    /// The device is being removed ([`crate::Registry::unregister`]).
    #[error("the device is being removed: wait for what is in flight, then drop the channel")]
    Removed,
    /// This process is a forked child of the one that has the channel.
    #[error("the channel belongs to the parent process: a child opens devices of its own")]
    Forked,
}

/// The engine could not be proven idle: memory that was submitted may still be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[error("the engine did not become idle in time; its memory cannot be released")]
pub struct Stuck;

/// A channel as its driver implements it. Clients use a [`crate::Queue`] on top of it.
///
/// One thread uses a channel at a time. Operations are submitted, then issued together with one
/// doorbell, then polled for.
///
/// # Safety
///
/// Implementors promise, for every operation that was submitted with success:
///
/// * its cookie is the [`next`](Cookie::next) after that of the operation submitted before it;
/// * it is reported by [`poll`](Self::poll) or [`poll_successes`](Self::poll_successes) at most once,
///   with the cookie that `submit` returned;
/// * after its report the engine touches neither its source nor its target, and all that it wrote
///   is visible to the thread that polled (acquire);
/// * nothing outside its targets is written on its behalf;
/// * an operation that `submit` refused is never shown to the engine;
/// * after `terminate_sync` returned `Ok`, and after `drop`, the engine touches no memory of any
///   operation. If that cannot be reached in `drop`, what belongs to the engine is leaked and the
///   process aborts rather than let memory be reused under DMA.
pub unsafe trait DmaChannel: Send + Debug {
    /// The fixed properties.
    fn info(&self) -> &ChannelInfo;

    /// Descriptors that can be submitted now. [`ChannelInfo::check`] tells how many an operation takes
    /// at most: while there are so many, it is not refused with [`SubmitError::RingFull`].
    fn space(&self) -> usize;

    /// Submits an operation, which the engine may not look at before
    /// [`issue_pending`](Self::issue_pending).
    ///
    /// # Errors
    ///
    /// See [`SubmitError`]; nothing was submitted.
    ///
    /// # Safety
    ///
    /// Until this operation is reported, or `terminate_sync` returns `Ok`:
    ///
    /// * all that it reads (sources; P and Q of a check) stays valid for reads and nobody writes it;
    /// * all that it writes (targets; P and Q) stays valid for writes, and nobody else reads or
    ///   writes it or holds a reference to it;
    /// * but another operation of this channel may, if [`Flags::FENCE`] orders the two;
    /// * what it writes overlaps nothing else of it.
    unsafe fn submit(
        &mut self,
        operation: &Operation<'_>,
        flags: Flags,
    ) -> Result<Cookie, SubmitError>;

    /// Rings the doorbell for all that was submitted. Does nothing if there is nothing new.
    fn issue_pending(&mut self);

    /// Reports operations that have ended since the last call; never waits for one. A halted
    /// engine is restarted in here, in bounded time: the operation it halted at ends with its own
    /// status, earlier ones with success, later ones [`Aborted`](crate::Status::Aborted).
    ///
    /// Call it again whenever [`event`](Self::event) is readable, or as often as progress is wanted.
    fn poll(&mut self, report: &mut dyn FnMut(Completion));

    /// As [`poll`](Self::poll), for the operations that were submitted first, as far as they have
    /// ended and with success: all at once, without a call for each. It says whether `poll` must be
    /// asked for more.
    ///
    /// A channel that cannot tell leaves all to `poll`, which is the default. (DPDK has the same two:
    /// `rte_dma_completed` and `rte_dma_completed_status`.)
    fn poll_successes(&mut self) -> Successes {
        Successes::UNKNOWN
    }

    /// Asks for one event on [`event`](Self::event) when everything issued so far has ended.
    /// Returns `false`, and asks for nothing, if there is nothing to wait for: poll instead.
    fn arm(&mut self) -> bool;

    /// The file descriptor that becomes readable when an armed event fires; `None` if the channel
    /// has no interrupts. [`arm`](Self::arm) clears it.
    fn event(&self) -> Option<BorrowedFd<'_>>;

    /// What the [`Fallback`](crate::Fallback) over the engine has done, if there is one in this
    /// channel; layers pass the question on.
    fn fallback_stats(&self) -> Option<&Arc<FallbackStats>> {
        None
    }

    /// Stops the engine, proves it idle and makes the channel usable again, within `timeout`.
    /// Operations that had not ended are reported by the next [`poll`](Self::poll) as
    /// [`Aborted`](crate::Status::Aborted).
    ///
    /// # Errors
    ///
    /// [`Stuck`] if idleness could not be proven; the memory of operations in flight then still
    /// belongs to the engine. Calling again is allowed and may succeed.
    fn terminate_sync(&mut self, timeout: Duration) -> Result<(), Stuck>;
}
