//! `ioat bench receive`.

use clap::{Args, ValueEnum};
use ioat::{
    bench::receive::{Contest, Error, FrameKind, LinkKind, Program, ReceiveEngine, Settings, draw},
    engine::EngineName,
    lab::{Mode, Namespace},
};
use netdma::Copybreak;

use super::{ENOUGH_ROUNDS, Output, parse_rounds, repeated};
use crate::{
    command::{machine, progress},
    failure::Failure,
    size,
};

mod table;

/// The picture's file.
const PICTURE: &str = "bench-receive.svg";

/// Measures what receiving a stream costs the thread that reads it, with an engine for the copies and
/// without.
///
/// The engines take turns. Over the wire in memory the sender costs nothing and payload is cold; over
/// TAP Linux's TCP sends, which needs /dev/net/tun. bench/README.md says what is measured, and how.
#[derive(Debug, Args)]
#[command(
    after_help = "Example: ioat bench receive --engine threads --engine null --read-size 64K --json"
)]
pub(crate) struct Receive {
    /// An engine, as for the other commands; or `null`, which completes without copying. May be
    /// repeated. `cpu` always takes part. [default: threads, ioat-model, null]
    #[arg(long = "engine", value_name = "E")]
    engines: Vec<ReceiveEngine>,
    /// What the stream comes over: `wire`, in memory, or `tap`, or both.
    #[arg(long = "link", value_name = "L,M", value_delimiter = ',', default_value = "wire")]
    links: Vec<LinkKind>,
    /// What is in a frame, over the wire: 64K, or 1448 bytes, or both.
    #[arg(long = "frame", value_name = "F,G", value_delimiter = ',', default_value = "64K,1448")]
    frames: Vec<FrameKind>,
    /// Lengths of a read.
    #[arg(long = "read-size", value_name = "A,B,C", value_delimiter = ',',
          default_value = "64,1K,4K,16K,64K,256K,1M,4M", value_parser = size::parse_length)]
    read_sizes: Vec<usize>,
    /// How the program receives: `blocking`, it waits in its reads; `nonblocking`, it waits until the
    /// stream is readable and then reads; `posted`, it has posted buffers ahead; or several.
    #[arg(long = "mode", value_name = "M,N", value_delimiter = ',', default_value = "blocking")]
    modes: Vec<Mode>,
    /// Whether the reader adds up all bytes that it has read: `no` or `yes`, or both.
    #[arg(long, value_name = "T,U", value_delimiter = ',', default_value = "no")]
    touch: Vec<Touch>,
    /// Bytes of a stream; fewer if it would take more than 1,048,576 reads.
    #[arg(long, value_name = "N", default_value = "256M", value_parser = parse_bytes)]
    bytes: u64,
    /// How often each engine has its turn at each length; medians are printed. A first round, in
    /// which every byte is checked, is not timed.
    #[arg(long, value_name = "N", default_value_t = ENOUGH_ROUNDS, value_parser = parse_rounds)]
    rounds: usize,
    /// Reads of this many bytes or less are copied by the CPU; `off`: all; `auto`: where it has cost less.
    #[arg(long, value_name = "BYTES|off|auto", default_value_t = Copybreak::LINUX)]
    copybreak: Copybreak,
    #[command(flatten)]
    output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum)]
enum Touch {
    No,
    Yes,
}

pub(in crate::command) fn parse_bytes(text: &str) -> Result<u64, String> {
    match size::parse(text)? {
        bytes @ 1..=LONGEST_STREAM => Ok(bytes),
        _ => Err("it must be from 1 byte to 1T".into()),
    }
}

const LONGEST_STREAM: u64 = 1 << 40;

impl Receive {
    pub(crate) fn run(&self) -> Result<(), Failure> {
        self.check()?;
        self.output.make_folder()?;
        // Before there is a second thread.
        let _namespace = self
            .links
            .contains(&LinkKind::Tap)
            .then(|| Namespace::enter().map_err(machine))
            .transpose()?;
        let contest = Contest::new(Settings {
            engines: self.engines(),
            links: self.links.clone(),
            frames: self.frames.clone(),
            read_sizes: self.read_sizes.clone(),
            programs: self.programs(),
            bytes: self.bytes,
            rounds: self.rounds,
            copybreak: self.copybreak,
        });
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

    fn engines(&self) -> Vec<ReceiveEngine> {
        if !self.engines.is_empty() {
            return self.engines.clone();
        }
        let ours = [EngineName::Threads(1), EngineName::Model(ioat_model::Version::V3_2)];
        ours.into_iter().map(ReceiveEngine::Ours).chain([ReceiveEngine::Null]).collect()
    }

    fn programs(&self) -> Vec<Program> {
        let of = |&mode| {
            self.touch.iter().map(move |touch| Program { mode, touch: *touch == Touch::Yes })
        };
        self.modes.iter().flat_map(of).collect()
    }

    /// What clap cannot check by itself.
    fn check(&self) -> Result<(), Failure> {
        let usage = |message: String| Err(Failure::Usage(message));
        if let Some(engine) = repeated(&self.engines) {
            return usage(format!("--engine {engine} is given twice: each has one row"));
        }
        if let Some(link) = repeated(&self.links) {
            return usage(format!("--link has {} twice", link.as_str()));
        }
        if let Some(frame) = repeated(&self.frames) {
            return usage(format!("--frame has {frame} twice"));
        }
        if let Some(size) = repeated(&self.read_sizes) {
            return usage(format!("--read-size has {size} twice: each has one row"));
        }
        if let Some(mode) = repeated(&self.modes) {
            return usage(format!("--mode has {} twice", mode.as_str()));
        }
        if repeated(&self.touch).is_some() {
            return usage("--touch has the same twice".into());
        }
        Ok(())
    }
}

pub(in crate::command) fn failure(error: Error) -> Failure {
    let message = error.to_string();
    match error {
        Error::Transfer { .. } => Failure::Failed(message),
        Error::Engine(_)
        | Error::Host(_)
        | Error::HostSide(_)
        | Error::Listen(_)
        | Error::Pin(_) => Failure::Machine(message),
    }
}
