//! Memory, and perhaps bad news, come back in the future: dropping it by mistake is reported.
#![deny(unused_must_use)]

use std::time::Duration;

use dmaengine::{Copier, CpuDevice, DmaDevice};

fn main() {
    let channel = CpuDevice::new(1).request_channel(0).unwrap();
    let copier = Copier::new(channel, Duration::from_secs(1)).unwrap();
    copier.copy(vec![1u8; 64], vec![0u8; 64]);
}
