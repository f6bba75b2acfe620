//! Layers: a channel over a channel, a device over a device.
//!
//! What an engine does not do by itself (fall back to the CPU, share a copy with it, fail to order)
//! is done once, over any engine, by a channel that passes operations on to the channel below. A
//! client cannot tell it from an engine, and every engine's tests are its tests.

mod breaker;
mod fallback;

use std::{sync::Arc, time::Duration};

pub use breaker::Breaker;
pub use fallback::{Clock, DrivenClock, Fallback, FallbackOptions, FallbackStats};

use crate::{Arena, ChannelInfo, DmaChannel, DmaDevice, MapError, RequestError};

#[cfg(test)]
mod errors;
mod faults;
#[cfg(test)]
mod million;
mod passed;
mod split;

pub use faults::{Delay, Fault, FaultOrders, FaultPlan, FaultPlanError, Faults, Fences, When};
pub use split::{Split, SplitShare};

/// Something that is put over the channels of a device.
pub trait Layer: Send + Sync + std::fmt::Debug {
    /// What a channel with the properties `below` becomes.
    fn info(&self, below: &ChannelInfo) -> ChannelInfo;

    /// Puts the layer over `below`. The result's properties are those that [`info`](Self::info)
    /// tells.
    fn wrap(&self, below: Box<dyn DmaChannel>) -> Box<dyn DmaChannel>;
}

/// A device with a [`Layer`] over each of its channels.
#[derive(Debug)]
pub struct Layered<L> {
    device: Arc<dyn DmaDevice>,
    layer: L,
    channels: Vec<ChannelInfo>,
}

impl<L: Layer> Layered<L> {
    /// Puts `layer` over all channels of `device`.
    #[must_use]
    pub fn new(device: Arc<dyn DmaDevice>, layer: L) -> Self {
        let channels = device.channels().iter().map(|info| layer.info(info)).collect();
        Self { device, layer, channels }
    }
}

impl<L: Layer> DmaDevice for Layered<L> {
    fn channels(&self) -> &[ChannelInfo] {
        &self.channels
    }

    fn map(&self, arena: &Arena) -> Result<(), MapError> {
        self.device.map(arena)
    }

    fn request_channel(&self, index: usize) -> Result<Box<dyn DmaChannel>, RequestError> {
        Ok(self.layer.wrap(self.device.request_channel(index)?))
    }

    fn cpu_time(&self) -> Option<Duration> {
        self.device.cpu_time()
    }
}
