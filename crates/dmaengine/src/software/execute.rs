//! Executing an operation with the CPU.

use std::ptr::NonNull;

use super::{
    copy::copy,
    parity::{add_products, add_sources},
};
use crate::{Flags, Operation, Status, pieces};

/// Bytes of several sources that are worked on at a time, on the stack.
const BLOCK: usize = 1024;

/// Does what `operation` asks for, in the calling thread, and returns how it ended: with success, or
/// with what a check found. Fences are the caller's business.
///
/// # Safety
///
/// The memory is the operation's, as [`crate::DmaChannel::submit`] demands.
#[inline]
pub(crate) unsafe fn execute(operation: &Operation<'_>, flags: Flags) -> Status {
    match *operation {
        Operation::Memcpy { source, target, len } => {
            // SAFETY: valid, unshared for writing and disjoint by contract.
            unsafe { copy(source, target, len, flags) };
            Status::Success
        }
        Operation::MemcpySg { sources, targets } => {
            for (source, target, len) in pieces(sources, targets, usize::MAX) {
                // SAFETY: as above; a piece lies in one segment of each side.
                unsafe { copy(source, target, len, flags) };
            }
            Status::Success
        }
        Operation::Memset { pattern, target, len } => {
            // SAFETY: the target is ours by contract.
            unsafe { fill(pattern, target, len) };
            Status::Success
        }
        Operation::Xor { sources, target, len } => {
            for_each_block(len, |offset, count| {
                let mut sum = [0; BLOCK];
                // SAFETY: `offset + count` is at most `len`, which all sources and the target have.
                unsafe {
                    add_sources(&mut sum[..count], sources, offset);
                    write(target, offset, &sum[..count]);
                }
                true
            });
            Status::Success
        }
        Operation::XorVal { sources, len } => {
            let is_zero = for_each_block(len, |offset, count| {
                let mut sum = [0; BLOCK];
                // SAFETY: as above.
                unsafe { add_sources(&mut sum[..count], sources, offset) };
                sum.iter().all(|&byte| byte == 0)
            });
            if is_zero { Status::Success } else { Status::MismatchP }
        }
        Operation::Pq { sources, coefficients, p, q, len } => {
            for_each_block(len, |offset, count| {
                let (mut sum, mut products) = ([0; BLOCK], [0; BLOCK]);
                let [sum, products] = [&mut sum[..count], &mut products[..count]];
                // SAFETY: as above; P and Q have `len` bytes too.
                unsafe {
                    if let Some(p) = p {
                        add_sources(sum, sources, offset);
                        write(p.as_ptr(), offset, sum);
                    }
                    if let Some(q) = q {
                        add_products(products, sources, coefficients, offset);
                        write(q.as_ptr(), offset, products);
                    }
                }
                true
            });
            Status::Success
        }
        Operation::PqVal { sources, coefficients, p, q, len } => {
            let (mut p_is_right, mut q_is_right) = (true, true);
            for_each_block(len, |offset, count| {
                let (mut sum, mut products) = ([0; BLOCK], [0; BLOCK]);
                let [sum, products] = [&mut sum[..count], &mut products[..count]];
                // SAFETY: as above.
                unsafe {
                    if let Some(p) = p {
                        add_sources(sum, sources, offset);
                        p_is_right &= matches(p, offset, sum);
                    }
                    if let Some(q) = q {
                        add_products(products, sources, coefficients, offset);
                        q_is_right &= matches(q, offset, products);
                    }
                }
                p_is_right || q_is_right
            });
            match (p_is_right, q_is_right) {
                (true, true) => Status::Success,
                (false, true) => Status::MismatchP,
                (true, false) => Status::MismatchQ,
                (false, false) => Status::MismatchPq,
            }
        }
    }
}

/// Calls `each` with the offset and length of each block, until it says `false`; whether it never
/// did.
fn for_each_block(len: usize, mut each: impl FnMut(usize, usize) -> bool) -> bool {
    (0..len).step_by(BLOCK).all(|offset| each(offset, BLOCK.min(len - offset)))
}

/// # Safety
///
/// `target` is valid for writes of `len` bytes and belongs to the operation.
unsafe fn fill(pattern: u64, target: *mut u8, len: usize) {
    let pattern = pattern.to_le_bytes();
    let whole = len - len % pattern.len();
    for offset in (0..whole).step_by(pattern.len()) {
        // SAFETY: the 8 bytes lie in the target; an array of bytes needs no alignment.
        unsafe { target.add(offset).cast::<[u8; 8]>().write(pattern) };
    }
    // SAFETY: the rest of the target; the pattern is longer.
    unsafe { target.add(whole).copy_from_nonoverlapping(pattern.as_ptr(), len - whole) };
}

/// Copies to the stack: no reference to memory under DMA exists.
///
/// # Safety
///
/// `source` is valid for reads of `offset + count` bytes, and `count` is at most `BLOCK`.
unsafe fn read(block: &mut [u8; BLOCK], source: *const u8, offset: usize, count: usize) -> &[u8] {
    let block = &mut block[..count];
    // SAFETY: valid by contract; the block is our own.
    unsafe { source.add(offset).copy_to_nonoverlapping(block.as_mut_ptr(), count) };
    block
}

/// # Safety
///
/// `target` is valid for writes of `offset + bytes.len()` bytes and belongs to the operation.
unsafe fn write(target: *mut u8, offset: usize, bytes: &[u8]) {
    // SAFETY: valid by contract; `bytes` are our own.
    unsafe { target.add(offset).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
}

/// # Safety
///
/// `there` is valid for reads of `offset + expected.len()` bytes, and `expected` is at most `BLOCK`
/// long.
unsafe fn matches(there: NonNull<u8>, offset: usize, expected: &[u8]) -> bool {
    let mut block = [0; BLOCK];
    // SAFETY: valid by contract.
    unsafe { read(&mut block, there.as_ptr(), offset, expected.len()) == expected }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::software::gf256;

    /// Longer than a block, and no multiple of anything.
    const LEN: usize = BLOCK + 77;

    fn sources() -> Vec<Vec<u8>> {
        (0..3_usize)
            .map(|number| (0..LEN).map(|index| (index * (7 + number) + number) as u8).collect())
            .collect()
    }

    #[test]
    fn a_fill_repeats_and_cuts_the_pattern_short() {
        for len in 0..40 {
            let mut bytes = vec![0u8; len + 2];
            let target = bytes[1..].as_mut_ptr();
            let operation = Operation::Memset { pattern: 0x0706_0504_0302_0100, target, len };
            // SAFETY: `len` bytes of the vector, after its first.
            assert_eq!(unsafe { execute(&operation, Flags::empty()) }, Status::Success);
            assert_eq!((bytes[0], bytes[len + 1]), (0, 0));
            assert!((0..len).all(|index| bytes[index + 1] == index as u8 % 8));
        }
    }

    #[test]
    fn xor_and_its_check() {
        let mut bytes = sources();
        let mut parity = vec![0xee; LEN];
        let pointers: Vec<_> = bytes.iter().map(|source| source.as_ptr()).collect();
        let xor = Operation::Xor { sources: &pointers, target: parity.as_mut_ptr(), len: LEN };
        // SAFETY: all have LEN bytes.
        assert_eq!(unsafe { execute(&xor, Flags::empty()) }, Status::Success);
        for (index, &byte) in parity.iter().enumerate() {
            assert_eq!(byte, bytes.iter().fold(0, |sum, source| sum ^ source[index]));
        }
        bytes.push(parity);
        for wrong in [None, Some(0), Some(LEN - 1)] {
            if let Some(wrong) = wrong {
                bytes[1][wrong] ^= 1;
            }
            let pointers: Vec<_> = bytes.iter().map(|source| source.as_ptr()).collect();
            let check = Operation::XorVal { sources: &pointers, len: LEN };
            let expected = wrong.map_or(Status::Success, |_| Status::MismatchP);
            // SAFETY: as above.
            assert_eq!(unsafe { execute(&check, Flags::empty()) }, expected);
            if let Some(wrong) = wrong {
                bytes[1][wrong] ^= 1;
            }
        }
    }

    #[test]
    fn pq_and_its_check() {
        let bytes = sources();
        let coefficients = [1, 2, 4];
        let pointers: Vec<_> = bytes.iter().map(|source| source.as_ptr()).collect();
        let (mut p, mut q) = (vec![0xee; LEN], vec![0xee; LEN]);
        let run = |write: bool, p: Option<&mut Vec<u8>>, q: Option<&mut Vec<u8>>| {
            let [p, q] = [p, q].map(|to| to.and_then(|to| NonNull::new(to.as_mut_ptr())));
            let (sources, coefficients, len) = (&pointers[..], &coefficients[..], LEN);
            let operation = if write {
                Operation::Pq { sources, coefficients, p, q, len }
            } else {
                Operation::PqVal { sources, coefficients, p, q, len }
            };
            // SAFETY: all have LEN bytes.
            unsafe { execute(&operation, Flags::empty()) }
        };
        assert_eq!(run(true, Some(&mut p), Some(&mut q)), Status::Success);
        for index in 0..LEN {
            assert_eq!(p[index], bytes.iter().fold(0, |sum, source| sum ^ source[index]));
            let products = bytes.iter().zip(coefficients);
            let sum = products.fold(0, |sum, (source, c)| sum ^ gf256::multiply(source[index], c));
            assert_eq!(q[index], sum);
        }
        assert_eq!(run(false, Some(&mut p), Some(&mut q)), Status::Success);
        q[LEN - 1] ^= 1;
        assert_eq!(run(false, Some(&mut p), Some(&mut q)), Status::MismatchQ);
        assert_eq!(run(false, Some(&mut p), None), Status::Success);
        p[0] ^= 1;
        assert_eq!(run(false, Some(&mut p), Some(&mut q)), Status::MismatchPq);
        assert_eq!(run(false, Some(&mut p), None), Status::MismatchP);
    }
}
