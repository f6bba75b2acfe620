//! The way beneath the safe ones is not safe.

use dmaengine::{CpuDevice, DmaDevice, Flags, Operation, Queue};

fn main() {
    let mut queue = Queue::new(CpuDevice::new(1).request_channel(0).unwrap());
    let mut target = [0u8; 64];
    let fill = Operation::Memset { pattern: 0, target: target.as_mut_ptr(), len: 64 };
    queue.submit(&fill, Flags::empty(), (), (), ()).unwrap();
}
