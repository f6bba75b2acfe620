//! That memory stays where it is when its owner moves is a promise: an array's does not.

use dmaengine::DmaTarget;

struct Buffer([u8; 64]);

impl AsMut<[u8]> for Buffer {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl DmaTarget for Buffer {}

fn main() {}
