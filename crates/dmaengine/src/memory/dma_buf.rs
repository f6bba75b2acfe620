use std::{
    fmt,
    ops::{Deref, DerefMut, Range},
    ptr::NonNull,
};

use super::{DmaSource, DmaTarget, arena::Block};

/// A buffer in an [`Arena`](crate::Arena), from [`Arena::alloc`](crate::Arena::alloc). Every engine
/// that the arena is mapped for can read and write it.
///
/// The default is an empty buffer in no arena.
///
/// It is one pointer: a buffer moves with every operation, from its owner to a queue and back.
#[derive(Default)]
pub struct DmaBuf(Option<Box<Buffer>>);

struct Buffer {
    pointer: NonNull<u8>,
    len: usize,
    /// Given back to the arena when the buffer is dropped.
    _block: Block,
}

// SAFETY: a buffer is exclusive access to plain bytes.
unsafe impl Send for DmaBuf {}
// SAFETY: a shared buffer can only be read.
unsafe impl Sync for DmaBuf {}

// SAFETY: the block stays where it is when the value moves, and nobody else can reach it. While the
// buffer serves as a source its owner has given it away, so nobody writes it.
unsafe impl DmaSource for DmaBuf {}
// SAFETY: as above. What leads to the bytes is a raw pointer: moving the value asserts nothing about
// them.
unsafe impl DmaTarget for DmaBuf {}

const _: () = assert!(size_of::<DmaBuf>() == size_of::<usize>());

impl DmaBuf {
    /// The first `len` bytes of `block`, which is at least that long.
    pub(super) fn new(block: Block, len: usize) -> Self {
        debug_assert!(len <= block.size());
        Self(Some(Box::new(Buffer { pointer: block.pointer(), len, _block: block })))
    }

    /// The first byte and the length; of the empty buffer in no arena, anything and 0.
    #[inline]
    fn bytes(&self) -> (NonNull<u8>, usize) {
        self.0.as_ref().map_or((NonNull::dangling(), 0), |buffer| (buffer.pointer, buffer.len))
    }

    /// The part `range` of the buffer, as something to copy from or to. The whole buffer comes back
    /// with [`DmaSlice::into_inner`].
    ///
    /// # Panics
    ///
    /// If `range` does not lie in the buffer.
    #[must_use]
    pub fn slice(self, range: Range<usize>) -> DmaSlice {
        assert!(
            range.start <= range.end && range.end <= self.len(),
            "bytes {range:?} of a buffer of {}",
            self.len()
        );
        DmaSlice { buffer: self, range }
    }
}

impl Deref for DmaBuf {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        let (pointer, len) = self.bytes();
        // SAFETY: initialised bytes of our own block (or none), which only this value reaches.
        unsafe { std::slice::from_raw_parts(pointer.as_ptr(), len) }
    }
}

impl DerefMut for DmaBuf {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        let (pointer, len) = self.bytes();
        // SAFETY: as in `deref`, and exclusive through `&mut self`.
        unsafe { std::slice::from_raw_parts_mut(pointer.as_ptr(), len) }
    }
}

impl AsRef<[u8]> for DmaBuf {
    #[inline]
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl AsMut<[u8]> for DmaBuf {
    #[inline]
    fn as_mut(&mut self) -> &mut [u8] {
        self
    }
}

impl fmt::Debug for DmaBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DmaBuf")
            .field("pointer", &self.as_ptr())
            .field("len", &self.len())
            .field("in_arena", &self.0.is_some())
            .finish()
    }
}

/// A [`DmaBuf`] of which only a part takes part in a copy. It owns the whole buffer.
#[derive(Debug, Default)]
pub struct DmaSlice {
    buffer: DmaBuf,
    range: Range<usize>,
}

impl DmaSlice {
    /// The whole buffer.
    #[must_use]
    pub fn into_inner(self) -> DmaBuf {
        self.buffer
    }
}

impl AsRef<[u8]> for DmaSlice {
    fn as_ref(&self) -> &[u8] {
        &self.buffer[self.range.clone()]
    }
}

impl AsMut<[u8]> for DmaSlice {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.buffer[self.range.clone()]
    }
}

// SAFETY: always the same part of a buffer for which the same holds.
unsafe impl DmaSource for DmaSlice {}
// SAFETY: as above.
unsafe impl DmaTarget for DmaSlice {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Arena;

    #[test]
    fn a_slice_is_its_range_and_gives_the_buffer_back() {
        let mut buffer = Arena::new(4096).unwrap().alloc(10).unwrap();
        buffer.copy_from_slice(b"0123456789");
        let mut slice = buffer.slice(2..5);
        assert_eq!(slice.as_ref(), b"234");
        slice.as_mut().fill(b'x');
        assert_eq!(&slice.into_inner()[..], b"01xxx56789");
        assert!(DmaSlice::default().as_ref().is_empty());
    }

    #[test]
    #[should_panic(expected = "bytes 3..11 of a buffer of 10")]
    fn a_slice_past_the_end_is_refused() {
        let _ = Arena::new(4096).unwrap().alloc(10).unwrap().slice(3..11);
    }
}
