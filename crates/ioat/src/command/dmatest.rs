use std::{collections::BTreeMap, time::Duration};

use clap::{Args, ValueEnum};
use dmaengine::{
    Arena, Registry,
    dmatest::{self, Params, Progress, Summary},
};
use ioat::engine::EngineName;
use serde::Serialize;

use super::{machine, print_json, progress};
use crate::{failure::Failure, size};

/// Tests an engine as Linux's dmatest does: random lengths and offsets, and every byte of source,
/// target and their surroundings checked.
#[derive(Debug, Args)]
#[command(after_help = "Example: ioat dmatest --engine ioat-model --iterations 100000 --json")]
pub(crate) struct Dmatest {
    /// The engine; each of its channels is tested.
    #[arg(long, value_name = "E", env = "IOAT_ENGINE")]
    engine: EngineName,
    /// Tests per channel and thread.
    #[arg(long, value_name = "N", default_value_t = 1000,
          value_parser = clap::value_parser!(u64).range(1..))]
    iterations: u64,
    /// Operations in flight on a channel at a time, each with buffers of its own.
    #[arg(long, value_name = "T", default_value_t = 1,
          value_parser = clap::value_parser!(u16).range(1..=256))]
    threads_per_chan: u16,
    /// Length of the buffers; operations have 1 up to this many bytes.
    #[arg(long, value_name = "B", default_value = "16K", value_parser = size::parse_length)]
    test_buf_size: usize,
    /// The operation.
    #[arg(long, value_enum, default_value_t = Operation::Memcpy)]
    op: Operation,
    /// Where the random numbers begin.
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,
    /// Poll for completions, and do not wait for the channel's event.
    #[arg(long)]
    polled: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Operation {
    Memcpy,
    Memset,
    Xor,
    Pq,
}

/// The result, as `--json` prints it.
#[derive(Debug, Serialize)]
struct Document {
    summary: Vec<Row>,
}

#[derive(Debug, Serialize)]
struct Row {
    channel: String,
    tests: u64,
    failures: u64,
    iops: u64,
    kbps: u64,
}

/// How long one operation may take (Linux: `timeout`).
const TIMEOUT: Duration = Duration::from_secs(3);

impl Dmatest {
    pub(crate) fn run(&self) -> Result<(), Failure> {
        let operation = match self.op {
            Operation::Memcpy => dmatest::Operation::Memcpy,
            Operation::Memset => dmatest::Operation::Memset,
            Operation::Xor | Operation::Pq => {
                return Err(Failure::Machine(format!(
                    "the engine {} cannot do this operation yet: use --op memcpy or memset",
                    self.engine
                )));
            }
        };
        let params = Params {
            operation,
            iterations: self.iterations,
            threads_per_chan: self.threads_per_chan.into(),
            test_buf_size: self.test_buf_size,
            polled: self.polled,
            seed: self.seed,
            timeout: TIMEOUT,
        };
        let device = self.engine.open().map_err(machine)?;
        // Source and target of each thread, and room for their alignment.
        let per_thread = 2 * (self.test_buf_size.next_multiple_of(4096) + 4096);
        let arena = Arena::new(per_thread * params.threads_per_chan).map_err(machine)?;
        let registry = Registry::new();
        registry.register(device);
        registry.map(&arena).map_err(machine)?;
        let mut failures = BTreeMap::new();
        let mut summary = Vec::new();
        for listing in registry.list() {
            let channel = registry.request(&listing.name).map_err(machine)?;
            let bar = progress::steps(self.iterations * u64::from(self.threads_per_chan));
            bar.set_message(listing.name.clone());
            let result = dmatest::run(channel, &arena, &params, |Progress { tests, .. }| {
                bar.set_position(tests);
            })
            .map_err(|error| Failure::Usage(error.to_string()))?;
            bar.finish_and_clear();
            self.report(&result);
            if result.failures > 0 || result.stuck {
                failures.insert(result.channel.clone(), result.failures);
            }
            let Summary { channel, tests, failures, iops, kbps, .. } = result;
            summary.push(Row { channel, tests, failures, iops, kbps });
        }
        if self.json {
            print_json(&Document { summary });
        }
        if failures.is_empty() {
            return Ok(());
        }
        let list: Vec<String> =
            failures.iter().map(|(channel, count)| format!("{channel}: {count}")).collect();
        Err(Failure::Failed(format!("tests failed ({}): see above", list.join(", "))))
    }

    /// Failures go to standard error, the summary to standard output unless that gets JSON.
    fn report(&self, result: &Summary) {
        for failure in &result.failed {
            eprintln!("{}", result.describe(failure));
        }
        if !self.json {
            println!("{result}");
        }
    }
}
