//! ARP, IPv4 and ICMP.

use super::peer::*;
use crate::{
    Checksum, DropReason, MacAddress, RxMeta,
    tcp::test_buffer::TestBuffer,
    wire::{
        arp::{self, Operation},
        checksum::Sum,
        ethernet, ipv4,
    },
};
use std::{net::Ipv4Addr, time::Duration};

fn echo_request(len: usize) -> Vec<u8> {
    let mut message = vec![0x5a; len];
    message[..4].copy_from_slice(&[8, 0, 0, 0]);
    let sum = Sum::of(&message).complete();
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    Peer::ip_frame(ipv4::PROTOCOL_ICMP, &message)
}

#[test]
fn requests_for_our_address_are_answered() {
    let mut peer = Peer::stranger(config());
    peer.arp(Operation::Request, THEIRS, OURS);
    let (frame, _) = peer.frame().expect("a reply");
    let ethernet = ethernet::Header::parse(&frame).expect("whole");
    assert_eq!(ethernet.destination, THEIR_MAC);
    let reply = arp::Packet::parse(&frame[14..]).expect("ARP");
    assert_eq!(reply.operation, Operation::Reply);
    assert_eq!((reply.sender, reply.sender_mac), (OURS, OUR_MAC));
    assert_eq!((reply.target, reply.target_mac), (THEIRS, THEIR_MAC));

    // A probe for a duplicate address, too; it teaches nothing.
    peer.arp(Operation::Request, Ipv4Addr::UNSPECIFIED, OURS);
    assert!(peer.frame().is_some());
    peer.arp(Operation::Request, THEIRS, Ipv4Addr::new(10, 0, 0, 77));
    assert_eq!(peer.frame(), None);
    assert_eq!(peer.drops(DropReason::ArpNotForUs), 1);
}

#[test]
fn insane_senders_teach_nothing() {
    let mut peer = Peer::stranger(config());
    for sender in [[10, 0, 0, 1], [10, 0, 0, 255], [10, 0, 1, 2], [224, 0, 0, 1], [127, 0, 0, 1]] {
        peer.arp(Operation::Request, sender.into(), OURS);
    }
    assert_eq!(peer.drops(DropReason::ArpBadSender), 5);
    // An answer that nobody asked for.
    peer.arp(Operation::Reply, THEIRS, OURS);
    assert_eq!(peer.drops(DropReason::ArpNotForUs), 1);
    assert_eq!(peer.frame(), None);
}

#[test]
fn echo_requests_are_answered_up_to_the_mtu_and_a_rate() {
    let mut peer = Peer::new(config());
    let request = echo_request(1480);
    peer.receive(request.clone());
    let (reply, _) = peer.frame().expect("a reply");
    assert_eq!(reply[34], 0);
    assert_eq!(reply[38..], request[38..]);
    assert!(Sum::of(&reply[34..]).is_valid());
    peer.receive(echo_request(1481));
    assert_eq!(peer.drops(DropReason::IcmpEchoLimit), 1);
    for _ in 0..100 {
        peer.receive(echo_request(8));
    }
    let answered = std::iter::from_fn(|| peer.frame()).count() as u64;
    assert!((40..=50).contains(&answered));
    assert_eq!(peer.drops(DropReason::IcmpEchoLimit), 101 - answered);
}

#[test]
fn padding_is_cut_off() {
    let mut peer = Peer::new(config());
    let mut request = echo_request(8);
    request.resize(60, 0);
    peer.receive(request);
    assert_eq!(peer.frame().map(|(_, meta)| meta.len), Some(42));
}

#[test]
fn unknown_ports_and_protocols_are_unreachable() {
    let mut peer = Peer::new(config());
    for (protocol, code) in [(ipv4::PROTOCOL_UDP, 3), (132, 2)] {
        let frame = Peer::ip_frame(protocol, &[9; 30]);
        peer.receive(frame.clone());
        let (error, _) = peer.frame().expect("an error");
        assert_eq!(error[34..36], [3, code]);
        assert_eq!(error[42..], frame[14..]);
    }
    assert_eq!(peer.drops(DropReason::UdpNoPort), 1);
    assert_eq!(peer.drops(DropReason::Ipv4UnknownProtocol), 1);
    // At a limited rate.
    for _ in 0..100 {
        peer.receive(Peer::ip_frame(ipv4::PROTOCOL_UDP, &[9; 30]));
    }
    assert!(std::iter::from_fn(|| peer.frame()).count() <= 50);
    assert!(peer.stack.statistics().replies_suppressed >= 50);
}

#[test]
fn frames_for_others_are_dropped() {
    let mut peer = Peer::new(config());
    let good = echo_request(8);
    let drop = |peer: &mut Peer, reason, change: &dyn Fn(&mut Vec<u8>)| {
        let mut frame = good.clone();
        change(&mut frame);
        if frame.len() >= 34 {
            frame[24..26].fill(0);
            let sum = Sum::of(&frame[14..34]).complete();
            frame[24..26].copy_from_slice(&sum.to_be_bytes());
        }
        let before = peer.drops(reason);
        peer.receive(frame);
        assert_eq!(peer.drops(reason), before + 1, "{reason:?}");
        assert_eq!(peer.frame(), None);
    };
    drop(&mut peer, DropReason::EthernetTruncated, &|frame| frame.truncate(13));
    drop(&mut peer, DropReason::EthernetNotForUs, &|frame| frame[5] = 9);
    drop(&mut peer, DropReason::EthernetBadSource, &|frame| frame[6] = 1);
    drop(&mut peer, DropReason::EthernetUnknownType, &|frame| frame[12] = 0x86);
    drop(&mut peer, DropReason::ArpMalformed, &|frame| frame[13] = 6);
    drop(&mut peer, DropReason::Ipv4Malformed, &|frame| frame[14] = 0x65);
    drop(&mut peer, DropReason::Ipv4Fragment, &|frame| frame[20] = 0x20);
    drop(&mut peer, DropReason::Ipv4NotForUs, &|frame| frame[33] = 7);
    drop(&mut peer, DropReason::Ipv4NotForUs, &|frame| frame[..6].fill(0xff));
    drop(&mut peer, DropReason::Ipv4BadSource, &|frame| frame[29] = 1);
    drop(&mut peer, DropReason::Ipv4BadSource, &|frame| frame[26] = 240);
    drop(&mut peer, DropReason::IcmpChecksum, &|frame| frame[41] ^= 1);
    drop(&mut peer, DropReason::TcpMalformed, &|frame| frame[23] = 6);
    let total = peer.stack.statistics().drops.total();
    assert_eq!(total, 13);
}

#[test]
fn other_networks_are_reached_over_the_gateway() {
    let mut config = config();
    config.gateway = Some(THEIRS);
    let mut peer = Peer::new(config);
    let far = std::net::SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 80);
    peer.stack.connect(peer.now, far).expect("a route");
    let (frame, _) = peer.frame().expect("a SYN");
    let ethernet = ethernet::Header::parse(&frame).expect("whole");
    assert_eq!(ethernet.destination, THEIR_MAC);
    let ip = ipv4::Header::parse(&frame[14..]).expect("valid");
    assert_eq!(ip.destination, *far.ip());
}

#[test]
fn a_verified_checksum_is_not_computed_again() {
    let (mut peer, socket) = Peer::accepted(config());
    let mut frame = Peer::tcp_frame(&peer.header(ACK, peer.seq), b"payload");
    // As a TAP gives it: the field holds the pseudo-header's sum only.
    frame[50] ^= 0xff;
    let meta = RxMeta { checksum: Checksum::Verified };
    peer.stack.receive(peer.now, TestBuffer::new(frame), meta);
    assert_eq!(peer.read(socket), b"payload");
}

#[test]
fn a_short_buffer_sends_nothing() {
    let mut peer = Peer::new(config());
    peer.receive(echo_request(8));
    let mut frame = vec![0; peer.stack.max_frame_len() - 1];
    assert_eq!(peer.stack.poll_transmit(peer.now, &mut frame), None);
    assert!(peer.frame().is_some());
}

#[test]
fn an_established_connection_follows_its_neighbour() {
    let (mut peer, socket) = Peer::accepted(config());
    peer.now += Duration::from_secs(60);
    peer.stack.send(peer.now, socket, b"x").expect("room");
    // The old answer serves; a new one is asked for, and believed.
    let (frame, _) = peer.frame().expect("the segment");
    assert_eq!(frame[12..14], [8, 0]);
    assert_eq!(MacAddress([frame[0], frame[1], frame[2], frame[3], frame[4], frame[5]]), THEIR_MAC);
    assert_eq!(peer.frame(), None);
    assert!(peer.stack.poll_timeout().is_some());
}
