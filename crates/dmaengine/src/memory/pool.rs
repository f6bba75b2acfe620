//! Packet buffers: equal slots of an arena, taken and freed without allocation or lock.

use std::{
    fmt,
    mem::ManuallyDrop,
    ops::{Deref, Range},
    ptr::NonNull,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use super::{
    Arena, ArenaFull, DmaSource,
    arena::Block,
    free_list::{FreeList, Last},
};

/// Slots begin at cache lines, in bytes.
const CACHE_LINE: usize = 64;

/// A pool of packet buffers of one size, in an [`Arena`].
///
/// A link takes a [`PacketBufMut`], receives into it and [freezes](PacketBufMut::freeze) it to a
/// [`PacketBuf`]: read-only, shared by counting, returned to the pool by whoever drops the last
/// handle, on any thread. The buffer freed last is taken first, because it is warm in the cache.
///
/// Cloning makes another handle to the same pool. The slots' memory stays until the pool's last
/// handle and the last buffer are gone.
///
/// ```
/// use dmaengine::{Arena, PacketPool};
///
/// let pool = PacketPool::new(&Arena::new(1 << 20)?, 2048, 64)?;
/// let mut packet = pool.take().expect("a fresh pool has buffers");
/// packet.as_mut()[..5].copy_from_slice(b"hello");
/// let packet = packet.freeze(5);
/// let payload = packet.slice(1..5);
/// drop(packet);
/// assert_eq!(payload.as_ref(), b"ello");
/// assert_eq!(pool.available(), 63);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct PacketPool {
    handle: Arc<PoolHandle>,
}

/// Dropped with the last [`PacketPool`]; buffers may remain.
struct PoolHandle(NonNull<Slots>);

/// The slots. Freed by the drop of the pool's last handle or of its last buffer, whichever is
/// later; [`FreeList`] tells which.
struct Slots {
    free: FreeList,
    /// The handles of each slot: 1 for a `PacketBufMut`, else the number of `PacketBuf`s.
    references: Box<[AtomicU32]>,
    /// The first slot's first byte, in `_block`.
    memory: NonNull<u8>,
    slot_len: u32,
    /// From one slot to the next, in bytes.
    stride: usize,
    _block: Block,
}

// SAFETY: `Slots` is only used through `&`: counters are atomic, and the slots' bytes are accessed
// by the owner of a `PacketBufMut` alone, or read by owners of `PacketBuf`s.
unsafe impl Send for PoolHandle {}
// SAFETY: as above.
unsafe impl Sync for PoolHandle {}

impl PacketPool {
    /// Takes memory for `count` buffers of `slot_len` bytes out of `arena`.
    ///
    /// # Errors
    ///
    /// [`ArenaFull`] if there is no free piece for all of them.
    ///
    /// # Panics
    ///
    /// If `slot_len` is more than `u32::MAX`, or `count` is not less than that.
    pub fn new(arena: &Arena, slot_len: usize, count: usize) -> Result<Self, ArenaFull> {
        let (Ok(slot_len), Some(slots)) =
            (u32::try_from(slot_len), u32::try_from(count).ok().filter(|&count| count < u32::MAX))
        else {
            panic!("{count} slots of {slot_len} bytes: both numbers must fit in 32 bits");
        };
        let stride = (slot_len as usize).max(1).next_multiple_of(CACHE_LINE);
        // The product of two 32-bit numbers fits in 64 bits.
        let block = arena.block(stride * count)?;
        let slots = Box::new(Slots {
            free: FreeList::new(slots),
            references: (0..count).map(|_| AtomicU32::new(0)).collect(),
            memory: block.pointer(),
            slot_len,
            stride,
            _block: block,
        });
        let slots = NonNull::from(Box::leak(slots));
        Ok(Self { handle: Arc::new(PoolHandle(slots)) })
    }

    /// Takes a buffer; `None` if all are in use.
    #[must_use]
    pub fn take(&self) -> Option<PacketBufMut> {
        let index = self.slots().free.pop()?;
        // Relaxed: the slot is ours alone; who gets a handle later gets it from us.
        self.slots().references[index as usize].store(1, Ordering::Relaxed);
        Some(PacketBufMut { slots: self.handle.0, index })
    }

    /// How many buffers are free at this moment.
    #[must_use]
    pub fn available(&self) -> usize {
        self.slots().free.len() as usize
    }

    /// How many buffers there are.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.slots().free.capacity() as usize
    }

    /// The length of every buffer, in bytes.
    #[must_use]
    pub fn slot_len(&self) -> usize {
        self.slots().slot_len as usize
    }

    fn slots(&self) -> &Slots {
        // SAFETY: freed at the earliest in the drop of `PoolHandle`, which we hold.
        unsafe { self.handle.0.as_ref() }
    }
}

impl fmt::Debug for PacketPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PacketPool")
            .field("slot_len", &self.slot_len())
            .field("capacity", &self.capacity())
            .field("available", &self.available())
            .finish()
    }
}

impl Drop for PoolHandle {
    fn drop(&mut self) {
        // SAFETY: not freed yet: that takes the close that is being done here.
        if unsafe { FreeList::close(Slots::free_list(self.0)) } == Last::Yes {
            // SAFETY: every slot is on the free list and no handle is left: nobody can reach it.
            unsafe { Slots::free(self.0) };
        }
    }
}

impl Slots {
    fn slot(&self, index: u32) -> NonNull<u8> {
        // SAFETY: an index is below `count`, and the block holds `count * stride` bytes.
        unsafe { self.memory.add(index as usize * self.stride) }
    }

    /// Puts a slot back that nobody refers to any more.
    ///
    /// # Safety
    ///
    /// `slots` is alive, `index` was taken from it, and the caller uses neither afterwards.
    unsafe fn put_back(slots: NonNull<Self>, index: u32) {
        // SAFETY: alive by contract until this slot is back.
        if unsafe { FreeList::push(Self::free_list(slots), index) } == Last::Yes {
            // SAFETY: this was the last slot, and the pool's last handle is gone.
            unsafe { Self::free(slots) };
        }
    }

    /// # Safety
    ///
    /// `slots` is alive.
    const unsafe fn free_list(slots: NonNull<Self>) -> NonNull<FreeList> {
        // SAFETY: alive, so the field's address is in bounds and not null.
        unsafe { NonNull::new_unchecked(&raw mut (*slots.as_ptr()).free) }
    }

    /// # Safety
    ///
    /// Nobody uses `slots` any more; called once.
    unsafe fn free(slots: NonNull<Self>) {
        // SAFETY: it came from a `Box` in `PacketPool::new`.
        drop(unsafe { Box::from_raw(slots.as_ptr()) });
    }
}

/// A buffer with one owner, who may write it.
pub struct PacketBufMut {
    slots: NonNull<Slots>,
    index: u32,
}

// SAFETY: exclusive access to plain bytes; the pool's bookkeeping is atomic.
unsafe impl Send for PacketBufMut {}
// SAFETY: a shared reference gives nothing but the length.
unsafe impl Sync for PacketBufMut {}

impl PacketBufMut {
    /// Makes it read-only and shareable. Its first `len` bytes are the packet.
    ///
    /// # Panics
    ///
    /// If `len` is greater than the buffer.
    #[must_use]
    pub fn freeze(self, len: usize) -> PacketBuf {
        // The slot's one reference passes to the result.
        let this = ManuallyDrop::new(self);
        // SAFETY: alive while one of its slots is out.
        let slot_len = unsafe { this.slots.as_ref() }.slot_len;
        match u32::try_from(len) {
            Ok(len) if len <= slot_len => PacketBuf { slots: this.slots, index: this.index, len },
            _ => {
                drop(ManuallyDrop::into_inner(this));
                panic!("a packet of {len} bytes in a buffer of {slot_len}");
            }
        }
    }
}

impl AsMut<[u8]> for PacketBufMut {
    /// The whole buffer. What it contains is left over from its last user.
    fn as_mut(&mut self) -> &mut [u8] {
        // SAFETY: alive while one of its slots is out.
        let slots = unsafe { self.slots.as_ref() };
        // SAFETY: initialised memory of a slot that is ours alone.
        unsafe {
            std::slice::from_raw_parts_mut(slots.slot(self.index).as_ptr(), slots.slot_len as usize)
        }
    }
}

impl Drop for PacketBufMut {
    fn drop(&mut self) {
        // SAFETY: it is alive while this slot is out, and the slot is ours alone.
        unsafe { Slots::put_back(self.slots, self.index) };
    }
}

impl fmt::Debug for PacketBufMut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PacketBufMut").field("index", &self.index).finish()
    }
}

/// A received packet: read-only, and shared by cloning.
pub struct PacketBuf {
    slots: NonNull<Slots>,
    index: u32,
    len: u32,
}

// SAFETY: shared, read-only bytes; the count is atomic.
unsafe impl Send for PacketBuf {}
// SAFETY: as above.
unsafe impl Sync for PacketBuf {}

// SAFETY: the slot stays where it is, and nobody can write it while a `PacketBuf` of it exists: the
// only `PacketBufMut` was consumed by `freeze`, and the next one is made after the last drop, or of the
// only `PacketBuf`.
unsafe impl DmaSource for PacketBuf {}

impl PacketBuf {
    /// What the packet occupies, in bytes: all of its slot, however short it is (Linux:
    /// `skb->truesize`). Receive buffers are charged with this.
    #[must_use]
    pub fn truesize(&self) -> usize {
        self.slots().slot_len as usize
    }

    /// Makes it writable again, without a way through the pool.
    ///
    /// # Errors
    ///
    /// The packet itself, if there is another handle to it.
    pub fn try_into_mut(self) -> Result<PacketBufMut, Self> {
        // Acquire: what the owners of other handles read comes before what is written next. A count
        // of one is ours, and nobody can raise it, since nobody else has a handle to clone.
        if self.references().load(Ordering::Acquire) != 1 {
            return Err(self);
        }
        // The one reference passes to the result.
        let this = ManuallyDrop::new(self);
        Ok(PacketBufMut { slots: this.slots, index: this.index })
    }

    /// Another handle to the packet, narrowed to `range`.
    ///
    /// # Panics
    ///
    /// If `range` does not lie in the packet.
    #[must_use]
    pub fn slice(&self, range: Range<usize>) -> PacketSlice {
        self.clone().into_slice(range)
    }

    /// This handle, narrowed to `range`.
    ///
    /// # Panics
    ///
    /// If `range` does not lie in the packet.
    #[must_use]
    pub fn into_slice(self, range: Range<usize>) -> PacketSlice {
        let (start, end) = check_range(&range, self.len as usize);
        PacketSlice { packet: self, start, end }
    }

    fn slots(&self) -> &Slots {
        // SAFETY: alive while one of its slots is out.
        unsafe { self.slots.as_ref() }
    }

    fn references(&self) -> &AtomicU32 {
        &self.slots().references[self.index as usize]
    }
}

/// The bounds of `range`, which must lie in `len` bytes. A packet is shorter than 4 GiB.
fn check_range(range: &Range<usize>, len: usize) -> (u32, u32) {
    assert!(range.start <= range.end && range.end <= len, "bytes {range:?} of a packet of {len}");
    (range.start as u32, range.end as u32)
}

impl Clone for PacketBuf {
    fn clone(&self) -> Self {
        // Relaxed: a new handle comes from one that exists, so the count cannot reach zero
        // meanwhile.
        let before = self.references().fetch_add(1, Ordering::Relaxed);
        if before > u32::MAX / 2 {
            // Only reachable by forgetting clones; going on would free a slot in use (as `Arc`).
            std::process::abort();
        }
        Self { slots: self.slots, index: self.index, len: self.len }
    }
}

impl Drop for PacketBuf {
    fn drop(&mut self) {
        let references = self.references();
        // Acquire, both times: what the other handles' owners read comes before the slot's reuse.
        // A count of one is ours, and nobody can raise it: the locked decrement is not needed.
        // Release: what we read comes before a reuse by whoever drops the last handle.
        if references.load(Ordering::Acquire) != 1 && references.fetch_sub(1, Ordering::AcqRel) != 1
        {
            return;
        }
        // SAFETY: it is alive while this slot is out, and the last handle to the slot is this.
        unsafe { Slots::put_back(self.slots, self.index) };
    }
}

impl Deref for PacketBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: initialised memory that nobody writes while a `PacketBuf` of the slot exists;
        // `freeze` checked the length.
        unsafe {
            std::slice::from_raw_parts(self.slots().slot(self.index).as_ptr(), self.len as usize)
        }
    }
}

impl AsRef<[u8]> for PacketBuf {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for PacketBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PacketBuf").field("index", &self.index).field("len", &self.len).finish()
    }
}

/// A part of a [`PacketBuf`], which it keeps alive: a TCP segment's payload, say.
#[derive(Clone, Debug)]
pub struct PacketSlice {
    packet: PacketBuf,
    start: u32,
    end: u32,
}

// SAFETY: always the same part of a packet for which the same holds; `advance` and `split_to` need
// `&mut self`, which nobody has while an engine owns the value.
unsafe impl DmaSource for PacketSlice {}

impl PacketSlice {
    /// What the packet behind it occupies, in bytes ([`PacketBuf::truesize`]).
    #[must_use]
    pub fn truesize(&self) -> usize {
        self.packet.truesize()
    }

    /// Another handle, narrowed to `range` of this part.
    ///
    /// # Panics
    ///
    /// If `range` does not lie in this part.
    #[must_use]
    pub fn slice(&self, range: Range<usize>) -> Self {
        let (start, end) = check_range(&range, self.len());
        Self { packet: self.packet.clone(), start: self.start + start, end: self.start + end }
    }

    /// Splits off the first `at` bytes; `self` keeps the rest.
    ///
    /// # Panics
    ///
    /// If `at` is greater than the length.
    #[must_use]
    pub fn split_to(&mut self, at: usize) -> Self {
        let front = self.slice(0..at);
        self.start = front.end;
        front
    }

    /// Drops the first `count` bytes.
    ///
    /// # Panics
    ///
    /// If `count` is greater than the length.
    pub fn advance(&mut self, count: usize) {
        self.start += check_range(&(0..count), self.len()).1;
    }
}

impl Deref for PacketSlice {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.packet[self.start as usize..self.end as usize]
    }
}

impl AsRef<[u8]> for PacketSlice {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

#[cfg(test)]
mod tests;
