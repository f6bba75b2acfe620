use std::ptr::NonNull;

use super::sync::{AtomicU32, AtomicU64, Ordering};

/// Whether a call left the list closed and full: nobody else will ever use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "the last one frees the memory"]
pub(super) enum Last {
    Yes,
    No,
}

impl Last {
    const fn is(last: bool) -> Self {
        if last { Self::Yes } else { Self::No }
    }
}

/// A lock-free stack of the free slots of a pool, last in, first out (Treiber's stack on indices).
///
/// All of its state changes by one compare-and-swap of `head`: the top slot, a tag that every change
/// increments, and whether the pool was closed. So a swap succeeds only if nothing was pushed or
/// popped since `head` was read (ABA would need exactly 2^31 changes in between), and what was read
/// of the top slot before the swap was true at the swap. That is also how exactly one call sees the
/// list closed and full.
#[derive(Debug)]
pub(super) struct FreeList {
    head: CacheLine<AtomicU64>,
    slots: Box<[Link]>,
}

/// Keeps the one word that all threads write away from what they only read.
#[derive(Debug)]
#[repr(align(64))]
struct CacheLine<T>(T);

/// What a free slot knows. Written only by its owner, before the push.
#[derive(Debug)]
struct Link {
    /// The slot below.
    next: AtomicU32,
    /// How many slots are free from this one down.
    depth: AtomicU32,
}

/// No slot.
const NONE: u32 = u32::MAX;
const CLOSED: u64 = 1 << 32;
const TAG: u64 = 1 << 33;

/// A value of `head`: slot in bits 0-31, closed in bit 32, tag above.
#[derive(Clone, Copy)]
struct Head(u64);

impl Head {
    const fn slot(self) -> u32 {
        self.0 as u32
    }

    const fn is_closed(self) -> bool {
        self.0 & CLOSED != 0
    }

    /// The next value, with `slot` on top.
    const fn with_slot(self, slot: u32) -> Self {
        Self((self.0.wrapping_add(TAG) & !(NONE as u64)) | slot as u64)
    }
}

impl FreeList {
    /// A list of the slots `0..capacity`, all free; slot 0 is on top.
    pub(super) fn new(capacity: u32) -> Self {
        debug_assert!(capacity < NONE);
        let slots = (0..capacity)
            .map(|slot| Link {
                next: AtomicU32::new(if slot + 1 < capacity { slot + 1 } else { NONE }),
                depth: AtomicU32::new(capacity - slot),
            })
            .collect();
        let top = if capacity == 0 { NONE } else { 0 };
        Self { head: CacheLine(AtomicU64::new(u64::from(top))), slots }
    }

    pub(super) fn capacity(&self) -> u32 {
        self.slots.len() as u32
    }

    /// How many slots are free at this moment.
    pub(super) fn len(&self) -> u32 {
        self.depth(self.load())
    }

    /// Takes the slot that was freed last.
    pub(super) fn pop(&self) -> Option<u32> {
        let mut head = self.load();
        loop {
            let slot = head.slot();
            if slot == NONE {
                return None;
            }
            // Relaxed: the load of `head` acquired the push that wrote it. If the slot was taken
            // since, the value may be another, and the swap fails.
            let next = self.slots[slot as usize].next.load(Ordering::Relaxed);
            match swap(&self.head.0, head, head.with_slot(next)) {
                Ok(()) => return Some(slot),
                Err(now) => head = now,
            }
        }
    }

    /// Frees `slot`, which the caller took.
    ///
    /// # Safety
    ///
    /// `list` is alive. It is raw because of what may happen while this returns: another thread
    /// pushes the last slot of a closed list and frees it. No reference to it may exist then.
    pub(super) unsafe fn push(list: NonNull<Self>, slot: u32) -> Last {
        // SAFETY: alive until our swap, and not used after it.
        let list = unsafe { list.as_ref() };
        let link = &list.slots[slot as usize];
        let capacity = list.capacity();
        let mut head = list.load();
        loop {
            let depth = list.depth(head) + 1;
            // Relaxed: the slot is ours until the swap, which releases both.
            link.next.store(head.slot(), Ordering::Relaxed);
            link.depth.store(depth, Ordering::Relaxed);
            match swap(&list.head.0, head, head.with_slot(slot)) {
                Ok(()) => return Last::is(head.is_closed() && depth == capacity),
                Err(now) => head = now,
            }
        }
    }

    /// Closes the list: nothing will be popped any more.
    ///
    /// # Safety
    ///
    /// As for [`push`](Self::push).
    pub(super) unsafe fn close(list: NonNull<Self>) -> Last {
        // SAFETY: alive until our swap, and not used after it.
        let list = unsafe { list.as_ref() };
        let capacity = list.capacity();
        let mut head = list.load();
        loop {
            let depth = list.depth(head);
            let closed = Head(head.with_slot(head.slot()).0 | CLOSED);
            match swap(&list.head.0, head, closed) {
                Ok(()) => return Last::is(depth == capacity),
                Err(now) => head = now,
            }
        }
    }

    /// How many slots are free while `head` is the head.
    fn depth(&self, head: Head) -> u32 {
        match head.slot() {
            NONE => 0,
            // Relaxed: as for `next` in `pop`.
            slot => self.slots[slot as usize].depth.load(Ordering::Relaxed),
        }
    }

    fn load(&self) -> Head {
        // Acquire: pairs with the push that made this slot the top, for its link.
        Head(self.head.0.load(Ordering::Acquire))
    }
}

/// Takes the atomic and not the list: see [`FreeList::push`].
fn swap(head: &AtomicU64, from: Head, to: Head) -> Result<(), Head> {
    // AcqRel: releases our link and our use of a slot that we push; acquires the former owner's use
    // of a slot that we pop, and every owner's use when the last one frees the memory.
    // Acquire on failure: as in `FreeList::load`.
    head.compare_exchange_weak(from.0, to.0, Ordering::AcqRel, Ordering::Acquire)
        .map(drop)
        .map_err(Head)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// `FreeList::push` and `close` on a list that outlives the call.
    impl FreeList {
        fn put(&self, slot: u32) -> Last {
            // SAFETY: borrowed, so alive; nothing frees it on `Last::Yes` here.
            unsafe { Self::push(NonNull::from(self), slot) }
        }

        fn shut(&self) -> Last {
            // SAFETY: as above.
            unsafe { Self::close(NonNull::from(self)) }
        }
    }

    #[test]
    fn last_in_first_out_and_counted() {
        let list = FreeList::new(3);
        assert_eq!((list.pop(), list.pop(), list.len()), (Some(0), Some(1), 1));
        assert_eq!(list.put(0), Last::No);
        assert_eq!((list.len(), list.pop()), (2, Some(0)));
        assert_eq!((list.pop(), list.pop(), list.len()), (Some(2), None, 0));
    }

    #[test]
    fn closed_and_full_is_seen_once() {
        let list = FreeList::new(2);
        let (a, b) = (list.pop().unwrap(), list.pop().unwrap());
        assert_eq!([list.put(a), list.shut(), list.put(b)], [Last::No, Last::No, Last::Yes]);

        let list = FreeList::new(2);
        let a = list.pop().unwrap();
        assert_eq!([list.put(a), list.shut()], [Last::No, Last::Yes]);

        assert_eq!(FreeList::new(0).shut(), Last::Yes);
    }

    #[test]
    fn slots_are_unique_among_threads() {
        let list = FreeList::new(8);
        let owned: Vec<_> = (0..8).map(|_| AtomicU32::new(0)).collect();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for round in 0..if cfg!(miri) { 100 } else { 20_000 } {
                        let taken: Vec<_> = (0..round % 4).filter_map(|_| list.pop()).collect();
                        for &slot in &taken {
                            let owners = owned[slot as usize].fetch_add(1, Ordering::Relaxed);
                            assert_eq!(owners, 0, "slot {slot} was taken twice");
                        }
                        for slot in taken {
                            owned[slot as usize].fetch_sub(1, Ordering::Relaxed);
                            assert_eq!(list.put(slot), Last::No);
                        }
                    }
                });
            }
        });
        assert_eq!(list.len(), 8);
        let mut all: Vec<_> = std::iter::from_fn(|| list.pop()).collect();
        all.sort_unstable();
        assert_eq!(all, (0..8).collect::<Vec<_>>());
    }
}
