//! What goes wrong, and when.

use std::{fmt, num::NonZeroU64, time::Duration};

use crate::Status;

mod text;

pub use text::FaultPlanError;

/// The faults that a [`Faults`](super::Faults) layer injects.
///
/// It is written as a list of pieces with commas between them, and printed in the same way:
///
/// | piece | effect |
/// | --- | --- |
/// | `fail@WHEN:STATUS` | [`Fault::Fail`], with a status such as `write-error` |
/// | `lose@WHEN` | [`Fault::Lose`] |
/// | `halt@WHEN`, `halt@WHEN:STATUS` | [`Fault::Halt`], with `write-error` if no status is given |
/// | `vanish@WHEN`, `vanish@WHEN:STOPS` | [`Fault::Vanish`], for ever or for so many stops |
/// | `full@WHEN` | [`Fault::Full`] |
/// | `delay@WHEN:DELAY`, `delay=DELAY` | [`Fault::Delay`]; the latter is of every operation |
/// | `reorder`, `poison`, `partial`, `tidy` | the fields of these names |
/// | `fence=FENCES`, `stuck=TIMES`, `seed=NUMBER` | the same; fences are `done`, `not-attempted` or `either` |
///
/// `WHEN` is `K` for the k-th operation, `KxN` for a storm of `N` from the k-th on, `1/N` for one
/// operation in `N` at random, and `1/NxM` for storms of `M` that begin at random. A `DELAY` is a
/// number of polls (`3`), of later operations (`3ops`), or a time (`20us`, `3ms`).
///
/// ```
/// use dmaengine::{Fault, FaultPlan, Status, When};
///
/// let plan: FaultPlan = "fail@50x16:write-error,lose@100,reorder,seed=1".parse()?;
/// let same = FaultPlan { reorder: true, seed: 1, ..FaultPlan::default() }
///     .with(When::at(50).times(16), Fault::Fail(Status::WriteError))
///     .with(When::at(100), Fault::Lose);
/// assert_eq!(plan, same);
/// assert_eq!(plan.to_string(), "fail@50x16:write-error,lose@100,reorder,seed=1");
/// # Ok::<(), dmaengine::FaultPlanError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FaultPlan {
    /// What happens to which operations. A delay comes with any other fault; of several others that
    /// meet in one operation the worst happens ([`Fault`] lists them from good to bad), and of two
    /// of a kind the one that stands first.
    pub rules: Vec<(When, Fault)>,
    /// Completions are reported in random order, some of them a few polls late: the channel is
    /// [`OutOfOrder`](crate::Ordering::OutOfOrder), whatever the one below is.
    pub reorder: bool,
    /// Targets are overwritten with garbage at the doorbell, before the real work: who reads early
    /// sees it.
    pub poison: bool,
    /// Failed copies report a prefix that did arrive, as an engine with
    /// [`partial_completion`](crate::ChannelInfo::partial_completion) does.
    pub partial: bool,
    /// A failed operation leaves no garbage: its target is as it was, or complete. That is what
    /// the suite of errors (`conformance::errors`) asks of an engine; nothing else does.
    pub tidy: bool,
    /// What becomes of an operation with [`Flags::FENCE`](crate::Flags::FENCE) when one that is in
    /// flight before it fails.
    pub fences: Fences,
    /// How often every stop of the channel ([`crate::DmaChannel::terminate_sync`]) fails before it
    /// succeeds.
    pub stuck: u64,
    /// Where the random numbers begin.
    pub seed: u64,
}

impl FaultPlan {
    /// The plan with one more rule.
    #[must_use]
    pub fn with(mut self, when: When, fault: Fault) -> Self {
        self.rules.push((when, fault));
        self
    }
}

/// Which operations meet a [`Fault`].
///
/// Operations of a channel are counted from 1, as they are submitted. One that was refused because
/// a plan says so ([`Fault::Full`]) counts too; one that was refused for another reason mostly does
/// not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct When {
    pub(super) start: Start,
    /// Operations in a row.
    pub(super) times: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// The operation of this number.
    At(u64),
    /// A random operation: on average one in so many.
    OneIn(u64),
}

impl When {
    /// Every operation.
    pub const ALWAYS: Self = Self { start: Start::OneIn(1), times: 1 };

    /// The `k`-th operation, from 1 on.
    ///
    /// # Panics
    ///
    /// If `k` is 0: no operation has that number.
    #[must_use]
    pub const fn at(k: u64) -> Self {
        assert!(k > 0, "operations are counted from 1");
        Self { start: Start::At(k), times: 1 }
    }

    /// One operation in `n`, at random.
    ///
    /// # Panics
    ///
    /// If `n` is 0.
    #[must_use]
    pub const fn one_in(n: u64) -> Self {
        assert!(n > 0, "there is no one in 0");
        Self { start: Start::OneIn(n), times: 1 }
    }

    /// A storm: `n` operations in a row, where there was one.
    ///
    /// # Panics
    ///
    /// If `n` is 0.
    #[must_use]
    pub const fn times(self, n: u64) -> Self {
        assert!(n > 0, "a storm has at least 1 operation");
        Self { times: n, ..self }
    }
}

/// What happens to an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Its completion comes late.
    Delay(Delay),
    /// It fails: nothing, a part or all of it was done, and its target holds garbage somewhere.
    /// After [`Status::NotAttempted`] the target is as it was. A status that is no failure
    /// ([`Status::is_done`]) changes nothing.
    Fail(Status),
    /// It never ends, until the channel is terminated. An event that was armed for it does not come.
    Lose,
    /// The engine halts at it: it ends with the status, all behind it as [`Status::Aborted`], and
    /// the channel is down until it is terminated.
    Halt(Status),
    /// The engine vanishes at its doorbell: all that is in flight ends as [`Status::DeviceLost`],
    /// and the channel is down.
    Vanish {
        /// It is back after so many successful stops; `None`: never.
        stops: Option<NonZeroU64>,
    },
    /// It is refused with [`RingFull`](crate::SubmitError::RingFull), whatever
    /// [`space`](crate::DmaChannel::space) says.
    Full,
}

impl Fault {
    /// The worse of two has the greater rank.
    pub(super) const fn rank(self) -> u8 {
        match self {
            Self::Delay(_) => 0,
            Self::Fail(_) => 1,
            Self::Lose => 2,
            Self::Halt(_) => 3,
            Self::Vanish { .. } => 4,
            Self::Full => 5,
        }
    }
}

/// How late a completion is. The channel below has ended the operation when the delay begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delay {
    /// It is not reported by the first so many polls. A client that is about to wait
    /// ([`arm`](crate::DmaChannel::arm)) ends the delay.
    Polls(u64),
    /// It is not reported before so many later operations were submitted. A client that is about to
    /// wait ends the delay, and so does one that polls 256 times.
    Operations(u64),
    /// It is not reported before so much time has passed. A plan with such a delay takes the
    /// channel's interrupt away: whoever waits polls.
    Time(Duration),
}

/// What becomes of a fenced operation behind a failed one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fences {
    /// One or the other, at random.
    #[default]
    Either,
    /// It is done all the same.
    Done,
    /// It ends as [`Status::NotAttempted`], and its target is as it was.
    NotAttempted,
}

impl fmt::Display for FaultPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        text::write(self, f)
    }
}

impl std::str::FromStr for FaultPlan {
    type Err = FaultPlanError;

    fn from_str(plan: &str) -> Result<Self, FaultPlanError> {
        text::parse(plan)
    }
}
