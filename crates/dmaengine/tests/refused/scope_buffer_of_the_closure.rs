//! The closure's own buffers are gone before the scope waits.

use std::time::Duration;

use dmaengine::{Channel, CpuDevice, DmaDevice, scope};

fn main() {
    let mut channel = Channel::from(CpuDevice::new(1).request_channel(0).unwrap());
    let source = [1u8; 64];
    let _ = scope(&mut channel, Duration::from_secs(1), |scope| {
        let mut target = [0u8; 64];
        scope.copy(&source, &mut target).unwrap();
    });
}
