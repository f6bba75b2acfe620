//! In the steady state no frame costs an allocation.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    time::Duration,
};

use dmaengine::Arena;
use netdev::{
    BufferCounts, Capture, Faults, Link, Profile, Tap, TapConfig, TxInfo, Wire, WireConfig,
};
use rustix::event::{PollFd, PollFlags, poll};

use crate::namespace::{KernelEnd, in_namespace, set_up};

/// Counts the allocations of each thread.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: everything is passed on to the system's allocator unchanged; the counter is a plain
// thread-local without destructor, which itself allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(pointer, layout, new_size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Runs `round` until it has warmed up, then counts the allocations of a thousand rounds.
fn allocations(mut round: impl FnMut()) -> u64 {
    (0..100).for_each(|_| round());
    let before = ALLOCATIONS.get();
    (0..1000).for_each(|_| round());
    ALLOCATIONS.get() - before
}

const NOW: Duration = Duration::ZERO;
const BUFFERS: BufferCounts = BufferCounts { small: 64, large: 8 };

#[test]
fn the_counter_counts() {
    assert_eq!(allocations(|| drop(std::hint::black_box(Box::new(1)))), 1000);
}

#[test]
fn a_wire_allocates_nothing() {
    let config = WireConfig { buffers: BUFFERS, ..WireConfig::default() };
    let arena = Arena::new(2 * config.arena_len()).unwrap();
    let (mut from, mut to) = Wire::pair(&arena, &config).unwrap();
    let count = allocations(|| {
        from.transmit(NOW, &[1; 1514], TxInfo::default()).unwrap();
        assert_eq!(to.receive(NOW, 8, &mut |frame, _| drop(frame)).unwrap(), 1);
    });
    assert_eq!(count, 0);
}

#[test]
fn middleware_allocates_nothing() {
    let config = WireConfig { buffers: BUFFERS, ..WireConfig::default() };
    let arena = Arena::new(2 * config.arena_len()).unwrap();
    let (from, mut to) = Wire::pair(&arena, &config).unwrap();
    let profile = Profile { delay: Duration::from_millis(1), ..Profile::default() };
    let from = Faults::new(from, &arena, 1, profile, profile).unwrap();
    let mut from = Capture::new(from, std::io::sink(), Duration::ZERO).unwrap();
    let mut now = NOW;
    let count = allocations(|| {
        now += Duration::from_millis(1);
        from.transmit(now, &[1; 1514], TxInfo::default()).unwrap();
        to.transmit(now, &[2; 1514], TxInfo::default()).unwrap();
        from.receive(now, 8, &mut |frame, _| drop(frame)).unwrap();
        to.receive(now, 8, &mut |frame, _| drop(frame)).unwrap();
    });
    assert_eq!(count, 0);
    assert!(to.statistics().rx_frames > 1000);
}

#[test]
fn a_tap_allocates_nothing() {
    in_namespace("no_allocation::a_tap_allocates_nothing", || {
        let config = TapConfig { buffers: BUFFERS, ..TapConfig::new("ioat0") };
        let arena = Arena::new(config.arena_len()).unwrap();
        let mut tap = Tap::open(&arena, &config).unwrap();
        set_up("ioat0");
        let kernel = KernelEnd::new("ioat0", 0x88b5);
        let mut frame = [1; 1514];
        frame[12..14].copy_from_slice(&[0x88, 0xb5]);
        // What the kernel's end does is not counted: it allocates to receive.
        let sender = move |count| (0..count).for_each(|_| kernel.send([0; 10], &frame));
        let batch = 50;
        let mut round = || {
            let before = ALLOCATIONS.get();
            tap.transmit(NOW, &frame, TxInfo::default()).unwrap();
            let sent = ALLOCATIONS.get();
            sender(batch);
            let resumed = ALLOCATIONS.get();
            let mut received = 0;
            while received < batch {
                let event = tap.event().unwrap();
                poll(&mut [PollFd::new(&event, PollFlags::IN)], None).unwrap();
                received += tap.receive(NOW, 64, &mut |frame, _| drop(frame)).unwrap();
            }
            (sent - before) + (ALLOCATIONS.get() - resumed)
        };
        assert_eq!((0..20).map(|_| round()).sum::<u64>(), 0);
    });
}
