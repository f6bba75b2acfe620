use serde::Serialize;

use super::{
    contest::{Disturbances, Settings},
    figures::{Row, Scene},
};
use crate::{lab::Placement, measure::Samples};

/// What was measured, as `--json` prints it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Results {
    /// Of which the figures are medians.
    pub rounds: usize,
    /// The most bytes of a stream.
    pub bytes: u64,
    /// Reads of this many bytes or less were copied by the CPU.
    pub copybreak: String,
    /// Who ran where.
    pub placements: Vec<ScenePlacement>,
    /// Turns that were timed.
    pub turns: usize,
    /// Those of them in which the receiver lost its CPU to another program. What that took of caches
    /// and time is in their figures.
    pub preempted_turns: usize,
    /// What a cache line takes to the engine's CPU and back, before each round in which it is not the
    /// receiver's: what handing over costs any software engine.
    pub round_trip_ns: Option<Samples>,
    /// How often the generator sent again what was not acknowledged in time.
    pub generator_timeouts: u64,
    /// By scene, then point, then engine.
    pub rows: Vec<Row>,
}

/// Who ran where in one scene.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ScenePlacement {
    /// The scene.
    #[serde(flatten)]
    pub scene: Scene,
    /// The CPUs.
    pub cpus: Placement,
}

impl Results {
    pub(super) fn new(
        settings: &Settings,
        placements: Vec<(Scene, Placement)>,
        disturbances: Disturbances,
        rows: Vec<Row>,
    ) -> Self {
        let placements = placements.into_iter();
        Self {
            rounds: settings.rounds,
            bytes: settings.bytes,
            copybreak: settings.copybreak.to_string(),
            placements: placements.map(|(scene, cpus)| ScenePlacement { scene, cpus }).collect(),
            turns: disturbances.turns,
            preempted_turns: disturbances.preempted,
            round_trip_ns: Some(disturbances.round_trip_ns).filter(|it| !it.values().is_empty()),
            generator_timeouts: disturbances.timeouts,
            rows,
        }
    }
}
