use dmaengine::Arena;
use serde::Serialize;

use super::{
    break_even::{BreakEven, Compared, break_even},
    contest::Settings,
    contestant::Contestant,
    engine::LeftOut,
    figures::{Figures, Interface, Point, Row},
};
use crate::{
    bench::{Clock, Cpus},
    measure::Samples,
};

/// What was measured, as `--json` prints it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Results {
    /// Who ran where.
    pub cpus: Cpus,
    /// Of which the figures are medians.
    pub rounds: usize,
    /// The length of a pass.
    pub pass_ms: f64,
    /// The most copies in flight.
    pub depth: usize,
    /// Pairs of buffers that the copies walked over.
    pub pairs: usize,
    /// Whether these lay on reserved huge pages.
    pub huge_pages: bool,
    /// What a cache line takes to the engine's CPU and back: what handing over costs any software
    /// engine.
    pub round_trip_ns: Samples,
    /// What reading the clock takes, which no figure contains.
    pub clock_ns: f64,
    /// The version of DPDK, if it took part.
    pub dpdk: Option<String>,
    /// Who did not take part, and why.
    pub left_out: Vec<LeftOut>,
    /// Passes that measured what the caller pays.
    pub cost_passes: usize,
    /// Those of them in which it lost its CPU to another program. What that took is in their figures.
    pub preempted_passes: usize,
    /// By engine, then batch, then size.
    pub rows: Vec<Row>,
    /// Of each engine but `memcpy`, and each batch.
    pub break_even: Vec<BreakEvenRow>,
}

/// From which size on an engine pays.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BreakEvenRow {
    /// Its name.
    pub engine: String,
    /// What moves the bytes.
    pub kind: &'static str,
    /// What the caller used it through.
    pub interface: Interface,
    /// Copies for one doorbell.
    pub batch: usize,
    /// The size.
    #[serde(flatten)]
    pub size: BreakEven,
}

impl Results {
    /// Of contestants that have figures of all points; the first is `memcpy`.
    pub(super) fn new(
        settings: &Settings,
        points: &[Point],
        contestants: &[Contestant],
        clock: &Clock,
        arena: &Arena,
    ) -> Self {
        let rounds = settings.rounds;
        let memcpy = &contestants[0].figures;
        let dpdk = contestants.iter().find(|contestant| contestant.dpdk_version().is_some());
        let rows = contestants
            .iter()
            .flat_map(|contestant| {
                points.iter().enumerate().map(move |(index, point)| {
                    let dpdk = dpdk.map(|dpdk| &dpdk.figures[index]);
                    row(contestant, *point, &contestant.figures[index], &memcpy[index], dpdk)
                })
            })
            .collect();
        let break_even = contestants[1..]
            .iter()
            .flat_map(|contestant| {
                settings.batches.iter().filter_map(move |&batch| {
                    let compared = points
                        .iter()
                        .zip(contestant.figures.iter().zip(memcpy))
                        .filter(|(point, _)| point.batch == batch)
                        .map(|(point, (engine, memcpy))| Compared {
                            size: point.size,
                            engine_ns: engine.caller_ns.median(),
                            memcpy_ns: memcpy.caller_ns.median(),
                        })
                        .collect();
                    let size = break_even(compared)?;
                    let engine = contestant.name.clone();
                    let &Contestant { kind, interface, .. } = contestant;
                    Some(BreakEvenRow { engine, kind, interface, batch, size })
                })
            })
            .collect();
        Self {
            cpus: settings.cpus,
            rounds,
            pass_ms: settings.pass.as_secs_f64() * 1e3,
            depth: settings.depth,
            pairs: settings.pairs,
            huge_pages: arena.huge_pages(),
            round_trip_ns: Samples::default(),
            clock_ns: clock.cost_ns(),
            dpdk: dpdk.and_then(Contestant::dpdk_version).map(str::to_owned),
            left_out: Vec::new(),
            cost_passes: rounds * points.len() * contestants.len(),
            preempted_passes: 0,
            rows,
            break_even,
        }
    }
}

fn row(
    contestant: &Contestant,
    point: Point,
    figures: &Figures,
    memcpy: &Figures,
    dpdk: Option<&Figures>,
) -> Row {
    Row {
        engine: contestant.name.clone(),
        kind: contestant.kind,
        interface: contestant.interface,
        size: point.size,
        batch: point.batch,
        caller_over_memcpy: figures.caller_ns.over(&memcpy.caller_ns),
        caller_over_dpdk: dpdk.map(|dpdk| figures.caller_ns.over(&dpdk.caller_ns)),
        throughput_over_memcpy: figures.mops.over(&memcpy.mops),
        throughput_over_dpdk: dpdk.map(|dpdk| figures.mops.over(&dpdk.mops)),
        figures: figures.clone(),
        verified: contestant.copies,
    }
}
