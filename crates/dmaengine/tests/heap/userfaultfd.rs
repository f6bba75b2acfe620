//! Why a userfaultfd cannot keep a cache of registrations right.

use std::{
    os::fd::{AsRawFd, OwnedFd},
    ptr,
    sync::atomic::{AtomicBool, Ordering},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec},
    mm::{MapFlags, ProtFlags, UserfaultfdFlags},
};

use super::{LONG, pinned::is_there};

const PAGE: usize = 4096;

// From `linux/userfaultfd.h`.
const UFFD_USER_MODE_ONLY: u32 = 1;
const UFFD_API: u64 = 0xaa;
const UFFD_FEATURE_EVENT_UNMAP: u64 = 1 << 6;
const UFFDIO_REGISTER_MODE_MISSING: u64 = 1;
const UFFD_EVENT_UNMAP: u8 = 0x16;
const UFFDIO_API: libc::Ioctl = 0xc018_aa3f_u32 as libc::Ioctl;
const UFFDIO_REGISTER: libc::Ioctl = 0xc020_aa00_u32 as libc::Ioctl;

/// Maps a page, at `at` if that is not null. There must be nothing.
fn map(at: *mut u8) -> rustix::io::Result<*mut u8> {
    let place = if at.is_null() { MapFlags::empty() } else { MapFlags::FIXED_NOREPLACE };
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: it changes no existing memory.
    let at = unsafe {
        rustix::mm::mmap_anonymous(at.cast(), PAGE, protection, MapFlags::PRIVATE | place)
    };
    at.map(|at| at.cast())
}

/// Asks for an event when `memory`, a page, is unmapped.
fn watch(memory: *mut u8) -> Option<OwnedFd> {
    let user_mode_only = UserfaultfdFlags::from_bits_retain(UFFD_USER_MODE_ONLY);
    // Not to be polled otherwise.
    let flags = UserfaultfdFlags::CLOEXEC | UserfaultfdFlags::NONBLOCK | user_mode_only;
    // SAFETY: it watches nothing yet.
    let fd = is_there("userfaultfd", unsafe { rustix::mm::userfaultfd(flags) })?;
    let mut api = [UFFD_API, UFFD_FEATURE_EVENT_UNMAP, 0];
    let mut range = [memory.addr() as u64, PAGE as u64, UFFDIO_REGISTER_MODE_MISSING, 0];
    // SAFETY: the structures that these calls take, which are made of 64-bit words.
    unsafe {
        assert_eq!(libc::ioctl(fd.as_raw_fd(), UFFDIO_API, api.as_mut_ptr()), 0);
        assert_eq!(libc::ioctl(fd.as_raw_fd(), UFFDIO_REGISTER, range.as_mut_ptr()), 0);
    }
    Some(fd)
}

/// The event of an unmapping comes behind it: before anybody can have read it, the addresses are
/// another mapping's, whose owner knows nothing of this and may receive into it.
pub(crate) fn too_late() {
    let memory = map(ptr::null_mut()).expect("memory");
    let Some(fd) = watch(memory) else { return };
    let returned = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let address = memory.expose_provenance();
        let returned = &returned;
        let unmapping = scope.spawn(move || {
            let memory = ptr::with_exposed_provenance_mut(address);
            // SAFETY: nobody uses it.
            unsafe { rustix::mm::munmap(memory, PAGE) }.expect("our own mapping");
            // Relaxed: it guards nothing; joining the thread orders it.
            returned.store(true, Ordering::Relaxed);
        });
        let timeout = Timespec::try_from(LONG).expect("half a minute");
        let mut events = [PollFd::new(&fd, PollFlags::IN)];
        rustix::event::poll(&mut events, Some(&timeout)).expect("a file");
        assert_eq!(
            events[0].revents(),
            PollFlags::IN,
            "the event is there, and nobody has read it"
        );
        // So a cache would take the page for registered, but:
        assert_eq!(map(memory), Ok(memory), "its address is another's already");
        // SAFETY: the page is that of the new mapping.
        unsafe { memory.write_volatile(1) };
        assert!(!returned.load(Ordering::Relaxed), "the unmapping waits for its event to be read");

        let mut event = [0_u8; 32];
        assert_eq!(rustix::io::read(&fd, &mut event), Ok(32));
        assert_eq!(event[0], UFFD_EVENT_UNMAP);
        unmapping.join().expect("no panic");
        assert!(returned.load(Ordering::Relaxed));
    });
    // SAFETY: nobody uses it.
    unsafe { rustix::mm::munmap(memory.cast(), PAGE) }.expect("our own mapping");
}
