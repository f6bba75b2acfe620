//! A global allocator whose large blocks engines can reach.

mod blocks;
#[cfg(all(test, loom))]
mod model;
mod pages;
mod space;

/// What the bitmap is built of.
mod sync {
    pub(super) use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
}

use std::{
    alloc::{GlobalAlloc, Layout, System},
    io,
    ptr::{self, NonNull},
    sync::atomic::{AtomicPtr, AtomicU64, Ordering},
};

use self::space::Space;
use super::{Arena, ArenaError};

/// The system's allocator for small blocks, and for large ones an arena that engines with IOVAs can
/// be given once: ordinary buffers are then reachable, and nothing is pinned per call.
///
/// ```
/// use dmaengine::{DmaDevice, Heap, ThreadsDevice};
///
/// #[global_allocator]
/// static HEAP: Heap = Heap::new();
///
/// // Any engine; one that takes process addresses needs no mapping.
/// let device = ThreadsDevice::new(1);
/// let arena = HEAP.arena()?;
/// device.map(&arena)?;
/// let buffer = vec![0u8; 65536];
/// assert!(arena.contains(buffer.as_ptr(), buffer.len()));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # What is large
///
/// Blocks of [`LARGE`](Self::LARGE) bytes up to a quarter of the heap's capacity. `LARGE` is 4 KiB:
/// shorter reads are the CPU's anyway, as the copybreak is 4 KiB at first and no engine that was
/// measured pays below it; and the buffers that programs do have, 8 KiB in a `BufReader`, 16 KiB of a
/// TLS record, 64 KiB and more elsewhere, lie above. The upper end keeps one table or file from using
/// up what is there for buffers; for those the system's allocator has `mremap`. Blocks that find no
/// room come from the system's allocator too: the CPU then copies to them, which is counted as not
/// reachable, and here as [`overflowed`](Self::overflowed).
///
/// The capacity does not grow. To be reachable, memory is mapped for an engine, which a driver does
/// under locks and with allocations, and that is nothing that an allocator could wait for; and what
/// is mapped over VFIO is locked memory, of which somebody must say how much there may be.
/// Without such an engine only pages that were touched cost anything.
///
/// # What is done to its memory, and what never is
///
/// A page that an engine with IOVAs can reach is *pinned*: the IOMMU has its physical address, and
/// goes on having it whatever becomes of the mapping. So the heap gives no page back to the system,
/// not by `munmap`, nor `madvise(MADV_DONTNEED)`, nor `MADV_FREE`: the next page at that address would
/// be another than the one that the engine writes. For the same reason a program must not do so to a
/// block of its heap. (It may not in any case: the block is the allocator's.)
///
/// # Forked children
///
/// A child has a copy of the heap, as POSIX promises, so this memory cannot be kept out of children
/// as that of other [`Arena`]s is. It is private and written to after the fork by both, and that is
/// the case in which Linux's `NET_DMA` lost data: the parent wrote first, got a new page for it, and
/// the engine went on writing the old one, by now the child's alone. What stands against that:
///
/// * **Engines of process addresses** (`threads`, the model, hardware with shared virtual memory)
///   write through the page tables, as any thread of the parent does. The fault that copies the page
///   is theirs as much as the CPU's: no write goes to a page that is not mapped there any more.
/// * **Engines with IOVAs** hold pins. `fork` on Linux 5.10 and newer does not share a pinned page
///   (`page_maybe_dma_pinned`): the *child* gets a copy at once, and the parent keeps the page that
///   the engine writes, writable. A huge page is split for it. So neither misses a byte that the
///   engine has written or will, and the child sees none of those to come. VFIO pins the whole heap
///   for as long as it is mapped, so there is no moment between. (Older kernels shared such pages:
///   a driver of hardware refuses the heap there, by [`Arena::is_inherited`].)
/// * **The child** can go on allocating, whatever the parent's other threads were doing at the time
///   (no lock, see below), and its memory is no engine's: pins stay with the parent. It can map its
///   copy of the heap for an engine of its own, as a daemon does that forks before it begins.
///
/// What a child finds in a buffer that a receive call of *another thread* was filling when it was
/// forked, nobody promises, nor does `read(2)`.
///
/// The tests do this with pages that are truly pinned (by `io_uring`), on any machine.
///
/// # How it allocates
///
/// A bitmap has a bit for each kibibyte, or more where the capacity is large. A block is the first
/// run of free bits that is long enough; it is claimed and released with atomic operations alone:
/// both together take 30 to 50 ns for blocks up to 256 KiB, beside 500 others, where the C library's
/// take 15 to 55 (Linux 6.18 in a virtual machine, glibc 2.36). No lock, no allocation, no thread-local variable: so it works before `main`, in any thread, in a
/// signal handler, and in a child that was forked at any moment. The memory is reserved by the first
/// large block.
#[derive(Debug)]
pub struct Heap {
    capacity: usize,
    /// Null until the first large block; [`NONE`] if the system did not give it.
    space: AtomicPtr<Space>,
    overflowed: AtomicU64,
}

/// Where a [`Space`] is when there is none.
const NONE: *mut Space = ptr::dangling_mut();

impl Heap {
    /// The length from which on blocks are large, in bytes.
    pub const LARGE: usize = 4096;

    /// The capacity of [`new`](Self::new), in bytes: room for a thousand buffers of 64 KiB.
    pub const DEFAULT_CAPACITY: usize = 64 << 20;

    /// A heap with [room](Self::DEFAULT_CAPACITY) for 64 MiB of large blocks.
    #[must_use]
    pub const fn new() -> Self {
        Self::with_capacity(Self::DEFAULT_CAPACITY)
    }

    /// A heap with room for `capacity` bytes of large blocks, rounded up to 2 MiB. With 0 all blocks
    /// are the system allocator's.
    #[must_use]
    pub const fn with_capacity(capacity: usize) -> Self {
        let space = AtomicPtr::new(ptr::null_mut());
        Self { capacity, space, overflowed: AtomicU64::new(0) }
    }

    /// All that large blocks come from, to be [mapped](crate::DmaDevice::map) for engines. It is
    /// memory of the heap: [`Arena::alloc`] has none to give.
    ///
    /// # Errors
    ///
    /// [`ArenaError::Map`] if the system did not give the memory, [`ArenaError::Length`] if the
    /// capacity is 0.
    pub fn arena(&'static self) -> Result<Arena, ArenaError> {
        if self.capacity == 0 {
            return Err(ArenaError::Length { len: 0 });
        }
        let space = self.space_or_reserve();
        let space = space.ok_or_else(|| ArenaError::Map(io::ErrorKind::OutOfMemory.into()))?;
        // SAFETY: whole pages, which nobody unmaps or gives back: the heap does not, and a program
        // would break the promises of its allocator.
        unsafe { Arena::permanent(space.memory()) }
    }

    /// The bytes of large blocks that are in use at this moment, with what they are rounded up by.
    #[must_use]
    pub fn used(&self) -> usize {
        self.space().map_or(0, Space::used)
    }

    /// How many blocks were large, not too large, and found no room: engines with IOVAs cannot reach
    /// them. If it grows, so should the capacity.
    #[must_use]
    pub fn overflowed(&self) -> u64 {
        // Relaxed, here and where it is counted: it orders nothing.
        self.overflowed.load(Ordering::Relaxed)
    }

    /// Whether such a block is to come from the arena.
    #[inline]
    const fn is_large(&self, size: usize, align: usize) -> bool {
        size >= Self::LARGE && size <= self.capacity / 4 && align <= pages::ALIGN
    }

    /// The arena, if there is one yet.
    #[inline]
    fn space(&self) -> Option<&'static Space> {
        // Acquire: pairs with the release below; it is set up.
        let space = self.space.load(Ordering::Acquire);
        if space == NONE {
            return None;
        }
        // SAFETY: null, or one that was published: it is never freed, and only ever shared.
        unsafe { space.as_ref() }
    }

    #[cold]
    fn space_or_reserve(&self) -> Option<&'static Space> {
        // Relaxed: `space` looks again.
        if self.space.load(Ordering::Relaxed).is_null() {
            let new = Space::reserve(self.capacity);
            let place = new.map_or(NONE, NonNull::as_ptr);
            // Release: it is set up. Relaxed: `space` acquires another thread's, if that came first.
            let put = self.space.compare_exchange(
                ptr::null_mut(),
                place,
                Ordering::Release,
                Ordering::Relaxed,
            );
            if let (Err(_), Some(new)) = (put, new) {
                // SAFETY: nobody else has seen this one.
                unsafe { Space::release(new) };
            }
        }
        self.space()
    }

    /// A block of the arena; `None` if it has no room. With `zeroed` its bytes are zero.
    fn take(&self, layout: Layout, zeroed: bool) -> Option<NonNull<u8>> {
        let space = self.space().or_else(|| self.space_or_reserve());
        let block = space.and_then(|space| space.take(layout, zeroed));
        if block.is_none() {
            self.overflowed.fetch_add(1, Ordering::Relaxed);
        }
        block
    }

    /// The arena, if the block at `pointer`, of `size` bytes, came from there.
    #[inline]
    fn space_of(&self, pointer: *mut u8, size: usize) -> Option<&'static Space> {
        // Those of the arena are large, so small ones cost no more than this.
        if size < Self::LARGE {
            return None;
        }
        self.space().filter(|space| space.contains(pointer))
    }
}

impl Default for Heap {
    fn default() -> Self {
        Self::new()
    }
}

// SAFETY:
// - a block is either the system allocator's, with the same layout, or a run of units of the arena
//   that `Blocks` gave to nobody else, at least as long and as aligned as asked for;
// - which of them it is follows from its length and address, so it goes back where it came from. All
//   blocks in the arena have layouts of at least `LARGE`: `realloc` moves those that shrink below.
// - nothing here unwinds: arithmetic is checked where a layout could make it overflow.
unsafe impl GlobalAlloc for Heap {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if self.is_large(layout.size(), layout.align())
            && let Some(block) = self.take(layout, false)
        {
            return block.as_ptr();
        }
        // SAFETY: by the caller's promise.
        unsafe { System.alloc(layout) }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if self.is_large(layout.size(), layout.align())
            && let Some(block) = self.take(layout, true)
        {
            return block.as_ptr();
        }
        // SAFETY: by the caller's promise.
        unsafe { System.alloc_zeroed(layout) }
    }

    #[inline]
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        match self.space_of(pointer, layout.size()) {
            // SAFETY: it came from there, and is used no more, by the caller's promise.
            Some(space) => unsafe { space.give_back(pointer, layout.size()) },
            // SAFETY: it came from there, by the caller's promise.
            None => unsafe { System.dealloc(pointer, layout) },
        }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let space = self.space_of(pointer, layout.size());
        let belongs = self.is_large(size, layout.align());
        match space {
            // SAFETY: it came from there with this layout, by the caller's promise.
            Some(space) if belongs && unsafe { space.resize(pointer, layout.size(), size) } => {
                return pointer;
            }
            // One that is large already and found no room stays where it is.
            None if !belongs || layout.size() >= Self::LARGE => {
                // SAFETY: it came from there, by the caller's promise.
                return unsafe { System.realloc(pointer, layout, size) };
            }
            _ => {}
        }
        // SAFETY: the caller promises that the size, rounded up to the alignment, is no more than
        // `isize::MAX`; it is not 0.
        let new = unsafe { self.alloc(Layout::from_size_align_unchecked(size, layout.align())) };
        if !new.is_null() {
            // SAFETY: the old block has `layout.size()` bytes, the new one `size`, and they are two.
            // Bytes that were never written are copied as such: as `MaybeUninit`.
            unsafe {
                new.copy_from_nonoverlapping(pointer, size.min(layout.size()));
                self.dealloc(pointer, layout);
            }
        }
        new
    }
}

#[cfg(test)]
mod tests;
