//! Waiting for what other threads, processes and the kernel do, but not for ever.

use std::time::{Duration, Instant};

/// How long anything here may take before it counts as hanging.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Looks again and again, because there is no event for it, until `condition` holds.
#[track_caller]
pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < PATIENCE, "in vain: waited until {what}");
        std::thread::yield_now();
    }
}
