use std::sync::atomic::{AtomicU64, Ordering};

/// A counter with one writer, the channel's owner: a plain addition, no locked instruction.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    #[inline]
    pub(super) fn get(&self) -> u64 {
        // Relaxed: counters order nothing.
        self.0.load(Ordering::Relaxed)
    }

    #[inline]
    pub(super) fn add(&self, count: u64) {
        // Relaxed, and not one atomic addition: there is one writer at a time, and channels change
        // hands through the registry's lock.
        self.0.store(self.get().wrapping_add(count), Ordering::Relaxed);
    }

    /// Raises it to `value`, if that is more.
    #[inline]
    pub(super) fn raise(&self, value: u64) {
        if self.get() < value {
            // Relaxed: as in `add`.
            self.0.store(value, Ordering::Relaxed);
        }
    }
}
