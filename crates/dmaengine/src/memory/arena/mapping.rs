//! An arena's memory: a shared mapping of a memory file.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    ptr::NonNull,
};

use rustix::{
    fs::{MemfdFlags, SealFlags},
    io::Errno,
    mm::{Advice, MapFlags, ProtFlags},
};

use super::ArenaError;

/// Zeroed memory, from which forked children are kept out. Whoever made it unmaps it.
pub(super) struct Mapping {
    base: NonNull<u8>,
    len: usize,
    file: OwnedFd,
    huge_pages: bool,
}

// SAFETY: the mapping is process-wide memory, and `Mapping` itself never accesses its bytes.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// `len` must be a multiple of the size of the pages.
    pub(super) fn new(len: usize, huge_pages: bool) -> Result<Self, ArenaError> {
        let mut flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        if huge_pages {
            flags |= MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB;
        }
        let file_error = |errno: Errno| ArenaError::File(errno.into());
        let file = rustix::fs::memfd_create("dmaengine", flags).map_err(file_error)?;
        rustix::fs::ftruncate(&file, len as u64).map_err(file_error)?;
        // Who is given the file must not be able to take its pages away under us (SIGBUS).
        rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)
            .map_err(file_error)?;
        // SAFETY: a fresh mapping at an address of the kernel's choice changes no existing memory.
        let base = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                len,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                &file,
                0,
            )
        }
        .map_err(|errno| ArenaError::Map(errno.into()))?;
        let base = NonNull::new(base.cast::<u8>())
            .ok_or_else(|| ArenaError::Map(io::ErrorKind::OutOfMemory.into()))?;
        let mut mapping = Self { base, len, file, huge_pages };
        let advised = mapping.advise();
        if advised.is_err() {
            // SAFETY: nobody has its address.
            unsafe { mapping.unmap() };
        }
        advised.map(|()| mapping)
    }

    fn advise(&self) -> Result<(), ArenaError> {
        // SAFETY: the range is our own mapping, and none of the advices used (do not fork, huge
        // pages, populate) changes what the memory holds.
        let advise =
            |advice| unsafe { rustix::mm::madvise(self.base.as_ptr().cast(), self.len, advice) };
        advise(Advice::LinuxDontFork).map_err(|errno| ArenaError::Map(errno.into()))?;
        if !self.huge_pages {
            // Transparent huge pages may be configured out; they are a wish.
            let _ = advise(Advice::LinuxHugepage);
        }
        // Not MAP_POPULATE: that would come before the advice, and it hides failures, which then
        // show as SIGBUS at the first access. Needs Linux 5.14.
        advise(Advice::LinuxPopulateWrite).map_err(|errno| ArenaError::Populate(errno.into()))
    }

    pub(super) const fn base(&self) -> NonNull<u8> {
        self.base
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    pub(super) const fn huge_pages(&self) -> bool {
        self.huge_pages
    }

    pub(super) fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// # Safety
    ///
    /// Called once, by the process that made it, when no pointer into it is left.
    pub(super) unsafe fn unmap(&mut self) {
        // SAFETY: base and length are what `mmap` returned, and nobody uses the memory any more, by
        // the caller's promise.
        let unmapped = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.len) };
        debug_assert_eq!(unmapped, Ok(()), "munmap of our own mapping");
    }
}
