//! All interleavings of two threads that claim, use and release, as loom makes them:
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p dmaengine --release --lib model`

#[path = "blocks.rs"]
#[expect(dead_code, reason = "the model uses a part")]
mod blocks;

/// What the bitmap is built of, here.
mod sync {
    pub(super) use loom::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
}

use loom::{cell::UnsafeCell, sync::Arc, thread};

use self::{blocks::Blocks, sync::AtomicU64};

struct Memory {
    blocks: Blocks<Box<[AtomicU64]>>,
    /// What the units stand for, two of them.
    cells: [UnsafeCell<u32>; 2],
}

// SAFETY: loom checks that nobody accesses a cell while another writes it; that is the test.
unsafe impl Sync for Memory {}
// SAFETY: as above.
unsafe impl Send for Memory {}

/// The block lies across two words of which both threads want both; what one wrote is there for the
/// other, and afterwards all is free.
#[test]
fn model_of_two_claims() {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(|| {
        let words = [u64::MAX >> 1, u64::MAX << 1].map(AtomicU64::new);
        let memory = Arc::new(Memory {
            blocks: Blocks::new(Box::new(words)),
            cells: [(); 2].map(|()| UnsafeCell::new(0)),
        });
        let claim = |memory: &Memory| {
            let Some(claim) = memory.blocks.claim(2, 1) else { return 0 };
            assert_eq!(claim.first, 63);
            for cell in &memory.cells {
                // SAFETY: loom checks that it is ours.
                cell.with_mut(|cell| unsafe { *cell += 1 });
            }
            memory.blocks.release(63, 2);
            1
        };
        let other = thread::spawn({
            let memory = Arc::clone(&memory);
            move || claim(&memory)
        });
        let claimed = claim(&memory) + other.join().expect("no panic");
        assert_eq!(memory.blocks.claim(2, 1).map(|claim| claim.first), Some(63), "all came back");
        for cell in &memory.cells {
            // SAFETY: loom checks that it is ours.
            cell.with(|cell| assert_eq!(unsafe { *cell }, claimed));
        }
    });
}
