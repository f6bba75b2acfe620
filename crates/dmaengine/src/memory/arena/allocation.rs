//! An arena's memory under Miri, which has no memory files: a block of the allocator's.
//!
//! To the rest of the crate there is no difference; no child is forked there, and no engine is
//! outside the process. What remains of the arena's own code, who owns which part, Miri then checks.

use std::{
    alloc::{Layout, alloc_zeroed, dealloc},
    io,
    ptr::NonNull,
};

use super::{ArenaError, PAGE};

/// Zeroed memory. Whoever made it frees it.
pub(super) struct Mapping {
    base: NonNull<u8>,
    layout: Layout,
}

// SAFETY: the memory is this value's alone, and `Mapping` itself never accesses its bytes.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// `len` must be a multiple of the size of a page.
    pub(super) fn new(len: usize, huge_pages: bool) -> Result<Self, ArenaError> {
        /// More than any test needs: Miri's own memory ends with the machine's.
        const MAX: usize = 1 << 30;

        if huge_pages || len > MAX {
            return Err(ArenaError::Map(io::ErrorKind::OutOfMemory.into()));
        }
        let layout = Layout::from_size_align(len, PAGE).map_err(|_| ArenaError::Length { len })?;
        // SAFETY: the length is not 0: `Arena::new` refuses that.
        let base = NonNull::new(unsafe { alloc_zeroed(layout) })
            .ok_or_else(|| ArenaError::Map(io::ErrorKind::OutOfMemory.into()))?;
        Ok(Self { base, layout })
    }

    pub(super) const fn base(&self) -> NonNull<u8> {
        self.base
    }

    pub(super) const fn len(&self) -> usize {
        self.layout.size()
    }

    pub(super) const fn huge_pages(&self) -> bool {
        false
    }

    /// # Safety
    ///
    /// Called once, when no pointer into it is left.
    pub(super) unsafe fn unmap(&mut self) {
        // SAFETY: allocated with this layout, and nobody uses it any more, by the caller's promise.
        unsafe { dealloc(self.base.as_ptr(), self.layout) };
    }
}
