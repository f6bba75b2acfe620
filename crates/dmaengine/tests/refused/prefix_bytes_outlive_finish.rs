//! Whoever has the whole target back may write it: nobody reads it any more.

use std::{num::NonZeroUsize, time::Duration};

use dmaengine::{Channel, CpuDevice, DmaDevice, scope};

fn main() {
    let mut channel = Channel::from(CpuDevice::new(1).request_channel(0).unwrap());
    let source = [1u8; 64];
    let mut target = [0u8; 64];
    let timeout = Duration::from_secs(1);
    let _ = scope(&mut channel, timeout, |scope| {
        let mut prefix =
            scope.copy_segmented(&source, &mut target, NonZeroUsize::MIN).unwrap();
        let ready = prefix.ready();
        let target = prefix.finish(timeout).unwrap();
        target[0] = ready[0];
    });
}
