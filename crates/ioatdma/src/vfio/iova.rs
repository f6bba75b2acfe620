//! Where in the device's address space arenas go.

use super::info::AllowedIovas;

/// Addresses from `start` to `last`, both included: the whole of 64 bits can be said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Range {
    pub(super) start: u64,
    pub(super) last: u64,
}

impl Range {
    /// `None` if there is nothing in it.
    pub(super) fn new(start: u64, last: u64) -> Option<Self> {
        (start <= last).then_some(Self { start, last })
    }

    /// The length in bytes of a range that is not all of 64 bits.
    pub(super) const fn len(self) -> u64 {
        self.last - self.start + 1
    }

    fn intersection(self, other: Self) -> Option<Self> {
        Self::new(self.start.max(other.start), self.last.min(other.last))
    }
}

/// The lowest address that is given out. 0 must not be: in the completion word it says that nothing
/// has completed. The rest is a safe distance: an address that a defect has cut short faults.
const FIRST: u64 = 1 << 20;
/// The window of addresses that x86 takes for interrupts. Kernels that tell their ranges leave it
/// out of them.
const MSI_WINDOW: Range = Range { start: 0xfee0_0000, last: 0xfeef_ffff };
/// Arenas of at least this size begin at a multiple of it, so that the IOMMU can use large pages.
const LARGE_PAGE: u64 = 2 << 20;

/// Gives out addresses: the lowest free ones, so that 32 bits suffice as long as there is room. They
/// are never taken back: what is mapped stays mapped as long as the device is open.
#[derive(Clone, Debug)]
pub(super) struct IovaAllocator {
    /// In order; no two touch.
    free: Vec<Range>,
    page_size: u64,
}

impl IovaAllocator {
    /// What the IOMMU allows and `dma_mask` reaches.
    pub(super) fn new(allowed: &AllowedIovas, dma_mask: u64) -> Self {
        let reach = Range { start: FIRST, last: dma_mask.max(FIRST) };
        let mut free: Vec<Range> = allowed
            .ranges
            .iter()
            .filter_map(|range| range.intersection(reach))
            .flat_map(|range| {
                let below = Range { start: 0, last: MSI_WINDOW.start - 1 };
                let above = Range { start: MSI_WINDOW.last + 1, last: u64::MAX };
                [range.intersection(below), range.intersection(above)]
            })
            .flatten()
            .collect();
        free.sort_unstable();
        Self { free, page_size: allowed.page_size.next_power_of_two() }
    }

    /// Takes `len` bytes, rounded up to whole pages; `None` if no free range is long enough.
    pub(super) fn allocate(&mut self, len: u64) -> Option<Range> {
        let len = len.max(1).checked_next_multiple_of(self.page_size)?;
        let align = if len >= LARGE_PAGE { LARGE_PAGE.max(self.page_size) } else { self.page_size };
        let (index, taken) = self.free.iter().enumerate().find_map(|(index, free)| {
            let start = free.start.checked_next_multiple_of(align)?;
            let last = start.checked_add(len - 1)?;
            (last <= free.last).then_some((index, Range { start, last }))
        })?;
        let free = self.free.remove(index);
        let above = taken.last.checked_add(1).and_then(|start| Range::new(start, free.last));
        let below = taken.start.checked_sub(1).and_then(|last| Range::new(free.start, last));
        self.free.splice(index..index, below.into_iter().chain(above));
        Some(taken)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn allowed(ranges: &[(u64, u64)]) -> AllowedIovas {
        let ranges = ranges.iter().map(|&(start, last)| Range { start, last }).collect();
        AllowedIovas { ranges, page_size: 4096 }
    }

    #[test]
    fn the_lowest_addresses_with_large_pages_aligned() {
        let mut iovas = IovaAllocator::new(&allowed(&[(0, (1 << 39) - 1)]), u64::MAX);
        assert_eq!(iovas.allocate(100), Range::new(1 << 20, (1 << 20) + 4095));
        assert_eq!(iovas.allocate(2 << 20), Range::new(2 << 20, (4 << 20) - 1));
        assert_eq!(iovas.allocate(4096), Range::new((1 << 20) + 4096, (1 << 20) + 8191));
    }

    #[test]
    fn never_where_interrupts_are() {
        let mut iovas = IovaAllocator::new(&allowed(&[(0, u64::MAX)]), u64::MAX);
        let low = iovas.allocate(0xfe00_0000).unwrap();
        assert!(low.last < 0xfee0_0000, "{low:x?}");
        let high = iovas.allocate(0x200_0000).unwrap();
        assert!(high.start >= 0xfef0_0000, "{high:x?}");
    }

    #[test]
    fn no_further_than_the_device_reaches() {
        let whole = allowed(&[(0, u64::MAX)]);
        let mut iovas = IovaAllocator::new(&whole, u32::MAX.into());
        assert_eq!(iovas.allocate(1 << 32), None);
        assert!(iovas.allocate(1 << 31).unwrap().last <= u32::MAX.into());
        assert_eq!(iovas.allocate(1 << 31), None);
        assert!(IovaAllocator::new(&whole, u64::MAX).allocate(1 << 40).is_some());
    }

    #[test]
    fn impossible_lengths() {
        let mut iovas = IovaAllocator::new(&allowed(&[(0, u64::MAX)]), u64::MAX);
        for len in [u64::MAX, u64::MAX - 4096, 1 << 63 | 1 << 62] {
            let range = iovas.allocate(len);
            assert!(range.is_none_or(|range| range.len() >= len), "{len:#x}: {range:x?}");
        }
        assert_eq!(IovaAllocator::new(&allowed(&[]), u64::MAX).allocate(1), None);
    }

    proptest! {
        /// Whatever is asked for: within the allowed ranges, whole pages, disjoint.
        #[test]
        fn disjoint_and_allowed(
            borders in prop::collection::btree_set(0u64..1 << 24, 2..12),
            lens in prop::collection::vec(1u64..3 << 20, 1..40),
        ) {
            let borders: Vec<u64> = borders.into_iter().map(|page| page << 12).collect();
            let ranges: Vec<(u64, u64)> =
                borders.chunks_exact(2).map(|pair| (pair[0], pair[1] - 1)).collect();
            let mut iovas = IovaAllocator::new(&allowed(&ranges), u64::MAX);
            let mut taken: Vec<Range> = Vec::new();
            for len in lens {
                let Some(range) = iovas.allocate(len) else { continue };
                prop_assert!(range.len() >= len && range.len() < len + 4096);
                prop_assert!(range.start % 4096 == 0 && range.start >= FIRST);
                prop_assert!(ranges.iter().any(|&(start, last)| start <= range.start && range.last <= last));
                prop_assert!(range.intersection(MSI_WINDOW).is_none());
                prop_assert!(taken.iter().all(|other| other.intersection(range).is_none()));
                taken.push(range);
            }
        }
    }
}
