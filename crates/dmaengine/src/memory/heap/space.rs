//! A heap's arena: its memory and which of it is taken.

use std::{alloc::Layout, ptr::NonNull};

use super::{
    blocks::{BITS, Blocks, Claim},
    pages,
    sync::AtomicU64,
};

/// The least that memory is divided into, in bytes: at most a fifth of a block is lost by rounding
/// up, and no two blocks share a cache line.
const MIN_UNIT: usize = 1024;

/// The most units: looking through all of them, when it is nearly full, takes a few microseconds.
const MAX_UNITS: usize = 1 << 18;

/// Memory, divided into units. It lies in pages of its own, so that no block lies beside it.
#[derive(Debug)]
pub(super) struct Space {
    base: NonNull<u8>,
    len: usize,
    /// The length of a unit, a power of two.
    unit: usize,
    blocks: Blocks<&'static [AtomicU64]>,
}

// SAFETY: the memory is the process's. `Space` accesses that of blocks only on behalf of their owners.
unsafe impl Send for Space {}
// SAFETY: as above.
unsafe impl Sync for Space {}

impl Space {
    /// A new one with room for `capacity` bytes. It is there until the process ends, or it is
    /// released.
    pub(super) fn reserve(capacity: usize) -> Option<NonNull<Self>> {
        let unit = (capacity / MAX_UNITS).checked_next_power_of_two()?.max(MIN_UNIT);
        let granule = pages::ALIGN.max(unit.checked_mul(BITS)?);
        let len = capacity.checked_next_multiple_of(granule)?;
        let words = len / unit / BITS;
        let base = pages::reserve(len, true)?;
        let Some(this) = pages::reserve(Self::own_len(words), false) else {
            pages::unmap(base.as_ptr(), len);
            return None;
        };
        let this = this.cast::<Self>();
        // SAFETY: the bitmap lies behind `this`, in the same pages, which are zero, aligned to more
        // than needed, and last as long as the reference is used: see `release`.
        let words =
            unsafe { std::slice::from_raw_parts(this.add(1).cast::<AtomicU64>().as_ptr(), words) };
        // SAFETY: enough memory, aligned, and nobody else's.
        unsafe { this.write(Self { base, len, unit, blocks: Blocks::new(words) }) };
        Some(this)
    }

    /// The length of the pages for a `Space` and its bitmap.
    const fn own_len(words: usize) -> usize {
        (size_of::<Self>() + words * size_of::<AtomicU64>()).next_multiple_of(pages::ALIGN)
    }

    /// Gives the memory back.
    ///
    /// # Safety
    ///
    /// Nobody else has seen it.
    pub(super) unsafe fn release(this: NonNull<Self>) {
        // SAFETY: it is what `reserve` has written.
        let Self { base, len, unit, .. } = *unsafe { this.as_ref() };
        pages::unmap(base.as_ptr(), len);
        pages::unmap(this.cast().as_ptr(), Self::own_len(len / unit / BITS));
    }

    pub(super) fn memory(&self) -> NonNull<[u8]> {
        NonNull::slice_from_raw_parts(self.base, self.len)
    }

    #[inline]
    pub(super) fn contains(&self, pointer: *const u8) -> bool {
        pointer.addr().wrapping_sub(self.base.addr().get()) < self.len
    }

    /// Bytes in use.
    pub(super) fn used(&self) -> usize {
        self.blocks.taken() * self.unit
    }

    /// A block. With `zeroed` its bytes are zero.
    pub(super) fn take(&self, layout: Layout, zeroed: bool) -> Option<NonNull<u8>> {
        let align = (layout.align() / self.unit).max(1);
        let Claim { first, used } = self.blocks.claim(self.units(layout.size()), align)?;
        // SAFETY: the units lie within the memory, as there is a bit for each of them.
        let block = unsafe { self.base.add(first * self.unit) };
        if zeroed {
            // What was never given out is zero.
            let len = layout.size().min(used * self.unit);
            // SAFETY: within the block, which is the caller's.
            unsafe { block.write_bytes(0, len) };
        }
        Some(block)
    }

    /// Takes a block back.
    ///
    /// # Safety
    ///
    /// `take` returned it for `size`, or it has that size by `resize`; nobody uses it any more.
    pub(super) unsafe fn give_back(&self, block: *mut u8, size: usize) {
        self.blocks.release(self.first(block), self.units(size));
    }

    /// Changes a block's size where it is; whether that was possible.
    ///
    /// # Safety
    ///
    /// As for [`give_back`](Self::give_back); nobody uses more than `new` bytes of it.
    pub(super) unsafe fn resize(&self, block: *mut u8, old: usize, new: usize) -> bool {
        let (first, old, new) = (self.first(block), self.units(old), self.units(new));
        if new > old {
            return self.blocks.extend(first, old, new - old);
        }
        if new < old {
            self.blocks.release(first + new, old - new);
        }
        true
    }

    const fn units(&self, size: usize) -> usize {
        size.div_ceil(self.unit)
    }

    fn first(&self, block: *mut u8) -> usize {
        (block.addr() - self.base.addr().get()) / self.unit
    }
}
