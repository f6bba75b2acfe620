use super::Distribution;
use crate::{FallbackCause, OperationKind, Status};

/// What a channel has done up to one moment.
///
/// The counters are read one after the other while the channel works, so that a sum may miss an
/// operation that another one has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// By kind, in the order of [`OperationKind::ALL`].
    pub(super) operations: [OperationSnapshot; OperationKind::ALL.len()],
    /// Operations in flight: now, at most, and usually.
    pub depth: DepthSnapshot,
}

/// What a channel has done of one kind of operation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OperationSnapshot {
    /// Operations submitted.
    pub submitted: u64,
    /// Bytes that are certainly at their targets, or were checked.
    pub bytes: u64,
    /// By status, in the order of [`Status::ALL`].
    pub(super) ended: [u64; Status::ALL.len()],
    /// By cause, in the order of [`FallbackCause::ALL`].
    pub(super) fallbacks: [u64; FallbackCause::ALL.len()],
    /// From submission to report, in nanoseconds, of the operations that were timed: one in 64.
    pub latency_ns: Distribution,
}

/// The operations in flight on a channel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DepthSnapshot {
    /// Now: submitted and not reported. It includes what an engine that could not be stopped never
    /// reported.
    pub now: u64,
    /// The most at any poll: between two polls the depth only grows.
    pub max: u64,
    /// At the submission of the operations that were timed, themselves included.
    pub distribution: Distribution,
}

impl Snapshot {
    /// What was done of one kind.
    #[must_use]
    pub const fn operation(&self, kind: OperationKind) -> &OperationSnapshot {
        &self.operations[kind as usize]
    }

    /// Operations submitted.
    #[must_use]
    pub fn submitted(&self) -> u64 {
        self.operations.iter().map(|operation| operation.submitted).sum()
    }

    /// Operations that ended, with whatever status.
    #[must_use]
    pub fn completed(&self) -> u64 {
        self.operations.iter().map(OperationSnapshot::completed).sum()
    }

    /// Operations that ended with another status than success.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.operations.iter().map(OperationSnapshot::failed).sum()
    }

    /// Operations that ended with `status`.
    #[must_use]
    pub fn ended(&self, status: Status) -> u64 {
        self.operations.iter().map(|operation| operation.ended(status)).sum()
    }

    /// Operations that the CPU did because of `cause`.
    #[must_use]
    pub fn fallbacks(&self, cause: FallbackCause) -> u64 {
        self.operations.iter().map(|operation| operation.fallbacks(cause)).sum()
    }

    /// Copies submitted, plain and scatter-gather (Linux: `memcpy_count`).
    #[must_use]
    pub const fn memcpy_count(&self) -> u64 {
        self.operation(OperationKind::Memcpy).submitted
            + self.operation(OperationKind::MemcpySg).submitted
    }

    /// Bytes that are certainly at their targets, or were checked (Linux: `bytes_transferred`).
    #[must_use]
    pub fn bytes_transferred(&self) -> u64 {
        self.operations.iter().map(|operation| operation.bytes).sum()
    }
}

impl OperationSnapshot {
    /// Operations that ended, with whatever status.
    #[must_use]
    pub fn completed(&self) -> u64 {
        self.ended.iter().sum()
    }

    /// Operations that ended with another status than success.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.completed() - self.ended(Status::Success)
    }

    /// Operations that ended with `status`.
    #[must_use]
    pub const fn ended(&self, status: Status) -> u64 {
        self.ended[status as usize]
    }

    /// Operations that the CPU did because of `cause`.
    #[must_use]
    pub const fn fallbacks(&self, cause: FallbackCause) -> u64 {
        self.fallbacks[cause as usize]
    }
}
