//! What copies: engines that do, and one that fails.

use std::sync::Arc;

use dmaengine::{DmaDevice, FaultPlan, Faults, Layered};
use ioat::engine::EngineName;
use netdma::Counters;

/// Some copies in a hundred meet something.
const FAULTS: &str = "delay@1/20:3,delay@1/100:5ops,fail@1/40:write-error,fail@1/300x5:read-error,\
                      halt@1/200,lose@1/2000,vanish@1/400:2,full@1/40,poison,partial,seed=7";

#[derive(Clone, Copy)]
pub(crate) struct Engine {
    name: fn() -> EngineName,
    fails: bool,
}

pub(crate) const CPU: Engine = Engine { name: || EngineName::Cpu, fails: false };
const THREADS: Engine = Engine { name: || EngineName::Threads(1), fails: false };
pub(crate) const MODEL: Engine =
    Engine { name: || EngineName::Model(ioat_model::Version::V3_2), fails: false };
/// Delays, fails, halts, hangs and vanishes at random.
const FAILING: Engine = Engine { fails: true, ..THREADS };

pub(crate) const ENGINES: [Engine; 4] = [CPU, THREADS, MODEL, FAILING];

impl Engine {
    pub(crate) fn name(self) -> EngineName {
        (self.name)()
    }

    pub(crate) fn open(self) -> Arc<dyn DmaDevice> {
        let device = self.name().open().unwrap();
        if !self.fails {
            return device;
        }
        let plan: FaultPlan = FAULTS.parse().unwrap();
        Arc::new(Layered::new(device, Faults::new(plan)))
    }

    /// To be asked after a long stream: an engine that is to fail has failed.
    pub(crate) fn check_faults(self, counters: &Counters) {
        assert!(!self.fails || counters.copies_repeated > 0, "nothing has failed: {counters:?}");
    }
}
