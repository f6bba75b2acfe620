//! Whatever comes, nothing panics, and every frame is counted once.

use super::peer::*;
use crate::{
    Instant, LinkCapabilities, SocketId,
    tcp::seq::SeqNumber,
    wire::{
        checksum::Sum,
        tcp::{Flags, Header, Options, Timestamps},
    },
};
use proptest::prelude::*;
use std::time::Duration;

#[derive(Clone, Debug)]
enum Step {
    /// Any bytes, perhaps behind a good Ethernet header.
    Noise(Vec<u8>, bool),
    /// A segment near the connection, perhaps with bits flipped and its checksums corrected.
    Segment {
        flags: u8,
        seq: i32,
        ack: i32,
        window: u16,
        urgent: u16,
        len: usize,
        times: (u32, u32),
        flip: Option<(usize, u8)>,
    },
    Send(usize),
    Read,
    Wait(u64),
    Transmit,
    Shutdown,
    Close,
}

fn near() -> impl Strategy<Value = i32> {
    prop_oneof![Just(0), -5..5_i32, -70_000..70_000_i32, any::<i32>()]
}

fn step() -> impl Strategy<Value = Step> {
    let flip = proptest::option::weighted(0.2, (14..80_usize, any::<u8>()));
    let len = prop_oneof![Just(0), 1..10_usize, 900..1500_usize, Just(60_000)];
    prop_oneof![
        1 => (proptest::collection::vec(any::<u8>(), 0..100), any::<bool>())
            .prop_map(|(bytes, framed)| Step::Noise(bytes, framed)),
        12 => (any::<u8>(), any::<bool>(), near(), near(), any::<(u16, u16)>(), len, any::<(u32, u32)>(), flip)
            .prop_map(|(flags, plain, seq, ack, (window, urgent), len, times, flip)| Step::Segment {
                flags: if plain { 0x10 } else { flags }, seq, ack, window, urgent, len, times, flip,
            }),
        3 => (1..20_000_usize).prop_map(Step::Send),
        3 => Just(Step::Read),
        2 => (0..5_000_u64).prop_map(Step::Wait),
        4 => Just(Step::Transmit),
        1 => Just(Step::Shutdown),
        1 => Just(Step::Close),
    ]
}

/// Makes the IPv4 and TCP checksums right, whatever the packet says.
fn correct(frame: &mut [u8]) {
    if frame.len() < 54 {
        return;
    }
    frame[24..26].fill(0);
    let sum = Sum::of(&frame[14..34]).complete();
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    frame[50..52].fill(0);
    let sum = Sum::of_pseudo_header(THEIRS, OURS, 6, frame.len() - 34)
        .plus(Sum::of(&frame[34..]))
        .complete();
    frame[50..52].copy_from_slice(&sum.to_be_bytes());
}

fn apply(peer: &mut Peer, socket: SocketId, step: Step) {
    match step {
        Step::Noise(mut bytes, framed) => {
            if framed && bytes.len() >= 14 {
                bytes[..14].copy_from_slice(&Peer::ip_frame(0, b"")[..14]);
            }
            peer.receive(bytes);
        }
        Step::Segment { flags, seq, ack, window, urgent, len, times, flip } => {
            let header = Header {
                source_port: peer.port,
                destination_port: PORT,
                seq: SeqNumber(peer.seq.0.wrapping_add_signed(seq)),
                ack: SeqNumber(peer.ack.0.wrapping_add_signed(ack)),
                flags: Flags::from_bits_truncate(flags),
                window,
                urgent,
                options: Options {
                    timestamps: peer.clock.map(|_| Timestamps { value: times.0, echo: times.1 }),
                    ..Options::default()
                },
            };
            let mut frame = Peer::tcp_frame(&header, &vec![7; len]);
            if let Some((at, bits)) = flip
                && let Some(byte) = frame.get_mut(at)
            {
                *byte ^= bits;
                correct(&mut frame);
            }
            peer.receive(frame);
        }
        Step::Send(len) => {
            let _ = peer.stack.send(peer.now, socket, &vec![1; len]);
        }
        Step::Read => {
            let peeked: usize = peer.stack.peek(socket, 10_000).map(<[u8]>::len).sum();
            assert!(peeked <= peer.stack.receive_available(socket).min(10_000));
            let _ = peer.stack.receive_urgent(socket, false);
            peer.stack.poll(socket);
            peer.read(socket);
        }
        Step::Wait(ms) => {
            let end = peer.now + Duration::from_millis(ms);
            while let Some(at) = peer.stack.poll_timeout().filter(|&at| at <= end) {
                peer.now = peer.now.max(at);
                peer.stack.handle_timeout(peer.now);
                while peer.frame().is_some() {}
            }
            peer.now = end;
        }
        Step::Transmit => while peer.frame().is_some() {},
        Step::Shutdown => {
            let _ = peer.stack.shutdown(peer.now, socket);
        }
        Step::Close => peer.stack.close(peer.now, socket),
    }
}

fn check(peer: &Peer) {
    let statistics = peer.stack.statistics();
    let accounted = statistics.frames_accepted + statistics.drops.total();
    assert_eq!(statistics.frames_received, accounted);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn a_hostile_peer(
        timestamps in any::<bool>(),
        offloads in any::<bool>(),
        steps in proptest::collection::vec(step(), 1..80),
    ) {
        let mut config = config();
        if offloads {
            let tso_max = Some(65_549);
            config.link = LinkCapabilities { mtu: 1500, checksum_offload: true, tso_max };
        }
        let mut peer = Peer::new(config);
        peer.clock = timestamps.then_some(5);
        let socket = peer.open();
        for step in steps {
            apply(&mut peer, socket, step);
            check(&peer);
            if let Some(info) = peer.stack.tcp_info(socket) {
                prop_assert!(info.receive_charged <= 2 * 60_000 + 70_000, "{info:?}");
            }
        }
        // Whatever happened, what the program has closed ends.
        peer.stack.close(peer.now, socket);
        for _ in 0..10_000 {
            while peer.frame().is_some() {}
            let Some(at) = peer.stack.poll_timeout() else { break };
            peer.now = peer.now.max(at);
            peer.stack.handle_timeout(peer.now);
        }
        prop_assert_eq!(peer.stack.poll_timeout(), None);
    }

    #[test]
    fn a_hostile_network(frames in proptest::collection::vec(
        proptest::collection::vec(any::<u8>(), 0..120), 1..50,
    )) {
        let mut peer = Peer::stranger(config());
        peer.now = Instant::ZERO;
        for (mut frame, n) in frames.into_iter().zip(0_usize..) {
            if frame.len() > 34 && n % 4 > 0 {
                frame[..14].copy_from_slice(&Peer::ip_frame(0, b"")[..14]);
                if n % 4 > 1 {
                    let len = (frame.len() - 14) as u16;
                    frame[14] = 0x45;
                    frame[16..18].copy_from_slice(&len.to_be_bytes());
                    frame[20..22].fill(0);
                    frame[26..34].copy_from_slice(&Peer::ip_frame(0, b"")[26..34]);
                    frame[23] = [1, 6, 17, 50][n % 16 / 4];
                    frame[24..26].fill(0);
                    let sum = Sum::of(&frame[14..34]).complete();
                    frame[24..26].copy_from_slice(&sum.to_be_bytes());
                }
            }
            peer.receive(frame);
            check(&peer);
            while peer.frame().is_some() {}
        }
    }
}
