//! All interleavings of threads that take slots of a pool and put them back, as loom makes them:
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p dmaengine --release --lib model`

#[path = "free_list.rs"]
mod free_list;

/// What the list is built of, here.
mod sync {
    pub(super) use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering};
}

use std::ptr::NonNull;

use loom::{cell::UnsafeCell, sync::Arc, thread};

use self::free_list::{FreeList, Last};

struct Pool {
    free: FreeList,
    /// The slots' memory.
    slots: Vec<UnsafeCell<u32>>,
    /// The memory of the list itself: read by who uses it, written by who would free it.
    list: UnsafeCell<bool>,
}

// SAFETY: loom checks that nobody accesses a cell while another writes it; that is the test.
unsafe impl Sync for Pool {}
// SAFETY: as above.
unsafe impl Send for Pool {}

impl Pool {
    fn new(slots: u32) -> Arc<Self> {
        Arc::new(Self {
            free: FreeList::new(slots),
            slots: (0..slots).map(|_| UnsafeCell::new(0)).collect(),
            list: UnsafeCell::new(false),
        })
    }

    /// Takes a slot, and writes it.
    fn take(&self) -> Option<u32> {
        let slot = self.free.pop()?;
        // SAFETY: loom checks that it is ours.
        self.slots[slot as usize].with_mut(|slot| unsafe { *slot += 1 });
        Some(slot)
    }

    /// Uses a slot that was taken for the last time, and puts it back.
    fn put(&self, slot: u32) {
        // SAFETY: loom checks that it is ours.
        self.slots[slot as usize].with_mut(|slot| unsafe { *slot += 1 });
        self.touch();
        // SAFETY: `self` outlives the call.
        let last = unsafe { FreeList::push(NonNull::from(&self.free), slot) };
        self.free_if(last);
    }

    fn close(&self) {
        self.touch();
        // SAFETY: `self` outlives the call.
        let last = unsafe { FreeList::close(NonNull::from(&self.free)) };
        self.free_if(last);
    }

    /// A use of the list, before the change that may be the last.
    fn touch(&self) {
        // SAFETY: loom checks that nobody frees it meanwhile.
        assert!(!self.list.with(|is_freed| unsafe { *is_freed }), "used after it was freed");
    }

    fn free_if(&self, last: Last) {
        if last == Last::No {
            return;
        }
        // SAFETY: loom checks that nobody uses it any more.
        let was_freed = self.list.with_mut(|is_freed| unsafe { is_freed.replace(true) });
        assert!(!was_freed, "freed twice");
        for slot in &self.slots {
            // SAFETY: loom checks that nobody has it.
            slot.with_mut(|slot| unsafe { *slot = 0 });
        }
    }

    /// What was written to all slots.
    fn uses(&self) -> u32 {
        // SAFETY: loom checks that nobody writes it meanwhile.
        self.slots.iter().map(|slot| slot.with(|slot| unsafe { *slot })).sum()
    }

    fn is_freed(&self) -> bool {
        // SAFETY: as above.
        self.list.with(|is_freed| unsafe { *is_freed })
    }
}

fn check(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(model);
}

/// Each slot has one owner at a time, who sees what the one before it wrote.
#[test]
fn model_of_two_takers() {
    check(|| {
        let pool = Pool::new(2);
        let taker = |pool: &Pool| {
            for _ in 0..2 {
                let slot = pool.take().expect("the other has one at most");
                pool.put(slot);
            }
        };
        let other = thread::spawn({
            let pool = Arc::clone(&pool);
            move || taker(&pool)
        });
        taker(&pool);
        other.join().expect("no panic");
        assert_eq!((pool.uses(), pool.free.len()), (8, 2));
    });
}

/// While one thread is at taking the top slot, another takes it, takes the one below and puts the
/// top back: the same slot is on top of another list.
#[test]
fn model_of_a_top_that_comes_back() {
    check(|| {
        let pool = Pool::new(2);
        let other = thread::spawn({
            let pool = Arc::clone(&pool);
            move || pool.take()
        });
        let slots = (pool.take(), pool.take());
        if let Some(top) = slots.0 {
            pool.put(top);
        }
        let third = pool.take();
        let taken = other.join().expect("no panic");
        let mut held: Vec<u32> = [slots.1, third, taken].into_iter().flatten().collect();
        held.sort_unstable();
        assert_eq!(held, [0, 1], "both, and neither twice");
        assert_eq!(pool.free.len(), 0);
    });
}

/// Whoever comes last, of two that put back the slots and one that closes, frees the memory, and
/// only that one.
#[test]
fn model_of_the_last_one() {
    check(|| {
        let pool = Pool::new(2);
        let slots = [pool.take(), pool.take()].map(|slot| slot.expect("both are free"));
        let others = slots.map(|slot| {
            let pool = Arc::clone(&pool);
            thread::spawn(move || pool.put(slot))
        });
        pool.close();
        for other in others {
            other.join().expect("no panic");
        }
        assert!(pool.is_freed());
    });
}
