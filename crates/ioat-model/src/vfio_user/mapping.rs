//! A client's file in this process's address space, and accesses to it that cannot fault.
//!
//! The file belongs to the client, who may truncate it at any moment. A load or store to a page that
//! is gone raises SIGBUS, which would end the server. So bytes are moved by the kernel, with
//! `process_vm_readv` and `process_vm_writev` on this process itself: there the same access is an
//! `EFAULT`. They are made for another process's memory, but one's own is always allowed.
//!
//! Words that the driver may look at meanwhile, the completion word first of all, must be accessed
//! at once, which the kernel does not promise for a copy. They are loaded and stored directly where
//! the file is sealed against shrinking (QEMU's `memory-backend-memfd` is), for then the page cannot
//! go. In other files they are copied by the kernel, which moves an aligned word with one
//! instruction on any processor we know of.

use std::{
    io,
    os::fd::BorrowedFd,
    ptr,
    sync::atomic::{AtomicU64, Ordering},
};

use rustix::{
    fs::{FileType, OFlags, SealFlags, fcntl_get_seals, fcntl_getfl, fstat, fstatfs},
    io::Errno,
    mm::{MapFlags, ProtFlags, mmap, munmap},
};

/// File systems in memory: of memfds too. Elsewhere a page fault may wait for a disk, or for the
/// client itself (FUSE), and the device with it.
const TMPFS_MAGIC: u64 = 0x0102_1994;
const HUGETLBFS_MAGIC: u64 = 0x958_458f6;

/// What tells one file from another, and how it may be accessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileKey {
    device: u64,
    inode: u64,
    pub(super) writable: bool,
}

/// What there is to know about a file before it is mapped.
#[derive(Clone, Copy, Debug)]
pub(super) struct FileFacts {
    pub(super) key: FileKey,
    pub(super) size: u64,
    /// It cannot shrink, and its pages need no huge page that may be lacking.
    steady: bool,
}

impl FileFacts {
    /// Looks at a file that a client has sent.
    ///
    /// # Errors
    ///
    /// What to reply: `EINVAL` for what is no file in memory, `EACCES` for one that may not be read.
    pub(super) fn of(file: BorrowedFd<'_>) -> Result<Self, Errno> {
        let status = fstat(file)?;
        let system = fstatfs(file)?.f_type as u64;
        let regular = FileType::from_raw_mode(status.st_mode) == FileType::RegularFile;
        if !regular || ![TMPFS_MAGIC, HUGETLBFS_MAGIC].contains(&system) {
            return Err(Errno::INVAL);
        }
        let mode = fcntl_getfl(file)?;
        if mode.contains(OFlags::PATH) || mode & OFlags::RWMODE == OFlags::WRONLY {
            return Err(Errno::ACCESS);
        }
        let seals = fcntl_get_seals(file)?;
        Ok(Self {
            key: FileKey {
                device: status.st_dev,
                inode: status.st_ino,
                writable: mode & OFlags::RWMODE == OFlags::RDWR,
            },
            size: u64::try_from(status.st_size).map_err(|_| Errno::INVAL)?,
            steady: seals.contains(SealFlags::SHRINK) && system == TMPFS_MAGIC,
        })
    }
}

/// A file, mapped from its start on.
#[derive(Debug)]
pub(super) struct Mapping {
    base: *mut u8,
    len: usize,
    facts: FileFacts,
}

// SAFETY: the mapping is process-wide and lives until this value is dropped; it is only accessed
// with atomics and by the kernel.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps all of the file.
    pub(super) fn new(file: BorrowedFd<'_>, facts: FileFacts) -> Result<Self, Errno> {
        let len = usize::try_from(facts.size).map_err(|_| Errno::NOMEM)?;
        let mut access = ProtFlags::READ;
        access.set(ProtFlags::WRITE, facts.key.writable);
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory of ours.
        let base = unsafe { mmap(ptr::null_mut(), len, access, MapFlags::SHARED, file, 0) }?;
        Ok(Self { base: base.cast(), len, facts })
    }

    pub(super) const fn key(&self) -> FileKey {
        self.facts.key
    }

    pub(super) const fn len(&self) -> u64 {
        self.len as u64
    }

    /// The place of the byte at `offset`. One beyond the mapping has no bytes.
    pub(super) fn place(&self, offset: u64) -> Place<'_> {
        let offset = usize::try_from(offset).unwrap_or(self.len).min(self.len);
        Place { mapping: self, offset }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: made in `new` with this length and not unmapped since; every `Place` borrows this
        // value, so none is left. A failure leaves the mapping, which is harmless.
        let _ = unsafe { munmap(self.base.cast(), self.len) };
    }
}

/// An access that the kernel refused: the page is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gone;

/// Which side of a copy is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CopyGone {
    Source,
    Target,
}

/// Bytes of a [`Mapping`], from some offset on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    mapping: &'a Mapping,
    offset: usize,
}

impl Place<'_> {
    /// Reads words, each at once where that is possible.
    pub(super) fn read_words(self, words: &mut [u64]) -> Result<(), Gone> {
        let Some(first) = self.steady_words(words.len()) else {
            let len = size_of_val(words);
            return read(vector(words.as_mut_ptr().cast(), len), self.vector(len));
        };
        for (index, word) in words.iter_mut().enumerate() {
            // SAFETY: `steady_words` checked that this many aligned words are in the mapping, which
            // outlives `self`, and that their pages cannot go. In this process they are accessed
            // with atomics only; the driver is another process, for which a load is as one on a bus.
            let shared = unsafe { AtomicU64::from_ptr(first.add(index)) };
            // Acquire: what the driver stored before this word is seen by what is read after it.
            *word = shared.load(Ordering::Acquire);
        }
        Ok(())
    }

    /// Writes a word, at once where that is possible, after everything that was written before.
    pub(super) fn write_word(self, word: u64) -> Result<(), Gone> {
        match self.steady_words(1) {
            Some(first) if self.mapping.facts.key.writable => {
                // SAFETY: as in `read_words`; and the mapping is writable.
                let shared = unsafe { AtomicU64::from_ptr(first) };
                // Release: who sees the word also sees the bytes that were moved before it.
                shared.store(word, Ordering::Release);
                Ok(())
            }
            _ => self.write(&word.to_ne_bytes()),
        }
    }

    /// Reads bytes.
    pub(super) fn read(self, bytes: &mut [u8]) -> Result<(), Gone> {
        read(vector(bytes.as_mut_ptr(), bytes.len()), self.vector(bytes.len()))
    }

    /// Writes bytes.
    pub(super) fn write(self, bytes: &[u8]) -> Result<(), Gone> {
        let local = vector(bytes.as_ptr().cast_mut(), bytes.len());
        let remote = self.vector(bytes.len());
        // SAFETY: the kernel reads `local`, which is `bytes`, and writes within the mapping, which
        // lives meanwhile and which no Rust reference refers to.
        let written = unsafe { libc::process_vm_writev(libc::getpid(), &local, 1, &remote, 1, 0) };
        if whole(written, bytes.len()) { Ok(()) } else { Err(Gone) }
    }

    /// Copies `len` bytes to `target`.
    pub(super) fn copy_to(self, target: Place<'_>, len: usize) -> Result<(), CopyGone> {
        // Read by the kernel at one place of this process, written by it at the other.
        if read(target.vector(len), self.vector(len)).is_ok() {
            return Ok(());
        }
        // Whose fault it was is found by reading the source alone.
        let mut page = [0; 4096];
        for offset in (0..len).step_by(page.len()) {
            let piece = page.len().min(len - offset);
            let place = self.mapping.place((self.offset + offset) as u64);
            place.read(&mut page[..piece]).map_err(|Gone| CopyGone::Source)?;
        }
        Err(CopyGone::Target)
    }

    /// `len` bytes from here, or as many as there are, as the kernel wants to be told.
    fn vector(self, len: usize) -> libc::iovec {
        let base = self.mapping.base.wrapping_add(self.offset);
        vector(base, len.min(self.mapping.len - self.offset))
    }

    /// The words from here, if they may be accessed directly.
    fn steady_words(self, count: usize) -> Option<*mut u64> {
        let room = (self.mapping.len - self.offset) / 8;
        // The mapping begins at a page, so an aligned offset is an aligned address.
        let direct = self.mapping.facts.steady && self.offset.is_multiple_of(8) && count <= room;
        direct.then(|| self.mapping.base.wrapping_add(self.offset).cast())
    }
}

const fn vector(base: *mut u8, len: usize) -> libc::iovec {
    libc::iovec { iov_base: base.cast(), iov_len: len }
}

/// Has the kernel copy from `remote`, in a mapping, to `local`, in a mapping or a buffer.
fn read(local: libc::iovec, remote: libc::iovec) -> Result<(), Gone> {
    let len = local.iov_len;
    // SAFETY: the callers, all in this file, give vectors that are within a mapping or a buffer that
    // they borrow, `local` mutably; both live meanwhile, and no Rust reference refers to a mapping.
    let read = unsafe { libc::process_vm_readv(libc::getpid(), &local, 1, &remote, 1, 0) };
    if remote.iov_len == len && whole(read, len) { Ok(()) } else { Err(Gone) }
}

/// Whether the kernel has copied all of `len` bytes.
fn whole(copied: isize, len: usize) -> bool {
    usize::try_from(copied) == Ok(len)
}

/// Tries out whether the kernel copies for us: a container's rules may forbid it.
pub(super) fn can_copy() -> io::Result<()> {
    let (source, mut target) = ([1_u8; 8], [0_u8; 8]);
    let remote = vector(source.as_ptr().cast_mut(), source.len());
    match read(vector(target.as_mut_ptr(), target.len()), remote) {
        Ok(()) => Ok(()),
        Err(Gone) => Err(io::Error::last_os_error()),
    }
}
