//! No reference to the target survives its submission.

use dmaengine::{CpuDevice, DmaDevice, Queue};

fn main() {
    let mut queue = Queue::new(CpuDevice::new(1).request_channel(0).unwrap());
    let mut target = vec![0u8; 64];
    let first = &mut target[0];
    queue.copy(vec![1u8; 64], target, ()).unwrap();
    *first = 2;
}
