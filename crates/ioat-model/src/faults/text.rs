//! [`Faults`] as text: reading and printing.

use std::{fmt, num::NonZeroU64, str::FromStr, time::Duration};

use super::{Fault, Faults, When, Which};
use crate::registers::ChanErr;

/// Why a text says nothing about [`Faults`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseFaultError {
    /// A piece begins with no fault's name.
    #[error(
        "no fault begins like `{0}`: use error, halt, hang, dead, lose-completion, \
         delay-completion, lose-interrupt, lose-doorbell, slow-reset or vanish with @WHEN, or \
         bandwidth, latency or seed with =VALUE"
    )]
    Name(String),
    /// A piece lacks its `@WHEN`.
    #[error("`{0}` does not say when: add @K for the k-th, @KxN for N of them, @1/N for one in N")]
    NoWhen(String),
    /// A piece lacks the value behind its colon.
    #[error("`{piece}` needs {what} behind a colon, as in `{example}`")]
    NoValue {
        /// The piece.
        piece: String,
        /// What is missing.
        what: &'static str,
        /// How it would look.
        example: &'static str,
    },
    /// A piece has a value that its fault does not take.
    #[error("`{0}` takes nothing behind a colon")]
    Value(String),
    /// `WHEN` cannot be read.
    #[error(
        "`{0}` is no place: use K for the k-th (from 1 on), KxN for N of them, 1/N for one in N at \
         random; with chanC. before it, of channel C only"
    )]
    When(String),
    /// A CHANERR name does not exist.
    #[error("CHANERR has no bit `{0}`: use names such as read-data, write-data or source-address")]
    ChanErr(String),
    /// A time cannot be read.
    #[error("`{0}` is no time: use a number with ns, us, ms or s")]
    Time(String),
    /// A number cannot be read.
    #[error("`{0}` is no number that fits here")]
    Number(String),
}

impl FromStr for Faults {
    type Err = ParseFaultError;

    fn from_str(text: &str) -> Result<Self, ParseFaultError> {
        let mut faults = Self::none();
        for piece in text.split(',') {
            match piece.split_once('=') {
                Some(("bandwidth", value)) => faults.bandwidth = Some(bandwidth(value)?),
                Some(("latency", value)) => faults.latency = time(value)?,
                Some(("seed", value)) => faults.seed = number(value)?,
                _ => faults.piece(piece)?,
            }
        }
        Ok(faults)
    }
}

impl Faults {
    /// Adds a `FAULT@WHEN` or `FAULT@WHEN:VALUE`.
    fn piece(&mut self, piece: &str) -> Result<(), ParseFaultError> {
        let (name, rest) = piece.split_once('@').map_or((piece, None), |(n, rest)| (n, Some(rest)));
        let (when, value) = match rest.map(|rest| rest.split_once(':')) {
            None => (rest, None),
            Some(None) => (rest, None),
            Some(Some((when, value))) => (Some(when), Some(value)),
        };
        let needs = |what, example| {
            value.ok_or_else(|| ParseFaultError::NoValue { piece: piece.into(), what, example })
        };
        let fault = match name {
            "error" => Fault::Error(errors(needs("a CHANERR name", "error@5:read-data")?)?),
            "delay-completion" => {
                Fault::LateCompletion(time(needs("a time", "delay-completion@5:3ms")?)?)
            }
            "slow-reset" => Fault::SlowReset(time(needs("a time", "slow-reset@1:50ms")?)?),
            _ => {
                let fault = match name {
                    "halt" => Fault::Halt,
                    "hang" => Fault::Hang,
                    "dead" => Fault::Dead,
                    "lose-completion" => Fault::LostCompletion,
                    "lose-interrupt" => Fault::LostInterrupt,
                    "lose-doorbell" => Fault::LostDoorbell,
                    "vanish" => Fault::Vanish,
                    _ => return Err(ParseFaultError::Name(piece.into())),
                };
                if value.is_some() {
                    return Err(ParseFaultError::Value(piece.into()));
                }
                fault
            }
        };
        let when = when.ok_or_else(|| ParseFaultError::NoWhen(piece.into()))?;
        match read_when(when).ok_or_else(|| ParseFaultError::When(when.into()))? {
            When { channel: Some(channel), which: Which::From { first, times: 1 } } => {
                self.single.insert((fault.event(), channel, first), fault);
            }
            when => self.rules.push((when, fault)),
        }
        Ok(())
    }
}

fn read_when(text: &str) -> Option<When> {
    let (channel, which) = match text.strip_prefix("chan") {
        None => (None, text),
        Some(rest) => {
            let (channel, which) = rest.split_once('.')?;
            (Some(channel.parse().ok()?), which)
        }
    };
    let which = match which.strip_prefix("1/") {
        Some(n) => Which::OneIn(n.parse().ok()?),
        None => {
            let (first, times) = which.split_once('x').unwrap_or((which, "1"));
            let (first, times): (NonZeroU64, NonZeroU64) =
                (first.parse().ok()?, times.parse().ok()?);
            Which::From { first: first.get() - 1, times: times.get() }
        }
    };
    Some(When { channel, which })
}

/// A CHANERR bit's name in text: as the flag's, in small letters and with hyphens.
fn text_name(name: &str) -> String {
    name.to_ascii_lowercase().replace('_', "-")
}

fn errors(text: &str) -> Result<ChanErr, ParseFaultError> {
    let mut errors = ChanErr::empty();
    for name in text.split('+') {
        let mut all = ChanErr::all().iter_names();
        let bit = all.find(|(flag, _)| text_name(flag) == name).map(|(_, bit)| bit);
        errors |= bit.ok_or_else(|| ParseFaultError::ChanErr(name.into()))?;
    }
    Ok(errors)
}

/// The units of times, the least first.
const UNITS: [(&str, u64); 4] = [("ns", 1), ("us", 1_000), ("ms", 1_000_000), ("s", 1_000_000_000)];

fn time(text: &str) -> Result<Duration, ParseFaultError> {
    let time = UNITS.iter().find_map(|(unit, nanoseconds)| {
        let count: u64 = text.strip_suffix(unit)?.parse().ok()?;
        Some(Duration::from_nanos(count.checked_mul(*nanoseconds)?))
    });
    time.ok_or_else(|| ParseFaultError::Time(text.into()))
}

fn number(text: &str) -> Result<u64, ParseFaultError> {
    text.parse().map_err(|_| ParseFaultError::Number(text.into()))
}

fn bandwidth(text: &str) -> Result<NonZeroU64, ParseFaultError> {
    let units = [("k", 1_000), ("M", 1_000_000), ("G", 1_000_000_000)];
    let (digits, unit) = units
        .iter()
        .find_map(|(suffix, unit)| Some((text.strip_suffix(suffix)?, *unit)))
        .unwrap_or((text, 1));
    let bytes = digits.parse::<u64>().ok().and_then(|count| count.checked_mul(unit));
    bytes.and_then(NonZeroU64::new).ok_or_else(|| ParseFaultError::Number(text.into()))
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { single, rules, bandwidth, latency, seed } = self;
        let mut pieces = Vec::new();
        for ((_, channel, number), fault) in single {
            let which = Which::From { first: *number, times: 1 };
            pieces.push(piece(When { channel: Some(*channel), which }, *fault));
        }
        pieces.extend(rules.iter().map(|(when, fault)| piece(*when, *fault)));
        pieces.extend(bandwidth.map(|bandwidth| format!("bandwidth={bandwidth}")));
        if !latency.is_zero() {
            pieces.push(format!("latency={}", show_time(*latency)));
        }
        if *seed != 0 {
            pieces.push(format!("seed={seed}"));
        }
        f.write_str(&pieces.join(","))
    }
}

fn piece(when: When, fault: Fault) -> String {
    let (name, value) = match fault {
        Fault::Error(errors) => {
            let names: Vec<_> = errors.iter_names().map(|(flag, _)| text_name(flag)).collect();
            ("error", Some(names.join("+")))
        }
        Fault::Halt => ("halt", None),
        Fault::Hang => ("hang", None),
        Fault::Dead => ("dead", None),
        Fault::LostCompletion => ("lose-completion", None),
        Fault::LateCompletion(time) => ("delay-completion", Some(show_time(time))),
        Fault::LostInterrupt => ("lose-interrupt", None),
        Fault::Vanish => ("vanish", None),
        Fault::LostDoorbell => ("lose-doorbell", None),
        Fault::SlowReset(time) => ("slow-reset", Some(show_time(time))),
    };
    let channel = when.channel.map_or_else(String::new, |channel| format!("chan{channel}."));
    let which = match when.which {
        Which::From { first, times: 1 } => format!("{}", first.saturating_add(1)),
        Which::From { first, times } => format!("{}x{times}", first.saturating_add(1)),
        Which::OneIn(n) => format!("1/{n}"),
    };
    let value = value.map_or_else(String::new, |value| format!(":{value}"));
    format!("{name}@{channel}{which}{value}")
}

fn show_time(time: Duration) -> String {
    let nanoseconds = time.as_nanos();
    let mut units = UNITS.iter().rev();
    let whole = units.find(|(_, unit)| nanoseconds.is_multiple_of(u128::from(*unit)));
    let (unit, length) = whole.map_or(("ns", 1), |(unit, length)| (*unit, u128::from(*length)));
    format!("{}{unit}", nanoseconds / length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Faults, ParseFaultError> {
        text.parse()
    }

    #[test]
    fn what_is_printed_is_read_back() {
        for text in [
            "error@chan0.5:read-data",
            "error@1/1000:chipset-uncorrectable+xor-p-or-crc,seed=7",
            "halt@3x16",
            "hang@chan3.1",
            "dead@9",
            "lose-completion@1/1",
            "delay-completion@chan1.2x3:3ms",
            "lose-interrupt@4",
            "lose-doorbell@chan2.1/8",
            "slow-reset@1:1s",
            "vanish@100",
            "bandwidth=500000000,latency=1500ns",
            "halt@1,hang@2,latency=5us,seed=18446744073709551615",
        ] {
            assert_eq!(parse(text).expect(text).to_string(), text);
        }
    }

    #[test]
    fn units_are_understood() {
        let faults = parse("bandwidth=2G,latency=0s").expect("good");
        assert_eq!(faults.bandwidth, NonZeroU64::new(2_000_000_000));
        assert!(faults.has_limits());
        assert_eq!(parse("latency=3us").expect("good").latency, Duration::from_micros(3));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let message = |text: &str| parse(text).expect_err(text).to_string();
        for (text, named) in [
            ("", "``"),
            ("halt@1,,hang@2", "``"),
            ("explode@3", "`explode@3`"),
            ("halt", "@K"),
            ("halt@", "``"),
            ("halt@0", "`0`"),
            ("halt@x", "`x`"),
            ("halt@1x0", "`1x0`"),
            ("halt@1/0", "`1/0`"),
            ("halt@2/3", "`2/3`"),
            ("halt@chan1", "`chan1`"),
            ("halt@chanx.1", "`chanx.1`"),
            ("halt@-1", "`-1`"),
            ("halt@1:5", "nothing behind a colon"),
            ("error@1", "a CHANERR name"),
            ("error@1:", "``"),
            ("error@1:read-data+nonsense", "`nonsense`"),
            ("slow-reset@1", "a time"),
            ("slow-reset@1:5", "`5`"),
            ("slow-reset@1:99999999999999s", "`99999999999999s`"),
            ("delay-completion@1:ms", "`ms`"),
            ("bandwidth=0", "`0`"),
            ("bandwidth=99999999999G", "`99999999999G`"),
            ("latency=fast", "`fast`"),
            ("seed=-1", "`-1`"),
            ("colour=red", "`colour=red`"),
        ] {
            let message = message(text);
            assert!(message.contains(named), "{text}: {message}");
        }
    }
}
