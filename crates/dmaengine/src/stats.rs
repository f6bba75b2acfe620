//! What channels have done: counters by kind of operation, queue depth, latency.
//!
//! The owner of a channel counts with plain loads and stores, a handful of instructions for each
//! submission and each end; any thread reads at any time and takes no lock, so that a reader costs
//! the owner nothing but the cache lines it looks at. Latency needs a clock, so one operation in 64
//! is timed, evenly over the places in a batch, and whether others wait or not.

use crate::{FallbackCause, OperationKind, Status};

mod counter;
mod histogram;
mod meter;
mod snapshot;

use self::{counter::Counter, histogram::Histogram};

pub(crate) use self::meter::Meter;
pub use self::{
    histogram::Distribution,
    snapshot::{DepthSnapshot, OperationSnapshot, Snapshot},
};

/// What a channel has done, counted by the [`Queue`](crate::Queue) that owns it and readable from
/// any thread at any time. The counters go on when the channel changes hands.
#[derive(Debug, Default)]
pub struct ChannelStats {
    /// By kind, in the order of [`OperationKind::ALL`].
    operations: [OperationStats; OperationKind::ALL.len()],
    max_depth: Counter,
    depth: Histogram,
}

/// Of one kind. The counters that every operation changes come first, in one cache line, which no
/// two kinds share.
#[derive(Debug, Default)]
#[repr(C, align(64))]
struct OperationStats {
    submitted: Counter,
    bytes: Counter,
    /// By status, in the order of [`Status::ALL`]: success first.
    ended: [Counter; Status::ALL.len()],
    /// By cause, in the order of [`FallbackCause::ALL`].
    fallbacks: [Counter; FallbackCause::ALL.len()],
    latency_ns: Histogram,
}

impl ChannelStats {
    /// All counters, as they are now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let operations = self.operations.each_ref().map(|operation| OperationSnapshot {
            submitted: operation.submitted.get(),
            bytes: operation.bytes.get(),
            ended: operation.ended.each_ref().map(Counter::get),
            fallbacks: operation.fallbacks.each_ref().map(Counter::get),
            latency_ns: operation.latency_ns.snapshot(),
        });
        let mut snapshot = Snapshot { operations, ..Snapshot::default() };
        // An operation may have ended between the two readings.
        let now = snapshot.submitted().saturating_sub(snapshot.completed());
        let max = self.max_depth.get().max(now);
        snapshot.depth = DepthSnapshot { now, max, distribution: self.depth.snapshot() };
        snapshot
    }

    /// Operations submitted.
    #[must_use]
    pub fn submitted(&self) -> u64 {
        self.operations.iter().map(|operation| operation.submitted.get()).sum()
    }

    /// Operations that ended, with whatever status.
    #[must_use]
    pub fn completed(&self) -> u64 {
        self.operations.iter().flat_map(|operation| &operation.ended).map(Counter::get).sum()
    }

    /// Operations that ended with another status than success.
    #[must_use]
    pub fn failed(&self) -> u64 {
        Status::ALL.into_iter().skip(1).map(|status| self.ended(status)).sum()
    }

    /// Operations that ended with `status`.
    #[must_use]
    pub fn ended(&self, status: Status) -> u64 {
        self.operations.iter().map(|operation| operation.ended[status as usize].get()).sum()
    }

    /// Copies submitted, plain and scatter-gather (Linux: `memcpy_count`).
    #[must_use]
    pub fn memcpy_count(&self) -> u64 {
        [OperationKind::Memcpy, OperationKind::MemcpySg]
            .into_iter()
            .map(|kind| self.operations[kind as usize].submitted.get())
            .sum()
    }

    /// Bytes that are certainly at their targets, or were checked (Linux: `bytes_transferred`).
    #[must_use]
    pub fn bytes_transferred(&self) -> u64 {
        self.operations.iter().map(|operation| operation.bytes.get()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_statuses_and_causes_are_their_own_index() {
        for (index, kind) in OperationKind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, index);
        }
        for (index, status) in Status::ALL.into_iter().enumerate() {
            assert_eq!(status as usize, index);
        }
        for (index, cause) in FallbackCause::ALL.into_iter().enumerate() {
            assert_eq!(cause as usize, index);
        }
        assert_eq!(Status::Success as usize, 0, "`failed` leaves out the first");
    }
}
