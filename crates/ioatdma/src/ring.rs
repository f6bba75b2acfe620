//! The ring's bookkeeping. It knows nothing of hardware: indices, counts and cookies only.
//!
//! ```text
//!          tail           issued           head
//!   free    |   in flight    |   submitted   |    free (one slot always is)
//!   --------+----------------+---------------+---------------------------
//! ```
//!
//! The three counters run freely and wrap at 2^32; a slot is a counter modulo the ring's size.

use dmaengine::{Completion, Cookie, Status};

/// What a descriptor is to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slot {
    /// Nothing: it starts the chain or raises an interrupt.
    Null,
    /// A piece of an operation, not its last.
    Part,
    /// The last piece of an operation of so many bytes.
    Last(usize),
}

#[derive(Debug)]
pub(crate) struct Ring {
    slots: Box<[Slot]>,
    head: u32,
    issued: u32,
    tail: u32,
    /// How many of the slots in use are [`Slot::Null`].
    nulls: usize,
    /// DMACOUNT: descriptors issued since the chain began, modulo 2^16.
    dma_count: u16,
    /// The cookie of the next operation to be submitted.
    next: Cookie,
    /// The cookie of the first operation that was not issued.
    unissued: Cookie,
    /// The cookie of the oldest operation that has not ended.
    oldest: Cookie,
}

impl Ring {
    /// An empty ring of `2^order` slots, `order` being 1 to 15: DMACOUNT must tell a full ring from
    /// an empty one.
    pub(crate) fn new(order: u8) -> Self {
        debug_assert!((1..=15).contains(&order));
        Self {
            slots: vec![Slot::Null; 1 << order].into_boxed_slice(),
            head: 0,
            issued: 0,
            tail: 0,
            nulls: 0,
            dma_count: 0,
            next: Cookie::FIRST,
            unissued: Cookie::FIRST,
            oldest: Cookie::FIRST,
        }
    }

    fn mask(&self) -> u32 {
        // At most 2^15 slots.
        self.slots.len() as u32 - 1
    }

    /// Slots that can be pushed.
    pub(crate) fn free(&self) -> usize {
        (self.mask() - self.head.wrapping_sub(self.tail)) as usize
    }

    /// The slot that [`push`](Self::push) fills next.
    pub(crate) fn head_index(&self) -> usize {
        (self.head & self.mask()) as usize
    }

    /// Appends a descriptor. There must be a free slot.
    pub(crate) fn push(&mut self, slot: Slot) {
        debug_assert!(self.free() > 0);
        let index = self.head_index();
        self.slots[index] = slot;
        self.head = self.head.wrapping_add(1);
        match slot {
            Slot::Null => self.nulls += 1,
            Slot::Part => {}
            Slot::Last(_) => self.next = self.next.next(),
        }
    }

    /// The cookie that the next [`Slot::Last`] gets.
    pub(crate) const fn next_cookie(&self) -> Cookie {
        self.next
    }

    /// The last slot that was submitted and not issued.
    pub(crate) fn last_pending(&self) -> Option<usize> {
        (self.head != self.issued).then(|| (self.head.wrapping_sub(1) & self.mask()) as usize)
    }

    /// Issues all that was submitted; what DMACOUNT becomes.
    pub(crate) const fn issue(&mut self) -> u16 {
        // The ring is smaller than 2^16, so nothing is lost.
        let pending = self.head.wrapping_sub(self.issued) as u16;
        self.dma_count = self.dma_count.wrapping_add(pending);
        self.issued = self.head;
        self.unissued = self.next;
        self.dma_count
    }

    /// Descriptors that were issued and have not ended.
    pub(crate) const fn in_flight(&self) -> usize {
        self.issued.wrapping_sub(self.tail) as usize
    }

    /// Whether an operation was issued and has not ended.
    pub(crate) fn has_issued_operation(&self) -> bool {
        self.oldest.is_before(self.unissued)
    }

    /// Whether an operation was submitted and has not ended.
    pub(crate) fn has_operation(&self) -> bool {
        self.oldest.is_before(self.next)
    }

    /// How many of the slots in use are [`Slot::Null`].
    pub(crate) const fn nulls(&self) -> usize {
        self.nulls
    }

    /// How many descriptors have ended if the one at `index` is the last that has: 0 if it is none
    /// of those in flight.
    pub(crate) fn ended_at(&self, index: usize) -> usize {
        // At most 2^15 slots.
        let distance = (index as u32).wrapping_sub(self.tail) & self.mask();
        if (distance as usize) < self.in_flight() { distance as usize + 1 } else { 0 }
    }

    /// Takes out the oldest `count` descriptors, whose operations end with `status`.
    pub(crate) fn end(&mut self, count: usize, status: Status, report: &mut dyn FnMut(Completion)) {
        for _ in 0..count {
            self.end_oldest(status, report);
        }
    }

    /// Takes out the oldest descriptor and the rest of its operation.
    pub(crate) fn end_operation(&mut self, status: Status, report: &mut dyn FnMut(Completion)) {
        while self.end_oldest(status, report) == Some(Slot::Part) {}
    }

    /// Takes out everything, also what was not issued.
    pub(crate) fn end_all(&mut self, status: Status, report: &mut dyn FnMut(Completion)) {
        while self.end_oldest(status, report).is_some() {}
    }

    fn end_oldest(&mut self, status: Status, report: &mut dyn FnMut(Completion)) -> Option<Slot> {
        if self.tail == self.head {
            return None;
        }
        let slot = self.slots[(self.tail & self.mask()) as usize];
        if self.tail == self.issued {
            self.issued = self.issued.wrapping_add(1);
        }
        self.tail = self.tail.wrapping_add(1);
        if slot == Slot::Null {
            self.nulls -= 1;
        }
        if let Slot::Last(len) = slot {
            let cookie = self.oldest;
            self.oldest = cookie.next();
            if self.unissued.is_before(self.oldest) {
                self.unissued = self.oldest;
            }
            let bytes = if status == Status::Success { len } else { 0 };
            report(Completion { cookie, status, bytes, fallback: None });
        }
        Some(slot)
    }

    /// A new chain: DMACOUNT begins at 0. The ring must be empty.
    pub(crate) fn begin_chain(&mut self) {
        debug_assert_eq!(self.head, self.tail);
        self.dma_count = 0;
    }
}

#[cfg(test)]
mod tests;
