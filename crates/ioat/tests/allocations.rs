//! A running stream allocates nothing: not for a packet, not for a copy, not for a read.
//!
//! A counting allocator, and the kernel sending over TAP: once in super-frames, once in short
//! packets.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    io::Read,
    net::{Ipv4Addr, SocketAddrV4},
    process::ExitCode,
    time::Duration,
};

use ioat::{
    engine::EngineName,
    host::{Host, HostConfig},
    host_side,
    lab::{Pattern, Sender, SenderConfig},
};
use netdma::Copybreak;
use netstack::Ipv4Cidr;
use sockets::TcpListener;

use crate::namespace::{run, tests};

mod namespace;

/// How long to wait for the kernel's connection, and for its bytes.
const PATIENCE: Duration = Duration::from_secs(20);

/// Queues double until they are as long as they get, so the first pieces of a stream may allocate.
/// So many may; what allocates for each of so many packets does so in all.
const PIECES: u64 = 8;

/// The system's allocator, which counts the calls of each thread.
struct Counting;

thread_local! {
    // Without a destructor and with a constant, so that it allocates nothing itself.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    ALLOCATIONS.set(ALLOCATIONS.get() + 1);
}

// SAFETY: every call is the system allocator's, with the same arguments.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise is the one that is asked for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above; the memory is the system allocator's.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, len: usize) -> *mut u8 {
        count();
        // SAFETY: as above; the memory is the system allocator's.
        unsafe { System.realloc(pointer, layout, len) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn main() -> ExitCode {
    run(tests![the_counter_counts, short_packets, super_frames])
}

fn the_counter_counts() {
    let before = ALLOCATIONS.get();
    drop(std::hint::black_box(Box::new(1)));
    assert_eq!(ALLOCATIONS.get() - before, 1);
}

const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);

/// With the engine for all that it can copy, and for what pays.
const CASES: [(&str, Copybreak); 5] = [
    ("cpu", Copybreak::LINUX),
    ("threads", Copybreak::LINUX),
    ("threads", Copybreak::Auto),
    ("ioat-model", Copybreak::LINUX),
    ("ioat-model", Copybreak::Auto),
];

/// The payload of a full packet with timestamps, at an MTU of 1500.
const PACKET: u64 = 1448;

fn short_packets() {
    for (engine, copybreak) in CASES {
        let frames = frames_without_allocation(engine, copybreak, false, 12_000 * PACKET);
        assert!(frames >= 10_000, "{engine}, {copybreak}: {frames} frames");
    }
}

fn super_frames() {
    for (engine, copybreak) in CASES {
        let frames = frames_without_allocation(engine, copybreak, true, 100 << 20);
        assert!(frames >= 1000, "{engine}, {copybreak}: {frames} frames");
    }
}

/// Receives a stream in pieces of `bytes`, until one piece came without an allocation of this
/// thread, which drives the stack. Returns how many frames that piece had.
fn frames_without_allocation(engine: &str, copybreak: Copybreak, offload: bool, bytes: u64) -> u64 {
    let address = Ipv4Cidr { address: ADDRESS, prefix_len: 24 };
    let engine: EngineName = engine.parse().unwrap();
    let offloads = engine != EngineName::Cpu;
    let mut config = HostConfig::new("ioat0", address, engine);
    config.tap.offload = offload;
    config.sockets.copybreak = copybreak;
    let host = Host::open(&config).unwrap();
    host_side::configure(host.interface(), address).unwrap();
    let listener = TcpListener::bind(host.stack(), SocketAddrV4::new(ADDRESS, 9000)).unwrap();
    let sender = Sender::start(SenderConfig {
        to: listener.local_addr(),
        bytes: PIECES * bytes,
        pattern: Pattern::new(0),
        unique: false,
        namespace: None,
        cpu: None,
    })
    .unwrap();
    let (mut stream, _) = listener.accept_timeout(PATIENCE).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut buffer = host.buffer(256 << 10).unwrap();
    let mut allocations = Vec::new();
    for _ in 0..PIECES {
        let before = host.stack().statistics();
        let allocated = ALLOCATIONS.get();
        let mut received = 0;
        while received < bytes {
            let len = stream.read(&mut buffer).unwrap();
            if len == 0 {
                break;
            }
            received += len as u64;
        }
        let piece = ALLOCATIONS.get() - allocated;
        if piece == 0 && received >= bytes {
            let after = host.stack().statistics();
            let by_engine = after.offload.bytes_by_engine - before.offload.bytes_by_engine;
            // How much is a question of who is faster, and what else runs.
            if copybreak != Copybreak::Auto {
                assert_eq!(by_engine > bytes / 100, offloads, "{by_engine} bytes by the engine");
            }
            // What is left is not needed.
            drop(stream);
            let _reset = sender.join();
            return after.protocols.frames_received - before.protocols.frames_received;
        }
        allocations.push(piece);
    }
    panic!("each piece allocated: {allocations:?} times");
}
