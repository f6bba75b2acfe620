//! Random scripts of calls, the same ones with every engine and without: the same bytes, results,
//! errors and readiness.
//!
//! Two stacks share a cable. What the sender does, when its frames are delivered, and which calls the
//! receiver makes is a function of a seed; so is everything that calls give, if the engine changes
//! nothing but who copies. Calls overlap, as those of several threads on one socket do. How long the
//! engine takes, and whether it fails, stalls or stands still, is its own affair.
//!
//! `IOAT_TEST_CASES` is how many scripts run with each engine; 100,000 otherwise.

use std::{cell::Cell, sync::Arc, time::Duration};

use dmaengine::{Arena, Channel, DmaDevice, FaultPlan, Faults, Layered, Registry};
use ioat::engine::EngineName;
use netdma::{Copybreak, Counters, CpuCause, Offload, WorkClock};

use self::{
    cable::Cable,
    random::Random,
    script::{Script, Step},
    world::World,
};

mod cable;
mod random;
mod script;
mod world;

fn cases() -> u64 {
    std::env::var("IOAT_TEST_CASES")
        .map_or(100_000, |cases| cases.parse().expect("IOAT_TEST_CASES is a number"))
}

/// One side of the comparison.
struct Side {
    name: &'static str,
    offload: Offload,
    world: World,
}

impl Side {
    fn new(name: &'static str, device: Option<Arc<dyn DmaDevice>>) -> Self {
        let arena = Arena::new(16 << 20).expect("memory");
        let channel: Option<Channel> = device.map(|device| {
            device.map(&arena).expect("the engine takes the arena");
            let registry = Registry::new();
            registry.register(device);
            registry.request("dma0chan0").expect("a channel")
        });
        let clock = WorkClock::Running(erratic);
        let offload = Offload::new(channel, Copybreak::Bytes(100)).timed_by(clock);
        Self { name, offload, world: World::new(arena) }
    }
}

/// How long things take is different each time, so that engine and CPU share in all proportions.
fn erratic() -> Duration {
    thread_local! {
        static TIME: Cell<(u64, u64)> = const { Cell::new((0, 1)) };
    }
    let (now, seed) = TIME.get();
    let mut random = Random(seed);
    let now = now + random.of(&[0, 100, 1000, 3000, 10_000, 100_000]);
    TIME.set((now, random.0));
    Duration::from_nanos(now)
}

/// Runs all scripts with an engine, and without.
fn compare(name: &'static str, device: Arc<dyn DmaDevice>) -> Counters {
    let mut without = Side::new("the CPU", None);
    let mut with = Side::new(name, Some(device));
    for seed in 0..cases() {
        let script = Script::random(&mut Random(seed));
        let [expected, seen] =
            [&mut without, &mut with].map(|side| side.world.run(&mut side.offload, &script));
        let differs = |at: &usize| expected.get(*at) != seen.get(*at);
        let Some(at) = (0..expected.len().max(seen.len())).find(differs) else { continue };
        eprintln!("seed {seed}:");
        for (step, observed) in script.steps.iter().zip(&expected).take(at + 1) {
            eprintln!("  {step:?}: {observed:?}");
        }
        panic!("{} has given {:?}", with.name, seen.get(at));
    }
    *with.offload.counters()
}

/// An engine under a layer of faults.
fn faulty(device: Arc<dyn DmaDevice>, plan: &str) -> Arc<dyn DmaDevice> {
    let plan: FaultPlan = plan.parse().expect("a plan");
    Arc::new(Layered::new(device, Faults::new(plan)))
}

fn open(name: &EngineName) -> Arc<dyn DmaDevice> {
    name.open().expect("an engine of this process")
}

#[test]
fn with_the_cpu_channel() {
    let counters = compare("cpu", open(&EngineName::Cpu));
    assert!(counters.bytes_by_engine > counters.bytes_by_cpu_total(), "{counters:?}");
    assert!(counters.early_copies > 0, "{counters:?}");
}

#[test]
fn with_copy_threads() {
    let counters = compare("threads", open(&EngineName::Threads(1)));
    // A thread that has to wait for a processor is late, and late ones share less.
    assert!(10 * counters.bytes_by_engine > counters.bytes_by_cpu_total(), "{counters:?}");
    assert!(counters.waits > 0, "{counters:?}");
    assert!(counters.bytes_by_cpu[CpuCause::Shared as usize] > 0, "{counters:?}");
}

#[test]
fn with_the_ioat_model() {
    let counters = compare("ioat-model", open(&EngineName::Model(ioat_model::Version::V3_2)));
    assert!(counters.bytes_by_engine > 0, "{counters:?}");
    assert!(counters.bytes_by_cpu[CpuCause::Unreachable as usize] > 0, "{counters:?}");
}

#[test]
fn with_an_ioat_model_that_fails() {
    let plan = "fail@1/9:write-error,halt@1/70,full@1/11,delay@1/5:3,poison,partial,seed=4";
    let model = open(&EngineName::Model(ioat_model::Version::V3_3));
    let counters = compare("failing ioat-model", faulty(model, plan));
    assert!(counters.bytes_by_engine > 0 && counters.copies_repeated > 0, "{counters:?}");
}

#[test]
fn with_an_engine_that_is_late_and_out_of_order() {
    let plan = "delay@1/3:5,delay@1/300:3ops,reorder,poison,seed=1";
    let counters = compare("late", faulty(open(&EngineName::Cpu), plan));
    // Less than without delays: `auto` and shared calls leave to the CPU what is late.
    assert!(10 * counters.bytes_by_engine > counters.bytes_by_cpu_total(), "{counters:?}");
}

#[test]
fn with_an_engine_that_fails() {
    let plan = "fail@1/7:write-error,fail@1/50x20:read-error,full@1/9,poison,partial,seed=2";
    let counters = compare("failing", faulty(open(&EngineName::Threads(1)), plan));
    assert!(counters.bytes_by_engine > 0 && counters.copies_repeated > 0, "{counters:?}");
}

#[test]
fn with_an_engine_that_halts_and_stands_still() {
    let plan = "lose@1/400,halt@1/60,vanish@1/900:2,stuck=1,poison,seed=3";
    let counters = compare("halting", faulty(open(&EngineName::Cpu), plan));
    assert!(counters.engine_resets > 0 && counters.copies_repeated > 0, "{counters:?}");
}
