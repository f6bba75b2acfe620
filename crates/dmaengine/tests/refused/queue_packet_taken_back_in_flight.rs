//! A packet is given away by `copy`, until it comes back: nobody can make it writable meanwhile.

use dmaengine::{Arena, CpuDevice, DmaDevice, PacketPool, Queue};

fn main() {
    let arena = Arena::new(1 << 16).unwrap();
    let pool = PacketPool::new(&arena, 64, 1).unwrap();
    let mut queue = Queue::new(CpuDevice::new(1).request_channel(0).unwrap());
    let packet = pool.take().unwrap().freeze(64);
    queue.copy(packet, vec![0u8; 64], ()).unwrap();
    let _ = packet.try_into_mut();
}
