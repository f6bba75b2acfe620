use std::{
    collections::VecDeque,
    net::{Ipv4Addr, SocketAddrV4},
    time::Duration,
};

use crate::{
    Checksum, Config, DropReason, Event, Instant, Ipv4Cidr, LinkCapabilities, ListenerId,
    MacAddress, Readiness, RxMeta, SocketId, Stack, TcpConfig, TxMeta,
    tcp::{seq::SeqNumber, test_buffer::TestBuffer},
    wire::{
        arp,
        checksum::Sum,
        ethernet, ipv4,
        tcp::{Flags, Header, Options, Timestamps},
    },
};

pub(super) const OURS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
pub(super) const THEIRS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
pub(super) const OUR_MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
pub(super) const THEIR_MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 2]);
/// The port that the stack listens on, or that the peer has when the stack connects.
pub(super) const PORT: u16 = 80;
/// The peer's initial sequence number: its stream wraps early.
pub(super) const IRS: SeqNumber = SeqNumber(u32::MAX - 100);
const PEER_PORT: u16 = 1234;

pub(super) const ACK: Flags = Flags::ACK;
pub(super) const SYN: Flags = Flags::SYN;
pub(super) const FIN: Flags = Flags::FIN;
pub(super) const RST: Flags = Flags::RST;
pub(super) const PSH: Flags = Flags::PSH;
pub(super) const URG: Flags = Flags::URG;

pub(super) fn config() -> Config {
    Config {
        mac: OUR_MAC,
        address: Ipv4Cidr { address: OURS, prefix_len: 24 },
        gateway: None,
        link: LinkCapabilities::default(),
        tcp: TcpConfig { receive_buffer: 60_000, send_buffer: 100_000, ..TcpConfig::default() },
        seed: [3; 16],
    }
}

/// A segment that the stack has sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sent {
    pub(super) header: Header,
    pub(super) payload: Vec<u8>,
    pub(super) meta: TxMeta,
}

/// The stack, and what its peer knows about the connection.
pub(super) struct Peer {
    pub(super) stack: Stack<TestBuffer>,
    pub(super) now: Instant,
    pub(super) port: u16,
    pub(super) local_port: u16,
    /// The next sequence number that the peer sends.
    pub(super) seq: SeqNumber,
    /// What it acknowledges.
    pub(super) ack: SeqNumber,
    /// The window field that it sends.
    pub(super) window: u16,
    /// Where its urgent pointers point, counted from the segment's first byte.
    pub(super) urgent: u16,
    pub(super) options: Options,
    /// Its timestamps, if it uses them.
    pub(super) clock: Option<u32>,
    answers_arp: bool,
    /// Frames that were sent while time passed.
    early: VecDeque<(Vec<u8>, TxMeta)>,
}

impl Peer {
    /// A stack whose neighbour the peer already is.
    pub(super) fn new(config: Config) -> Self {
        let mut peer = Self::stranger(config);
        peer.arp(arp::Operation::Request, THEIRS, OURS);
        peer.answers_arp = true;
        let reply = peer.frame().expect("an ARP reply");
        assert_eq!(ethernet::Header::parse(&reply.0).map(|h| h.ethertype), Some(0x806));
        peer
    }

    pub(super) fn stranger(config: Config) -> Self {
        Self {
            stack: Stack::new(config).expect("a sane configuration"),
            now: Instant::from_millis(1000),
            port: PEER_PORT,
            local_port: PORT,
            seq: IRS,
            ack: SeqNumber(0),
            window: 50_000,
            urgent: 0,
            options: Options { mss: Some(1000), ..Options::default() },
            clock: None,
            answers_arp: false,
            early: VecDeque::new(),
        }
    }

    pub(super) fn arp(&mut self, operation: arp::Operation, sender: Ipv4Addr, target: Ipv4Addr) {
        let packet = arp::Packet {
            operation,
            sender_mac: THEIR_MAC,
            sender,
            target_mac: MacAddress([0; 6]),
            target,
        };
        let mut frame = vec![0; 60];
        let ethertype = ethernet::TYPE_ARP;
        let destination = MacAddress::BROADCAST;
        ethernet::Header { destination, source: THEIR_MAC, ethertype }.write(&mut frame);
        packet.write(&mut frame[14..]);
        self.receive(frame);
    }

    pub(super) fn receive(&mut self, frame: Vec<u8>) {
        let meta = RxMeta { checksum: Checksum::Unverified };
        self.stack.receive(self.now, TestBuffer::new(frame), meta);
    }

    /// An IPv4 frame from the peer.
    pub(super) fn ip_frame(protocol: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![0; 34];
        let ethertype = ethernet::TYPE_IPV4;
        ethernet::Header { destination: OUR_MAC, source: THEIR_MAC, ethertype }.write(&mut frame);
        ipv4::Header::new(THEIRS, OURS, protocol, payload.len()).write(&mut frame[14..]);
        frame.extend_from_slice(payload);
        frame
    }

    pub(super) fn tcp_frame(header: &Header, payload: &[u8]) -> Vec<u8> {
        let mut segment = vec![0; header.len()];
        header.write(&mut segment);
        segment.extend_from_slice(payload);
        let sum = Sum::of_pseudo_header(THEIRS, OURS, ipv4::PROTOCOL_TCP, segment.len())
            .plus(Sum::of(&segment))
            .complete();
        segment[16..18].copy_from_slice(&sum.to_be_bytes());
        Self::ip_frame(ipv4::PROTOCOL_TCP, &segment)
    }

    pub(super) fn header(&self, flags: Flags, seq: SeqNumber) -> Header {
        let mut options = if flags.contains(SYN) { self.options } else { Options::default() };
        options.timestamps = self.clock.map(|value| Timestamps { value, echo: 0 });
        Header {
            source_port: self.port,
            destination_port: self.local_port,
            seq,
            ack: self.ack,
            flags,
            window: self.window,
            urgent: if flags.contains(URG) { self.urgent } else { 0 },
            options,
        }
    }

    /// Sends a segment with any sequence number.
    pub(super) fn send_at(&mut self, flags: Flags, seq: SeqNumber, payload: &[u8]) {
        let header = self.header(flags, seq);
        self.receive(Self::tcp_frame(&header, payload));
    }

    /// Sends the next segment.
    pub(super) fn send(&mut self, flags: Flags, payload: &[u8]) {
        self.send_at(flags, self.seq, payload);
        self.seq +=
            payload.len() + usize::from(flags.contains(SYN)) + usize::from(flags.contains(FIN));
    }

    /// The next frame of the stack.
    pub(super) fn frame(&mut self) -> Option<(Vec<u8>, TxMeta)> {
        if let Some(frame) = self.early.pop_front() {
            return Some(frame);
        }
        loop {
            let (frame, meta) = self.next_frame()?;
            let asked = frame[12..14] == [8, 6]
                && arp::Packet::parse(&frame[14..]).is_some_and(|packet| {
                    packet.operation == arp::Operation::Request && packet.target == THEIRS
                });
            if !(asked && self.answers_arp) {
                return Some((frame, meta));
            }
            self.arp(arp::Operation::Reply, THEIRS, OURS);
        }
    }

    fn next_frame(&mut self) -> Option<(Vec<u8>, TxMeta)> {
        let mut frame = vec![0xee; self.stack.max_frame_len()];
        let meta = self.stack.poll_transmit(self.now, &mut frame)?;
        frame.truncate(meta.len);
        Some((frame, meta))
    }

    /// The next segment of the stack, if it sends one; its checksum is checked.
    pub(super) fn poll(&mut self) -> Option<Sent> {
        let (frame, meta) = self.frame()?;
        let ethernet = ethernet::Header::parse(&frame).expect("whole");
        assert_eq!((ethernet.source, ethernet.destination), (OUR_MAC, THEIR_MAC));
        assert_eq!(ethernet.ethertype, ethernet::TYPE_IPV4);
        let ip = ipv4::Header::parse(&frame[14..]).expect("valid");
        assert_eq!((ip.source, ip.destination), (OURS, THEIRS));
        assert_eq!((ip.protocol, ip.total_len), (ipv4::PROTOCOL_TCP, frame.len() - 14));
        let segment = &frame[34..];
        let sum = Sum::of_pseudo_header(OURS, THEIRS, ipv4::PROTOCOL_TCP, segment.len());
        if meta.checksum.is_none() {
            assert!(sum.plus(Sum::of(segment)).is_valid());
        } else {
            assert_eq!(segment[16..18], sum.partial().to_be_bytes());
        }
        let (header, payload) = Header::parse(segment).expect("valid");
        assert_eq!((header.source_port, header.destination_port), (self.local_port, self.port));
        Some(Sent { header, payload: segment[payload].to_vec(), meta })
    }

    /// The next segment of the stack, which must have these flags.
    pub(super) fn expect(&mut self, flags: Flags) -> Sent {
        let sent = self.poll().expect("a segment");
        assert_eq!(sent.header.flags, flags, "{sent:?}");
        sent
    }

    pub(super) fn expect_nothing(&mut self) {
        assert_eq!(self.poll(), None);
    }

    /// Everything that the stack sends now.
    pub(super) fn drain(&mut self) -> Vec<Sent> {
        std::iter::from_fn(|| self.poll()).collect()
    }

    /// Lets time pass until the stack sends something, at most for `duration`. Timeouts are handled
    /// when they are due.
    pub(super) fn wait(&mut self, duration: Duration) {
        let end = self.now + duration;
        while let Some(at) = self.stack.poll_timeout().filter(|&at| at <= end) {
            self.now = self.now.max(at);
            self.stack.handle_timeout(self.now);
            if self.stack.poll_timeout().is_some_and(|at| at <= self.now) {
                panic!("a timeout that does nothing");
            }
            if let Some(frame) = self.frame() {
                self.early.push_back(frame);
                return;
            }
        }
        self.now = end;
    }

    pub(super) fn listen(&mut self) -> ListenerId {
        self.stack.listen(SocketAddrV4::new(OURS, PORT), 2).expect("free")
    }

    /// A connection that the peer has opened.
    pub(super) fn accepted(config: Config) -> (Self, SocketId) {
        let mut peer = Self::new(config);
        let socket = peer.open();
        (peer, socket)
    }

    pub(super) fn open(&mut self) -> SocketId {
        let listener = self.listen();
        self.send(SYN, b"");
        let answer = self.expect(SYN | ACK);
        assert_eq!(answer.header.ack, self.seq);
        self.ack = answer.header.seq + 1;
        self.send(ACK, b"");
        let (socket, peer) = self.stack.accept(listener).expect("established");
        assert_eq!(peer, SocketAddrV4::new(THEIRS, self.port));
        self.expect_nothing();
        while self.stack.poll_event().is_some() {}
        socket
    }

    /// Everything that has happened to `socket` since the last call.
    pub(super) fn changes(&mut self, socket: SocketId) -> Readiness {
        let mut all = Readiness::empty();
        while let Some(event) = self.stack.poll_event() {
            match event {
                Event::Socket { id, ready } if id == socket => all |= ready,
                other => panic!("{other:?}"),
            }
        }
        all
    }

    /// Takes and releases what has arrived.
    pub(super) fn read(&mut self, socket: SocketId) -> Vec<u8> {
        let mut bytes = Vec::new();
        while let Some(segment) = self.stack.take(socket, usize::MAX) {
            bytes.extend_from_slice(segment.payload());
            self.stack.release(self.now, socket, segment.charge);
        }
        bytes
    }

    pub(super) fn drops(&self, reason: DropReason) -> u64 {
        self.stack.statistics().drops[reason]
    }
}
