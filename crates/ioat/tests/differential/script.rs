//! What happens: to the peer, to the wire, and which calls are made.

use netdma::{Copybreak, RecvFlags, Waiting};

use crate::random::Random;

/// A step. Calls are numbered as they are begun; which is meant is taken modulo those that are under
/// way.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    /// The peer sends so many bytes; the last may be urgent.
    Send {
        len: usize,
        urgent: bool,
    },
    /// The peer sends the end of its stream.
    PeerShutdown,
    /// The peer resets.
    PeerReset,
    /// So many frames of the peer's arrive, and what they are answered with.
    Deliver(usize),
    /// The link has no more frames.
    Settle,
    /// A receive call begins.
    Begin {
        len: usize,
        flags: RecvFlags,
        low_water: usize,
        copybreak: Option<Copybreak>,
        waiting: Waiting,
        buffer: Buffer,
    },
    /// A call looks whether it is through; it waits on if not.
    Check(usize),
    /// A call's timeout has passed, or it never waits.
    Expire(usize),
    /// A call is interrupted.
    Interrupt(usize),
    /// A call begins that looks at bytes, and does not wait.
    Peek {
        len: usize,
        flags: RecvFlags,
    },
    /// A call for the urgent byte.
    Urgent {
        peek: bool,
    },
    ShutdownRead,
    Inline(bool),
    Error,
    /// Ended copies are collected.
    Reap,
    /// What the socket is ready for, whether it is at the mark, how many bytes it has.
    Look,
}

/// What a call receives into.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Buffer {
    /// Memory that every engine can reach.
    Arena,
    /// Memory that some engines cannot reach.
    Heap,
    /// None: the bytes are consumed.
    Nowhere,
}

/// What the link carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Frames {
    /// Frames of 1500 bytes.
    Ethernet,
    /// Frames of up to [`JUMBO_MTU`] bytes: copies of them are long enough to be shared.
    Jumbo,
}

/// The longest packet of a third of the scripts, in bytes.
pub(crate) const JUMBO_MTU: usize = 21_840;

/// What is sent then, in bytes: less than the initial congestion window (two segments, RFC 6928), and
/// than what leaves more than a segment of the first window (a SYN's has no scale), which makes a
/// socket readable.
const UNACKNOWLEDGED: usize = 43_000;

#[derive(Debug)]
pub(crate) struct Script {
    pub(crate) frames: Frames,
    pub(crate) steps: Vec<Step>,
}

impl Script {
    pub(crate) fn random(random: &mut Random) -> Self {
        let frames = random.of(&[Frames::Ethernet, Frames::Ethernet, Frames::Jumbo]);
        let mut steps: Vec<_> = (0..5 + random.below(45)).map(|_| step(random, frames)).collect();
        if frames == Frames::Jumbo {
            // When bytes are acknowledged depends on when they were copied: what comes must not
            // depend on that.
            let mut window = UNACKNOWLEDGED;
            steps.retain(|step| match step {
                Step::Send { len, .. } => {
                    let fits = *len <= window;
                    window -= if fits { *len } else { 0 };
                    fits
                }
                _ => true,
            });
        }
        Self { frames, steps }
    }
}

fn step(random: &mut Random, frames: Frames) -> Step {
    let longest = if frames == Frames::Jumbo { 40_000 } else { 20_000 };
    let len = random.of(&[0, 1, 2, 50, 101, 1000, 1448, 3000, 5000, longest]);
    match random.below(40) {
        0..7 => Step::Send { len: 1 + len / 2, urgent: random.chance(6) },
        7 if random.chance(4) => Step::PeerShutdown,
        8 if random.chance(5) => Step::PeerReset,
        9..16 => Step::Deliver(1 + random.below(6)),
        16..18 => Step::Settle,
        18..24 => {
            let mut flags = RecvFlags::empty();
            flags.set(RecvFlags::WAITALL, random.chance(3));
            let buffer = random.of(&[
                Buffer::Arena,
                Buffer::Arena,
                Buffer::Arena,
                Buffer::Heap,
                Buffer::Nowhere,
            ]);
            flags.set(RecvFlags::TRUNC, matches!(buffer, Buffer::Nowhere));
            let copybreak = random.of(&[
                None,
                None,
                Some(Copybreak::Bytes(0)),
                Some(Copybreak::Off),
                Some(Copybreak::Auto),
            ]);
            // It decides who copies, and nothing else.
            let waiting = random.of(&[Waiting::Never, Waiting::ForMore, Waiting::Elsewhere]);
            let low_water = random.of(&[1, 1, 1, 2, 500]);
            Step::Begin { len, flags, low_water, copybreak, waiting, buffer }
        }
        24..29 => Step::Check(random.below(4)),
        29 | 30 => Step::Expire(random.below(4)),
        31 => Step::Interrupt(random.below(4)),
        32 => {
            let mut flags = RecvFlags::PEEK;
            flags.set(RecvFlags::TRUNC, random.chance(3));
            flags.set(RecvFlags::WAITALL, random.chance(3));
            Step::Peek { len, flags }
        }
        33 => Step::Urgent { peek: random.chance(2) },
        34 if random.chance(6) => Step::ShutdownRead,
        35 if random.chance(2) => Step::Inline(random.chance(2)),
        36 if random.chance(4) => Step::Error,
        37 => Step::Reap,
        _ => Step::Look,
    }
}
