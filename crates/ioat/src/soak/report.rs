//! What a soak has found.

use std::{collections::BTreeMap, sync::Arc};

use serde::Serialize;

use super::{GROWTH_LIMIT_BYTES, orders::Device, shard::Shard};
use crate::offload_counters::OffloadCounters;

/// What a soak has found.
#[derive(Clone, Debug, Serialize)]
pub struct SoakReport {
    /// How long it took, in seconds.
    pub seconds: f64,
    /// Bytes that were received wrong.
    pub wrong_bytes: u64,
    /// By engine.
    pub engines: Vec<EngineReport>,
    /// Children that found their copy of received data whole.
    pub children: u64,
    /// The process's memory.
    pub memory: MemoryReport,
    /// What went wrong first; `None`: it passed.
    pub failure: Option<String>,
}

/// What happened with one engine.
#[derive(Clone, Debug, Serialize)]
pub struct EngineReport {
    /// Its name.
    pub engine: String,
    /// What runs the copies.
    pub kind: &'static str,
    /// Channels, each with stacks of its own.
    pub shards: usize,
    /// Connections.
    pub connections: usize,
    /// Faults that were ordered, by name.
    pub faults: BTreeMap<&'static str, u64>,
    /// What each shard's offload did.
    pub offload: Vec<OffloadCounters>,
}

impl EngineReport {
    pub(super) fn new<'a>(
        device: &Arc<Device>,
        shards: impl Iterator<Item = &'a Shard> + Clone,
    ) -> Self {
        Self {
            engine: device.name.to_string(),
            kind: device.device.channels()[0].kind.as_str(),
            shards: shards.clone().count(),
            connections: shards.clone().map(Shard::connections).sum(),
            faults: device.ordered(),
            offload: shards.map(|shard| (&shard.offload()).into()).collect(),
        }
    }
}

/// Anonymous memory (heap and stacks), in bytes, while all stood still.
#[derive(Clone, Debug, Serialize)]
pub struct MemoryReport {
    /// After each round.
    pub anonymous_bytes: Vec<u64>,
    /// By how much the last is more than the one in the middle.
    pub growth_bytes: u64,
    /// By how much it may be.
    pub limit_bytes: u64,
}

impl MemoryReport {
    pub(super) fn new(anonymous_bytes: &[u64]) -> Self {
        let middle = anonymous_bytes.get(anonymous_bytes.len().saturating_sub(1) / 2);
        let ends = middle.zip(anonymous_bytes.last());
        Self {
            anonymous_bytes: anonymous_bytes.to_vec(),
            growth_bytes: ends.map_or(0, |(middle, last)| last.saturating_sub(*middle)),
            limit_bytes: GROWTH_LIMIT_BYTES,
        }
    }

    pub(super) fn check(&self) -> Result<(), String> {
        let Self { growth_bytes, limit_bytes, .. } = self;
        if growth_bytes <= limit_bytes {
            return Ok(());
        }
        Err(format!("the memory has grown by {growth_bytes} bytes, more than {limit_bytes}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_grows_in_the_first_half_warms_up() {
        const MIB: u64 = 1 << 20;
        let report =
            |mib: &[u64]| MemoryReport::new(&mib.iter().map(|mib| mib * MIB).collect::<Vec<_>>());
        assert!(report(&[]).check().is_ok());
        assert!(report(&[10, 20, 30, 30, 29]).check().is_ok());
        assert!(report(&[10, 20, 30, 33, 34]).check().is_ok());
        let grown = report(&[10, 20, 30, 33, 35]);
        assert_eq!(grown.growth_bytes, 5 * MIB);
        assert!(grown.check().unwrap_err().contains("grown by 5242880 bytes"));
    }
}
