//! The copy itself.
//!
//! [`ptr::copy_nonoverlapping`] is libc's `memcpy`, which is right for what is shorter than
//! [`SHORTEST`]. From there on the loop below is as fast or faster, and libc's choice is sometimes
//! very wrong: glibc copies 2 KiB to 1 MiB with `rep movsb` where the processor calls that fast, and
//! on Zen 3 and Zen 4 it is not if the target lies less than a line further into its page than the
//! source does (glibc's bug 30994), as payload behind headers may. `cargo bench -p dmaengine --bench
//! kernels` on a Zen 4 with glibc 2.36, GB/s:
//!
//! | length | memory in | target beyond source | memcpy | AVX2 | streaming | `rep movsb` |
//! | --- | --- | --- | --- | --- | --- | --- |
//! | 1448 B | L2 | 0 | 55 | 50 | | 36 |
//! | 1448 B | L3 | 7 | 14 | 26 | | 3 |
//! | 1448 B | DRAM | 0 | 5 | 10 | | 10 |
//! | 4 KiB | L2 | 0 | 40 | 51 | 16 | 37 |
//! | 4 KiB | L2 | 7 | 3.4 | 52 | 9 | 3.4 |
//! | 64 KiB | L3 | 0 | 30 | 32 | 26 | 26 |
//! | 64 KiB | L3 | 7 | 3.3 | 16 | 20 | 3.4 |
//! | 64 KiB | DRAM | 0 | 9.4 | 9.2 | 11 | 9 |
//! | 1 MiB | DRAM | -54 | 9.6 | 9.5 | 13 | 9 |
//!
//! AVX-512 is within 5 % of AVX2 in L2 and DRAM, and a third slower in L3; `rep movsb` wins nowhere:
//! neither is here. Streaming
//! (non-temporal) stores leave the target out of the caches and save reading it first, which pays
//! where it would have been read from DRAM; the one who knows that is the client
//! ([`Flags::TO_MEMORY`]).

use std::ptr;

use crate::Flags;

/// Below this length, in bytes, a call of `memcpy` is as good.
#[cfg(target_arch = "x86_64")]
const SHORTEST: usize = 512;

/// From this length on a target that no CPU will read soon is streamed: shorter ones lose more by
/// waiting until the stores are through than they save.
#[cfg(target_arch = "x86_64")]
const SHORTEST_STREAM: usize = 4 << 10;

/// From this length on the target is streamed unless it is to be in a cache: it does not fit one.
/// (The last-level cache that a core can fill is 32 MiB or less, but for few.)
pub(crate) const TOO_LONG_TO_CACHE: usize = 32 << 20;

/// Copies `len` bytes as `flags` advise. What it wrote is ordered before later stores, as after any
/// copy.
///
/// # Safety
///
/// `source` is valid for reads and `target` for writes of `len` bytes, nobody else writes the one or
/// uses the other meanwhile, and they do not overlap.
#[inline]
pub(crate) unsafe fn copy(source: *const u8, target: *mut u8, len: usize, flags: Flags) {
    #[cfg(target_arch = "x86_64")]
    if len >= SHORTEST && is_x86_feature_detected!("avx2") {
        // Miri, which may have AVX2, has no streaming stores.
        let stream = if cfg!(miri) || flags.contains(Flags::TO_CACHE) {
            false
        } else if flags.contains(Flags::TO_MEMORY) {
            len >= SHORTEST_STREAM
        } else {
            len >= TOO_LONG_TO_CACHE
        };
        // SAFETY: by contract; the processor has AVX2, and `len` is at least SHORTEST.
        return unsafe {
            if stream {
                avx2::stream(source, target, len);
            } else {
                avx2::copy(source, target, len);
            }
        };
    }
    let _ = flags;
    // SAFETY: by contract.
    unsafe { ptr::copy_nonoverlapping(source, target, len) };
}

/// Copies all of `source` to `target` with the calling thread, as the software engines do: for long
/// and unaligned copies faster than [`slice::copy_from_slice`].
///
/// # Panics
///
/// If the lengths differ.
#[inline]
pub fn copy_bytes(source: &[u8], target: &mut [u8]) {
    assert_eq!(source.len(), target.len(), "source and target must have the same length");
    // SAFETY: two references of that length, the target's exclusive.
    unsafe { copy(source.as_ptr(), target.as_mut_ptr(), source.len(), Flags::empty()) };
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::{
        arch::x86_64::{
            __m256i, _mm_sfence, _mm256_loadu_si256, _mm256_store_si256, _mm256_storeu_si256,
            _mm256_stream_si256,
        },
        ptr,
    };

    /// The width of a register in bytes.
    const WIDTH: usize = size_of::<__m256i>();
    /// Bytes that a loop moves at a time: two lines, which are both on their way before the first
    /// store.
    const STEP: usize = 4 * WIDTH;
    const LINE: usize = 64;

    /// Copies `len` bytes.
    ///
    /// # Safety
    ///
    /// As for [`super::copy`]; the processor has AVX2, and `len` is at least `2 * STEP`.
    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn copy(source: *const u8, target: *mut u8, len: usize) {
        debug_assert!(len >= 2 * STEP);
        // SAFETY: the first bytes; whole steps that end before `len`, where the target is aligned,
        // because a step keeps the alignment that it begins with; and the last bytes, of which some
        // may have been copied before, and are the same.
        unsafe {
            _mm256_storeu_si256(target.cast(), _mm256_loadu_si256(source.cast()));
            let mut offset = WIDTH - target.addr() % WIDTH;
            while offset + STEP <= len {
                let block = load(source.add(offset));
                for (part, bytes) in block.into_iter().enumerate() {
                    _mm256_store_si256(target.add(offset + part * WIDTH).cast(), bytes);
                }
                offset += STEP;
            }
            let block = load(source.add(len - STEP));
            for (part, bytes) in block.into_iter().enumerate() {
                _mm256_storeu_si256(target.add(len - STEP + part * WIDTH).cast(), bytes);
            }
        }
    }

    /// Copies `len` bytes past the caches, but for the target's first and last line, if these are
    /// not all its own: a line takes stores of one kind or the other.
    ///
    /// # Safety
    ///
    /// As for [`super::copy`]; the processor has AVX2.
    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn stream(source: *const u8, target: *mut u8, len: usize) {
        let start = len.min(target.addr().wrapping_neg() % LINE);
        // SAFETY: three parts that make `len`; in the middle, whole steps from a line's begin on.
        unsafe {
            ptr::copy_nonoverlapping(source, target, start);
            let mut offset = start;
            while offset + STEP <= len {
                let block = load(source.add(offset));
                for (part, bytes) in block.into_iter().enumerate() {
                    _mm256_stream_si256(target.add(offset + part * WIDTH).cast(), bytes);
                }
                offset += STEP;
            }
            ptr::copy_nonoverlapping(source.add(offset), target.add(offset), len - offset);
        }
        // Streaming stores are not ordered before later ones by themselves, not even before a
        // release.
        _mm_sfence();
    }

    /// # Safety
    ///
    /// `source` is valid for reads of `STEP` bytes; the processor has AVX2.
    #[target_feature(enable = "avx2")]
    unsafe fn load(source: *const u8) -> [__m256i; 4] {
        // SAFETY: by contract.
        [0, 1, 2, 3].map(|part| unsafe { _mm256_loadu_si256(source.add(part * WIDTH).cast()) })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {

        #[test]
        fn copies_all_and_nothing_else(
            len in 0usize..12_000,
            from in 0usize..70,
            to in 0usize..70,
            flags in 0u8..4,
        ) {
            let flags = Flags::from_bits_truncate(flags << 2);
            let source: Vec<u8> = (0..from + len).map(|index| (index * 7 + index / 256) as u8).collect();
            let mut target = vec![0xaa; to + len + 70];
            // SAFETY: `len` bytes of either, one of them borrowed exclusively.
            unsafe { copy(source[from..].as_ptr(), target[to..].as_mut_ptr(), len, flags) };
            prop_assert!(target[to..to + len] == source[from..]);
            prop_assert!(target[..to].iter().chain(&target[to + len..]).all(|&byte| byte == 0xaa));
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "no streaming stores, and long")]
    fn what_fits_no_cache() {
        let len = TOO_LONG_TO_CACHE + 77;
        let source: Vec<u8> = (0..len).map(|index| (index % 251) as u8).collect();
        let mut target = vec![0; len];
        copy_bytes(&source, &mut target);
        assert!(target == source);
    }
}
