//! Nothing is allocated per operation, whichever way a channel is used.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    time::Duration,
};

use dmaengine::{
    Channel, Copier, CpuDevice, DmaDevice, Fallback, FaultPlan, Faults, Flags, Queue, Split,
    Syndromes, ThreadsDevice, scope,
};

const TIMEOUT: Duration = Duration::from_secs(10);
/// More than any ring here has descriptors, which have room for lists once each was used.
const ROUNDS: usize = 2500;

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

/// Shorter copies are not split.
const SPLIT_FROM: usize = 16 << 10;

/// Opens an engine's channel.
type Request = fn() -> Channel;
/// Puts a layer over one.
type Over = fn(Channel) -> Channel;

/// Each engine, and each layer over each of them.
fn channels() -> impl Iterator<Item = (String, Channel)> {
    let engines: [(&str, Request); 2] = [
        ("cpu", || CpuDevice::new(1).request_channel(0).unwrap().into()),
        ("threads", || ThreadsDevice::new(1).request_channel(0).unwrap().into()),
    ];
    let layers: [(&str, Over); 4] = [
        ("nothing", |channel| channel),
        ("Fallback", |channel| channel.layered(&Fallback::default())),
        ("Split", |channel| channel.layered(&Split::new(SPLIT_FROM))),
        ("Faults", |channel| channel.layered(&Faults::new(FaultPlan::default()))),
    ];
    engines.into_iter().flat_map(move |(engine, request)| {
        layers.map(|(layer, over)| (format!("{layer} over {engine}"), over(request())))
    })
}

#[test]
fn an_allocation_is_counted() {
    assert!(allocations(|| drop(std::hint::black_box(vec![0u8; 64]))) >= ROUNDS);
}

#[test]
fn a_queue_allocates_nothing() {
    for (name, channel) in channels() {
        let mut queue = Queue::new(channel);
        let mut idle: Vec<_> = (0..32).map(|_| (vec![1u8; 64], vec![0u8; 64])).collect();
        let count = allocations(|| {
            while let Some((source, target)) = idle.pop() {
                queue.copy(source, target, ()).unwrap();
            }
            queue.wait(TIMEOUT, |done| idle.push((done.source, done.target))).unwrap();
        });
        assert_eq!((count, idle.len()), (0, 32), "{name}");
    }
}

#[test]
fn a_copy_that_is_split_allocates_nothing() {
    for (name, channel) in channels().filter(|(name, _)| name.starts_with("Split")) {
        let mut queue = Queue::new(channel);
        let mut idle = Some((vec![1u8; SPLIT_FROM], vec![0u8; SPLIT_FROM]));
        let count = allocations(|| {
            let (source, target) = idle.take().unwrap();
            queue.copy(source, target, ()).unwrap();
            queue.wait(TIMEOUT, |done| idle = Some((done.source, done.target))).unwrap();
        });
        assert_eq!(count, 0, "{name}");
    }
}

#[test]
fn lists_that_are_used_again_allocate_nothing() {
    for ((name, copies), (_, stripes)) in channels().zip(channels()) {
        let mut copies = Queue::new(copies);
        let mut lists = Some((vec![vec![1u8; 8], vec![2; 8]], vec![vec![0u8; 4], vec![0; 12]]));
        let mut stripes = Queue::new(stripes);
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
        assert_eq!(count, 0, "{name}");
    }
}

/// A scope allocates its book when it begins, and nothing for each of its operations.
#[test]
fn operations_in_a_scope_allocate_nothing() {
    const COPIES: usize = 2 * ROUNDS;
    for (name, mut channel) in channels() {
        let source = [1u8; 64];
        let mut targets = vec![[0u8; 64]; COPIES];
        let count = scope(&mut channel, TIMEOUT, |scope| {
            let mut targets = targets.iter_mut();
            allocations(|| scope.copy(&source, targets.next().unwrap()).unwrap())
        });
        assert_eq!(count, Ok(0), "{name}");
    }
}

#[test]
fn a_copier_allocates_nothing() {
    for (name, channel) in channels() {
        let copier = Copier::new(channel, TIMEOUT).unwrap();
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
        assert_eq!(count, 0, "{name}");
    }
}

#[test]
fn a_batch_allocates_nothing() {
    for (name, channel) in channels() {
        let copier = Copier::new(channel, TIMEOUT).unwrap();
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
        assert_eq!(count, 0, "{name}");
    }
}
