//! Pinned pages, as an engine with IOVAs has them, on any machine: a registered buffer of an
//! `io_uring` is pinned in the way of VFIO (`FOLL_LONGTERM`), and the kernel writes to its pages,
//! whatever is mapped at its address by then.

use std::{
    ffi::c_void,
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    ptr::{self, NonNull},
    sync::atomic::{AtomicU32, Ordering},
};

use rustix::{
    fs::MemfdFlags,
    io_uring::{
        IORING_OFF_SQ_RING, IORING_OFF_SQES, IoringEnterFlags, IoringOp, IoringRegisterOp,
        io_uring_cqe, io_uring_enter, io_uring_params, io_uring_ptr, io_uring_register,
        io_uring_setup, io_uring_sqe,
    },
    mm::{Advice, MapFlags, MremapFlags, ProtFlags},
};

use super::{arena, bytes, copied_on_write};

const PAGE: usize = 4096;

/// Whether what a test needs is there. With `CI` set, what is missing is a failure.
pub(crate) fn is_there<T>(what: &str, result: rustix::io::Result<T>) -> Option<T> {
    if result.is_err() {
        let error = result.as_ref().err();
        assert!(std::env::var_os("CI").is_none(), "the test needs {what}: {error:?}");
        println!("heap: skipped, as there is no {what}: {error:?}");
    }
    result.ok()
}

/// An engine that has memory pinned.
struct Engine {
    ring: OwnedFd,
    params: io_uring_params,
    queues: NonNull<u8>,
    entries: NonNull<io_uring_sqe>,
    /// What is to be copied.
    file: OwnedFd,
}

impl Engine {
    /// Pins `len` bytes at `memory`.
    fn pin(memory: *mut u8, len: usize) -> Option<Self> {
        let mut params = io_uring_params::default();
        // SAFETY: the parameters name no file and no memory.
        let ring = is_there("io_uring", unsafe { io_uring_setup(4, &mut params) })?;
        let map = |len, offset| {
            let flags = ProtFlags::READ | ProtFlags::WRITE;
            // SAFETY: a fresh mapping at an address of the kernel's choice.
            let at = unsafe {
                rustix::mm::mmap(ptr::null_mut(), len, flags, MapFlags::SHARED, &ring, offset)
            };
            NonNull::new(at.expect("memory").cast::<u8>()).expect("not at 0")
        };
        // Both queues are in the one mapping (IORING_FEAT_SINGLE_MMAP, Linux 5.4).
        let (queues, entries) = (map(PAGE, IORING_OFF_SQ_RING), map(PAGE, IORING_OFF_SQES).cast());
        let vector = libc::iovec { iov_base: memory.cast(), iov_len: len };
        // SAFETY: one vector, of memory that is mapped.
        let pinned = unsafe {
            let vectors = (&raw const vector).cast::<c_void>();
            io_uring_register(&ring, IoringRegisterOp::RegisterBuffers, vectors, 1)
        };
        is_there("memory that may be locked (ulimit -l)", pinned)?;
        let file = rustix::fs::memfd_create("source", MemfdFlags::CLOEXEC).expect("a file");
        Some(Self { ring, params, queues, entries, file })
    }

    fn word(&self, offset: u32) -> &AtomicU32 {
        // SAFETY: the kernel tells where its words are, within the page of both queues.
        unsafe { self.queues.add(offset as usize).cast::<AtomicU32>().as_ref() }
    }

    /// Copies `source` to what was pinned at `target`.
    fn copy(&self, source: &[u8], target: *mut u8) {
        rustix::io::pwrite(&self.file, source, 0).expect("memory");
        let fd = self.file.as_fd().as_raw_fd();
        let mut entry = io_uring_sqe { opcode: IoringOp::ReadFixed, fd, ..Default::default() };
        entry.addr_or_splice_off_in.addr = io_uring_ptr::new(target.cast());
        entry.len.len = source.len() as u32;
        let (sq, cq) = (&self.params.sq_off, &self.params.cq_off);
        // Relaxed: only we write the tail, and the system calls order the rest.
        let tail = self.word(sq.tail).load(Ordering::Relaxed);
        let slot = tail & self.word(sq.ring_mask).load(Ordering::Relaxed);
        // SAFETY: one of four entries, of which the kernel has none.
        unsafe { self.entries.add(slot as usize).write(entry) };
        self.word(sq.array + 4 * slot).store(slot, Ordering::Relaxed);
        // Release, and acquire below: the protocol.
        self.word(sq.tail).store(tail.wrapping_add(1), Ordering::Release);
        // SAFETY: the entry names the pinned buffer. Its memory is the test's.
        let entered = unsafe { io_uring_enter(&self.ring, 1, 1, IoringEnterFlags::GETEVENTS) };
        assert_eq!(entered, Ok(1));
        let head = self.word(cq.head).load(Ordering::Relaxed);
        assert_eq!(self.word(cq.tail).load(Ordering::Acquire), head.wrapping_add(1), "it ended");
        let slot = head & self.word(cq.ring_mask).load(Ordering::Relaxed);
        let at = cq.cqes as usize + slot as usize * size_of::<io_uring_cqe>();
        // SAFETY: as for `word`; the kernel has written it.
        let result = unsafe { self.queues.add(at).cast::<io_uring_cqe>().as_ref() }.res;
        self.word(cq.head).store(head.wrapping_add(1), Ordering::Release);
        assert_eq!(result, source.len() as i32, "{}", io::Error::from_raw_os_error(-result));
    }
}

/// The heap as a whole is pinned, as VFIO does it: small pages and huge ones.
pub(crate) fn fork() {
    let arena = arena();
    let Some(engine) = Engine::pin(arena.base().cast_mut(), arena.len()) else { return };
    for len in [100_000, 2 << 20] {
        let mut buffer = vec![0; len];
        copied_on_write(&mut buffer, |source, target| engine.copy(source, target.as_mut_ptr()));
    }
}

/// Memory of the program's own, as a cache of registrations would have it: mapped, pinned, and then
/// another thing.
struct Mapping(*mut u8);

impl Mapping {
    const LEN: usize = 4 * PAGE;

    /// At `at`, if it is not null; there must be nothing.
    fn new(at: *mut u8) -> Self {
        let place = if at.is_null() { MapFlags::empty() } else { MapFlags::FIXED_NOREPLACE };
        let (protection, flags) =
            (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE | MapFlags::POPULATE | place);
        // SAFETY: it changes no existing memory.
        let at = unsafe { rustix::mm::mmap_anonymous(at.cast(), Self::LEN, protection, flags) };
        Self(at.expect("free addresses").cast())
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: mapped, and nobody writes it while this is looked at.
        unsafe { std::slice::from_raw_parts(self.0, Self::LEN) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: nobody has a reference to it.
        unsafe { rustix::mm::munmap(self.0.cast(), Self::LEN) }.expect("our own mapping");
    }
}

/// What would happen to a program if memory of its own were left registered: the engine tells success,
/// and the bytes are not there, or elsewhere.
pub(crate) fn stale() {
    let data = bytes(4, Mapping::LEN);
    let pinned = || {
        let mapping = Mapping::new(ptr::null_mut());
        let engine = Engine::pin(mapping.0, Mapping::LEN)?;
        engine.copy(&data, mapping.0);
        assert!(mapping.bytes() == data, "it is right at first");
        Some((mapping, engine))
    };
    let other = bytes(5, Mapping::LEN);

    // Unmapped, and something else mapped there.
    let Some((mapping, engine)) = pinned() else { return };
    let at = mapping.0;
    drop(mapping);
    let mapping = Mapping::new(at);
    engine.copy(&other, at);
    assert!(mapping.bytes() == [0; Mapping::LEN], "bytes are lost");

    // Given back to the system.
    let Some((mapping, engine)) = pinned() else { return };
    // SAFETY: nobody has a reference to it.
    unsafe { rustix::mm::madvise(mapping.0.cast(), Mapping::LEN, Advice::LinuxDontNeed) }.unwrap();
    engine.copy(&other, mapping.0);
    assert!(mapping.bytes() == [0; Mapping::LEN], "bytes are lost");

    // Moved, and something else mapped there: the bytes go to what was moved, which nobody asked for.
    let Some((mapping, engine)) = pinned() else { return };
    let (from, len) = (mapping.0.cast(), Mapping::LEN);
    let to = Mapping::new(ptr::null_mut());
    let flags = MremapFlags::MAYMOVE;
    // SAFETY: nobody has a reference to either; what was at the new place is unmapped.
    let moved = unsafe { rustix::mm::mremap_fixed(from, len, len, flags, to.0.cast()) };
    assert_eq!(moved, Ok(to.0.cast()));
    let at = mapping.0;
    std::mem::forget(mapping);
    let mapping = Mapping::new(at);
    engine.copy(&other, at);
    assert!(mapping.bytes() == [0; Mapping::LEN], "bytes are lost");
    assert!(to.bytes() == other, "and others are overwritten");
}
