use std::{fmt, time::Instant};

/// Where a channel has its time from: everything that it learns comes from here.
pub(super) trait Clock: Send + fmt::Debug {
    fn now(&mut self) -> Instant;
}

/// The system's clock.
#[derive(Debug)]
pub(super) struct Monotonic;

impl Clock for Monotonic {
    fn now(&mut self) -> Instant {
        Instant::now()
    }
}
