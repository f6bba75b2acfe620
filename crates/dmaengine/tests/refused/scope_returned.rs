//! With the scope outside of the closure, operations would be started that nobody waits for.

use std::time::Duration;

use dmaengine::{Channel, CpuDevice, DmaDevice, scope};

fn main() {
    let mut channel = Channel::from(CpuDevice::new(1).request_channel(0).unwrap());
    let _ = scope(&mut channel, Duration::from_secs(1), |scope| scope);
}
