use std::fmt;

use crate::RequestError;

/// Why a [`Registry`](crate::Registry) gave no channel.
#[derive(Debug, thiserror::Error)]
pub enum LookupError {
    /// No device has a channel of that name.
    #[error("there is no channel {name}: `list` gives the names")]
    UnknownName {
        /// The name asked for.
        name: String,
    },
    /// No free channel has the properties asked for, or there is no device.
    #[error("no free channel matches: register a device, ask for less, or wait for a release")]
    NoMatch,
    /// The channel's device is being removed.
    #[error("{name} is being removed: choose a channel of another device")]
    Removing {
        /// The channel's name.
        name: String,
    },
    /// Somebody has it, or the device refused.
    #[error("{name}: {source}")]
    Request {
        /// The channel's name.
        name: String,
        /// Why.
        source: RequestError,
    },
    /// This process is a forked child of the one that made the registry.
    #[error("the registry belongs to the parent process: make a new one, with devices of its own")]
    Forked,
}

/// Why [`Registry::unregister`](crate::Registry::unregister) did not remove a device.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RemovalError {
    /// There is no device of that number, or no longer.
    #[error("there is no device dma{device}: `list` gives the numbers")]
    UnknownDevice {
        /// The number asked for.
        device: usize,
    },
    /// Somebody still had a channel at the deadline. The removal stays begun: nothing new is
    /// submitted to the device, and nobody is given a channel of it.
    #[error(
        "dma{device} is still in use: {}: have them dropped, and unregister it again",
        Listed(holders)
    )]
    InUse {
        /// The device's number.
        device: usize,
        /// Who has what.
        holders: Vec<Holder>,
    },
    /// This process is a forked child of the one that made the registry.
    #[error("the registry belongs to the parent process, which alone can remove its devices")]
    Forked,
}

/// Who has a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The channel's name.
    pub channel: String,
    /// The name, or else the number, of the thread that requested it; `None` if it is shared, and
    /// an operation is running on it.
    pub thread: Option<String>,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.thread {
            Some(thread) => write!(f, "{} (requested by {thread})", self.channel),
            None => write!(f, "{} (shared, at work)", self.channel),
        }
    }
}

struct Listed<'a>(&'a [Holder]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, holder) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(f, "{separator}{holder}")?;
        }
        Ok(())
    }
}
