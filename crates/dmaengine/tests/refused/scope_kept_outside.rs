//! As if it was returned.

use std::time::Duration;

use dmaengine::{Channel, CpuDevice, DmaDevice, scope};

fn main() {
    let mut channel = Channel::from(CpuDevice::new(1).request_channel(0).unwrap());
    let mut kept = None;
    let _ = scope(&mut channel, Duration::from_secs(1), |scope| kept = Some(scope));
}
