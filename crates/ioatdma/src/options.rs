//! How a device is driven, where there is a choice.

use std::{fmt, sync::Arc, time::Duration};

use crate::{Incident, IncidentKind};

/// When the device writes the completion word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Completions {
    /// At the end of every operation: an 8-byte write each, and whoever waits for the first of a
    /// batch learns of it while the others run (DPDK's way). The write costs the device model 10 to
    /// 20 ns an operation; a receiver that gives memory back with each copy gains more than that.
    #[default]
    PerOperation,
    /// At the end of what one [`issue_pending`](dmaengine::DmaChannel::issue_pending) issued: all of a
    /// batch end together (SPDK's way).
    PerBatch,
}

/// What becomes of the operations behind one that failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Behind {
    /// They end as [`Aborted`](dmaengine::Status::Aborted), also those that were not issued: whoever
    /// submitted them decides.
    #[default]
    Abort,
    /// The channel goes on with them after its reset. The device may have begun one of them; doing it
    /// from the start does the same, as nobody has touched its memory.
    Retry,
}

/// Settings.
#[derive(Clone)]
pub struct Options {
    /// log2 of the descriptors in a channel's ring; brought into 2 to 15. Three of them are not for
    /// operations.
    pub ring_order: u8,
    /// When the device writes the completion word.
    pub completions: Completions,
    /// What becomes of the operations behind one that failed. A check that finds a mismatch has not
    /// failed: the channel goes on behind it in any case.
    pub behind: Behind,
    /// How long a channel with work may make no progress. Then its doorbell is rung again; after as
    /// long once more it is reset, and the operation that it stands at ends as
    /// [`TimedOut`](dmaengine::Status::TimedOut). One descriptor moves at most
    /// [`xfercap`](dmaengine::ChannelInfo::xfercap) bytes, and takes less than a millisecond on
    /// hardware (Linux waits 200 ms); a device model shares the processor with everything else.
    pub watchdog: Duration,
    /// How long the device holds back an interrupt, so that several become one; 16383 us at most
    /// ([`IoatDevice::set_interrupt_delay`](crate::IoatDevice::set_interrupt_delay)).
    pub interrupt_delay: Duration,
    /// Called when something happens to a channel, in the thread that uses it or probes the device: for
    /// logs.
    pub on_incident: Option<Arc<OnIncident>>,
}

/// See [`Options::on_incident`].
pub type OnIncident = dyn Fn(&Incident) + Send + Sync;

impl Options {
    pub(crate) fn tell(&self, channel: usize, kind: IncidentKind) {
        if let Some(on_incident) = &self.on_incident {
            on_incident(&Incident { channel, kind });
        }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            ring_order: 10,
            completions: Completions::default(),
            behind: Behind::default(),
            watchdog: Duration::from_secs(1),
            interrupt_delay: Duration::ZERO,
            on_incident: None,
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ring_order, completions, behind, watchdog, interrupt_delay, on_incident } = self;
        f.debug_struct("Options")
            .field("ring_order", ring_order)
            .field("completions", completions)
            .field("behind", behind)
            .field("watchdog", watchdog)
            .field("interrupt_delay", interrupt_delay)
            .field("on_incident", &on_incident.is_some())
            .finish()
    }
}
