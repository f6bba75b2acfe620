//! `ioat bench dma`.

use std::time::Duration;

use clap::Args;
use ioat::{
    bench::{
        Cpus,
        dma::{BenchEngine, Contest, Error, Interface, LeftOut, Settings, draw},
    },
    engine::EngineName,
};

use crate::{
    command::{machine, progress},
    failure::Failure,
    size,
};

use super::{ENOUGH_ROUNDS, Output, parse_rounds, repeated};

mod table;

/// The picture's file.
const PICTURE: &str = "bench-dma.svg";

/// Measures what copies through engines cost the thread that submits them, and what they give.
///
/// The engines take turns, beside the caller's own memcpy and, where DPDK is installed
/// (apt-get install libdpdk-dev), its software dmadev. bench/README.md says what is measured, and
/// how.
#[derive(Debug, Args)]
#[command(
    after_help = "Example: ioat bench dma --engine threads --engine dpdk --size 1448,4K --json"
)]
pub(crate) struct Dma {
    /// An engine, as for the other commands; or `dpdk`, or `null`, which completes without copying.
    /// May be repeated. [default: cpu, threads, ioat-model, and dpdk if it is there]
    #[arg(long = "engine", value_name = "E")]
    engines: Vec<BenchEngine>,
    /// Lengths of a copy.
    #[arg(long = "size", value_name = "A,B,C", value_delimiter = ',',
          default_value = "64,256,512,1K,1448,4K,16K,64K", value_parser = size::parse_length)]
    sizes: Vec<usize>,
    /// Copies for one doorbell.
    #[arg(long = "batch", value_name = "A,B", value_delimiter = ',', default_value = "1,32",
          value_parser = parse_count)]
    batches: Vec<usize>,
    /// The most copies in flight.
    #[arg(long, value_name = "N", default_value = "128", value_parser = parse_count)]
    depth: usize,
    /// What our engines are used through: `queue`, which owns what is in flight, or `channel`, the bare
    /// one beneath it, which is what DPDK's interface is like; or both.
    #[arg(long = "interface", value_name = "I,J", value_delimiter = ',', default_value = "queue")]
    interfaces: Vec<Interface>,
    /// Pairs of buffers that the copies walk over: what of the payload is in which cache.
    #[arg(long, value_name = "N", default_value = "256", value_parser = parse_count)]
    pairs: usize,
    /// How often each engine has its turn at each size and batch; medians are printed.
    #[arg(long, value_name = "N", default_value_t = ENOUGH_ROUNDS, value_parser = parse_rounds)]
    rounds: usize,
    /// Milliseconds of a pass; a turn has three.
    #[arg(long, value_name = "MS", default_value_t = 10,
          value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pass: u64,
    /// The CPUs of the caller and of the engine's thread. [default: the first two]
    #[arg(long, value_name = "C,E")]
    cpus: Option<Cpus>,
    #[command(flatten)]
    output: Output,
}

/// DPDK's ring, which is the smallest, has 1024 places, of which one stays empty.
fn parse_count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count @ 1..=1023) => Ok(count),
        _ => Err("it must be a number from 1 to 1023".into()),
    }
}

impl Dma {
    pub(crate) fn run(&self) -> Result<(), Failure> {
        self.check()?;
        self.output.make_folder()?;
        let cpus = self.cpus.map_or_else(Cpus::choose, Ok).map_err(machine)?;
        let settings = Settings {
            sizes: self.sizes.clone(),
            batches: self.batches.clone(),
            depth: self.depth,
            interfaces: self.interfaces.clone(),
            pairs: self.pairs,
            rounds: self.rounds,
            pass: Duration::from_millis(self.pass),
            cpus,
        };
        let dpdk_is_optional = self.engines.is_empty();
        let contest =
            Contest::open(settings, &self.engines(), dpdk_is_optional).map_err(failure)?;
        for LeftOut { engine, reason } in contest.left_out() {
            eprintln!("{engine} is left out: {reason}");
        }
        let bar = progress::steps(contest.turns() as u64);
        let results = contest
            .run(|engine| {
                bar.set_message(engine.to_owned());
                bar.inc(1);
            })
            .map_err(failure)?;
        bar.finish_and_clear();
        self.output.write(&results, (PICTURE, draw(&results)), table::print)
    }

    fn engines(&self) -> Vec<BenchEngine> {
        if !self.engines.is_empty() {
            return self.engines.clone();
        }
        let ours =
            [EngineName::Cpu, EngineName::Threads(1), EngineName::Model(ioat_model::Version::V3_2)];
        ours.into_iter().map(BenchEngine::Ours).chain([BenchEngine::Dpdk]).collect()
    }

    /// What clap cannot check by itself.
    fn check(&self) -> Result<(), Failure> {
        let usage = |message: String| Err(Failure::Usage(message));
        if let Some(engine) = repeated(&self.engines) {
            return usage(format!("--engine {engine} is given twice: each has one row"));
        }
        if let Some(size) = repeated(&self.sizes) {
            return usage(format!("--size has {size} twice: each has one row"));
        }
        if let Some(batch) = repeated(&self.batches) {
            return usage(format!("--batch has {batch} twice: each has one row"));
        }
        if let Some(interface) = repeated(&self.interfaces) {
            return usage(format!("--interface has {} twice", interface.as_str()));
        }
        if let Some(batch) = self.batches.iter().find(|batch| **batch > self.depth) {
            return usage(format!(
                "a batch of {batch} does not fit --depth {}: raise it, or lower --batch",
                self.depth
            ));
        }
        if self.pairs < self.depth {
            return usage(format!(
                "{} copies in flight need as many pairs of buffers: raise --pairs, or lower --depth",
                self.depth
            ));
        }
        Ok(())
    }
}

fn failure(error: Error) -> Failure {
    let message = error.to_string();
    match error {
        Error::Pass { .. } | Error::Dpdk(_) => Failure::Failed(message),
        Error::Depth { .. } | Error::OutOfOrder { .. } => Failure::Usage(message),
        Error::Engine(_)
        | Error::Channel(_)
        | Error::Memory(_)
        | Error::Map(_)
        | Error::Pin(_)
        | Error::NoDpdk(_) => Failure::Machine(message),
    }
}
