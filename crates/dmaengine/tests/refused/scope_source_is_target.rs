//! Source and target would overlap.

use std::time::Duration;

use dmaengine::{Channel, CpuDevice, DmaDevice, scope};

fn main() {
    let mut channel = Channel::from(CpuDevice::new(1).request_channel(0).unwrap());
    let mut buffer = [1u8; 64];
    let _ = scope(&mut channel, Duration::from_secs(1), |scope| {
        scope.copy(&buffer[..60], &mut buffer[4..]).unwrap();
    });
}
