//! Two stacks and a bad network between them.

use std::{net::Ipv4Addr, time::Duration};

use dmaengine::Arena;
use netdev::{BufferCounts, FaultStatistics, Faults, Link, Profile, Wire, WireConfig, WireLink};
use netdma::RxPacket;
use netstack::{
    Checksum, Config, Instant, Ipv4Cidr, LinkCapabilities, MacAddress, RxMeta, Stack, TcpConfig,
};

/// `SplitMix64`: a few random choices for a test.
pub(crate) struct Random(pub(crate) u64);

impl Random {
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

    pub(crate) fn chance(&mut self, one_in: u64) -> bool {
        self.below(one_in) == 0
    }
}

/// One end: a stack and its link.
pub(crate) struct End {
    pub(crate) stack: Stack<RxPacket>,
    link: Faults<WireLink>,
    frame: Vec<u8>,
}

/// A sender and a receiver, over a wire that loses, reorders, doubles and corrupts.
pub(crate) fn pair(arena: &Arena, seed: u64, random: &mut Random) -> (End, End) {
    // Half of the runs with super-frames, half with real checksums, which alone may corrupt.
    let offload = random.chance(2);
    let wire = WireConfig {
        delay: Duration::from_micros(random.below(5000)),
        queue: 256,
        offload,
        buffers: BufferCounts { small: 1024, large: if offload { 48 } else { 1 } },
        event: false,
        ..WireConfig::default()
    };
    let (a, b) = Wire::pair(arena, &wire).expect("room in the arena");
    let mut profile = || Profile {
        loss: random.below(100) as f64 / 1000.0,
        duplicate: random.below(50) as f64 / 1000.0,
        corrupt: if offload { 0.0 } else { random.below(50) as f64 / 1000.0 },
        reorder: random.below(100) as f64 / 1000.0,
        hold: Duration::from_millis(3),
        delay: Duration::ZERO,
    };
    let (there, back) = (profile(), profile());
    let faults = |link, seed, profile| {
        Faults::new(link, arena, seed, profile, Profile::default()).expect("sane probabilities")
    };
    (End::new(1, faults(a, seed, there), seed), End::new(2, faults(b, !seed, back), seed))
}

impl End {
    fn new(number: u8, link: Faults<WireLink>, seed: u64) -> Self {
        let info = link.info();
        let capabilities = LinkCapabilities {
            mtu: info.mtu,
            checksum_offload: info.checksum_offload,
            tso_max: info.tso_max,
        };
        let mut secret = [number; 16];
        secret[..8].copy_from_slice(&seed.to_le_bytes());
        let stack = Stack::new(Config {
            mac: MacAddress([2, 0, 0, 0, 0, number]),
            address: Ipv4Cidr { address: address(number), prefix_len: 24 },
            gateway: None,
            link: capabilities,
            tcp: TcpConfig {
                receive_buffer: 512 << 10,
                send_buffer: 256 << 10,
                ..TcpConfig::default()
            },
            seed: secret,
        })
        .expect("a valid configuration");
        let frame = vec![0; stack.max_frame_len()];
        Self { stack, link, frame }
    }

    /// Moves what has arrived by `now` into the stack.
    pub(crate) fn receive(&mut self, now: Instant) -> bool {
        let Self { stack, link, .. } = self;
        let frames = link.receive(now - Instant::ZERO, 64, &mut |packet, info| {
            let checksum = match info.checksum {
                netdev::Checksum::Verified => Checksum::Verified,
                netdev::Checksum::Unverified => Checksum::Unverified,
            };
            stack.receive(now, RxPacket(packet), RxMeta { checksum });
        });
        frames.expect("the wire lasts") > 0
    }

    /// Runs the timers that are due by `now`.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> bool {
        let due = self.stack.poll_timeout().is_some_and(|due| due <= now);
        if due {
            self.stack.handle_timeout(now);
        }
        due
    }

    /// Sends what the stack has to say.
    pub(crate) fn transmit(&mut self, now: Instant) -> bool {
        let Self { stack, link, frame } = self;
        let mut any = false;
        while let Some(meta) = stack.poll_transmit(now, frame) {
            any = true;
            let short = |value: usize| u16::try_from(value).expect("an offset in a frame");
            let info = netdev::TxInfo {
                checksum: meta.checksum.map(|partial| netdev::PartialChecksum {
                    start: short(partial.start),
                    offset: short(partial.offset),
                }),
                gso: meta.gso.map(|gso| netdev::Gso {
                    size: short(gso.segment_size),
                    header_len: short(gso.header_len),
                }),
            };
            // A full queue is one more loss.
            let _lost = link.transmit(now - Instant::ZERO, &frame[..meta.len], info);
        }
        any
    }

    /// When something is due next.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let link = self.link.poll_timeout().map(Instant::from);
        [self.stack.poll_timeout(), link].into_iter().flatten().min()
    }

    /// What happened to the frames that this end transmitted.
    pub(crate) fn faults(&self) -> FaultStatistics {
        self.link.transmit_faults()
    }
}

/// The address of the sender (1) or the receiver (2).
pub(crate) const fn address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, number)
}
