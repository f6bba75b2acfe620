use std::{
    fmt,
    ptr::NonNull,
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
};

use super::arena::Block;

/// Memory that the CPU and a device access at the same time, as Linux's `dma_alloc_coherent` gives
/// it: descriptor rings and completion words. From
/// [`Arena::alloc_coherent`](crate::Arena::alloc_coherent), zeroed.
///
/// No reference to the bytes exists anywhere: a device may change them at any time. All access is by
/// atomic loads and stores in the machine's byte order. A word that a device writes is to be
/// accessed in one size only.
///
/// Dropping it frees the memory: first make sure that the device no longer uses it.
pub struct Coherent {
    /// The first byte of `block`.
    pointer: NonNull<u8>,
    len: usize,
    _block: Block,
}

// SAFETY: the bytes are only accessed atomically.
unsafe impl Send for Coherent {}
// SAFETY: as above.
unsafe impl Sync for Coherent {}

impl Coherent {
    /// The first `len` bytes of `block`, which is at least that long.
    pub(super) fn new(block: Block, len: usize) -> Self {
        debug_assert!(len <= block.size());
        // SAFETY: the block is ours, and no device knows its address yet.
        unsafe { block.pointer().write_bytes(0, block.size()) };
        Self { pointer: block.pointer(), len, _block: block }
    }

    /// The process address of the first byte, to be translated and told to the device.
    #[must_use]
    pub const fn address(&self) -> *mut u8 {
        self.pointer.as_ptr()
    }

    /// The length in bytes.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether the length is zero.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Reads the 64-bit word at `offset` bytes.
    ///
    /// # Panics
    ///
    /// If `offset` is not a multiple of 8, or the word lies past the end.
    #[must_use]
    pub fn load_u64(&self, offset: usize, order: Ordering) -> u64 {
        self.u64_at(offset).load(order)
    }

    /// Writes the 64-bit word at `offset` bytes.
    ///
    /// # Panics
    ///
    /// If `offset` is not a multiple of 8, or the word lies past the end.
    pub fn store_u64(&self, offset: usize, value: u64, order: Ordering) {
        self.u64_at(offset).store(value, order);
    }

    /// Reads the 32-bit word at `offset` bytes.
    ///
    /// # Panics
    ///
    /// If `offset` is not a multiple of 4, or the word lies past the end.
    #[must_use]
    pub fn load_u32(&self, offset: usize, order: Ordering) -> u32 {
        self.u32_at(offset).load(order)
    }

    /// Writes the 32-bit word at `offset` bytes.
    ///
    /// # Panics
    ///
    /// If `offset` is not a multiple of 4, or the word lies past the end.
    pub fn store_u32(&self, offset: usize, value: u32, order: Ordering) {
        self.u32_at(offset).store(value, order);
    }

    fn u64_at(&self, offset: usize) -> &AtomicU64 {
        let word = self.word_at(offset, size_of::<u64>());
        // SAFETY: aligned and in bounds by `word_at` (the block starts at a cache line); valid as
        // long as `self` lives; the CPU side has atomic accesses only, and a device's are not
        // Rust's.
        unsafe { AtomicU64::from_ptr(word.cast()) }
    }

    fn u32_at(&self, offset: usize) -> &AtomicU32 {
        let word = self.word_at(offset, size_of::<u32>());
        // SAFETY: as in `u64_at`.
        unsafe { AtomicU32::from_ptr(word.cast()) }
    }

    fn word_at(&self, offset: usize, size: usize) -> *mut u8 {
        assert!(
            offset.is_multiple_of(size)
                && offset.checked_add(size).is_some_and(|end| end <= self.len),
            "no {size}-byte word at offset {offset} of {} bytes",
            self.len
        );
        // SAFETY: in bounds of the block, which is at least `len` long.
        unsafe { self.address().add(offset) }
    }
}

impl fmt::Debug for Coherent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Coherent")
            .field("address", &self.address())
            .field("len", &self.len)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use Ordering::Relaxed;

    use super::*;
    use crate::Arena;

    #[test]
    fn zeroed_aligned_words() {
        let arena = Arena::new(1 << 16).unwrap();
        arena.alloc(1 << 16).unwrap().fill(0xff);
        let memory = arena.alloc_coherent(100, 1024).unwrap();
        assert_eq!(memory.address().addr() % 1024, 0);
        assert_eq!(memory.load_u64(88, Relaxed), 0);
        memory.store_u64(88, 0x1122_3344_5566_7788, Relaxed);
        assert_eq!(memory.load_u32(88, Relaxed).to_ne_bytes(), {
            let [a, b, c, d, ..] = 0x1122_3344_5566_7788_u64.to_ne_bytes();
            [a, b, c, d]
        });
        memory.store_u32(96, 7, Relaxed);
        assert_eq!(memory.load_u32(96, Relaxed), 7);
    }

    #[test]
    fn out_of_bounds_and_unaligned_are_refused() {
        let memory = Arena::new(4096).unwrap().alloc_coherent(100, 64).unwrap();
        for offset in [96, 100, 4, 3, usize::MAX, usize::MAX - 7] {
            let load = std::panic::AssertUnwindSafe(|| memory.load_u64(offset, Relaxed));
            assert!(std::panic::catch_unwind(load).is_err(), "offset {offset}");
        }
    }
}
