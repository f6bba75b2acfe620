//! What the receive copy offload has done, as outputs print it.

use std::collections::BTreeMap;

use netdma::{Counters, CpuCause};
use serde::Serialize;

/// [`Counters`], with a name for each figure.
#[derive(Clone, Debug, Serialize)]
pub struct OffloadCounters {
    /// Bytes that the engine copied.
    pub bytes_by_engine: u64,
    /// Bytes that the CPU copied.
    pub bytes_by_cpu: u64,
    /// The latter by their causes, all of them.
    pub bytes_by_cpu_by_cause: BTreeMap<&'static str, u64>,
    /// Copies that the engine did.
    pub copies_by_engine: u64,
    /// Copies for calls that waited for what was copied.
    pub early_copies: u64,
    /// Calls that had all they wanted, but for copies that were under way.
    pub waits: u64,
    /// How long these took, all together, in seconds.
    pub wait_s: f64,
    /// Copies that the engine failed, lost or was down for, done again by the CPU.
    pub copies_repeated: u64,
    /// Times that the engine was reset.
    pub engine_resets: u64,
}

impl From<&Counters> for OffloadCounters {
    fn from(counters: &Counters) -> Self {
        let by_cause =
            CpuCause::ALL.map(|cause| (cause.as_str(), counters.bytes_by_cpu[cause as usize]));
        Self {
            bytes_by_engine: counters.bytes_by_engine,
            bytes_by_cpu: counters.bytes_by_cpu_total(),
            bytes_by_cpu_by_cause: by_cause.into(),
            copies_by_engine: counters.copies_by_engine,
            early_copies: counters.early_copies,
            waits: counters.waits,
            wait_s: counters.wait_time.as_secs_f64(),
            copies_repeated: counters.copies_repeated,
            engine_resets: counters.engine_resets,
        }
    }
}
