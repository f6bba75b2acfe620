//! What is not TCP.

use std::{
    io::ErrorKind,
    net::{SocketAddr, SocketAddrV4, UdpSocket},
};

use netstack::DropReason;
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, socket_with};

use crate::{CPU, KERNELS, OURS, PORT, host, waiting::PATIENCE};

/// ICMP types (RFC 792).
const ECHO_REPLY: u8 = 0;
const ECHO_REQUEST: u8 = 8;

pub(crate) fn echo_requests_are_answered() {
    let host = host(CPU);
    // In the namespace we are root, who may. Addresses are those of UDP.
    let icmp = socket_with(
        AddressFamily::INET,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        Some(ipproto::ICMP),
    );
    let icmp = UdpSocket::from(icmp.unwrap());
    icmp.set_read_timeout(Some(PATIENCE)).unwrap();
    for (sequence, len) in [0_usize, 1, 56, 1400].into_iter().enumerate() {
        let mut message = vec![ECHO_REQUEST, 0, 0, 0, 0x12, 0x34, 0, sequence as u8];
        message.extend((0..len).map(|i| i as u8));
        let checksum = internet_checksum(&message);
        message[2..4].copy_from_slice(&checksum.to_be_bytes());
        icmp.send_to(&message, SocketAddrV4::new(OURS, 0)).unwrap();
        let mut packet = [0; 2000];
        let reply = loop {
            let (len, from) = icmp.recv_from(&mut packet).unwrap();
            assert_eq!(from.ip(), OURS);
            // A raw socket shows the IPv4 header too.
            let header_len = usize::from(packet[0] & 0xf) * 4;
            let reply = &packet[header_len..len];
            if reply[0] == ECHO_REPLY {
                break reply;
            }
        };
        assert_eq!(internet_checksum(reply), 0);
        assert_eq!(reply[4..], message[4..], "identifier, sequence number and data come back");
    }
    let drops = host.stack().statistics().protocols.drops;
    // What the kernel says to groups when an interface comes up is dropped: its IPv6 asks for
    // routers, and IGMP tells of its memberships.
    let to_groups =
        [DropReason::EthernetUnknownType, DropReason::EthernetNotForUs, DropReason::Ipv4NotForUs];
    let others = DropReason::ALL.iter().filter(|reason| !to_groups.contains(reason));
    for &reason in others {
        assert_eq!(drops[reason], 0, "{}", reason.name());
    }
}

/// RFC 1071.
fn internet_checksum(bytes: &[u8]) -> u16 {
    let sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)))
        .sum();
    let folded = (sum >> 16) + (sum & 0xffff);
    !(((folded >> 16) + folded) as u16)
}

pub(crate) fn udp_is_refused() {
    let _host = host(CPU);
    let socket = UdpSocket::bind((KERNELS, 0)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.connect(SocketAddr::from((OURS, PORT))).unwrap();
    socket.send(b"anybody there?").unwrap();
    // ICMP port unreachable.
    let refused = socket.recv(&mut [0; 100]).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
}
