//! A buffer is the program's again when the call returns: it can be freed, used for something else,
//! or unmapped, while copies into other buffers run. A write that came later would show.

use std::{
    ptr,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use ioat::lab::Pattern;
use netdma::RecvFlags;
use rustix::mm::{MapFlags, ProtFlags};
use sockets::TcpStream;

use crate::world::{Engine, World, send};

/// Other than a page, so that blocks of the heap lie side by side.
const LEN: usize = 50_000;
const ROUNDS: u64 = 200;
const CANARY: u8 = 0x5a;

pub(crate) fn test() {
    for engine in Engine::ALL {
        let world = World::new(engine);
        let [freed, unmapped, busy] = [(); 3].map(|()| world.connect());
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            for (client, number) in [(&freed.0, 0), (&unmapped.0, 1)] {
                scope.spawn(move || send(client, Pattern::new(number), ROUNDS * LEN as u64));
            }
            // Copies run all the time.
            scope.spawn(|| {
                let mut buffer = vec![0; 1 << 20];
                let mut offset = 0;
                loop {
                    let len = busy.1.recv(&mut buffer, RecvFlags::empty()).expect("bytes");
                    if len == 0 {
                        break;
                    }
                    assert_eq!(Pattern::new(2).first_wrong(offset, &buffer[..len]), None);
                    offset += len as u64;
                }
            });
            scope.spawn(|| {
                // Relaxed: it guards nothing.
                send_while(&busy.0, || !done.load(Ordering::Relaxed));
            });
            let frees = scope.spawn(|| frees(&freed.1, engine));
            let unmaps = scope.spawn(|| unmaps(&unmapped.1, engine));
            let outcomes = [frees.join(), unmaps.join()];
            done.store(true, Ordering::Relaxed);
            outcomes.into_iter().for_each(|outcome| outcome.expect("right"));
        });
    }
}

/// Sends, and then the end.
fn send_while(stream: &TcpStream, goes_on: impl Fn() -> bool) {
    let mut piece = vec![0; 65536];
    let mut offset = 0;
    while goes_on() {
        Pattern::new(2).fill(offset, &mut piece);
        let mut stream = stream;
        std::io::Write::write_all(&mut stream, &piece).expect("the receiver takes it");
        offset += piece.len() as u64;
    }
    stream.shutdown(std::net::Shutdown::Write).expect("connected");
}

/// Each buffer's memory is something else's right after the call.
fn frees(stream: &TcpStream, engine: Engine) {
    let mut canaries = Vec::new();
    for round in 0..ROUNDS {
        let mut buffer = vec![0; LEN];
        receive(stream, &mut buffer, 0, round, engine);
        let place = buffer.as_ptr();
        drop(buffer);
        // Mostly the same memory.
        let canary = vec![CANARY; LEN];
        canaries.push((canary.as_ptr() == place, canary));
        if canaries.len() == 10 {
            for (_, canary) in &canaries {
                assert!(canary.iter().all(|byte| *byte == CANARY), "{engine:?}: written later");
            }
            let same = canaries.drain(..).filter(|(is_same, _)| *is_same).count();
            assert!(same > 0, "the test wants memory that was a target");
        }
    }
}

/// Each buffer's memory cannot be accessed any more right after the call: who does is killed.
fn unmaps(stream: &TcpStream, engine: Engine) {
    let map = |at: *mut u8, protection| {
        let place = if at.is_null() { MapFlags::empty() } else { MapFlags::FIXED };
        // SAFETY: a fresh mapping, or one in the place of our own that nobody has a reference to.
        let at = unsafe {
            rustix::mm::mmap_anonymous(at.cast(), LEN, protection, MapFlags::PRIVATE | place)
        };
        at.expect("memory").cast::<u8>()
    };
    let mut held = Vec::new();
    for round in 0..ROUNDS {
        let at = map(ptr::null_mut(), ProtFlags::READ | ProtFlags::WRITE);
        // SAFETY: mapped above, and nobody else's; the reference ends before the mapping.
        let buffer = unsafe { std::slice::from_raw_parts_mut(at, LEN) };
        receive(stream, buffer, 1, round, engine);
        held.push(map(at, ProtFlags::empty()));
        if held.len() == 10 {
            for at in held.drain(..) {
                // SAFETY: our own, and nobody has a reference to it.
                unsafe { rustix::mm::munmap(at.cast(), LEN) }.expect("our own mapping");
            }
        }
    }
}

fn receive(stream: &TcpStream, buffer: &mut [u8], number: u64, round: u64, engine: Engine) {
    assert_eq!(stream.recv(buffer, RecvFlags::WAITALL).expect("bytes"), LEN);
    let wrong = Pattern::new(number).first_wrong(round * LEN as u64, buffer);
    assert_eq!(wrong, None, "{engine:?}: in round {round}");
}
