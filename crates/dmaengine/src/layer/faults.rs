//! An engine that fails to order.
//!
//! A [`FaultPlan`] says what goes wrong at which operation; the layer lets the channel below do the
//! real work and puts the faults between its end and the report to the client. So every promise of
//! [`DmaChannel`] holds whatever the plan says: an operation is reported at most once, after its
//! report nothing touches its memory, and a stop that succeeds leaves nothing behind. What the
//! promises leave open is used in full: after a failure the target holds garbage, a fenced operation
//! behind it is done or not, completions are late, out of order or lost, stops are refused.
//!
//! The faults of a plan are a function of it, its seed and the number of the operation, over any
//! engine. Others can be ordered at any time ([`FaultOrders`]).
//!
//! ```
//! use std::sync::Arc;
//! use dmaengine::{CpuDevice, DmaDevice, FaultPlan, Faults, Layered, Queue, Status};
//! use std::time::Duration;
//!
//! let plan: FaultPlan = "fail@2:write-error,poison".parse()?;
//! let device = Layered::new(Arc::new(CpuDevice::new(1)), Faults::new(plan));
//! let mut queue = Queue::new(device.request_channel(0)?);
//! for _ in 0..3 {
//!     queue.copy(vec![1u8; 100], vec![0u8; 100], ()).map_err(|refused| refused.error)?;
//! }
//! let mut ends = Vec::new();
//! queue.wait(Duration::from_secs(1), |done| ends.push(done.status))?;
//! assert_eq!(ends, [Status::Success, Status::WriteError, Status::Success]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use self::{channel::FaultsChannel, fate::Fates};
use super::Layer;
use crate::{
    Capabilities, ChannelInfo, DmaChannel, Ordering,
    random::SplitMix64,
    software::{MAX_SEGMENTS, MAX_SOURCES},
};

mod channel;
mod fate;
mod garbage;
mod orders;
mod plan;

pub use orders::FaultOrders;
pub use plan::{Delay, Fault, FaultPlan, FaultPlanError, Fences, When};

/// A [`Layer`] that injects the faults of a [`FaultPlan`].
///
/// Each channel that is handed out counts its operations from 1 and has random numbers of its own:
/// the first those of the plan's seed, the next those of the seed plus one, and so on.
#[derive(Debug)]
pub struct Faults {
    plan: FaultPlan,
    orders: Option<FaultOrders>,
    scribbles: Option<When>,
    /// Channels handed out.
    channels: AtomicU64,
}

impl Faults {
    /// The faults that `plan` orders.
    #[must_use]
    pub const fn new(plan: FaultPlan) -> Self {
        Self { plan, orders: None, scribbles: None, channels: AtomicU64::new(0) }
    }

    /// These faults, and those of `orders`. Who waits for an operation whose delay in time was
    /// ordered polls.
    #[must_use]
    pub fn with_orders(mut self, orders: &FaultOrders) -> Self {
        self.orders = Some(orders.clone());
        self
    }

    /// As [`new`](Self::new), and a defect on top: the targets of the operations that `scribbles`
    /// names are written to *after* their ends were reported, some bytes at the next call of `poll`
    /// or `terminate_sync` or when the channel is dropped. It proves that a test would notice an
    /// engine that does so.
    ///
    /// # Safety
    ///
    /// The channels break the contract of [`DmaChannel`]. From the submission of an operation until
    /// its channel was dropped, its targets must stay valid for reads and writes, and there must be
    /// no reference to them, nor another thread that uses them, whenever a method of the channel is
    /// called or it is dropped.
    #[must_use]
    pub const unsafe fn with_scribbles(plan: FaultPlan, scribbles: When) -> Self {
        Self { plan, orders: None, scribbles: Some(scribbles), channels: AtomicU64::new(0) }
    }
}

impl Layer for Faults {
    fn info(&self, below: &ChannelInfo) -> ChannelInfo {
        let is_timed = |(_, fault): &(When, Fault)| matches!(fault, Fault::Delay(Delay::Time(_)));
        let mut info = ChannelInfo {
            partial_completion: below.partial_completion || self.plan.partial,
            // Operations are kept.
            max_sg: below.max_sg.min(MAX_SEGMENTS),
            max_xor: below.max_xor.min(MAX_SOURCES),
            max_pq: below.max_pq.min(MAX_SOURCES),
            ..below.clone()
        };
        if self.plan.reorder {
            info.ordering = Ordering::OutOfOrder;
        }
        if self.plan.rules.iter().any(is_timed) {
            info.capabilities.remove(Capabilities::INTERRUPT);
        }
        info
    }

    fn wrap(&self, below: Box<dyn DmaChannel>) -> Box<dyn DmaChannel> {
        // Relaxed: a number of its own for each, nothing else.
        let number = self.channels.fetch_add(1, Relaxed);
        let mut random = SplitMix64::new(self.plan.seed.wrapping_add(number));
        let fates = Fates::new(&self.plan.rules, self.orders.clone(), self.scribbles, &mut random);
        let info = self.info(below.info());
        Box::new(FaultsChannel::new(below, info, &self.plan, fates, random))
    }
}

#[cfg(test)]
mod tests;
