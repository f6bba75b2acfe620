//! Nothing is allocated per operation, whichever way a channel is used.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    time::Duration,
};

use dmaengine::{Copier, CpuDevice, DmaDevice, Flags, Queue, Syndromes};

const TIMEOUT: Duration = Duration::from_secs(10);
/// More than the ring has descriptors, which have room for lists once each was used.
const ROUNDS: usize = 2000;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

/// The system's allocator, which counts what each thread allocates.
struct Counting;

// SAFETY: all is done by the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: by the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: by the caller's promise; it came from there.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How often `body` allocates in many rounds, once everything has grown.
fn allocations(mut body: impl FnMut()) -> usize {
    for _ in 0..ROUNDS {
        body();
    }
    let before = ALLOCATIONS.get();
    for _ in 0..ROUNDS {
        body();
    }
    ALLOCATIONS.get() - before
}

fn channel() -> Box<dyn dmaengine::DmaChannel> {
    CpuDevice::new(1).request_channel(0).unwrap()
}

#[test]
fn an_allocation_is_counted() {
    assert!(allocations(|| drop(std::hint::black_box(vec![0u8; 64]))) >= ROUNDS);
}

#[test]
fn a_queue_allocates_nothing() {
    let mut queue = Queue::new(channel());
    let mut idle: Vec<_> = (0..32).map(|_| (vec![1u8; 64], vec![0u8; 64])).collect();
    let count = allocations(|| {
        while let Some((source, target)) = idle.pop() {
            queue.copy(source, target, ()).unwrap();
        }
        queue.wait(TIMEOUT, |done| idle.push((done.source, done.target))).unwrap();
    });
    assert_eq!((count, idle.len()), (0, 32));
}

#[test]
fn lists_that_are_used_again_allocate_nothing() {
    let mut copies = Queue::new(channel());
    let mut lists = Some((vec![vec![1u8; 8], vec![2; 8]], vec![vec![0u8; 4], vec![0; 12]]));
    let mut stripes = Queue::new(channel());
    let syndromes = Syndromes { p: Some(vec![0u8; 64]), q: Some(vec![0u8; 64]) };
    let mut stripe = Some((vec![vec![1u8; 64], vec![2; 64]], syndromes));
    let count = allocations(|| {
        let (sources, targets) = lists.take().unwrap();
        copies.copy_sg(sources, targets, Flags::empty(), ()).unwrap();
        copies.wait(TIMEOUT, |done| lists = Some((done.source, done.target))).unwrap();
        let (sources, syndromes) = stripe.take().unwrap();
        stripes.pq(sources, &[1, 2], syndromes, Flags::empty(), ()).unwrap();
        stripes.wait(TIMEOUT, |done| stripe = Some((done.source, done.target))).unwrap();
    });
    assert_eq!(count, 0);
}

#[test]
fn a_copier_allocates_nothing() {
    let copier = Copier::new(channel(), TIMEOUT).unwrap();
    let mut memory = Some((vec![1u8; 64], vec![0u8; 64]));
    let mut lists = Some((vec![vec![1u8; 8], vec![2; 8]], vec![vec![0u8; 4], vec![0; 12]]));
    let count = allocations(|| {
        let (source, target) = memory.take().unwrap();
        let copied = copier.copy(source, target).wait().unwrap();
        let filled = copier.fill(7, copied.target).wait().unwrap();
        memory = Some((copied.source, filled.target));
        let (sources, targets) = lists.take().unwrap();
        let done = copier.copy_sg(sources, targets).wait().unwrap();
        lists = Some((done.source, done.target));
    });
    assert_eq!(count, 0);
}

#[test]
fn a_batch_allocates_nothing() {
    let copier = Copier::new(channel(), TIMEOUT).unwrap();
    let mut memory = [(); 8].map(|()| Some((vec![1u8; 64], vec![0u8; 64])));
    let count = allocations(|| {
        let mut batch = copier.batch();
        let copies = memory.each_mut().map(|memory| {
            let (source, target) = memory.take().unwrap();
            batch.copy(source, target)
        });
        batch.issue();
        for (memory, copy) in memory.iter_mut().zip(copies) {
            let done = copy.wait().unwrap();
            *memory = Some((done.source, done.target));
        }
    });
    assert_eq!(count, 0);
}
