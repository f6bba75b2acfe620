//! How much of a copy the engine gets: learned from how long both sides took for their parts.
//!
//! For each class of lengths there are two costs, the engine's and the CPU's, in nanoseconds per
//! byte. Both sides end together when the engine's share is `cpu / (cpu + engine)`. The costs are
//! measured at the parts that were really given, so what is fixed about them (a doorbell, a wake-up)
//! is in them, and so is what the two sides take from each other at the memory.
//!
//! Ending together is not enough: the doorbell keeps the CPU from copying. If the CPU alone would be
//! as fast as both are, it copies alone. A side that gets nothing, for that reason or because its share
//! would be tiny, is tried out now and then, to see whether that is still right: with a few copies in
//! succession, because the first may only wake the engine up.

/// A class holds the lengths between two powers of two.
pub(super) const CLASSES: usize = usize::BITS as usize;

/// The weight of a new cost in the mean. The mean is one of logarithms: twice as slow and twice as
/// fast outweigh each other.
const WEIGHT: f64 = 0.3;
/// A cost further from the mean than this, as a logarithm to base 2, counts as this far: a thread
/// that was not scheduled for a while says little.
const MAX_STEP: f64 = 2.0;
/// The share in use changes when the right one is this far from it.
const HYSTERESIS: f64 = 0.02;
/// A side gets nothing when its share falls below this ...
const TOO_LITTLE: f64 = 0.03;
/// ... and gets something again when it rises above this.
const ENOUGH: f64 = 0.045;
/// Sharing is worth it if the engine saves the CPU more than this many doorbells ...
const WORTH: f64 = 1.2;
/// ... and is begun again if it would save more than this.
const WORTH_AGAIN: f64 = 1.6;
/// Copies with which both sides are tried out before one of them is left out.
const FIRST_TRIAL: u32 = 8;
/// Copies with which a side is tried out that is left out.
const TRIAL: u32 = 4;
/// A side that is better than this when it is tried out, as a logarithm to base 2 of its cost, is
/// tried out for longer.
const SURPRISE: f64 = -0.3;
/// The least part of a side that is tried out.
const LEAST: f64 = 1.0 / 16.0;
/// Copies without one side until it is tried out: at first, and at most.
const INTERVALS: (u32, u32) = (16, 1024);

/// What is known of all classes.
#[derive(Debug)]
pub(super) struct Controller {
    classes: [Class; CLASSES],
}

/// What is known of one class.
#[derive(Clone, Copy, Debug)]
pub(super) struct Class {
    /// Logarithms to base 2 of nanoseconds per byte.
    engine: Option<f64>,
    cpu: Option<f64>,
    /// The logarithm to base 2 of nanoseconds of a doorbell per copy.
    doorbell: Option<f64>,
    /// The last length, in bytes.
    len: usize,
    /// The engine's share in use.
    share: f64,
    /// The engine's share with which both would end together.
    ideal: f64,
    /// Copies that are still to be trials.
    trials: u32,
    /// Copies until the side without a share is tried out.
    until_trial: u32,
    /// As many as it will be after the next trial.
    interval: u32,
}

/// What the engine gets of a copy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Share {
    /// A share of all that is to be copied.
    Of(f64),
    /// A share of this copy, whatever else there is to do: it is a trial.
    Trial(f64),
}

/// When the engine ended its part, counted from when it began: later than one look at it and not
/// later than the next.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Between {
    pub(super) after_ns: u64,
    pub(super) by_ns: u64,
}

/// The class of a length, which is not 0.
pub(super) const fn class(len: usize) -> usize {
    len.ilog2() as usize
}

impl Controller {
    pub(super) const fn new() -> Self {
        Self { classes: [Class::UNKNOWN; CLASSES] }
    }

    /// All classes begin with this share.
    #[cfg(test)]
    pub(super) fn starting_at(share: f64) -> Self {
        Self { classes: [Class { share, trials: 0, ..Class::UNKNOWN }; CLASSES] }
    }

    /// What the engine gets of the next copy of `len` bytes, which is not 0.
    pub(super) fn next_share(&mut self, len: usize) -> Share {
        self.classes[class(len)].next_share(len)
    }

    /// The engine copied `bytes` of a copy of `len`.
    pub(super) fn engine_took(&mut self, len: usize, bytes: usize, time: Between) -> Class {
        let class = &mut self.classes[class(len)];
        class.engine_took(bytes, time);
        *class
    }

    /// The CPU copied `bytes` of a copy of `len`.
    pub(super) fn cpu_took(&mut self, len: usize, bytes: usize, ns: u64) -> Class {
        let class = &mut self.classes[class(len)];
        class.cpu_took(bytes, ns);
        *class
    }

    /// The doorbell for a copy of `len` bytes took the CPU so long; of one for several, its share.
    pub(super) fn doorbell_took(&mut self, len: usize, ns: u64) {
        self.classes[class(len)].doorbell_took(ns);
    }
}

impl Class {
    const UNKNOWN: Self = Self {
        engine: None,
        cpu: None,
        doorbell: None,
        len: 1,
        share: 0.5,
        ideal: 0.5,
        trials: FIRST_TRIAL,
        until_trial: INTERVALS.0,
        interval: INTERVALS.0,
    };

    /// The engine's share in use.
    pub(super) const fn share(&self) -> f64 {
        self.share
    }

    /// What the engine was found to copy, in bytes per second.
    pub(super) fn engine_rate(&self) -> Option<f64> {
        self.engine.map(rate)
    }

    /// What the CPU was found to copy, in bytes per second.
    pub(super) fn cpu_rate(&self) -> Option<f64> {
        self.cpu.map(rate)
    }

    fn is_one_sided(&self) -> bool {
        self.share == 0.0 || self.share == 1.0
    }

    fn next_share(&mut self, len: usize) -> Share {
        self.len = len;
        if self.trials == 0 {
            if !self.is_one_sided() {
                return Share::Of(self.share);
            }
            if self.until_trial > 0 {
                self.until_trial -= 1;
                return Share::Of(self.share);
            }
            self.trials = TRIAL;
        }
        self.trials -= 1;
        if self.trials == 0 {
            self.until_trial = self.interval;
            self.interval = (2 * self.interval).min(INTERVALS.1);
        }
        // As much as it would get, if that is more than the least: what is fixed about a cost is
        // then seen in its right proportion.
        Share::Trial(if self.share == 0.0 {
            self.ideal.clamp(LEAST, 0.5)
        } else if self.share == 1.0 {
            self.ideal.clamp(0.5, 1.0 - LEAST)
        } else {
            self.ideal.clamp(LEAST, 1.0 - LEAST)
        })
    }

    fn engine_took(&mut self, bytes: usize, time: Between) {
        let (after, by) = (cost(time.after_ns, bytes), cost(time.by_ns, bytes));
        // What was expected is the best guess, as far as it fits what was seen.
        let seen = match self.engine {
            Some(expected) => expected.max(after).min(by),
            None => by,
        };
        let is_trial = self.share == 0.0;
        self.learn(is_trial, seen, |class| &mut class.engine);
    }

    fn cpu_took(&mut self, bytes: usize, ns: u64) {
        let is_trial = self.share == 1.0;
        self.learn(is_trial, cost(ns, bytes), |class| &mut class.cpu);
    }

    fn doorbell_took(&mut self, ns: u64) {
        learn(&mut self.doorbell, cost(ns, 1));
    }

    /// Learns the cost of a side, which is only tried out, or not.
    fn learn(&mut self, is_trial: bool, seen: f64, side: impl Fn(&mut Self) -> &mut Option<f64>) {
        let step = learn(side(self), seen);
        if is_trial && step < SURPRISE {
            (self.trials, self.interval) = (TRIAL, INTERVALS.0);
        }
        self.choose();
    }

    fn choose(&mut self) {
        let (Some(engine), Some(cpu)) = (self.engine, self.cpu) else { return };
        let ideal = 1.0 / (1.0 + (engine - cpu).exp2());
        self.ideal = ideal;
        let is_one_sided = self.is_one_sided();
        let limit = if is_one_sided { ENOUGH } else { TOO_LITTLE };
        let worth = if self.share == 0.0 { WORTH_AGAIN } else { WORTH };
        let saved_ns = cpu.exp2() * ideal * self.len as f64;
        let doorbell_ns = self.doorbell.map_or(0.0, f64::exp2);
        let one_side = if ideal < limit || saved_ns < worth * doorbell_ns {
            Some(0.0)
        } else if ideal > 1.0 - limit {
            Some(1.0)
        } else {
            None
        };
        match one_side {
            // What a trial says is known when it is through.
            Some(share) if self.trials == 0 => {
                if !is_one_sided {
                    (self.until_trial, self.interval) = (INTERVALS.0, INTERVALS.0);
                }
                self.share = share;
            }
            None if is_one_sided || (ideal - self.share).abs() > HYSTERESIS => self.share = ideal,
            _ => {}
        }
    }
}

/// Takes a cost into a mean; by how much it was above it, as far as it counts.
fn learn(mean: &mut Option<f64>, seen: f64) -> f64 {
    let Some(mean) = mean else {
        *mean = Some(seen);
        return 0.0;
    };
    let step = (seen - *mean).clamp(-MAX_STEP, MAX_STEP);
    *mean += WEIGHT * step;
    step
}

/// The logarithm of a cost. No part is faster than a nanosecond.
fn cost(ns: u64, bytes: usize) -> f64 {
    (ns.max(1) as f64 / bytes.max(1) as f64).log2()
}

/// The rate that belongs to a cost, in bytes per second.
fn rate(cost: f64) -> f64 {
    1e9 / cost.exp2()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEN: usize = 1 << 20;

    /// Two sides with fixed rates in nanoseconds per byte, and the engine's fixed latency.
    #[derive(Clone, Copy)]
    struct Machine {
        engine: f64,
        latency_ns: f64,
        cpu: f64,
        doorbell_ns: u64,
        /// Between two looks at the engine.
        look_ns: u64,
    }

    impl Machine {
        const EVEN: Self =
            Self { engine: 0.1, latency_ns: 0.0, cpu: 0.1, doorbell_ns: 0, look_ns: 1000 };

        /// The share at which both end together.
        fn ideal(self) -> f64 {
            let all = LEN as f64;
            ((self.cpu * all - self.latency_ns) / ((self.engine + self.cpu) * all)).clamp(0.0, 1.0)
        }

        /// One copy.
        fn copy(self, controller: &mut Controller) {
            let (Share::Of(share) | Share::Trial(share)) = controller.next_share(LEN);
            let engine_bytes = (share * LEN as f64) as usize;
            let cpu_bytes = LEN - engine_bytes;
            if engine_bytes > 0 {
                controller.doorbell_took(LEN, self.doorbell_ns);
                let ns = (self.latency_ns + self.engine * engine_bytes as f64) as u64;
                let after_ns = ns / self.look_ns * self.look_ns;
                let time = Between { after_ns, by_ns: after_ns + self.look_ns };
                controller.engine_took(LEN, engine_bytes, time);
            }
            if cpu_bytes > 0 {
                controller.cpu_took(LEN, cpu_bytes, (self.cpu * cpu_bytes as f64) as u64);
            }
        }
    }

    fn share(controller: &Controller) -> f64 {
        controller.classes[class(LEN)].share
    }

    /// Copies until the share is right and stays so; how many that took.
    fn steps_to(machine: Machine, controller: &mut Controller) -> usize {
        let mut last_wrong = 0;
        for step in 1..=300 {
            machine.copy(controller);
            if (share(controller) - machine.ideal()).abs() > 0.05 {
                last_wrong = step;
            }
        }
        last_wrong
    }

    fn machines() -> impl Iterator<Item = Machine> {
        let costs = [0.02, 0.05, 0.1, 0.3];
        costs.into_iter().flat_map(move |engine| {
            costs.into_iter().flat_map(move |cpu| {
                [0.0, 5000.0].map(|latency_ns| Machine { engine, latency_ns, cpu, ..Machine::EVEN })
            })
        })
    }

    #[test]
    fn from_nothing_it_is_right_within_ten_copies() {
        for machine in machines() {
            let steps = steps_to(machine, &mut Controller::new());
            assert!(steps <= 10, "{steps} to {}", machine.ideal());
        }
    }

    #[test]
    fn from_anything_it_is_right_within_80_copies_and_follows_a_change() {
        let mut worst = 0;
        for before in [
            Machine { engine: 100.0, ..Machine::EVEN },
            Machine { engine: 0.0002, look_ns: 1, ..Machine::EVEN },
            Machine { cpu: 100.0, ..Machine::EVEN },
            Machine { cpu: 0.0001, ..Machine::EVEN },
            Machine::EVEN,
        ] {
            for machine in machines() {
                let mut controller = Controller::new();
                (0..40).for_each(|_| before.copy(&mut controller));
                worst = worst.max(steps_to(machine, &mut controller));
            }
        }
        assert!(worst <= 80, "{worst}");
    }

    #[test]
    fn a_hopeless_side_is_left_out_and_looked_at_ever_more_rarely() {
        for (hopeless, end) in [
            (Machine { engine: 50.0, ..Machine::EVEN }, 0.0),
            (Machine { cpu: 50.0, ..Machine::EVEN }, 1.0),
        ] {
            let mut controller = Controller::new();
            let mut trials = 0;
            for _ in 0..10_000 {
                let mut class = controller.classes[class(LEN)];
                trials += usize::from(matches!(class.next_share(LEN), Share::Trial(_)));
                hopeless.copy(&mut controller);
            }
            assert_eq!(share(&controller), end);
            assert!((20..=100).contains(&trials), "{trials} of 10000 copies are trials");
        }
    }

    #[test]
    fn sharing_that_does_not_pay_is_not_done() {
        let alone_ns = 0.1 * LEN as f64;
        for (doorbell, latency, pays) in [
            (0.0, 0.0, true),
            (0.3, 0.0, true),
            (0.6, 0.0, false),
            (0.2, 0.8, false),
            (0.1, 0.4, true),
        ] {
            let machine = Machine {
                doorbell_ns: (doorbell * alone_ns) as u64,
                latency_ns: latency * alone_ns,
                ..Machine::EVEN
            };
            let mut controller = Controller::new();
            (0..200).for_each(|_| machine.copy(&mut controller));
            let share = share(&controller);
            assert_eq!(share > 0.0, pays, "{share} with {doorbell} and {latency}");
            // And when the doorbell is cheap again, it is.
            (0..1000).for_each(|_| Machine::EVEN.copy(&mut controller));
            assert!(steps_to(Machine::EVEN, &mut controller) == 0);
        }
    }

    #[test]
    fn an_engine_that_must_be_woken_is_seen_awake() {
        // It sleeps when it has nothing to do for a copy, and is as good as the CPU when awake.
        let copy = |controller: &mut Controller, asleep: &mut bool| {
            let mut class = controller.classes[class(LEN)];
            let is_used = class.next_share(LEN) != Share::Of(0.0);
            let (latency_ns, doorbell_ns) = if *asleep { (500_000.0, 30_000) } else { (0.0, 300) };
            Machine { latency_ns, doorbell_ns, ..Machine::EVEN }.copy(controller);
            *asleep = !is_used;
        };
        let (mut controller, mut asleep) = (Controller::new(), true);
        (0..20).for_each(|_| copy(&mut controller, &mut asleep));
        assert!((0.45..0.55).contains(&share(&controller)), "{}", share(&controller));
        // For a while it is hopeless; later it is seen that it is not.
        let hopeless = Machine { engine: 50.0, ..Machine::EVEN };
        (0..100).for_each(|_| hopeless.copy(&mut controller));
        assert_eq!(share(&controller), 0.0);
        (0..500).for_each(|_| copy(&mut controller, &mut asleep));
        assert!((0.45..0.55).contains(&share(&controller)), "{}", share(&controller));
    }

    #[test]
    fn one_late_thread_changes_little() {
        let mut controller = Controller::new();
        (0..50).for_each(|_| Machine::EVEN.copy(&mut controller));
        Machine { engine: 100.0, ..Machine::EVEN }.copy(&mut controller);
        let after = share(&controller);
        assert!((0.35..0.5).contains(&after), "{after}");
        assert!(steps_to(Machine::EVEN, &mut controller) <= 6);
    }

    #[test]
    fn a_client_that_looks_late_teaches_nothing_wrong() {
        let mut controller = Controller::new();
        (0..50).for_each(|_| Machine::EVEN.copy(&mut controller));
        let late = Machine { look_ns: 10_000_000, ..Machine::EVEN };
        (0..500).for_each(|_| late.copy(&mut controller));
        assert!((share(&controller) - 0.5).abs() <= 0.05, "{}", share(&controller));
    }

    #[test]
    fn noise_does_not_move_the_share_in_use() {
        let mut controller = Controller::new();
        (0..50).for_each(|_| Machine::EVEN.copy(&mut controller));
        let before = share(&controller);
        for step in 0..100 {
            let engine = if step % 2 == 0 { 0.098 } else { 0.102 };
            Machine { engine, ..Machine::EVEN }.copy(&mut controller);
            assert_eq!(share(&controller), before);
        }
    }
}
