//! A heap's memory: private, inherited by forked children, there until the process ends.

use std::ptr::NonNull;

/// Memory starts at a multiple of this, the size of a huge page (with pages of 4 KiB), in bytes.
pub(super) const ALIGN: usize = 2 << 20;

/// `len` bytes, zero, at a multiple of [`ALIGN`], which a page is allocated for when it is first
/// touched: a huge one, if they are wanted and there are any. Neither this nor what it calls allocates.
#[cfg(not(miri))]
pub(super) fn reserve(len: usize, huge_pages: bool) -> Option<NonNull<u8>> {
    use rustix::mm::{Advice, MapFlags, ProtFlags};

    let all = len.checked_add(ALIGN)?;
    // SAFETY: a fresh mapping at an address of the kernel's choice changes no existing memory.
    let start = unsafe {
        rustix::mm::mmap_anonymous(
            std::ptr::null_mut(),
            all,
            ProtFlags::READ | ProtFlags::WRITE,
            MapFlags::PRIVATE | MapFlags::NORESERVE,
        )
    }
    .ok()?
    .cast::<u8>();
    let before = start.align_offset(ALIGN);
    let base = start.wrapping_add(before);
    // The parts before and behind go back.
    unmap(start, before);
    unmap(base.wrapping_add(len), ALIGN - before);
    if huge_pages {
        // SAFETY: our own mapping; the advice changes nothing of what it holds. Transparent huge pages
        // may be configured out: they are a wish.
        let _ = unsafe { rustix::mm::madvise(base.cast(), len, Advice::LinuxHugepage) };
    }
    NonNull::new(base)
}

/// Gives back what [`reserve`] returned, or a part of it, that nobody has the address of.
#[cfg(not(miri))]
pub(super) fn unmap(start: *mut u8, len: usize) {
    if len > 0 {
        // SAFETY: our own mapping; nobody has its address.
        let unmapped = unsafe { rustix::mm::munmap(start.cast(), len) };
        debug_assert_eq!(unmapped, Ok(()), "munmap of our own mapping");
    }
}

/// The same from the system's allocator: Miri has no mappings.
#[cfg(miri)]
pub(super) fn reserve(len: usize, _huge_pages: bool) -> Option<NonNull<u8>> {
    use std::alloc::{GlobalAlloc, Layout, System};

    let layout = Layout::from_size_align(len, ALIGN).ok().filter(|layout| layout.size() > 0)?;
    // SAFETY: the length is not 0.
    NonNull::new(unsafe { System.alloc_zeroed(layout) })
}

/// As above.
#[cfg(miri)]
pub(super) fn unmap(start: *mut u8, len: usize) {
    use std::alloc::{GlobalAlloc, Layout, System};

    let layout = Layout::from_size_align(len, ALIGN).expect("it was reserved with this");
    // SAFETY: reserved with this layout, and nobody has its address.
    unsafe { System.dealloc(start, layout) };
}
