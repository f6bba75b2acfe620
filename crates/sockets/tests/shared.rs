//! Several threads in receive calls on one socket: CVE-2019-3837. `NET_DMA` kept the state of a call,
//! its pinned pages and its cookies, in the socket; one thread's call let the other's copies go.
//!
//! The bytes are shared out between the calls, each of which gets them from one place of the stream.
//! None is lost, none comes twice, and none is written to a buffer after its call has returned.

use std::{
    io::Write,
    net::Shutdown,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use sockets::{ReceiveRing, RecvFlags, TcpListener, TcpStream};

use self::pair::{SERVER, check_faults, connect, pair};

mod pair;

/// Whether the engine fails.
#[allow(dead_code, reason = "as a part of `failing` it goes by the one there")]
const FAILS: bool = false;

/// 64-bit words that follow from their number, and tell it.
const WORDS: u64 = 1 << 20;
const LEN: usize = 8 * WORDS as usize;
/// Odd: the words of all numbers differ. Its inverse modulo 2 to the power of 64 gives the number back.
const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
/// So many bytes have a whole word among them.
const TELLING: usize = 15;

const fn inverse(factor: u64) -> u64 {
    // Newton's iteration doubles the bits that are right, of which there are 3 at first.
    let mut inverse = factor;
    let mut bits = 3;
    while bits < 64 {
        inverse = inverse.wrapping_mul(2_u64.wrapping_sub(factor.wrapping_mul(inverse)));
        bits *= 2;
    }
    inverse
}

fn byte(at: usize) -> u8 {
    (at as u64 / 8).wrapping_mul(FACTOR).to_le_bytes()[at % 8]
}

/// Where in the stream a piece is from; `None` if it is from nowhere, or too short to tell.
fn place(piece: &[u8]) -> Option<usize> {
    (0..8).find_map(|shift| {
        let word = piece.get(shift..shift + 8)?;
        let number = u64::from_le_bytes(word.try_into().unwrap()).wrapping_mul(inverse(FACTOR));
        let start = (number < WORDS).then(|| number as usize * 8)?.checked_sub(shift)?;
        let is_it = piece.iter().zip(start..LEN).all(|(&seen, at)| seen == byte(at));
        (is_it && start + piece.len() <= LEN).then_some(start)
    })
}

/// Checks that the pieces are the stream, cut up.
fn check(pieces: &[Vec<u8>]) {
    assert_eq!(pieces.iter().map(Vec::len).sum::<usize>(), LEN);
    let mut places = Vec::new();
    let mut short = Vec::new();
    for piece in pieces {
        match place(piece) {
            Some(start) => places.push(start..start + piece.len()),
            None => short.push(&piece[..]),
        }
    }
    places.sort_unstable_by_key(|place| place.start);
    places.push(LEN..LEN);
    let mut end = 0;
    for place in places {
        assert!(place.start >= end, "bytes {}..{end} came twice", place.start);
        // What is missing came in pieces that do not tell where they are from: each is there once.
        while end < place.start {
            let rest: Vec<u8> = (end..place.start).map(byte).collect();
            let found = short.iter().position(|piece| rest.starts_with(piece));
            let found = found.unwrap_or_else(|| panic!("bytes {end}..{} lost", place.start));
            let piece = short.swap_remove(found);
            assert!(piece.len() < TELLING, "{} bytes of no place", piece.len());
            end += piece.len();
        }
        end = place.end;
    }
    assert!(short.is_empty(), "{short:?} from nowhere");
}

fn send(mut client: TcpStream) {
    let data: Vec<u8> =
        (0..WORDS).flat_map(|word| word.wrapping_mul(FACTOR).to_le_bytes()).collect();
    client.write_all(&data).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
}

/// Reads to the end of the stream, in pieces of at most `len` bytes. What a call has returned, it
/// compares again when the next has returned: nothing may be written to it any more.
fn read(stream: &TcpStream, len: usize, flags: RecvFlags) -> Vec<Vec<u8>> {
    let mut pieces: Vec<Vec<u8>> = Vec::new();
    let mut last: Vec<u8> = Vec::new();
    loop {
        let mut buffer = vec![0; len];
        let got = stream.recv(&mut buffer, flags).unwrap();
        if let Some(piece) = pieces.last() {
            assert!(last.starts_with(piece), "it changed after its call had returned");
        }
        if got == 0 {
            return pieces;
        }
        pieces.push(buffer[..got].to_vec());
        last = buffer;
    }
}

#[test]
fn two_threads_get_every_byte_once() {
    let (client, server) = pair();
    let listener = TcpListener::bind(&server, SERVER).unwrap();
    for (lens, flags) in [
        ([64 << 10, 64 << 10], RecvFlags::empty()),
        ([100_003, 5_001], RecvFlags::empty()),
        ([40_009, 70_001], RecvFlags::WAITALL),
    ] {
        let (client, stream) = connect(&client, &listener);
        let pieces = thread::scope(|scope| {
            scope.spawn(|| send(client));
            let stream = &stream;
            let readers = lens.map(|len| scope.spawn(move || read(stream, len, flags)));
            readers.map(|reader| reader.join().unwrap()).concat()
        });
        check(&pieces);
    }
    let counters = server.statistics().offload;
    assert!(counters.bytes_by_engine > 0, "{counters:?}");
    check_faults(&server);
}

#[test]
fn many_threads_and_posted_buffers_get_every_byte_once() {
    const THREADS: usize = 6;
    let (client, server) = pair();
    let (client, stream) = connect(&client, &TcpListener::bind(&server, SERVER).unwrap());
    let posted = AtomicUsize::new(0);
    let pieces = thread::scope(|scope| {
        scope.spawn(|| send(client));
        let stream = &stream;
        // First in the line, so that they have their turn.
        let mut ring = ReceiveRing::new(stream);
        (0..4).for_each(|_| ring.post(vec![0; 30_011]));
        let ring = scope.spawn(|| {
            let mut ring = ring;
            let mut pieces = Vec::new();
            while let Some(received) = ring.wait(None).unwrap() {
                match received.result.unwrap() {
                    0 => continue,
                    len => pieces.push(received.buffer[..len].to_vec()),
                }
                // Relaxed: a counter.
                posted.fetch_add(1, Ordering::Relaxed);
                ring.post(received.buffer);
            }
            pieces
        });
        let readers: Vec<_> = (0..THREADS)
            .map(|number| {
                let flags = [RecvFlags::empty(), RecvFlags::WAITALL][number % 2];
                scope.spawn(move || read(stream, 3_001 + 20_000 * number, flags))
            })
            .collect();
        let mut pieces = ring.join().unwrap();
        readers.into_iter().for_each(|reader| pieces.extend(reader.join().unwrap()));
        pieces
    });
    check(&pieces);
    check_faults(&server);
    assert!(posted.into_inner() > 0, "posted buffers had their turn");
}
