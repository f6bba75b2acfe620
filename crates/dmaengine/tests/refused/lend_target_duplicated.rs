//! Two pieces of the same bytes would be two targets.

use dmaengine::lend;

fn main() {
    let mut buffer = vec![0u8; 64];
    lend(&mut buffer, |target| {
        let twice = target.clone();
        drop((target, twice));
    });
}
