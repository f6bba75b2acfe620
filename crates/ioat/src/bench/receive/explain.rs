//! What the policy `auto` learns of an engine, and why it decides as it does.

use netdma::{Copybreak, Decision, PolicyRow, Reason, ReceiveClass, Waiting};
use serde::Serialize;

use super::{
    contest::{Error, Settings},
    contestant::Contestant,
    engine::ReceiveEngine,
    figures::{LinkKind, Point, Program, Scene},
    generator::FrameKind,
};
use crate::lab::{Mode, Placement};

/// What an engine is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The engine.
    pub engine: ReceiveEngine,
    /// What is in a frame of the wire.
    pub frame: FrameKind,
    /// Lengths of a read in bytes.
    pub read_sizes: Vec<usize>,
    /// How programs receive.
    pub modes: Vec<Mode>,
    /// Bytes of a stream, of which there is one for each length and mode.
    pub bytes: u64,
}

/// What `auto` has learned.
#[derive(Clone, Debug, Serialize)]
pub struct Explanation {
    /// The engine's name.
    pub engine: String,
    /// What moves the bytes: `cpu`, `software`, `model` or `hardware`.
    pub kind: &'static str,
    /// The CPUs.
    pub cpus: Placement,
    /// What is in a frame of the wire.
    pub frame: String,
    /// Of each kind of receive, what it costs.
    pub classes: Vec<ExplainedClass>,
    /// From which length on the engine is used, for each way to receive.
    pub break_even: Vec<BreakEven>,
    /// The last decisions, the oldest first.
    pub last_decisions: Vec<ExplainedDecision>,
}

/// A kind of receive.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct ExplainedClass {
    /// Its shortest buffer, in bytes.
    pub min_len: usize,
    /// How the program receives.
    pub mode: Mode,
    /// Its buffer was filled a short while ago.
    pub warm: bool,
    /// Nanoseconds of the receiving thread for a KiB if the CPU copies; `None` if it never has.
    pub cpu_ns_per_kib: Option<f64>,
    /// The same if the engine copies, with what the reader pays then.
    pub engine_ns_per_kib: Option<f64>,
    /// What the reader pays to look at a KiB that the engine left outside its caches, in nanoseconds; 0
    /// if it does not look.
    pub reading_ns_per_kib: Option<f64>,
    /// The engine copies, but for trials.
    pub by_engine: bool,
    /// Why.
    pub reason: &'static str,
    /// How many there were.
    pub receives: u64,
}

/// Where an engine begins to pay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct BreakEven {
    /// How the program receives.
    pub mode: Mode,
    /// From this length of a read on, in bytes, the engine is used; `None`: at no length that was tried.
    pub bytes: Option<usize>,
}

/// What was decided of one receive.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct ExplainedDecision {
    /// The shortest buffer of its kind, in bytes.
    pub min_len: usize,
    /// How the program received.
    pub mode: Mode,
    /// Its buffer was filled a short while ago.
    pub warm: bool,
    /// The engine copied.
    pub by_engine: bool,
    /// Why.
    pub reason: &'static str,
}

/// Has `auto` learn, from streams out of the generator.
///
/// # Errors
///
/// See [`Error`].
pub fn explain(question: &Question, mut before: impl FnMut(&str)) -> Result<Explanation, Error> {
    let Question { engine, frame, read_sizes, modes, bytes } = question;
    let programs = modes.iter().map(|&mode| Program { mode, touch: false }).collect::<Vec<_>>();
    let settings = Settings {
        engines: vec![engine.clone()],
        links: vec![LinkKind::Wire],
        frames: vec![*frame],
        read_sizes: read_sizes.clone(),
        programs: programs.clone(),
        bytes: *bytes,
        rounds: 1,
        copybreak: Copybreak::Auto,
    };
    let cpus = Placement::without_sender().map_err(Error::Pin)?;
    let scene = Scene { link: LinkKind::Wire, frame: *frame };
    let open = || Contestant::open(engine, 0, scene, &settings, None);
    let mut contestant = cpus.pin(open).map_err(Error::Pin)??;
    for &program in &programs {
        for &read_size in read_sizes {
            before(&format!("{program} of {read_size} bytes"));
            let bytes = (*bytes).min(MAX_READS * read_size as u64);
            contestant.measure(Point { program, read_size }, bytes)?;
        }
    }
    let policy = contestant.policy();
    let classes: Vec<_> = policy.rows.into_iter().map(ExplainedClass::from).collect();
    Ok(Explanation {
        engine: contestant.name.clone(),
        kind: contestant.kind,
        cpus,
        frame: frame.to_string(),
        break_even: modes.iter().map(|&mode| break_even(mode, read_sizes, &classes)).collect(),
        classes,
        last_decisions: policy.last.into_iter().map(ExplainedDecision::from).collect(),
    })
}

/// Enough for many trials.
const MAX_READS: u64 = 1 << 17;

fn break_even(mode: Mode, read_sizes: &[usize], classes: &[ExplainedClass]) -> BreakEven {
    let mut lengths = read_sizes.to_vec();
    lengths.sort_unstable();
    let is_by_engine = |&len: &usize| {
        let class = |class: &&ExplainedClass| {
            class.mode == mode && (class.min_len..2 * class.min_len).contains(&len)
        };
        // A buffer may have been warm and cold: the kind that occurred more often counts.
        let of_len = classes.iter().filter(class).max_by_key(|class| class.receives);
        of_len.is_some_and(|class| class.by_engine)
    };
    // From the longest down, as long as the engine is used.
    let paying = lengths.iter().rev().take_while(|len| is_by_engine(len));
    BreakEven { mode, bytes: paying.last().copied() }
}

impl From<PolicyRow> for ExplainedClass {
    fn from(row: PolicyRow) -> Self {
        let ReceiveClass { min_len, waiting, is_warm: warm } = row.class;
        Self {
            min_len,
            mode: mode_of(waiting),
            warm,
            cpu_ns_per_kib: row.cpu_ns_per_kib,
            engine_ns_per_kib: row.engine_ns_per_kib,
            reading_ns_per_kib: row.reading_ns_per_kib,
            by_engine: row.by_engine,
            reason: word_for(row.reason),
            receives: row.receives,
        }
    }
}

impl From<Decision> for ExplainedDecision {
    fn from(decision: Decision) -> Self {
        let Decision { class, by_engine, reason, .. } = decision;
        let ReceiveClass { min_len, waiting, is_warm: warm } = class;
        Self { min_len, mode: mode_of(waiting), warm, by_engine, reason: word_for(reason) }
    }
}

const fn mode_of(waiting: Waiting) -> Mode {
    match waiting {
        Waiting::Never => Mode::Nonblocking,
        Waiting::ForMore => Mode::Blocking,
        Waiting::Elsewhere => Mode::Posted,
    }
}

const fn word_for(reason: Reason) -> &'static str {
    match reason {
        Reason::Cheaper => "it has cost less",
        Reason::NotWorthChanging => "the other is cheaper, but not by enough to change",
        Reason::Unknown => "the other is not known yet",
        Reason::Trial => "a trial: what it costs is to be known",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn break_even_is_the_least_length_from_which_on_the_engine_is_used() {
        let class = |min_len, by_engine, receives| ExplainedClass {
            min_len,
            mode: Mode::Blocking,
            warm: true,
            cpu_ns_per_kib: None,
            engine_ns_per_kib: None,
            reading_ns_per_kib: None,
            by_engine,
            reason: "",
            receives,
        };
        let classes = [
            class(4096, true, 1),
            class(8192, false, 1),
            class(16384, true, 10),
            class(16384, false, 1),
            class(65536, true, 1),
        ];
        let bytes = |sizes: &[usize]| break_even(Mode::Blocking, sizes, &classes).bytes;
        assert_eq!(bytes(&[4096, 8192, 16384, 65536]), Some(16384));
        assert_eq!(bytes(&[65536, 4096]), Some(4096), "8 KiB were not tried");
        assert_eq!(bytes(&[8192]), None);
        assert_eq!(bytes(&[1024, 20_000]), Some(20_000), "of the class of 16 KiB");
        assert_eq!(break_even(Mode::Posted, &[65536], &classes).bytes, None);
    }
}
