/// Which buffers were filled last, so that their lines are still in a cache of the thread.
#[derive(Clone, Debug)]
pub(crate) struct Warmth {
    /// Pages in which buffers begin, and [`filled`](Self::filled) when they did.
    recent: [(usize, u64); Self::PAGES],
    /// Bytes that were received so far.
    filled: u64,
}

impl Warmth {
    const PAGES: usize = 64;
    const PAGE_SHIFT: u32 = 12;
    /// What a second-level cache holds of it: 1 or 2 MiB on servers, of which packets take as much.
    const CACHE_BYTES: u64 = 512 << 10;

    pub(crate) const fn new() -> Self {
        Self { recent: [(0, 0); Self::PAGES], filled: 0 }
    }

    /// Whether the buffer at `address`, which is to be filled with `len` bytes at most, is warm.
    pub(crate) fn fill(&mut self, address: usize, len: usize) -> bool {
        let page = address >> Self::PAGE_SHIFT;
        // Fibonacci hashing: buffers lie at the same place of a power of two.
        let hash = (page as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
        let slot = &mut self.recent[hash as usize % Self::PAGES];
        let is_warm = slot.0 == page && self.filled - slot.1 <= Self::CACHE_BYTES;
        self.filled += len as u64;
        *slot = (page, self.filled);
        is_warm && len as u64 <= Self::CACHE_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEN: usize = 64 << 10;

    #[test]
    fn a_buffer_is_warm_until_others_have_taken_its_place() {
        let mut warmth = Warmth::new();
        assert!(!warmth.fill(0x10_0000, LEN), "the first time");
        assert!(warmth.fill(0x10_0000, LEN));
        for other in 1..=8 {
            assert!(!warmth.fill(0x10_0000 + other * LEN, LEN));
        }
        assert!(warmth.fill(0x10_0000, LEN), "512 KiB ago");
        for other in 1..=9 {
            warmth.fill(0x10_0000 + other * LEN, LEN);
        }
        assert!(!warmth.fill(0x10_0000, LEN), "more than that");
    }

    #[test]
    fn what_is_longer_than_the_cache_is_never_warm() {
        let mut warmth = Warmth::new();
        for _ in 0..3 {
            assert!(!warmth.fill(0, 1 << 20));
        }
    }
}
