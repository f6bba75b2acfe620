//! A plan as text.

use std::{fmt, num::NonZeroU64, time::Duration};

use super::{Delay, Fault, FaultPlan, Fences, Start, When};
use crate::Status;

/// The failures that a plan can order, by name. What a check finds is no failure.
const FAILURES: [(&str, Status); 9] = [
    ("aborted", Status::Aborted),
    ("not-attempted", Status::NotAttempted),
    ("read-error", Status::ReadError),
    ("write-error", Status::WriteError),
    ("bad-address", Status::BadAddress),
    ("bad-length", Status::BadLength),
    ("bad-descriptor", Status::BadDescriptor),
    ("timed-out", Status::TimedOut),
    ("device-lost", Status::DeviceLost),
];

/// Of a halt that says nothing else.
const HALT: Status = Status::WriteError;

/// Why a text is no [`FaultPlan`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FaultPlanError {
    /// A piece has a name that no fault has.
    #[error(
        "`{piece}`: there is no such fault; there are fail, lose, halt, vanish, full, delay, \
         reorder, poison, partial, tidy, fence, stuck and seed"
    )]
    Unknown {
        /// The piece of the plan.
        piece: String,
    },
    /// A piece does not have the parts that its fault takes.
    #[error("`{piece}`: write it as {form}")]
    Form {
        /// The piece of the plan.
        piece: String,
        /// How it is written.
        form: &'static str,
    },
    /// It is not told which operations are meant.
    #[error(
        "`{piece}`: `{when}` names no operations; write 7 for the seventh, 7x16 for 16 from the \
         seventh on, 1/100 or 1/100x16 for one in 100 at random"
    )]
    When {
        /// The piece of the plan.
        piece: String,
        /// The part of it.
        when: String,
    },
    /// A status is none, or none of a failure.
    #[error(
        "`{piece}`: `{status}` is no failure; there are aborted, not-attempted, read-error, \
         write-error, bad-address, bad-length, bad-descriptor, timed-out and device-lost"
    )]
    Status {
        /// The piece of the plan.
        piece: String,
        /// The part of it.
        status: String,
    },
    /// A number is none, or too large.
    #[error("`{piece}`: `{number}` is no number up to 2^64 - 1")]
    Number {
        /// The piece of the plan.
        piece: String,
        /// The part of it.
        number: String,
    },
    /// A delay is none.
    #[error(
        "`{piece}`: `{delay}` is no delay; write 3 for polls, 3ops for later operations, 20us or \
         3ms for a time"
    )]
    Delay {
        /// The piece of the plan.
        piece: String,
        /// The part of it.
        delay: String,
    },
    /// It is not told what fences do.
    #[error("`{piece}`: `{fences}` is none of done, not-attempted and either")]
    Fences {
        /// The piece of the plan.
        piece: String,
        /// The part of it.
        fences: String,
    },
}

pub(super) fn parse(text: &str) -> Result<FaultPlan, FaultPlanError> {
    let mut plan = FaultPlan::default();
    if !text.is_empty() {
        text.split(',').try_for_each(|piece| Piece(piece.trim()).add_to(&mut plan))?;
    }
    Ok(plan)
}

/// A part of the text between commas.
#[derive(Clone, Copy)]
struct Piece<'a>(&'a str);

impl Piece<'_> {
    fn add_to(self, plan: &mut FaultPlan) -> Result<(), FaultPlanError> {
        if let Some((name, rest)) = self.0.split_once('@') {
            let (when, argument) = match rest.split_once(':') {
                Some((when, argument)) => (when, Some(argument)),
                None => (rest, None),
            };
            let fault = self.fault(name, argument)?;
            plan.rules.push((self.when(when)?, fault));
        } else if let Some((name, value)) = self.0.split_once('=') {
            match name {
                "delay" => plan.rules.push((When::ALWAYS, Fault::Delay(self.delay(value)?))),
                "fence" => plan.fences = self.fences(value)?,
                "stuck" => plan.stuck = self.number(value)?,
                "seed" => plan.seed = self.number(value)?,
                _ => return Err(self.not_a(name)),
            }
        } else {
            match self.0 {
                "reorder" => plan.reorder = true,
                "poison" => plan.poison = true,
                "partial" => plan.partial = true,
                "tidy" => plan.tidy = true,
                name => return Err(self.not_a(name)),
            }
        }
        Ok(())
    }

    /// The error of a piece whose name is of another form, or of none.
    fn not_a(self, name: &str) -> FaultPlanError {
        let form = match name {
            "fail" => "fail@WHEN:STATUS",
            "lose" => "lose@WHEN",
            "halt" => "halt@WHEN or halt@WHEN:STATUS",
            "vanish" => "vanish@WHEN or vanish@WHEN:STOPS, with 1 stop or more",
            "full" => "full@WHEN",
            "delay" => "delay=DELAY or delay@WHEN:DELAY",
            "reorder" => "reorder",
            "poison" => "poison",
            "partial" => "partial",
            "tidy" => "tidy",
            "fence" => "fence=FENCES",
            "stuck" => "stuck=TIMES",
            "seed" => "seed=NUMBER",
            _ => return FaultPlanError::Unknown { piece: self.0.to_owned() },
        };
        FaultPlanError::Form { piece: self.0.to_owned(), form }
    }

    fn fault(self, name: &str, argument: Option<&str>) -> Result<Fault, FaultPlanError> {
        match (name, argument) {
            ("fail", Some(status)) => Ok(Fault::Fail(self.status(status)?)),
            ("lose", None) => Ok(Fault::Lose),
            ("halt", None) => Ok(Fault::Halt(HALT)),
            ("halt", Some(status)) => Ok(Fault::Halt(self.status(status)?)),
            ("vanish", None) => Ok(Fault::Vanish { stops: None }),
            ("vanish", Some(stops)) => {
                let stops = self.number(stops)?;
                Ok(Fault::Vanish {
                    stops: Some(NonZeroU64::new(stops).ok_or_else(|| self.not_a(name))?),
                })
            }
            ("full", None) => Ok(Fault::Full),
            ("delay", Some(delay)) => Ok(Fault::Delay(self.delay(delay)?)),
            _ => Err(self.not_a(name)),
        }
    }

    fn when(self, text: &str) -> Result<When, FaultPlanError> {
        let (start, times) = match text.split_once('x') {
            Some((start, times)) => (start, count(times)),
            None => (text, Some(1)),
        };
        let start = match start.strip_prefix("1/") {
            Some(n) => count(n).map(Start::OneIn),
            None => count(start).map(Start::At),
        };
        match (start, times) {
            (Some(start), Some(times)) => Ok(When { start, times }),
            _ => Err(FaultPlanError::When { piece: self.0.to_owned(), when: text.to_owned() }),
        }
    }

    fn status(self, name: &str) -> Result<Status, FaultPlanError> {
        let failure = FAILURES.iter().find(|(failure, _)| *failure == name);
        failure.map(|&(_, status)| status).ok_or_else(|| FaultPlanError::Status {
            piece: self.0.to_owned(),
            status: name.to_owned(),
        })
    }

    fn number(self, text: &str) -> Result<u64, FaultPlanError> {
        number(text).ok_or_else(|| FaultPlanError::Number {
            piece: self.0.to_owned(),
            number: text.to_owned(),
        })
    }

    fn delay(self, text: &str) -> Result<Delay, FaultPlanError> {
        let of = |unit| number(text.strip_suffix(unit)?);
        let delay = if let Some(operations) = of("ops") {
            Some(Delay::Operations(operations))
        } else if let Some(time) = of("us") {
            Some(Delay::Time(Duration::from_micros(time)))
        } else if let Some(time) = of("ms") {
            Some(Delay::Time(Duration::from_millis(time)))
        } else {
            number(text).map(Delay::Polls)
        };
        delay.ok_or_else(|| FaultPlanError::Delay {
            piece: self.0.to_owned(),
            delay: text.to_owned(),
        })
    }

    fn fences(self, text: &str) -> Result<Fences, FaultPlanError> {
        match text {
            "either" => Ok(Fences::Either),
            "done" => Ok(Fences::Done),
            "not-attempted" => Ok(Fences::NotAttempted),
            _ => Err(FaultPlanError::Fences { piece: self.0.to_owned(), fences: text.to_owned() }),
        }
    }
}

/// A number without a sign.
fn number(text: &str) -> Option<u64> {
    if text.starts_with('+') { None } else { text.parse().ok() }
}

/// A number that is not 0.
fn count(text: &str) -> Option<u64> {
    number(text).filter(|&count| count > 0)
}

pub(super) fn write(plan: &FaultPlan, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let FaultPlan { rules, reorder, poison, partial, tidy, fences, stuck, seed } = plan;
    let mut comma = "";
    for (when, fault) in rules {
        f.write_str(std::mem::replace(&mut comma, ","))?;
        write_rule(*when, *fault, f)?;
    }
    for (name, is_set) in
        [("reorder", reorder), ("poison", poison), ("partial", partial), ("tidy", tidy)]
    {
        if *is_set {
            write!(f, "{}{name}", std::mem::replace(&mut comma, ","))?;
        }
    }
    let fences = match fences {
        Fences::Either => None,
        Fences::Done => Some("done"),
        Fences::NotAttempted => Some("not-attempted"),
    };
    if let Some(fences) = fences {
        write!(f, "{}fence={fences}", std::mem::replace(&mut comma, ","))?;
    }
    for (name, number) in [("stuck", *stuck), ("seed", *seed)] {
        if number != 0 {
            write!(f, "{}{name}={number}", std::mem::replace(&mut comma, ","))?;
        }
    }
    Ok(())
}

fn write_rule(when: When, fault: Fault, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if let Fault::Delay(delay) = fault
        && when == When::ALWAYS
    {
        f.write_str("delay=")?;
        return write_delay(delay, f);
    }
    let name = match fault {
        Fault::Delay(_) => "delay",
        Fault::Fail(_) => "fail",
        Fault::Lose => "lose",
        Fault::Halt(_) => "halt",
        Fault::Vanish { .. } => "vanish",
        Fault::Full => "full",
    };
    match when.start {
        Start::At(k) => write!(f, "{name}@{k}")?,
        Start::OneIn(n) => write!(f, "{name}@1/{n}")?,
    }
    if when.times != 1 {
        write!(f, "x{}", when.times)?;
    }
    match fault {
        Fault::Halt(HALT) | Fault::Lose | Fault::Vanish { stops: None } | Fault::Full => Ok(()),
        Fault::Vanish { stops: Some(stops) } => write!(f, ":{stops}"),
        Fault::Fail(status) | Fault::Halt(status) => write_status(status, f),
        Fault::Delay(delay) => {
            f.write_str(":")?;
            write_delay(delay, f)
        }
    }
}

fn write_status(status: Status, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match FAILURES.iter().find(|(_, failure)| *failure == status) {
        Some((name, _)) => write!(f, ":{name}"),
        // A plan that was not parsed can have anything.
        None => write!(f, ":{status}"),
    }
}

fn write_delay(delay: Delay, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match delay {
        Delay::Polls(polls) => write!(f, "{polls}"),
        Delay::Operations(operations) => write!(f, "{operations}ops"),
        Delay::Time(time) if time.as_micros().is_multiple_of(1000) => {
            write!(f, "{}ms", time.as_millis())
        }
        Delay::Time(time) => write!(f, "{}us", time.as_micros()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn plan(text: &str) -> Result<FaultPlan, FaultPlanError> {
        text.parse()
    }

    #[test]
    fn every_piece_has_its_meaning() {
        let text = "fail@50:write-error,lose@100x2,halt@7,halt@8:aborted,vanish@9,vanish@1/5x3:4,\
                    full@3,delay@6:2ops,delay=3,delay@1:20us,delay@2:3ms,reorder,poison,partial,\
                    tidy,fence=not-attempted,stuck=2,seed=1";
        let expected = FaultPlan {
            rules: vec![
                (When::at(50), Fault::Fail(Status::WriteError)),
                (When::at(100).times(2), Fault::Lose),
                (When::at(7), Fault::Halt(Status::WriteError)),
                (When::at(8), Fault::Halt(Status::Aborted)),
                (When::at(9), Fault::Vanish { stops: None }),
                (When::one_in(5).times(3), Fault::Vanish { stops: NonZeroU64::new(4) }),
                (When::at(3), Fault::Full),
                (When::at(6), Fault::Delay(Delay::Operations(2))),
                (When::ALWAYS, Fault::Delay(Delay::Polls(3))),
                (When::at(1), Fault::Delay(Delay::Time(Duration::from_micros(20)))),
                (When::at(2), Fault::Delay(Delay::Time(Duration::from_millis(3)))),
            ],
            reorder: true,
            poison: true,
            partial: true,
            tidy: true,
            fences: Fences::NotAttempted,
            stuck: 2,
            seed: 1,
        };
        assert_eq!(plan(text), Ok(expected.clone()));
        assert_eq!(expected.to_string(), text);
        assert_eq!(
            (plan(""), plan(" reorder , seed=0 ")),
            (Ok(FaultPlan::default()), Ok(FaultPlan { reorder: true, ..FaultPlan::default() }),)
        );
    }

    #[test]
    fn errors_name_the_piece_and_the_part() {
        for (text, piece, part) in [
            ("reorder,boom@3", "boom@3", "no such fault"),
            ("reorder,,poison", "", "no such fault"),
            ("poison=1", "poison=1", "write it as poison"),
            ("reorder@1", "reorder@1", "write it as reorder"),
            ("seed=1,fail@5", "fail@5", "fail@WHEN:STATUS"),
            ("fail", "fail", "fail@WHEN:STATUS"),
            ("lose@3:4", "lose@3:4", "lose@WHEN"),
            ("vanish@3:0", "vanish@3:0", "1 stop or more"),
            ("lose@0", "lose@0", "`0` names no operations"),
            ("lose@+1", "lose@+1", "`+1` names no operations"),
            ("lose@1/0", "lose@1/0", "`1/0` names no operations"),
            ("lose@2/3", "lose@2/3", "`2/3` names no operations"),
            ("lose@3x0", "lose@3x0", "`3x0` names no operations"),
            ("fail@1:success", "fail@1:success", "`success` is no failure"),
            ("fail@1:mismatch-p", "fail@1:mismatch-p", "`mismatch-p` is no failure"),
            ("seed=18446744073709551616", "seed=18446744073709551616", "no number"),
            ("stuck=-1", "stuck=-1", "`-1` is no number"),
            ("delay=3s", "delay=3s", "`3s` is no delay"),
            ("delay=ms", "delay=ms", "`ms` is no delay"),
            ("fence=skip", "fence=skip", "`skip` is none of done"),
        ] {
            let error = plan(text).unwrap_err().to_string();
            assert!(error.starts_with(&format!("`{piece}`: ")) && error.contains(part), "{error}");
        }
    }

    fn rules() -> impl Strategy<Value = (When, Fault)> {
        let status = prop::sample::select(&FAILURES).prop_map(|(_, status)| status);
        let delay = prop_oneof![
            any::<u64>().prop_map(Delay::Polls),
            any::<u64>().prop_map(Delay::Operations),
            any::<u64>().prop_map(|time| Delay::Time(Duration::from_micros(time))),
        ];
        let fault = prop_oneof![
            delay.prop_map(Fault::Delay),
            status.clone().prop_map(Fault::Fail),
            Just(Fault::Lose),
            status.prop_map(Fault::Halt),
            any::<u64>().prop_map(|stops| Fault::Vanish { stops: NonZeroU64::new(stops) }),
            Just(Fault::Full),
        ];
        let start = prop_oneof![(1u64..).prop_map(When::at), (1u64..).prop_map(When::one_in)];
        (start, prop_oneof![Just(1), 1u64..])
            .prop_map(|(when, times)| when.times(times))
            .prop_flat_map(move |when| (Just(when), fault.clone()))
    }

    proptest! {
        #[test]
        #[cfg_attr(miri, ignore = "long, and nothing unsafe")]
        fn what_is_printed_is_what_was_meant(
            rules in prop::collection::vec(rules(), 0..5),
            flags: [bool; 4],
            fences in prop::sample::select(vec![Fences::Either, Fences::Done, Fences::NotAttempted]),
            stuck: u64,
            seed: u64,
        ) {
            let [reorder, poison, partial, tidy] = flags;
            let printed = FaultPlan { rules, reorder, poison, partial, tidy, fences, stuck, seed };
            prop_assert_eq!(plan(&printed.to_string()), Ok(printed));
        }

        #[test]
        #[cfg_attr(miri, ignore = "long, and nothing unsafe")]
        fn no_text_panics(text in "[a-z@:=,x/0-9 +-]{0,40}") {
            let _ = plan(&text);
        }
    }
}
