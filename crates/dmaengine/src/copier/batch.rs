use std::fmt;

use super::{Copier, Copying, Doorbell, memory::Memory};
use crate::{CopyOptions, DmaSource, DmaTarget};

/// Operations of a [`Copier`] that are started together, with one doorbell: when the batch is
/// [issued](Self::issue) or dropped.
///
/// A doorbell is what a small copy costs most, and an engine that is told of many operations at once
/// fetches them together. Nothing else is special about them: each is a future of its own, with a
/// deadline of its own, counted from its submission. They may start earlier, with the doorbell of
/// another user of the copier, or when one of their futures is waited for. More operations than the
/// ring has room for take turns.
///
/// ```
/// use std::time::Duration;
/// use dmaengine::{Copier, CpuDevice, DmaDevice};
///
/// let copier = Copier::new(CpuDevice::new(1).request_channel(0)?, Duration::from_secs(5))?;
/// let mut batch = copier.batch();
/// let copies: Vec<_> = (0..4).map(|n| batch.copy(vec![n; 64], vec![0; 64])).collect();
/// let zeros = batch.fill(0, vec![7; 64]);
/// batch.issue();
/// for (n, copy) in (0..).zip(copies) {
///     assert_eq!(copy.wait()?.target, [n; 64]);
/// }
/// assert_eq!(zeros.wait()?.target, [0; 64]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "its operations start when it is issued or dropped"]
pub struct Batch<'a, S: DmaSource, D: DmaTarget> {
    copier: &'a Copier<S, D>,
}

impl<S: DmaSource, D: DmaTarget> Batch<'_, S, D> {
    pub(super) const fn new(copier: &Copier<S, D>) -> Batch<'_, S, D> {
        Batch { copier }
    }

    /// As [`Copier::copy`].
    pub fn copy(&mut self, source: S, target: D) -> Copying<S, D> {
        self.copy_with(source, target, CopyOptions::default())
    }

    /// As [`Copier::copy_with`].
    pub fn copy_with(
        &mut self,
        source: S,
        target: D,
        options: impl Into<CopyOptions>,
    ) -> Copying<S, D> {
        let memory = Memory::Copy { source, target };
        self.copier.start(memory, options.into(), Doorbell::Later, Memory::of_copy)
    }

    /// As [`Copier::fill`].
    pub fn fill(&mut self, pattern: u64, target: D) -> Copying<S, D, (), D> {
        self.fill_with(pattern, target, CopyOptions::default())
    }

    /// As [`Copier::fill_with`].
    pub fn fill_with(
        &mut self,
        pattern: u64,
        target: D,
        options: impl Into<CopyOptions>,
    ) -> Copying<S, D, (), D> {
        let memory = Memory::Fill { pattern, target };
        self.copier.start(memory, options.into(), Doorbell::Later, Memory::of_fill)
    }

    /// As [`Copier::copy_sg`].
    pub fn copy_sg(&mut self, sources: Vec<S>, targets: Vec<D>) -> Copying<S, D, Vec<S>, Vec<D>> {
        self.copy_sg_with(sources, targets, CopyOptions::default())
    }

    /// As [`Copier::copy_sg_with`].
    pub fn copy_sg_with(
        &mut self,
        sources: Vec<S>,
        targets: Vec<D>,
        options: impl Into<CopyOptions>,
    ) -> Copying<S, D, Vec<S>, Vec<D>> {
        let memory = Memory::Lists { sources, targets };
        self.copier.start(memory, options.into(), Doorbell::Later, Memory::of_lists)
    }

    /// Rings the doorbell for all of them.
    pub fn issue(self) {
        // Dropping it does.
    }
}

impl<S: DmaSource, D: DmaTarget> Drop for Batch<'_, S, D> {
    fn drop(&mut self) {
        self.copier.issue();
    }
}

impl<S: DmaSource, D: DmaTarget> fmt::Debug for Batch<'_, S, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch").field("copier", self.copier).finish()
    }
}
