//! Memory that the driver shares with the device, in cache lines: descriptors, completion words.
//!
//! Under loom, which checks every order in which driver and device may see each other's accesses,
//! the words are loom's. All else in this crate is the same there and here.

#[cfg(not(all(test, loom)))]
pub(crate) use std::sync::atomic::{AtomicU64, Ordering, fence};

use dmaengine::Coherent;
#[cfg(all(test, loom))]
pub(crate) use loom::sync::atomic::{AtomicU64, Ordering, fence};

use crate::{device::Shared, error::StartError};

/// The size of a line in bytes, and of a descriptor.
pub(crate) const SIZE: usize = 64;
/// The size of a line in words.
pub(crate) const WORDS: usize = SIZE / size_of::<u64>();

/// A ring of descriptors starts at a page.
const ALIGNMENT: usize = 4096;

/// The words of a line.
pub(crate) type Line = [AtomicU64; WORDS];

/// Lines, one after the other, all zero at first.
#[derive(Debug)]
pub(crate) struct Lines {
    memory: Coherent,
    /// The bus address of the first.
    iova: u64,
    #[cfg(all(test, loom))]
    words: std::sync::Arc<[Line]>,
}

impl Lines {
    /// Takes `count` lines out of the driver's arena.
    pub(crate) fn allocate(shared: &Shared, count: usize) -> Result<Self, StartError> {
        let size = count * SIZE;
        let memory = shared.arena.alloc_coherent(size, ALIGNMENT.min(size))?;
        let iova = shared.iova.translate(memory.address(), size).ok_or(StartError::Unmapped)?;
        Ok(Self {
            memory,
            iova,
            #[cfg(all(test, loom))]
            words: crate::model::words(iova, count),
        })
    }

    /// How many there are.
    pub(crate) const fn count(&self) -> usize {
        self.memory.len() / SIZE
    }

    /// The bus address of the first.
    pub(crate) const fn iova(&self) -> u64 {
        self.iova
    }

    /// A line.
    ///
    /// # Safety
    ///
    /// `index` is below [`count`](Self::count).
    #[cfg(not(all(test, loom)))]
    pub(crate) unsafe fn line(&self, index: usize) -> &Line {
        let lines = self.memory.address().cast::<Line>();
        // SAFETY: in bounds by the caller's promise, and aligned: the memory starts at a line. It
        // stays as long as `self` does. The CPU side has atomic accesses only, and a device's are
        // not Rust's.
        unsafe { &*lines.add(index) }
    }

    /// A line, as loom sees it.
    ///
    /// # Safety
    ///
    /// None is needed here.
    #[cfg(all(test, loom))]
    pub(crate) unsafe fn line(&self, index: usize) -> &Line {
        &self.words[index]
    }
}
