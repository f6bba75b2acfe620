//! What a receive call costs whose copies are the CPU's, to have its instructions counted: with
//! `Copybreak::Off`, and with `Copybreak::Auto`, which has learned that the engine does not pay, and
//! goes on trying it now and then. `cargo xtask callgrind` compares the two.
//!
//! The argument says what is counted, one a run: `off` or `auto`, and the length of the read.

use std::{hint::black_box, mem, time::Duration};

use bench::{Bench, pattern};
use clock::Costs;
use dmaengine::{Target, lend};
use netdma::{Conditions, Copybreak, Offload, Request, RxPacket, Verdict, Waiting, WorkClock};
use netstack::{Checksum, RxMeta};

#[path = "../tests/offload/bench.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod bench;
#[path = "../tests/offload/clock.rs"]
#[expect(dead_code, reason = "likewise")]
mod clock;

/// Receives that are counted: some trials of the other side are among them.
const COUNTED: usize = 4000;
/// Receives before, in which `auto` learns.
const LEARNING: usize = 4000;
/// What waiting for the engine costs a thread here: more than any copy.
const WAIT: Duration = Duration::from_millis(1);

/// What passes between two looks at the clock.
const WORK: Duration = Duration::from_micros(1);

fn main() {
    // `cargo bench` adds `--bench`.
    let what = std::env::args().skip(1).find(|argument| argument != "--bench");
    let what = what.as_deref().unwrap_or("off-64");
    let (copybreak, len) = what.split_once('-').expect("off-LEN or auto-LEN");
    let copybreak: Copybreak = copybreak.parse().expect("off or auto");
    let len: usize = len.parse().expect("bytes");
    let mut bench = Bench::new(copybreak);
    clock::set(Costs { cpu: WORK, submit: WORK, poll: WORK });
    let offload = mem::replace(&mut bench.offload, Offload::new(None, copybreak));
    bench.offload = offload.timed_by(WorkClock::Running(clock::now));
    // Nagle would wait for acknowledgements, and time stands still.
    bench.sender.set_nodelay(bench.now, bench.client, true);
    let (bytes, mut buffer) = (pattern(len), vec![0; len]);
    let mut frames = Vec::new();
    for round in 0..LEARNING + COUNTED {
        assert_eq!(bench.sender.send(bench.now, bench.client, &bytes), Ok(len));
        let call = if round < LEARNING { receive } else { counted_receive };
        let mut received = 0;
        // At first the congestion window lets less arrive than is sent.
        while received < len {
            arrive(&mut bench, &mut frames);
            received +=
                lend(&mut buffer[received..], |target| call(&mut bench, &mut frames, target));
            assert!(received == len || round < LEARNING, "one call a read");
            bench.answers();
        }
        assert!(black_box(&buffer) == &bytes);
        buffer.fill(0);
    }
    println!("operations: {COUNTED}");
}

/// Collects what the sender has to send.
fn arrive(bench: &mut Bench, frames: &mut Vec<RxPacket>) {
    let Bench { sender, pool, frame, now, .. } = bench;
    while let Some(meta) = sender.poll_transmit(*now, frame) {
        let mut slot = pool.take().expect("enough buffers");
        slot.as_mut()[..meta.len].copy_from_slice(&frame[..meta.len]);
        frames.push(RxPacket(slot.freeze(meta.len)));
    }
}

#[inline(never)]
fn counted_receive(bench: &mut Bench, frames: &mut Vec<RxPacket>, target: Target) -> usize {
    receive(bench, frames, target)
}

/// All that the receiving thread does for a read: from the frames to the bytes in the buffer.
#[inline]
fn receive(bench: &mut Bench, frames: &mut Vec<RxPacket>, target: Target) -> usize {
    let Bench { receiver: stack, offload, server, now, .. } = bench;
    let (socket, now) = (*server, *now);
    for frame in frames.drain(..) {
        stack.receive(now, frame, RxMeta { checksum: Checksum::Verified });
    }
    let request = Request { waiting: Waiting::ForMore, ..Request::default() };
    let receive = offload.post(socket, target, request);
    offload.serve(stack, now, socket);
    offload.settle_one(receive);
    let conditions = Conditions { may_wait: true, interrupted: false };
    while offload.check(stack, receive, conditions) == Verdict::Copying {
        offload.add_wait(WAIT);
        offload.reap(stack, now, |_| {});
    }
    offload.withdraw(receive).expect("all copies have ended")
}
