use super::peer::*;
use crate::{
    ConnectError, ConnectState, ConnectionError, DropReason, Event, ListenError, Readiness,
    SocketId, TcpConfig, TcpState,
    tcp::seq::SeqNumber,
    wire::{
        arp, icmp, ipv4,
        tcp::{Options, Timestamps},
    },
};
use std::{
    net::{Ipv4Addr, SocketAddrV4},
    time::Duration,
};

const SECOND: Duration = Duration::from_secs(1);

fn connecting() -> (Peer, SocketId) {
    let mut peer = Peer::new(config());
    let socket = peer.stack.connect(peer.now, SocketAddrV4::new(THEIRS, PORT)).expect("a port");
    peer.port = PORT;
    peer.local_port = peer.stack.local_address(socket).expect("open").port();
    (peer, socket)
}

#[test]
fn a_peer_connects() {
    let mut peer = Peer::new(config());
    let listener = peer.listen();
    peer.send(SYN, b"");
    let answer = peer.expect(SYN | ACK).header;
    assert_eq!((answer.ack, answer.window), (IRS + 1, 60_000));
    // The peer has offered an MSS only.
    assert_eq!(answer.options, Options { mss: Some(1460), ..Options::default() });
    assert_eq!(peer.stack.accept(listener), None);
    peer.ack = answer.seq + 1;
    peer.send(ACK, b"");
    assert_eq!(peer.stack.poll_event(), Some(Event::Acceptable(listener)));
    assert_eq!(peer.stack.poll_event(), None);
    let (socket, from) = peer.stack.accept(listener).expect("established");
    assert_eq!(from, SocketAddrV4::new(THEIRS, peer.port));
    assert_eq!(peer.stack.connect_state(socket), ConnectState::Connected);
    assert_eq!(peer.stack.tcp_info(socket).map(|info| info.state), Some(TcpState::Established));
    peer.expect_nothing();
}

#[test]
fn options_are_negotiated() {
    let mut config = config();
    config.tcp = TcpConfig::default();
    let mut peer = Peer::new(config);
    peer.options.window_scale = Some(3);
    peer.clock = Some(77);
    let listener = peer.listen();
    peer.send(SYN, b"");
    let answer = peer.expect(SYN | ACK).header;
    assert_eq!(answer.options.mss, Some(1460));
    assert_eq!(answer.options.window_scale, Some(7));
    assert_eq!(answer.options.timestamps.map(|timestamps| timestamps.echo), Some(77));
    peer.ack = answer.seq + 1;
    peer.window = 100;
    peer.send(ACK, b"");
    let (socket, _) = peer.stack.accept(listener).expect("established");
    let info = peer.stack.tcp_info(socket).expect("open");
    assert_eq!((info.snd_mss, info.snd_wnd), (988, 800));
    assert_eq!((info.snd_wscale, info.rcv_wscale, info.timestamps), (3, 7, true));
}

#[test]
fn data_may_come_with_the_last_ack() {
    let mut peer = Peer::new(config());
    let listener = peer.listen();
    peer.send(SYN, b"");
    peer.ack = peer.expect(SYN | ACK).header.seq + 1;
    peer.send(ACK | PSH, b"hello");
    let (socket, _) = peer.stack.accept(listener).expect("established");
    assert_eq!(peer.changes_after_accept(socket), Readiness::READABLE);
    assert_eq!(peer.read(socket), b"hello");
}

impl Peer {
    fn changes_after_accept(&mut self, socket: SocketId) -> Readiness {
        assert!(matches!(self.stack.poll_event(), Some(Event::Acceptable(_))));
        self.changes(socket)
    }
}

#[test]
fn we_connect() {
    let (mut peer, socket) = connecting();
    let syn = peer.expect(SYN).header;
    assert_eq!(syn.options.mss, Some(1460));
    assert_eq!(syn.options.window_scale, Some(0));
    assert!(matches!(syn.options.timestamps, Some(Timestamps { echo: 0, .. })));
    assert_eq!(peer.stack.connect_state(socket), ConnectState::InProgress);
    peer.ack = syn.seq + 1;
    peer.send(SYN | ACK, b"");
    assert_eq!(peer.changes(socket), Readiness::CONNECTED | Readiness::WRITABLE);
    let ack = peer.expect(ACK).header;
    assert_eq!((ack.seq, ack.ack), (syn.seq + 1, IRS + 1));
    assert_eq!(ack.options, Options::default());
    assert_eq!(peer.stack.connect_state(socket), ConnectState::Connected);
}

#[test]
fn both_connect_at_the_same_time() {
    let (mut peer, socket) = connecting();
    let syn = peer.expect(SYN).header;
    peer.send(SYN, b"");
    let answer = peer.expect(SYN | ACK).header;
    assert_eq!((answer.seq, answer.ack), (syn.seq, IRS + 1));
    peer.ack = syn.seq + 1;
    peer.send_at(SYN | ACK, IRS, b"");
    assert_eq!(peer.stack.connect_state(socket), ConnectState::Connected);
    peer.expect(ACK);
    peer.send(ACK, b"data");
    assert_eq!(peer.read(socket), b"data");
}

#[test]
fn a_syn_is_repeated_and_given_up() {
    let (mut peer, socket) = connecting();
    let start = peer.now;
    let mut times = Vec::new();
    while peer.stack.connect_state(socket) == ConnectState::InProgress {
        if let Some(sent) = peer.poll() {
            assert_eq!(sent.header.flags, SYN);
            times.push((peer.now - start).as_secs());
        }
        let next = peer.stack.poll_timeout().expect("not given up yet");
        peer.wait(next - peer.now);
    }
    assert_eq!(times, [0, 1, 3, 7, 15, 31, 63]);
    assert_eq!((peer.now - start).as_secs(), 127);
    let timed_out = ConnectState::Failed(ConnectionError::TimedOut);
    assert_eq!(peer.stack.connect_state(socket), timed_out);
    assert_eq!(peer.changes(socket), Readiness::ERROR | Readiness::CLOSED);
    assert_eq!(peer.stack.poll_timeout(), None);
}

#[test]
fn a_reset_refuses() {
    let (mut peer, socket) = connecting();
    let syn = peer.expect(SYN).header;
    // One that acknowledges something else is none of this connection's.
    peer.ack = syn.seq;
    peer.send_at(RST | ACK, SeqNumber(0), b"");
    assert_eq!(peer.drops(DropReason::TcpBadReset), 1);
    peer.ack = syn.seq + 1;
    peer.send_at(RST | ACK, SeqNumber(0), b"");
    let refused = ConnectState::Failed(ConnectionError::Refused);
    assert_eq!(peer.stack.connect_state(socket), refused);
    peer.expect_nothing();
}

#[test]
fn a_wrong_ack_is_answered_with_a_reset() {
    let (mut peer, socket) = connecting();
    let syn = peer.expect(SYN).header;
    peer.ack = syn.seq + 2;
    peer.send_at(SYN | ACK, IRS, b"");
    assert_eq!(peer.expect(RST).header.seq, syn.seq + 2);
    assert_eq!(peer.stack.connect_state(socket), ConnectState::InProgress);
}

fn unreachable(peer: &Peer, code: u8, seq: SeqNumber) -> Vec<u8> {
    let mut quoted = Peer::ip_frame(ipv4::PROTOCOL_TCP, &[0; 8])[14..].to_vec();
    quoted[12..16].copy_from_slice(&OURS.octets());
    quoted[16..20].copy_from_slice(&THEIRS.octets());
    quoted[20..22].copy_from_slice(&peer.local_port.to_be_bytes());
    quoted[22..24].copy_from_slice(&peer.port.to_be_bytes());
    quoted[24..28].copy_from_slice(&seq.0.to_be_bytes());
    let reason = match code {
        3 => icmp::Unreachable::Port,
        _ => icmp::Unreachable::Other,
    };
    let mut message = vec![0; 100];
    let len = icmp::write_unreachable(reason, &quoted, &mut message);
    Peer::ip_frame(ipv4::PROTOCOL_ICMP, &message[..len])
}

#[test]
fn icmp_port_unreachable_refuses_only_what_was_sent() {
    let (mut peer, socket) = connecting();
    let syn = peer.expect(SYN).header;
    peer.receive(unreachable(&peer, 3, syn.seq + 1));
    assert_eq!(peer.drops(DropReason::IcmpUnrelated), 1);
    assert_eq!(peer.stack.connect_state(socket), ConnectState::InProgress);
    peer.receive(unreachable(&peer, 3, syn.seq));
    let refused = ConnectState::Failed(ConnectionError::Refused);
    assert_eq!(peer.stack.connect_state(socket), refused);
}

#[test]
fn icmp_host_unreachable_is_the_reason_once_the_attempts_end() {
    let (mut peer, socket) = connecting();
    let syn = peer.expect(SYN).header;
    peer.receive(unreachable(&peer, 1, syn.seq));
    assert_eq!(peer.stack.connect_state(socket), ConnectState::InProgress);
    while peer.stack.connect_state(socket) == ConnectState::InProgress {
        peer.drain();
        peer.wait(1000 * SECOND);
    }
    let unreachable = ConnectState::Failed(ConnectionError::HostUnreachable);
    assert_eq!(peer.stack.connect_state(socket), unreachable);
}

#[test]
fn a_neighbour_that_does_not_answer_is_unreachable() {
    let mut peer = Peer::stranger(config());
    let socket = peer.stack.connect(peer.now, SocketAddrV4::new(THEIRS, PORT)).expect("a port");
    let mut requests = 0;
    while peer.stack.connect_state(socket) == ConnectState::InProgress {
        while let Some((frame, _)) = peer.frame() {
            let request = arp::Packet::parse(&frame[14..]).expect("ARP");
            assert_eq!((request.operation, request.target), (arp::Operation::Request, THEIRS));
            requests += 1;
        }
        peer.wait(10 * SECOND);
    }
    assert_eq!(requests, 3);
    let unreachable = ConnectState::Failed(ConnectionError::HostUnreachable);
    assert_eq!(peer.stack.connect_state(socket), unreachable);
}

#[test]
fn the_syn_waits_for_the_neighbours_answer() {
    let mut peer = Peer::stranger(config());
    let socket = peer.stack.connect(peer.now, SocketAddrV4::new(THEIRS, PORT)).expect("a port");
    assert_eq!(peer.frame().expect("an ARP request").0[12..14], [8, 6]);
    assert_eq!(peer.frame(), None);
    peer.arp(arp::Operation::Reply, THEIRS, OURS);
    peer.port = PORT;
    peer.local_port = peer.stack.local_address(socket).expect("open").port();
    peer.expect(SYN);
}

#[test]
fn the_backlog_is_bounded() {
    let mut peer = Peer::new(config());
    let listener = peer.listen();
    let port = peer.port;
    for n in 0..5 {
        peer.port = port + n;
        peer.send_at(SYN, IRS, b"");
    }
    assert_eq!(peer.drops(DropReason::TcpBacklogFull), 3);
    let mut acks = Vec::new();
    for n in 0..2 {
        peer.port = port + n;
        acks.push(peer.expect(SYN | ACK).header.seq + 1);
    }
    for (n, ack) in (0..).zip(acks) {
        peer.port = port + n;
        peer.ack = ack;
        peer.send_at(ACK, IRS + 1, b"");
    }
    // Established ones that nobody accepts stop new ones, too.
    peer.port = port + 3;
    peer.send_at(SYN, IRS, b"");
    assert_eq!(peer.drops(DropReason::TcpBacklogFull), 4);
    assert!(peer.stack.accept(listener).is_some());
    peer.send_at(SYN, IRS, b"");
    peer.expect(SYN | ACK);
}

#[test]
fn a_half_open_connection_is_given_up() {
    let mut peer = Peer::new(config());
    peer.listen();
    peer.send(SYN, b"");
    let mut sent = 0;
    loop {
        sent += peer.drain().len();
        let Some(at) = peer.stack.poll_timeout() else { break };
        peer.wait(at - peer.now);
    }
    assert_eq!(sent, 6);
    // Its place is free again.
    for n in 1..3 {
        peer.port += n;
        peer.send_at(SYN, IRS, b"");
    }
    assert_eq!(peer.drops(DropReason::TcpBacklogFull), 0);
}

#[test]
fn a_lost_syn_ack_is_sent_again_when_the_syn_is() {
    let mut peer = Peer::new(config());
    let listener = peer.listen();
    peer.send_at(SYN, IRS, b"");
    let first = peer.expect(SYN | ACK);
    peer.expect_nothing();
    peer.send(SYN, b"");
    assert_eq!(peer.expect(SYN | ACK).header.seq, first.header.seq);
    peer.ack = first.header.seq + 1;
    peer.send(ACK, b"");
    assert!(peer.stack.accept(listener).is_some());
}

#[test]
fn closing_a_listener_resets_what_nobody_accepted() {
    let mut peer = Peer::new(config());
    let listener = peer.listen();
    peer.send(SYN, b"");
    peer.ack = peer.expect(SYN | ACK).header.seq + 1;
    peer.send(ACK, b"");
    peer.stack.close_listener(peer.now, listener);
    assert_eq!(peer.expect(RST | ACK).header.seq, peer.ack);
    assert_eq!(peer.stack.accept(listener), None);
    assert_eq!(peer.stack.poll_event(), None);
    assert_eq!(peer.stack.listener_address(listener), None);
    // The port is free, and closed.
    peer.send_at(SYN, IRS, b"");
    peer.expect(RST | ACK);
    peer.listen();
}

#[test]
fn addresses_are_checked() {
    let mut peer = Peer::new(config());
    let stack = &mut peer.stack;
    let listen = |address: [u8; 4], port| SocketAddrV4::new(address.into(), port);
    let elsewhere = listen([10, 0, 0, 9], 1);
    assert_eq!(stack.listen(elsewhere, 1), Err(ListenError::AddressNotAvailable(elsewhere)));
    let any = stack.listen(listen([0, 0, 0, 0], 0), 1).expect("a free port");
    let port = stack.listener_address(any).expect("open").port();
    assert_ne!(port, 0);
    assert_eq!(stack.listen(listen([10, 0, 0, 1], port), 1), Err(ListenError::AddressInUse(port)));

    for (to, port) in
        [([10, 0, 0, 1], 1), ([10, 0, 0, 255], 1), ([10, 0, 0, 2], 0), ([224, 0, 0, 1], 1)]
    {
        let to = SocketAddrV4::new(to.into(), port);
        assert_eq!(stack.connect(peer.now, to), Err(ConnectError::AddressNotAvailable(to)));
    }
    let far = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 1);
    assert_eq!(stack.connect(peer.now, far), Err(ConnectError::NetworkUnreachable(far)));
}
