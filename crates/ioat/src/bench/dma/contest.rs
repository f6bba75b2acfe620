use std::{io, time::Duration};

use dmaengine::{Arena, ArenaError, MapError, RequestError};

use super::{
    contestant::{Contestant, Turn},
    dpdk::{Dpdk, DpdkError, NoDpdk},
    engine::{BenchEngine, LeftOut},
    figures::{Figures, Point},
    pairs::Pairs,
    pass::PassError,
    results::Results,
};
use crate::{
    bench::{Clock, Cpus},
    engine::OpenError,
};

/// What is measured, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Lengths of a copy in bytes.
    pub sizes: Vec<usize>,
    /// Copies for one doorbell.
    pub batches: Vec<usize>,
    /// The most copies in flight; at least the greatest batch.
    pub depth: usize,
    /// Pairs of buffers that the copies walk over; at least the depth.
    pub pairs: usize,
    /// How often each engine has its turn at each point.
    pub rounds: usize,
    /// The length of a pass. Each turn has three.
    pub pass: Duration,
    /// Who runs where.
    pub cpus: Cpus,
}

/// Why the benchmark broke off.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The engine.
    #[error(transparent)]
    Engine(#[from] OpenError),
    /// The engine's channel.
    #[error(transparent)]
    Channel(#[from] RequestError),
    /// Memory for the buffers.
    #[error(transparent)]
    Memory(#[from] ArenaError),
    /// The engine cannot reach it.
    #[error(transparent)]
    Map(#[from] MapError),
    /// A thread could not be pinned.
    #[error("threads cannot be pinned to these CPUs ({0}): name others with --cpus")]
    Pin(#[source] io::Error),
    /// There is no DPDK, and it was asked for.
    #[error(transparent)]
    NoDpdk(#[from] NoDpdk),
    /// The engine holds fewer operations than the depth asks for.
    #[error(
        "{engine} can have {most} copies of {size} bytes in flight, not {depth}: lower the depth"
    )]
    Depth {
        /// Its name.
        engine: String,
        /// What was asked for.
        depth: usize,
        /// The length of a copy in bytes.
        size: usize,
        /// The most.
        most: usize,
    },
    /// A pass came to no good end.
    #[error("{engine}, {size} bytes, batches of {batch}: {error}")]
    Pass {
        /// The engine's name.
        engine: String,
        /// The length of a copy in bytes.
        size: usize,
        /// Copies for one doorbell.
        batch: usize,
        /// What went wrong.
        error: PassError,
    },
    /// The program over DPDK came to no good end.
    #[error(transparent)]
    Dpdk(#[from] DpdkError),
}

/// The engines that take turns; the first is the caller's own `memcpy`.
#[derive(Debug)]
pub struct Contest {
    settings: Settings,
    clock: Clock,
    /// For all of ours: what they copy is the same memory.
    arena: Arena,
    contestants: Vec<Contestant>,
    left_out: Vec<LeftOut>,
}

impl Contest {
    /// Opens the engines, and pins the calling thread. Where there is no DPDK, it is
    /// [left out](Self::left_out) if `dpdk_is_optional`.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub fn open(
        settings: Settings,
        engines: &[BenchEngine],
        dpdk_is_optional: bool,
    ) -> Result<Self, Error> {
        let longest = settings.sizes.iter().copied().max().unwrap_or(1);
        let arena = Pairs::arena(settings.pairs, longest)?;
        let mut contestants = vec![Contestant::memcpy()];
        let mut left_out = Vec::new();
        let opened = settings.cpus.pin(|| {
            for engine in engines {
                let contestant = match engine {
                    BenchEngine::Ours(name) => Contestant::ours(name, &arena)?,
                    BenchEngine::Null => Contestant::null(),
                    BenchEngine::Dpdk => match Dpdk::start(settings.cpus) {
                        Ok(program) => Contestant::dpdk(program),
                        Err(reason) if dpdk_is_optional => {
                            let reason = reason.to_string();
                            left_out.push(LeftOut { engine: engine.to_string(), reason });
                            continue;
                        }
                        Err(reason) => return Err(reason.into()),
                    },
                };
                contestant.check_depth(&settings)?;
                contestants.push(contestant);
            }
            Ok::<(), Error>(())
        });
        opened.map_err(Error::Pin)??;
        Ok(Self { settings, clock: Clock::calibrate(), arena, contestants, left_out })
    }

    /// The engines that are missing.
    #[must_use]
    pub fn left_out(&self) -> &[LeftOut] {
        &self.left_out
    }

    /// The turns that [`run`](Self::run) takes.
    #[must_use]
    pub fn turns(&self) -> usize {
        self.settings.rounds * self.points().len() * self.contestants.len()
    }

    fn points(&self) -> Vec<Point> {
        let Settings { sizes, batches, .. } = &self.settings;
        let of_batch = |&batch| sizes.iter().map(move |&size| Point { size, batch });
        batches.iter().flat_map(of_batch).collect()
    }

    /// Runs all rounds, and calls `before` with the engine's name before each turn.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub fn run(mut self, mut before: impl FnMut(&str)) -> Result<Results, Error> {
        let points = self.points();
        let Self { settings, clock, arena, contestants, .. } = &mut self;
        for contestant in &mut *contestants {
            contestant.figures = vec![Figures::default(); points.len()];
        }
        for _ in 0..settings.rounds {
            for (index, &point) in points.iter().enumerate() {
                for contestant in &mut *contestants {
                    before(&contestant.name);
                    let Turn { cost, latency, loaded } =
                        contestant.turn(point, settings, clock, arena)?;
                    contestant.figures[index].push(point, &cost, latency, loaded);
                }
            }
        }
        let Self { settings, clock, arena, contestants, left_out } = self;
        Ok(Results::new(&settings, &points, &contestants, left_out, &clock, &arena))
    }
}
