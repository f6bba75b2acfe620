//! What a program has set on a stream.

use std::{
    io,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use netdma::Copybreak;
use netstack::Instant;
use parking_lot::Mutex;

#[derive(Debug, Default)]
pub(crate) struct Settings {
    pub(crate) read_timeout: Timeout,
    pub(crate) write_timeout: Timeout,
    nonblocking: AtomicBool,
    pub(crate) copybreak: Mutex<Option<Copybreak>>,
}

impl Settings {
    pub(crate) fn set_nonblocking(&self, nonblocking: bool) {
        // Relaxed: it guards nothing else.
        self.nonblocking.store(nonblocking, Ordering::Relaxed);
    }

    pub(crate) fn is_nonblocking(&self) -> bool {
        // Relaxed: it guards nothing else.
        self.nonblocking.load(Ordering::Relaxed)
    }
}

/// A timeout in nanoseconds, 0 for none.
#[derive(Debug, Default)]
pub(crate) struct Timeout(AtomicU64);

impl Timeout {
    pub(crate) fn set(&self, timeout: Option<Duration>) -> io::Result<()> {
        if timeout == Some(Duration::ZERO) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a timeout of zero would never wait: use None to wait for ever",
            ));
        }
        let nanos =
            timeout.map_or(0, |timeout| u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX));
        // Relaxed: it guards nothing else.
        self.0.store(nanos, Ordering::Relaxed);
        Ok(())
    }

    pub(crate) fn get(&self) -> Option<Duration> {
        // Relaxed: it guards nothing else.
        match self.0.load(Ordering::Relaxed) {
            0 => None,
            nanos => Some(Duration::from_nanos(nanos)),
        }
    }

    pub(crate) fn deadline(&self, now: Instant) -> Option<Instant> {
        self.get().map(|timeout| now + timeout)
    }
}
