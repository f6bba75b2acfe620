//! What the receive copy offload has done, as outputs print it: `ioat recv --json`, `ioat soak`.

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

impl OffloadCounters {
    /// The causes for which the CPU copied, with their bytes, as a text; empty if there is none.
    #[must_use]
    pub fn causes(&self) -> String {
        let causes = self.bytes_by_cpu_by_cause.iter().filter(|(_, bytes)| **bytes > 0);
        let causes: Vec<_> = causes.map(|(cause, bytes)| format!("{cause}: {bytes}")).collect();
        causes.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cause_is_there_and_those_that_count_are_named() {
        let mut counters = Counters::default();
        counters.bytes_by_cpu[CpuCause::Peek as usize] = 5;
        counters.bytes_by_cpu[CpuCause::RingFull as usize] = 7;
        let counters = OffloadCounters::from(&counters);
        assert_eq!(counters.bytes_by_cpu, 12);
        assert_eq!(counters.bytes_by_cpu_by_cause.len(), CpuCause::ALL.len());
        assert_eq!(counters.causes(), "peek: 5, ring full: 7");
    }
}
