use super::peer::*;
use crate::{DropReason, Readiness};
use std::time::Duration;

const MSS: usize = 1400;

#[test]
fn segments_come_out_as_they_came_in() {
    let (mut peer, socket) = Peer::accepted(config());
    peer.send(ACK, b"one");
    peer.send(ACK | PSH, b"two");
    assert_eq!(peer.changes(socket), Readiness::READABLE);
    assert_eq!(peer.stack.receive_available(socket), 6);
    let first = peer.stack.take(socket, 100).expect("a segment");
    assert_eq!((first.payload(), first.push), (&b"one"[..], false));
    let second = peer.stack.take(socket, 100).expect("a segment");
    assert_eq!((second.payload(), second.push), (&b"two"[..], true));
    assert_eq!(peer.stack.take(socket, 100), None);
    assert_eq!(peer.stack.tcp_info(socket).map(|info| info.receive_charged), Some(4096));
}

#[test]
fn every_second_full_segment_is_acknowledged_and_a_lone_one_after_40_ms() {
    let (mut peer, _) = Peer::accepted(config());
    peer.send(ACK, &[1; MSS]);
    peer.expect_nothing();
    peer.send(ACK, &[1; MSS]);
    assert_eq!(peer.expect(ACK).header.ack, peer.seq);
    peer.send(ACK, &[1; MSS]);
    peer.expect_nothing();
    let start = peer.now;
    peer.wait(Duration::from_secs(1));
    assert_eq!(peer.now - start, Duration::from_millis(40));
    assert_eq!(peer.expect(ACK).header.ack, peer.seq);
    peer.wait(Duration::from_secs(1));
    peer.expect_nothing();
}

#[test]
fn a_batch_is_acknowledged_once() {
    let (mut peer, _) = Peer::accepted(config());
    for _ in 0..10 {
        peer.send(ACK, &[1; MSS]);
    }
    assert_eq!(peer.expect(ACK).header.ack, peer.seq);
    peer.expect_nothing();
}

#[test]
fn a_super_frame_counts_as_many_segments() {
    let (mut peer, _) = Peer::accepted(config());
    peer.send(ACK, &[1; 30_000]);
    assert_eq!(peer.expect(ACK).header.ack, peer.seq);
}

#[test]
fn an_answer_carries_the_acknowledgment() {
    let (mut peer, socket) = Peer::accepted(config());
    peer.send(ACK | PSH, b"question");
    peer.stack.send(peer.now, socket, b"answer").expect("room");
    let answer = peer.expect(ACK | PSH);
    assert_eq!((answer.header.ack, &answer.payload[..]), (peer.seq, &b"answer"[..]));
    peer.ack += 6;
    peer.send(ACK, b"");
    peer.wait(Duration::from_secs(1));
    peer.expect_nothing();
}

#[test]
fn each_segment_after_a_gap_is_answered_at_once() {
    let (mut peer, socket) = Peer::accepted(config());
    let start = peer.seq;
    for n in 1..5 {
        peer.send_at(ACK, start + n * MSS, &[n as u8; MSS]);
    }
    let acks: Vec<_> = peer.drain().iter().map(|sent| sent.header.ack).collect();
    assert_eq!(acks, [start; 4]);
    assert_eq!(peer.stack.receive_available(socket), 0);
    peer.send_at(ACK, start, &[0; MSS]);
    let acks: Vec<_> = peer.drain().iter().map(|sent| sent.header.ack).collect();
    assert_eq!(acks, [start + 5 * MSS]);
    let expected: Vec<u8> = (0..5).flat_map(|n| [n; MSS]).collect();
    assert_eq!(peer.read(socket), expected);
    assert_eq!(peer.stack.statistics().tcp.out_of_order, 4);
}

#[test]
fn repeated_and_overlapping_bytes_are_delivered_once() {
    let (mut peer, socket) = Peer::accepted(config());
    let start = peer.seq;
    peer.send_at(ACK, start, b"abcdef");
    peer.drain();
    peer.send_at(ACK, start, b"abcdef");
    assert_eq!(peer.drops(DropReason::TcpOutsideWindow), 1);
    assert_eq!(peer.expect(ACK).header.ack, start + 6);
    peer.send_at(ACK, start + 3, b"defghi");
    assert_eq!(peer.read(socket), b"abcdefghi");
}

#[test]
fn the_window_closes_and_opens_and_never_shrinks() {
    let (mut peer, socket) = Peer::accepted(config());
    let mut edge = peer.seq + 60_000;
    // Segments of 1400 bytes hold 2048 each, so the budget of 60000 ends before the window does.
    let mut sent = 0;
    loop {
        peer.send(ACK, &[1; MSS]);
        sent += MSS;
        for ack in peer.drain() {
            let right = ack.header.ack + usize::from(ack.header.window);
            assert!(!right.is_before(edge), "the right edge moves left");
            edge = right;
        }
        if edge.offset_from(peer.seq) < MSS as i32 {
            break;
        }
    }
    assert!((29_000..=60_000).contains(&sent), "{sent}");
    assert_eq!(peer.drops(DropReason::TcpReceiveBufferFull), 0);

    // Beyond the window nothing is taken, but it is answered.
    peer.drain();
    let beyond = edge + 1;
    peer.send_at(ACK, beyond, b"x");
    assert_eq!(peer.drops(DropReason::TcpOutsideWindow), 1);
    assert_eq!(peer.drain().len(), 1);

    // Reading opens it, and the peer hears of it at once: not for each segment, though.
    let bytes = peer.read(socket);
    assert_eq!(bytes.len(), sent);
    let updates = peer.drain();
    assert_eq!(updates.len(), 1);
    assert!(updates[0].header.window >= 50_000);
}

#[test]
fn taken_bytes_stay_charged_until_they_are_released() {
    let (mut peer, socket) = Peer::accepted(config());
    // 52 KiB of window are used up.
    while peer.stack.tcp_info(socket).is_some_and(|info| info.rcv_wnd >= MSS) {
        peer.send(ACK, &[1; MSS]);
        peer.drain();
    }
    let mut charges = Vec::new();
    while let Some(segment) = peer.stack.take(socket, usize::MAX) {
        charges.push(segment.charge);
    }
    peer.expect_nothing();
    peer.send(ACK, b"");
    assert!(peer.stack.tcp_info(socket).is_some_and(|info| info.rcv_wnd < MSS));
    for charge in charges {
        peer.stack.release(peer.now, socket, charge);
    }
    assert!(peer.expect(ACK).header.window >= 50_000);
}

#[test]
fn in_order_bytes_within_the_window_are_taken_up_to_twice_the_budget() {
    let (mut peer, socket) = Peer::accepted(config());
    // One byte holds 2048: the budget is 29 segments, twice that 58.
    let start = peer.seq;
    for _ in 0..100 {
        peer.send_at(ACK, start + peer.stack.receive_available(socket), b"x");
    }
    assert_eq!(peer.stack.receive_available(socket), 58);
    assert_eq!(peer.drops(DropReason::TcpReceiveBufferFull), 100 - 58);
    let ack = peer.drain().last().map(|sent| sent.header.ack);
    assert_eq!(ack, Some(start + 58));
}

#[test]
fn out_of_order_segments_hold_no_more_than_the_budget() {
    let (mut peer, socket) = Peer::accepted(config());
    let start = peer.seq;
    for n in (1..100).rev() {
        peer.send_at(ACK, start + 2 * n, b"x");
    }
    let info = peer.stack.tcp_info(socket).expect("open");
    assert!(info.receive_charged <= 60_000, "{info:?}");
    // Those next in the stream are kept.
    assert!(peer.stack.statistics().tcp.out_of_order_pruned > 0);
    for n in 0..20 {
        peer.send_at(ACK, start + 2 * n, b"ox");
    }
    // The last of them fills the gap before the next one.
    assert_eq!(peer.stack.receive_available(socket), 41);
    assert_eq!(peer.drops(DropReason::TcpReceiveBufferFull), 0);
}

#[test]
fn old_timestamps_are_dropped() {
    let mut peer = Peer::new(config());
    peer.clock = Some(1000);
    let socket = peer.open();
    peer.clock = Some(1010);
    peer.send(ACK, b"new");
    peer.drain();
    peer.clock = Some(1009);
    peer.send_at(ACK, peer.seq, b"old");
    assert_eq!(peer.drops(DropReason::TcpPaws), 1);
    assert_eq!(peer.expect(ACK).header.options.timestamps.map(|t| t.echo), Some(1010));
    peer.clock = None;
    peer.send_at(ACK, peer.seq, b"none");
    assert_eq!(peer.drops(DropReason::TcpPaws), 2);
    assert_eq!(peer.read(socket), b"new");
}

#[test]
fn damaged_segments_are_dropped() {
    let (mut peer, socket) = Peer::accepted(config());
    let mut frame = Peer::tcp_frame(&peer.header(ACK, peer.seq), b"payload");
    *frame.last_mut().expect("bytes") ^= 0x10;
    peer.receive(frame);
    assert_eq!(peer.drops(DropReason::TcpChecksum), 1);
    assert_eq!(peer.stack.receive_available(socket), 0);
}

#[test]
fn events_collect_what_happens() {
    let (mut peer, socket) = Peer::accepted(config());
    for _ in 0..10 {
        peer.send(ACK, b"x");
    }
    peer.send(FIN | ACK, b"");
    assert_eq!(peer.changes(socket), Readiness::READABLE | Readiness::PEER_CLOSED);
    assert_eq!(peer.stack.poll_event(), None);
}
