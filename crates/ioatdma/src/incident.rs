//! What happens to a channel besides operations that end, for logs.

use std::fmt;

use crate::{ChanErr, StartError};

/// Something happened to a channel. Operations that ended because of it are reported as such.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Incident {
    /// The channel's index.
    pub channel: usize,
    /// What.
    pub kind: IncidentKind,
}

/// See [`Incident`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IncidentKind {
    /// It has halted, and is about to be reset.
    Halted(ChanErr),
    /// CHANSTS was ahead of the completion word, whose write was lost or is late.
    CompletionLost,
    /// It made no progress for as long as [`Options::watchdog`](crate::Options::watchdog) says; the
    /// doorbell was rung again.
    NoProgress,
    /// Nor after that; it is about to be reset.
    TimedOut,
    /// Its reset does not end. It takes no operations, and memory that was in flight stays so; the
    /// reset is tried again as long as the channel is polled, or, if nobody has it yet, whenever it is
    /// requested.
    Stuck,
    /// It was reset and does not start. It takes no operations; starting it is tried again as long as
    /// it is polled.
    NotStarting(StartError),
    /// It takes operations again.
    Recovered,
    /// The device has left the bus.
    Gone,
}

impl fmt::Display for Incident {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { channel, kind } = self;
        write!(f, "channel {channel} ")?;
        match kind {
            IncidentKind::Halted(errors) => write!(f, "halted: {errors}"),
            IncidentKind::CompletionLost => f.write_str("lost a completion write"),
            IncidentKind::NoProgress => f.write_str("makes no progress: doorbell rung again"),
            IncidentKind::TimedOut => f.write_str("makes no progress: reset"),
            IncidentKind::Stuck => {
                f.write_str("does not end its reset: out of service until it does")
            }
            IncidentKind::NotStarting(error) => write!(f, "does not start: {error}"),
            IncidentKind::Recovered => f.write_str("is back in service"),
            IncidentKind::Gone => f.write_str("is gone with its device"),
        }
    }
}
