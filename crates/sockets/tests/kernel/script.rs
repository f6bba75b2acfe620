//! Calls on one socket and its peer, and what they observe.

use std::fmt;

use sockets::RecvFlags;

use crate::{random::Random, world::Connection};

#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    /// The peer sends so many bytes.
    Send(usize),
    /// The peer sends so many bytes, the last of which is urgent.
    Urgent(usize),
    /// The peer sends the end of its stream.
    PeerShutdown,
    /// The peer resets.
    PeerReset,
    /// A receive call for so many bytes, which does not wait.
    Recv(usize, RecvFlags),
    /// A byte is sent to the peer.
    Reply,
    /// `SIOCATMARK`.
    AtMark,
    /// `SIOCINQ`.
    Inq,
    Poll,
    /// `SO_ERROR`.
    Error,
    /// `SO_OOBINLINE`.
    Inline(bool),
    /// `SO_RCVLOWAT`.
    LowWater(usize),
    ShutdownRead,
    ShutdownWrite,
}

/// What a step gave.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Observed {
    Done,
    /// What a call returned, and the whole buffer afterwards.
    Received(usize, Vec<u8>),
    Number(usize),
    /// The error number.
    Failed(i32),
}

/// What is in a buffer before a call. It is never sent.
const UNTOUCHED: u8 = 0xee;

impl fmt::Debug for Observed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => f.write_str("done"),
            Self::Received(len, buffer) => {
                let written = buffer.iter().rposition(|byte| *byte != UNTOUCHED);
                let written = &buffer[..written.map_or(0, |last| last + 1)];
                write!(f, "{len}, {} bytes from {:?} on", written.len(), written.first())
            }
            Self::Number(number) => write!(f, "{number}"),
            Self::Failed(errno) => write!(f, "error {errno}"),
        }
    }
}

pub(crate) fn run(connection: &impl Connection, script: &[Step]) -> Vec<Observed> {
    let mut sent = 0_u8;
    let mut bytes = |len: usize| -> Vec<u8> {
        std::iter::repeat_with(|| {
            sent = (sent + 1) % 200;
            sent
        })
        .take(len)
        .collect()
    };
    let observe = |result: Result<usize, i32>| match result {
        Ok(number) => Observed::Number(number),
        Err(errno) => Observed::Failed(errno),
    };
    script
        .iter()
        .map(|&step| {
            let observed = match step {
                Step::Send(len) => observe(connection.peer_send(&bytes(len), false)),
                Step::Urgent(len) => observe(connection.peer_send(&bytes(len), true)),
                Step::PeerShutdown => observe(connection.peer_shutdown()),
                Step::PeerReset => {
                    connection.peer_reset();
                    Observed::Done
                }
                Step::Recv(len, flags) => {
                    let mut buffer = vec![UNTOUCHED; len];
                    match connection.recv(&mut buffer, flags | RecvFlags::DONTWAIT) {
                        Ok(got) => Observed::Received(got, buffer),
                        Err(errno) => Observed::Failed(errno),
                    }
                }
                Step::Reply => observe(connection.send(b"r")),
                Step::AtMark => Observed::Number(connection.at_mark().into()),
                Step::Inq => Observed::Number(connection.available()),
                Step::Poll => Observed::Number(connection.poll() as usize),
                Step::Error => Observed::Failed(connection.take_error()),
                Step::Inline(inline) => {
                    connection.set_inline(inline);
                    Observed::Done
                }
                Step::LowWater(bytes) => {
                    connection.set_low_water(bytes);
                    Observed::Done
                }
                Step::ShutdownRead => observe(connection.shutdown(false)),
                Step::ShutdownWrite => observe(connection.shutdown(true)),
            };
            connection.settle();
            observed
        })
        .collect()
}

/// A script of any calls.
pub(crate) fn random(random: &mut Random) -> Vec<Step> {
    let mut script = Vec::new();
    // A peer that is gone sends nothing.
    let (mut open, mut connected) = (true, true);
    for _ in 0..4 + random.below(24) {
        let step = match random.below(30) {
            // One segment each, on both sides.
            0..6 if open => Step::Send(random.of(&[1, 1, 2, 3, 7, 500, 1400])),
            6..10 if open => Step::Urgent(random.of(&[1, 1, 2, 5, 1200])),
            10 if open && random.chance(3) => Step::PeerShutdown,
            11 if connected && random.chance(4) => Step::PeerReset,
            12 => Step::Poll,
            13 => Step::Inq,
            14 => Step::AtMark,
            15 if random.chance(4) => Step::Error,
            16 if random.chance(2) => Step::Inline(random.chance(2)),
            17 if random.chance(2) => Step::LowWater(random.of(&[0, 1, 2, 5, 100])),
            18 if random.chance(4) => Step::ShutdownRead,
            19 if random.chance(4) => Step::ShutdownWrite,
            20 if random.chance(2) => Step::Reply,
            _ => {
                let mut flags = RecvFlags::empty();
                for flag in [RecvFlags::PEEK, RecvFlags::TRUNC, RecvFlags::WAITALL, RecvFlags::OOB]
                {
                    flags.set(flag, random.chance(5));
                }
                Step::Recv(random.of(&[0, 1, 1, 2, 3, 5, 10, 100, 1000, 5000]), flags)
            }
        };
        match step {
            Step::PeerShutdown => open = false,
            Step::PeerReset => (open, connected) = (false, false),
            _ => {}
        }
        script.push(step);
    }
    script
}
