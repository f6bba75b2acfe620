//! `ioat explain`.

use clap::Args;
use ioat::{
    bench::receive::{Explanation, FrameKind, Question, ReceiveEngine, explain},
    engine::EngineName,
    lab::Mode,
};

use super::{
    bench::receive::{failure, parse_bytes},
    print_json, progress,
};
use crate::{failure::Failure, size};

/// Shows what the policy `auto` learns of an engine on this machine, and why it decides as it does.
///
/// Streams out of memory are received in all ways and lengths that are asked for, with copybreak
/// `auto`; then what each kind of receive has cost its thread is printed, with the CPU copying and with
/// the engine, from which length on the engine pays, and the last decisions with their reasons.
#[derive(Debug, Args)]
#[command(after_help = "Example: ioat explain --engine threads --frame 1448 --read-size 4K,64K")]
pub(crate) struct Explain {
    /// The engine.
    #[arg(long, value_name = "E", default_value = "threads", env = "IOAT_ENGINE")]
    engine: EngineName,
    /// What is in a frame: 64K, or 1448 bytes.
    #[arg(long, value_name = "F", default_value = "64K")]
    frame: FrameKind,
    /// Lengths of a read.
    #[arg(long = "read-size", value_name = "A,B,C", value_delimiter = ',',
          default_value = "4K,8K,16K,64K,256K,1M", value_parser = size::parse_length)]
    read_sizes: Vec<usize>,
    /// How the program receives, as for `ioat bench receive`.
    #[arg(
        long = "mode",
        value_name = "M,N",
        value_delimiter = ',',
        default_value = "blocking,nonblocking,posted"
    )]
    modes: Vec<Mode>,
    /// Bytes of a stream, for each length and mode.
    #[arg(long, value_name = "N", default_value = "256M", value_parser = parse_bytes)]
    bytes: u64,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Decisions that are printed for people.
const DECISIONS: usize = 8;

impl Explain {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let Self { engine, frame, read_sizes, modes, bytes, json } = self;
        let engine = ReceiveEngine::Ours(engine);
        let bar = progress::steps((read_sizes.len() * modes.len()) as u64);
        let question = Question { engine, frame, read_sizes, modes, bytes };
        let explanation = explain(&question, |what| {
            bar.set_message(what.to_owned());
            bar.inc(1);
        })
        .map_err(failure)?;
        bar.finish_and_clear();
        if json {
            print_json(&explanation);
        } else {
            print(&explanation);
        }
        Ok(())
    }
}

fn print(explanation: &Explanation) {
    let Explanation { engine, kind, frame, classes, break_even, last_decisions, .. } = explanation;
    println!(
        "What `auto` has learned of {engine} ({kind}), from streams in memory with frames of {frame}.\n\
         Costs are those of the receiving thread, for a KiB; the engine's with what its reader then pays\n\
         to look at bytes that are in none of its caches (reading).\n"
    );
    println!(
        "{:>9}  {:<12} {:<6} {:>9} {:>9} {:>9} {:>9}  {:<7} because",
        "buffer", "reads", "it was", "receives", "cpu ns", "engine ns", "reading", "copies"
    );
    let ns = |cost: Option<f64>| cost.map_or_else(|| "-".into(), |cost| format!("{cost:.1}"));
    let who = |by_engine| if by_engine { "engine" } else { "cpu" };
    let temperature = |warm| if warm { "warm" } else { "cold" };
    for class in classes {
        println!(
            "{:>9}  {:<12} {:<6} {:>9} {:>9} {:>9} {:>9}  {:<7} {}",
            class.min_len,
            class.mode.as_str(),
            temperature(class.warm),
            class.receives,
            ns(class.cpu_ns_per_kib),
            ns(class.engine_ns_per_kib),
            ns(class.reading_ns_per_kib),
            who(class.by_engine),
            class.reason,
        );
    }
    println!("\nFrom which length on the engine pays:");
    for of_mode in break_even {
        let bytes = of_mode.bytes.map_or_else(|| "never".into(), |bytes| format!("{bytes} bytes"));
        println!("  {:<12} {bytes}", of_mode.mode.as_str());
    }
    println!("\nThe last decisions:");
    for decision in &last_decisions[last_decisions.len().saturating_sub(DECISIONS)..] {
        println!(
            "  {} bytes or more, {}, {}: {}, because {}",
            decision.min_len,
            decision.mode.as_str(),
            temperature(decision.warm),
            who(decision.by_engine),
            decision.reason,
        );
    }
    println!(
        "\nA thread (software) or a model of a device says nothing about a real engine's speed."
    );
}
