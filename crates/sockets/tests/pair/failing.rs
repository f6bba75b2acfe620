//! An engine that delays, fails, halts, hangs and vanishes at random.

use std::sync::Arc;

use dmaengine::{DmaDevice, FaultPlan, Faults, Layered, ThreadsDevice};

/// Some copies in a hundred meet something. What hangs takes 200 ms to be found, so that is rare.
const PLAN: &str = "delay@1/10:3,delay@1/50:5ops,fail@1/30:write-error,fail@1/150x5:read-error,\
                    halt@1/100,lose@1/3000,vanish@1/300:1,vanish@1/700:3,full@1/30,poison,partial";

pub(crate) fn device(seed: u64) -> Arc<dyn DmaDevice> {
    let plan = FaultPlan { seed, ..PLAN.parse().unwrap() };
    Arc::new(Layered::new(Arc::new(ThreadsDevice::new(1)), Faults::new(plan)))
}
