//! A queue that is leaked would outlive a borrow: only memory that is owned goes in.

use dmaengine::{CpuDevice, DmaDevice, Queue};

fn main() {
    let mut queue = Queue::new(CpuDevice::new(1).request_channel(0).unwrap());
    let source = vec![1u8; 64];
    let mut target = vec![0u8; 64];
    queue.copy(source, &mut target[..], ()).unwrap();
}
