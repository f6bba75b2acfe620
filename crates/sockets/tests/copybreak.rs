//! `tcp_dma_copybreak`, of a stack and of a stream: who copies what a program reads.

use std::{io::Write, time::Duration};

use netdma::{
    Copybreak::{Bytes, Off},
    Counters, CpuCause,
};
use sockets::{ReceiveRing, RecvFlags, Stack, TcpListener, TcpStream};

use self::pair::{SERVER, connect, pair, pattern};

mod pair;

/// Whether the engine fails.
const FAILS: bool = false;

/// What each read asks for, and gets.
const LEN: usize = 50_000;
/// A wake-up that is lost shows as this timeout.
const LOST: Option<Duration> = Some(Duration::from_secs(10));

#[derive(Clone, Copy, Debug)]
enum Way {
    Blocking,
    Posted,
}

/// Receives `LEN` bytes in one piece; the bytes that each cause had, and those of no cause: the engine's,
/// and what the CPU had of them for other reasons.
fn receive(way: Way, client: &mut TcpStream, stream: &TcpStream) -> [u64; 3] {
    let data = pattern(LEN, 3);
    let before = stream.stack().statistics().offload;
    let received = match way {
        Way::Blocking => {
            client.write_all(&data).unwrap();
            let mut buffer = vec![0; LEN];
            assert_eq!(stream.recv(&mut buffer, RecvFlags::WAITALL).unwrap(), LEN);
            buffer
        }
        Way::Posted => {
            let mut ring = ReceiveRing::new(stream);
            ring.post_with(vec![0; LEN], RecvFlags::WAITALL);
            client.write_all(&data).unwrap();
            let done = ring.wait(LOST).unwrap().expect("outstanding");
            assert_eq!(done.result.unwrap(), LEN);
            done.buffer
        }
    };
    assert!(received == data);
    let after = stream.stack().statistics().offload;
    let all = |counters: &Counters| counters.bytes_by_engine + counters.bytes_by_cpu_total();
    let by = |cause| after.bytes_by_cpu[cause as usize] - before.bytes_by_cpu[cause as usize];
    let (policy, copybreak) = (by(CpuCause::Policy), by(CpuCause::Copybreak));
    [policy, copybreak, all(&after) - all(&before) - policy - copybreak]
}

const ALL: u64 = LEN as u64;
const POLICY: [u64; 3] = [ALL, 0, 0];
const COPYBREAK: [u64; 3] = [0, ALL, 0];
const ENGINE: [u64; 3] = [0, 0, ALL];

fn connected() -> (Stack, TcpStream, TcpStream) {
    let (client, server) = pair();
    let (client, stream) = connect(&client, &TcpListener::bind(&server, SERVER).unwrap());
    (server, client, stream)
}

#[test]
fn the_stacks_counts_from_the_next_read_on() {
    let (server, mut client, stream) = connected();
    for way in [Way::Blocking, Way::Posted] {
        for (copybreak, expected) in [
            (Off, POLICY),
            (Bytes(LEN), COPYBREAK),
            (Bytes(LEN - 1), ENGINE),
            (Bytes(usize::MAX), COPYBREAK),
            (Bytes(0), ENGINE),
        ] {
            server.set_tcp_dma_copybreak(copybreak);
            assert_eq!(server.tcp_dma_copybreak(), copybreak);
            let by_cause = receive(way, &mut client, &stream);
            assert_eq!(by_cause, expected, "{way:?}, {copybreak}");
        }
    }
    assert!(server.statistics().offload.bytes_by_engine > 0);
}

#[test]
fn a_streams_own_counts_for_that_stream_alone() {
    let (client, server) = pair();
    let listener = TcpListener::bind(&server, SERVER).unwrap();
    let (mut client, stream) = connect(&client, &listener);
    for way in [Way::Blocking, Way::Posted] {
        for (stacks, own, expected) in [
            (Bytes(0), Some(Off), POLICY),
            (Bytes(0), Some(Bytes(LEN)), COPYBREAK),
            (Bytes(0), None, ENGINE),
            (Off, Some(Bytes(LEN - 1)), ENGINE),
            (Off, None, POLICY),
            (Bytes(LEN), Some(Bytes(0)), ENGINE),
        ] {
            server.set_tcp_dma_copybreak(stacks);
            stream.set_tcp_dma_copybreak(own);
            assert_eq!(stream.tcp_dma_copybreak(), own);
            assert_eq!(server.tcp_dma_copybreak(), stacks, "the stack's is as it was");
            let by_cause = receive(way, &mut client, &stream);
            assert_eq!(by_cause, expected, "{way:?}, {stacks}, own {own:?}");
        }
    }
}
