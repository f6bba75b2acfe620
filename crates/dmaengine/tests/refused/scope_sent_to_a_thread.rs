//! A thread that outlives the closure would start operations that nobody waits for; one that does not
//! would use the channel together with this one.

use std::time::Duration;

use dmaengine::{Channel, CpuDevice, DmaDevice, scope};

fn main() {
    let mut channel = Channel::from(CpuDevice::new(1).request_channel(0).unwrap());
    let source = [1u8; 64];
    let mut target = [0u8; 64];
    let _ = scope(&mut channel, Duration::from_secs(1), |scope| {
        std::thread::scope(|threads| {
            threads.spawn(|| scope.copy(&source, &mut target).unwrap());
        });
    });
}
