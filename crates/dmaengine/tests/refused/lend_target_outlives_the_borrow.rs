//! While it is lent, the buffer is nobody else's.

use dmaengine::lend;

fn main() {
    let mut buffer = vec![0u8; 64];
    lend(&mut buffer, |mut target| {
        target.as_mut().fill(1);
        buffer[0] = 2;
    });
}
