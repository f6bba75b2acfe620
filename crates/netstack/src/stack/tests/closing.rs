use super::peer::*;
use crate::{
    Charge, ConnectionError, DropReason, Readiness, ReceiveStatus, SendError, SocketId, TcpConfig,
    TcpState, tcp::seq::SeqNumber,
};
use std::time::Duration;

impl Peer {
    fn state(&self, socket: SocketId) -> Option<TcpState> {
        self.stack.tcp_info(socket).map(|info| info.state)
    }
}

#[test]
fn we_close_first_and_wait() {
    let (mut peer, socket) = Peer::accepted(config());
    peer.stack.shutdown(peer.now, socket).expect("connected");
    peer.stack.shutdown(peer.now, socket).expect("twice is once");
    assert_eq!(peer.stack.send(peer.now, socket, b"x"), Err(SendError::ShutDown));
    let fin = peer.expect(FIN | ACK).header;
    assert_eq!(peer.state(socket), Some(TcpState::FinWait1));
    peer.ack = fin.seq + 1;
    peer.send(ACK, b"more");
    assert_eq!(peer.state(socket), Some(TcpState::FinWait2));
    assert_eq!(peer.read(socket), b"more");
    assert_eq!(peer.stack.receive_status(socket), ReceiveStatus::Open);
    peer.send(FIN | ACK, b"last");
    assert_eq!(peer.stack.receive_status(socket), ReceiveStatus::EndOfStream);
    let changes = peer.changes(socket);
    assert!(changes.contains(Readiness::PEER_CLOSED | Readiness::READABLE | Readiness::CLOSED));
    assert_eq!(peer.state(socket), Some(TcpState::TimeWait));
    // Bytes that arrived can still be read, here and after the wait.
    assert_eq!(peer.stack.receive_available(socket), 4);
    assert_eq!(peer.read(socket), b"last");
    assert_eq!(peer.expect(ACK).header.ack, peer.seq);

    // A repeated FIN is acknowledged again and restarts the wait.
    let wait = TcpConfig::default().time_wait;
    peer.wait(wait - Duration::from_secs(1));
    peer.send_at(FIN | ACK, peer.seq - 1, b"");
    assert_eq!(peer.expect(ACK).header.ack, peer.seq);
    peer.wait(Duration::from_secs(2));
    assert_eq!(peer.state(socket), Some(TcpState::TimeWait));
    peer.wait(wait);
    assert_eq!(peer.state(socket), Some(TcpState::Closed));
    peer.stack.close(peer.now, socket);
    assert_eq!(peer.state(socket), None);
    assert_eq!(peer.stack.poll_timeout(), None);
}

#[test]
fn the_peer_closes_first() {
    let (mut peer, socket) = Peer::accepted(config());
    peer.send(FIN | ACK, b"bye");
    assert_eq!(peer.changes(socket), Readiness::READABLE | Readiness::PEER_CLOSED);
    assert_eq!(peer.expect(ACK).header.ack, peer.seq);
    assert_eq!(peer.state(socket), Some(TcpState::CloseWait));
    assert_eq!(peer.stack.send(peer.now, socket, b"still"), Ok(5));
    assert_eq!(peer.expect(PSH | ACK).payload, b"still");
    assert_eq!(peer.read(socket), b"bye");
    peer.stack.close(peer.now, socket);
    let fin = peer.expect(FIN | ACK).header;
    peer.ack = fin.seq + 1;
    peer.send(ACK, b"");
    peer.expect_nothing();
    assert_eq!(peer.stack.poll_timeout(), None);
    // Nothing is left: whatever comes now is for no connection.
    peer.send(ACK, b"");
    assert_eq!(peer.drops(DropReason::TcpBadAck), 1);
}

#[test]
fn both_close_at_the_same_time() {
    let (mut peer, socket) = Peer::accepted(config());
    peer.stack.shutdown(peer.now, socket).expect("connected");
    let fin = peer.expect(FIN | ACK).header;
    peer.send(FIN | ACK, b"");
    assert_eq!(peer.state(socket), Some(TcpState::Closing));
    assert_eq!(peer.expect(ACK).header.ack, peer.seq);
    peer.ack = fin.seq + 1;
    peer.send(ACK, b"");
    assert_eq!(peer.state(socket), Some(TcpState::TimeWait));
    // There is nothing to acknowledge, so two ends that wait do not keep each other talking.
    peer.expect_nothing();
    peer.send(ACK, b"");
    peer.expect_nothing();
    assert_eq!(peer.stack.statistics().drops.total(), 0);
}

#[test]
fn fin_and_its_acknowledgment_in_one_segment() {
    let (mut peer, socket) = Peer::accepted(config());
    peer.stack.shutdown(peer.now, socket).expect("connected");
    peer.ack = peer.expect(FIN | ACK).header.seq + 1;
    peer.send(FIN | ACK, b"");
    assert_eq!(peer.state(socket), Some(TcpState::TimeWait));
    peer.expect(ACK);
}

#[test]
fn a_fin_out_of_order_waits_for_its_place() {
    let (mut peer, socket) = Peer::accepted(config());
    let start = peer.seq;
    peer.send_at(FIN | ACK, start + 5, b"world");
    assert_eq!(peer.stack.receive_status(socket), ReceiveStatus::Open);
    // What comes after the end does not count.
    peer.send_at(ACK, start + 10, b"beyond");
    peer.send_at(ACK, start, b"hello");
    assert_eq!(peer.read(socket), b"helloworld");
    assert_eq!(peer.stack.receive_status(socket), ReceiveStatus::EndOfStream);
    assert_eq!(peer.drain().last().map(|sent| sent.header.ack), Some(start + 11));
}

#[test]
fn data_and_fin_leave_in_order() {
    let (mut peer, socket) = Peer::accepted(config());
    assert_eq!(peer.stack.send(peer.now, socket, &[7; 1500]), Ok(1500));
    peer.stack.close(peer.now, socket);
    assert_eq!(peer.stack.send(peer.now, socket, b"x"), Err(ConnectionError::NotOpen.into()));
    assert_eq!(peer.expect(ACK).payload.len(), 1000);
    let last = peer.expect(FIN | PSH | ACK);
    assert_eq!(last.payload.len(), 500);
    // Both are lost: the timer brings the first, its acknowledgment the second.
    peer.wait(Duration::from_secs(5));
    assert_eq!(peer.expect(ACK).payload.len(), 1000);
    peer.ack += 1000;
    peer.send(ACK, b"");
    assert_eq!(peer.expect(FIN | PSH | ACK).header.seq, last.header.seq);
}

#[test]
fn unread_bytes_make_close_a_reset() {
    let (mut peer, socket) = Peer::accepted(config());
    peer.send(ACK, b"unread");
    peer.stack.close(peer.now, socket);
    let reset = peer.expect(RST | ACK).header;
    assert_eq!((reset.seq, reset.ack), (peer.ack, peer.seq));
    assert_eq!(peer.stack.poll_timeout(), None);
}

#[test]
fn bytes_after_close_are_answered_with_a_reset() {
    let (mut peer, socket) = Peer::accepted(config());
    peer.stack.close(peer.now, socket);
    peer.ack = peer.expect(FIN | ACK).header.seq + 1;
    peer.send(ACK, b"late");
    assert_eq!(peer.expect(RST | ACK).header.seq, peer.ack);
    assert_eq!(peer.drops(DropReason::TcpDataAfterClose), 1);
    assert_eq!(peer.stack.poll_timeout(), None);
}

#[test]
fn a_peer_that_never_closes_is_forgotten() {
    let (mut peer, socket) = Peer::accepted(config());
    peer.stack.close(peer.now, socket);
    peer.ack = peer.expect(FIN | ACK).header.seq + 1;
    peer.send(ACK, b"");
    peer.wait(Duration::from_secs(61));
    peer.expect_nothing();
    assert_eq!(peer.stack.poll_timeout(), None);
}

#[test]
fn an_orphan_is_given_up_sooner() {
    let (mut peer, socket) = Peer::accepted(config());
    peer.stack.close(peer.now, socket);
    let start = peer.now;
    loop {
        peer.drain();
        let Some(at) = peer.stack.poll_timeout() else { break };
        peer.wait(at - peer.now);
    }
    let waited = peer.now - start;
    assert!((100..200).contains(&waited.as_secs()), "{waited:?}");
}

#[test]
fn abort_resets_at_once() {
    let (mut peer, socket) = Peer::accepted(config());
    peer.stack.send(peer.now, socket, b"never delivered").expect("room");
    peer.stack.abort(peer.now, socket);
    peer.expect(RST | ACK);
    peer.expect_nothing();
    assert_eq!(peer.stack.poll_timeout(), None);
    // All of these name a socket that is gone.
    peer.stack.abort(peer.now, socket);
    peer.stack.close(peer.now, socket);
    peer.stack.release(peer.now, socket, Charge::whole(5));
    assert_eq!(peer.stack.take(socket, 1), None);
    assert_eq!(peer.stack.receive_status(socket), ReceiveStatus::Failed(ConnectionError::NotOpen));
}

#[test]
fn a_new_connection_may_take_the_place_of_one_in_time_wait() {
    let (mut peer, socket) = Peer::accepted(config());
    peer.stack.close(peer.now, socket);
    peer.ack = peer.expect(FIN | ACK).header.seq + 1;
    peer.send(FIN | ACK, b"");
    let old = peer.expect(ACK).header;
    // An old SYN does not (RFC 6191): it is answered as any old segment.
    peer.send_at(SYN, IRS, b"");
    assert_eq!(peer.expect(ACK).header.ack, old.ack);
    // Nor does a reset end the wait (RFC 1337).
    peer.send_at(RST, peer.seq, b"");
    assert!(peer.stack.poll_timeout().is_some());
    let seq: SeqNumber = peer.seq + 100;
    peer.send_at(SYN, seq, b"");
    assert_eq!(peer.expect(SYN | ACK).header.ack, seq + 1);
}

#[test]
fn time_wait_is_bounded() {
    let mut config = config();
    config.tcp.time_wait_max = 0;
    let (mut peer, socket) = Peer::accepted(config);
    peer.stack.close(peer.now, socket);
    peer.ack = peer.expect(FIN | ACK).header.seq + 1;
    peer.send(FIN | ACK, b"");
    assert_eq!(peer.stack.statistics().tcp.time_wait_overflows, 1);
    assert_eq!(peer.stack.poll_timeout(), None);
}
