use std::collections::VecDeque;

use dmaengine::{Arena, ArenaError, ArenaFull, DmaBuf};

/// Buffers up to this long start at a cache line, longer ones at a page: see [`Arena::alloc`].
const PAGE: usize = 4096;
const CACHE_LINE: usize = 64;

/// A source and a target of the same length.
#[derive(Debug)]
pub(super) struct Pair {
    pub(super) number: usize,
    pub(super) source: DmaBuf,
    pub(super) target: DmaBuf,
}

/// The pairs that operations walk over. Those that are idle wait in the order in which their
/// operations ended.
#[derive(Debug)]
pub(super) struct Pairs {
    idle: VecDeque<Pair>,
    count: usize,
}

impl Pairs {
    /// `count` pairs of `size` bytes, of which no target holds what its source does. First all
    /// sources, then all targets.
    pub(super) fn new(arena: &Arena, count: usize, size: usize) -> Result<Self, ArenaFull> {
        let sources: Vec<DmaBuf> = buffers(arena, count, size)?;
        let targets: Vec<DmaBuf> = buffers(arena, count, size)?;
        let idle = sources
            .into_iter()
            .zip(targets)
            .enumerate()
            .map(|(number, (mut source, target))| {
                for (at, byte) in source.iter_mut().enumerate() {
                    *byte = pattern(number, at);
                }
                Pair { number, source, target }
            })
            .collect();
        let mut pairs = Self { idle, count };
        pairs.spoil();
        Ok(pairs)
    }

    /// Makes every target different from its source in every byte.
    pub(super) fn spoil(&mut self) {
        for Pair { source, target, .. } in &mut self.idle {
            for (target, source) in target.iter_mut().zip(&source[..]) {
                *target = !*source;
            }
        }
    }

    /// An arena with room for that.
    pub(super) fn arena(count: usize, size: usize) -> Result<Arena, ArenaError> {
        let align = if size >= PAGE { PAGE } else { CACHE_LINE };
        Arena::new(2 * count * size.next_multiple_of(align))
    }

    pub(super) const fn count(&self) -> usize {
        self.count
    }

    /// Where the sources and targets of all pairs lie, in the order of their numbers. All are idle.
    pub(super) fn addresses(&mut self) -> Vec<(*const u8, *mut u8)> {
        let address = |pair: &mut Pair| (pair.source.as_ptr(), pair.target.as_mut_ptr());
        self.idle.make_contiguous().sort_by_key(|pair| pair.number);
        self.idle.iter_mut().map(address).collect()
    }

    /// The pair that has been idle for the longest.
    ///
    /// # Panics
    ///
    /// If none is.
    #[inline]
    pub(super) fn take(&mut self) -> Pair {
        self.idle.pop_front().expect("no more operations are in flight than there are pairs")
    }

    #[inline]
    pub(super) fn give_back(&mut self, pair: Pair) {
        self.idle.push_back(pair);
    }

    /// Whether the targets of `operations` copies hold what their sources do and the others do not,
    /// and no source has changed. All pairs are idle.
    pub(super) fn verify(&self, operations: u64) -> bool {
        let copied = self.idle.iter().filter(|pair| pair.source[..] == pair.target[..]).count();
        let expected = usize::try_from(operations).map_or(self.count, |done| done.min(self.count));
        let kept = self.idle.iter().all(|Pair { number, source, .. }| {
            source.iter().enumerate().all(|(at, byte)| *byte == pattern(*number, at))
        });
        self.idle.len() == self.count && copied == expected && kept
    }
}

fn buffers(arena: &Arena, count: usize, size: usize) -> Result<Vec<DmaBuf>, ArenaFull> {
    (0..count).map(|_| arena.alloc(size)).collect()
}

/// No two pairs have the same, nor two pages of one.
const fn pattern(number: usize, at: usize) -> u8 {
    (at.wrapping_mul(31) + at / 256 + number.wrapping_mul(7) + 1) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_fit_their_arena_and_are_checked() {
        for size in [1, 64, 1448, 4096, 5000] {
            let arena = Pairs::arena(3, size).unwrap();
            let mut pairs = Pairs::new(&arena, 3, size).unwrap();
            assert!(pairs.verify(0) && !pairs.verify(1), "{size}");
            for operations in 1..=4 {
                let mut pair = pairs.take();
                assert_eq!(pair.number, (operations - 1) % 3);
                pair.target.copy_from_slice(&pair.source);
                pairs.give_back(pair);
                assert!(pairs.verify(operations as u64), "{size}");
            }
            assert!(!pairs.verify(2), "one more was written than there were operations");
            let mut pair = pairs.take();
            assert!(!pairs.verify(4), "one is missing");
            let last = size - 1;
            pair.target[last] ^= 1;
            pairs.give_back(pair);
            assert!(!pairs.verify(4), "a byte is wrong");
            let mut pair = pairs.idle.pop_back().unwrap();
            pair.source[last] ^= 1;
            pairs.give_back(pair);
            assert!(!pairs.verify(4), "a source was written");
            pairs.spoil();
            assert!(!pairs.verify(4), "nothing is copied any more");
        }
    }
}
