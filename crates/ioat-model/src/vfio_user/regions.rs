//! What is mapped where: ranges of bus addresses that do not overlap.

use std::collections::BTreeMap;

/// Why a range is not what it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RangeError {
    /// It is empty, or runs past the end of the address space.
    Invalid,
    /// It overlaps with a region that is there.
    Overlap,
    /// It cuts a region in two.
    Cuts,
}

/// Regions, ordered by address. With 10^5 of them a look-up, an insertion and a removal are still
/// some twenty comparisons each: an emulated IOMMU makes one region of each page.
#[derive(Debug)]
pub(super) struct Regions<T> {
    by_address: BTreeMap<u64, (u64, T)>,
}

impl<T> Default for Regions<T> {
    fn default() -> Self {
        Self { by_address: BTreeMap::new() }
    }
}

impl<T> Regions<T> {
    pub(super) fn len(&self) -> usize {
        self.by_address.len()
    }

    /// Adds a region; if that is refused, nothing has changed.
    pub(super) fn insert(&mut self, address: u64, size: u64, region: T) -> Result<(), RangeError> {
        let last = last(address, size)?;
        // Of the regions that begin before the end, the last is the one that could reach in.
        if let Some((start, (len, _))) = self.by_address.range(..=last).next_back()
            && start + (len - 1) >= address
        {
            return Err(RangeError::Overlap);
        }
        self.by_address.insert(address, (size, region));
        Ok(())
    }

    /// Takes out the regions that lie in the range, and returns their total size. If one lies in it
    /// only in part, nothing changes.
    pub(super) fn remove(&mut self, address: u64, size: u64) -> Result<u64, RangeError> {
        let last = last(address, size)?;
        let before = self.by_address.range(..address).next_back();
        let reaches_in = before.is_some_and(|(start, (len, _))| start + (len - 1) >= address);
        let inside = self.by_address.range(address..=last);
        let reaches_out =
            inside.clone().next_back().is_some_and(|(start, (len, _))| start + (len - 1) > last);
        if reaches_in || reaches_out {
            return Err(RangeError::Cuts);
        }
        let starts: Vec<u64> = inside.map(|(start, _)| *start).collect();
        let removed = starts.iter().filter_map(|start| self.by_address.remove(start));
        Ok(removed.map(|(len, _)| len).fold(0, u64::saturating_add))
    }

    /// Takes out all regions, and returns their total size.
    pub(super) fn clear(&mut self) -> u64 {
        let removed = std::mem::take(&mut self.by_address).into_values();
        removed.map(|(len, _)| len).fold(0, u64::saturating_add)
    }

    /// The region that `address` is in, the offset in it, and how many bytes are left from there.
    pub(super) fn find(&self, address: u64) -> Option<(&T, u64, u64)> {
        let (start, (len, region)) = self.by_address.range(..=address).next_back()?;
        let offset = address - start;
        let left = len.checked_sub(offset).filter(|left| *left > 0)?;
        Some((region, offset, left))
    }
}

/// The last address of a range.
fn last(address: u64, size: u64) -> Result<u64, RangeError> {
    let more = size.checked_sub(1).ok_or(RangeError::Invalid)?;
    address.checked_add(more).ok_or(RangeError::Invalid)
}

#[cfg(test)]
mod tests;
