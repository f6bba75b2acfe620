use std::collections::BTreeMap;

/// The free parts of an arena, as offsets into it: first fit, neighbours joined when freed.
///
/// First fit keeps what lives long at the front. Allocation is for buffers and pools, never for a
/// packet, so a walk over the free parts is cheap enough.
#[derive(Debug, Default)]
pub(super) struct FreeExtents {
    /// Offset to length. No two extents touch.
    extents: BTreeMap<usize, usize>,
}

impl FreeExtents {
    /// All of `len` bytes is free.
    pub(super) fn new(len: usize) -> Self {
        Self { extents: BTreeMap::from([(0, len)]) }
    }

    /// Takes `len` bytes whose offset is a multiple of `align` (a power of two).
    pub(super) fn allocate(&mut self, len: usize, align: usize) -> Option<usize> {
        let (start, size, offset) = self.extents.iter().find_map(|(&start, &size)| {
            let offset = start.checked_next_multiple_of(align)?;
            let end = offset.checked_add(len)?;
            (end <= start + size).then_some((start, size, offset))
        })?;
        self.extents.remove(&start);
        if offset > start {
            self.extents.insert(start, offset - start);
        }
        let (end, taken_to) = (start + size, offset + len);
        if taken_to < end {
            self.extents.insert(taken_to, end - taken_to);
        }
        Some(offset)
    }

    /// Gives back what `allocate` returned.
    pub(super) fn release(&mut self, offset: usize, len: usize) {
        let mut start = offset;
        let mut end = offset + len;
        if let Some((&before, &size)) = self.extents.range(..offset).next_back() {
            debug_assert!(before + size <= offset, "freed twice");
            if before + size == offset {
                start = before;
            }
        }
        if let Some(size) = self.extents.remove(&end) {
            end += size;
        }
        self.extents.insert(start, end - start);
    }

    /// The length of the longest free part.
    pub(super) fn largest(&self) -> usize {
        self.extents.values().copied().max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn first_fit_with_alignment() {
        let mut free = FreeExtents::new(1 << 16);
        assert_eq!(free.allocate(64, 64), Some(0));
        assert_eq!(free.allocate(4096, 4096), Some(4096));
        assert_eq!(free.allocate(64, 64), Some(64), "the gap before the aligned block is used");
        assert_eq!(free.allocate(1 << 16, 64), None);
        assert_eq!(free.allocate(usize::MAX, 64), None);
    }

    proptest! {
        /// Against a map of bytes: blocks never overlap, and when all are freed all is one again.
        #[test]
        #[cfg_attr(miri, ignore = "long, and nothing unsafe")]
        fn blocks_are_disjoint_and_coalesce(
            steps in prop::collection::vec((1usize..40, 0u32..4, any::<prop::sample::Index>()), 1..200)
        ) {
            const LEN: usize = 256;
            let mut free = FreeExtents::new(LEN);
            let mut used = [false; LEN];
            let mut blocks: Vec<(usize, usize)> = Vec::new();
            for (len, align, victim) in steps {
                if let Some(offset) = free.allocate(len, 1 << align) {
                    prop_assert_eq!(offset % (1 << align), 0);
                    for byte in &mut used[offset..offset + len] {
                        prop_assert!(!*byte);
                        *byte = true;
                    }
                    blocks.push((offset, len));
                } else {
                    let largest = free.largest();
                    prop_assert!(largest < len + (1 << align));
                    if blocks.is_empty() { continue; }
                    let (offset, len) = blocks.swap_remove(victim.index(blocks.len()));
                    used[offset..offset + len].fill(false);
                    free.release(offset, len);
                }
            }
            for (offset, len) in blocks {
                free.release(offset, len);
            }
            prop_assert_eq!(free.largest(), LEN);
            prop_assert_eq!(free.allocate(LEN, 1), Some(0));
        }
    }
}
