use std::sync::atomic::{AtomicU64, Ordering};

use crate::{Completion, OperationKind, Status};

/// What a channel has done, counted by the [`Queue`](crate::Queue) that owns it and readable from
/// any thread at any time. The counters go on when the channel changes hands.
#[derive(Debug, Default)]
pub struct ChannelStats {
    submitted: Counter,
    /// By status, in the order of [`Status::ALL`].
    ended: [Counter; Status::ALL.len()],
    memcpy_count: Counter,
    bytes_transferred: Counter,
}

/// A counter with one writer, the channel's owner: a plain load and store, no locked instruction.
#[derive(Debug, Default)]
struct Counter(AtomicU64);

impl Counter {
    #[inline]
    fn get(&self) -> u64 {
        // Relaxed: counters order nothing.
        self.0.load(Ordering::Relaxed)
    }

    #[inline]
    fn add(&self, count: u64) {
        // Relaxed, and not one atomic addition: there is one writer at a time, and channels change
        // hands through the registry's lock.
        self.0.store(self.get().wrapping_add(count), Ordering::Relaxed);
    }
}

impl ChannelStats {
    /// Operations submitted.
    #[must_use]
    pub fn submitted(&self) -> u64 {
        self.submitted.get()
    }

    /// Operations that ended, with whatever status.
    #[must_use]
    pub fn completed(&self) -> u64 {
        self.ended.iter().map(Counter::get).sum()
    }

    /// Operations that ended with another status than success.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.completed() - self.ended(Status::Success)
    }

    /// Operations that ended with `status`.
    #[must_use]
    pub fn ended(&self, status: Status) -> u64 {
        self.ended[status as usize].get()
    }

    /// Copies submitted (Linux: `memcpy_count`).
    #[must_use]
    pub fn memcpy_count(&self) -> u64 {
        self.memcpy_count.get()
    }

    /// Bytes that are certainly at their targets.
    #[must_use]
    pub fn bytes_transferred(&self) -> u64 {
        self.bytes_transferred.get()
    }

    #[inline]
    pub(crate) fn count_submit(&self, kind: OperationKind) {
        self.submitted.add(1);
        if kind == OperationKind::Memcpy {
            self.memcpy_count.add(1);
        }
    }

    #[inline]
    pub(crate) fn count_end(&self, _kind: OperationKind, completion: &Completion) {
        self.ended[completion.status as usize].add(1);
        self.bytes_transferred.add(completion.bytes as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Cookie;

    #[test]
    fn statuses_are_their_own_index() {
        for (index, status) in Status::ALL.into_iter().enumerate() {
            assert_eq!(status as usize, index);
        }
    }

    #[test]
    fn ends_are_counted_by_status() {
        let stats = ChannelStats::default();
        stats.count_submit(OperationKind::Memcpy);
        stats.count_submit(OperationKind::Memset);
        for (status, bytes) in [(Status::Success, 100), (Status::DeviceLost, 7)] {
            let completion = Completion { cookie: Cookie::FIRST, status, bytes, fallback: None };
            stats.count_end(OperationKind::Memcpy, &completion);
        }
        assert_eq!((stats.submitted(), stats.memcpy_count()), (2, 1));
        assert_eq!((stats.completed(), stats.failed()), (2, 1));
        assert_eq!((stats.ended(Status::DeviceLost), stats.ended(Status::Aborted)), (1, 0));
        assert_eq!(stats.bytes_transferred(), 107);
    }
}
