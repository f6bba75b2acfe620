//! Memory that every engine can be given once: one shared mapping, parts of it lent out.

#[cfg_attr(miri, path = "arena/allocation.rs")]
mod mapping;

#[cfg(not(miri))]
use std::os::fd::BorrowedFd;
use std::{
    fmt, io,
    ptr::NonNull,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use self::mapping::Mapping;
use super::{Coherent, DmaBuf, extents::FreeExtents};
use crate::fork::Owner;

/// The unit of address translation without huge pages, in bytes.
const PAGE: usize = 4096;
/// The size of a huge page (with pages of 4 KiB), in bytes.
const HUGE_PAGE: usize = 2 << 20;
/// No two blocks share a cache line: an engine's write must not touch a neighbour's line.
const CACHE_LINE: usize = 64;

/// Why there is no arena.
#[derive(Debug, thiserror::Error)]
pub enum ArenaError {
    /// A length of zero, or one that no address space holds.
    #[error("an arena of {len} bytes is not possible: ask for 1 byte up to what memory there is")]
    Length {
        /// The length asked for, in bytes.
        len: usize,
    },
    /// Memory that is not made of whole pages.
    #[error("{len} bytes at {address:#x} are not whole pages: align both to {PAGE}")]
    Pages {
        /// Where it begins.
        address: usize,
        /// Its length in bytes.
        len: usize,
    },
    /// `memfd_create`, or setting the file's length, failed.
    #[error("cannot create the memory file ({0}): raise the limit on open files or on memory")]
    File(#[source] io::Error),
    /// `mmap` or `madvise` failed.
    #[error("cannot map the memory ({0}): raise the limit on address space (ulimit -v)")]
    Map(#[source] io::Error),
    /// The pages could not be allocated.
    #[error("cannot allocate the pages ({0}): ask for less, or raise the memory limit")]
    Populate(#[source] io::Error),
}

/// No free part of an arena is long enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the arena has no {len} bytes in one piece (the longest is {largest}): free some buffers, or \
     make a larger arena"
)]
pub struct ArenaFull {
    /// The length asked for, in bytes.
    pub len: usize,
    /// The longest free piece, in bytes.
    pub largest: usize,
}

/// A region of memory for packets, application buffers and descriptor rings, which is
/// [mapped](crate::DmaDevice::map) for an engine once, as a whole.
///
/// It is a shared mapping of a memory file, on huge pages if the system has some reserved. Its
/// pages are allocated when it is made, so neither an engine nor a thread faults on them later.
/// It is **not inherited by forked children** (`MADV_DONTFORK`): a copy-on-write fault under a
/// running DMA is how Linux's `NET_DMA` lost data, and a child that touches the memory is killed
/// instead. A child can drop what it inherited, and gets nothing more out of it.
///
/// Cloning makes another handle. The memory is unmapped when the last handle, buffer and pool in it
/// is gone.
///
/// ```
/// let arena = dmaengine::Arena::new(1 << 20)?;
/// let mut buffer = arena.alloc(10_000)?;
/// buffer[..5].copy_from_slice(b"hello");
/// assert!(arena.contains(buffer.as_ptr(), buffer.len()));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Arena {
    region: Arc<Region>,
}

/// The memory, and which parts of it are free.
struct Region {
    memory: Memory,
    free: Mutex<FreeExtents>,
    /// Who has the mapping: not a forked child.
    owner: Owner,
}

enum Memory {
    /// Unmapped with the region.
    Own(Mapping),
    /// Somebody else's, until the process ends.
    Permanent(NonNull<[u8]>),
}

// SAFETY: the memory is the process's, and nothing here accesses its bytes.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    const fn base(&self) -> NonNull<u8> {
        match self {
            Self::Own(mapping) => mapping.base(),
            Self::Permanent(memory) => memory.cast(),
        }
    }

    const fn len(&self) -> usize {
        match self {
            Self::Own(mapping) => mapping.len(),
            Self::Permanent(memory) => memory.len(),
        }
    }
}

impl Arena {
    /// Makes an arena of at least `len` bytes, all zero. The length is rounded up to whole pages.
    ///
    /// # Errors
    ///
    /// See [`ArenaError`].
    pub fn new(len: usize) -> Result<Self, ArenaError> {
        // Half the address space is the most that one object may have in Rust.
        if len == 0 || len > isize::MAX as usize - HUGE_PAGE {
            return Err(ArenaError::Length { len });
        }
        if len >= HUGE_PAGE {
            // The usual refusal is that no huge pages are reserved. Whatever it is, normal pages
            // serve as well, and an error that remains shows there.
            if let Ok(arena) = Self::with_pages(len.next_multiple_of(HUGE_PAGE), true) {
                return Ok(arena);
            }
        }
        Self::with_pages(len.next_multiple_of(PAGE), false)
    }

    fn with_pages(len: usize, huge_pages: bool) -> Result<Self, ArenaError> {
        let mapping = Mapping::new(len, huge_pages)?;
        let (free, owner) = (Mutex::new(FreeExtents::new(len)), Owner::current());
        Ok(Self { region: Arc::new(Region { memory: Memory::Own(mapping), free, owner }) })
    }

    /// An arena over memory of the program's own, which engines can then be given like any other:
    /// a static, or a mapping that is never taken back. Nothing can be [allocated](Self::alloc) from
    /// it; that its bytes may be a target is between the program and the engine, as always.
    ///
    /// It is the only memory of a program's own that an engine with IOVAs can be given. Why that is
    /// so, and other memory is copied to by the CPU, is told by [`reach`](crate::reach).
    ///
    /// # Errors
    ///
    /// [`ArenaError::Length`] if it is empty, [`ArenaError::Pages`] if it is not made of whole pages
    /// of 4 KiB.
    ///
    /// # Safety
    ///
    /// The memory is mapped, readable and writable, and its pages stay the ones that they are as long
    /// as the process exists. So nobody calls `munmap`, `mremap`, or `mmap` over it, nor `madvise`
    /// with `MADV_DONTNEED`, `MADV_FREE` or `MADV_REMOVE`; and if it is a file's, nobody truncates
    /// the file or punches holes in it.
    pub unsafe fn permanent(memory: NonNull<[u8]>) -> Result<Self, ArenaError> {
        let len = memory.len();
        if len == 0 {
            return Err(ArenaError::Length { len });
        }
        let address = memory.addr().get();
        if !address.is_multiple_of(PAGE) || !len.is_multiple_of(PAGE) {
            return Err(ArenaError::Pages { address, len });
        }
        let (memory, free) = (Memory::Permanent(memory), Mutex::new(FreeExtents::default()));
        Ok(Self { region: Arc::new(Region { memory, free, owner: Owner::current() }) })
    }

    /// The address of the first byte: a multiple of the page size.
    #[must_use]
    pub fn base(&self) -> *const u8 {
        self.region.memory.base().as_ptr()
    }

    /// The length in bytes.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "an arena is never empty")]
    pub fn len(&self) -> usize {
        self.region.memory.len()
    }

    /// Whether it lies on reserved huge pages (hugetlbfs). Transparent ones are not counted.
    #[must_use]
    pub fn huge_pages(&self) -> bool {
        matches!(&self.region.memory, Memory::Own(mapping) if mapping.huge_pages())
    }

    /// Whether forked children have a copy of the memory, or share it: that of a
    /// [heap](crate::Heap), or other [permanent](Self::permanent) memory. For an engine that pins it
    /// that takes a kernel which leaves pinned pages with the parent.
    #[must_use]
    pub fn is_inherited(&self) -> bool {
        matches!(self.region.memory, Memory::Permanent(_))
    }

    /// Whether `len` bytes from `address` on all lie in this arena.
    #[must_use]
    pub fn contains(&self, address: *const u8, len: usize) -> bool {
        address
            .addr()
            .checked_sub(self.base().addr())
            .and_then(|offset| offset.checked_add(len))
            .is_some_and(|end| end <= self.len())
    }

    /// The memory file, for a device in another process (vfio-user). Offset 0 is [`base`](Self::base).
    /// `None` for [permanent](Self::permanent) memory.
    ///
    /// # Safety
    ///
    /// Whoever writes through it acts as an engine: only to targets of operations in flight and to
    /// [`Coherent`] memory.
    #[must_use]
    #[cfg(not(miri))]
    pub unsafe fn memfd(&self) -> Option<BorrowedFd<'_>> {
        match &self.region.memory {
            Memory::Own(mapping) => Some(mapping.file()),
            Memory::Permanent(_) => None,
        }
    }

    /// Takes a buffer of `len` bytes out of the arena. It starts at a cache line, from 4 KiB up at a
    /// page. What it contains is left over from its last user.
    ///
    /// # Errors
    ///
    /// [`ArenaFull`] if there is no free piece that long.
    pub fn alloc(&self, len: usize) -> Result<DmaBuf, ArenaFull> {
        self.block(len).map(|block| DmaBuf::new(block, len))
    }

    /// Takes zeroed memory that the CPU and a device access at the same time: a descriptor ring or
    /// a completion word. It starts at a multiple of `align` and shares no cache line.
    ///
    /// # Errors
    ///
    /// [`ArenaFull`] if there is no free piece that long.
    ///
    /// # Panics
    ///
    /// If `align` is not a power of two up to 4096.
    pub fn alloc_coherent(&self, len: usize, align: usize) -> Result<Coherent, ArenaFull> {
        assert!(
            align.is_power_of_two() && align <= PAGE,
            "the alignment {align} is not a power of two up to {PAGE}"
        );
        self.block_aligned(len, align.max(CACHE_LINE)).map(|block| Coherent::new(block, len))
    }

    /// A block for `len` bytes, aligned as [`alloc`](Self::alloc) says.
    pub(super) fn block(&self, len: usize) -> Result<Block, ArenaFull> {
        self.block_aligned(len, if len >= PAGE { PAGE } else { CACHE_LINE })
    }

    fn block_aligned(&self, len: usize, align: usize) -> Result<Block, ArenaFull> {
        let Some(mut free) = self.region.free() else {
            return Err(ArenaFull { len, largest: 0 });
        };
        len.max(1)
            .checked_next_multiple_of(align)
            // The base is page-aligned, so an aligned offset is an aligned address.
            .and_then(|size| Some((free.allocate(size, align)?, size)))
            .map(|(offset, size)| Block { region: Arc::clone(&self.region), offset, size })
            .ok_or_else(|| ArenaFull { len, largest: free.largest() })
    }
}

impl fmt::Debug for Arena {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arena")
            .field("base", &self.base())
            .field("len", &self.len())
            .field("huge_pages", &self.huge_pages())
            .finish()
    }
}

impl Region {
    /// The free list; `None` in a forked child, where a thread that does not exist may hold the lock.
    fn free(&self) -> Option<MutexGuard<'_, FreeExtents>> {
        // The list is only changed by code that does not panic half-way.
        self.owner.is_here().then(|| self.free.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        if !self.owner.is_here() {
            // A child has nothing there, or by now something else.
            return;
        }
        if let Memory::Own(mapping) = &mut self.memory {
            // SAFETY: this is the owner's only `drop`. Every block holds an `Arc` of this, so no
            // pointer into the mapping is left.
            unsafe { mapping.unmap() };
        }
    }
}

/// A part of an arena that belongs to one owner, until it is dropped. Access is up to that owner.
pub(super) struct Block {
    region: Arc<Region>,
    offset: usize,
    size: usize,
}

impl Block {
    /// The first byte. The block's bytes are initialised (the kernel zeroes the mapping).
    pub(super) fn pointer(&self) -> NonNull<u8> {
        // SAFETY: the offset was allocated within the mapping.
        unsafe { self.region.memory.base().add(self.offset) }
    }

    /// The length in bytes, at least what was asked for.
    pub(super) const fn size(&self) -> usize {
        self.size
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        if let Some(mut free) = self.region.free() {
            free.release(self.offset, self.size);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aligned_zeroed_and_disjoint() {
        let arena = Arena::new(1 << 20).unwrap();
        let mut small = arena.alloc(100).unwrap();
        let mut next = arena.alloc(100).unwrap();
        let page = arena.alloc(PAGE).unwrap();
        assert!(small.iter().all(|&byte| byte == 0));
        assert_eq!(small.as_ptr().addr() % CACHE_LINE, 0);
        assert_eq!(page.as_ptr().addr() % PAGE, 0);
        assert_eq!(small.len(), 100);
        small.fill(1);
        next.fill(2);
        assert!(small.iter().all(|&byte| byte == 1));
        for buffer in [&small, &next, &page] {
            assert!(arena.contains(buffer.as_ptr(), buffer.len()));
        }
        assert!(!arena.contains(arena.base(), arena.len() + 1));
        assert!(!arena.contains(arena.base().wrapping_sub(1), 1));
        assert!(!arena.contains(arena.base(), usize::MAX));
    }

    #[test]
    fn full_then_freed() {
        let arena = Arena::new(4 * PAGE).unwrap();
        let all: Vec<_> = (0..4).map(|_| arena.alloc(PAGE).unwrap()).collect();
        assert_eq!(arena.alloc(1).unwrap_err(), ArenaFull { len: 1, largest: 0 });
        drop(all);
        assert_eq!(arena.alloc(4 * PAGE).unwrap().len(), 4 * PAGE);
        assert!(arena.alloc(usize::MAX).is_err());
    }

    #[test]
    fn memory_outlives_the_handle() {
        let mut buffer = Arena::new(PAGE).unwrap().alloc(64).unwrap();
        buffer.fill(3);
        assert!(buffer.iter().all(|&byte| byte == 3));
    }

    #[test]
    fn permanent_memory_is_whole_pages_and_has_nothing_to_give() {
        #[repr(align(4096))]
        struct Pages([u8; 2 * PAGE]);
        static PAGES: Pages = Pages([0; 2 * PAGE]);

        let part = |from: usize, len| {
            let start = NonNull::from(&PAGES.0[from]);
            // SAFETY: a static stays, and no engine gets to know this one.
            unsafe { Arena::permanent(NonNull::slice_from_raw_parts(start, len)) }
        };
        let arena = part(0, 2 * PAGE).unwrap();
        assert!(arena.contains(PAGES.0.as_ptr(), 2 * PAGE) && arena.is_inherited());
        assert!(!arena.huge_pages());
        assert_eq!(arena.alloc(1).unwrap_err(), ArenaFull { len: 1, largest: 0 });
        for (from, len) in [(0, 100), (100, PAGE)] {
            assert!(matches!(part(from, len), Err(ArenaError::Pages { .. })));
        }
        assert!(matches!(part(0, 0), Err(ArenaError::Length { len: 0 })));
        assert!(!Arena::new(PAGE).unwrap().is_inherited());
        drop(arena);
        assert_eq!(PAGES.0[PAGE], 0, "it is still there");
    }

    #[test]
    fn impossible_lengths_are_refused() {
        for len in [0, usize::MAX, isize::MAX as usize] {
            assert!(matches!(Arena::new(len), Err(ArenaError::Length { .. })));
        }
        assert!(Arena::new(1 << 60).is_err(), "more than an address space");
    }

    #[test]
    #[cfg(not(miri))]
    fn the_file_is_the_memory_and_cannot_shrink() {
        let arena = Arena::new(2 * PAGE).unwrap();
        let mut buffer = arena.alloc(16).unwrap();
        buffer.copy_from_slice(b"0123456789abcdef");
        // SAFETY: the file is only read.
        let file = unsafe { arena.memfd() }.unwrap();
        let mut read = [0u8; 16];
        rustix::io::pread(file, &mut read, (buffer.as_ptr().addr() - arena.base().addr()) as u64)
            .unwrap();
        assert_eq!(&read, b"0123456789abcdef");
        assert!(rustix::fs::ftruncate(file, 0).is_err());
    }

    #[test]
    #[cfg_attr(miri, ignore = "no mappings")]
    fn children_do_not_inherit_it_and_its_pages_are_there() {
        let arena = Arena::new(3 * PAGE).unwrap();
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        // Neighbouring arenas of other tests are mappings of other files, so never merged with it.
        let start = format!("{:x}-", arena.base().addr());
        let mapping = smaps.lines().skip_while(|line| !line.starts_with(&start));
        let field = |name: &str| {
            let line = mapping.clone().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_else(|| panic!("no {name} in smaps")).split_whitespace()
        };
        assert!(field("VmFlags:").any(|flag| flag == "dc"), "copied on fork");
        if !arena.huge_pages() {
            assert_eq!(field("Rss:").next(), field("Size:").next(), "pages are missing");
        }
    }
}
