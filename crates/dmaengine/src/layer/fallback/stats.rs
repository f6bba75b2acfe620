use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use super::clock::nanoseconds;
use crate::FallbackCause;

/// What a channel under a [`Fallback`](crate::Fallback) has done that no completion tells, readable
/// from any thread at any time. Numbers count from the channel's first use on.
#[derive(Debug, Default)]
pub struct FallbackStats {
    /// By cause, in the order of [`FallbackCause::ALL`].
    operations: [AtomicU64; FallbackCause::ALL.len()],
    bytes: [AtomicU64; FallbackCause::ALL.len()],
    resets: AtomicU64,
    failed_resets: AtomicU64,
    failed_resets_in_a_row: AtomicU64,
    opened: AtomicU64,
    closed: AtomicU64,
    probes: AtomicU64,
    spurious: AtomicU64,
    /// Nanoseconds on the layer's clock; [`NEVER`] for none.
    due: Due,
}

#[derive(Debug)]
struct Due(AtomicU64);

const NEVER: u64 = u64::MAX;

impl Default for Due {
    fn default() -> Self {
        Self(AtomicU64::new(NEVER))
    }
}

// Relaxed everywhere: counters order nothing. A load and a store in place of an atomic addition: one
// thread uses the channel at a time, and channels change hands through something that orders.
fn add(counter: &AtomicU64, count: u64) {
    counter.store(get(counter).wrapping_add(count), Ordering::Relaxed);
}

fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

impl FallbackStats {
    /// Operations that the CPU did for this cause.
    #[must_use]
    pub fn operations(&self, cause: FallbackCause) -> u64 {
        get(&self.operations[cause as usize])
    }

    /// Bytes of the operations that the CPU did for this cause, as
    /// [`Operation::len`](crate::Operation::len) counts them.
    #[must_use]
    pub fn bytes(&self, cause: FallbackCause) -> u64 {
        get(&self.bytes[cause as usize])
    }

    /// Resets of the engine, those included that failed: it did not end an operation in time, or
    /// was down.
    #[must_use]
    pub fn resets(&self) -> u64 {
        get(&self.resets)
    }

    /// Resets that could not prove the engine idle.
    #[must_use]
    pub fn failed_resets(&self) -> u64 {
        get(&self.failed_resets)
    }

    /// Those since the last reset that succeeded: more than 0 means that the engine cannot be
    /// stopped, and keeps the memory that it has.
    #[must_use]
    pub fn failed_resets_in_a_row(&self) -> u64 {
        get(&self.failed_resets_in_a_row)
    }

    /// Times that the breaker opened: the engine failed, and was trusted before.
    #[must_use]
    pub fn opened(&self) -> u64 {
        get(&self.opened)
    }

    /// Times that it closed: a probe succeeded.
    #[must_use]
    pub fn closed(&self) -> u64 {
        get(&self.closed)
    }

    /// Whether the breaker is open, or half open: the CPU does everything but probes.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.opened() != self.closed()
    }

    /// Probes that were given to the engine.
    #[must_use]
    pub fn probes(&self) -> u64 {
        get(&self.probes)
    }

    /// Completions of the engine for operations that it did not have: late, doubled or invented.
    #[must_use]
    pub fn spurious_completions(&self) -> u64 {
        get(&self.spurious)
    }

    /// The time on the layer's [`Clock`](crate::Clock) at which the channel must be polled at the
    /// latest, so that an operation that does not end is found, or a reset tried again; `None` if
    /// that will not be needed. Exact with a [`DrivenClock`](crate::DrivenClock); with the system's
    /// clock, as of its last reading.
    #[must_use]
    pub fn due(&self) -> Option<Duration> {
        match get(&self.due.0) {
            NEVER => None,
            due => Some(Duration::from_nanos(due)),
        }
    }

    pub(super) fn count_fallback(&self, cause: FallbackCause, bytes: usize) {
        add(&self.operations[cause as usize], 1);
        add(&self.bytes[cause as usize], bytes as u64);
    }

    pub(super) fn count_reset(&self, succeeded: bool) {
        add(&self.resets, 1);
        if !succeeded {
            add(&self.failed_resets, 1);
            add(&self.failed_resets_in_a_row, 1);
        }
    }

    pub(super) fn reset_is_over(&self) {
        self.failed_resets_in_a_row.store(0, Ordering::Relaxed);
    }

    pub(super) fn count_opened(&self) {
        add(&self.opened, 1);
    }

    pub(super) fn count_closed(&self) {
        add(&self.closed, 1);
    }

    pub(super) fn count_probe(&self) {
        add(&self.probes, 1);
    }

    pub(super) fn count_spurious(&self) {
        add(&self.spurious, 1);
    }

    pub(super) fn set_due(&self, due: Option<Duration>) {
        self.due.0.store(due.map_or(NEVER, nanoseconds), Ordering::Relaxed);
    }
}
