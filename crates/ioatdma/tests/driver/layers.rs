//! What every engine must do, of channels with a layer between them and their clients.

use dmaengine::{
    Arena, DmaChannel, DmaDevice, Fallback, FallbackOptions, FaultPlan, Faults, Layer, Split,
    conformance,
};
use ioat_model::{Config, Version, registers::DmaCapability};
use ioatdma::{Completions, Options};

use crate::machine::{Host, Threaded};

/// A device that copies in short pieces and does nothing else, and one that can do all.
fn configurations() -> [(Config, Options); 2] {
    let chain = Config { version: Version::V1_2, xfercap: 12, ..Config::default() };
    let capability = Some(DmaCapability::all() - DmaCapability::DWBES);
    let all = Config { version: Version::V3_4, capability, ..Config::default() };
    let small = Options { ring_order: 6, ..Options::default() };
    let per_batch = Options { completions: Completions::PerBatch, ..Options::default() };
    [(chain, small), (all, per_batch)]
}

/// Runs the suite on channels that `over` was put over.
fn check(over: impl Fn(Box<dyn DmaChannel>) -> Box<dyn DmaChannel>) {
    for (config, options) in configurations() {
        println!("{}", config.version);
        let device = Host::<Threaded>::new(config).probe(options).expect("a good device");
        let arena = Arena::new(conformance::ARENA_LEN).expect("memory");
        device.map(&arena).expect("room");
        conformance::all(|| over(device.request_channel(0).expect("free")), &arena);
    }
}

/// Shares copies of some pages, as the suite has few that are larger.
fn split() -> Split {
    Split::new(3 << 12)
}

#[test]
fn the_cpu_below_the_device() {
    for keeps_order in [true, false] {
        let layer = Fallback::new(FallbackOptions { keeps_order, ..FallbackOptions::default() });
        check(|channel| layer.wrap(channel));
    }
}

#[test]
fn the_cpu_beside_the_device() {
    let layer = split();
    check(|channel| layer.wrap(channel));
    assert!(layer.shares().iter().any(|share| share.measured > 0), "nothing was shared");
}

#[test]
fn no_faults_in_the_device() {
    let layer = Faults::new(FaultPlan::default());
    check(|channel| layer.wrap(channel));
}

#[test]
fn the_cpu_beside_and_below_the_device() {
    let (above, below) = (split(), Fallback::default());
    check(|channel| above.wrap(below.wrap(channel)));
    assert!(above.shares().iter().any(|share| share.measured > 0), "nothing was shared");
}
