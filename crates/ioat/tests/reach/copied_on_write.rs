//! The test that killed `NET_DMA`: the process forks while copies into a buffer run, and parent and
//! child write to its pages, so that they are copied; a part of the buffer is the CPU's.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
};

use ioat::lab::Pattern;
use netdma::{Copybreak, RecvFlags};

use crate::{
    children::{Child, Gate, check},
    world::{Engine, World, send},
};

/// Not whole pages: their rest is the parent's to write meanwhile.
const EDGE: usize = 1000;
const LEN: usize = 3_000_000;
const ROUNDS: u64 = 5;

pub(crate) fn test() {
    for engine in Engine::ALL {
        with(engine);
    }
}

fn with(engine: Engine) {
    let world = World::new(engine);
    let (client, server) = world.connect();
    let forks = AtomicU64::new(0);
    // What was received before, whole, when a child is forked.
    let mut before: Option<Vec<u8>> = None;
    for round in 0..ROUNDS {
        let pattern = Pattern::new(round);
        let mut buffer = vec![0; EDGE + LEN + EDGE];
        let (head, rest) = buffer.split_at_mut(EDGE);
        let (middle, tail) = rest.split_at_mut(LEN);
        let place = Place(middle.as_mut_ptr());
        let received = AtomicBool::new(false);
        // Relaxed, all: a flag and a count that guard nothing.
        let is_receiving = || !received.load(Ordering::Relaxed);
        thread::scope(|scope| {
            scope.spawn(|| {
                // The CPU's part of the buffer: now and then the offload is off, but in the last round.
                for number in 0_u64.. {
                    if !is_receiving() || round + 1 == ROUNDS {
                        break;
                    }
                    let off = number % 3 == 0;
                    let copybreak = if off { Copybreak::Off } else { Copybreak::Bytes(0) };
                    world.server.set_tcp_dma_copybreak(copybreak);
                    thread::yield_now();
                }
                world.server.set_tcp_dma_copybreak(Copybreak::Bytes(0));
            });
            scope.spawn(|| {
                let mut writes = 0_u8;
                let mut children = Vec::new();
                // At least one in each round, however fast that is.
                while children.is_empty() || is_receiving() && children.len() < 20 {
                    children.push(Child::fork(|gate| child(gate, before.as_deref(), place)));
                    forks.fetch_add(1, Ordering::Relaxed);
                    writes = writes.wrapping_add(1);
                    // Their pages are the first and the last that copies go to.
                    head.fill(writes);
                    tail.fill(writes);
                }
                for mut child in children {
                    // It has written, and since then copies ran that ran when it was forked.
                    child.wait_for_gate();
                    child.open_gate();
                    child.join();
                }
                assert!(head.iter().chain(&*tail).all(|byte| *byte == writes), "{engine:?}");
            });
            scope.spawn(|| send(&client, pattern, LEN as u64));
            let outcome = server.recv(middle, RecvFlags::WAITALL);
            received.store(true, Ordering::Relaxed);
            assert_eq!(outcome.expect("bytes"), LEN);
        });
        let middle = &buffer[EDGE..EDGE + LEN];
        assert_eq!(pattern.first_wrong(0, middle), None, "{engine:?}: the parent misses bytes");
        before = Some(middle.to_vec());
    }
    let counters = world.counters();
    assert_eq!(counters.bytes_by_engine > 0, engine != Engine::Cpu, "{engine:?}: {counters:?}");
    println!(
        "    {engine:?}: {} children, {} bytes by the engine, {} by the CPU",
        forks.into_inner(),
        counters.bytes_by_engine,
        counters.bytes_by_cpu_total()
    );
}

/// Where the buffer is, for a child, whose own it is.
#[derive(Clone, Copy)]
struct Place(*mut u8);

// SAFETY: only forked children access it, each its own.
unsafe impl Sync for Place {}
// SAFETY: as above.
unsafe impl Send for Place {}

/// What the child has is its own, as it was: nothing that the parent's engine writes gets there.
fn child(gate: &mut Gate, before: Option<&[u8]>, place: Place) -> Result<(), &'static str> {
    let is_whole = |before: &[u8]| {
        (0..ROUNDS).any(|round| Pattern::new(round).first_wrong(0, before).is_none())
    };
    check(before.is_none_or(is_whole), "what was received before is there")?;
    // SAFETY: the child's copy of the buffer. Of the threads that use the parent's it has none, and it
    // does not return to where a reference to it is.
    let buffer = unsafe { std::slice::from_raw_parts_mut(place.0, LEN) };
    // A part of it stays as it is, shared with the parent until somebody writes.
    let (own, shared) = buffer.split_at_mut(LEN / 2);
    let copy = shared.to_vec();
    own.fill(0xc4);
    gate.pass();
    check(own.iter().all(|byte| *byte == 0xc4), "the child keeps what it wrote")?;
    check(*shared == copy, "and what it did not write does not change")
}
