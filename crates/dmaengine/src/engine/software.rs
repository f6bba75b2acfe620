//! What a software engine does with an operation.

use crate::{CopyDescriptor, FillDescriptor};

/// An operation as `submit_*` took it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Operation {
    Copy(CopyDescriptor),
    Fill(FillDescriptor),
}

// SAFETY: the pointers lead to memory that belongs to the operation, whichever thread has it.
unsafe impl Send for Operation {}

impl Operation {
    /// The length in bytes.
    pub(super) const fn len(&self) -> usize {
        match self {
            Self::Copy(copy) => copy.len,
            Self::Fill(fill) => fill.len,
        }
    }

    /// Moves the bytes.
    ///
    /// # Safety
    ///
    /// The memory is the operation's, as [`crate::DmaChannel::submit_memcpy`] demands.
    pub(super) unsafe fn execute(&self) {
        match *self {
            Self::Copy(CopyDescriptor { source, target, len }) => {
                // SAFETY: valid, unshared for writing and disjoint by contract.
                unsafe { std::ptr::copy_nonoverlapping(source, target, len) };
            }
            Self::Fill(FillDescriptor { pattern, target, len }) => {
                let pattern = pattern.to_le_bytes();
                let whole = len - len % pattern.len();
                for offset in (0..whole).step_by(pattern.len()) {
                    // SAFETY: the 8 bytes lie in the target, which is ours by contract; an array
                    // of bytes needs no alignment.
                    unsafe { target.add(offset).cast::<[u8; 8]>().write(pattern) };
                }
                // SAFETY: the rest of the target; the pattern is longer.
                unsafe {
                    target.add(whole).copy_from_nonoverlapping(pattern.as_ptr(), len - whole);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fill_repeats_and_cuts_the_pattern_short() {
        for len in 0..40 {
            let mut bytes = vec![0u8; len + 2];
            let target = bytes[1..].as_mut_ptr();
            let fill = FillDescriptor { pattern: 0x0706_0504_0302_0100, target, len };
            // SAFETY: `len` bytes of the vector, after its first.
            unsafe { Operation::Fill(fill).execute() };
            assert_eq!((bytes[0], bytes[len + 1]), (0, 0));
            assert!((0..len).all(|index| bytes[index + 1] == index as u8 % 8));
        }
    }
}
