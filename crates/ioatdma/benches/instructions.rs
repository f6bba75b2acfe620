//! The driver's path of an operation, to have its instructions counted: `cargo xtask callgrind`.
//!
//! Each function that is counted is never inlined, so that callgrind can tell it by its name, and
//! is called [`ROUNDS`] times. The argument says which: one a run.

use std::{hint::black_box, time::Duration};

use dmaengine::{Arena, DmaBuf, DmaChannel, DmaDevice, Flags, Operation, Queue, Status};
use ioat_model::{Config, in_process};
use ioatdma::{Bar, Interrupts, Options};
use machine::{Host, Threaded};

#[path = "../tests/driver/machine.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod machine;

/// Copies with one doorbell.
const BATCH: usize = 32;
/// Batches that are counted.
const ROUNDS: usize = 64;
/// Length of a copy in bytes: below XFERCAP, and short, as nobody looks at the bytes.
const LEN: usize = 64;

/// CHANSTS of channel 0.
const CHANSTS: u64 = 0x88;
/// Its state when all is done.
const DONE: u64 = 1;

fn main() {
    // `cargo bench` adds `--bench`.
    let what = std::env::args().skip(1).find(|argument| argument != "--bench");
    let shell = Threaded::start(in_process::Config {
        model: Config::default(),
        // It never sleeps, so no doorbell has to wake it: the count is the same in every run.
        spin: Duration::MAX,
    });
    let host = Host::with_shell(shell, Interrupts::MsiX { vectors: 1 });
    let device = host.probe(Options::default()).expect("a good device");
    let arena = Arena::new(1 << 20).expect("memory");
    device.map(&arena).expect("room");
    let channel = device.request_channel(0).expect("free");
    match what.as_deref() {
        None | Some("submit" | "poll") => raw(channel, &arena, &host),
        Some("queue") => queue(channel, &arena, &host),
        Some(other) => panic!("{other}: not one of submit, poll, queue"),
    }
    println!("operations: {}", ROUNDS * BATCH);
}

/// Waits until the device has done all.
fn settle(host: &Host<Threaded>) {
    while host.read64(CHANSTS) & 7 != DONE {
        std::thread::yield_now();
    }
}

fn raw(mut channel: Box<dyn DmaChannel>, arena: &Arena, host: &Host<Threaded>) {
    let mut source = arena.alloc(BATCH * LEN).expect("room");
    let mut target = arena.alloc(BATCH * LEN).expect("room");
    source.fill(1);
    target.fill(0);
    let copies: [_; BATCH] = std::array::from_fn(|index| {
        let source = source.as_ptr().wrapping_add(index * LEN);
        let target = target.as_mut_ptr().wrapping_add(index * LEN);
        Operation::Memcpy { source, target, len: LEN }
    });
    let mut ended = 0;
    for _ in 0..ROUNDS {
        submit_batch(&mut *channel, &copies);
        settle(host);
        ended += poll_batch(&mut *channel);
    }
    drop(channel);
    assert_eq!(ended, ROUNDS * BATCH);
    assert!(target.iter().all(|byte| *byte == 1));
}

#[inline(never)]
fn submit_batch(channel: &mut dyn DmaChannel, copies: &[Operation<'_>; BATCH]) {
    for copy in copies {
        // SAFETY: disjoint parts of buffers that live until the channel has been dropped, and that
        // nobody else looks at before.
        let submitted = unsafe { channel.submit(copy, Flags::empty()) };
        assert!(submitted.is_ok(), "there is room");
    }
    channel.issue_pending();
}

#[inline(never)]
fn poll_batch(channel: &mut dyn DmaChannel) -> usize {
    let mut ended = 0;
    channel.poll(&mut |completion| {
        assert!(completion.status == Status::Success);
        ended += 1;
    });
    ended
}

type Copies = Queue<DmaBuf, DmaBuf, ()>;

fn queue(channel: Box<dyn DmaChannel>, arena: &Arena, host: &Host<Threaded>) {
    let mut queue = Copies::new(channel);
    let buffer = || arena.alloc(LEN).expect("room");
    let mut buffers: Vec<_> = (0..BATCH).map(|_| (buffer(), buffer())).collect();
    for _ in 0..ROUNDS {
        copy_batch(&mut queue, &mut buffers);
        settle(host);
        queue.poll(|done| {
            assert!(done.status == Status::Success);
            buffers.push((done.source, done.target));
        });
        assert_eq!(black_box(&buffers).len(), BATCH);
    }
}

#[inline(never)]
fn copy_batch(queue: &mut Copies, buffers: &mut Vec<(DmaBuf, DmaBuf)>) {
    for (source, target) in buffers.drain(..) {
        assert!(queue.copy(source, target, ()).is_ok(), "there is room");
    }
    queue.issue_pending();
}
