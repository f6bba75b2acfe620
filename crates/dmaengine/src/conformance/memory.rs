//! Arena memory of which every byte is accounted for.

use std::{mem::ManuallyDrop, ops::Range};

use crate::{Arena, DmaBuf, Segment, SegmentMut, random::SplitMix64};

/// Watched before and after every block, in bytes: a page, so that a neighbouring page counts.
const GUARD: usize = 4096;

/// What is everywhere at first.
const UNTOUCHED: u8 = 0xa5;

/// A block of arena memory between two guards, and what should be in it: [`check`](Self::check)
/// finds any byte, in the block or its guards, that an engine has written and should not have, or
/// the other way round.
///
/// Its memory is only ever read and written through raw pointers: an engine may have it.
pub(super) struct Block {
    /// The first byte of the guard before the block.
    start: *mut u8,
    /// What should be there, from `start` on.
    shadow: Vec<u8>,
    /// Keeps the memory.
    buffer: ManuallyDrop<DmaBuf>,
}

impl Drop for Block {
    fn drop(&mut self) {
        // A test that fails leaves operations in flight: their memory is leaked.
        if !std::thread::panicking() {
            // SAFETY: dropped here and nowhere else.
            unsafe { ManuallyDrop::drop(&mut self.buffer) };
        }
    }
}

// SAFETY: the pointer leads into the buffer that the value owns.
unsafe impl Send for Block {}

impl Block {
    /// A block that starts at a page.
    #[track_caller]
    pub(super) fn new(arena: &Arena, len: usize) -> Self {
        let mut buffer = arena.alloc(len + 2 * GUARD).unwrap_or_else(|full| {
            panic!("the suite needs an arena of conformance::ARENA_LEN bytes: {full}")
        });
        buffer.fill(UNTOUCHED);
        let start = buffer.as_mut_ptr();
        Self { start, shadow: vec![UNTOUCHED; len + 2 * GUARD], buffer: ManuallyDrop::new(buffer) }
    }

    /// A block full of random bytes, no two stretches of which are alike.
    #[track_caller]
    pub(super) fn random(arena: &Arena, len: usize, seed: u64) -> Self {
        let mut block = Self::new(arena, len);
        block.randomize(seed);
        block
    }

    /// Fills it with other random bytes.
    pub(super) fn randomize(&mut self, seed: u64) {
        let mut random = SplitMix64::new(seed);
        let mut bytes = vec![0; self.len()];
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&random.next().to_le_bytes()[..chunk.len()]);
        }
        self.write(0, &bytes);
    }

    pub(super) fn len(&self) -> usize {
        self.shadow.len() - 2 * GUARD
    }

    /// The address of the byte at `offset`.
    pub(super) fn at(&self, offset: usize) -> *mut u8 {
        assert!(offset <= self.len(), "{offset} is not in a block of {}", self.len());
        self.start.wrapping_add(GUARD + offset)
    }

    pub(super) fn segment(&self, range: &Range<usize>) -> Segment {
        Segment { address: self.at(range.start), len: range.len() }
    }

    pub(super) fn segment_mut(&self, range: &Range<usize>) -> SegmentMut {
        SegmentMut { address: self.at(range.start), len: range.len() }
    }

    /// Writes `bytes`, by the CPU.
    pub(super) fn write(&mut self, offset: usize, bytes: &[u8]) {
        self.expect(offset, bytes);
        // SAFETY: `expect` has found that it fits; the buffer is ours.
        unsafe { self.at(offset).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
    }

    /// Makes it untouched again.
    pub(super) fn clear(&mut self, range: Range<usize>) {
        self.write(range.start, &vec![UNTOUCHED; range.len()]);
    }

    /// An engine is to write `bytes`.
    pub(super) fn expect(&mut self, offset: usize, bytes: &[u8]) {
        self.expected_mut(offset..offset + bytes.len()).copy_from_slice(bytes);
    }

    /// No engine is to write there, and none has.
    pub(super) fn forget(&mut self, range: Range<usize>) {
        self.expected_mut(range).fill(UNTOUCHED);
    }

    /// What should be there.
    pub(super) fn expected(&self, range: Range<usize>) -> &[u8] {
        assert!(range.end <= self.len(), "{range:?} is not in a block of {}", self.len());
        &self.shadow[GUARD + range.start..GUARD + range.end]
    }

    fn expected_mut(&mut self, range: Range<usize>) -> &mut [u8] {
        assert!(range.end <= self.len(), "{range:?} is not in a block of {}", self.len());
        &mut self.shadow[GUARD + range.start..GUARD + range.end]
    }

    /// What is there.
    pub(super) fn read(&self, range: Range<usize>) -> Vec<u8> {
        assert!(range.end <= self.len(), "{range:?} is not in a block of {}", self.len());
        self.read_raw(GUARD + range.start, range.len())
    }

    fn read_raw(&self, from_start: usize, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        // SAFETY: the callers stay in the buffer, which is ours and initialised.
        unsafe { bytes.as_mut_ptr().copy_from_nonoverlapping(self.start.add(from_start), len) };
        bytes
    }

    /// Every byte must be what it should be, in the guards too.
    #[track_caller]
    pub(super) fn check(&self, what: &str) {
        self.check_raw(0..self.shadow.len(), what);
    }

    /// As [`check`](Self::check), of the bytes in `range` only.
    #[track_caller]
    pub(super) fn check_range(&self, range: Range<usize>, what: &str) {
        self.check_raw(GUARD + range.start..GUARD + range.end, what);
    }

    #[track_caller]
    fn check_raw(&self, range: Range<usize>, what: &str) {
        for start in range.clone().step_by(GUARD) {
            let end = range.end.min(start + GUARD);
            let (there, expected) = (self.read_raw(start, end - start), &self.shadow[start..end]);
            if there == expected {
                continue;
            }
            let first = there.iter().zip(expected).position(|(is, should)| is != should);
            let first = first.expect("they differ");
            let offset = (start + first).cast_signed() - GUARD.cast_signed();
            panic!(
                "{what}: byte {offset} of a block of {} is {:#04x} and should be {:#04x}",
                self.len(),
                there[first],
                expected[first]
            );
        }
    }

    /// An operation that was to write `intended` from `offset` on ended in some way or other. Each
    /// byte must be what it was or what it was to be, and is taken for what it is from now on.
    #[track_caller]
    pub(super) fn settle(&mut self, offset: usize, intended: &[u8], what: &str) {
        let range = offset..offset + intended.len();
        let there = self.read(range.clone());
        let was = self.expected(range);
        for (index, &byte) in there.iter().enumerate() {
            assert!(
                byte == was[index] || byte == intended[index],
                "{what}: byte {index} is {byte:#04x}, neither what was there nor what was to be"
            );
        }
        self.expect(offset, &there);
    }
}
