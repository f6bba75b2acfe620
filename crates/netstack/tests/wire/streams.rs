//! Streams over a bad wire, for many seeds: whatever it does, the bytes arrive, once and in order.

use std::time::Duration;

use crate::pair::{Faults, Frame, Pair, Random, WireConfig, config, offloads};
use netstack::{
    DropReason, Instant, LinkCapabilities, ReceiveStatus, Segment, SendError, SocketId, Statistics,
    TcpConfig,
};

/// The byte at `at` of the stream that `side` sends.
fn byte(side: usize, at: usize) -> u8 {
    let x = (at as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 29;
    x as u8 ^ (side as u8 * 0x55)
}

/// One end's program: it writes and reads in pieces of any size, and sometimes does not read.
struct Program {
    side: usize,
    socket: SocketId,
    to_send: usize,
    sent: usize,
    received: usize,
    shut: bool,
    /// What was taken and not released.
    held: Vec<Segment<Frame>>,
    stalled_until: Instant,
}

impl Program {
    fn new(side: usize, socket: SocketId, to_send: usize) -> Self {
        let stalled_until = Instant::ZERO;
        Self {
            side,
            socket,
            to_send,
            sent: 0,
            received: 0,
            shut: false,
            held: Vec::new(),
            stalled_until,
        }
    }

    fn step(&mut self, pair: &mut Pair, expected: usize) {
        let Self { side, socket, to_send, sent, received, shut, held, stalled_until } = self;
        let stack = &mut pair.stacks[*side];
        while *sent < *to_send {
            let len = (1 + pair.random.below(20_000) as usize).min(*to_send - *sent);
            let data: Vec<u8> = (*sent..*sent + len).map(|at| byte(*side, at)).collect();
            match stack.send(pair.now, *socket, &data) {
                Ok(taken) => {
                    assert!(taken > 0 && taken <= len);
                    *sent += taken;
                }
                Err(SendError::WouldBlock) => break,
                Err(error) => panic!("side {side}: {error}"),
            }
            if pair.random.chance(200) {
                break;
            }
        }
        if *sent == *to_send && !*shut {
            stack.shutdown(pair.now, *socket).expect("connected");
            *shut = true;
        }
        if pair.now < *stalled_until {
            return;
        }
        let max = 1 + pair.random.below(100_000) as usize;
        let mut budget = max;
        while let Some(segment) = stack.take(*socket, budget) {
            for &got in segment.payload() {
                assert_eq!(got, byte(1 - *side, *received), "side {side} at {received}");
                *received += 1;
            }
            budget -= segment.payload().len();
            held.push(segment);
        }
        assert!(*received <= expected);
        if pair.random.chance(700) {
            for segment in held.drain(..) {
                stack.release(pair.now, *socket, segment.charge);
            }
        }
        if pair.random.chance(20) {
            *stalled_until = pair.now + Duration::from_millis(pair.random.below(3000));
        }
    }

    fn is_done(&self, pair: &Pair, expected: usize) -> bool {
        let status = pair.stacks[self.side].receive_status(self.socket);
        self.shut && self.received == expected && status == ReceiveStatus::EndOfStream
    }

    /// When it wants to be called again although nothing happens.
    fn wakes(&self, now: Instant) -> Instant {
        if self.stalled_until > now { self.stalled_until } else { now + Duration::from_millis(10) }
    }
}

/// What happened on the way, on both sides together: a simulation in which nothing goes wrong shows
/// nothing.
#[derive(Debug, Default)]
struct Troubles {
    fast_retransmits: u64,
    timeouts: u64,
    window_probes: u64,
    out_of_order: u64,
    pruned: u64,
    damaged: u64,
    repeated: u64,
}

impl Troubles {
    fn add(&mut self, statistics: &Statistics) {
        let Self {
            fast_retransmits,
            timeouts,
            window_probes,
            out_of_order,
            pruned,
            damaged,
            repeated,
        } = self;
        let Statistics { tcp, drops, .. } = statistics;
        *fast_retransmits += tcp.fast_retransmits;
        *timeouts += tcp.retransmission_timeouts;
        *window_probes += tcp.window_probes;
        *out_of_order += tcp.out_of_order;
        *pruned += tcp.out_of_order_pruned;
        *damaged += drops[DropReason::TcpChecksum];
        *repeated += drops[DropReason::TcpOutsideWindow];
    }
}

/// How large the buffers of the sockets are.
#[derive(Clone, Copy)]
enum Buffers {
    Default,
    /// From 4 KiB to 512 KiB, so that windows close, and packet memory runs out before.
    Small,
}

fn stream(
    seed: u64,
    wire: WireConfig,
    links: [LinkCapabilities; 2],
    bytes: [usize; 2],
    buffers: Buffers,
    troubles: &mut Troubles,
) {
    let mut random = Random::new(seed ^ 0xabcdef);
    let mut tcp = || match buffers {
        Buffers::Default => TcpConfig::default(),
        Buffers::Small => TcpConfig {
            receive_buffer: 4096 << random.below(8),
            send_buffer: 4096 << random.below(8),
            ..TcpConfig::default()
        },
    };
    let configs = [config(0, links[0], tcp()), config(1, links[1], tcp())];
    let mut pair = Pair::new(seed, wire, configs);
    let (client, server) = pair.connect();
    let mut programs = [Program::new(0, client, bytes[0]), Program::new(1, server, bytes[1])];

    // Progress is bytes that a program gets; a simulation without any for so long is stuck.
    const STUCK: Duration = Duration::from_secs(600);
    let mut last_progress = (pair.now, 0);
    loop {
        for (side, program) in programs.iter_mut().enumerate() {
            program.step(&mut pair, bytes[1 - side]);
        }
        while pair.stacks.iter_mut().any(|stack| stack.poll_event().is_some()) {}
        pair.transmit();
        if programs.iter().enumerate().all(|(side, p)| p.is_done(&pair, bytes[1 - side])) {
            break;
        }
        let progress = programs.iter().map(|program| program.received).sum();
        if progress > last_progress.1 {
            last_progress = (pair.now, progress);
        }
        assert!(
            pair.now - last_progress.0 < STUCK,
            "seed {seed}: stuck at {progress} bytes\n{:#?}\n{:#?}\n{:#?}\n{:#?}",
            pair.stacks[0].tcp_info(client),
            pair.stacks[1].tcp_info(server),
            pair.stacks[0].statistics(),
            pair.stacks[1].statistics(),
        );
        let wake = programs.iter().map(|program| program.wakes(pair.now)).min().expect("two");
        pair.advance(pair.next_event().map_or(wake, |at| at.min(wake)));
    }
    for program in &mut programs {
        pair.stacks[program.side].close(pair.now, program.socket);
    }
    pair.run(pair.now + Duration::from_secs(3600));
    for stack in &mut pair.stacks {
        assert_eq!(stack.poll_timeout(), None, "seed {seed}: something is left");
        let statistics = stack.statistics();
        let accounted = statistics.frames_accepted + statistics.drops.total();
        assert_eq!(statistics.frames_received, accounted);
        assert_eq!(statistics.tcp.timeouts, 0, "seed {seed}");
        troubles.add(statistics);
    }
}

const PLAIN: LinkCapabilities =
    LinkCapabilities { mtu: 1500, checksum_offload: false, tso_max: None };

fn wire(latency_us: u64, faults: Faults, keep_super_frames: bool) -> WireConfig {
    WireConfig { latency: Duration::from_micros(latency_us), faults, keep_super_frames }
}

#[test]
fn a_perfect_wire() {
    let mut troubles = Troubles::default();
    for seed in 0..40 {
        let bytes = [200_000, 100_000];
        let none = Faults::default();
        stream(seed, wire(50, none, false), [PLAIN; 2], bytes, Buffers::Small, &mut troubles);
        stream(seed, wire(50, none, true), [offloads(); 2], bytes, Buffers::Small, &mut troubles);
        stream(
            seed,
            wire(20_000, none, false),
            [offloads(), PLAIN],
            bytes,
            Buffers::Small,
            &mut troubles,
        );
    }
    assert_eq!(troubles.damaged, 0, "{troubles:?}");
    assert!(troubles.window_probes > 0, "{troubles:?}");
}

#[test]
fn nothing_goes_wrong_without_a_reason() {
    let mut troubles = Troubles::default();
    for seed in 0..20 {
        for links in [[PLAIN; 2], [offloads(); 2], [offloads(), PLAIN]] {
            let wire = wire(300, Faults::default(), links == [offloads(); 2]);
            let bytes = [1_000_000, 500_000];
            stream(seed, wire, links, bytes, Buffers::Default, &mut troubles);
        }
    }
    let Troubles { fast_retransmits, timeouts, out_of_order, pruned, damaged, repeated, .. } =
        troubles;
    assert_eq!([fast_retransmits, timeouts, out_of_order, pruned, damaged, repeated], [0; 6]);
}

#[test]
fn a_lossy_wire() {
    let mut troubles = Troubles::default();
    for seed in 0..100 {
        let faults = Faults { loss: 1 + seed % 100, ..Faults::default() };
        let links = [PLAIN, offloads()];
        stream(
            seed,
            wire(500, faults, false),
            links,
            [100_000, 30_000],
            Buffers::Small,
            &mut troubles,
        );
    }
    assert!(troubles.fast_retransmits > 0 && troubles.timeouts > 0, "{troubles:?}");
}

#[test]
fn a_reordering_and_duplicating_wire() {
    let mut troubles = Troubles::default();
    for seed in 0..100 {
        let faults = Faults { reordering: 200, duplication: 100, ..Faults::default() };
        let wire = wire(1000, faults, seed % 2 == 0);
        stream(seed, wire, [offloads(); 2], [100_000, 50_000], Buffers::Small, &mut troubles);
    }
    assert!(troubles.out_of_order > 0 && troubles.repeated > 0, "{troubles:?}");
}

#[test]
fn everything_at_once() {
    let mut troubles = Troubles::default();
    for seed in 0..200 {
        let faults = Faults { loss: 30, reordering: 50, duplication: 20, corruption: 30 };
        let links = [[PLAIN; 2], [offloads(); 2], [PLAIN, offloads()]][seed as usize % 3];
        let wire = wire(2000, faults, seed % 5 == 0);
        stream(seed, wire, links, [60_000, 40_000], Buffers::Small, &mut troubles);
    }
    let Troubles {
        fast_retransmits,
        timeouts,
        window_probes,
        out_of_order,
        pruned,
        damaged,
        repeated,
    } = troubles;
    for (name, count) in [
        ("fast retransmits", fast_retransmits),
        ("timeouts", timeouts),
        ("window probes", window_probes),
        ("out of order", out_of_order),
        ("pruned", pruned),
        ("damaged", damaged),
        ("repeated", repeated),
    ] {
        assert!(count > 0, "no {name} in any simulation");
    }
}

#[test]
fn one_way_streams_of_any_length() {
    let mut troubles = Troubles::default();
    for seed in 0..100 {
        let len = [0, 1, 1447, 1448, 1449, 65_536, 300_000][seed as usize % 7];
        let faults = Faults { loss: 10, ..Faults::default() };
        stream(
            seed,
            wire(100, faults, false),
            [offloads(); 2],
            [len, 0],
            Buffers::Small,
            &mut troubles,
        );
    }
    assert!(troubles.fast_retransmits > 0, "{troubles:?}");
}
