use super::*;
use crate::{CpuDevice, ThreadsDevice, ThreadsOptions};

fn check(device: &dyn DmaDevice) {
    super::device(device, &Arena::new(ARENA_LEN).unwrap());
}

#[test]
fn cpu() {
    check(&CpuDevice::new(2));
}

#[test]
fn threads() {
    check(&ThreadsDevice::new(3));
}

#[test]
fn threads_that_always_sleep_behind_a_tiny_ring() {
    let spin = Duration::ZERO;
    check(&ThreadsDevice::with_options(ThreadsOptions { channels: 2, ring_size: 8, spin }));
}

#[test]
fn threads_behind_a_ring_of_one() {
    let options = ThreadsOptions { channels: 1, ring_size: 1, ..ThreadsOptions::default() };
    check(&ThreadsDevice::with_options(options));
}
