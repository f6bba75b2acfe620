//! The CPU below an engine.

mod aside;
mod channel;
mod clock;
mod ring;
mod stats;
mod wake;
mod watch;

use std::{
    num::NonZeroUsize,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use self::channel::FallbackChannel;
pub use self::{
    clock::{Clock, DrivenClock},
    stats::FallbackStats,
};
use super::Layer;
use crate::{
    Addressing, ChannelInfo, DmaChannel, Ordering,
    software::{self, MAX_SEGMENTS, MAX_SOURCES},
};

/// The fewest operations that a ring holds.
const MIN_RING_SIZE: usize = 64;
/// The most.
const MAX_RING_SIZE: usize = 1 << 16;

/// A [`Layer`] with the CPU below the engine: what the engine cannot do, does not do, or is not
/// trusted with for the moment is done by the CPU.
///
/// # What becomes of an operation
///
/// | the engine | the operation | cause in its completion |
/// | --- | --- | --- |
/// | takes it and does it | | none |
/// | has no room | CPU | [`RingFull`](crate::FallbackCause::RingFull) |
/// | cannot do such a one: kind, length, alignment, pieces | CPU | [`Unsupported`](crate::FallbackCause::Unsupported) |
/// | cannot reach the memory | CPU | [`Unreachable`](crate::FallbackCause::Unreachable) |
/// | failed a short while ago | CPU | [`Resting`](crate::FallbackCause::Resting) |
/// | is down, halts at it, fails it, or aborts it behind one that failed | CPU, all of it again | [`Failed`](crate::FallbackCause::Failed) |
/// | does not end it within the time-out, and is reset | CPU, all of it again | [`TimedOut`](crate::FallbackCause::TimedOut) |
///
/// So a client sees success, or what a check found, and nothing else, unless it terminates the
/// channel. Every operation ends exactly once. A halt has no cause of its own: a channel that has
/// halted restarts itself in its `poll`, and from here it is an operation that failed, with others
/// that were aborted behind it.
///
/// The channel takes process addresses, whatever the engine takes, and can do all that the CPU can.
/// It has no XFERCAP: an operation is one descriptor, however long. One that would not fit the
/// engine's empty ring is the CPU's; to share such a one between both is another layer's business.
/// Its ring is larger than the engine's, so that a full engine is not yet a full channel.
///
/// # Order
///
/// The CPU does its operations in [`issue_pending`](DmaChannel::issue_pending), at once, beside those
/// that the engine has. Over an engine that ends in order they are reported in order all the same: a
/// small copy by the CPU is never seen before an earlier one by the engine
/// ([`FallbackOptions::keeps_order`]).
///
/// [Fences](crate::Flags::FENCE) are the layer's own, also where the engine has some: an operation
/// with a fence is started when everything before it has ended, in a later
/// [`poll`](DmaChannel::poll) if need be, and what follows is started after it. An engine may go on
/// behind a fence after a failure, with what the failed operation left; the CPU's repetition would
/// then come too late.
///
/// # An engine that stands still
///
/// An operation that does not end is found by its own age, however many others end meanwhile. The
/// engine is then reset, in bounded time, and what it had is done by the CPU. If it cannot be proven
/// idle, it keeps the memory of what it has, and those operations do not end; another reset is tried
/// later and later. Everything new is done by the CPU meanwhile; in order, it is reported when those
/// have ended. [`FallbackStats`] tells.
///
/// After a failure a [`Breaker`](super::Breaker) gives the engine a rest, then one operation as a
/// probe.
///
/// # Example
///
/// ```
/// use std::{sync::Arc, time::Duration};
/// use dmaengine::{Fallback, Layered, Queue, Registry, ThreadsDevice};
///
/// let fallback = Fallback::default();
/// let registry = Registry::new();
/// registry.register(Arc::new(Layered::new(Arc::new(ThreadsDevice::new(1)), fallback.clone())));
/// let mut queue = Queue::new(registry.request("dma0chan0")?);
/// queue.copy(vec![7; 100], vec![0; 100], ()).map_err(|refused| refused.error)?;
/// queue.wait(Duration::from_secs(5), |done| assert_eq!(done.target, [7; 100]))?;
/// assert_eq!(fallback.stats()[0].resets(), 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Fallback {
    options: FallbackOptions,
    channels: Arc<Mutex<Vec<Weak<FallbackStats>>>>,
}

/// How a [`Fallback`] is set up.
#[derive(Clone, Debug)]
pub struct FallbackOptions {
    /// An operation that the engine has had for so long, and longer than it can take to move the
    /// bytes before it, is overdue. It is found after twice the time at the latest, by a client that
    /// polls.
    pub timeout: Duration,
    /// How long a reset of the engine may take, which holds up the `poll` that it happens in.
    pub reset_timeout: Duration,
    /// Where the time is from.
    pub clock: Clock,
    /// Whether the channel ends in order if the engine does. Without it the CPU's operations need not
    /// wait for the engine's to be reported, least of all for one that never ends.
    pub keeps_order: bool,
}

impl Default for FallbackOptions {
    /// What Linux's `ioatdma` waits: 200 ms for a completion (`completion_timeout`), and as long for
    /// a reset (`ioat_reset_sync`).
    fn default() -> Self {
        let timeout = Duration::from_millis(200);
        Self { timeout, reset_timeout: timeout, clock: Clock::default(), keeps_order: true }
    }
}

impl Fallback {
    /// A layer set up as `options` say.
    #[must_use]
    pub fn new(options: FallbackOptions) -> Self {
        Self { options, channels: Arc::default() }
    }

    /// What its channels have done, in the order in which they were wrapped. Channels that are gone
    /// are left out.
    #[must_use]
    pub fn stats(&self) -> Vec<Arc<FallbackStats>> {
        // The vector is valid whoever panicked under the lock.
        let channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        channels.iter().filter_map(Weak::upgrade).collect()
    }
}

impl Layer for Fallback {
    fn info(&self, below: &ChannelInfo) -> ChannelInfo {
        let ring_size = below.ring_size.saturating_mul(2).clamp(MIN_RING_SIZE, MAX_RING_SIZE);
        ChannelInfo {
            capabilities: below.capabilities | software::CAPABILITIES,
            addressing: Addressing::Process,
            ordering: if self.options.keeps_order { below.ordering } else { Ordering::OutOfOrder },
            partial_completion: false,
            xfercap: NonZeroUsize::MAX,
            ring_size: ring_size.next_power_of_two(),
            max_sg: MAX_SEGMENTS,
            max_xor: MAX_SOURCES,
            max_pq: MAX_SOURCES,
            alignment: NonZeroUsize::MIN,
            ..below.clone()
        }
    }

    fn wrap(&self, below: Box<dyn DmaChannel>) -> Box<dyn DmaChannel> {
        let stats = Arc::default();
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        channels.retain(|stats| stats.strong_count() > 0);
        channels.push(Arc::downgrade(&stats));
        Box::new(FallbackChannel::new(self.info(below.info()), below, &self.options, stats))
    }
}

#[cfg(test)]
mod tests;
