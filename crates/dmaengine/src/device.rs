use std::{error::Error, fmt::Debug, io, time::Duration};

use crate::{Arena, ChannelInfo, DmaChannel};

/// Something with channels: a piece of hardware, a model of one, or copy threads.
///
/// A channel keeps what it needs of its device alive; the two can be dropped in any order.
pub trait DmaDevice: Send + Sync + Debug {
    /// Its channels, by index.
    fn channels(&self) -> &[ChannelInfo];

    /// Makes all of `arena` reachable for every channel, for as long as the device or one of its
    /// channels exists: there is no unmapping, so none can happen under a running operation. An
    /// engine of IOVAs keeps a handle to the arena. For an engine of process addresses there is
    /// nothing to do. Mapping an arena again does nothing.
    ///
    /// # Errors
    ///
    /// See [`MapError`]; the arena is then not reachable.
    fn map(&self, arena: &Arena) -> Result<(), MapError>;

    /// Hands out a channel, reset and ready, until it is dropped.
    ///
    /// # Errors
    ///
    /// See [`RequestError`].
    fn request_channel(&self, index: usize) -> Result<Box<dyn DmaChannel>, RequestError>;

    /// The processor time that the engine's own threads have used so far; `None` if it has none.
    fn cpu_time(&self) -> Option<Duration> {
        None
    }
}

/// Why an arena was not mapped for a device.
#[derive(Debug, thiserror::Error)]
pub enum MapError {
    /// The device has as many arenas as it can.
    #[error("the device has {max} arenas already: use fewer, larger arenas")]
    TooMany {
        /// How many a device can have.
        max: usize,
    },
    /// The IOVAs are in use for another arena, or the range wraps.
    #[error("the IOVAs from {iova:#x} on are not free: choose another range")]
    IovaTaken {
        /// The first IOVA of the range.
        iova: u64,
    },
    /// The engine pins memory that forked children have a copy of, and the kernel is one that may give
    /// the pinned pages to the child ([`Heap`](crate::Heap#forked-children)).
    #[error(
        "Linux {release} may take pinned memory away from a process that forks: use Linux 5.10 or \
         newer, or memory that children do not inherit"
    )]
    Inherited {
        /// The version of the kernel.
        release: String,
    },
    /// The operating system refused.
    #[error(
        "the system did not map the memory for the device ({0}): raise the limit on locked memory \
         (ulimit -l) or make the arena smaller"
    )]
    System(#[from] io::Error),
}

/// Why a channel was not handed out.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The device has no such channel.
    #[error("there is no channel {index}; the device has {channels}")]
    NoSuchChannel {
        /// The index asked for.
        index: usize,
        /// How many channels there are.
        channels: usize,
    },
    /// Another client has it.
    #[error("the channel is in use: choose another, or wait until its user drops it")]
    InUse,
    /// The channel could not be brought up.
    #[error("the channel does not start: {0}")]
    Failed(#[source] Box<dyn Error + Send + Sync>),
}
