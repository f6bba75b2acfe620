//! What a socket is ready for.

use super::peer::*;
use crate::{ConnectionError, PollFlags, ReceiveStatus, SendError};
use std::net::SocketAddrV4;

const IN: PollFlags = PollFlags::IN;
const OUT: PollFlags = PollFlags::OUT;
const ERR: PollFlags = PollFlags::ERR;
const HUP: PollFlags = PollFlags::HUP;
const RDHUP: PollFlags = PollFlags::RDHUP;

#[test]
fn bytes_make_it_readable_from_the_low_water_mark_on() {
    let (mut peer, socket) = Peer::accepted(config());
    assert_eq!(peer.stack.poll(socket), OUT);
    peer.stack.set_low_water(socket, 5);
    peer.send(ACK, b"four");
    assert_eq!(peer.stack.poll(socket), OUT);
    peer.send(ACK, b"5");
    assert_eq!(peer.stack.poll(socket), OUT | IN);
    peer.read(socket);
    assert_eq!(peer.stack.poll(socket), OUT);
    // The mark is limited, or nothing would ever be read.
    peer.stack.set_low_water(socket, usize::MAX);
    assert_eq!(peer.stack.low_water(socket), 30_000);
    peer.stack.set_low_water(socket, 0);
    assert_eq!(peer.stack.low_water(socket), 1);
}

#[test]
fn a_full_buffer_is_readable_whatever_the_low_water_mark() {
    let (mut peer, socket) = Peer::accepted(config());
    peer.stack.set_low_water(socket, usize::MAX);
    // A byte holds as much memory as a segment.
    let mut sent = 0;
    while !peer.stack.poll(socket).contains(IN) {
        peer.send(ACK, b"x");
        sent += 1;
        assert!(sent < 30, "the buffer of 60000 bytes is full");
    }
    assert!(sent > 20, "only then: {sent}");
}

#[test]
fn an_urgent_byte_alone_is_nothing_to_read() {
    let (mut peer, socket) = Peer::accepted(config());
    peer.urgent = 1;
    peer.send(ACK | URG, b"!");
    assert_eq!(peer.stack.poll(socket), OUT | PollFlags::PRI);
    peer.stack.set_urgent_inline(socket, true);
    assert_eq!(peer.stack.poll(socket), OUT | PollFlags::PRI | IN);
}

#[test]
fn room_makes_it_writable_again_and_says_so() {
    let (mut peer, socket) = Peer::accepted(config());
    peer.stack.send(peer.now, socket, &[1; 70_000]).expect("room");
    assert_eq!(peer.stack.poll(socket), PollFlags::empty());
    peer.changes(socket);
    let sent: usize = peer.drain().iter().map(|sent| sent.payload.len()).sum();
    peer.ack += sent;
    peer.send(ACK, b"");
    assert!(peer.changes(socket).contains(crate::Readiness::WRITABLE));
    assert_eq!(peer.stack.poll(socket), OUT);
}

#[test]
fn ends_and_errors() {
    // The peer has sent everything.
    let (mut peer, socket) = Peer::accepted(config());
    peer.send(ACK | FIN, b"");
    assert_eq!(peer.stack.poll(socket), OUT | IN | RDHUP);
    // So have we.
    peer.stack.shutdown(peer.now, socket).expect("connected");
    assert_eq!(peer.stack.poll(socket), OUT | IN | RDHUP | HUP);

    // We receive no more.
    let (mut peer, socket) = Peer::accepted(config());
    assert_eq!(peer.stack.shutdown_receive(socket), Ok(()));
    assert_eq!(peer.stack.poll(socket), OUT | IN | RDHUP);
    assert_eq!(peer.stack.receive_status(socket), ReceiveStatus::EndOfStream);
    // What comes nevertheless can be read.
    peer.send(ACK, b"late");
    assert_eq!(peer.read(socket), b"late");

    // We neither receive nor send: who sends to us is reset.
    let (mut peer, socket) = Peer::accepted(config());
    assert_eq!(peer.stack.shutdown_receive(socket), Ok(()));
    peer.stack.shutdown(peer.now, socket).expect("connected");
    peer.expect(ACK | FIN);
    peer.send(ACK, b"lost");
    peer.expect(RST | ACK);
    assert_eq!(peer.stack.poll(socket), OUT | IN | RDHUP | HUP | ERR);
    assert_eq!(peer.stack.take_error(socket), Some(ConnectionError::Reset));

    // A reset.
    let (mut peer, socket) = Peer::accepted(config());
    peer.send(RST, b"");
    assert_eq!(peer.stack.poll(socket), OUT | IN | RDHUP | HUP | ERR);
    assert_eq!(peer.stack.take_error(socket), Some(ConnectionError::Reset));
    assert_eq!(peer.stack.poll(socket), OUT | IN | RDHUP | HUP);
    assert_eq!(peer.stack.take_error(socket), None);
    assert_eq!(peer.stack.receive_status(socket), ReceiveStatus::EndOfStream);
    assert_eq!(peer.stack.send(peer.now, socket, b"x"), Err(SendError::ShutDown));
    assert_eq!(peer.stack.shutdown(peer.now, socket), Err(ConnectionError::NotOpen));

    // A reset after the end of the stream.
    let (mut peer, socket) = Peer::accepted(config());
    peer.send(ACK | FIN, b"");
    peer.send(RST, b"");
    assert_eq!(peer.stack.receive_status(socket), ReceiveStatus::EndOfStream);
    let error = Err(SendError::Connection(ConnectionError::BrokenPipe));
    assert_eq!(peer.stack.send(peer.now, socket, b"x"), error);
    assert_eq!(peer.stack.send(peer.now, socket, b"x"), Err(SendError::ShutDown));
}

#[test]
fn a_connection_under_way_is_ready_for_nothing() {
    let mut peer = Peer::new(config());
    let remote = SocketAddrV4::new(THEIRS, PORT);
    let socket = peer.stack.connect(peer.now, remote).expect("a route");
    assert_eq!(peer.stack.poll(socket), PollFlags::empty());
    assert_eq!(peer.stack.receive_status(socket), ReceiveStatus::Open);
}

#[test]
fn a_listener_is_readable_while_a_connection_waits() {
    let mut peer = Peer::new(config());
    let listener = peer.listen();
    peer.send(SYN, b"");
    peer.ack = peer.expect(SYN | ACK).header.seq + 1;
    assert_eq!(peer.stack.poll_listener(listener), PollFlags::empty());
    peer.send(ACK, b"");
    assert_eq!(peer.stack.poll_listener(listener), IN);
    peer.stack.accept(listener).expect("one");
    assert_eq!(peer.stack.poll_listener(listener), PollFlags::empty());
}
