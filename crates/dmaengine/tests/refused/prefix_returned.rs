//! A prefix is looked at within its scope.

use std::{num::NonZeroUsize, time::Duration};

use dmaengine::{Channel, CpuDevice, DmaDevice, scope};

fn main() {
    let mut channel = Channel::from(CpuDevice::new(1).request_channel(0).unwrap());
    let source = [1u8; 64];
    let mut target = [0u8; 64];
    let _ = scope(&mut channel, Duration::from_secs(1), |scope| {
        scope.copy_segmented(&source, &mut target, NonZeroUsize::MIN).unwrap()
    });
}
