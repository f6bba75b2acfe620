//! What the ring is built of: the standard library's, or loom's to check it.

#[cfg(all(test, loom))]
pub(super) use loom::{
    cell::UnsafeCell,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering, fence, fence as compiler_fence},
    },
    thread::park,
};
#[cfg(not(all(test, loom)))]
pub(super) use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering, compiler_fence, fence},
    },
    thread::{park, park_timeout},
};

/// Loom has no time.
#[cfg(all(test, loom))]
pub(super) fn park_timeout(_timeout: std::time::Duration) {
    park();
}

/// The number of the processor that runs this thread, at this moment.
pub(super) fn current_cpu() -> u64 {
    // Miri has one processor for all.
    if cfg!(miri) { 0 } else { rustix::thread::sched_getcpu() as u64 }
}

/// `std`'s cell with the interface of loom's.
#[cfg(not(all(test, loom)))]
#[derive(Debug)]
pub(super) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

#[cfg(not(all(test, loom)))]
impl<T> UnsafeCell<T> {
    pub(super) const fn new(value: T) -> Self {
        Self(std::cell::UnsafeCell::new(value))
    }

    pub(super) fn with<R>(&self, read: impl FnOnce(*const T) -> R) -> R {
        read(self.0.get())
    }

    pub(super) fn with_mut<R>(&self, write: impl FnOnce(*mut T) -> R) -> R {
        write(self.0.get())
    }
}
