use crate::Cookie;

/// How one operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Status {
    /// Every byte is at its target.
    #[error("success")]
    Success,
    /// The engine stopped at some byte, or before the first; the channel was terminated or halted
    /// at another operation.
    #[error("aborted")]
    Aborted,
    /// The engine never looked at it: it waited behind a failed operation.
    #[error("not attempted")]
    NotAttempted,
    /// Reading the source failed.
    #[error("read error at the source")]
    ReadError,
    /// Writing the target failed.
    #[error("write error at the target")]
    WriteError,
    /// The engine refused an address.
    #[error("address refused by the engine")]
    BadAddress,
    /// The engine refused the length.
    #[error("length refused by the engine")]
    BadLength,
    /// The engine refused the descriptor for another reason (alignment, control bits).
    #[error("descriptor refused by the engine")]
    BadDescriptor,
    /// It did not end in time, and the channel was reset.
    #[error("timed out")]
    TimedOut,
    /// The engine vanished, or cannot be brought back.
    #[error("device lost")]
    DeviceLost,
    /// A check found that P, or an exclusive or, is not what it should be.
    #[error("P does not match")]
    MismatchP,
    /// A check found that Q is not what it should be.
    #[error("Q does not match")]
    MismatchQ,
    /// A check found that neither P nor Q is what it should be.
    #[error("neither P nor Q matches")]
    MismatchPq,
}

impl Status {
    /// All of them, in the order of declaration.
    pub const ALL: [Self; 13] = [
        Self::Success,
        Self::Aborted,
        Self::NotAttempted,
        Self::ReadError,
        Self::WriteError,
        Self::BadAddress,
        Self::BadLength,
        Self::BadDescriptor,
        Self::TimedOut,
        Self::DeviceLost,
        Self::MismatchP,
        Self::MismatchQ,
        Self::MismatchPq,
    ];

    /// Whether the operation did what it was for: it moved all bytes, or it checked all of them,
    /// whatever the check found.
    #[must_use]
    pub const fn is_done(self) -> bool {
        matches!(self, Self::Success | Self::MismatchP | Self::MismatchQ | Self::MismatchPq)
    }
}

/// Why the CPU did an operation that was meant for an engine ([`Completion::fallback`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FallbackCause {
    /// The ring had no room.
    RingFull,
    /// The engine lacks the operation, or cannot do one of that length, alignment or number of
    /// pieces.
    Unsupported,
    /// The memory is in no arena that is mapped for the engine.
    Unreachable,
    /// The engine failed a short while ago, and rests.
    Resting,
    /// The engine was given the operation and did not do it: it failed, halted or was down.
    Failed,
    /// The engine was given the operation and did not end it in time.
    TimedOut,
}

impl FallbackCause {
    /// All of them, in the order of declaration.
    pub const ALL: [Self; 6] = [
        Self::RingFull,
        Self::Unsupported,
        Self::Unreachable,
        Self::Resting,
        Self::Failed,
        Self::TimedOut,
    ];

    /// A word for it, as outputs print it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RingFull => "ring full",
            Self::Unsupported => "not supported",
            Self::Unreachable => "not reachable",
            Self::Resting => "engine resting",
            Self::Failed => "engine failed",
            Self::TimedOut => "timed out",
        }
    }
}

/// What a channel reports when an operation has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    /// Which operation.
    pub cookie: Cookie,
    /// How it ended.
    pub status: Status,
    /// The length of the prefix that is certainly at the target, in bytes: all of it on success.
    /// Otherwise 0, unless the engine reports partial completion ([`crate::ChannelInfo`]).
    pub bytes: usize,
    /// Why the CPU did it; `None` if the engine did.
    pub fallback: Option<FallbackCause>,
}

/// What a channel says of operations that all ended with success
/// ([`DmaChannel::poll_successes`](crate::DmaChannel::poll_successes)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Successes {
    /// The first of them.
    pub first: Cookie,
    /// How many there are, one after the other in the order of submission.
    pub count: usize,
    /// Whether [`poll`](crate::DmaChannel::poll) has more to report, or may have.
    pub more: bool,
}

impl Successes {
    /// None that the channel knows of; all is for `poll` to report.
    pub const UNKNOWN: Self = Self { first: Cookie::FIRST, count: 0, more: true };
}

impl Completion {
    /// The end of an operation of `len` bytes that did all it was for, by the engine.
    #[must_use]
    pub const fn success(cookie: Cookie, len: usize) -> Self {
        Self { cookie, status: Status::Success, bytes: len, fallback: None }
    }

    /// The end of an operation of `len` bytes by an engine that does all of one or nothing.
    #[must_use]
    pub const fn of(cookie: Cookie, status: Status, len: usize) -> Self {
        let bytes = if status.is_done() { len } else { 0 };
        Self { cookie, status, bytes, fallback: None }
    }

    /// The end of an operation of which no byte is known to be at its target.
    #[must_use]
    pub const fn failed(cookie: Cookie, status: Status) -> Self {
        Self { cookie, status, bytes: 0, fallback: None }
    }
}
