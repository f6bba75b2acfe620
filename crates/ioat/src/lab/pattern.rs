//! Content that a receiver can check without having it: every byte follows from its offset.

/// A stream of bytes. The 64-bit word `i`, little-endian at offset `8 * i`, is a mix of `i` and the
/// seed; so a byte that is lost, doubled, moved or stale is noticed, not only one that is wrong.
///
/// ```
/// use ioat::lab::Pattern;
///
/// let pattern = Pattern::new(42);
/// let mut stream = [0; 100];
/// pattern.fill(7_000, &mut stream);
/// assert_eq!(pattern.first_wrong(7_000, &stream), None);
/// stream[61] ^= 1;
/// assert_eq!(pattern.first_wrong(7_000, &stream), Some(7_061));
/// assert_eq!(pattern.first_wrong(6_992, &stream), Some(6_992));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pattern {
    seed: u64,
}

const WORD: usize = size_of::<u64>();

/// Words that are compared before one branch.
const BLOCK: usize = 8;

impl Pattern {
    /// The stream of this seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// Two multiplications and a shift: all bits of the index reach the word, at a speed above a
    /// memory's (the constants are those of `SplitMix64`).
    const fn word(self, index: u64) -> u64 {
        let mixed = (index ^ self.seed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed ^ (mixed >> 32)).wrapping_mul(0xbf58_476d_1ce4_e5b9)
    }

    const fn byte(self, offset: u64) -> u8 {
        self.word(offset / WORD as u64).to_le_bytes()[(offset % WORD as u64) as usize]
    }

    /// Writes the stream's bytes from `offset` on.
    pub fn fill(self, offset: u64, bytes: &mut [u8]) {
        let head = head_len(offset, bytes.len());
        let (head, rest) = bytes.split_at_mut(head);
        for (at, byte) in (offset..).zip(head.iter_mut()) {
            *byte = self.byte(at);
        }
        let offset = offset + head.len() as u64;
        let (words, tail) = rest.as_chunks_mut::<WORD>();
        let first = offset / WORD as u64;
        for (index, word) in (first..).zip(words.iter_mut()) {
            *word = self.word(index).to_le_bytes();
        }
        let offset = offset + (words.len() * WORD) as u64;
        for (at, byte) in (offset..).zip(tail) {
            *byte = self.byte(at);
        }
    }

    /// The offset in the stream of the first of `bytes`, which start at `offset`, that is wrong.
    #[must_use]
    pub fn first_wrong(self, offset: u64, bytes: &[u8]) -> Option<u64> {
        let (head, rest) = bytes.split_at(head_len(offset, bytes.len()));
        let blocks_at = offset + head.len() as u64;
        let (blocks, tail) = rest.as_chunks::<{ WORD * BLOCK }>();
        let tail_at = blocks_at + (blocks.len() * WORD * BLOCK) as u64;
        self.first_wrong_byte(offset, head)
            .or_else(|| {
                let block_len = WORD * BLOCK;
                let wrong = (0_u64..).zip(blocks).find(|(i, block)| {
                    !self.block_is_right(blocks_at / 8 + i * BLOCK as u64, block)
                });
                let (i, block) = wrong?;
                self.first_wrong_byte(blocks_at + i * block_len as u64, block)
            })
            .or_else(|| self.first_wrong_byte(tail_at, tail))
    }

    fn block_is_right(self, first: u64, block: &[u8; WORD * BLOCK]) -> bool {
        let (words, _) = block.as_chunks::<WORD>();
        let mut difference = 0;
        for (index, word) in (first..).zip(words) {
            difference |= u64::from_le_bytes(*word) ^ self.word(index);
        }
        difference == 0
    }

    fn first_wrong_byte(self, offset: u64, bytes: &[u8]) -> Option<u64> {
        (offset..).zip(bytes).find(|&(at, byte)| self.byte(at) != *byte).map(|(at, _)| at)
    }
}

/// How many of `len` bytes at `offset` come before the first whole word.
fn head_len(offset: u64, len: usize) -> usize {
    let into_word = (offset % WORD as u64) as usize;
    if into_word == 0 { 0 } else { (WORD - into_word).min(len) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_piece_is_the_same_part_of_the_stream() {
        let pattern = Pattern::new(3);
        let mut whole = [0; 400];
        pattern.fill(1000, &mut whole);
        for start in 0..80 {
            for len in 0..200 {
                let mut piece = vec![0; len];
                pattern.fill(1000 + start as u64, &mut piece);
                assert_eq!(piece, whole[start..start + len]);
                assert_eq!(pattern.first_wrong(1000 + start as u64, &piece), None);
            }
        }
    }

    #[test]
    fn every_wrong_bit_is_found_at_its_offset() {
        let pattern = Pattern::new(3);
        for start in [0, 1, 7, 8, 1_000_003] {
            let mut bytes = [0; 200];
            pattern.fill(start, &mut bytes);
            for at in 0..bytes.len() {
                bytes[at] ^= 1 << (at % 8);
                assert_eq!(pattern.first_wrong(start, &bytes), Some(start + at as u64));
                bytes[at] ^= 1 << (at % 8);
            }
        }
    }

    #[test]
    fn moved_bytes_are_noticed_soon() {
        let pattern = Pattern::new(3);
        let mut bytes = [0; 64];
        pattern.fill(0, &mut bytes);
        for by in [1, 8, 64, 4096, 1 << 20, 1 << 32, 1 << 40] {
            let wrong = pattern.first_wrong(by, &bytes).expect("a moved stream is wrong");
            assert!(wrong - by < 16, "moved by {by}");
        }
        assert!(Pattern::new(4).first_wrong(0, &bytes).is_some(), "another seed");
    }
}
