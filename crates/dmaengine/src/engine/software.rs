//! What a software engine does with an operation.

use crate::{Operation, SubmitError};

/// An operation as a software engine keeps it between submission and execution.
#[derive(Clone, Copy, Debug)]
pub(super) enum Task {
    Copy { source: *const u8, target: *mut u8, len: usize },
    Fill { pattern: u64, target: *mut u8, len: usize },
}

// SAFETY: the pointers lead to memory that belongs to the operation, whichever thread has it.
unsafe impl Send for Task {}

impl TryFrom<&Operation<'_>> for Task {
    type Error = SubmitError;

    fn try_from(operation: &Operation<'_>) -> Result<Self, SubmitError> {
        match *operation {
            Operation::Memcpy { source, target, len } => Ok(Self::Copy { source, target, len }),
            Operation::Memset { pattern, target, len } => Ok(Self::Fill { pattern, target, len }),
            _ => Err(SubmitError::Unsupported { operation: operation.kind() }),
        }
    }
}

impl Task {
    /// The length in bytes.
    pub(super) const fn len(&self) -> usize {
        match *self {
            Self::Copy { len, .. } | Self::Fill { len, .. } => len,
        }
    }

    /// Moves the bytes.
    ///
    /// # Safety
    ///
    /// The memory is the operation's, as [`crate::DmaChannel::submit`] demands.
    pub(super) unsafe fn execute(&self) {
        match *self {
            Self::Copy { source, target, len } => {
                // SAFETY: valid, unshared for writing and disjoint by contract.
                unsafe { std::ptr::copy_nonoverlapping(source, target, len) };
            }
            Self::Fill { pattern, target, len } => {
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
            let fill = Task::Fill { pattern: 0x0706_0504_0302_0100, target, len };
            // SAFETY: `len` bytes of the vector, after its first.
            unsafe { fill.execute() };
            assert_eq!((bytes[0], bytes[len + 1]), (0, 0));
            assert!((0..len).all(|index| bytes[index + 1] == index as u8 % 8));
        }
    }
}
