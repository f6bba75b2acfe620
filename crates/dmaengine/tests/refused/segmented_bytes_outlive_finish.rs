//! The prefix is part of the target that goes back.

use std::{num::NonZeroUsize, time::Duration};

use dmaengine::{Channel, CpuDevice, DmaDevice, SegmentedCopy};

fn main() {
    let channel = Channel::from(CpuDevice::new(1).request_channel(0).unwrap());
    let (source, target) = (vec![1u8; 64], vec![0u8; 64]);
    let mut copy = SegmentedCopy::start(channel, source, target, NonZeroUsize::MIN).unwrap();
    let ready = copy.ready();
    let _ = copy.finish(Duration::from_secs(1));
    assert_eq!(ready, []);
}
