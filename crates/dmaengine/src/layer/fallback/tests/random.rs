//! Random operations with random fences, over an engine that fails at random.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use proptest::prelude::*;

use super::{
    puppet::plain,
    rig::{CELL, CELLS, Rig},
};
use crate::{
    Argument, ChannelInfo, Completion, Cookie, FallbackCause, Flags, Operation, OperationKind,
    Ordering, Status, SubmitError,
};

const CASES: u32 = if cfg!(miri) { 2 } else { 1000 };
const STEPS: usize = if cfg!(miri) { 100 } else { 1000 };
/// Cells in play: few, so that operations meet in them.
const PLAY: usize = 12;

#[derive(Clone, Debug)]
enum Step {
    Copy { from: usize, to: usize },
    Xor { from: [usize; 2], to: usize },
    Fill { pattern: u8, to: usize },
    Issue,
    Poll,
    Finish(usize),
    Twice(usize),
    Fail(usize, usize),
    Lose(usize),
    Refuse(Option<SubmitError>),
    Stuck(bool),
    Silent(bool),
    Pass(u64),
    Terminate,
}

fn step() -> impl Strategy<Value = Step> {
    let cell = 0..PLAY;
    let errors = [
        None,
        None,
        Some(SubmitError::RingFull),
        Some(SubmitError::Unreachable { argument: Argument::Target(0), address: 1 }),
        Some(SubmitError::ChannelDown),
    ];
    prop_oneof![
        12 => (cell.clone(), cell.clone()).prop_map(|(from, to)| Step::Copy { from, to }),
        3 => ([cell.clone(), cell.clone()], cell.clone()).prop_map(|(from, to)| Step::Xor { from, to }),
        3 => (any::<u8>(), cell).prop_map(|(pattern, to)| Step::Fill { pattern, to }),
        8 => Just(Step::Issue),
        8 => Just(Step::Poll),
        8 => any::<usize>().prop_map(Step::Finish),
        1 => any::<usize>().prop_map(Step::Twice),
        2 => (any::<usize>(), any::<usize>()).prop_map(|(at, status)| Step::Fail(at, status)),
        1 => any::<usize>().prop_map(Step::Lose),
        2 => prop::sample::select(errors.to_vec()).prop_map(Step::Refuse),
        1 => any::<bool>().prop_map(Step::Stuck),
        1 => any::<bool>().prop_map(Step::Silent),
        4 => (0..300_u64).prop_map(Step::Pass),
        1 => Just(Step::Terminate),
    ]
}

/// What memory will be, and who uses which cell since the last fence.
struct Model {
    cells: [u8; PLAY],
    read: HashSet<usize>,
    written: HashSet<usize>,
    /// What is to end, by cookie.
    open: HashMap<u64, OperationKind>,
    last_reported: Option<Cookie>,
}

impl Model {
    fn new() -> Self {
        Self {
            cells: std::array::from_fn(|cell| cell as u8),
            read: HashSet::new(),
            written: HashSet::new(),
            open: HashMap::new(),
            last_reported: None,
        }
    }

    /// The flags of an operation that reads and writes these cells.
    fn flags(&mut self, from: &[usize], to: usize) -> Flags {
        let meets = self.read.contains(&to)
            || self.written.contains(&to)
            || from.iter().any(|cell| self.written.contains(cell));
        if meets {
            self.read.clear();
            self.written.clear();
        }
        self.read.extend(from);
        self.written.insert(to);
        if meets { Flags::FENCE } else { Flags::empty() }
    }
}

struct Run {
    rig: Rig,
    model: Model,
    ordering: Ordering,
    /// Operations that were reported as done by the CPU, by cause.
    by_cpu: [u64; FallbackCause::ALL.len()],
}

impl Run {
    fn submit(&mut self, operation: &Operation<'_>, from: &[usize], to: usize, value: u8) {
        if self.rig.channel.space() == 0 {
            assert_eq!(self.rig.submit(operation, Flags::empty()), Err(SubmitError::RingFull));
            return;
        }
        let flags = self.model.flags(from, to);
        let cookie = self.rig.submit(operation, flags).unwrap();
        self.model.cells[to] = value;
        assert_eq!(self.model.open.insert(cookie.get(), operation.kind()), None);
    }

    fn poll(&mut self, may_abort: bool) {
        for Completion { cookie, status, bytes, fallback } in self.rig.poll() {
            let Some(kind) = self.model.open.remove(&cookie.get()) else {
                panic!("{cookie} ended twice");
            };
            match status {
                Status::Success => {
                    assert_eq!(bytes, CELL);
                    self.check_cause(kind, fallback);
                }
                _ => assert!(may_abort && status == Status::Aborted && bytes == 0, "{status}"),
            }
            if self.ordering == Ordering::InOrder
                && let Some(last) = self.model.last_reported.replace(cookie)
            {
                assert!(last.is_before(cookie), "{cookie} after {last}");
            }
        }
    }

    /// Whether an operation may have been done for this cause.
    fn check_cause(&mut self, kind: OperationKind, cause: Option<FallbackCause>) {
        let stats = &self.rig.stats;
        let may_be = match cause {
            // The engine can copy, and nothing else.
            None => kind == OperationKind::Memcpy,
            Some(FallbackCause::Unsupported) => kind != OperationKind::Memcpy,
            // As the engine is told to refuse them.
            Some(FallbackCause::RingFull | FallbackCause::Unreachable) => true,
            Some(FallbackCause::Resting | FallbackCause::Failed) => stats.opened() > 0,
            Some(FallbackCause::TimedOut) => stats.resets() > 0,
        };
        assert!(may_be, "{kind} by {cause:?}");
        if let Some(cause) = cause {
            self.by_cpu[cause as usize] += 1;
        }
    }

    fn terminate(&mut self) {
        if self.rig.channel.terminate_sync(Duration::ZERO).is_err() {
            return;
        }
        self.poll(true);
        assert!(self.model.open.is_empty(), "all has ended");
        // What was aborted may have moved or not.
        let last_reported = self.model.last_reported;
        self.model = Model { last_reported, ..Model::new() };
        for cell in 0..PLAY {
            // SAFETY: our memory; nothing is in flight.
            unsafe { self.rig.at(cell).write_bytes(cell as u8, CELL) };
        }
    }

    fn step(&mut self, step: &Step) {
        let held = self.rig.engine.held();
        let pick = |at: usize| (held > 0).then(|| at % held);
        match *step {
            Step::Copy { from, to } if from != to => {
                let (source, target) = (self.rig.at(from).cast_const(), self.rig.at(to));
                let value = self.model.cells[from];
                self.submit(&Operation::Memcpy { source, target, len: CELL }, &[from], to, value);
            }
            Step::Xor { from, to } if !from.contains(&to) => {
                let sources = from.map(|cell| self.rig.at(cell).cast_const());
                let value = self.model.cells[from[0]] ^ self.model.cells[from[1]];
                let target = self.rig.at(to);
                self.submit(
                    &Operation::Xor { sources: &sources, target, len: CELL },
                    &from,
                    to,
                    value,
                );
            }
            Step::Copy { .. } | Step::Xor { .. } => {}
            Step::Fill { pattern, to } => {
                let whole = u64::from_ne_bytes([pattern; 8]);
                let target = self.rig.at(to);
                self.submit(
                    &Operation::Memset { pattern: whole, target, len: CELL },
                    &[],
                    to,
                    pattern,
                );
            }
            Step::Issue => self.rig.channel.issue_pending(),
            Step::Poll => self.poll(false),
            Step::Finish(at) => self.on_issued(pick(at), |rig, at| rig.engine.finish(at)),
            Step::Twice(at) => self.on_issued(pick(at), |rig, at| rig.engine.finish_twice(at)),
            Step::Lose(at) => self.on_issued(pick(at), |rig, at| rig.engine.lose(at)),
            Step::Fail(at, status) => {
                let failures: Vec<_> = Status::ALL.into_iter().filter(|s| !s.is_done()).collect();
                let status = failures[status % failures.len()];
                self.on_issued(pick(at), |rig, at| rig.engine.fail(at, status));
            }
            Step::Refuse(error) => self.rig.engine.state().refuse = error,
            Step::Stuck(stuck) => self.rig.engine.state().stuck = stuck,
            Step::Silent(silent) => self.rig.engine.state().silent = silent,
            Step::Pass(milliseconds) => self.rig.pass(Duration::from_millis(milliseconds)),
            Step::Terminate => self.terminate(),
        }
        let space = self.rig.channel.info().ring_size - self.model.open.len();
        assert_eq!(self.rig.channel.space(), space);
    }

    /// An engine touches nothing that was not issued; one in order takes the oldest.
    fn on_issued(&mut self, at: Option<usize>, act: impl FnOnce(&mut Rig, usize)) {
        let Some(at) = at else { return };
        let at = if self.ordering == Ordering::InOrder { 0 } else { at };
        if self.rig.engine.is_issued(at) {
            act(&mut self.rig, at);
        }
    }

    /// The engine comes to its senses, and all ends.
    fn finish(mut self) {
        {
            let mut state = self.rig.engine.state();
            (state.stuck, state.works, state.refuse) = (false, true, None);
        }
        self.rig.channel.issue_pending();
        for _ in 0..if cfg!(miri) { 50 } else { 1000 } {
            self.poll(false);
            self.rig.pass(Duration::from_millis(100));
        }
        assert_eq!(self.model.open, HashMap::new(), "these have not ended");
        let counted = FallbackCause::ALL.map(|cause| self.rig.stats.operations(cause));
        assert_eq!(counted, self.by_cpu, "{:?}", FallbackCause::ALL);
        assert_eq!(self.rig.channel.space(), self.rig.channel.info().ring_size);
        for (cell, value) in self.model.cells.into_iter().enumerate() {
            assert_eq!(self.rig.cell(cell), value, "cell {cell}");
        }
        assert!((PLAY..CELLS).all(|cell| self.rig.cell(cell) == cell as u8), "written outside");
        // It is trusted again, after a probe.
        self.rig.copy_now(0, PLAY);
        self.rig.poll();
        assert!(!self.rig.stats.is_open());
        self.rig.copy_now(0, PLAY);
        assert_eq!(self.rig.poll()[0].fallback, None);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn everything_ends_once_as_if_done_in_order(
        in_order in any::<bool>(),
        ring_size in 1..6_usize,
        steps in prop::collection::vec(step(), 0..STEPS),
    ) {
        let ordering = if in_order { Ordering::InOrder } else { Ordering::OutOfOrder };
        let rig = Rig::new(ChannelInfo { ordering, ring_size, ..plain() });
        let by_cpu = [0; FallbackCause::ALL.len()];
        let mut run = Run { rig, model: Model::new(), ordering, by_cpu };
        for step in &steps {
            run.step(step);
        }
        run.finish();
    }
}
