//! The future does not have the memory, but nobody else has it either.

use std::time::Duration;

use dmaengine::{Copier, CpuDevice, DmaDevice};

fn main() {
    let channel = CpuDevice::new(1).request_channel(0).unwrap();
    let copier = Copier::new(channel, Duration::from_secs(1)).unwrap();
    let target = vec![0u8; 64];
    let copying = copier.copy(vec![1u8; 64], target);
    assert_eq!(target[0], 0);
    let _ = copying.wait();
}
