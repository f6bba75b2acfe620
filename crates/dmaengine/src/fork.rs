//! Which process a value belongs to.
//!
//! A forked child has a copy of every channel, but neither the threads nor the device behind it: the
//! copy must not ring a doorbell that is the parent's, join a thread that does not exist, or wait for
//! a lock that nobody will release. So a value that stands for something outside its memory
//! remembers the *generation* of the process that made it.
//!
//! The generation is kept in a page that the kernel wipes in each child (`MADV_WIPEONFORK`, Linux
//! 4.14): every way to make one is covered, also `clone` without the C library, and to ask costs
//! one load. A child that makes channels of its own gives itself the next generation.

use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use rustix::mm::{Advice, MapFlags, ProtFlags};

#[cfg(any(test, feature = "testkit"))]
pub(crate) mod child;

/// The length of the wiped mapping: one page, or the kernel rounds up.
const LEN: usize = 4096;

/// Where the generation of this process is; null until somebody asks.
static WORD: AtomicPtr<AtomicU64> = AtomicPtr::new(std::ptr::null_mut());

/// The generation, where the kernel cannot wipe: the C library's `fork` calls [`wipe`] then.
static FALLBACK: AtomicU64 = AtomicU64::new(0);

/// The last generation that this process or an ancestor gave itself. A child inherits it.
static LAST: AtomicU64 = AtomicU64::new(0);

/// The process that made something.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Owner {
    /// The generation of the process that runs; 0 in a child that has none yet.
    word: &'static AtomicU64,
    generation: u64,
}

impl Owner {
    /// The process that runs.
    pub(crate) fn current() -> Self {
        let word = word();
        Self { word, generation: generation(word) }
    }

    /// Whether the process that runs is the owner, and not a forked child of it.
    #[inline]
    pub(crate) fn is_here(&self) -> bool {
        // Relaxed: nothing is published with it. A thread that has an `Owner` has seen its
        // generation, and a child begins with the zero.
        self.word.load(Ordering::Relaxed) == self.generation
    }
}

fn generation(word: &AtomicU64) -> u64 {
    // Relaxed, all: the number itself is all that is told.
    let generation = word.load(Ordering::Relaxed);
    if generation != 0 {
        return generation;
    }
    let next = LAST.fetch_add(1, Ordering::Relaxed) + 1;
    match word.compare_exchange(0, next, Ordering::Relaxed, Ordering::Relaxed) {
        Ok(_) => next,
        Err(other) => other,
    }
}

/// The place of the generation. Not a `OnceLock`: a child could wait in it for a thread that stayed
/// with its parent.
fn word() -> &'static AtomicU64 {
    // Acquire: pairs with the release below; the mapping is set up.
    let mut place = WORD.load(Ordering::Acquire);
    if place.is_null() {
        let new = wiped_page().unwrap_or_else(wiped_by_the_c_library);
        // Release: the mapping is set up. Acquire: so is another's, if it came first; one of the
        // two is then left over, a page for the life of the process.
        let put =
            WORD.compare_exchange(std::ptr::null_mut(), new, Ordering::AcqRel, Ordering::Acquire);
        place = put.map_or_else(|first| first, |_| new);
    }
    // SAFETY: an aligned word of a page that is never unmapped, or a static; and only ever accessed
    // as an atomic (the kernel's wipe is before all that a child does).
    unsafe { &*place }
}

/// A page that is zero in each forked child; `None` where the kernel has none.
fn wiped_page() -> Option<*mut AtomicU64> {
    if cfg!(miri) {
        return None;
    }
    // SAFETY: a fresh mapping at an address of the kernel's choice changes no existing memory.
    let page = unsafe {
        rustix::mm::mmap_anonymous(
            std::ptr::null_mut(),
            LEN,
            ProtFlags::READ | ProtFlags::WRITE,
            MapFlags::PRIVATE,
        )
    }
    .ok()?;
    // SAFETY: our own mapping, which holds nothing yet.
    if unsafe { rustix::mm::madvise(page, LEN, Advice::LinuxWipeOnFork) }.is_ok() {
        return Some(page.cast());
    }
    // SAFETY: our own mapping; nobody has its address.
    let unmapped = unsafe { rustix::mm::munmap(page, LEN) };
    debug_assert_eq!(unmapped, Ok(()), "munmap of our own mapping");
    None
}

/// [`FALLBACK`], made zero in children that the C library forks.
fn wiped_by_the_c_library() -> *mut AtomicU64 {
    // Miri has no processes to fork.
    if !cfg!(miri) {
        // SAFETY: the handler does what a signal handler may: one store. It can only fail for want
        // of memory; then forked children are not recognised, as before anybody asked.
        unsafe { libc::pthread_atfork(None, None, Some(wipe)) };
    }
    (&raw const FALLBACK).cast_mut()
}

unsafe extern "C" fn wipe() {
    // Relaxed: the child has one thread.
    FALLBACK.store(0, Ordering::Relaxed);
}

#[cfg(all(test, not(miri)))]
mod tests {
    use super::{child::in_child, *};

    #[test]
    fn a_child_is_not_its_parent_and_a_grandchild_is_neither() {
        let parent = Owner::current();
        assert!(parent.is_here() && Owner::current().is_here());
        assert!(in_child(|| {
            let before = parent.is_here();
            let child = Owner::current();
            let grandchild = in_child(|| {
                let own = Owner::current();
                !parent.is_here() && !child.is_here() && own.is_here()
            });
            !before && child.is_here() && !parent.is_here() && grandchild
        }));
        assert!(parent.is_here(), "the child has its own page");
    }

    #[test]
    fn the_c_librarys_fork_wipes_as_well() {
        let place = wiped_by_the_c_library();
        // SAFETY: the static.
        let word: &'static AtomicU64 = unsafe { &*place };
        let parent = Owner { word, generation: generation(word) };
        assert!(parent.is_here());
        assert!(in_child(|| !parent.is_here()));
        assert!(parent.is_here());
    }
}
