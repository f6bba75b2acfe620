//! Streams over a bad network, in virtual time, received with every engine: every byte arrives, in
//! order, once.
//!
//! Two stacks share an in-memory wire that loses, reorders, doubles and corrupts. One sends; the
//! other's receive copies go through the offload under test, into buffers of random length at random
//! moments. The network's time is virtual and stands still while an engine copies, unless the engine
//! hangs; so a run depends on its seed alone, and on the engine's timing only in which copies
//! overlap which packets.

use std::sync::Arc;

use dmaengine::{Arena, DmaDevice, FaultPlan, Faults as EngineFaults, Layered, Registry};
use ioat::engine::{EngineName, model};
use ioat_model::{Fault, Faults, in_process, registers::ChanErr};
use netdma::{Copybreak, Counters, CpuCause, Offload};
use netstack::Instant;

use self::{
    network::Random,
    stream::{LONGEST_READ, Outcome, run},
};

mod network;
mod stream;

/// Streams for each engine.
const SEEDS: u64 = 1000;

/// Runs all seeds with one engine, which goes on from stream to stream.
fn all_seeds(device: Option<Arc<dyn DmaDevice>>) -> Counters {
    let arena = Arena::new(24 << 20).unwrap();
    let engine = device.map(|device| {
        device.map(&arena).unwrap();
        let registry = Registry::new();
        registry.register(device);
        registry.request("dma0chan0").unwrap()
    });
    let mut offload = Offload::new(engine, Copybreak::Bytes(512));
    let mut buffer = arena.alloc(LONGEST_READ).unwrap();
    let mut outcome = Outcome::default();
    // One clock for all: the engine's rests must not end in another stream's past.
    let mut now = Instant::from_millis(1);
    for seed in 0..SEEDS {
        outcome += run(&arena, &mut offload, &mut buffer, &mut now, seed);
    }
    let Outcome { bytes, network, retransmitted_segments } = outcome;
    let hits = [network.lost, network.duplicated, network.corrupted, network.reordered];
    assert!(hits.iter().all(|hits| *hits > SEEDS), "the network was too good: {network:?}");
    assert!(retransmitted_segments > SEEDS, "{retransmitted_segments} retransmissions");
    let counters = *offload.counters();
    assert_eq!(
        counters.bytes_by_engine + counters.bytes_by_cpu_total(),
        bytes,
        "every byte was copied once, by the engine or by the CPU: {counters:?}"
    );
    counters
}

#[test]
fn without_an_engine() {
    let counters = all_seeds(None);
    assert_eq!(counters.bytes_by_engine, 0);
}

#[test]
fn with_the_cpu_channel() {
    let counters = all_seeds(Some(EngineName::Cpu.open().unwrap()));
    assert!(counters.bytes_by_engine > counters.bytes_by_cpu_total());
}

#[test]
fn with_copy_threads() {
    let counters = all_seeds(Some(EngineName::Threads(1).open().unwrap()));
    assert!(counters.bytes_by_engine > counters.bytes_by_cpu_total());
}

#[test]
fn with_the_ioat_model() {
    let counters = all_seeds(Some(EngineName::Model(ioat_model::Version::V3_2).open().unwrap()));
    assert!(counters.bytes_by_engine > counters.bytes_by_cpu_total());
}

#[test]
fn with_an_engine_that_delays_fails_halts_hangs_and_vanishes_at_random() {
    let plan: FaultPlan = "delay@1/10:3,delay@1/60:5ops,fail@1/40:write-error,\
                           fail@1/300x9:read-error,halt@1/200,lose@1/500,vanish@1/400:2,full@1/50,\
                           stuck=1,poison,partial,seed=6"
        .parse()
        .unwrap();
    for below in [EngineName::Cpu, EngineName::Threads(1)] {
        let faults = EngineFaults::new(plan.clone());
        let counters = all_seeds(Some(Arc::new(Layered::new(below.open().unwrap(), faults))));
        assert!(counters.bytes_by_engine > 0, "{counters:?}");
        assert!(counters.copies_repeated > 100, "{counters:?}");
        assert!(counters.engine_resets > 0, "nothing hung: {counters:?}");
        assert!(counters.bytes_by_cpu[CpuCause::RingFull as usize] > 0, "{counters:?}");
    }
}

#[test]
fn with_an_ioat_model_that_fails_at_random() {
    /// Descriptors between two faults, on average.
    const INTERVAL: u64 = 100;
    /// After the driver's self test, which a broken device would not pass.
    const FIRST: u64 = 64;
    let kinds = [
        Fault::Error(ChanErr::SOURCE_ADDRESS),
        Fault::Error(ChanErr::READ_DATA),
        Fault::Error(ChanErr::WRITE_DATA),
        Fault::Error(ChanErr::LENGTH),
        Fault::Halt,
        Fault::Hang,
        Fault::LostCompletion,
    ];
    let mut random = Random(0xbad);
    let mut faults = Faults::none();
    let mut position = FIRST;
    // More than there will be descriptors.
    while position < 1_000_000 {
        let kind = kinds[random.below(kinds.len() as u64) as usize];
        faults = faults.at(0, position, kind);
        position += 1 + random.below(2 * INTERVAL);
    }
    let mut config = in_process::Config::default();
    config.model.faults = faults;
    let counters = all_seeds(Some(model::open(config, ioatdma::Options::default()).unwrap()));
    // It always came back: the CPU did little.
    assert!(counters.bytes_by_engine > 4 * counters.bytes_by_cpu_total(), "{counters:?}");
    assert!(counters.copies_repeated > 100, "{counters:?}");
    assert!(counters.engine_resets > 0, "nothing hung: {counters:?}");
    assert!(counters.bytes_by_cpu[CpuCause::Failed as usize] > 0, "{counters:?}");
    assert!(counters.bytes_by_cpu[CpuCause::Resting as usize] > 0, "{counters:?}");
}
