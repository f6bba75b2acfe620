//! The way out: what is sent, and how it becomes a frame.

use std::net::Ipv4Addr;

use super::{
    Stack,
    control::{Control, IpControl},
    neighbors::{Lookup, Waiting},
};
use crate::{
    Gso, Instant, MacAddress, PacketBuffer, PartialChecksum, TxMeta,
    slab::Key,
    tcp::Room,
    wire::{arp, checksum::Sum, ethernet, icmp, ipv4, tcp},
};

/// Where the transport header begins in frames that we send.
const TRANSPORT: usize = ethernet::HEADER_LEN + ipv4::HEADER_LEN;

impl<B: PacketBuffer> Stack<B> {
    /// Writes the next frame.
    pub(super) fn next_frame(&mut self, now: Instant, frame: &mut [u8]) -> Option<TxMeta> {
        if let Some(address) = self.neighbors.pop_request() {
            let packet = arp::Packet {
                operation: arp::Operation::Request,
                sender_mac: self.config.mac,
                sender: self.config.address.address,
                target_mac: MacAddress([0; 6]),
                target: address,
            };
            return Some(self.write_arp(MacAddress::BROADCAST, &packet, frame));
        }
        while let Some(control) = self.controls.pop() {
            match control {
                Control::Arp { to, packet } => return Some(self.write_arp(to, &packet, frame)),
                Control::Ip(control) => {
                    if let Some(meta) = self.send_control(now, control, frame) {
                        return Some(meta);
                    }
                }
            }
        }
        while let Some(key) = self.tcp.sockets.pop_transmit() {
            if let Some(meta) = self.send_segment(now, key, frame) {
                return Some(meta);
            }
        }
        // A socket may have been parked: ask for its next hop.
        match self.neighbors.has_requests() {
            true => self.next_frame(now, frame),
            false => None,
        }
    }

    /// What has waited for a neighbour, which has answered or (`!reachable`) has not.
    pub(super) fn on_resolved(&mut self, now: Instant, waiting: Waiting<B>, reachable: bool) {
        let Waiting { sockets, packets } = waiting;
        for key in sockets {
            self.tcp.on_resolved(now, key, reachable, &mut self.statistics.tcp);
        }
        for packet in packets {
            if reachable {
                self.answer(Control::Ip(packet));
            } else {
                self.statistics.neighbor_unreachable += 1;
            }
        }
    }

    /// The neighbour that a packet for `destination` goes to; `None` if there is no route.
    pub(super) fn next_hop(&self, destination: Ipv4Addr) -> Option<Ipv4Addr> {
        let local = self.config.address.contains(destination);
        if local { Some(destination) } else { self.config.gateway }
    }

    fn resolve(&mut self, now: Instant, next_hop: Option<Ipv4Addr>) -> Lookup {
        next_hop.map_or(Lookup::Unreachable, |next_hop| self.neighbors.lookup(now, next_hop))
    }

    fn write_arp(&self, to: MacAddress, packet: &arp::Packet, frame: &mut [u8]) -> TxMeta {
        let Self { config, .. } = self;
        let ethertype = ethernet::TYPE_ARP;
        ethernet::Header { destination: to, source: config.mac, ethertype }.write(frame);
        packet.write(&mut frame[ethernet::HEADER_LEN..]);
        TxMeta { len: ethernet::HEADER_LEN + arp::LEN, checksum: None, gso: None }
    }

    /// Writes the headers in front of `payload_len` bytes.
    fn write_ip(
        &self,
        mac: MacAddress,
        to: Ipv4Addr,
        protocol: u8,
        payload_len: usize,
        frame: &mut [u8],
    ) {
        let ethertype = ethernet::TYPE_IPV4;
        ethernet::Header { destination: mac, source: self.config.mac, ethertype }.write(frame);
        ipv4::Header::new(self.config.address.address, to, protocol, payload_len)
            .write(&mut frame[ethernet::HEADER_LEN..]);
    }

    fn send_control(
        &mut self,
        now: Instant,
        control: IpControl<B>,
        frame: &mut [u8],
    ) -> Option<TxMeta> {
        let to = control.destination();
        let next_hop = self.next_hop(to);
        let mac = match self.resolve(now, next_hop) {
            Lookup::Reachable(mac) => mac,
            Lookup::Asked => {
                if !next_hop.is_some_and(|next_hop| self.neighbors.wait(next_hop, control)) {
                    self.statistics.replies_suppressed += 1;
                }
                return None;
            }
            Lookup::Unreachable => {
                self.statistics.neighbor_unreachable += 1;
                return None;
            }
        };
        if let Some(next_hop) = next_hop {
            self.neighbors.touch(now, next_hop);
        }
        let message = &mut frame[TRANSPORT..];
        let len = match control {
            IpControl::Tcp(reply) => {
                if reply.rst {
                    self.statistics.tcp.resets_sent += 1;
                } else {
                    self.statistics.tcp.acks_sent += 1;
                }
                let header = reply.header();
                header.write(message);
                return Some(self.finish_segment(mac, to, header.len(), None, frame));
            }
            IpControl::EchoReply { frame, message: range, .. } => {
                let request = frame.as_ref().get(range).unwrap_or_default();
                icmp::write_echo_reply(request, message);
                request.len()
            }
            IpControl::Unreachable { reason, frame, packet, .. } => {
                let packet = frame.as_ref().get(packet).unwrap_or_default();
                icmp::write_unreachable(reason, packet, message)
            }
        };
        self.write_ip(mac, to, ipv4::PROTOCOL_ICMP, len, frame);
        Some(TxMeta { len: TRANSPORT + len, checksum: None, gso: None })
    }

    fn send_segment(&mut self, now: Instant, key: Key, frame: &mut [u8]) -> Option<TxMeta> {
        let to = *self.tcp.sockets.get(key)?.remote().ip();
        let next_hop = self.next_hop(to);
        let mac = match self.resolve(now, next_hop) {
            Lookup::Reachable(mac) => Some(mac),
            Lookup::Asked => {
                // Nothing is made for the queue: the socket makes its segment when it can be sent.
                if let Some(waiting) = next_hop.and_then(|hop| self.neighbors.waiting(hop))
                    && let Some(socket) = self.tcp.sockets.get_mut(key)
                {
                    socket.is_parked = true;
                    waiting.sockets.push(key);
                }
                return None;
            }
            // As if it were lost on the way: retransmission asks again, and gives up in the end.
            Lookup::Unreachable => None,
        };
        let room =
            self.config.link.tso_max.map_or(Room::Segment, |len| Room::SuperFrame(len - TRANSPORT));
        let free = self.tcp.sockets.receive_memory().free();
        let socket = self.tcp.sockets.get_mut(key)?;
        let outgoing = socket.poll_transmit(now, free, room, &mut self.statistics.tcp);
        if let Some(outgoing) = &outgoing {
            let header_len = outgoing.header.len();
            let segment = &mut frame[TRANSPORT..TRANSPORT + header_len + outgoing.len];
            outgoing.header.write(segment);
            socket.copy_payload(outgoing, &mut segment[header_len..]);
        }
        let mss = socket.connection().map(|connection| connection.sender().mss());
        self.tcp.sockets.after_transmit(key, outgoing.is_some());
        let outgoing = outgoing?;
        self.statistics.tcp.segments_sent += 1;
        let Some(mac) = mac else {
            self.statistics.neighbor_unreachable += 1;
            return None;
        };
        if let Some(next_hop) = next_hop {
            self.neighbors.touch(now, next_hop);
        }
        let header_len = outgoing.header.len();
        let gso = mss
            .filter(|&mss| outgoing.len > mss)
            .map(|segment_size| Gso { segment_size, header_len: TRANSPORT + header_len });
        Some(self.finish_segment(mac, to, header_len + outgoing.len, gso, frame))
    }

    /// Completes a frame in which the TCP segment of `len` bytes stands already.
    fn finish_segment(
        &self,
        mac: MacAddress,
        to: Ipv4Addr,
        len: usize,
        gso: Option<Gso>,
        frame: &mut [u8],
    ) -> TxMeta {
        self.write_ip(mac, to, ipv4::PROTOCOL_TCP, len, frame);
        let from = self.config.address.address;
        let sum = Sum::of_pseudo_header(from, to, ipv4::PROTOCOL_TCP, len);
        let segment = &mut frame[TRANSPORT..TRANSPORT + len];
        let offset = tcp::CHECKSUM_OFFSET;
        let (value, checksum) = if self.config.link.checksum_offload {
            (sum.partial(), Some(PartialChecksum { start: TRANSPORT, offset }))
        } else {
            (sum.plus(Sum::of(segment)).complete(), None)
        };
        segment[offset..offset + 2].copy_from_slice(&value.to_be_bytes());
        TxMeta { len: TRANSPORT + len, checksum, gso }
    }
}
