use std::io;

use netdma::Copybreak;

use super::{
    contestant::Contestant,
    engine::ReceiveEngine,
    figures::{Figures, LinkKind, Point, Program, Row, Scene},
    generator::FrameKind,
    results::Results,
};
use crate::{
    bench::{Clock, Cpus, round_trip_ns},
    engine, host,
    host_side::HostSideError,
    lab::{Placement, TransferError},
    measure::Samples,
};

/// The most reads of a turn: many short ones measure no better.
const MAX_READS: u64 = 1 << 20;

/// What is measured, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Who takes turns. `cpu`, to which all are compared, is always the first.
    pub engines: Vec<ReceiveEngine>,
    /// What the streams come over.
    pub links: Vec<LinkKind>,
    /// What is in a frame, over the wire.
    pub frames: Vec<FrameKind>,
    /// Lengths of a read in bytes.
    pub read_sizes: Vec<usize>,
    /// What reads.
    pub programs: Vec<Program>,
    /// Bytes of a stream; fewer if reads are so short that it would take more than a million.
    pub bytes: u64,
    /// How often each engine has its turn at each point.
    pub rounds: usize,
    /// Which reads are offloaded.
    pub copybreak: Copybreak,
}

/// Why the benchmark broke off.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The engine.
    #[error(transparent)]
    Engine(#[from] engine::OpenError),
    /// Link, memory or stack.
    #[error(transparent)]
    Host(#[from] host::OpenError),
    /// The kernel's end of a TAP link.
    #[error(transparent)]
    HostSide(#[from] HostSideError),
    /// The stack does not listen.
    #[error("the stack does not listen: {0}")]
    Listen(#[source] io::Error),
    /// A thread could not be pinned.
    #[error("threads cannot be pinned to the first CPUs of this process: {0}")]
    Pin(#[source] io::Error),
    /// A stream came to no good end.
    #[error("{engine}, reads of {read_size} bytes: {error}")]
    Transfer {
        /// The engine's name.
        engine: String,
        /// The length of a read in bytes.
        read_size: usize,
        /// What went wrong.
        error: TransferError,
    },
}

/// The engines that take turns.
#[derive(Debug)]
pub struct Contest {
    settings: Settings,
}

/// What happened beside the figures.
#[derive(Clone, Debug, Default)]
pub(super) struct Disturbances {
    pub(super) turns: usize,
    /// In which the receiver lost its CPU to another program.
    pub(super) preempted: usize,
    /// Of the generator, whose acknowledgment did not come in time.
    pub(super) timeouts: u64,
    /// What a cache line takes to the engine's CPU and back, in each round.
    pub(super) round_trip_ns: Samples,
}

impl Contest {
    /// Over these settings.
    #[must_use]
    pub fn new(mut settings: Settings) -> Self {
        settings.engines.retain(|engine| *engine != ReceiveEngine::CPU);
        settings.engines.insert(0, ReceiveEngine::CPU);
        Self { settings }
    }

    /// The turns that [`run`](Self::run) takes.
    #[must_use]
    pub fn turns(&self) -> usize {
        let of_scene = self.points().len() * self.settings.engines.len();
        // The first is checked, not timed.
        self.scenes().len() * of_scene * (self.settings.rounds + 1)
    }

    fn scenes(&self) -> Vec<Scene> {
        let Settings { links, frames, .. } = &self.settings;
        let of_link = |link| match link {
            LinkKind::Wire => frames.iter().map(|&frame| Scene { link, frame }).collect(),
            LinkKind::Tap => vec![Scene { link, frame: FrameKind::Super }],
        };
        links.iter().copied().flat_map(of_link).collect()
    }

    fn points(&self) -> Vec<Point> {
        let Settings { read_sizes, programs, .. } = &self.settings;
        let of = |&program| read_sizes.iter().map(move |&read_size| Point { program, read_size });
        programs.iter().flat_map(of).collect()
    }

    /// Runs all rounds, and calls `before` with the engine's name before each turn.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub fn run(&self, mut before: impl FnMut(&str)) -> Result<Results, Error> {
        let mut rows = Vec::new();
        let mut placements = Vec::new();
        let mut disturbances = Disturbances::default();
        // Before the first scene pins this thread.
        let (with_sender, without) = Placement::choose()
            .and_then(|with_sender| Ok((with_sender, Placement::without_sender()?)))
            .map_err(Error::Pin)?;
        for scene in self.scenes() {
            let placement = match scene.link {
                LinkKind::Wire => without,
                LinkKind::Tap => with_sender,
            };
            rows.extend(self.play(scene, placement, &mut disturbances, &mut before)?);
            placements.push((scene, placement));
        }
        Ok(Results::new(&self.settings, placements, disturbances, rows))
    }

    /// All rounds of one scene.
    fn play(
        &self,
        scene: Scene,
        placement: Placement,
        disturbances: &mut Disturbances,
        before: &mut impl FnMut(&str),
    ) -> Result<Vec<Row>, Error> {
        let Settings { engines, bytes, rounds, .. } = &self.settings;
        let points = self.points();
        let open = || -> Result<Vec<Contestant>, Error> {
            let numbered = (0..).zip(engines);
            numbered
                .map(|(number, engine)| {
                    Contestant::open(engine, number, scene, &self.settings, placement.sender)
                })
                .collect()
        };
        let mut contestants = placement.pin(open).map_err(Error::Pin)??;
        let bytes = |point: Point| (*bytes).min(MAX_READS * point.read_size as u64);
        for contestant in &mut contestants {
            contestant.figures = vec![Figures::default(); points.len()];
            for &point in &points {
                before(&contestant.name);
                contestant.check(point, bytes(point))?;
            }
        }
        let clock = Clock::calibrate();
        for _ in 0..*rounds {
            if let (Some(caller), Some(engine)) = (placement.receiver, placement.engine)
                && caller != engine
            {
                let round_trip = round_trip_ns(Cpus { caller, engine }, &clock);
                disturbances.round_trip_ns.push(round_trip.map_err(Error::Pin)?);
            }
            for (index, &point) in points.iter().enumerate() {
                for contestant in &mut contestants {
                    before(&contestant.name);
                    let turn = contestant.measure(point, bytes(point))?;
                    disturbances.turns += 1;
                    disturbances.preempted += usize::from(turn.preemptions > 0);
                    contestant.figures[index].push(&turn);
                }
            }
        }
        disturbances.timeouts += contestants.iter().map(Contestant::timeouts).sum::<u64>();
        let cpu = &contestants[0];
        let null = contestants.iter().find(|contestant| contestant.is_null());
        let rows = points.iter().enumerate().flat_map(|(index, &point)| {
            contestants.iter().map(move |contestant| contestant.row(scene, point, index, cpu, null))
        });
        Ok(rows.collect())
    }
}
