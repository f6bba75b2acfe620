//! The client's memory as the device sees it.

use std::{
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, Weak},
};

use rustix::io::Errno;

use super::{
    mapping::{CopyGone, FileFacts, Gone, Mapping, Place},
    regions::{RangeError, Regions},
};
use crate::{
    address_space::PAGE,
    memory::{Memory, MemoryError, MoveError},
};

/// The most regions that are kept, so that a client cannot use up the server's memory. An emulated
/// IOMMU makes one of each page: this is 4 GiB mapped page by page.
pub(super) const MAX_REGIONS: usize = 1 << 20;

/// The most files, or lengths of one file, that are mapped at a time. A process has a limit (65530
/// mappings), at which it can no longer allocate either. A machine has a handful.
const MAX_MAPPINGS: usize = 1024;

/// The most bytes that the kernel is asked to copy at once: it copies no more than 2^31 - 4096.
const MAX_PIECE: u64 = 1 << 30;

/// What the device may do with a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Access {
    pub(super) read: bool,
    pub(super) write: bool,
}

/// A range of bus addresses and what is behind it.
#[derive(Clone, Debug)]
struct Region {
    access: Access,
    /// `None`: memory that came without a file. It cannot be reached.
    backing: Option<Backing>,
}

#[derive(Clone, Debug)]
struct Backing {
    mapping: Arc<Mapping>,
    offset: u64,
}

/// The regions that the client has mapped.
///
/// A client maps the same file again and again: guest memory is one file, and an emulated IOMMU
/// makes a region of each page. So files are mapped whole, once each, as long as a region needs
/// them: a process may not have 10^5 mappings.
#[derive(Debug, Default)]
pub(super) struct GuestMemory {
    regions: Regions<Region>,
    /// Mappings, among them those that no region needs any more.
    mappings: Vec<Weak<Mapping>>,
}

impl GuestMemory {
    /// Lets the device reach `size` bytes of `file` from `offset` on, at `address`.
    ///
    /// # Errors
    ///
    /// What to reply. Nothing has changed then.
    pub(super) fn map(
        &mut self,
        address: u64,
        size: u64,
        access: Access,
        file: Option<(OwnedFd, u64)>,
    ) -> Result<(), Errno> {
        if !address.is_multiple_of(PAGE) || !size.is_multiple_of(PAGE) {
            return Err(Errno::INVAL);
        }
        if self.regions.len() >= MAX_REGIONS {
            return Err(Errno::NOSPC);
        }
        let backing = match file {
            None => None,
            Some((file, offset)) => Some(self.back(&file, offset, size, access)?),
        };
        self.regions.insert(address, size, Region { access, backing }).map_err(errno)
    }

    /// The part of `file` that a region is, with the file mapped.
    fn back(
        &mut self,
        file: &OwnedFd,
        offset: u64,
        size: u64,
        access: Access,
    ) -> Result<Backing, Errno> {
        let facts = FileFacts::of(file.as_fd())?;
        let end = offset.checked_add(size).ok_or(Errno::INVAL)?;
        if !offset.is_multiple_of(PAGE) || end > facts.size {
            return Err(Errno::INVAL);
        }
        if access.write && !facts.key.writable {
            return Err(Errno::ACCESS);
        }
        // The file may have grown since it was mapped.
        let fits = |mapping: &Arc<Mapping>| mapping.key() == facts.key && mapping.len() >= end;
        let mapping = match self.mappings.iter().filter_map(Weak::upgrade).find(fits) {
            Some(mapping) => mapping,
            None => {
                self.mappings.retain(|mapping| mapping.strong_count() > 0);
                if self.mappings.len() >= MAX_MAPPINGS {
                    return Err(Errno::NOSPC);
                }
                let mapping = Arc::new(Mapping::new(file.as_fd(), facts)?);
                self.mappings.push(Arc::downgrade(&mapping));
                mapping
            }
        };
        Ok(Backing { mapping, offset })
    }

    /// Takes the regions in a range from the device, and returns their size. There may be none: the
    /// client of an emulated IOMMU removes ranges that hold any number of regions.
    ///
    /// # Errors
    ///
    /// `EINVAL` if a region lies only partly in the range. Nothing has changed then.
    pub(super) fn unmap(&mut self, address: u64, size: u64) -> Result<u64, Errno> {
        self.regions.remove(address, size).map_err(errno)
    }

    /// Takes everything from the device, and returns its size.
    pub(super) fn unmap_all(&mut self) -> u64 {
        self.regions.clear()
    }

    /// Where `address` is, and how many bytes follow it in its region.
    fn find(
        &self,
        address: u64,
        allows: impl FnOnce(Access) -> bool,
    ) -> Result<(Place<'_>, u64), MemoryError> {
        let (region, offset, left) = self.regions.find(address).ok_or(MemoryError::Address)?;
        let Region { access, backing: Some(Backing { mapping, offset: start }) } = region else {
            return Err(MemoryError::Address);
        };
        if !allows(*access) {
            return Err(MemoryError::Address);
        }
        Ok((mapping.place(start + offset), left))
    }

    fn readable(&self, address: u64) -> Result<(Place<'_>, u64), MemoryError> {
        self.find(address, |access| access.read)
    }

    fn writable(&self, address: u64) -> Result<(Place<'_>, u64), MemoryError> {
        self.find(address, |access| access.write)
    }
}

/// A range that a client got wrong.
fn errno(error: RangeError) -> Errno {
    match error {
        RangeError::Invalid | RangeError::Cuts => Errno::INVAL,
        RangeError::Overlap => Errno::EXIST,
    }
}

impl From<Gone> for MemoryError {
    fn from(Gone: Gone) -> Self {
        Self::Data
    }
}

impl From<CopyGone> for MoveError {
    fn from(gone: CopyGone) -> Self {
        match gone {
            CopyGone::Source => Self::Source(MemoryError::Data),
            CopyGone::Target => Self::Target(MemoryError::Data),
        }
    }
}

impl Memory for &GuestMemory {
    fn read(&mut self, address: u64, words: &mut [u64]) -> Result<(), MemoryError> {
        // Aligned words do not straddle two regions; descriptors, aligned too, do not either.
        let (place, left) = self.readable(address)?;
        if !address.is_multiple_of(8) || left < size_of_val(words) as u64 {
            return Err(MemoryError::Address);
        }
        Ok(place.read_words(words)?)
    }

    fn write(&mut self, address: u64, word: u64) -> Result<(), MemoryError> {
        let (place, left) = self.writable(address)?;
        if !address.is_multiple_of(8) || left < 8 {
            return Err(MemoryError::Address);
        }
        Ok(place.write_word(word)?)
    }

    fn read_bytes(&mut self, address: u64, mut bytes: &mut [u8]) -> Result<(), MemoryError> {
        let mut done = 0;
        while !bytes.is_empty() {
            let (from, readable) = advance(address, done).and_then(|at| self.readable(at))?;
            let piece = (bytes.len() as u64).min(readable);
            let (now, later) = bytes.split_at_mut(piece as usize);
            from.read(now)?;
            bytes = later;
            done += piece;
        }
        Ok(())
    }

    fn write_bytes(&mut self, address: u64, mut bytes: &[u8]) -> Result<(), MemoryError> {
        let mut done = 0;
        while !bytes.is_empty() {
            let (to, writable) = advance(address, done).and_then(|at| self.writable(at))?;
            let piece = (bytes.len() as u64).min(writable);
            let (now, later) = bytes.split_at(piece as usize);
            to.write(now)?;
            bytes = later;
            done += piece;
        }
        Ok(())
    }

    fn copy(&mut self, source: u64, target: u64, len: u32) -> Result<(), MoveError> {
        let len = u64::from(len);
        let mut done = 0;
        while done < len {
            let (from, readable) = advance(source, done)
                .and_then(|at| self.readable(at))
                .map_err(MoveError::Source)?;
            let (to, writable) = advance(target, done)
                .and_then(|at| self.writable(at))
                .map_err(MoveError::Target)?;
            let piece = (len - done).min(readable).min(writable).min(MAX_PIECE);
            from.copy_to(to, piece as usize)?;
            done += piece;
        }
        Ok(())
    }

    fn fill(&mut self, target: u64, pattern: u64, len: u32) -> Result<(), MemoryError> {
        let len = u64::from(len);
        let mut pattern = pattern.to_le_bytes();
        let mut done = 0;
        while done < len {
            let (to, writable) = advance(target, done).and_then(|at| self.writable(at))?;
            let piece = (len - done).min(writable).min(PAGE);
            let mut bytes = [0; PAGE as usize];
            for repetition in bytes.chunks_exact_mut(pattern.len()) {
                repetition.copy_from_slice(&pattern);
            }
            to.write(bytes.get(..piece as usize).unwrap_or(&bytes))?;
            // The next piece goes on where the pattern was cut.
            let cut = piece as usize % pattern.len();
            pattern.rotate_left(cut);
            done += piece;
        }
        Ok(())
    }
}

/// An address further on. Nothing is mapped past the end of the address space, nor at its start.
fn advance(address: u64, by: u64) -> Result<u64, MemoryError> {
    address.checked_add(by).ok_or(MemoryError::Address)
}
