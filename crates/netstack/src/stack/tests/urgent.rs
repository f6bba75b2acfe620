//! Urgent data, as packets have it.

use super::peer::*;
use crate::{LinkCapabilities, PollFlags, Readiness, ReceiveStatus, SocketId, UrgentError};
use std::time::Duration;

/// A connection on which "abc" has come, then "!" as urgent data, then "def".
fn with_urgent_byte() -> (Peer, SocketId) {
    let (mut peer, socket) = Peer::accepted(config());
    peer.send(ACK, b"abc");
    peer.urgent = 1;
    peer.send(ACK | URG | PSH, b"!");
    peer.send(ACK, b"def");
    (peer, socket)
}

fn take(peer: &mut Peer, socket: SocketId) -> Option<Vec<u8>> {
    let segment = peer.stack.take(socket, 100)?;
    let bytes = segment.payload().to_vec();
    peer.stack.release(peer.now, socket, segment.charge);
    Some(bytes)
}

#[test]
fn the_urgent_byte_is_read_once_and_out_of_band() {
    let (mut peer, socket) = with_urgent_byte();
    assert!(peer.changes(socket).contains(Readiness::URGENT));
    assert!(peer.stack.poll(socket).contains(PollFlags::PRI));
    assert_eq!(peer.stack.receive_urgent(socket, true), Ok(Some(b'!')));
    assert_eq!(peer.stack.receive_urgent(socket, false), Ok(Some(b'!')));
    assert_eq!(peer.stack.receive_urgent(socket, false), Err(UrgentError::Nothing));
    assert!(!peer.stack.poll(socket).contains(PollFlags::PRI));
    assert_eq!(peer.stack.bytes_to_mark(socket), 3);
    assert_eq!(take(&mut peer, socket).as_deref(), Some(&b"abc"[..]));
    assert!(peer.stack.is_at_mark(socket));
    assert_eq!(peer.stack.bytes_to_mark(socket), 0);
    assert_eq!(take(&mut peer, socket).as_deref(), Some(&b"def"[..]));
    assert!(!peer.stack.is_at_mark(socket));
    assert_eq!(peer.stack.tcp_info(socket).map(|info| info.receive_charged), Some(0));
}

#[test]
fn reading_past_the_mark_loses_the_urgent_byte() {
    let (mut peer, socket) = with_urgent_byte();
    while take(&mut peer, socket).is_some() {}
    assert_eq!(peer.stack.receive_urgent(socket, false), Err(UrgentError::Nothing));
}

#[test]
fn inline_it_is_one_of_the_bytes() {
    let (mut peer, socket) = with_urgent_byte();
    peer.stack.set_urgent_inline(socket, true);
    assert_eq!(peer.stack.receive_urgent(socket, false), Err(UrgentError::Nothing));
    assert_eq!(peer.stack.bytes_to_mark(socket), 7);
    let read: Vec<_> = std::iter::from_fn(|| take(&mut peer, socket)).collect();
    assert_eq!(read, [&b"abc"[..], b"!", b"def"]);
}

#[test]
fn it_is_announced_before_it_comes_and_found_behind_a_gap() {
    let (mut peer, socket) = Peer::accepted(config());
    // A segment may announce what only a later one carries: the last byte of "defg!".
    peer.urgent = 8;
    peer.send(ACK | URG, b"abc");
    assert_eq!(peer.changes(socket), Readiness::READABLE | Readiness::URGENT);
    assert_eq!(peer.stack.receive_urgent(socket, false), Err(UrgentError::NotArrived));
    assert!(!peer.stack.poll(socket).contains(PollFlags::PRI));
    peer.send_at(ACK, peer.seq + 2, b"fg!");
    assert_eq!(peer.changes(socket), Readiness::URGENT);
    assert_eq!(peer.stack.receive_urgent(socket, false), Ok(Some(b'!')));
    peer.send(ACK, b"de");
    let read: Vec<_> = std::iter::from_fn(|| take(&mut peer, socket)).collect();
    assert_eq!(read.concat(), b"abcdefg");
    // It was in order, so it is at the mark; nothing else is left.
    assert_eq!(peer.stack.receive_available(socket), 0);
}

#[test]
fn pointers_at_old_bytes_are_no_news() {
    let (mut peer, socket) = with_urgent_byte();
    peer.changes(socket);
    peer.urgent = 1;
    peer.send_at(ACK | URG, peer.seq - 1, b"f");
    assert_eq!(peer.changes(socket), Readiness::empty());
    assert_eq!(peer.stack.receive_urgent(socket, false), Ok(Some(b'!')));
}

#[test]
fn announced_data_never_comes_once_the_stream_has_ended() {
    let (mut peer, socket) = Peer::accepted(config());
    peer.urgent = 10;
    peer.send(ACK | URG, b"abc");
    peer.send(ACK | FIN, b"");
    assert_eq!(peer.stack.receive_urgent(socket, false), Ok(None));
    peer.ack = peer.drain().last().expect("an acknowledgment").header.seq;
    peer.send(RST, b"");
    assert_eq!(peer.stack.receive_urgent(socket, false), Ok(None));

    let (mut peer, socket) = with_urgent_byte();
    peer.send(RST, b"");
    assert_eq!(peer.stack.receive_urgent(socket, false), Err(UrgentError::NotConnected));
    assert_eq!(peer.stack.take(socket, 10).expect("what had come").payload(), b"abc");
    assert!(matches!(peer.stack.receive_status(socket), ReceiveStatus::Failed(_)));
}

#[test]
fn a_byte_sent_as_urgent_is_pointed_behind_until_it_is_acknowledged() {
    let (mut peer, socket) = Peer::accepted(config());
    assert_eq!(peer.stack.send_urgent(peer.now, socket, b"abc!"), Ok(4));
    let sent = peer.expect(ACK | PSH | URG);
    assert_eq!((sent.header.urgent, &sent.payload[..]), (4, &b"abc!"[..]));
    // Nagle's algorithm does not hold back what is urgent.
    peer.stack.send(peer.now, socket, b"d").expect("room");
    let later = peer.expect(ACK | PSH);
    assert_eq!((later.header.urgent, &later.payload[..]), (0, &b"d"[..]));
    // Sent again, it is still urgent.
    peer.wait(Duration::from_secs(10));
    let again = peer.expect(ACK | PSH | URG);
    assert_eq!((again.header.seq, again.header.urgent), (sent.header.seq, 4));
    peer.ack += 5;
    peer.send(ACK, b"");
    peer.drain();
    peer.stack.send(peer.now, socket, b"e").expect("room");
    assert_eq!(peer.expect(ACK | PSH).payload, b"e");
}

#[test]
fn every_segment_before_the_urgent_byte_announces_it() {
    let mut config = config();
    config.link = LinkCapabilities { mtu: 1500, checksum_offload: true, tso_max: Some(65_549) };
    let (mut peer, socket) = Peer::accepted(config);
    peer.stack.send_urgent(peer.now, socket, &[7; 2500]).expect("room");
    let sent = peer.drain();
    let pointers: Vec<_> = sent.iter().map(|sent| sent.header.urgent).collect();
    assert_eq!(pointers, [2500, 1500, 500], "segments of the peer's size, not one super-frame");
    assert!(sent.iter().all(|sent| sent.header.flags.contains(URG)));
}

#[test]
fn a_pointer_goes_as_far_as_it_can() {
    let mut config = config();
    config.tcp.send_buffer = 200_000;
    let (mut peer, socket) = Peer::accepted(config);
    peer.stack.send_urgent(peer.now, socket, &[7; 100_000]).expect("room");
    let sent = peer.drain();
    assert!(sent.iter().all(|sent| sent.header.urgent == u16::MAX), "{:?}", sent[0].header);
}

#[test]
fn a_closed_window_lets_the_announcement_through() {
    let (mut peer, socket) = Peer::accepted(config());
    peer.window = 0;
    peer.send(ACK, b"");
    peer.drain();
    peer.stack.send_urgent(peer.now, socket, b"!").expect("room");
    peer.expect_nothing();
    peer.wait(Duration::from_secs(5));
    let announced = peer.expect(ACK | URG);
    assert_eq!((announced.header.seq, announced.header.urgent), (peer.ack, 1));
    assert_eq!(announced.payload, b"");
    let probe = peer.expect(ACK | URG);
    assert_eq!(probe.header.seq, peer.ack - 1);
}
