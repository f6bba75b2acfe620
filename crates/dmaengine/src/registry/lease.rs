use std::sync::Arc;

use super::{name::ChannelName, state::Inner};
use crate::FallbackStats;

/// The hold that somebody has on a channel of a registered device. It is given up when it is dropped.
#[derive(Debug)]
pub(super) struct Lease {
    registry: Arc<Inner>,
    name: ChannelName,
}

impl Lease {
    /// For the channel `name`, which is marked as used.
    pub(super) const fn new(registry: Arc<Inner>, name: ChannelName) -> Self {
        Self { registry, name }
    }

    /// The channel's layer has these.
    pub(super) fn tell_fallback_stats(&self, stats: &Arc<FallbackStats>) {
        let mut state = self.registry.lock();
        if let Some(entry) = state.as_mut().and_then(|state| state.entry(self.name)) {
            entry.fallback = Some(Arc::clone(stats));
        }
    }

    pub(super) const fn name(&self) -> ChannelName {
        self.name
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // A forked child's drop tells nobody: it has nothing to give up.
        self.registry.release(self.name);
    }
}
