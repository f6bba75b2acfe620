use std::sync::{
    OnceLock,
    atomic::{AtomicUsize, Ordering},
};

use crate::{Arena, MapError};

/// Arenas per device. Few are needed: one for packets and one for applications.
const REGIONS: usize = 32;

/// The arenas that are mapped for a device, and where: what a driver translates with.
///
/// It only grows. Reading takes no lock: a channel translates two addresses per descriptor while
/// another thread may map an arena.
#[derive(Debug, Default)]
pub struct IovaMap {
    /// Filled from the front.
    regions: [OnceLock<Region>; REGIONS],
    /// The index of the region that the last translation found.
    last: AtomicUsize,
}

#[derive(Debug)]
struct Region {
    arena: Arena,
    iova: u64,
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
        // Relaxed: a hint; the region is checked below.
        let last = self.last.load(Ordering::Relaxed);
        if let Some(iova) = self.regions[last].get().and_then(|region| region.iova(address, len)) {
            return Some(iova);
        }
        self.regions.iter().map_while(OnceLock::get).enumerate().find_map(|(index, region)| {
            let iova = region.iova(address, len)?;
            // Relaxed: as above.
            self.last.store(index, Ordering::Relaxed);
            Some(iova)
        })
    }
}

impl Region {
    fn iova(&self, address: *const u8, len: usize) -> Option<u64> {
        self.arena
            .contains(address, len)
            .then(|| self.iova + (address.addr() - self.arena.base().addr()) as u64)
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
