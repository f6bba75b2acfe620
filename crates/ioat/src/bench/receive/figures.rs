use std::{fmt, str::FromStr};

use serde::{Serialize, Serializer};

use super::{contestant::Turn, generator::FrameKind};
use crate::{lab::Mode, measure::Samples};

/// What the stream comes over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LinkKind {
    /// A wire in memory, with a [`Generator`](super::Generator) at its far end.
    Wire,
    /// A TAP device, with Linux's TCP behind it.
    Tap,
}

impl LinkKind {
    /// The name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Wire => "wire",
            Self::Tap => "tap",
        }
    }
}

/// A text that names no link.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no link: use wire or tap")]
pub struct ParseLinkError(String);

impl FromStr for LinkKind {
    type Err = ParseLinkError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "wire" => Ok(Self::Wire),
            "tap" => Ok(Self::Tap),
            _ => Err(ParseLinkError(text.into())),
        }
    }
}

/// Where the stream comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Scene {
    /// What it comes over.
    pub link: LinkKind,
    /// How much is in a frame. Over TAP Linux decides, and its frames hold 64 KiB.
    #[serde(serialize_with = "as_text")]
    pub frame: FrameKind,
}

impl fmt::Display for Scene {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, frames of {}", self.link.as_str(), self.frame)
    }
}

fn as_text<S: Serializer>(value: &impl fmt::Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

/// What the program does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Program {
    /// How it waits.
    pub mode: Mode,
    /// Whether it adds up all bytes that it has read.
    pub touch: bool,
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let touched = if self.touch { ", every byte looked at" } else { "" };
        write!(f, "{} reads{touched}", self.mode.as_str())
    }
}

/// How a stream is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Point {
    /// What reads it.
    #[serde(flatten)]
    pub program: Program,
    /// The length of a read in bytes.
    pub read_size: usize,
}

/// What was measured of one engine at one point, with a value for each round.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Figures {
    /// CPU seconds of the receiving thread per gigabyte (10^9 bytes).
    pub receiver_cpu_s_per_gb: Samples,
    /// Of the engine's own threads.
    pub engine_cpu_s_per_gb: Samples,
    /// Of the thread that sends, over TAP.
    pub sender_cpu_s_per_gb: Samples,
    /// Gigabytes received per second.
    pub gb_per_s: Samples,
    /// The part of the bytes that the engine copied, from 0 to 1.
    pub by_engine: Samples,
}

impl Figures {
    /// Adds a round.
    pub(super) fn push(&mut self, turn: &Turn) {
        let Turn { measured, sender_cpu, copied, .. } = turn;
        self.receiver_cpu_s_per_gb.push(measured.cpu_s_per_gb());
        self.engine_cpu_s_per_gb.push(measured.s_per_gb(copied.engine_cpu));
        self.sender_cpu_s_per_gb.push(measured.s_per_gb(*sender_cpu));
        self.gb_per_s.push(measured.gbps() / 8.0);
        self.by_engine.push(copied.by_engine as f64 / measured.bytes as f64);
    }
}

/// One engine at one point.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// Where the stream came from.
    #[serde(flatten)]
    pub scene: Scene,
    /// How it was read.
    #[serde(flatten)]
    pub point: Point,
    /// The engine's name.
    pub engine: String,
    /// What moves the bytes: `cpu`, `software`, `model` or `hardware`; `none` if nothing does.
    pub kind: &'static str,
    /// What was measured.
    #[serde(flatten)]
    pub figures: Figures,
    /// How many times `cpu`'s the receiver's CPU time is, round by round.
    pub receiver_over_cpu: Samples,
    /// How many times `null`'s it is; `None` without `null`.
    pub receiver_over_null: Option<Samples>,
    /// How many times `cpu`'s the throughput is.
    pub throughput_over_cpu: Samples,
    /// Whether a whole stream was checked, and right.
    pub verified: bool,
}

impl Row {
    /// The engine and its kind, in words.
    #[must_use]
    pub fn title(&self) -> String {
        format!("{} ({})", self.engine, self.kind)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{lab::Copied, measure::Measured};

    #[test]
    fn a_round_s_figures() {
        let mut figures = Figures::default();
        let ms = Duration::from_millis;
        figures.push(&Turn {
            measured: Measured { bytes: 500_000_000, wall: ms(250), cpu: ms(100) },
            sender_cpu: ms(50),
            copied: Copied { by_engine: 400_000_000, by_cpu: 100_000_000, engine_cpu: ms(200) },
            preemptions: 0,
        });
        let Figures {
            receiver_cpu_s_per_gb,
            engine_cpu_s_per_gb,
            sender_cpu_s_per_gb,
            gb_per_s,
            by_engine,
        } = figures;
        assert_eq!(receiver_cpu_s_per_gb.values(), [0.2]);
        assert_eq!(engine_cpu_s_per_gb.values(), [0.4]);
        assert_eq!(sender_cpu_s_per_gb.values(), [0.1]);
        assert_eq!(gb_per_s.values(), [2.0]);
        assert_eq!(by_engine.values(), [0.8]);
    }

    #[test]
    fn links_are_parsed() {
        for link in [LinkKind::Wire, LinkKind::Tap] {
            assert_eq!(link.as_str().parse(), Ok(link));
        }
        assert!("eth0".parse::<LinkKind>().is_err());
    }
}
