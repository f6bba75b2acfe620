//! What the kernel says about an IOMMU: bytes to ranges.

use vfio_bindings::bindings::vfio::{
    VFIO_IOMMU_INFO_CAPS, VFIO_IOMMU_INFO_PGSIZES, VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE,
};

use super::iova::Range;

/// What may be mapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AllowedIovas {
    pub(super) ranges: Vec<Range>,
    /// The unit of mapping in bytes.
    pub(super) page_size: u64,
}

/// The smallest page of x86.
const PAGE: u64 = 4096;

impl AllowedIovas {
    /// Reads what `VFIO_IOMMU_GET_INFO` gave: `vfio_iommu_type1_info`, with a chain of capabilities
    /// behind it. What is not there, as in kernels before 5.4, is not limited.
    pub(super) fn parse_type1(bytes: &[u8]) -> Self {
        let flags = u32_at(bytes, 4).unwrap_or(0);
        let sizes =
            u64_at(bytes, 8).filter(|sizes| flags & VFIO_IOMMU_INFO_PGSIZES != 0 && *sizes != 0);
        let mut allowed = Self {
            ranges: Vec::new(),
            page_size: sizes.map_or(PAGE, |sizes| (1 << sizes.trailing_zeros()).max(PAGE)),
        };
        let mut told = false;
        let mut next = match u32_at(bytes, 16) {
            Some(offset) if flags & VFIO_IOMMU_INFO_CAPS != 0 => offset as usize,
            _ => 0,
        };
        // Each capability begins with its kind and the offset of the next, which lies behind it:
        // a chain that turns back is nonsense.
        while next != 0 {
            let Some(kind) = u32_at(bytes, next) else { break };
            // Below is the kind, above the version.
            if kind & 0xffff == VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE {
                told = true;
                allowed.ranges = ranges(bytes, next);
            }
            match u32_at(bytes, next + 4) {
                Some(offset) if offset as usize > next => next = offset as usize,
                _ => break,
            }
        }
        if !told {
            allowed.ranges = vec![Range { start: 0, last: u64::MAX }];
        }
        allowed
    }
}

/// The ranges of the capability at `offset`: their count, a word of nothing, then first and last of
/// each.
fn ranges(bytes: &[u8], offset: usize) -> Vec<Range> {
    let count = u32_at(bytes, offset + 8).unwrap_or(0) as usize;
    let first = offset + 16;
    let range = |index: usize| {
        let at = first + 16 * index;
        Range::new(u64_at(bytes, at)?, u64_at(bytes, at + 8)?)
    };
    // No more than there is room for.
    (0..count.min(bytes.len() / 16)).filter_map(range).collect()
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    let word = bytes.get(offset..)?.first_chunk()?;
    Some(u32::from_ne_bytes(*word))
}

fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    let word = bytes.get(offset..)?.first_chunk()?;
    Some(u64::from_ne_bytes(*word))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The structure, and capabilities of these kinds and contents behind it.
    fn info(flags: u32, page_sizes: u64, capabilities: &[(u16, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(4096u32.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend(page_sizes.to_ne_bytes());
        bytes.extend(24u32.to_ne_bytes());
        bytes.extend(0u32.to_ne_bytes());
        for (index, (kind, content)) in capabilities.iter().enumerate() {
            let next = (bytes.len() + 8 + content.len()).next_multiple_of(8);
            let last = index + 1 == capabilities.len();
            bytes.extend(kind.to_ne_bytes());
            bytes.extend(1u16.to_ne_bytes());
            bytes.extend(if last { 0 } else { next as u32 }.to_ne_bytes());
            bytes.extend(*content);
            bytes.resize(next, 0);
        }
        bytes
    }

    fn iova_ranges(ranges: &[(u64, u64)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend((ranges.len() as u32).to_ne_bytes());
        bytes.extend(0u32.to_ne_bytes());
        for (start, last) in ranges {
            bytes.extend(start.to_ne_bytes());
            bytes.extend(last.to_ne_bytes());
        }
        bytes
    }

    #[test]
    fn ranges_and_page_size() {
        let ranges = [(0, 0xfedf_ffff), (0xfef0_0000, (1 << 39) - 1)];
        let bytes = info(
            VFIO_IOMMU_INFO_CAPS | VFIO_IOMMU_INFO_PGSIZES,
            0x4020_1000,
            &[(2, &[0; 24]), (1, &iova_ranges(&ranges)), (3, &65535u32.to_ne_bytes())],
        );
        let allowed = AllowedIovas::parse_type1(&bytes);
        let ranges = ranges.map(|(start, last)| Range { start, last });
        assert_eq!(allowed.ranges, ranges);
        assert_eq!(allowed.page_size, 4096);
    }

    #[test]
    fn an_old_kernel_tells_nothing() {
        let allowed = AllowedIovas::parse_type1(&info(0, 0x1000, &[(1, &iova_ranges(&[(1, 2)]))]));
        assert_eq!(allowed.ranges, [Range { start: 0, last: u64::MAX }]);
        assert_eq!(allowed.page_size, PAGE);
        let large = info(VFIO_IOMMU_INFO_PGSIZES, 1 << 16, &[]);
        assert_eq!(AllowedIovas::parse_type1(&large).page_size, 1 << 16);
    }

    #[test]
    fn a_chain_that_turns_back_ends() {
        let mut bytes = info(VFIO_IOMMU_INFO_CAPS, 0, &[(1, &iova_ranges(&[(1, 2)])), (9, &[])]);
        bytes[24 + 4] = 24;
        assert_eq!(AllowedIovas::parse_type1(&bytes).ranges, [Range { start: 1, last: 2 }]);
    }

    proptest! {
        /// Ends, and panics at nothing.
        #[test]
        fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut bytes = bytes;
            if let Some(flags) = bytes.get_mut(4) {
                *flags |= 3;
            }
            let allowed = AllowedIovas::parse_type1(&bytes);
            prop_assert!(allowed.page_size.is_power_of_two());
            prop_assert!(allowed.ranges.iter().all(|range| range.start <= range.last));
        }
    }
}
