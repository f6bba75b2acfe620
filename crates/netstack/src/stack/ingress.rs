//! The way in: from a frame to the protocol that takes it.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    ops::Range,
};

use super::{
    Stack,
    control::{Control, IpControl},
};
use crate::{
    Checksum, DropReason, Instant, MacAddress, PacketBuffer, RxMeta,
    config::is_host,
    tcp::{Dropped, Endpoints, Incoming},
    wire::{
        arp,
        checksum::Sum,
        ethernet,
        icmp::{self, Message, Unreachable},
        ipv4, tcp,
    },
};

impl<B: PacketBuffer> Stack<B> {
    /// Processes a frame, or says why not.
    pub(super) fn on_frame(
        &mut self,
        now: Instant,
        frame: B,
        meta: RxMeta,
    ) -> Result<(), DropReason> {
        let bytes = frame.as_ref();
        let header = ethernet::Header::parse(bytes).ok_or(DropReason::EthernetTruncated)?;
        let ethernet::Header { destination, source, ethertype } = header;
        if destination != self.config.mac && destination != MacAddress::BROADCAST {
            return Err(DropReason::EthernetNotForUs);
        }
        if !source.is_unicast() || source == self.config.mac {
            return Err(DropReason::EthernetBadSource);
        }
        match ethertype {
            ethernet::TYPE_ARP => {
                let packet = arp::Packet::parse(&bytes[ethernet::HEADER_LEN..])
                    .ok_or(DropReason::ArpMalformed)?;
                self.on_arp(now, source, packet)
            }
            ethernet::TYPE_IPV4 => self.on_ipv4(now, destination, frame, meta),
            _ => Err(DropReason::EthernetUnknownType),
        }
    }

    fn on_arp(
        &mut self,
        now: Instant,
        source: MacAddress,
        packet: arp::Packet,
    ) -> Result<(), DropReason> {
        let arp::Packet { operation, sender_mac, sender, target_mac: _, target } = packet;
        let address = self.config.address;
        // A probe for duplicate addresses comes from 0.0.0.0 (RFC 5227 section 2.1.1).
        let is_probe = sender.is_unspecified() && operation == arp::Operation::Request;
        let is_neighbor = is_host(sender)
            && sender != address.address
            && address.contains(sender)
            && address.broadcast() != Some(sender);
        if sender_mac != source || !(is_neighbor || is_probe) {
            return Err(DropReason::ArpBadSender);
        }
        if target != address.address {
            return Err(DropReason::ArpNotForUs);
        }
        let solicited = operation == arp::Operation::Reply;
        if is_neighbor {
            match self.neighbors.learn(now, sender, sender_mac, solicited) {
                Some(waiting) => self.on_resolved(now, waiting, true),
                None if solicited => return Err(DropReason::ArpNotForUs),
                None => {}
            }
        }
        if operation == arp::Operation::Request {
            let packet = arp::Packet {
                operation: arp::Operation::Reply,
                sender_mac: self.config.mac,
                sender: address.address,
                target_mac: sender_mac,
                target: sender,
            };
            self.answer(Control::Arp { to: sender_mac, packet });
        }
        Ok(())
    }

    fn on_ipv4(
        &mut self,
        now: Instant,
        destination_mac: MacAddress,
        frame: B,
        meta: RxMeta,
    ) -> Result<(), DropReason> {
        let header = ipv4::Header::parse(&frame.as_ref()[ethernet::HEADER_LEN..])?;
        let ipv4::Header { source, destination, protocol, header_len, total_len } = header;
        let address = self.config.address;
        if destination != address.address {
            return Err(DropReason::Ipv4NotForUs);
        }
        if !is_host(source) || source == address.address || address.broadcast() == Some(source) {
            return Err(DropReason::Ipv4BadSource);
        }
        // RFC 1122 section 3.3.6: a packet for one host in a frame for all is an error.
        if destination_mac != self.config.mac {
            return Err(DropReason::Ipv4NotForUs);
        }
        // What follows the packet is Ethernet's padding.
        let packet = ethernet::HEADER_LEN..ethernet::HEADER_LEN + total_len;
        let payload = packet.start + header_len..packet.end;
        match protocol {
            ipv4::PROTOCOL_TCP => self.on_tcp(now, source, frame, payload, meta),
            ipv4::PROTOCOL_ICMP => self.on_icmp(now, source, frame, payload),
            ipv4::PROTOCOL_UDP => {
                self.answer_unreachable(now, source, Unreachable::Port, frame, packet);
                Err(DropReason::UdpNoPort)
            }
            _ => {
                self.answer_unreachable(now, source, Unreachable::Protocol, frame, packet);
                Err(DropReason::Ipv4UnknownProtocol)
            }
        }
    }

    fn on_tcp(
        &mut self,
        now: Instant,
        source: Ipv4Addr,
        frame: B,
        range: Range<usize>,
        meta: RxMeta,
    ) -> Result<(), DropReason> {
        let segment = &frame.as_ref()[range.clone()];
        let (header, payload) = tcp::Header::parse(segment).ok_or(DropReason::TcpMalformed)?;
        if meta.checksum == Checksum::Unverified {
            let pseudo_header = Sum::of_pseudo_header(
                source,
                self.config.address.address,
                ipv4::PROTOCOL_TCP,
                segment.len(),
            );
            if !pseudo_header.plus(Sum::of(segment)).is_valid() {
                return Err(DropReason::TcpChecksum);
            }
        }
        let incoming = Incoming {
            endpoints: Endpoints {
                remote: SocketAddrV4::new(source, header.source_port),
                local_port: header.destination_port,
            },
            header,
            buffer: frame,
            payload: range.start + payload.start..range.start + payload.end,
        };
        self.tcp.on_segment(now, incoming, &mut self.statistics.tcp).map_err(|dropped| {
            let Dropped { reason, reply } = dropped;
            if let Some(reply) = reply {
                self.answer(Control::Ip(IpControl::Tcp(reply)));
            }
            reason
        })
    }

    fn on_icmp(
        &mut self,
        now: Instant,
        source: Ipv4Addr,
        frame: B,
        range: Range<usize>,
    ) -> Result<(), DropReason> {
        match Message::parse(&frame.as_ref()[range.clone()])? {
            Message::EchoRequest => {
                let fits = ipv4::HEADER_LEN + range.len() <= self.config.link.mtu;
                if !fits || !self.echo_limit.take(now) {
                    return Err(DropReason::IcmpEchoLimit);
                }
                let reply = IpControl::EchoReply { to: source, frame, message: range };
                self.answer(Control::Ip(reply));
                Ok(())
            }
            Message::Unreachable { reason, quoted } => {
                let ours = ipv4::Header::parse_quoted(quoted)
                    .filter(|quoted| quoted.source == self.config.address.address)
                    .filter(|quoted| quoted.protocol == ipv4::PROTOCOL_TCP)
                    .ok_or(DropReason::IcmpUnrelated)?;
                // RFC 792: at least the ports and the sequence number follow.
                let header = quoted.get(ours.header_len..).unwrap_or_default();
                let (ports, seq) = icmp::quoted_tcp(header).ok_or(DropReason::IcmpUnrelated)?;
                let endpoints = Endpoints {
                    remote: SocketAddrV4::new(ours.destination, ports.1),
                    local_port: ports.0,
                };
                let statistics = &mut self.statistics.tcp;
                self.tcp.on_unreachable(now, endpoints, seq, reason, statistics)
            }
        }
    }

    fn answer_unreachable(
        &mut self,
        now: Instant,
        to: Ipv4Addr,
        reason: Unreachable,
        frame: B,
        packet: Range<usize>,
    ) {
        // RFC 1812 section 4.3.2.8: errors are limited in their rate.
        if self.error_limit.take(now) {
            self.answer(Control::Ip(IpControl::Unreachable { to, reason, frame, packet }));
        } else {
            self.statistics.replies_suppressed += 1;
        }
    }
}
