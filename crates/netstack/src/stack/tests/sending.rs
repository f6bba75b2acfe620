use super::peer::*;
use crate::{
    Config, ConnectionError, Gso, LinkCapabilities, PartialChecksum, Readiness, ReceiveStatus,
    SendError,
    tcp::seq::SeqNumber,
    wire::{icmp, ipv4},
};
use std::time::Duration;

const MSS: usize = 1000;
const SECOND: Duration = Duration::from_secs(1);

fn offloaded() -> Config {
    let link = LinkCapabilities { mtu: 1500, checksum_offload: true, tso_max: Some(65_549) };
    Config { link, ..config() }
}

impl Peer {
    /// Acknowledges everything up to `ack`.
    fn acknowledge(&mut self, ack: SeqNumber) {
        self.ack = ack;
        self.send(ACK, b"");
    }
}

fn lengths(sent: &[Sent]) -> Vec<usize> {
    sent.iter().map(|sent| sent.payload.len()).collect()
}

fn starts(sent: &[Sent], base: SeqNumber) -> Vec<i32> {
    sent.iter().map(|sent| sent.header.seq.offset_from(base)).collect()
}

#[test]
fn the_initial_window_is_ten_segments_and_doubles() {
    let (mut peer, socket) = Peer::accepted(config());
    assert_eq!(peer.stack.send(peer.now, socket, &[1; 90_000]), Ok(90_000));
    assert_eq!(lengths(&peer.drain()), [MSS; 10]);
    peer.acknowledge(peer.ack + 2 * MSS);
    assert_eq!(lengths(&peer.drain()), [MSS; 4]);
    peer.acknowledge(peer.ack + 8 * MSS);
    assert_eq!(lengths(&peer.drain()), [MSS; 16]);
}

#[test]
fn a_super_frame_says_how_it_is_to_be_cut() {
    let (mut peer, socket) = Peer::accepted(offloaded());
    let data: Vec<u8> = (0..9500).map(|i| i as u8).collect();
    peer.stack.send(peer.now, socket, &data).expect("room");
    let sent = peer.expect(ACK | PSH);
    assert_eq!(sent.payload, data);
    assert_eq!(sent.meta.gso, Some(Gso { segment_size: MSS, header_len: 54 }));
    assert_eq!(sent.meta.checksum, Some(PartialChecksum { start: 34, offset: 16 }));
    peer.expect_nothing();
    peer.acknowledge(peer.ack + 9500);
    peer.stack.send(peer.now, socket, &data[..MSS]).expect("room");
    assert_eq!(peer.expect(ACK | PSH).meta.gso, None);
}

#[test]
fn nagle_holds_back_a_second_small_segment() {
    let (mut peer, socket) = Peer::accepted(config());
    peer.stack.send(peer.now, socket, b"a").expect("room");
    assert_eq!(peer.expect(ACK | PSH).payload, b"a");
    peer.stack.send(peer.now, socket, b"b").expect("room");
    peer.expect_nothing();
    peer.stack.send(peer.now, socket, b"c").expect("room");
    peer.expect_nothing();
    peer.acknowledge(peer.ack + 1);
    assert_eq!(peer.expect(ACK | PSH).payload, b"bc");
    peer.stack.send(peer.now, socket, b"d").expect("room");
    peer.expect_nothing();
    peer.stack.set_nodelay(peer.now, socket, true);
    assert!(peer.stack.nodelay(socket));
    assert_eq!(peer.expect(ACK | PSH).payload, b"d");
}

#[test]
fn nagle_lets_full_segments_and_the_end_pass() {
    let (mut peer, socket) = Peer::accepted(config());
    peer.stack.send(peer.now, socket, b"small").expect("room");
    peer.drain();
    peer.stack.send(peer.now, socket, &[1; 1500]).expect("room");
    assert_eq!(lengths(&peer.drain()), [MSS]);
    peer.stack.shutdown(peer.now, socket).expect("connected");
    assert_eq!(peer.expect(FIN | ACK | PSH).payload.len(), 500);
}

#[test]
fn the_timer_resends_with_backoff_and_gives_up() {
    let (mut peer, socket) = Peer::accepted(config());
    peer.stack.send(peer.now, socket, b"lost").expect("room");
    let start = peer.now;
    let mut times = Vec::new();
    loop {
        for sent in peer.drain() {
            assert_eq!(sent.payload, b"lost");
            times.push((peer.now - start).as_millis());
        }
        let Some(at) = peer.stack.poll_timeout() else { break };
        peer.wait(at - peer.now);
    }
    assert_eq!(times[..6], [0, 200, 600, 1400, 3000, 6200]);
    let timed_out = ReceiveStatus::Failed(ConnectionError::TimedOut);
    assert_eq!(peer.stack.receive_status(socket), timed_out);
    assert_eq!(peer.changes(socket), Readiness::ERROR | Readiness::CLOSED);
    assert!((900..1100).contains(&(peer.now - start).as_secs()));
    let error = Err(SendError::Connection(ConnectionError::TimedOut));
    assert_eq!(peer.stack.send(peer.now, socket, b"x"), error);
}

#[test]
fn three_duplicates_resend_the_first_segment() {
    let (mut peer, socket) = Peer::accepted(config());
    peer.stack.send(peer.now, socket, &[1; 20_000]).expect("room");
    let base = peer.ack;
    assert_eq!(peer.drain().len(), 10);
    // RFC 3042: the first two release a new segment each.
    for _ in 0..2 {
        peer.acknowledge(base);
    }
    assert_eq!(starts(&peer.drain(), base), [10_000, 11_000]);
    peer.acknowledge(base);
    assert_eq!(starts(&peer.drain(), base), [0]);
    let info = peer.stack.tcp_info(socket).expect("open");
    // CUBIC's 0.7 of ten segments.
    assert_eq!((info.snd_cwnd, info.snd_ssthresh), (7 * MSS, 7 * MSS));
    // Seven more, for the rest of the window: each means that a segment has left the network.
    for _ in 0..7 {
        peer.acknowledge(base);
    }
    assert_eq!(starts(&peer.drain(), base), [12_000, 13_000, 14_000, 15_000, 16_000]);
    // A partial acknowledgment: another one is lost.
    peer.acknowledge(base + 5 * MSS);
    assert_eq!(starts(&peer.drain(), base), [5000, 17_000]);
    // A full one ends it.
    peer.acknowledge(base + 18 * MSS);
    let info = peer.stack.tcp_info(socket).expect("open");
    assert_eq!(info.snd_cwnd, 7 * MSS);
    assert_eq!(peer.stack.statistics().tcp.fast_retransmits, 1);
    assert_eq!(peer.stack.statistics().tcp.retransmission_timeouts, 0);
    assert_eq!(starts(&peer.drain(), base), [18_000, 19_000]);
}

#[test]
fn a_timeout_starts_again_from_one_segment() {
    let (mut peer, socket) = Peer::accepted(config());
    peer.stack.send(peer.now, socket, &[1; 10_000]).expect("room");
    let base = peer.ack;
    assert_eq!(peer.drain().len(), 10);
    peer.wait(SECOND);
    assert_eq!(starts(&peer.drain(), base), [0]);
    let info = peer.stack.tcp_info(socket).expect("open");
    assert_eq!((info.snd_cwnd, info.snd_ssthresh), (MSS, 7 * MSS));
    peer.acknowledge(base + MSS);
    assert_eq!(starts(&peer.drain(), base), [1000, 2000]);
    // The peer had the rest all along.
    peer.acknowledge(base + 10 * MSS);
    peer.expect_nothing();
    assert_eq!(peer.stack.poll_timeout().map(|_| ()), Some(()), "the lazy timer");
    peer.wait(1000 * SECOND);
    peer.expect_nothing();
    assert_eq!(peer.stack.poll_timeout(), None);
}

#[test]
fn a_closed_window_is_probed_as_long_as_the_peer_answers() {
    let (mut peer, socket) = Peer::accepted(config());
    peer.window = 0;
    peer.send(ACK, b"");
    peer.stack.send(peer.now, socket, &[1; 3000]).expect("room");
    peer.expect_nothing();
    let start = peer.now;
    let mut times = Vec::new();
    for _ in 0..40 {
        peer.wait(1000 * SECOND);
        let probe = peer.expect(ACK);
        assert_eq!((probe.header.seq, probe.payload.len()), (peer.ack - 1, 0));
        times.push((peer.now - start).as_millis());
        peer.send(ACK, b"");
    }
    assert_eq!(times[..4], [200, 600, 1400, 3000]);
    assert!(peer.now - start > 3600 * SECOND);
    peer.window = 2000;
    peer.send(ACK, b"");
    assert_eq!(lengths(&peer.drain()), [MSS, MSS]);
    assert_eq!(peer.stack.receive_status(socket), ReceiveStatus::Open);
}

#[test]
fn unanswered_probes_end_the_connection() {
    let (mut peer, socket) = Peer::accepted(config());
    peer.window = 0;
    peer.send(ACK, b"");
    peer.stack.send(peer.now, socket, b"stuck").expect("room");
    loop {
        peer.drain();
        let Some(at) = peer.stack.poll_timeout() else { break };
        peer.wait(at - peer.now);
    }
    let timed_out = ReceiveStatus::Failed(ConnectionError::TimedOut);
    assert_eq!(peer.stack.receive_status(socket), timed_out);
}

#[test]
fn a_silly_window_is_used_only_after_a_while() {
    let (mut peer, socket) = Peer::accepted(config());
    peer.window = 10;
    peer.send(ACK, b"");
    peer.stack.send(peer.now, socket, &[1; 3000]).expect("room");
    peer.expect_nothing();
    peer.wait(SECOND);
    assert_eq!(lengths(&peer.drain()), [10]);
}

#[test]
fn a_window_that_shrinks_over_data_in_flight_is_waited_for() {
    let (mut peer, socket) = Peer::accepted(config());
    peer.stack.send(peer.now, socket, &[1; 5000]).expect("room");
    let base = peer.ack;
    assert_eq!(peer.drain().len(), 5);
    peer.window = 0;
    peer.acknowledge(base + 2 * MSS);
    peer.expect_nothing();
    for _ in 0..30 {
        peer.wait(1000 * SECOND);
        assert_eq!(starts(&peer.drain(), base), [2000]);
        peer.send(ACK, b"");
    }
    peer.window = 10_000;
    peer.acknowledge(base + 3 * MSS);
    peer.wait(1000 * SECOND);
    peer.acknowledge(base + 5 * MSS);
    peer.drain();
    assert_eq!(peer.stack.tcp_info(socket).map(|info| info.send_queue), Some(0));
}

#[test]
fn a_full_buffer_blocks_until_a_third_is_free() {
    let (mut peer, socket) = Peer::accepted(config());
    assert_eq!(peer.stack.send_space(socket), 100_000);
    assert_eq!(peer.stack.send(peer.now, socket, &[1; 200_000]), Ok(100_000));
    assert_eq!(peer.stack.send(peer.now, socket, b"x"), Err(SendError::WouldBlock));
    assert_eq!(peer.stack.send(peer.now, socket, b""), Ok(0));
    let mut acknowledged = 0;
    while !peer.changes(socket).contains(Readiness::WRITABLE) {
        assert!(peer.stack.send_space(socket) < 33_333);
        let sent: usize = lengths(&peer.drain()).iter().sum();
        assert!(sent > 0);
        acknowledged += sent;
        peer.acknowledge(peer.ack + sent);
    }
    assert!(acknowledged >= 33_333);
    assert_eq!(peer.stack.send_space(socket), acknowledged);
}

#[test]
fn who_waits_for_room_is_told_though_another_found_some() {
    let (mut peer, socket) = Peer::accepted(config());
    assert_eq!(peer.stack.send(peer.now, socket, &[1; 200_000]), Ok(100_000));
    let acknowledge = |peer: &mut Peer| {
        let sent: usize = lengths(&peer.drain()).iter().sum();
        peer.acknowledge(peer.ack + sent);
    };
    acknowledge(&mut peer);
    assert!((1..33_333).contains(&peer.stack.send_space(socket)));
    assert_eq!(peer.stack.send(peer.now, socket, b"a small one"), Ok(11));
    while peer.stack.send_space(socket) < 33_333 {
        acknowledge(&mut peer);
    }
    assert!(peer.changes(socket).contains(Readiness::WRITABLE));
}

#[test]
fn a_smaller_path_mtu_is_believed_for_what_is_in_flight() {
    let (mut peer, socket) = Peer::accepted(config());
    peer.stack.send(peer.now, socket, &[1; 3000]).expect("room");
    let base = peer.ack;
    assert_eq!(lengths(&peer.drain()), [1000; 3]);
    let mut too_big = |seq: SeqNumber, mtu| {
        let mut quoted = Peer::ip_frame(ipv4::PROTOCOL_TCP, &[0; 8])[14..].to_vec();
        quoted[12..16].copy_from_slice(&OURS.octets());
        quoted[16..20].copy_from_slice(&THEIRS.octets());
        quoted[20..22].copy_from_slice(&peer.local_port.to_be_bytes());
        quoted[22..24].copy_from_slice(&peer.port.to_be_bytes());
        quoted[24..28].copy_from_slice(&seq.0.to_be_bytes());
        let mut message = [0; 100];
        let reason = icmp::Unreachable::FragmentationNeeded { mtu };
        let len = icmp::write_unreachable(reason, &quoted, &mut message);
        peer.receive(Peer::ip_frame(ipv4::PROTOCOL_ICMP, &message[..len]));
        peer.drain()
    };
    assert_eq!(too_big(base + 3000, 600), []);
    assert_eq!(too_big(base - 1, 600), []);
    // Nothing below the minimum is believed.
    let sent = too_big(base, 600);
    assert_eq!(lengths(&sent)[..2], [560, 560]);
    assert_eq!(starts(&sent, base)[..2], [0, 560]);
    assert_eq!(lengths(&too_big(base, 1))[0], 512);
    assert_eq!(peer.stack.tcp_info(socket).map(|info| info.snd_mss), Some(512));
}

#[test]
fn round_trips_are_measured() {
    let (mut peer, socket) = Peer::accepted(config());
    for _ in 0..50 {
        peer.stack.send(peer.now, socket, b"x").expect("room");
        peer.drain();
        peer.now += Duration::from_millis(30);
        peer.acknowledge(peer.ack + 1);
    }
    let info = peer.stack.tcp_info(socket).expect("open");
    assert!((29..=30).contains(&info.srtt.as_millis()), "{info:?}");
    assert!((229..=235).contains(&info.rto.as_millis()), "{info:?}");
}
