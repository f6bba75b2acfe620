//! One large copy, shared by the engine and the CPU.
//!
//! An engine that is no faster than the CPU still halves the time of a large copy if both work on it.
//! The [`Split`] layer gives the first part of a copy to the channel below and does the second in the
//! calling thread, in [`issue_pending`](DmaChannel::issue_pending), after the doorbell. The copy has
//! ended when both parts have. How large the parts must be for both to end together is learned while
//! copying, for each class of lengths.
//!
//! ```text
//!                     border, a multiple of a page
//!        target  |----------------|---------------------|
//!                 engine           CPU
//! ```
//!
//! The border lies at a page's border in the target: no cache line is written by both.
//!
//! In a batch the shares are of everything that is still to be copied: an engine that has much to do
//! already, also of small operations, gets less of the next copy, or nothing. The CPU copies its
//! parts in the order of submission, as the engine does, so that the first copy of a batch ends
//! first.
//!
//! A fenced copy begins when all before it have ended. It is shared if they have ended when it is
//! submitted; otherwise it is the engine's. If a batch has a fence behind a shared copy, the CPU
//! does its parts of that batch before the doorbell.

use std::sync::Arc;

use self::{channel::SplitChannel, clock::Monotonic, shares::Shares};
use super::Layer;
use crate::{ChannelInfo, DmaChannel};

mod channel;
mod clock;
mod controller;
mod shares;

pub use shares::SplitShare;

/// Shorter copies are not shared, in bytes: the engine's part would hardly pay for its doorbell.
const MIN_LEN: usize = 128 << 10;

/// Where the parts meet, in the target's addresses, in bytes: a page, which no prefetcher crosses.
const BORDER: usize = 4096;

/// A [`Layer`] that shares large copies between the engine and the calling thread.
///
/// A copy that the CPU does alone, because the engine is so slow, is not seen by the engine: neither
/// its state nor the memory that it cannot reach matters then.
///
/// ```
/// use std::{sync::Arc, time::Duration};
/// use dmaengine::{DmaDevice, Layered, Queue, Split, ThreadsDevice};
///
/// let split = Split::default();
/// let device = Layered::new(Arc::new(ThreadsDevice::new(1)), split.clone());
/// let mut queue = Queue::new(device.request_channel(0)?);
/// queue.copy(vec![7; 1 << 20], vec![0; 1 << 20], ()).map_err(|refused| refused.error)?;
/// queue.wait(Duration::from_secs(5), |done| assert_eq!(done.source, done.target))?;
/// for share in split.shares() {
///     println!("{} bytes and more: {:.0} % by the engine", share.min_len, 100.0 * share.engine);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Split {
    min_len: usize,
    border: usize,
    shares: Arc<Shares>,
}

impl Split {
    /// Shares copies of at least `min_len` bytes.
    #[must_use]
    pub fn new(min_len: usize) -> Self {
        Self { min_len, border: BORDER, shares: Arc::default() }
    }

    /// With another border than a page.
    #[cfg(test)]
    pub(super) fn with_border(min_len: usize, border: usize) -> Self {
        Self { border, ..Self::new(min_len) }
    }

    /// What the channels of this layer, and of its clones, have learned so far: a line for each class
    /// of lengths of which copies were made.
    #[must_use]
    pub fn shares(&self) -> Vec<SplitShare> {
        self.shares.list()
    }
}

impl Default for Split {
    /// Shares copies of 128 KiB and more.
    fn default() -> Self {
        Self::new(MIN_LEN)
    }
}

impl Layer for Split {
    fn info(&self, below: &ChannelInfo) -> ChannelInfo {
        below.clone()
    }

    fn wrap(&self, below: Box<dyn DmaChannel>) -> Box<dyn DmaChannel> {
        let border = self.border.max(below.info().alignment.get());
        let (clock, shares) = (Box::new(Monotonic), Arc::clone(&self.shares));
        Box::new(SplitChannel::new(below, self.min_len, border, clock, shares))
    }
}

#[cfg(test)]
mod tests;
