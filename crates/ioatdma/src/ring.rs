//! The ring's bookkeeping. It knows nothing of hardware: positions, counts and cookies only.
//!
//! ```text
//!          tail           issued           head                limit
//!   free    |   in flight    |   submitted   | for operations    |    kept free
//!   --------+----------------+---------------+-------------------+-------------
//! ```
//!
//! Positions count descriptors since the ring was made; a slot is a position modulo the ring's size.

use std::num::NonZeroUsize;

use dmaengine::{Completion, Cookie, Status};

/// Slots that operations do not get: the one that is always free, one for an event, one for a fence.
pub(crate) const RESERVED: usize = 3;

/// A slot of a ring: below its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Index(usize);

impl Index {
    pub(crate) const fn get(self) -> usize {
        self.0
    }
}

#[derive(Debug)]
pub(crate) struct Ring {
    /// The length of the operation that ends with the slot's descriptor; `None` if none does.
    lengths: Box<[Option<NonZeroUsize>]>,
    /// The size less one: all bits of an index.
    mask: u64,
    /// Where the next descriptor goes.
    head: u64,
    /// How far operations may fill the ring.
    limit: u64,
    /// The cookie of the next operation, less `head`, modulo 2^64. Only descriptors that do not end
    /// an operation change it.
    lead: u64,
    issued: u64,
    tail: u64,
    /// Where the chain began.
    chain: u64,
    /// Where the descriptor is that is no operation's, if there is one: it starts the chain or raises
    /// an interrupt.
    null: Option<u64>,
    /// The slot that is kept for a fence is among those that were not issued.
    fence: bool,
    /// The cookie of the first operation that was not issued.
    unissued: Cookie,
    /// The cookie of the oldest operation that has not ended.
    oldest: Cookie,
}

impl Ring {
    /// An empty ring of `2^order` slots, `order` being 2 to 15: DMACOUNT must tell a full ring from
    /// an empty one. Operations get no room before [`set_limit`](Self::set_limit).
    pub(crate) fn new(order: u8) -> Self {
        debug_assert!((2..=15).contains(&order));
        Self {
            lengths: vec![None; 1 << order].into_boxed_slice(),
            mask: (1 << order) - 1,
            head: 0,
            limit: 0,
            lead: Cookie::FIRST.get(),
            issued: 0,
            tail: 0,
            chain: 0,
            null: None,
            fence: false,
            unissued: Cookie::FIRST,
            oldest: Cookie::FIRST,
        }
    }

    /// Slots that operations can take.
    pub(crate) const fn space(&self) -> usize {
        (self.limit - self.head) as usize
    }

    /// Lets operations have what is free, but for `withheld` slots and those that they never get.
    pub(crate) fn set_limit(&mut self, withheld: usize) {
        let reserved = RESERVED - usize::from(self.null.is_some()) - usize::from(self.fence);
        let used = (self.head - self.tail) as usize + reserved + withheld;
        self.limit = self.head + self.lengths.len().saturating_sub(used) as u64;
    }

    /// Lets operations have nothing.
    pub(crate) const fn close(&mut self) {
        self.limit = self.head;
    }

    /// Where the next descriptor goes.
    pub(crate) const fn head(&self) -> u64 {
        self.head
    }

    /// The slot of a position.
    pub(crate) const fn index(&self, position: u64) -> Index {
        Index((position & self.mask) as usize)
    }

    /// Appends a descriptor, at whose end an operation of `len` bytes ends or, with 0, none. There
    /// must be a free slot.
    #[inline]
    fn push(&mut self, len: usize) {
        debug_assert!(self.head - self.tail < self.mask);
        let Index(index) = self.index(self.head);
        // SAFETY: masked, so below the number of slots, which is that of lengths.
        *unsafe { self.lengths.get_unchecked_mut(index) } = NonZeroUsize::new(len);
        self.head += 1;
    }

    /// Appends a descriptor that is no operation's. There must be none.
    pub(crate) fn push_null(&mut self) {
        debug_assert_eq!(self.null, None);
        self.null = Some(self.head);
        self.push_part();
    }

    /// Appends a descriptor of the operation that [`push_last`](Self::push_last) completes.
    pub(crate) fn push_part(&mut self) {
        self.push(0);
        self.lead = self.lead.wrapping_sub(1);
    }

    /// As [`push_part`](Self::push_part), in the slot that is kept for a fence.
    pub(crate) fn push_fence(&mut self) {
        self.push_part();
        self.fence = true;
        self.limit += 1;
    }

    /// Appends the last descriptor of an operation of `len` bytes, which are not 0.
    #[inline]
    pub(crate) fn push_last(&mut self, len: usize) -> Cookie {
        let cookie = self.next_cookie();
        self.push(len);
        cookie
    }

    /// The cookie that the next [`push_last`](Self::push_last) returns.
    const fn next_cookie(&self) -> Cookie {
        Cookie::new(self.head.wrapping_add(self.lead))
    }

    /// The last slot that was submitted and not issued.
    pub(crate) fn last_pending(&self) -> Option<Index> {
        (self.head != self.issued).then(|| self.index(self.head - 1))
    }

    /// Issues all that was submitted; what DMACOUNT becomes: the descriptors issued since the chain
    /// began, modulo 2^16.
    pub(crate) fn issue(&mut self) -> u16 {
        self.issued = self.head;
        self.unissued = self.next_cookie();
        if self.fence {
            // Another slot is kept for the next one.
            self.fence = false;
            self.limit = self.head.max(self.limit - 1);
        }
        (self.head - self.chain) as u16
    }

    /// Whether nothing is in use.
    pub(crate) const fn is_empty(&self) -> bool {
        self.head == self.tail
    }

    /// Descriptors that were issued and have not ended.
    pub(crate) const fn in_flight(&self) -> usize {
        (self.issued - self.tail) as usize
    }

    /// Whether an operation was issued and has not ended.
    pub(crate) const fn has_issued_operation(&self) -> bool {
        self.oldest.is_before(self.unissued)
    }

    /// Whether an operation was submitted and has not ended.
    pub(crate) const fn has_operation(&self) -> bool {
        self.oldest.is_before(self.next_cookie())
    }

    /// Whether there is a descriptor that is no operation's.
    pub(crate) const fn has_null(&self) -> bool {
        self.null.is_some()
    }

    /// How many descriptors have ended if the one at `index` is the last that has: 0 if it is none
    /// of those in flight.
    pub(crate) const fn ended_at(&self, index: usize) -> usize {
        let distance = (index as u64).wrapping_sub(self.tail) & self.mask;
        if distance < self.issued - self.tail { distance as usize + 1 } else { 0 }
    }

    /// Takes out the oldest `count` descriptors, which were issued and whose operations end with
    /// `status`.
    pub(crate) fn end(&mut self, count: usize, status: Status, report: &mut dyn FnMut(Completion)) {
        debug_assert!(count <= self.in_flight());
        for _ in 0..count {
            self.end_oldest(status, report);
        }
    }

    /// Takes out the oldest descriptor, which was issued, and the rest of its operation, which ends
    /// with `status`.
    pub(crate) fn end_operation(&mut self, status: Status, report: &mut dyn FnMut(Completion)) {
        let of_nobody = self.null == Some(self.tail);
        // Operations are issued as a whole.
        while self.in_flight() > 0 && !self.end_oldest(status, report) && !of_nobody {}
    }

    /// Takes out everything, also what was not issued.
    pub(crate) fn end_all(&mut self, status: Status, report: &mut dyn FnMut(Completion)) {
        while !self.is_empty() {
            self.end_oldest(status, report);
        }
        self.issued = self.head;
        self.unissued = self.oldest;
        self.fence = false;
    }

    /// Takes out the oldest descriptor; whether it ended an operation. There must be one.
    fn end_oldest(&mut self, status: Status, report: &mut dyn FnMut(Completion)) -> bool {
        debug_assert!(!self.is_empty());
        let Index(index) = self.index(self.tail);
        if self.null == Some(self.tail) {
            self.null = None;
        }
        self.tail += 1;
        let Some(len) = self.lengths[index] else { return false };
        let cookie = self.oldest;
        self.oldest = cookie.next();
        report(Completion::of(cookie, status, len.get()));
        true
    }

    /// A new chain: DMACOUNT begins at 0. The ring must be empty.
    pub(crate) fn begin_chain(&mut self) {
        debug_assert!(self.is_empty());
        self.chain = self.head;
    }
}

#[cfg(test)]
mod tests;
