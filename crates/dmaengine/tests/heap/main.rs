//! The heap as a program's global allocator; forked children and pinned pages.
//!
//! A program of its own, with real children and without other tests' threads. A child that hangs is
//! killed by its alarm.

mod children;
mod pinned;
mod userfaultfd;

use std::{
    hint::black_box,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use dmaengine::{Arena, DmaDevice, Heap, Queue, Status, ThreadsDevice};

use self::children::{Child, check};

#[global_allocator]
static HEAP: Heap = Heap::with_capacity(8 << 20);

/// Longer than anything that is waited for.
const LONG: Duration = Duration::from_secs(30);

fn main() {
    // SAFETY: sets a timer that ends the process, should a check fail while a thread waits for it.
    unsafe { libc::alarm(600) };
    for (name, test) in [
        ("ordinary buffers are in the arena", ordinary_buffers as fn()),
        ("children allocate, whatever other threads do", children_allocate),
        ("a child has the data, and its parent goes on", engine_of_process_addresses),
        ("pinned pages stay with the parent that forks", pinned::fork),
        ("a registration of other memory goes stale", pinned::stale),
        ("a userfaultfd tells it too late", userfaultfd::too_late),
    ] {
        println!("heap: {name}");
        test();
    }
}

fn arena() -> Arena {
    HEAP.arena().expect("memory")
}

fn is_reachable(bytes: &[u8]) -> bool {
    arena().contains(bytes.as_ptr(), bytes.len())
}

/// The byte at `index` of the stream that `seed` names.
fn byte(seed: usize, index: usize) -> u8 {
    (index * 7 + index / 253 + seed * 31 + 1) as u8
}

fn bytes(seed: usize, len: usize) -> Vec<u8> {
    (0..len).map(|index| byte(seed, index)).collect()
}

fn ordinary_buffers() {
    assert!(is_reachable(&vec![0; 65536]));
    assert!(is_reachable(&vec![7; 8192].into_boxed_slice()));
    // A buffer that grows is there once it is large.
    let mut grown = Vec::new();
    for index in 0..100_000 {
        grown.push(byte(1, index));
    }
    assert!(is_reachable(&grown) && grown == bytes(1, 100_000));
    grown.truncate(10);
    grown.shrink_to_fit();
    assert!(!is_reachable(&grown) && grown == bytes(1, 10));
    assert!(!is_reachable(black_box(&[0; 65536])), "that one is on the stack");
    assert!(!is_reachable(&vec![0; 4 << 20]), "that one is more than a quarter of all");
}

/// Children are forked while other threads claim and release.
fn children_allocate() {
    const CHILDREN: usize = 50;

    let kept = bytes(2, 300_000);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for seed in 0..2 {
            let stop = &stop;
            scope.spawn(move || {
                let mut len = 4096;
                // Relaxed: the threads need to see it some time.
                while !stop.load(Ordering::Relaxed) {
                    len = 4096 + (len * 7 + seed) % 200_000;
                    black_box(vec![1_u8; len]);
                }
            });
        }
        let failed = std::panic::catch_unwind(|| {
            for _ in 0..CHILDREN {
                Child::fork(|_| {
                    check(kept == bytes(2, 300_000), "the child has the data")?;
                    let mut own: Vec<_> = (0..5).map(|seed| bytes(seed, 70_000)).collect();
                    check(own.iter().all(|own| is_reachable(own)), "the child's are in the heap")?;
                    own.swap_remove(2);
                    own.push(vec![0; 100_000]);
                    check(own[4] == [0; 100_000], "zero is zero")?;
                    drop(own);
                    engine_of_a_childs_own()
                })
                .join();
            }
        });
        stop.store(true, Ordering::Relaxed);
        failed.unwrap();
    });
    assert!(kept == bytes(2, 300_000));
}

/// A daemon forks first and opens its engine then.
fn engine_of_a_childs_own() -> Result<(), &'static str> {
    let device = ThreadsDevice::new(1);
    device.map(&arena()).map_err(|_| "an own mapping")?;
    let mut queue = Queue::new(device.request_channel(0).map_err(|_| "an own channel")?);
    queue.copy(bytes(5, 100_000), vec![0; 100_000], ()).map_err(|_| "an own copy")?;
    let mut copied = false;
    queue.wait(LONG, |done| copied = done.target == bytes(5, 100_000)).map_err(|_| "its end")?;
    check(copied, "the bytes of an own copy")
}

/// With an engine that writes by process addresses.
fn engine_of_process_addresses() {
    let device = ThreadsDevice::new(1);
    let mut queue = Queue::new(device.request_channel(0).expect("free"));
    for len in [100_000, 2 << 20] {
        let mut buffer = vec![0; len];
        copied_on_write(&mut buffer, |source, target| {
            dmaengine::lend(target, |target| {
                queue.copy(source.to_vec(), target, ()).expect("room");
                queue.wait(LONG, |done| assert_eq!(done.status, Status::Success)).expect("in time");
            });
        });
    }
}

/// The order in which `NET_DMA` lost bytes: the engine writes a part of each page, the process forks,
/// the CPU of the parent or of the child writes another part, and the engine writes the rest.
fn copied_on_write(buffer: &mut [u8], mut engine: impl FnMut(&[u8], &mut [u8])) {
    const PIECE: usize = 1024;

    assert!(is_reachable(buffer));
    for child_is_first in [false, true] {
        buffer.fill(0);
        let len = buffer.len();
        let expected = bytes(3, len);
        let write = |buffer: &mut [u8], turn: usize, by: &mut dyn FnMut(&[u8], &mut [u8])| {
            let pieces = buffer.chunks_mut(PIECE).zip(expected.chunks(PIECE));
            pieces.skip(turn).step_by(3).for_each(|(target, source)| by(source, target));
        };
        let mut cpu = |source: &[u8], target: &mut [u8]| target.copy_from_slice(source);
        write(buffer, 0, &mut engine);
        let mut before = buffer.to_vec();
        let mut child = Child::fork(|gate| {
            if child_is_first {
                write(&mut before, 1, &mut cpu);
                write(buffer, 1, &mut cpu);
            }
            gate.pass();
            // By now the parent has done all.
            check(buffer == before, "the child has what was there, and what it wrote")
        });
        child.wait_for_gate();
        write(buffer, 1, &mut cpu);
        write(buffer, 2, &mut engine);
        child.open_gate();
        child.join();
        assert!(buffer == expected, "the parent misses bytes, {len}, {child_is_first}");
    }
}
