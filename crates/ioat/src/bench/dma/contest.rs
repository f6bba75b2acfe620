use std::{io, time::Duration};

use dmaengine::{Arena, ArenaError, MapError, RequestError};

use super::{
    contestant::{Contestant, Turn},
    dpdk::{Dpdk, DpdkError, NoDpdk},
    engine::{BenchEngine, LeftOut},
    figures::{Figures, Interface, Point},
    pairs::Pairs,
    pass::PassError,
    results::Results,
};
use crate::{
    bench::{Clock, Cpus, round_trip_ns},
    engine::OpenError,
    measure::Samples,
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
    /// What our engines are used through: each of them is measured with each of these.
    pub interfaces: Vec<Interface>,
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
    /// The engine has no use without a queue.
    #[error("{engine} ends copies out of order, so it needs a queue: measure that interface only")]
    OutOfOrder {
        /// Its name.
        engine: String,
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
                match engine {
                    BenchEngine::Ours(name) => {
                        for &interface in &settings.interfaces {
                            contestants.push(Contestant::ours(name, interface, &arena)?);
                        }
                    }
                    BenchEngine::Null => {
                        for &interface in &settings.interfaces {
                            contestants.push(Contestant::null(interface)?);
                        }
                    }
                    BenchEngine::Dpdk => match Dpdk::start(settings.cpus) {
                        Ok(program) => contestants.push(Contestant::dpdk(program)),
                        Err(reason) if dpdk_is_optional => {
                            let reason = reason.to_string();
                            left_out.push(LeftOut { engine: engine.to_string(), reason });
                        }
                        Err(reason) => return Err(reason.into()),
                    },
                }
            }
            contestants.iter().try_for_each(|contestant| contestant.check_depth(&settings))
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
        let mut preempted_passes = 0;
        let mut round_trips = Samples::default();
        for _ in 0..settings.rounds {
            round_trips.push(round_trip_ns(settings.cpus, clock).map_err(Error::Pin)?);
            for (index, &point) in points.iter().enumerate() {
                for contestant in &mut *contestants {
                    before(&contestant.name);
                    let Turn { cost, latency, loaded } =
                        contestant.turn(point, settings, clock, arena)?;
                    preempted_passes += usize::from(cost.preemptions > 0);
                    contestant.figures[index].push(point, &cost, latency, loaded);
                }
            }
        }
        let Self { settings, clock, arena, contestants, left_out } = self;
        let mut results = Results::new(&settings, &points, &contestants, &clock, &arena);
        results.left_out = left_out;
        results.preempted_passes = preempted_passes;
        results.round_trip_ns = round_trips;
        Ok(results)
    }
}
