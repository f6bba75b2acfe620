//! What a layer's channels have learned, for whoever wants to know.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::controller::{CLASSES, Class};

/// How copies of one class of lengths are shared.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SplitShare {
    /// The shortest copy of the class, in bytes. The longest is one byte less than twice as long.
    pub min_len: usize,
    /// The engine's share of a copy: from 0, all is done by the CPU, to 1.
    pub engine: f64,
    /// What the engine was found to copy in such copies, in bytes per second; `None` if nothing.
    pub engine_rate: Option<f64>,
    /// What the CPU was found to copy at the same time, in bytes per second; `None` if nothing.
    pub cpu_rate: Option<f64>,
    /// Parts of copies that were measured.
    pub measured: u64,
}

/// A line for each class, written by all channels of a layer. The lines of a reader that comes
/// between two stores may not fit together; nothing depends on them.
#[derive(Debug)]
pub(super) struct Shares([Line; CLASSES]);

/// Numbers as their bits; the rates are 0 if unknown.
#[derive(Debug, Default)]
struct Line {
    engine: AtomicU64,
    engine_rate: AtomicU64,
    cpu_rate: AtomicU64,
    measured: AtomicU64,
}

impl Default for Shares {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Line::default()))
    }
}

impl Shares {
    /// A channel has learned something about a class.
    pub(super) fn publish(&self, index: usize, class: &Class) {
        let Line { engine, engine_rate, cpu_rate, measured } = &self.0[index];
        // Relaxed: figures for people, each by itself.
        engine.store(class.share().to_bits(), Relaxed);
        engine_rate.store(class.engine_rate().unwrap_or(0.0).to_bits(), Relaxed);
        cpu_rate.store(class.cpu_rate().unwrap_or(0.0).to_bits(), Relaxed);
        measured.fetch_add(1, Relaxed);
    }

    pub(super) fn list(&self) -> Vec<SplitShare> {
        // Relaxed: see `publish`.
        let read = |number: &AtomicU64| f64::from_bits(number.load(Relaxed));
        let rate = |number| Some(read(number)).filter(|&rate| rate > 0.0);
        let lines = self.0.iter().enumerate().map(|(index, line)| SplitShare {
            min_len: 1 << index,
            engine: read(&line.engine),
            engine_rate: rate(&line.engine_rate),
            cpu_rate: rate(&line.cpu_rate),
            measured: line.measured.load(Relaxed),
        });
        lines.filter(|share| share.measured > 0).collect()
    }
}
