//! Bus addresses and the process memory behind them: the device's IOMMU.

use std::{
    ptr,
    sync::atomic::{AtomicU64, Ordering},
};

use crate::memory::{Memory, MemoryError, MoveError};

/// Granularity of mappings in bytes.
pub const PAGE: u64 = 4096;

/// Why a mapping was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum MapError {
    /// Bus address, process address or length is not a multiple of [`PAGE`], or the length is zero.
    #[error("mappings are made of whole 4096-byte pages: align the addresses and the length")]
    Unaligned,
    /// The range runs past the end of the address space.
    #[error("the range runs past the end of the address space")]
    Wraps,
    /// Some of these bus addresses are mapped.
    #[error("some of these bus addresses are mapped already: unmap them first")]
    Overlap,
}

/// Memory that the device may use.
#[derive(Clone, Copy, Debug)]
struct Region {
    iova: u64,
    memory: *mut u8,
    len: u64,
}

// SAFETY: a region is a description; whoever mapped it promised that the memory may be accessed
// from the device's thread (`AddressSpace::map`).
unsafe impl Send for Region {}
// SAFETY: as above; nothing is written through a shared region without the raw pointer's own rules.
unsafe impl Sync for Region {}

/// The regions that are mapped, ordered by bus address.
#[derive(Clone, Debug, Default)]
pub(crate) struct AddressSpace {
    regions: Vec<Region>,
}

impl AddressSpace {
    /// Maps `len` bytes at `memory` to the bus addresses from `iova` on.
    ///
    /// # Safety
    ///
    /// Until the region is removed, and no copy of this value with it in is used any more, the
    /// memory stays valid for reads and writes by any thread, and no reference to bytes that a
    /// descriptor names is used while it is worked on.
    pub(crate) unsafe fn map(
        &mut self,
        iova: u64,
        memory: *mut u8,
        len: usize,
    ) -> Result<(), MapError> {
        let len = len as u64;
        let aligned = [iova, memory.addr() as u64, len].iter().all(|v| v.is_multiple_of(PAGE));
        if !aligned || len == 0 {
            return Err(MapError::Unaligned);
        }
        let end = iova.checked_add(len).ok_or(MapError::Wraps)?;
        let at = self.regions.partition_point(|region| region.iova < iova);
        let (before, after) = self.regions.split_at(at);
        let overlaps = before.last().is_some_and(|region| region.iova + region.len > iova)
            || after.first().is_some_and(|region| region.iova < end);
        if overlaps {
            return Err(MapError::Overlap);
        }
        self.regions.insert(at, Region { iova, memory, len });
        Ok(())
    }

    /// Removes the region that was mapped at `iova`; `false` if there is none.
    pub(crate) fn unmap(&mut self, iova: u64) -> bool {
        match self.regions.binary_search_by_key(&iova, |region| region.iova) {
            Ok(index) => {
                self.regions.remove(index);
                true
            }
            Err(_) => false,
        }
    }

    /// Where `address` is, and how many bytes follow it in its region.
    fn find(&self, address: u64) -> Result<(*mut u8, u64), MemoryError> {
        let after = self.regions.partition_point(|region| region.iova <= address);
        let region = after
            .checked_sub(1)
            .and_then(|index| self.regions.get(index))
            .ok_or(MemoryError::Address)?;
        let offset = address - region.iova;
        let left = region.len.checked_sub(offset).filter(|left| *left > 0);
        let left = left.ok_or(MemoryError::Address)?;
        Ok((region.memory.wrapping_add(offset as usize), left))
    }

    /// The words at `address`, a multiple of 8 that lies in one region with all of them.
    fn words(&self, address: u64, count: usize) -> Result<*mut u64, MemoryError> {
        let (memory, left) = self.find(address)?;
        if !address.is_multiple_of(8) || left < count as u64 * 8 {
            return Err(MemoryError::Address);
        }
        Ok(memory.cast())
    }
}

impl Memory for &AddressSpace {
    fn read(&mut self, address: u64, words: &mut [u64]) -> Result<(), MemoryError> {
        let memory = self.words(address, words.len())?;
        for (index, word) in words.iter_mut().enumerate() {
            // SAFETY: `words` checked the length; the region is valid (`map`), page aligned, and the
            // address a multiple of 8, so each word is aligned. Others access it at the same time
            // only through atomics: it is memory shared with a device.
            let shared = unsafe { AtomicU64::from_ptr(memory.add(index)) };
            // Relaxed: the doorbell's acquire orders this after the driver's stores.
            *word = shared.load(Ordering::Relaxed);
        }
        Ok(())
    }

    fn write(&mut self, address: u64, word: u64) -> Result<(), MemoryError> {
        let memory = self.words(address, 1)?;
        // SAFETY: as in `read`.
        let shared = unsafe { AtomicU64::from_ptr(memory) };
        // Release: who sees the completion word also sees the bytes that were moved before it.
        shared.store(word, Ordering::Release);
        Ok(())
    }

    fn read_bytes(&mut self, address: u64, bytes: &mut [u8]) -> Result<(), MemoryError> {
        let mut done = 0;
        while let left @ 1.. = bytes.len() - done {
            let (from, readable) = self.find(address.wrapping_add(done as u64))?;
            let piece = left.min(usize::try_from(readable).unwrap_or(left));
            // SAFETY: `find` says that `piece` bytes are mapped at `from`, and `map`'s caller that
            // mapped memory is valid; as many follow in `bytes`, which is a reference and so no part
            // of it.
            unsafe { ptr::copy_nonoverlapping(from, bytes[done..].as_mut_ptr(), piece) };
            done += piece;
        }
        Ok(())
    }

    fn write_bytes(&mut self, address: u64, bytes: &[u8]) -> Result<(), MemoryError> {
        let mut done = 0;
        while let left @ 1.. = bytes.len() - done {
            let (to, writable) = self.find(address.wrapping_add(done as u64))?;
            let piece = left.min(usize::try_from(writable).unwrap_or(left));
            // SAFETY: as in `read_bytes`, the other way round.
            unsafe { ptr::copy_nonoverlapping(bytes[done..].as_ptr(), to, piece) };
            done += piece;
        }
        Ok(())
    }

    fn copy(&mut self, source: u64, target: u64, len: u32) -> Result<(), MoveError> {
        let (mut source, mut target, mut left) = (source, target, u64::from(len));
        while left > 0 {
            let (from, readable) = self.find(source).map_err(MoveError::Source)?;
            let (to, writable) = self.find(target).map_err(MoveError::Target)?;
            let piece = left.min(readable).min(writable);
            // SAFETY: `find` says that `piece` bytes are mapped at both addresses, and `map`'s caller
            // that mapped memory is valid. A hostile descriptor may name overlapping bytes, so this
            // is `copy`, which allows it.
            unsafe { ptr::copy(from, to, piece as usize) };
            // No overflow: a region ends within the address space.
            source += piece;
            target += piece;
            left -= piece;
        }
        Ok(())
    }

    fn fill(&mut self, target: u64, pattern: u64, len: u32) -> Result<(), MemoryError> {
        let (mut target, mut left) = (target, u64::from(len));
        let mut pattern = pattern.to_le_bytes();
        while left > 0 {
            let (to, writable) = self.find(target)?;
            let piece = left.min(writable);
            for offset in (0..piece as usize).step_by(pattern.len()) {
                let count = pattern.len().min(piece as usize - offset);
                // SAFETY: `find` says that `piece` bytes are mapped at `to`, and `offset + count` is
                // at most `piece`.
                unsafe { ptr::copy_nonoverlapping(pattern.as_ptr(), to.add(offset), count) };
            }
            let cut = piece as usize % pattern.len();
            pattern.rotate_left(cut);
            target += piece;
            left -= piece;
        }
        Ok(())
    }
}
