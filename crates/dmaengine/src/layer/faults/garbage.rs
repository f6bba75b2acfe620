//! Writing what nobody ordered over the targets of an operation.

use std::{ops::Range, ptr::NonNull};

use crate::{Flags, Operation, SegmentMut, software};

/// Writes `pattern` over a range of what `operation` writes: of the whole of a scatter-gather
/// copy's targets, of P and of Q. A check has no target.
///
/// # Safety
///
/// `range` lies within the operation's length, its targets are valid for writes, and nobody else
/// looks at them or writes them.
pub(super) unsafe fn overwrite(operation: &Operation<'_>, range: Range<usize>, pattern: u64) {
    // SAFETY: the parts lie in the targets.
    for_each_part(operation, range, |address, len| unsafe {
        let target = address.as_ptr();
        software::execute(&Operation::Memset { pattern, target, len }, Flags::empty());
    });
}

/// Calls `each` with the address and length of each piece of a range of what `operation` writes.
pub(super) fn for_each_part(
    operation: &Operation<'_>,
    range: Range<usize>,
    mut each: impl FnMut(NonNull<u8>, usize),
) {
    let mut part = |target: *mut u8, range: Range<usize>| {
        if let Some(address) = NonNull::new(target.wrapping_add(range.start))
            && !range.is_empty()
        {
            each(address, range.len());
        }
    };
    match *operation {
        Operation::Memcpy { target, .. }
        | Operation::Memset { target, .. }
        | Operation::Xor { target, .. } => part(target, range),
        Operation::MemcpySg { targets, .. } => {
            let mut before = 0;
            for &SegmentMut { address, len } in targets {
                let start = range.start.clamp(before, before + len) - before;
                let end = range.end.clamp(before, before + len) - before;
                part(address, start..end);
                before += len;
            }
        }
        Operation::Pq { p, q, .. } => {
            for target in [p, q].into_iter().flatten() {
                part(target.as_ptr(), range.clone());
            }
        }
        Operation::XorVal { .. } | Operation::PqVal { .. } => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_of_a_list_is_in_its_pieces() {
        let mut bytes = [0u8; 30];
        let base = bytes.as_mut_ptr();
        let targets = [(0, 5), (10, 5), (20, 5)]
            .map(|(offset, len)| SegmentMut { address: base.wrapping_add(offset), len });
        let operation = Operation::MemcpySg { sources: &[], targets: &targets };
        // SAFETY: the pieces lie in `bytes`.
        unsafe { overwrite(&operation, 3..12, u64::MAX) };
        let written: Vec<_> = (0..30).filter(|&index| bytes[index] != 0).collect();
        assert_eq!(written, [3, 4, 10, 11, 12, 13, 14, 20, 21]);
    }
}
