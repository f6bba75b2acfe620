//! Ordinary memory as the target of engines: the program's heap, what it forks, what it unmaps.
//!
//! A program of its own, which has the heap as its global allocator, and forks without the threads
//! of other tests.

#[path = "../../../dmaengine/tests/heap/children.rs"]
mod children;
mod copied_on_write;
mod given_back;
mod world;

use std::{
    hint::black_box,
    io::{BufReader, Read},
    thread,
};

use dmaengine::Heap;
use ioat::lab::Pattern;
use netdma::CpuCause;
use sockets::ReceiveRing;

use self::world::{Engine, LONG, World, send};

#[global_allocator]
static HEAP: Heap = Heap::new();

fn main() {
    // SAFETY: sets a timer that ends the process, should a check fail while a thread waits for it.
    unsafe { libc::alarm(600) };
    for (name, test) in [
        ("ordinary buffers are reachable", ordinary_buffers as fn()),
        ("what is not is copied by the CPU, and counted", other_memory),
        ("memory is copied on write while copies run", copied_on_write::test),
        ("memory is given back while other copies run", given_back::test),
    ] {
        println!("reach: {name}");
        test();
    }
}

/// With an engine that has IOVAs: no byte is copied by the CPU for want of an address.
fn ordinary_buffers() {
    const LEN: u64 = 12_000_000;
    let world = World::new(Engine::Model);
    let (client, server) = world.connect();
    let pattern = Pattern::new(1);
    thread::scope(|scope| {
        scope.spawn(|| send(&client, pattern, LEN));
        let mut offset = 0;
        let mut check = |piece: &[u8]| {
            assert_eq!(pattern.first_wrong(offset, piece), None);
            offset += piece.len() as u64;
        };
        // As programs have them: of one length for all reads, new for each, in a reader, posted.
        let mut buffer = vec![0; 65536];
        for _ in 0..40 {
            let len = (&server).read(&mut buffer).expect("bytes");
            check(&buffer[..len]);
        }
        for _ in 0..40 {
            let mut buffer = vec![0; 16384].into_boxed_slice();
            let len = (&server).read(&mut buffer).expect("bytes");
            check(&buffer[..len]);
        }
        let mut reader = BufReader::new(&server);
        let mut line = [0; 1000];
        for _ in 0..500 {
            reader.read_exact(&mut line).expect("bytes");
            check(&line);
        }
        check(reader.buffer());
        let mut ring = ReceiveRing::new(&server);
        (0..8).for_each(|_| ring.post(vec![0; 100_000]));
        for _ in 0..40 {
            let received = ring.wait(Some(LONG)).expect("bytes").expect("eight are posted");
            let len = received.result.expect("bytes");
            check(&received.buffer[..len]);
            ring.post(received.buffer);
        }
        ring.cancel();
        while let Some(received) = ring.wait(Some(LONG)).expect("a stack") {
            check(&received.buffer[..received.result.unwrap_or(0)]);
        }
        // Not `read_to_end`, which looks for the end with a read into its stack.
        let mut rest = vec![0; (LEN - offset) as usize];
        (&server).read_exact(&mut rest).expect("bytes");
        assert_eq!(pattern.first_wrong(offset, &rest), None);
    });
    let counters = world.counters();
    assert_eq!(counters.bytes_by_cpu[CpuCause::Unreachable as usize], 0, "{counters:?}");
    assert_eq!(counters.bytes_by_engine + counters.bytes_by_cpu_total(), LEN, "{counters:?}");
    // The rest is the CPU's share of what calls waited for: how much depends on what else runs.
    assert!(counters.bytes_by_engine > LEN / 20, "{counters:?}");
    assert_eq!(HEAP.overflowed(), 0);
}

/// A stack is nobody's to pin.
fn other_memory() {
    const LEN: u64 = 1_000_000;
    let world = World::new(Engine::Model);
    let (client, server) = world.connect();
    let pattern = Pattern::new(2);
    thread::scope(|scope| {
        scope.spawn(|| send(&client, pattern, LEN));
        let mut offset = 0;
        while offset < LEN {
            let mut buffer = black_box([0; 32768]);
            let len = (&server).read(&mut buffer).expect("bytes");
            assert_eq!(pattern.first_wrong(offset, &buffer[..len]), None);
            offset += len as u64;
        }
    });
    let counters = world.counters();
    assert_eq!(counters.bytes_by_cpu[CpuCause::Unreachable as usize], LEN, "{counters:?}");
}
