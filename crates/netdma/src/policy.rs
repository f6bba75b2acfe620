//! Whether the engine pays, learned from what receives have cost: [`Copybreak::Auto`].
//!
//! # Model
//!
//! What a receive costs its thread depends on how long it is, on who waits for it, and on whether its
//! buffer was filled a short while ago, so that its lines are in the thread's cache. Each combination is
//! a *class*, and of each class it is known what a kilobyte has cost lately when the engine copied and
//! when the CPU did: taking the segments, copying or submitting, collecting completions, and waiting
//! for the last of them; and what the reader pays to look at what the engine wrote
//! ([`reading`](crate::reading)).
//!
//! Of the two, the cheaper is taken. It must be cheaper by [`MARGIN`] to be changed to, so that noise
//! does not make a class swing. Now and then the other one is tried for [`TRIAL`] receives in a row, of
//! which the first are not measured: they only wake an engine up, or warm a cache. Trials become rarer
//! while they change nothing. Beside them only a few receives are measured, because reading the clock
//! twice costs as much as a copy of two kilobytes.
//!
//! Receives that are shorter than any engine is worth ([`floor`]) are the CPU's without a look at any
//! table.
//!
//! [`Copybreak::Auto`]: crate::Copybreak::Auto

use std::time::Duration;

use crate::{
    Waiting,
    reading::{Moment, Reading},
};

/// No engine pays below this, in bytes: an operation costs the submitting thread what copying as much
/// does.
const FLOOR: usize = 2 << 10;
/// And if a thread waits for it: the engine needs a microsecond to begin and to be seen to end.
const FLOOR_AWAITED: usize = 8 << 10;
/// Lengths from here on are one class.
const LONGEST: usize = 4 << 20;
/// By how much the other side must be cheaper.
const MARGIN: f64 = 0.9;
/// Receives in a trial, and how many of them are measured, the last ones. A thread that sleeps on an idle
/// processor of a virtual machine takes 50 µs to wake up, in which short receives come by the dozen.
const TRIAL: u32 = 48;
const TRIAL_MEASURED: u32 = 12;
/// Of the receives that are no trial, one in so many is measured.
const SAMPLE: u32 = 32;
/// Receives between trials, at first and at most.
const INTERVALS: (u32, u32) = (256, 32768);
/// How much of a new cost counts; a trial has few to tell with.
const WEIGHT: f64 = 1.0 / 8.0;
const WEIGHT_IN_TRIAL: f64 = 1.0 / 6.0;
/// A cost that is so many times the known one is that of a thread that had lost its processor.
const OUTLIER: f64 = 4.0;

const LENGTHS: usize = (LONGEST.ilog2() - FLOOR.ilog2() + 1) as usize;
const WAITINGS: usize = 3;

/// What a receive has in common with others that cost the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceiveClass {
    /// The least length of it, in bytes; all below the double of it are in it.
    pub min_len: usize,
    /// Who waits.
    pub waiting: Waiting,
    /// Its buffer is one of those that were filled last.
    pub is_warm: bool,
}

impl ReceiveClass {
    /// Whether there is a class for such a receive into a buffer of `len` bytes.
    pub(crate) const fn exists(len: usize, waiting: Waiting) -> bool {
        len >= floor(waiting)
    }

    /// The class of a receive into a buffer of `len` bytes.
    pub(crate) fn of(len: usize, waiting: Waiting, is_warm: bool) -> Self {
        Self { min_len: 1 << len.clamp(FLOOR, LONGEST).ilog2(), waiting, is_warm }
    }

    fn index(self) -> usize {
        let length = (self.min_len.ilog2() - FLOOR.ilog2()) as usize;
        (length * WAITINGS + self.waiting as usize) * 2 + usize::from(self.is_warm)
    }

    fn at(index: usize) -> Self {
        let waiting = match index / 2 % WAITINGS {
            0 => Waiting::Never,
            1 => Waiting::ForMore,
            _ => Waiting::Elsewhere,
        };
        Self { min_len: FLOOR << (index / 2 / WAITINGS), waiting, is_warm: index % 2 == 1 }
    }
}

const fn floor(waiting: Waiting) -> usize {
    match waiting {
        Waiting::Elsewhere => FLOOR,
        Waiting::Never | Waiting::ForMore => FLOOR_AWAITED,
    }
}

/// Why a receive is the engine's or the CPU's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// This side has cost less.
    Cheaper,
    /// The other side has not cost less by enough to change.
    NotWorthChanging,
    /// The other side is not known well enough to compare.
    Unknown,
    /// To see what it costs.
    Trial,
}

/// Where a receive's copies run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The receive.
    pub class: ReceiveClass,
    /// By the engine, and the CPU beside it; or by the CPU alone.
    pub by_engine: bool,
    /// Why.
    pub reason: Reason,
    /// It is measured.
    pub(crate) is_measured: bool,
}

/// What is known of a class.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PolicyRow {
    /// The class.
    pub class: ReceiveClass,
    /// What a KiB costs the receiving thread if the CPU copies it, in nanoseconds.
    pub cpu_ns_per_kib: Option<f64>,
    /// The same if the engine does, with [`reading_ns_per_kib`](Self::reading_ns_per_kib).
    pub engine_ns_per_kib: Option<f64>,
    /// What it costs the reader that the engine has copied a KiB, and left it outside the reader's
    /// caches, in nanoseconds: nothing if the reader does not look at it. Not known of buffers that are
    /// cold.
    pub reading_ns_per_kib: Option<f64>,
    /// Who copies, but for trials.
    pub by_engine: bool,
    /// Why.
    pub reason: Reason,
    /// Receives that were decided on.
    pub receives: u64,
}

#[derive(Clone, Copy, Debug)]
struct Class {
    /// Nanoseconds per byte of the CPU, and of the engine.
    costs: [Option<f64>; 2],
    reading: Reading,
    by_engine: bool,
    /// Receives left in the trial.
    trial: u32,
    until_trial: u32,
    interval: u32,
    until_sample: u32,
    receives: u64,
}

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Policy {
    classes: [Class; LENGTHS * WAITINGS * 2],
    last: [Option<Decision>; Self::REMEMBERED],
    next: usize,
}

impl Policy {
    /// Decisions that are remembered.
    const REMEMBERED: usize = 32;

    pub(crate) const fn new() -> Self {
        let class = Class {
            costs: [None; 2],
            reading: Reading::new(),
            by_engine: false,
            // To know the other side first.
            trial: TRIAL,
            until_trial: INTERVALS.0,
            interval: INTERVALS.0,
            until_sample: 0,
            receives: 0,
        };
        Self { classes: [class; LENGTHS * WAITINGS * 2], last: [None; Self::REMEMBERED], next: 0 }
    }

    /// Where the copies of a receive run.
    pub(crate) fn decide(&mut self, class: ReceiveClass) -> Decision {
        let (by_engine, reason, is_measured) = self.classes[class.index()].decide();
        let decision = Decision { class, by_engine, reason, is_measured };
        self.last[self.next] = Some(decision);
        self.next = (self.next + 1) % Self::REMEMBERED;
        decision
    }

    /// A receive that was measured has had `bytes`, `engine_bytes` of them by the engine, which took its
    /// thread so long.
    pub(crate) fn learn(
        &mut self,
        decision: Decision,
        bytes: usize,
        engine_bytes: usize,
        time: Duration,
    ) {
        let class = &mut self.classes[decision.class.index()];
        if bytes > 0 {
            let reading = class.reading.cost().unwrap_or(0.0) * engine_bytes as f64;
            class.learn(decision, (time.as_nanos() as f64 + reading) / bytes as f64);
        }
    }

    /// Looking at so many bytes of a receive has taken so long.
    pub(crate) fn learn_reading(
        &mut self,
        class: ReceiveClass,
        moment: Moment,
        bytes: usize,
        time: Duration,
    ) {
        self.classes[class.index()].reading.learn(moment, bytes, time);
    }

    /// What is known, of the classes that have occurred.
    pub(crate) fn rows(&self) -> impl Iterator<Item = PolicyRow> {
        let classes = self.classes.iter().enumerate();
        classes.filter(|(_, class)| class.receives > 0).map(|(index, class)| PolicyRow {
            class: ReceiveClass::at(index),
            cpu_ns_per_kib: class.costs[0].map(|cost| cost * 1024.0),
            engine_ns_per_kib: class.costs[1].map(|cost| cost * 1024.0),
            reading_ns_per_kib: class.reading.cost().map(|cost| cost * 1024.0),
            by_engine: class.by_engine,
            reason: class.reason(),
            receives: class.receives,
        })
    }

    /// The last decisions, the oldest first.
    pub(crate) fn last(&self) -> impl Iterator<Item = Decision> {
        let (newer, older) = self.last.split_at(self.next);
        older.iter().chain(newer).flatten().copied()
    }
}

impl Class {
    fn decide(&mut self) -> (bool, Reason, bool) {
        self.receives += 1;
        if self.trial > 0 {
            self.trial -= 1;
            return (!self.by_engine, Reason::Trial, self.trial < TRIAL_MEASURED);
        }
        if self.until_trial == 0 {
            self.until_trial = self.interval;
            self.interval = (self.interval * 2).min(INTERVALS.1);
            self.trial = TRIAL;
        }
        self.until_trial -= 1;
        let is_measured = self.until_sample == 0;
        self.until_sample = if is_measured { SAMPLE } else { self.until_sample - 1 };
        (self.by_engine, self.reason(), is_measured)
    }

    fn learn(&mut self, decision: Decision, cost: f64) {
        let Decision { by_engine, reason, .. } = decision;
        let weight = if reason == Reason::Trial { WEIGHT_IN_TRIAL } else { WEIGHT };
        let known = self.costs[usize::from(by_engine)].get_or_insert(cost);
        *known += weight * (cost.min(OUTLIER * *known) - *known);
        let [Some(cpu), Some(engine)] = self.costs else { return };
        let (ours, other) = if self.by_engine { (engine, cpu) } else { (cpu, engine) };
        if other < MARGIN * ours {
            self.by_engine = !self.by_engine;
            // Two that are about equal take turns, and each trial costs something.
            self.interval = (self.interval / 2).max(INTERVALS.0);
            (self.trial, self.until_trial) = (0, self.interval);
        }
    }

    fn reason(&self) -> Reason {
        let [Some(cpu), Some(engine)] = self.costs else { return Reason::Unknown };
        let is_cheaper = if self.by_engine { engine < cpu } else { cpu < engine };
        if is_cheaper { Reason::Cheaper } else { Reason::NotWorthChanging }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEN: usize = 64 << 10;

    fn class() -> ReceiveClass {
        ReceiveClass::of(LEN, Waiting::ForMore, true)
    }

    /// So many receives, with these costs of a byte in nanoseconds; how many the engine had.
    fn receive(policy: &mut Policy, count: u32, cpu: f64, engine: f64) -> u32 {
        let mut by_engine = 0;
        for _ in 0..count {
            let decision = policy.decide(class());
            by_engine += u32::from(decision.by_engine);
            if decision.is_measured {
                let cost = if decision.by_engine { engine } else { cpu };
                let time = Duration::from_nanos((cost * LEN as f64) as u64);
                policy.learn(decision, LEN, 0, time);
            }
        }
        by_engine
    }

    #[test]
    fn short_receives_have_no_class_and_each_class_its_place() {
        assert!(!ReceiveClass::exists(FLOOR - 1, Waiting::Elsewhere));
        assert!(ReceiveClass::exists(FLOOR, Waiting::Elsewhere));
        assert!(!ReceiveClass::exists(FLOOR, Waiting::Never));
        let policy = Policy::new();
        let mut seen = std::collections::HashSet::new();
        for waiting in [Waiting::Never, Waiting::ForMore, Waiting::Elsewhere] {
            for is_warm in [false, true] {
                for length in 0..LENGTHS {
                    let class = ReceiveClass::of((FLOOR << length) + 1, waiting, is_warm);
                    assert_eq!(class.min_len, FLOOR << length);
                    assert_eq!(ReceiveClass::at(class.index()), class);
                    assert!(seen.insert(class.index()));
                }
            }
        }
        assert_eq!(seen.len(), policy.classes.len());
        let longest = ReceiveClass::of(usize::MAX, Waiting::Never, false);
        assert_eq!(longest.min_len, LONGEST);
    }

    #[test]
    fn what_only_wakes_the_engine_up_teaches_nothing() {
        let mut policy = Policy::new();
        let mut asleep = 30_u32;
        let mut by_engine = 0;
        for _ in 0..100_000 {
            let decision = policy.decide(class());
            // It takes some receives to wake up.
            asleep = if decision.by_engine { asleep.saturating_sub(1) } else { 30 };
            let woken = asleep > 0;
            let cost = match decision.by_engine {
                true if woken => 5.0,
                true => 0.05,
                false => 0.1,
            };
            by_engine += u32::from(decision.by_engine);
            if decision.is_measured {
                let time = Duration::from_nanos((cost * LEN as f64) as u64);
                policy.learn(decision, LEN, 0, time);
            }
        }
        assert!(by_engine > 99_000, "{by_engine}");
    }

    #[test]
    fn an_engine_that_pays_is_used_at_once_but_for_trials() {
        let by_engine = receive(&mut Policy::new(), 10_000, 0.1, 0.05);
        assert!(by_engine > 9_700, "{by_engine}");
    }

    #[test]
    fn one_that_does_not_is_hardly_used() {
        let by_engine = receive(&mut Policy::new(), 100_000, 0.1, 0.2);
        assert!((100..600).contains(&by_engine), "{by_engine}: less than 1 of 150");
    }

    #[test]
    fn what_is_hardly_better_changes_nothing() {
        let mut policy = Policy::new();
        assert!(receive(&mut policy, 10_000, 0.1, 0.092) < 400, "the CPU was first");
        assert_eq!(policy.rows().next().unwrap().reason, Reason::NotWorthChanging);
        receive(&mut policy, 10_000, 0.1, 0.05);
        assert!(receive(&mut policy, 10_000, 0.1, 0.102) > 9_600, "the engine was first");
    }

    #[test]
    fn a_change_is_found_out_within_an_interval() {
        let mut policy = Policy::new();
        receive(&mut policy, 100_000, 0.1, 0.2);
        receive(&mut policy, 2 * INTERVALS.1, 0.1, 0.05);
        assert!(receive(&mut policy, 10_000, 0.1, 0.05) > 9_600, "the engine has become better");
        receive(&mut policy, 1_000, 0.1, 0.3);
        assert!(receive(&mut policy, 10_000, 0.1, 0.3) < 400, "and worse: seen in what is used");
    }

    #[test]
    fn a_lost_processor_changes_little() {
        let mut policy = Policy::new();
        receive(&mut policy, 1_000, 0.1, 0.05);
        let decision = loop {
            let decision = policy.decide(class());
            if decision.is_measured && decision.reason != Reason::Trial {
                break decision;
            }
        };
        policy.learn(decision, LEN, 0, Duration::from_millis(10));
        assert!(receive(&mut policy, 1_000, 0.1, 0.05) > 900);
    }

    #[test]
    fn what_the_reader_pays_is_the_engines_cost() {
        for (reading, is_engines) in [(0.02, true), (0.1, false)] {
            let mut policy = Policy::new();
            let mut by_engine = 0;
            for _ in 0..10_000 {
                let decision = policy.decide(class());
                by_engine += u32::from(decision.by_engine);
                if decision.is_measured {
                    let (cost, bytes) = if decision.by_engine { (0.05, LEN) } else { (0.1, 0) };
                    let time = |cost: f64, len| Duration::from_nanos((cost * len as f64) as u64);
                    if decision.by_engine {
                        let time = time(reading, 2048);
                        policy.learn_reading(class(), Moment::Written, 2048, time);
                        policy.learn_reading(class(), Moment::Left, 2048, Duration::ZERO);
                    }
                    policy.learn(decision, LEN, bytes, time(cost, LEN));
                }
            }
            assert_eq!(by_engine > 5_000, is_engines, "{by_engine} at {reading} ns");
            let row = policy.rows().next().unwrap();
            assert!((row.reading_ns_per_kib.unwrap() - reading * 1024.0).abs() < 1.0, "{row:?}");
        }
    }

    #[test]
    fn the_last_decisions_are_told_in_their_order() {
        let mut policy = Policy::new();
        assert_eq!(policy.last().count(), 0);
        receive(&mut policy, 3, 0.1, 0.05);
        assert_eq!(policy.last().map(|decision| decision.by_engine).collect::<Vec<_>>(), [true; 3]);
        receive(&mut policy, 1_000, 0.1, 0.2);
        let last: Vec<_> = policy.last().collect();
        assert_eq!(last.len(), Policy::REMEMBERED);
        let row = policy.rows().next().unwrap();
        assert_eq!((row.class, row.by_engine, row.receives), (class(), false, 1_003));
        assert!(row.cpu_ns_per_kib.unwrap() > 100.0 && row.engine_ns_per_kib.unwrap() > 200.0);
    }
}
