use std::sync::OnceLock;

use crate::{Arena, MapError};

/// Arenas per device. Few are needed: one for packets and one for applications.
const REGIONS: usize = 32;

/// The arenas that are mapped for a device, and where: what a driver translates with.
///
/// It only grows. Reading takes no lock: a channel translates two addresses per descriptor while
/// another thread may map an arena. A channel that keeps the [`IovaRegion`]s it found last seldom
/// has to look here at all.
#[derive(Debug, Default)]
pub struct IovaMap {
    /// Filled from the front.
    regions: [OnceLock<Region>; REGIONS],
}

#[derive(Debug)]
struct Region {
    arena: Arena,
    iova: u64,
}

/// One arena of an [`IovaMap`] and where it is: valid as long as the map. The default is a region
/// without memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IovaRegion {
    /// The process address of the first byte.
    start: u64,
    /// That of the byte behind the last.
    end: u64,
    /// From process addresses to IOVAs, modulo 2^64.
    offset: u64,
}

impl IovaRegion {
    /// The IOVA of `address`, if all `len` bytes from there lie in the region.
    #[must_use]
    #[inline]
    pub fn translate(&self, address: *const u8, len: u32) -> Option<u64> {
        let first = address.addr() as u64;
        // If it wraps, `first` lies in the upper half of the address space, which is negative, and
        // below every region: no object of a process lies there, so `start` is positive.
        let end = first.wrapping_add(len.into());
        let inside = first.cast_signed() >= self.start.cast_signed() && end <= self.end;
        inside.then_some(first.wrapping_add(self.offset))
    }
}

impl IovaMap {
    /// An empty map.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `arena`, whose first byte is at `iova`, and keeps it alive. Adding it again does
    /// nothing, whatever the IOVA.
    ///
    /// # Errors
    ///
    /// [`MapError::IovaTaken`] and [`MapError::TooMany`].
    pub fn insert(&self, arena: &Arena, iova: u64) -> Result<(), MapError> {
        let taken = MapError::IovaTaken { iova };
        let Some(end) = iova.checked_add(arena.len() as u64) else { return Err(taken) };
        for slot in &self.regions {
            let mut added = false;
            // If two threads insert at once, one fills the slot, and the other looks at it.
            let region = slot.get_or_init(|| {
                added = true;
                Region { arena: arena.clone(), iova }
            });
            if added || region.arena.base() == arena.base() {
                return Ok(());
            }
            if iova < region.iova + region.arena.len() as u64 && region.iova < end {
                return Err(taken);
            }
        }
        Err(MapError::TooMany { max: REGIONS })
    }

    /// The IOVA of `address`, if all `len` bytes from there lie in one arena.
    #[must_use]
    pub fn translate(&self, address: *const u8, len: usize) -> Option<u64> {
        let IovaRegion { offset, .. } = self.region(address, len)?;
        Some((address.addr() as u64).wrapping_add(offset))
    }

    /// The arena that holds all `len` bytes from `address` on.
    #[must_use]
    pub fn region(&self, address: *const u8, len: usize) -> Option<IovaRegion> {
        let mut regions = self.regions.iter().map_while(OnceLock::get);
        let Region { arena, iova } = regions.find(|region| region.arena.contains(address, len))?;
        let start = arena.base().addr() as u64;
        let (end, offset) = (start + arena.len() as u64, iova.wrapping_sub(start));
        Some(IovaRegion { start, end, offset })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn translates_within_an_arena_and_not_across_its_end() {
        let map = IovaMap::new();
        let arenas = [(); 3].map(|()| Arena::new(8192).unwrap());
        for (arena, iova) in arenas.iter().zip([0x10_0000, 0x20_0000, 0]) {
            map.insert(arena, iova).unwrap();
            map.insert(arena, 0x77_0000).unwrap();
        }
        for (arena, iova) in arenas.iter().zip([0x10_0000, 0x20_0000, 0]) {
            let base = arena.base();
            assert_eq!(map.translate(base, 8192), Some(iova));
            assert_eq!(map.translate(base.wrapping_add(100), 8092), Some(iova + 100));
            assert_eq!(map.translate(base.wrapping_add(100), 8093), None);
            // Also where the kernel put another arena right before this one.
            assert_eq!(map.translate(base.wrapping_sub(1), 2), None);
            assert_eq!(map.translate(base.wrapping_add(1), usize::MAX), None);
        }
    }

    #[test]
    fn a_region_translates_what_lies_in_it() {
        let map = IovaMap::new();
        let arena = Arena::new(8192).unwrap();
        map.insert(&arena, 0x10_0000).unwrap();
        let base = arena.base();
        let region = map.region(base.wrapping_add(5000), 1).unwrap();
        assert_eq!(map.region(base.wrapping_add(5000), 8192), None);
        assert_eq!(region.translate(base, 8192), Some(0x10_0000));
        assert_eq!(region.translate(base.wrapping_add(8191), 1), Some(0x10_1fff));
        assert_eq!(region.translate(base.wrapping_add(8191), 2), None);
        assert_eq!(region.translate(base.wrapping_sub(1), 2), None);
        assert_eq!(region.translate(base.wrapping_add(1), u32::MAX), None);
        // Where the end would wrap to something small.
        for before_the_end in [1, 2, 1 << 20, u32::MAX as usize] {
            let address = std::ptr::without_provenance(before_the_end.wrapping_neg());
            assert_eq!(region.translate(address, u32::MAX), None);
        }
        assert_eq!(IovaRegion::default().translate(base, 1), None);
        assert_eq!(IovaRegion::default().translate(std::ptr::null(), 1), None);
    }

    #[test]
    fn iovas_in_use_are_refused() {
        let map = IovaMap::new();
        let (first, second) = (Arena::new(8192).unwrap(), Arena::new(8192).unwrap());
        map.insert(&first, 0x10_0000).unwrap();
        for iova in [0x10_0000, 0x10_1fff, 0xf_e001, u64::MAX] {
            assert!(matches!(map.insert(&second, iova), Err(MapError::IovaTaken { .. })));
        }
        map.insert(&second, 0xf_e000).unwrap();
    }

    #[test]
    fn the_number_of_arenas_is_bounded() {
        let map = IovaMap::new();
        for index in 0..REGIONS as u64 {
            map.insert(&Arena::new(1).unwrap(), index << 20).unwrap();
        }
        let one_more = map.insert(&Arena::new(1).unwrap(), 1 << 40);
        assert!(matches!(one_more, Err(MapError::TooMany { max: REGIONS })));
    }
}
