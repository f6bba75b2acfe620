//! A buffer is given away by `copy`, until it comes back.

use dmaengine::{CpuDevice, DmaDevice, Queue};

fn main() {
    let mut queue = Queue::new(CpuDevice::new(1).request_channel(0).unwrap());
    let mut source = vec![1u8; 64];
    queue.copy(source, vec![0u8; 64], ()).unwrap();
    source.fill(2);
}
