//! The slots that a link receives into.

use dmaengine::{Arena, ArenaFull, PacketBuf, PacketBufMut, PacketPool};

/// Length in bytes of the slots for short frames, and the longest frame that is copied into one.
/// It holds a full frame of the usual MTU of 1500. Copying as much costs less than the cache misses
/// of a slot of its own do later; NIC drivers stop at 256 bytes because their large slots are not
/// 68 KiB.
pub const SMALL_SLOT_LEN: usize = 2048;

/// Large slots are whole pages, in bytes.
const PAGE: usize = 4096;

/// How many receive buffers a link gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BufferCounts {
    /// Slots of [`SMALL_SLOT_LEN`] bytes.
    pub small: usize,
    /// Slots for the longest frame of the link; unused if that fits a small slot.
    pub large: usize,
}

impl Default for BufferCounts {
    /// Enough for a receive buffer of 8 MiB in super-frames, and for one of 4 MiB in short ones.
    fn default() -> Self {
        Self { small: 4096, large: 256 }
    }
}

impl BufferCounts {
    /// With one more of the slots that any frame fits: the one that a link reads into.
    pub(crate) const fn with_spare(self, frame_max: usize) -> Self {
        let Self { small, large } = self;
        match large_slot_len(frame_max) {
            Some(_) => Self { small, large: large + 1 },
            None => Self { small: small + 1, large },
        }
    }

    /// See [`LinkInfo::receive_memory`](crate::LinkInfo::receive_memory).
    pub(crate) const fn receive_memory(self, frame_max: usize) -> usize {
        match large_slot_len(frame_max) {
            Some(large) => self.large * large,
            None => self.small * SMALL_SLOT_LEN,
        }
    }

    /// The bytes of arena memory that slots for frames of up to `frame_max` bytes take.
    pub(crate) fn arena_len(self, frame_max: usize) -> usize {
        let small = self.small * SMALL_SLOT_LEN;
        match large_slot_len(frame_max) {
            // Each of the two pools may lose up to a page to alignment.
            Some(large) => small + self.large * large + 2 * PAGE,
            None => small + PAGE,
        }
    }
}

/// The length of a slot that a frame of `frame_max` bytes does not fill, so that a full one shows
/// truncation; `None` if small slots do.
const fn large_slot_len(frame_max: usize) -> Option<usize> {
    if frame_max < SMALL_SLOT_LEN {
        return None;
    }
    Some((frame_max + 1).next_multiple_of(PAGE))
}

/// The pools of one link.
#[derive(Debug)]
pub(crate) struct Buffers {
    small: PacketPool,
    large: Option<PacketPool>,
}

impl Buffers {
    pub(crate) fn new(
        arena: &Arena,
        frame_max: usize,
        counts: BufferCounts,
    ) -> Result<Self, ArenaFull> {
        let small = PacketPool::new(arena, SMALL_SLOT_LEN, counts.small)?;
        let large = large_slot_len(frame_max)
            .map(|slot_len| PacketPool::new(arena, slot_len, counts.large))
            .transpose()?;
        Ok(Self { small, large })
    }

    /// A slot that any frame of the link fits.
    pub(crate) fn take(&self) -> Option<PacketBufMut> {
        self.large.as_ref().unwrap_or(&self.small).take()
    }

    /// A copy of `frame`, which fits a slot, in a slot of the right size; `None` if there is none.
    pub(crate) fn copy(&self, frame: &[u8]) -> Option<PacketBuf> {
        self.copy_to_small(frame).or_else(|| self.copy_to(self.large.as_ref()?, frame))
    }

    /// A copy of `frame` in a small slot, if it is short, is not in one already, and there is one.
    pub(crate) fn copybreak(&self, frame: &[u8]) -> Option<PacketBuf> {
        self.large.as_ref()?;
        self.copy_to_small(frame)
    }

    fn copy_to_small(&self, frame: &[u8]) -> Option<PacketBuf> {
        (frame.len() <= SMALL_SLOT_LEN).then(|| self.copy_to(&self.small, frame))?
    }

    fn copy_to(&self, pool: &PacketPool, frame: &[u8]) -> Option<PacketBuf> {
        let mut slot = pool.take()?;
        slot.as_mut().get_mut(..frame.len())?.copy_from_slice(frame);
        Some(slot.freeze(frame.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::offload::MAX_SUPER_FRAME_LEN;

    fn buffers(frame_max: usize, counts: BufferCounts) -> Buffers {
        let arena = Arena::new(counts.arena_len(frame_max)).unwrap();
        Buffers::new(&arena, frame_max, counts).unwrap()
    }

    #[test]
    fn a_frame_never_fills_its_slot() {
        for frame_max in [60, 1518, 2047, 2048, 4095, 4096, 9018, MAX_SUPER_FRAME_LEN] {
            let buffers = buffers(frame_max, BufferCounts { small: 1, large: 1 });
            assert!(buffers.take().unwrap().as_mut().len() > frame_max, "{frame_max}");
        }
    }

    #[test]
    fn short_frames_take_small_slots_while_there_are_any() {
        let buffers = buffers(MAX_SUPER_FRAME_LEN, BufferCounts { small: 1, large: 1 });
        let first = buffers.copy(&[1; SMALL_SLOT_LEN]).unwrap();
        assert_eq!((first.as_ref(), first.truesize()), (&[1; SMALL_SLOT_LEN][..], SMALL_SLOT_LEN));
        let second = buffers.copy(&[2; 60]).unwrap();
        assert_eq!((second.as_ref(), second.truesize()), (&[2; 60][..], 69_632));
        assert!(buffers.copy(&[3; 60]).is_none());
        drop(first);
        assert_eq!(buffers.copy(&[3; 60]).unwrap().truesize(), SMALL_SLOT_LEN);
    }

    #[test]
    fn receive_memory_is_what_the_longest_frames_can_hold() {
        let counts = BufferCounts { small: 3, large: 2 };
        for (frame_max, slot_len) in [(1518, SMALL_SLOT_LEN), (MAX_SUPER_FRAME_LEN, 69_632)] {
            let buffers = buffers(frame_max, counts.with_spare(frame_max));
            let spare = buffers.take().unwrap();
            let all: Vec<_> = std::iter::from_fn(|| buffers.take()).collect();
            assert_eq!(counts.receive_memory(frame_max), all.len() * slot_len);
            assert_eq!(spare.freeze(0).truesize(), slot_len);
        }
    }

    #[test]
    fn a_long_frame_takes_a_large_slot() {
        let buffers = buffers(MAX_SUPER_FRAME_LEN, BufferCounts { small: 1, large: 1 });
        assert_eq!(buffers.copy(&[1; SMALL_SLOT_LEN + 1]).unwrap().truesize(), 69_632);
        assert!(buffers.copybreak(&[1; SMALL_SLOT_LEN + 1]).is_none());
    }
}
