//! The completion word: where the device writes how far it has come.

use crate::{
    device::Shared,
    error::StartError,
    lines::{AtomicU64, Lines, Ordering},
};

/// The word, in a line of its own. Its value is that of CHANSTS.
#[derive(Debug)]
pub(crate) struct CompletionWord {
    line: Lines,
}

impl CompletionWord {
    /// A word of 0.
    pub(crate) fn allocate(shared: &Shared) -> Result<Self, StartError> {
        Ok(Self { line: Lines::allocate(shared, 1)? })
    }

    /// The bus address, for CHANCMP.
    pub(crate) const fn iova(&self) -> u64 {
        self.line.iova()
    }

    /// Sets it to 0, before the device is told of it.
    pub(crate) fn clear(&self) {
        // Relaxed: the doorbell orders it.
        self.word().store(0, Ordering::Relaxed);
    }

    /// What the device wrote last. All that it had written and read before is done: the targets can
    /// be read, sources and descriptors written.
    pub(crate) fn read(&self) -> u64 {
        // Acquire: the device writes the word behind all else (PCI Express keeps its writes in
        // order). One load: address and state belong together.
        self.word().load(Ordering::Acquire)
    }

    fn word(&self) -> &AtomicU64 {
        // SAFETY: there is one line.
        let [word, ..] = unsafe { self.line.line(0) };
        word
    }
}
