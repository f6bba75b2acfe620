use std::{
    io,
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use clap::{Args, ValueEnum};
use dmaengine::{
    Arena, Channel, ChannelListing, FaultPlan, Faults, Layered, OperationKind, Registry,
    dmatest::{self, Params, Progress, Summary},
};
use indicatif::{MultiProgress, ProgressBar};
use ioat::engine::EngineName;
use serde::Serialize;

use super::{machine, print_json, progress};
use crate::{failure::Failure, size};

/// Tests an engine as Linux's dmatest does: operations of random lengths at random places, and every
/// byte of sources, targets and their surroundings checked.
///
/// The options have the names, meanings and defaults of Linux's module parameters, where it has them,
/// but one default: the test ends, after 1000 iterations. All channels are tested at the same time.
/// Failures go to standard error, the summary to standard output.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Dmatest {
    /// An engine; can be given several times. The first one's channels are dma0chan0 and on, the
    /// second one's dma1chan0 and on.
    #[arg(long = "engine", value_name = "E", env = "IOAT_ENGINE", required = true)]
    engines: Vec<EngineName>,
    /// Only the channel of this name, such as dma0chan1; can be given several times. Default: all.
    #[arg(long = "channel", value_name = "NAME")]
    channels: Vec<String>,
    /// Only channels of this device: dma0, or an engine's name. Default: all.
    #[arg(long, value_name = "NAME")]
    device: Option<String>,
    /// No more channels than this; 0 for all.
    #[arg(long, value_name = "N", default_value_t = 0)]
    max_channels: usize,
    /// Tests per channel and thread; 0, as Linux's dmatest has it, until Ctrl-C, which then prints the
    /// summary.
    #[arg(long, value_name = "N", default_value_t = 1000)]
    iterations: u64,
    /// Operations in flight on a channel at a time, each with buffers of its own. (A channel belongs
    /// to one thread: they are threads of Linux's only by name.)
    #[arg(long, value_name = "T", default_value_t = 1,
          value_parser = clap::value_parser!(u16).range(1..=256))]
    threads_per_chan: u16,
    /// The operation. xor and pq are also checked by the engine itself, as they are and damaged, if it
    /// can do that.
    #[arg(long, value_enum, default_value_t = Operation::Memcpy)]
    op: Operation,
    /// Sources of an exclusive or.
    #[arg(long, value_name = "N", default_value_t = 3,
          value_parser = clap::value_parser!(u8).range(1..))]
    xor_sources: u8,
    /// Sources of P and Q.
    #[arg(long, value_name = "N", default_value_t = 3,
          value_parser = clap::value_parser!(u8).range(1..))]
    pq_sources: u8,
    /// Length of the buffers; operations have 1 up to this many bytes.
    #[arg(long, value_name = "B", default_value = "16K", value_parser = size::parse_length)]
    test_buf_size: usize,
    /// Length of every operation. Default: random.
    #[arg(long, value_name = "B", value_parser = size::parse_length)]
    transfer_size: Option<usize>,
    /// Begin every operation at the start of its buffers, with their length or the transfer size.
    #[arg(long)]
    norandom: bool,
    /// Places and lengths are multiples of 2 to the power of this, in bytes. Default: what the engine
    /// needs.
    #[arg(long, value_name = "POWER", value_parser = clap::value_parser!(u8).range(..=12))]
    alignment: Option<u8>,
    /// How long an operation may take, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 3000,
          value_parser = clap::value_parser!(u64).range(1..=3_600_000))]
    timeout: u64,
    /// Neither fill nor check the buffers: only the engine's own errors count.
    #[arg(long)]
    noverify: bool,
    /// Poll for completions, and do not wait for the channel's event.
    #[arg(long)]
    polled: bool,
    /// Where the random numbers begin: the same seed makes the same tests.
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// Inject faults between the engine and the test, on each channel: commas between the pieces
    /// below. It shows what a failing engine looks like, and that dmatest notices.
    #[arg(long, value_name = "PLAN")]
    faults: Option<FaultPlan>,
    /// Print a line for tests that pass, too.
    #[arg(long)]
    verbose: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// How many failures of a channel are described, unless all tests are; more are only counted.
const MAX_FAILURES: u64 = 32;

const EXAMPLES: &str = "\
Example: ioat dmatest --engine ioat-model --iterations 100000 --json
         ioat dmatest --engine threads:4 --op pq --pq-sources 8 --threads-per-chan 16
         ioat dmatest --engine cpu --engine threads --channel dma1chan0 --transfer-size 4K --norandom
         ioat dmatest --engine threads --faults fail@1/100:write-error,lose@500 --timeout 100

A PLAN of faults is a list of these:
  fail@WHEN:STATUS         end with a status, such as write-error, read-error or bad-address, after
                           having left garbage at the target
  lose@WHEN                never end, until the channel is stopped
  halt@WHEN[:STATUS]       end with a status (default: write-error) and halt: what is behind is aborted
  vanish@WHEN[:STOPS]      the engine is gone, for ever or until it was stopped so often
  full@WHEN                be refused as if the ring were full
  delay@WHEN:DELAY         end late
  delay=DELAY              all end late
  reorder                  report ends in random order
  poison                   fill targets with garbage first
  partial                  failed copies report what has arrived
  tidy                     failed operations leave no garbage
  fence=FENCES             behind a failure a fenced one is done, not-attempted or either
  stuck=TIMES              every stop of the channel fails so often first
  seed=NUMBER              where the random numbers begin
WHEN is K for the K-th operation, KxN for N operations from the K-th on, 1/N for one in N at random,
1/NxM for M in a row, at random. A DELAY is a number of polls (3) or of later operations (3ops), or a
time (20us, 3ms).

Exit status: 0 all passed, 1 a test failed, 2 bad arguments, 3 the engine cannot do it.";

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Operation {
    Memcpy,
    Memset,
    Xor,
    Pq,
}

impl Operation {
    const fn tested(self) -> dmatest::Operation {
        match self {
            Self::Memcpy => dmatest::Operation::Memcpy,
            Self::Memset => dmatest::Operation::Memset,
            Self::Xor => dmatest::Operation::Xor,
            Self::Pq => dmatest::Operation::Pq,
        }
    }

    const fn kind(self) -> OperationKind {
        self.tested().kind()
    }
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

impl Dmatest {
    pub(crate) fn run(&self) -> Result<(), Failure> {
        let params = self.params();
        let registry = Registry::new();
        for engine in &self.engines {
            let device = engine.open().map_err(machine)?;
            registry.register(match &self.faults {
                Some(plan) => Arc::new(Layered::new(device, Faults::new(plan.clone()))),
                None => device,
            });
        }
        let chosen = self.choose(&registry.list())?;
        let arena = Arena::new(params.arena_len().saturating_mul(chosen.len())).map_err(machine)?;
        registry.map(&arena).map_err(machine)?;
        let channels = chosen.iter().map(|name| registry.request(name).map_err(machine));
        let channels = channels.collect::<Result<Vec<_>, _>>()?;
        let interrupted = Arc::new(AtomicBool::new(false));
        if self.iterations == 0 {
            self.end_at_interrupt(&interrupted).map_err(machine)?;
        }

        let bars = MultiProgress::new();
        let summaries = std::thread::scope(|scope| {
            let threads: Vec<_> = channels
                .into_iter()
                .map(|channel| {
                    let (params, arena, bars, interrupted) =
                        (&params, &arena, &bars, &*interrupted);
                    scope.spawn(move || self.test(channel, arena, params, bars, interrupted))
                })
                .collect();
            let results = threads.into_iter().map(|thread| {
                thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            });
            results.collect::<Result<Vec<Summary>, Failure>>()
        })?;
        self.report(summaries)
    }

    fn params(&self) -> Params {
        Params {
            operation: self.op.tested(),
            iterations: self.iterations,
            threads_per_chan: self.threads_per_chan.into(),
            test_buf_size: self.test_buf_size,
            transfer_size: self.transfer_size.unwrap_or(0),
            norandom: self.norandom,
            alignment: self.alignment,
            xor_sources: self.xor_sources.into(),
            pq_sources: self.pq_sources.into(),
            noverify: self.noverify,
            polled: self.polled,
            seed: self.seed,
            timeout: Duration::from_millis(self.timeout),
        }
    }

    /// The names of the channels to test, all of which can do the operation.
    fn choose(&self, all: &[ChannelListing]) -> Result<Vec<String>, Failure> {
        let names: Vec<String> = all.iter().map(|channel| channel.name.to_string()).collect();
        let wanted = |name: &String| self.channels.is_empty() || self.channels.contains(name);
        if let Some(unknown) = self.channels.iter().find(|name| !names.contains(name)) {
            return Err(Failure::Usage(format!(
                "there is no channel {unknown}: use one of {}",
                names.join(", ")
            )));
        }
        let of_device = |name: &str, engine: &str| match &self.device {
            None => true,
            Some(device) => {
                engine == device
                    || name.split_once("chan").is_some_and(|(owner, _)| owner == device)
            }
        };
        let most = if self.max_channels == 0 { usize::MAX } else { self.max_channels };
        let chosen: Vec<(String, &ChannelListing)> = names
            .iter()
            .cloned()
            .zip(all)
            .filter(|(name, listing)| wanted(name) && of_device(name, &listing.info.engine))
            .take(most)
            .collect();
        if chosen.is_empty() {
            return Err(Failure::Usage(format!(
                "no channel is left to test: the engine has {}; look at --device and --channel",
                names.join(", ")
            )));
        }
        let kind = self.op.kind();
        let cannot = chosen
            .iter()
            .find(|(_, listing)| !listing.info.capabilities.contains(kind.capability()));
        if let Some((name, listing)) = cannot {
            let can: Vec<&str> = Operation::value_variants()
                .iter()
                .map(|operation| operation.kind())
                .filter(|kind| listing.info.capabilities.contains(kind.capability()))
                .map(OperationKind::as_str)
                .collect();
            return Err(Failure::Machine(format!(
                "{name} of the engine {} cannot do {kind}: use --op {}, or another engine, such as \
                 --engine threads",
                listing.info.engine,
                can.join(" or ")
            )));
        }
        Ok(chosen.into_iter().map(|(name, _)| name).collect())
    }

    /// The first Ctrl-C ends the run, the second one the process.
    fn end_at_interrupt(&self, interrupted: &Arc<AtomicBool>) -> io::Result<()> {
        use signal_hook::{consts::SIGINT, flag};

        // In this order: the second one's handler must not see what the first one's has just set.
        flag::register_conditional_default(SIGINT, Arc::clone(interrupted))?;
        flag::register(SIGINT, Arc::clone(interrupted))?;
        Ok(())
    }

    fn test(
        &self,
        channel: Channel,
        arena: &Arena,
        params: &Params,
        bars: &MultiProgress,
        interrupted: &AtomicBool,
    ) -> Result<Summary, Failure> {
        let name = channel.name().to_owned();
        let threads = u64::from(self.threads_per_chan);
        let bar = match self.iterations {
            0 => progress::steps_unbounded(),
            count => progress::steps(count.saturating_mul(threads)),
        };
        let bar: ProgressBar = bars.add(bar);
        bar.set_message(name.clone());
        let say = |line: String| bars.suspend(|| eprintln!("{line}"));
        if self.verbose {
            say(format!("dmatest: Added {threads} threads using {name}"));
        }
        let mut failures = 0;
        let named = Summary::of_channel(&name, params.operation);
        let summary =
            dmatest::run_while(channel, arena, params, |Progress { tests, results, .. }| {
                bar.set_position(tests);
                for result in results {
                    failures += u64::from(result.failure.is_some());
                    let first = result.failure.is_some() && failures <= MAX_FAILURES;
                    if self.verbose || first {
                        say(named.describe(result));
                    }
                }
                // Relaxed: nothing else is told by it.
                if interrupted.load(Ordering::Relaxed) {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            });
        bar.finish_and_clear();
        summary.map_err(|error| Failure::Usage(format!("{name}: {error}")))
    }

    fn report(&self, summaries: Vec<Summary>) -> Result<(), Failure> {
        let failed: Vec<String> = summaries
            .iter()
            .filter(|summary| summary.failures > 0 || summary.stuck)
            .map(|summary| {
                let stuck = if summary.stuck { ", and the channel does not stop" } else { "" };
                format!("{}: {}{stuck}", summary.channel, summary.failures)
            })
            .collect();
        if self.json {
            let rows = summaries.into_iter().map(|summary| {
                let Summary { channel, tests, failures, iops, kbps, .. } = summary;
                Row { channel, tests, failures, iops, kbps }
            });
            print_json(&Document { summary: rows.collect() });
        } else {
            for summary in summaries {
                println!("{summary}");
            }
        }
        if failed.is_empty() {
            return Ok(());
        }
        Err(Failure::Failed(format!("tests failed ({}): see above", failed.join("; "))))
    }
}
