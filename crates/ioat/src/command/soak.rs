use std::{num::NonZeroUsize, time::Duration};

use clap::Args;
use ioat::{
    engine::EngineName,
    offload_counters::OffloadCounters,
    soak::{self, EngineReport, SoakConfig, SoakError, SoakReport},
};

use super::{machine, print_json, progress};
use crate::failure::Failure;

/// Proves for an hour, or as long as you like, that no byte is lost, whatever engines do.
///
/// Streams of random lengths run between stacks in this process, into programs that read in every
/// way, while the engines are late, fail, halt, hang, and vanish and come back, and children are
/// forked. It passes with no wrong byte, no memory more than at first, every packet and buffer back,
/// engines that copy again after their last fault, and no thread that works while all stands still.
#[derive(Debug, Args)]
#[command(after_help = "Example: ioat soak --seconds 3600 --engine ioat-model --json")]
pub(crate) struct Soak {
    /// An engine; can be given several times: all work at the same time.
    #[arg(long = "engine", value_name = "E", default_values = ["threads:2", "ioat-model"])]
    engines: Vec<EngineName>,
    /// How long.
    #[arg(long, value_name = "N", default_value_t = 60,
          value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    seconds: u64,
    /// Connections of each engine.
    #[arg(long, value_name = "N", default_value_t = 16,
          value_parser = clap::value_parser!(u16).range(1..=256))]
    connections: u16,
    /// Milliseconds from one fault of an engine to the next; 0: no faults.
    #[arg(long, value_name = "MS", default_value_t = 100)]
    fault_ms: u32,
    /// Milliseconds from one forked child to the next; 0: no children.
    #[arg(long, value_name = "MS", default_value_t = 1000)]
    fork_ms: u32,
    /// Where random choices begin.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
}

impl Soak {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let interval = |ms: u32| (ms > 0).then(|| Duration::from_millis(ms.into()));
        let config = SoakConfig {
            engines: self.engines,
            duration: Duration::from_secs(self.seconds),
            connections: NonZeroUsize::new(self.connections.into()).unwrap_or(NonZeroUsize::MIN),
            fault_interval: interval(self.fault_ms),
            fork_interval: interval(self.fork_ms),
            seed: self.seed,
        };
        let bar = progress::steps(self.seconds);
        bar.set_message("soaking");
        let report = soak::run(&config, |passed, _| bar.set_position(passed.as_secs()));
        bar.finish_and_clear();
        let report = report.map_err(|error| match error {
            SoakError::System(_) | SoakError::Engine(_) => machine(error),
            error => Failure::Failed(error.to_string()),
        })?;
        if self.json {
            print_json(&report);
        } else {
            print(&report);
        }
        match report.failure {
            None => Ok(()),
            Some(failure) => Err(Failure::Failed(failure)),
        }
    }
}

fn print(report: &SoakReport) {
    for engine in &report.engines {
        let EngineReport { engine: name, kind, shards, connections, faults, offload } = engine;
        println!("{name} ({kind}): {connections} connections over {shards} channels");
        for (channel, counters) in offload.iter().enumerate() {
            let OffloadCounters { bytes_by_engine, bytes_by_cpu, .. } = counters;
            let OffloadCounters { copies_repeated, engine_resets, .. } = counters;
            println!(
                "  channel {channel}: {bytes_by_engine} bytes by it, {bytes_by_cpu} by the CPU \
                 ({}); {copies_repeated} copies repeated, {engine_resets} resets",
                counters.causes(),
            );
        }
        let faults: Vec<_> =
            faults.iter().map(|(name, count)| format!("{name}: {count}")).collect();
        println!("  faults ordered: {}", faults.join(", "));
    }
    let SoakReport { seconds, wrong_bytes, children, memory, .. } = report;
    println!(
        "{seconds:.0} s: {wrong_bytes} wrong bytes, {children} children, memory grown by {} KiB",
        memory.growth_bytes / 1024,
    );
}
