//! Faults to order.

mod text;

use std::{collections::BTreeMap, num::NonZeroU64, time::Duration};

pub use text::ParseFaultError;

use crate::{channel::Counts, registers::ChanErr};

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// A descriptor fails with these CHANERR bits and moves nothing.
    Error(ChanErr),
    /// The channel halts before a descriptor, with CHANERR 0.
    Halt,
    /// The channel neither works nor suspends from a descriptor on, until it is reset.
    Hang,
    /// As `Hang`, and a reset does not end either. A function level reset does.
    Dead,
    /// A descriptor is done, but its completion word is not written.
    LostCompletion,
    /// A descriptor is done, but its completion word is written that much later; with the interrupt,
    /// if there is one. What is written meanwhile waits behind it. A reset forgets it.
    LateCompletion(Duration),
    /// A descriptor is done, but its interrupt is not raised: as if it had not asked for one.
    LostInterrupt,
    /// The device vanishes from the bus at a descriptor, for ever: all reads give all ones, writes
    /// do nothing, and no memory is touched.
    Vanish,
    /// A doorbell (a write of DMACOUNT, or APPEND in version 1.2) is ignored.
    LostDoorbell,
    /// A channel reset takes at least this long.
    SlowReset(Duration),
}

/// What faults are counted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Event {
    Descriptor,
    Doorbell,
    Reset,
}

impl Fault {
    const fn event(self) -> Event {
        match self {
            Self::Error(_)
            | Self::Halt
            | Self::Hang
            | Self::Dead
            | Self::LostCompletion
            | Self::LateCompletion(_)
            | Self::LostInterrupt
            | Self::Vanish => Event::Descriptor,
            Self::LostDoorbell => Event::Doorbell,
            Self::SlowReset(_) => Event::Reset,
        }
    }

    const fn needs_time(self) -> bool {
        matches!(self, Self::LateCompletion(_) | Self::SlowReset(_))
    }
}

/// Which of a channel's descriptors (or doorbells, or resets) meet with a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct When {
    /// The channel; `None`: each of them, counted by itself.
    pub channel: Option<usize>,
    /// Which ones.
    pub which: Which,
}

/// A choice among numbered things. They are counted from 0, here and in all that is not text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// `times` in a row, from the one with this number on.
    From {
        /// The first.
        first: u64,
        /// How many.
        times: u64,
    },
    /// Random ones: on average one in so many.
    OneIn(NonZeroU64),
}

/// Which faults the device has.
///
/// Descriptors, doorbells and resets of a channel are counted from the model's start and across all
/// resets. Of descriptors those count that are fetched: null descriptors do, extended ones do not.
/// Which descriptors random faults hit depends on the seed and on nothing else.
///
/// # As text
///
/// A list of pieces with commas between them:
///
/// | piece | effect |
/// | --- | --- |
/// | `error@WHEN:NAME`, `error@WHEN:NAME+NAME` | [`Fault::Error`], with names of [`ChanErr`] such as `read-data` |
/// | `halt@WHEN`, `hang@WHEN`, `dead@WHEN` | [`Fault::Halt`], [`Fault::Hang`], [`Fault::Dead`] |
/// | `lose-completion@WHEN` | [`Fault::LostCompletion`] |
/// | `delay-completion@WHEN:TIME` | [`Fault::LateCompletion`] |
/// | `lose-interrupt@WHEN` | [`Fault::LostInterrupt`] |
/// | `lose-doorbell@WHEN` | [`Fault::LostDoorbell`] |
/// | `slow-reset@WHEN:TIME` | [`Fault::SlowReset`] |
/// | `vanish@WHEN` | [`Fault::Vanish`] |
/// | `bandwidth=BYTES` | [`Faults::bandwidth`], bytes a second, with `k`, `M` or `G` for powers of 1000 |
/// | `latency=TIME` | [`Faults::latency`] |
/// | `seed=NUMBER` | [`Faults::seed`] |
///
/// `WHEN` is `K` for the k-th descriptor, doorbell or reset of each channel, from 1 on; `KxN` for `N`
/// of them from the k-th on; `1/N` for one in `N` at random. With `chanC.` before it, it is of channel
/// `C` only. A `TIME` is a number with `ns`, `us`, `ms` or `s`.
///
/// ```
/// use ioat_model::{Fault, Faults, registers::ChanErr};
///
/// let faults: Faults = "error@chan0.5:read-data,hang@chan0.10".parse()?;
/// let same = Faults::none()
///     .at(0, 4, Fault::Error(ChanErr::READ_DATA))
///     .at(0, 9, Fault::Hang);
/// assert_eq!(faults, same);
/// assert_eq!(faults.to_string(), "error@chan0.5:read-data,hang@chan0.10");
/// # Ok::<(), ioat_model::ParseFaultError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// What happens at single descriptors, doorbells and resets of a channel.
    single: BTreeMap<(Event, usize, u64), Fault>,
    /// What happens more often. The first that applies counts.
    rules: Vec<(When, Fault)>,
    /// Bytes a second.
    bandwidth: Option<NonZeroU64>,
    latency: Duration,
    seed: u64,
}

impl Faults {
    /// No faults.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Adds `fault` at one descriptor (or doorbell, or reset) of `channel`, in place of one ordered
    /// there before.
    #[must_use]
    pub fn at(mut self, channel: usize, number: u64, fault: Fault) -> Self {
        self.single.insert((fault.event(), channel, number), fault);
        self
    }

    /// Adds `fault` at what comes next of what it is counted by.
    pub(crate) fn order(&mut self, channel: usize, counts: Counts, fault: Fault) {
        let event = fault.event();
        let next = match event {
            Event::Descriptor => counts.descriptors,
            Event::Doorbell => counts.doorbells,
            Event::Reset => counts.resets,
        };
        self.single.insert((event, channel, next), fault);
    }

    /// Adds a rule.
    #[must_use]
    pub fn with(mut self, when: When, fault: Fault) -> Self {
        self.rules.push((when, fault));
        self
    }

    /// Limits the bytes a second that the device moves, all channels together.
    #[must_use]
    pub const fn bandwidth(mut self, bytes_per_second: NonZeroU64) -> Self {
        self.bandwidth = Some(bytes_per_second);
        self
    }

    /// Makes each descriptor take this long at least. Those of a channel come one after the other.
    #[must_use]
    pub const fn latency(mut self, latency: Duration) -> Self {
        self.latency = latency;
        self
    }

    /// Says where random numbers begin.
    #[must_use]
    pub const fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// All of another's faults besides these. Limits and seed are the other's where it has any.
    pub fn extend(&mut self, other: Self) {
        let Self { single, rules, bandwidth, latency, seed } = other;
        self.single.extend(single);
        self.rules.extend(rules);
        self.bandwidth = bandwidth.or(self.bandwidth);
        self.latency = if latency.is_zero() { self.latency } else { latency };
        self.seed = if seed == 0 { self.seed } else { seed };
    }

    /// Whether they depend on time.
    pub(crate) fn need_time(&self) -> bool {
        self.has_limits()
            || self.single.values().any(|fault| fault.needs_time())
            || self.rules.iter().any(|(_, fault)| fault.needs_time())
    }

    pub(crate) const fn has_limits(&self) -> bool {
        self.bandwidth.is_some() || !self.latency.is_zero()
    }

    /// When `bytes` more are through, which begin at `from`.
    pub(crate) fn moved(&self, from: Duration, bytes: u32) -> Duration {
        let Some(bandwidth) = self.bandwidth else { return from };
        let nanoseconds = u64::from(bytes) * 1_000_000_000 / bandwidth;
        from.saturating_add(Duration::from_nanos(nanoseconds))
    }

    /// When a descriptor that is fetched at `now` may end.
    pub(crate) const fn ends(&self, now: Duration) -> Duration {
        now.saturating_add(self.latency)
    }

    /// The fault for this descriptor, doorbell or reset.
    #[inline]
    pub(crate) fn take(&mut self, event: Event, channel: usize, number: u64) -> Option<Fault> {
        // Most devices have none, and are asked for each descriptor.
        let none = self.single.is_empty() && self.rules.is_empty();
        if none { None } else { self.look_up(event, channel, number) }
    }

    fn look_up(&mut self, event: Event, channel: usize, number: u64) -> Option<Fault> {
        if let Some(fault) = self.single.remove(&(event, channel, number)) {
            return Some(fault);
        }
        let seed = self.seed;
        let mut rules = self.rules.iter().enumerate();
        let met = rules.find(|(index, (when, fault))| {
            let meant = fault.event() == event && when.channel.is_none_or(|meant| meant == channel);
            let place = [*index as u64, channel as u64, number];
            meant && when.which.holds(number, || random(seed, place))
        });
        met.map(|(_, (_, fault))| *fault)
    }
}

impl Which {
    fn holds(self, number: u64, random: impl FnOnce() -> u64) -> bool {
        match self {
            Self::From { first, times } => number.checked_sub(first).is_some_and(|n| n < times),
            Self::OneIn(n) => random() % n == 0,
        }
    }
}

/// A random number for a place, the same in every run (`SplitMix64`).
fn random(seed: u64, place: [u64; 3]) -> u64 {
    place.into_iter().fold(mix(seed), |state, part| mix(state ^ part))
}

const fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ value >> 31
}
