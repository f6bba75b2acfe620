//! Sums of several sources in GF(256): what exclusive or, P and Q are made of.
//!
//! With AVX2 the sum is the same code in wider registers; for products the compiler must be told of
//! the instruction that looks up 32 nibbles at a time. `cargo bench -p dmaengine --bench kernels`,
//! eight sources in an L2 cache, GB/s of all sources on a Zen 4: exclusive or 48 (without AVX2 25),
//! P and Q 20 (without 1.4).

use super::gf256;

/// Adds to `sum` the bytes of all sources from `offset` on.
///
/// # Safety
///
/// Each source is valid for reads of `offset + sum.len()` bytes, and nobody writes it.
pub(super) unsafe fn add_sources(sum: &mut [u8], sources: &[*const u8], offset: usize) {
    /// # Safety
    ///
    /// As for [`add_sources`].
    #[inline(always)]
    unsafe fn add(sum: &mut [u8], sources: &[*const u8], offset: usize) {
        const WIDTH: usize = 32;
        for &source in sources {
            let source = source.wrapping_add(offset);
            let (words, rest) = sum.as_chunks_mut::<WIDTH>();
            for (index, word) in words.iter_mut().enumerate() {
                // SAFETY: within the sum's length; an array of bytes needs no alignment.
                let bytes = unsafe { source.add(index * WIDTH).cast::<[u8; WIDTH]>().read() };
                word.iter_mut().zip(bytes).for_each(|(sum, byte)| *sum ^= byte);
            }
            let done = words.len() * WIDTH;
            for (index, byte) in rest.iter_mut().enumerate() {
                // SAFETY: as above.
                *byte ^= unsafe { source.add(done + index).read() };
            }
        }
    }

    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        /// # Safety
        ///
        /// As for [`add_sources`]; the processor has AVX2.
        #[target_feature(enable = "avx2")]
        unsafe fn wide(sum: &mut [u8], sources: &[*const u8], offset: usize) {
            // SAFETY: by contract.
            unsafe { add(sum, sources, offset) };
        }
        // SAFETY: by contract; the processor has AVX2.
        return unsafe { wide(sum, sources, offset) };
    }
    // SAFETY: by contract.
    unsafe { add(sum, sources, offset) };
}

/// As [`add_sources`], each byte multiplied with its source's coefficient.
///
/// # Safety
///
/// As for [`add_sources`].
pub(super) unsafe fn add_products(
    sum: &mut [u8],
    sources: &[*const u8],
    coefficients: &[u8],
    offset: usize,
) {
    for (&source, &coefficient) in sources.iter().zip(coefficients) {
        let source = source.wrapping_add(offset);
        let products = &gf256::NIBBLES[usize::from(coefficient)];
        #[cfg(target_arch = "x86_64")]
        let done = if is_x86_feature_detected!("avx2") {
            // SAFETY: by contract; the processor has AVX2.
            unsafe { avx2::add_product(sum, source, products) }
        } else {
            0
        };
        #[cfg(not(target_arch = "x86_64"))]
        let done = 0;
        for (index, sum) in sum.iter_mut().enumerate().skip(done) {
            // SAFETY: within the sum's length.
            *sum ^= products.times(unsafe { source.add(index).read() });
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::{
        __m256i, _mm_loadu_si128, _mm256_and_si256, _mm256_broadcastsi128_si256,
        _mm256_loadu_si256, _mm256_set1_epi8, _mm256_shuffle_epi8, _mm256_srli_epi64,
        _mm256_storeu_si256, _mm256_xor_si256,
    };

    use crate::software::gf256::Nibbles;

    /// Adds the products of as many of the first bytes of `source` as fill registers; returns how
    /// many that were.
    ///
    /// # Safety
    ///
    /// `source` is valid for reads of `sum.len()` bytes, and nobody writes it. The processor has
    /// AVX2.
    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn add_product(
        sum: &mut [u8],
        source: *const u8,
        products: &Nibbles,
    ) -> usize {
        const WIDTH: usize = size_of::<__m256i>();
        let table = |products: &[u8; 16]| {
            // SAFETY: 16 bytes.
            _mm256_broadcastsi128_si256(unsafe { _mm_loadu_si128(products.as_ptr().cast()) })
        };
        let (low, high) = (table(&products.low), table(&products.high));
        let mask = _mm256_set1_epi8(0x0f);
        let (chunks, _) = sum.as_chunks_mut::<WIDTH>();
        for (index, chunk) in chunks.iter_mut().enumerate() {
            let chunk = chunk.as_mut_ptr().cast::<__m256i>();
            // SAFETY: a chunk of each, unaligned.
            unsafe {
                let bytes = _mm256_loadu_si256(source.add(index * WIDTH).cast());
                let low_nibbles = _mm256_and_si256(bytes, mask);
                let high_nibbles = _mm256_and_si256(_mm256_srli_epi64::<4>(bytes), mask);
                let product = _mm256_xor_si256(
                    _mm256_shuffle_epi8(low, low_nibbles),
                    _mm256_shuffle_epi8(high, high_nibbles),
                );
                _mm256_storeu_si256(chunk, _mm256_xor_si256(_mm256_loadu_si256(chunk), product));
            }
        }
        chunks.len() * WIDTH
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {

        #[test]
        fn sums_of_every_length_and_offset(
            len in 0usize..200,
            offset in 0usize..40,
            coefficients in prop::collection::vec(any::<u8>(), 1..5),
            seed in any::<u8>(),
        ) {
            let byte = |source: usize, index: usize| (index * 31 + source * 7) as u8 ^ seed;
            let bytes: Vec<Vec<u8>> = (0..coefficients.len())
                .map(|source| (0..offset + len).map(|index| byte(source, index)).collect())
                .collect();
            let sources: Vec<_> = bytes.iter().map(|source| source.as_ptr()).collect();
            let (mut sum, mut products) = (vec![seed; len], vec![seed; len]);
            // SAFETY: all have `offset + len` bytes.
            unsafe {
                add_sources(&mut sum, &sources, offset);
                add_products(&mut products, &sources, &coefficients, offset);
            }
            for index in 0..len {
                let column = bytes.iter().map(|source| source[offset + index]);
                prop_assert_eq!(sum[index], column.clone().fold(seed, |sum, byte| sum ^ byte));
                let product = column
                    .zip(&coefficients)
                    .fold(seed, |sum, (byte, &c)| sum ^ gf256::multiply(byte, c));
                prop_assert_eq!(products[index], product);
            }
        }
    }
}
