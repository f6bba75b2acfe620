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
}

impl Status {
    /// All of them, in the order of declaration.
    pub const ALL: [Self; 10] = [
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
    ];
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
}
