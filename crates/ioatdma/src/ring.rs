//! The ring's bookkeeping. It knows nothing of hardware: positions, counts and cookies only.
//!
//! ```text
//!          tail           issued           head                limit
//!   free    |   in flight    |   submitted   | for operations    |    kept free
//!   --------+----------------+---------------+-------------------+-------------
//! ```
//!
//! Positions count descriptors since the ring was made; a slot is a position modulo the ring's size.
//!
//! That a descriptor has ended is known from the completion word, as a rule. Where it is known from
//! CHANSTS, the word is *owed*: it may be late, and name the descriptor's slot when that is in use again.
//! So slots are free only when the word has told of them, or of later ones: then it means one position.

use std::ops::Range;

use bitflags::bitflags;
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

bitflags! {
    /// What is recorded of a slot: the length of the operation that ends with its descriptor, 0 if
    /// none does, and these. No length has as many bits.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct Slot: u64 {
        /// The second half of the descriptor in the slot before.
        const EXTENSION = 1 << 63;
        /// A part of a check, which may find a [`Mismatch`].
        const CHECK = 1 << 62;
        const _ = !0;
    }

    /// What a check has found.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub(crate) struct Mismatch: u8 {
        /// P, or an exclusive or.
        const P = 1 << 0;
        /// Q.
        const Q = 1 << 1;
    }
}

impl Slot {
    const FLAGS: Self = Self::EXTENSION.union(Self::CHECK);

    const fn length(self) -> usize {
        self.difference(Self::FLAGS).bits() as usize
    }
}

impl Mismatch {
    /// How a check that has found it ends.
    const fn status(self) -> Status {
        match (self.contains(Self::P), self.contains(Self::Q)) {
            (false, false) => Status::Success,
            (true, false) => Status::MismatchP,
            (false, true) => Status::MismatchQ,
            (true, true) => Status::MismatchPq,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Ring {
    /// One for each slot.
    slots: Box<[Slot]>,
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
    /// The positions before `tail` whose end the completion word has not told of.
    owed: u64,
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
    /// What the descriptors of the oldest operation that have ended have found.
    found: Mismatch,
}

impl Ring {
    /// An empty ring of `2^order` slots, `order` being 2 to 15: DMACOUNT must tell a full ring from
    /// an empty one. Operations get no room before [`set_limit`](Self::set_limit).
    pub(crate) fn new(order: u8) -> Self {
        debug_assert!((2..=15).contains(&order));
        Self {
            slots: vec![Slot::empty(); 1 << order].into_boxed_slice(),
            mask: (1 << order) - 1,
            head: 0,
            limit: 0,
            lead: Cookie::FIRST.get(),
            issued: 0,
            tail: 0,
            owed: 0,
            chain: 0,
            null: None,
            fence: false,
            unissued: Cookie::FIRST,
            oldest: Cookie::FIRST,
            found: Mismatch::empty(),
        }
    }

    /// Slots that operations can take.
    pub(crate) const fn space(&self) -> usize {
        (self.limit - self.head) as usize
    }

    /// Lets operations have what is free, but for `withheld` slots and those that they never get.
    pub(crate) fn set_limit(&mut self, withheld: usize) {
        let reserved = RESERVED - usize::from(self.null.is_some()) - usize::from(self.fence);
        let used = (self.head - self.oldest_untold()) as usize + reserved + withheld;
        self.limit = self.head + self.slots.len().saturating_sub(used) as u64;
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

    /// Appends a descriptor. There must be a free slot.
    #[inline]
    fn push(&mut self, slot: Slot) {
        debug_assert!(self.head - self.oldest_untold() < self.mask);
        let Index(index) = self.index(self.head);
        // SAFETY: masked, so below the number of slots.
        *unsafe { self.slots.get_unchecked_mut(index) } = slot;
        self.head += 1;
    }

    /// Appends a descriptor that is no operation's. There must be none.
    pub(crate) fn push_null(&mut self) {
        debug_assert_eq!(self.null, None);
        self.null = Some(self.head);
        self.push_part(Slot::empty());
    }

    /// Appends a descriptor, or its extension, of the operation that [`push_last`](Self::push_last) or
    /// [`push_last_as`](Self::push_last_as) completes.
    pub(crate) fn push_part(&mut self, flags: Slot) {
        self.push(flags);
        self.lead = self.lead.wrapping_sub(1);
    }

    /// As [`push_part`](Self::push_part), in the slot that is kept for a fence.
    pub(crate) fn push_fence(&mut self) {
        self.push_part(Slot::empty());
        self.fence = true;
        self.limit += 1;
    }

    /// Appends the last descriptor of an operation of `len` bytes, which are not 0.
    #[inline]
    pub(crate) fn push_last(&mut self, len: usize) -> Cookie {
        let cookie = self.next_cookie();
        self.push(Slot::from_bits_retain(len as u64));
        cookie
    }

    /// As [`push_last`](Self::push_last), of a descriptor that is not a whole one or a part of a check.
    pub(crate) fn push_last_as(&mut self, flags: Slot, len: usize) -> Cookie {
        let cookie = self.next_cookie();
        self.push(flags | Slot::from_bits_retain(len as u64));
        cookie
    }

    /// The cookie that the next [`push_last`](Self::push_last) returns.
    const fn next_cookie(&self) -> Cookie {
        Cookie::new(self.head.wrapping_add(self.lead))
    }

    /// What is recorded of the slot at a position.
    fn slot(&self, position: u64) -> Slot {
        self.slots[self.index(position).get()]
    }

    /// The slot of the last descriptor that was submitted and not issued: its first half.
    pub(crate) fn last_pending(&self) -> Option<Index> {
        if self.head == self.issued {
            return None;
        }
        let last = self.head - 1;
        // Both halves are issued together.
        let extension = self.slot(last).contains(Slot::EXTENSION);
        Some(self.index(last - u64::from(extension)))
    }

    /// What DMACOUNT has to be: the descriptors issued since the chain began, modulo 2^16.
    pub(crate) const fn count(&self) -> u16 {
        (self.issued - self.chain) as u16
    }

    /// Issues all that was submitted.
    pub(crate) fn issue(&mut self) {
        self.issued = self.head;
        self.unissued = self.next_cookie();
        if self.fence {
            // Another slot is kept for the next one.
            self.fence = false;
            self.limit = self.head.max(self.limit - 1);
        }
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

    /// The positions that were issued and have not ended.
    pub(crate) const fn issued(&self) -> Range<u64> {
        self.tail..self.issued
    }

    /// The first position whose end the completion word has not told of.
    const fn oldest_untold(&self) -> u64 {
        self.tail - self.owed
    }

    /// The position behind the descriptor at `index`, if it was issued and is not before `start`.
    /// Extensions are descriptors here, and end with the half before them.
    fn end_of(&self, index: usize, start: u64) -> Option<u64> {
        let distance = (index as u64).wrapping_sub(start) & self.mask;
        if distance >= self.issued - start {
            return None;
        }
        let end = start + distance + 1;
        let extended = end < self.issued && self.is_extension(end);
        Some(end + u64::from(extended))
    }

    /// How many descriptors have ended if the one at `index` is the last that has: 0 if it is none
    /// of those in flight.
    pub(crate) fn ended_at(&self, index: usize) -> usize {
        self.end_of(index, self.tail).map_or(0, |end| (end - self.tail) as usize)
    }

    /// As [`ended_at`](Self::ended_at), if it is the completion word that says so.
    pub(crate) fn told_of(&mut self, index: usize) -> usize {
        let Some(end) = self.end_of(index, self.oldest_untold()) else { return 0 };
        self.owed = self.tail.saturating_sub(end);
        end.saturating_sub(self.tail) as usize
    }

    /// The last `count` descriptors that were taken out were not told of by the completion word.
    pub(crate) const fn owe(&mut self, count: usize) {
        self.owed += count as u64;
    }

    /// Whether the completion word has not told of all that was taken out.
    pub(crate) const fn is_owed(&self) -> bool {
        self.owed > 0
    }

    /// Whether a descriptor that is no operation's can be appended.
    pub(crate) const fn has_room_for_null(&self) -> bool {
        self.null.is_none() && self.head - self.oldest_untold() < self.mask
    }

    fn is_extension(&self, position: u64) -> bool {
        self.slot(position).contains(Slot::EXTENSION)
    }

    /// Takes out the oldest `count` descriptors, which were issued and have ended well. `verdict` says
    /// what one of a check has found.
    pub(crate) fn end(
        &mut self,
        count: usize,
        verdict: impl Fn(Index) -> Mismatch,
        report: &mut dyn FnMut(Completion),
    ) {
        debug_assert!(count <= self.in_flight());
        for _ in 0..count {
            let slot = self.slot(self.tail);
            if slot.contains(Slot::CHECK) {
                self.found |= verdict(self.index(self.tail));
            }
            self.end_slot(slot, Status::Success, report);
        }
    }

    /// Whether the descriptor at a position is a part of a check.
    pub(crate) fn is_check(&self, position: u64) -> bool {
        self.slot(position).contains(Slot::CHECK)
    }

    /// Whether the oldest descriptor is, and was issued.
    pub(crate) fn oldest_is_check(&self) -> bool {
        self.in_flight() > 0 && self.is_check(self.tail)
    }

    /// Takes out the oldest descriptor, which was issued, is a part of a check, and has found
    /// `mismatch`.
    pub(crate) fn end_check(&mut self, mismatch: Mismatch, report: &mut dyn FnMut(Completion)) {
        let count = self.ended_at(self.index(self.tail).get());
        // Also its extension, if it has one.
        self.end(count, |_| mismatch, report);
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
        self.end_slot(self.slot(self.tail), status, report)
    }

    /// As [`end_oldest`](Self::end_oldest), where `slot` is what is recorded of it.
    fn end_slot(&mut self, slot: Slot, status: Status, report: &mut dyn FnMut(Completion)) -> bool {
        if self.null == Some(self.tail) {
            self.null = None;
        }
        self.tail += 1;
        let len = slot.length();
        if len == 0 {
            return false;
        }
        let cookie = self.oldest;
        self.oldest = cookie.next();
        let mut status = status;
        if !self.found.is_empty() {
            let found = std::mem::take(&mut self.found);
            if status == Status::Success {
                status = found.status();
            }
        }
        report(Completion::of(cookie, status, len));
        true
    }

    /// A new chain, of what was issued and has not ended: DMACOUNT counts from there, and the completion
    /// word tells of nothing before.
    pub(crate) const fn begin_chain(&mut self) {
        self.chain = self.tail;
        self.owed = 0;
    }
}

#[cfg(test)]
mod tests;
