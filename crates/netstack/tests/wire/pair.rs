//! Two stacks on a wire, in virtual time: everything follows from a seed.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    net::{Ipv4Addr, SocketAddrV4},
    rc::Rc,
    time::Duration,
};

use netstack::{
    Checksum, Config, Instant, Ipv4Cidr, LinkCapabilities, MacAddress, PacketBuffer, RxMeta, Stack,
    TcpConfig, TxMeta,
};

/// A frame as a link with small and large slots would hold it.
#[derive(Clone, Debug)]
pub(crate) struct Frame(Rc<[u8]>);

impl AsRef<[u8]> for Frame {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl PacketBuffer for Frame {
    fn truesize(&self) -> usize {
        if self.0.len() <= 2048 { 2048 } else { 68 << 10 }
    }
}

/// `SplitMix64`.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// True `per_mille` times in a thousand.
    pub(crate) fn chance(&mut self, per_mille: u64) -> bool {
        self.below(1000) < per_mille
    }
}

/// What the wire does to a frame, each in 1/1000.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    pub(crate) loss: u64,
    pub(crate) reordering: u64,
    pub(crate) duplication: u64,
    pub(crate) corruption: u64,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct WireConfig {
    pub(crate) latency: Duration,
    pub(crate) faults: Faults,
    /// Super-frames arrive whole, as over a TAP; otherwise they are cut into segments with
    /// complete checksums.
    pub(crate) keep_super_frames: bool,
}

pub(crate) const ADDRESSES: [Ipv4Addr; 2] =
    [Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2)];

pub(crate) fn config(side: usize, link: LinkCapabilities, tcp: TcpConfig) -> Config {
    Config {
        mac: MacAddress([2, 0, 0, 0, 0, side as u8 + 1]),
        address: Ipv4Cidr { address: ADDRESSES[side], prefix_len: 24 },
        gateway: None,
        link,
        tcp,
        seed: [side as u8 + 7; 16],
    }
}

pub(crate) fn offloads() -> LinkCapabilities {
    LinkCapabilities { mtu: 1500, checksum_offload: true, tso_max: Some(65_535 + 14) }
}

struct Flight {
    arrives: Instant,
    order: u64,
    to: usize,
    bytes: Vec<u8>,
    checksum: Checksum,
}

impl Flight {
    fn key(&self) -> (Instant, u64) {
        (self.arrives, self.order)
    }
}

impl PartialEq for Flight {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}
impl Eq for Flight {}
impl PartialOrd for Flight {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Flight {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}

/// Two hosts and the wire between them.
pub(crate) struct Pair {
    pub(crate) now: Instant,
    pub(crate) stacks: [Stack<Frame>; 2],
    pub(crate) random: Random,
    pub(crate) wire: WireConfig,
    in_flight: BinaryHeap<Reverse<Flight>>,
    order: u64,
    /// Which of the frames that carry TCP payload to drop, by the sender's side: ascending numbers.
    pub(crate) drop_data: [VecDeque<u64>; 2],
    data_frames: [u64; 2],
    /// Everything that was sent: when, by whom, and the frame.
    pub(crate) trace: Vec<(Instant, usize, Vec<u8>)>,
    pub(crate) keep_trace: bool,
}

impl Pair {
    pub(crate) fn new(seed: u64, wire: WireConfig, configs: [Config; 2]) -> Self {
        Self {
            now: Instant::from_millis(1),
            stacks: configs.map(|config| Stack::new(config).expect("a sane configuration")),
            random: Random::new(seed),
            wire,
            in_flight: BinaryHeap::new(),
            order: 0,
            drop_data: [VecDeque::new(), VecDeque::new()],
            data_frames: [0; 2],
            trace: Vec::new(),
            keep_trace: false,
        }
    }

    /// Puts all that the stacks have to send on the wire; returns how many frames.
    pub(crate) fn transmit(&mut self) -> usize {
        let mut sent = 0;
        for side in 0..2 {
            let mut frame = vec![0xa5; self.stacks[side].max_frame_len()];
            while let Some(meta) = self.stacks[side].poll_transmit(self.now, &mut frame) {
                sent += 1;
                assert!(sent < 100_000, "the stack does not stop sending");
                let bytes = frame[..meta.len].to_vec();
                if self.keep_trace {
                    self.trace.push((self.now, side, bytes.clone()));
                }
                self.put(1 - side, bytes, meta);
            }
        }
        sent
    }

    fn put(&mut self, to: usize, bytes: Vec<u8>, meta: TxMeta) {
        if meta.gso.is_some() && self.wire.keep_super_frames {
            return self.fly(to, bytes, Checksum::Verified);
        }
        let verified = meta.checksum.is_some() && self.wire.keep_super_frames;
        let checksum = if verified { Checksum::Verified } else { Checksum::Unverified };
        for frame in cut(bytes, meta) {
            let frame = if verified { frame } else { complete(frame, meta) };
            self.fly(to, frame, checksum);
        }
    }

    fn fly(&mut self, to: usize, mut bytes: Vec<u8>, checksum: Checksum) {
        let Faults { loss, reordering, duplication, corruption } = self.wire.faults;
        if tcp_payload(&bytes) > 0 {
            let nth = self.data_frames[1 - to];
            self.data_frames[1 - to] += 1;
            if self.drop_data[1 - to].front() == Some(&nth) {
                self.drop_data[1 - to].pop_front();
                return;
            }
        }
        if self.random.chance(loss) {
            return;
        }
        let copies = if self.random.chance(duplication) { 2 } else { 1 };
        // ARP has no checksum, and a vouched-for frame is not checked: nobody could notice.
        let is_ip = bytes[12..14] == [8, 0];
        if is_ip && checksum == Checksum::Unverified && self.random.chance(corruption) {
            let bit = 8 * 14 + self.random.below(8 * (bytes.len() as u64 - 14));
            bytes[bit as usize / 8] ^= 1 << (bit % 8);
        }
        for _ in 0..copies {
            let late = if self.random.chance(reordering) {
                self.wire.latency.mul_f64(self.random.below(4000) as f64 / 1000.0)
            } else {
                Duration::ZERO
            };
            self.order += 1;
            self.in_flight.push(Reverse(Flight {
                arrives: self.now + self.wire.latency + late,
                order: self.order,
                to,
                bytes: bytes.clone(),
                checksum,
            }));
        }
    }

    /// When something happens next.
    pub(crate) fn next_event(&self) -> Option<Instant> {
        let arrival = self.in_flight.peek().map(|Reverse(flight)| flight.arrives);
        let timeouts = self.stacks.iter().filter_map(Stack::poll_timeout);
        arrival.into_iter().chain(timeouts).min()
    }

    /// Goes on to `at`: delivers what arrives by then, and handles timeouts.
    pub(crate) fn advance(&mut self, at: Instant) {
        self.now = self.now.max(at);
        while let Some(Reverse(flight)) = self.in_flight.peek()
            && flight.arrives <= self.now
        {
            let Some(Reverse(Flight { to, bytes, checksum, .. })) = self.in_flight.pop() else {
                break;
            };
            self.stacks[to].receive(self.now, Frame(bytes.into()), RxMeta { checksum });
        }
        for stack in &mut self.stacks {
            if stack.poll_timeout().is_some_and(|at| at <= self.now) {
                stack.handle_timeout(self.now);
            }
        }
    }

    /// Lets time pass until nothing is left to happen, or `until`.
    pub(crate) fn run(&mut self, until: Instant) {
        loop {
            self.transmit();
            match self.next_event() {
                Some(at) if at <= until => self.advance(at),
                _ => break,
            }
        }
        self.now = self.now.max(until.min(self.next_event().unwrap_or(until)));
    }

    /// A server socket on side 1 and a client socket on side 0, connected.
    pub(crate) fn connect(&mut self) -> (netstack::SocketId, netstack::SocketId) {
        let address = SocketAddrV4::new(ADDRESSES[1], 80);
        let listener = self.stacks[1].listen(address, 4).expect("free");
        let client = self.stacks[0].connect(self.now, address).expect("a port");
        let limit = self.now + Duration::from_secs(120);
        loop {
            self.transmit();
            if let Some((server, _)) = self.stacks[1].accept(listener) {
                return (client, server);
            }
            let at = self.next_event().expect("a connection without progress");
            assert!(at < limit, "no connection");
            self.advance(at);
        }
    }
}

/// Payload bytes of a TCP frame; 0 for others.
pub(crate) fn tcp_payload(frame: &[u8]) -> usize {
    if frame.len() < 54 || frame[12..14] != [8, 0] || frame[23] != 6 {
        return 0;
    }
    frame.len() - 34 - usize::from(frame[46] >> 4) * 4
}

fn sum(data: &[u8], mut sum: u32) -> u16 {
    for pair in data.chunks(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
        sum = (sum >> 16) + (sum & 0xffff);
    }
    sum as u16
}

/// What a network card does with a super-frame.
fn cut(frame: Vec<u8>, meta: TxMeta) -> Vec<Vec<u8>> {
    let Some(gso) = meta.gso else { return vec![frame] };
    let (headers, payload) = frame.split_at(gso.header_len);
    let count = payload.len().div_ceil(gso.segment_size);
    let seq = u32::from_be_bytes(headers[38..42].try_into().expect("four bytes"));
    let segments = payload.chunks(gso.segment_size).enumerate().map(|(i, piece)| {
        let mut segment = [headers, piece].concat();
        let seq = seq.wrapping_add((i * gso.segment_size) as u32);
        segment[38..42].copy_from_slice(&seq.to_be_bytes());
        if i + 1 < count {
            segment[47] &= !0b1001; // FIN, PSH
        }
        let ip_len = (segment.len() - 14) as u16;
        segment[16..18].copy_from_slice(&ip_len.to_be_bytes());
        segment[24..26].fill(0);
        let header = !sum(&segment[14..34], 0);
        segment[24..26].copy_from_slice(&header.to_be_bytes());
        // The partial sum has the super-frame's length in it.
        let total = (frame.len() - 34) as u16;
        let length = (segment.len() - 34) as u16;
        let partial = u16::from_be_bytes([segment[50], segment[51]]);
        let partial = sum(&[], 0).wrapping_add(sum(
            &(!total).to_be_bytes(),
            u32::from(sum(&length.to_be_bytes(), u32::from(partial))),
        ));
        segment[50..52].copy_from_slice(&partial.to_be_bytes());
        segment
    });
    segments.collect()
}

/// What a network card does with a partial checksum.
fn complete(mut frame: Vec<u8>, meta: TxMeta) -> Vec<u8> {
    if let Some(checksum) = meta.checksum {
        let at = checksum.start + checksum.offset;
        let value = !sum(&frame[checksum.start..], 0);
        frame[at..at + 2].copy_from_slice(&value.to_be_bytes());
    }
    frame
}
