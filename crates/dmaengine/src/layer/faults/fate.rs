//! What a plan has in store for each operation.

use super::{
    orders::FaultOrders,
    plan::{Delay, Fault, Start, When},
};
use crate::random::SplitMix64;

/// The rules of a plan, at work on one channel.
#[derive(Debug)]
pub(super) struct Fates {
    rules: Vec<(Strikes, Fault)>,
    orders: Option<FaultOrders>,
    scribbles: Option<Strikes>,
}

/// Which operations a rule strikes.
#[derive(Debug)]
struct Strikes {
    when: When,
    /// A rule's own, so that no rule changes another's luck.
    random: SplitMix64,
    /// Operations so far.
    count: u64,
    /// Operations that the storm still lasts.
    left: u64,
}

/// What is in store for one operation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Fate {
    /// Whatever else happens.
    pub(super) delay: Option<Delay>,
    /// The worst of the others.
    pub(super) fault: Option<Fault>,
    /// Its target is written after its end was reported.
    pub(super) scribble: bool,
}

impl Fates {
    /// `random` gives the seeds of the rules' own numbers.
    pub(super) fn new(
        rules: &[(When, Fault)],
        orders: Option<FaultOrders>,
        scribbles: Option<When>,
        random: &mut SplitMix64,
    ) -> Self {
        let mut strikes =
            |when| Strikes { when, random: SplitMix64::new(random.next()), count: 0, left: 0 };
        let rules = rules.iter().map(|&(when, fault)| (strikes(when), fault)).collect();
        Self { rules, orders, scribbles: scribbles.map(strikes) }
    }

    /// The next operation's.
    pub(super) fn next(&mut self) -> Fate {
        let scribble = self.scribbles.as_mut().is_some_and(Strikes::next);
        let mut fate = Fate { scribble, ..Fate::default() };
        for (strikes, fault) in &mut self.rules {
            if strikes.next() {
                fate.meets(*fault);
            }
        }
        if let Some(fault) = self.orders.as_ref().and_then(FaultOrders::take) {
            fate.meets(fault);
        }
        fate
    }
}

impl Fate {
    fn meets(&mut self, fault: Fault) {
        match (fault, self.fault) {
            (Fault::Delay(delay), _) => {
                self.delay.get_or_insert(delay);
            }
            (Fault::Fail(status) | Fault::Halt(status), _) if status.is_done() => {}
            (fault, Some(other)) if other.rank() >= fault.rank() => {}
            (fault, _) => self.fault = Some(fault),
        }
    }
}

impl Strikes {
    /// Whether it strikes the next operation.
    const fn next(&mut self) -> bool {
        self.count += 1;
        let begins = match self.when.start {
            Start::At(k) => k == self.count,
            // Drawn in a storm too: storms may overlap.
            Start::OneIn(n) => self.random.next().is_multiple_of(n),
        };
        if begins && self.left < self.when.times {
            self.left = self.when.times;
        }
        let strikes = self.left > 0;
        self.left = self.left.saturating_sub(1);
        strikes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Status;

    fn fates(rules: &[(When, Fault)], seed: u64, count: usize) -> Vec<Option<Fault>> {
        let mut fates = Fates::new(rules, None, None, &mut SplitMix64::new(seed));
        (0..count).map(|_| fates.next().fault).collect()
    }

    #[test]
    fn a_storm_has_its_place_and_length() {
        let fail = Fault::Fail(Status::ReadError);
        let struck = fates(&[(When::at(3).times(2), fail), (When::at(9), Fault::Lose)], 1, 10);
        for (index, fault) in struck.into_iter().enumerate() {
            let expected = match index + 1 {
                3 | 4 => Some(fail),
                9 => Some(Fault::Lose),
                _ => None,
            };
            assert_eq!(fault, expected, "operation {}", index + 1);
        }
    }

    #[test]
    fn the_worst_happens_and_a_delay_with_it() {
        let rules = [
            (When::ALWAYS, Fault::Delay(Delay::Polls(2))),
            (When::ALWAYS, Fault::Fail(Status::ReadError)),
            (When::ALWAYS, Fault::Lose),
            (When::ALWAYS, Fault::Fail(Status::WriteError)),
        ];
        let mut random = SplitMix64::new(0);
        let fate = Fates::new(&rules, None, Some(When::at(1)), &mut random).next();
        let delay = Some(Delay::Polls(2));
        assert_eq!(fate, Fate { delay, fault: Some(Fault::Lose), scribble: true });
        let halt = [(When::ALWAYS, Fault::Halt(Status::Success))];
        let fate = Fates::new(&halt, None, None, &mut random).next();
        assert_eq!(fate, Fate::default(), "success is no failure");
    }

    #[test]
    #[cfg_attr(miri, ignore = "long, and nothing unsafe")]
    fn chance_is_the_seeds_and_as_frequent_as_asked_for() {
        let lose = [(When::one_in(10), Fault::Lose)];
        let struck = fates(&lose, 5, 10_000);
        assert_eq!(struck, fates(&lose, 5, 10_000));
        assert_ne!(struck, fates(&lose, 6, 10_000));
        let count = struck.iter().flatten().count();
        assert!((900..1100).contains(&count), "{count} of 10000");
        let storms = fates(&[(When::one_in(1000).times(16), Fault::Lose)], 5, 10_000);
        let mut lengths: Vec<_> = storms.chunk_by(PartialEq::eq).collect();
        lengths.pop();
        let mut storms = lengths.into_iter().filter(|run| run[0].is_some()).peekable();
        assert!(storms.peek().is_some() && storms.all(|run| run.len() >= 16));
    }
}
