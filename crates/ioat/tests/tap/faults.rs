//! An engine that fails while a stream runs.

use std::{io::Read, thread};

use ioat::{
    engine::{EngineName, model},
    host::Host,
    lab::Pattern,
};
use ioat_model::{Fault, in_process, registers::ChanErr};
use netdma::CpuCause;

use crate::{buffer, configured, connected, host_config, send};

const BYTES: u64 = 200_000_003;

/// Each kind of fault, the later ones soon after another. A stream of 200 MB takes some thousand
/// descriptors, and more where the kernel sends short frames.
const FAULTS: [(u64, Fault); 12] = [
    (100, Fault::Error(ChanErr::SOURCE_ADDRESS)),
    (200, Fault::Halt),
    (300, Fault::Hang),
    (400, Fault::LostCompletion),
    (500, Fault::Error(ChanErr::WRITE_DATA)),
    (501, Fault::Halt),
    (502, Fault::Error(ChanErr::LENGTH)),
    (600, Fault::Hang),
    (601, Fault::Hang),
    (700, Fault::LostCompletion),
    (701, Fault::LostCompletion),
    (800, Fault::Halt),
];

pub(crate) fn an_engine_that_fails_under_a_stream_comes_back() {
    let pattern = Pattern::new(9);
    let mut config = in_process::Config::default();
    for (descriptor, fault) in FAULTS {
        config.model.faults = config.model.faults.at(0, descriptor, fault);
    }
    let device = model::open(config, ioatdma::Options::default()).unwrap();
    let host =
        Host::with_device(&host_config(EngineName::Model(ioat_model::Version::V3_2)), device)
            .unwrap();
    let host = configured(host);
    let (mut ours, mut kernels) = connected(&host);
    let sending = thread::spawn(move || send(&mut kernels, pattern, BYTES).unwrap());

    let mut buffer = buffer(&host);
    let mut received = 0;
    let mut repeated = 0;
    let mut engine_at_last_fault = 0;
    loop {
        let len = ours.read(&mut buffer).unwrap();
        if len == 0 {
            break;
        }
        assert_eq!(pattern.first_wrong(received, &buffer[..len]), None, "after {received}");
        received += len as u64;
        let counters = host.stack().statistics().offload;
        if counters.copies_repeated != repeated {
            repeated = counters.copies_repeated;
            engine_at_last_fault = counters.bytes_by_engine;
        }
    }
    sending.join().unwrap();
    assert_eq!(received, BYTES);
    let counters = host.stack().statistics().offload;
    // Some faults meet empty descriptors, which nobody has to repeat.
    assert!(counters.copies_repeated >= 4, "{counters:?}");
    assert!(counters.engine_resets > 0, "{counters:?}");
    assert!(counters.bytes_by_cpu[CpuCause::Failed as usize] > 0, "{counters:?}");
    assert!(
        counters.bytes_by_engine > engine_at_last_fault + BYTES / 100,
        "the engine went on after the last fault: {engine_at_last_fault}, {counters:?}"
    );
    assert_eq!(counters.bytes_by_engine + counters.bytes_by_cpu_total(), BYTES);
}
