//! The Internet checksum (RFC 1071), also of what is being copied.
//!
//! The bytes are in registers while they are copied, so the sum costs next to nothing there; on its
//! own it reads all of them again, from wherever the copy has left them. `cargo bench -p dmaengine
//! --bench kernels` on a Zen 4, GB/s:
//!
//! | length | memory in | copy, then sum | fused |
//! | --- | --- | --- | --- |
//! | 1448 B | L2 | 22 | 33 |
//! | 4 KiB | L2 | 26 | 43 |
//! | 4 KiB | L3 | 19 | 28 |
//! | 64 KiB | L3 | 18 | 29 |
//! | 64 KiB | DRAM | 8.6 | 11 |

use std::ptr;

/// The ones' complement sum of the 16-bit words of a run of bytes, not yet complemented.
///
/// Sums of runs that follow each other make the sum of all, whatever their lengths:
///
/// ```
/// use dmaengine::{InternetSum, copy_and_checksum};
///
/// let packet = b"an odd number of bytes, then some";
/// let mut copy = [0; 33];
/// let (first, rest) = copy.split_at_mut(13);
/// let sum = copy_and_checksum(&packet[..13], first);
/// let sum = sum.then(copy_and_checksum(&packet[13..], rest));
/// assert_eq!(sum, InternetSum::of(packet));
/// assert_eq!(&copy, packet);
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct InternetSum {
    /// Of words in network byte order; an odd last byte is the high half of a word.
    sum: u16,
    /// Whether the run's length is odd.
    is_odd: bool,
}

impl InternetSum {
    /// Of no bytes.
    pub const EMPTY: Self = Self { sum: 0, is_odd: false };

    /// The sum of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        // SAFETY: a reference is valid for reads, and nothing is written.
        unsafe { run::<false>(bytes.as_ptr(), ptr::null_mut(), bytes.len()) }
    }

    /// The sum of this run and `next`, which begins where this one ends.
    #[must_use]
    pub const fn then(self, next: Self) -> Self {
        // RFC 1071 section 2 (B): at an odd offset, a sum's bytes have changed places.
        let sum = if self.is_odd { next.sum.swap_bytes() } else { next.sum };
        Self { sum: fold(self.sum as u64 + sum as u64), is_odd: self.is_odd != next.is_odd }
    }

    /// The sum itself, in host byte order: what a header field holds that a link is to complete.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.sum
    }

    /// The checksum, in host byte order: what goes into a header field.
    #[must_use]
    pub const fn checksum(self) -> u16 {
        !self.sum
    }
}

impl PartialEq for InternetSum {
    /// Ones' complement has two zeros, which are equal.
    fn eq(&self, other: &Self) -> bool {
        let canonical = |sum: u16| if sum == u16::MAX { 0 } else { sum };
        canonical(self.sum) == canonical(other.sum) && self.is_odd == other.is_odd
    }
}

impl Eq for InternetSum {}

/// Copies all of `source` to `target` and returns the sum of the bytes: for less than the two cost
/// one after the other.
///
/// # Panics
///
/// If the lengths differ.
pub fn copy_and_checksum(source: &[u8], target: &mut [u8]) -> InternetSum {
    assert_eq!(source.len(), target.len(), "source and target must have the same length");
    // SAFETY: two references of that length, the target's exclusive.
    unsafe { run::<true>(source.as_ptr(), target.as_mut_ptr(), source.len()) }
}

/// Sums `len` bytes, and copies them if `COPY` says so.
///
/// # Safety
///
/// `source` is valid for reads of `len` bytes, which nobody writes. If they are copied, `target` is
/// valid for writes of as many, nobody else uses it, and the two do not overlap.
unsafe fn run<const COPY: bool>(source: *const u8, target: *mut u8, len: usize) -> InternetSum {
    // RFC 1071 section 2 (B): the sum does not depend on the byte order, so words are added as this
    // machine reads them, and swapped once at the end. (C): words of any width may be added; 32-bit
    // ones in 64-bit lanes do not overflow for any length that memory has.
    #[cfg(target_arch = "x86_64")]
    let (mut sum, mut offset) = if len >= avx2::BLOCK && is_x86_feature_detected!("avx2") {
        // SAFETY: by contract; the processor has AVX2.
        unsafe { avx2::run::<COPY>(source, target, len) }
    } else {
        (0, 0)
    };
    #[cfg(not(target_arch = "x86_64"))]
    let (mut sum, mut offset) = (0, 0);

    while len - offset >= size_of::<u64>() {
        // SAFETY: a word lies within `len`; it may be unaligned.
        let word = unsafe {
            let word = source.add(offset).cast::<u64>().read_unaligned();
            if COPY {
                target.add(offset).cast::<u64>().write_unaligned(word);
            }
            word
        };
        sum += halves(word);
        offset += size_of::<u64>();
    }
    // The zeros behind the end add nothing.
    let mut last = [0; size_of::<u64>()];
    let rest = len - offset;
    // SAFETY: the rest is shorter than a word.
    unsafe {
        source.add(offset).copy_to_nonoverlapping(last.as_mut_ptr(), rest);
        if COPY {
            target.add(offset).copy_from_nonoverlapping(last.as_ptr(), rest);
        }
    }
    sum += halves(u64::from_ne_bytes(last));
    InternetSum { sum: u16::from_be(fold(sum)), is_odd: len % 2 == 1 }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::{
        __m256i, _mm256_add_epi64, _mm256_and_si256, _mm256_loadu_si256, _mm256_set1_epi64x,
        _mm256_setzero_si256, _mm256_srli_epi64, _mm256_storeu_si256,
    };

    /// Registers of a round, each with sums of its own, so that no addition waits for another.
    const PARTS: usize = 4;
    const WIDTH: usize = size_of::<__m256i>();
    pub(super) const BLOCK: usize = PARTS * WIDTH;

    /// As [`super::run`], for the whole blocks of which `len` consists: the sum of their words, at
    /// most 2^38, and their length.
    ///
    /// # Safety
    ///
    /// As for [`super::run`]; the processor has AVX2.
    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn run<const COPY: bool>(
        source: *const u8,
        target: *mut u8,
        len: usize,
    ) -> (u64, usize) {
        let low_half = _mm256_set1_epi64x(i64::from(u32::MAX));
        let mut low = [_mm256_setzero_si256(); PARTS];
        let mut high = low;
        let mut offset = 0;
        while len - offset >= BLOCK {
            for part in 0..PARTS {
                let at = offset + part * WIDTH;
                // SAFETY: the block lies within `len`; it may be unaligned.
                let words = unsafe { _mm256_loadu_si256(source.add(at).cast()) };
                if COPY {
                    // SAFETY: as above.
                    unsafe { _mm256_storeu_si256(target.add(at).cast(), words) };
                }
                low[part] = _mm256_add_epi64(low[part], _mm256_and_si256(words, low_half));
                high[part] = _mm256_add_epi64(high[part], _mm256_srli_epi64::<32>(words));
            }
            offset += BLOCK;
        }
        let mut sum = 0;
        for lanes in low.into_iter().chain(high) {
            let mut words = [0u64; WIDTH / size_of::<u64>()];
            // SAFETY: an array of the register's size.
            unsafe { _mm256_storeu_si256(words.as_mut_ptr().cast(), lanes) };
            sum += words.into_iter().map(super::halves).sum::<u64>();
        }
        (sum, offset)
    }
}

/// The sum of a word's halves, below 2^33: sums of whole words could overflow.
const fn halves(word: u64) -> u64 {
    (word & u32::MAX as u64) + (word >> 32)
}

/// What is left of a sum below 2^48 when its carries are added in.
const fn fold(sum: u64) -> u16 {
    let sum = (sum & 0xffff) + ((sum >> 16) & 0xffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Word by word, as the RFC tells it.
    fn reference(bytes: &[u8]) -> u16 {
        let word = |pair: &[u8]| u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]);
        bytes.chunks(2).map(word).fold(0, |sum, word| {
            let (sum, carry) = sum.overflowing_add(word);
            sum + u16::from(carry)
        })
    }

    #[test]
    fn the_rfcs_example() {
        let sum = InternetSum::of(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
        assert_eq!((sum.get(), sum.checksum()), (0xddf2, !0xddf2));
    }

    #[test]
    fn the_greatest_sum() {
        for len in [2, 128, if cfg!(miri) { 1 << 12 } else { 1 << 20 }] {
            assert_eq!(InternetSum::of(&vec![0xff; len]).get(), 0xffff);
        }
        assert_eq!(InternetSum::of(&[0xff; 6]), InternetSum::of(&[0; 6]));
        assert_ne!(InternetSum::of(&[0; 3]), InternetSum::of(&[0; 4]));
    }

    proptest! {

        #[test]
        fn copies_and_sums_like_the_reference(
            bytes in prop::collection::vec(any::<u8>(), 0..3000),
            from in 0usize..9,
            to in 0usize..40,
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
        ) {
            let bytes = &bytes[from.min(bytes.len())..];
            let mut target = vec![0xaa; to + bytes.len() + 130];
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.sort_unstable();
            cuts.push(bytes.len());
            let (mut sum, mut start) = (InternetSum::EMPTY, 0);
            for end in cuts {
                let piece = &bytes[start..end];
                let copied = copy_and_checksum(piece, &mut target[to + start..to + end]);
                prop_assert_eq!(copied, InternetSum::of(piece));
                prop_assert_eq!(copied.get(), reference(piece));
                sum = sum.then(copied);
                start = end;
            }
            prop_assert!(target[to..to + bytes.len()] == *bytes);
            let outside = target[..to].iter().chain(&target[to + bytes.len()..]);
            prop_assert!(outside.into_iter().all(|&byte| byte == 0xaa));
            prop_assert_eq!(sum, InternetSum::of(bytes));
        }
    }
}
