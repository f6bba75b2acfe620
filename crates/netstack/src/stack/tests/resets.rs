//! RFC 5961: what an attacker who guesses can do, and the resets that are real.

use super::peer::*;
use crate::{
    ConnectionError, DropReason, Readiness, ReceiveStatus, SendError, tcp::seq::SeqNumber,
};
use std::time::Duration;

#[test]
fn only_the_exact_sequence_number_resets() {
    let (mut peer, socket) = Peer::accepted(config());
    peer.send_at(RST, peer.seq + 1, b"");
    peer.send_at(RST, peer.seq + 60_001, b"");
    peer.send_at(RST, peer.seq - 1, b"");
    assert_eq!(peer.drops(DropReason::TcpBadReset), 3);
    // The one in the window is challenged; the honest peer would then repeat it exactly.
    assert_eq!(peer.drain().len(), 1);
    assert_eq!(peer.stack.receive_status(socket), ReceiveStatus::Open);

    peer.send(ACK, b"before");
    peer.send(RST, b"");
    assert_eq!(peer.stack.receive_status(socket), ReceiveStatus::Failed(ConnectionError::Reset));
    let changes = peer.changes(socket);
    assert!(changes.contains(Readiness::ERROR | Readiness::CLOSED | Readiness::READABLE));
    // What had arrived is still delivered.
    assert_eq!(peer.read(socket), b"before");
    let error = Err(SendError::Connection(ConnectionError::Reset));
    assert_eq!(peer.stack.send(peer.now, socket, b"x"), error);
    peer.expect_nothing();
    assert_eq!(peer.stack.statistics().tcp.resets_received, 1);
}

#[test]
fn a_syn_in_a_connection_is_challenged_at_a_limited_rate() {
    let (mut peer, socket) = Peer::accepted(config());
    for n in 0..10 {
        peer.send_at(SYN, peer.seq + n, b"");
    }
    assert_eq!(peer.drops(DropReason::TcpUnexpectedSyn), 10);
    assert_eq!(peer.expect(ACK).header.ack, peer.seq);
    peer.expect_nothing();
    assert_eq!(peer.stack.statistics().tcp.challenge_acks, 1);
    peer.now += Duration::from_millis(500);
    peer.send_at(SYN, peer.seq, b"");
    peer.expect(ACK);
    assert_eq!(peer.stack.receive_status(socket), ReceiveStatus::Open);
}

#[test]
fn acknowledgments_of_nothing_are_challenged() {
    let (mut peer, socket) = Peer::accepted(config());
    let good = peer.ack;
    peer.ack = good + 1;
    peer.send_at(ACK, peer.seq, b"forged");
    peer.ack = good - 1_000_000;
    peer.send_at(ACK, peer.seq, b"forged");
    assert_eq!(peer.drops(DropReason::TcpBadAck), 2);
    assert_eq!(peer.drain().len(), 1);
    // One that is merely old is not.
    peer.ack = good - 10;
    peer.send(ACK, b"old");
    assert_eq!(peer.read(socket), b"old");
}

#[test]
fn segments_without_ack_are_dropped() {
    let (mut peer, socket) = Peer::accepted(config());
    peer.send_at(PSH, peer.seq, b"data");
    assert_eq!(peer.drops(DropReason::TcpUnexpectedFlags), 1);
    assert_eq!(peer.stack.receive_available(socket), 0);
}

#[test]
fn closed_ports_reset() {
    let mut peer = Peer::new(config());
    peer.send_at(SYN, IRS, b"");
    let reset = peer.expect(RST | ACK).header;
    assert_eq!((reset.seq, reset.ack), (SeqNumber(0), IRS + 1));
    peer.ack = SeqNumber(77);
    peer.send_at(ACK, IRS, b"data");
    assert_eq!(peer.expect(RST).header.seq, SeqNumber(77));
    assert_eq!(peer.drops(DropReason::TcpNoSocket), 2);
    peer.send_at(RST, IRS, b"");
    peer.expect_nothing();
    assert_eq!(peer.drops(DropReason::TcpBadReset), 1);
}

#[test]
fn a_listener_takes_only_syns() {
    let mut peer = Peer::new(config());
    peer.listen();
    peer.ack = SeqNumber(5);
    peer.send_at(ACK, IRS, b"");
    assert_eq!(peer.expect(RST).header.seq, SeqNumber(5));
    peer.send_at(SYN | FIN, IRS, b"");
    peer.send_at(PSH, IRS, b"");
    assert_eq!(peer.drops(DropReason::TcpUnexpectedFlags), 2);
    peer.expect_nothing();
}

#[test]
fn a_reset_ends_a_half_open_connection() {
    let mut peer = Peer::new(config());
    let listener = peer.listen();
    peer.send(SYN, b"");
    peer.ack = peer.expect(SYN | ACK).header.seq + 1;
    peer.send_at(RST, peer.seq + 1, b"");
    assert_eq!(peer.drops(DropReason::TcpBadReset), 1);
    peer.send_at(RST, peer.seq, b"");
    assert_eq!(peer.stack.poll_timeout(), None);
    peer.send_at(ACK, peer.seq, b"");
    assert_eq!(peer.stack.accept(listener), None);
}

#[test]
fn a_reset_before_accept_leaves_nothing() {
    let mut peer = Peer::new(config());
    let listener = peer.listen();
    peer.send(SYN, b"");
    peer.ack = peer.expect(SYN | ACK).header.seq + 1;
    peer.send(ACK, b"");
    peer.send(RST, b"");
    assert_eq!(peer.stack.accept(listener), None);
    assert_eq!(peer.stack.poll_timeout(), None);
}
