/// Which buffers were filled last, so that their lines are still in a cache of the thread.
#[derive(Clone, Debug)]
pub(crate) struct Warmth {
    /// By the page in which buffers begin.
    recent: [Buffer; Self::PAGES],
    /// Bytes that were received so far.
    filled: u64,
}

#[derive(Clone, Copy, Debug)]
struct Buffer {
    page: usize,
    /// [`Warmth::filled`] when it was.
    filled: u64,
    by_engine: bool,
}

/// How a buffer was when it was to be filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Before {
    pub(crate) is_warm: bool,
    /// The engine filled it the last time, a short while ago.
    pub(crate) by_engine: bool,
}

impl Warmth {
    const PAGES: usize = 64;
    const PAGE_SHIFT: u32 = 12;
    /// What a second-level cache holds of it: 1 or 2 MiB on servers, of which packets take as much.
    pub(crate) const CACHE_BYTES: usize = 512 << 10;

    pub(crate) const fn new() -> Self {
        let none = Buffer { page: 0, filled: 0, by_engine: false };
        Self { recent: [none; Self::PAGES], filled: 0 }
    }

    /// The buffer at `address` is to be filled with `len` bytes at most; `by_engine` decides who does,
    /// knowing whether it is warm.
    pub(crate) fn fill(
        &mut self,
        address: usize,
        len: usize,
        by_engine: impl FnOnce(bool) -> bool,
    ) -> Before {
        let page = address >> Self::PAGE_SHIFT;
        // Fibonacci hashing: buffers lie at the same place of a power of two.
        let hash = (page as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
        let slot = &mut self.recent[hash as usize % Self::PAGES];
        let is_recent = slot.page == page && self.filled - slot.filled <= Self::CACHE_BYTES as u64;
        let is_warm = is_recent && len <= Self::CACHE_BYTES;
        let before = Before { is_warm, by_engine: is_warm && slot.by_engine };
        self.filled += len as u64;
        *slot = Buffer { page, filled: self.filled, by_engine: by_engine(is_warm) };
        before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEN: usize = 64 << 10;

    #[test]
    fn a_buffer_is_warm_until_others_have_taken_its_place() {
        let mut warmth = Warmth::new();
        let mut is_warm = |address| warmth.fill(address, LEN, |_| false).is_warm;
        assert!(!is_warm(0x10_0000), "the first time");
        assert!(is_warm(0x10_0000));
        for other in 1..=8 {
            assert!(!is_warm(0x10_0000 + other * LEN));
        }
        assert!(is_warm(0x10_0000), "512 KiB ago");
        for other in 1..=9 {
            is_warm(0x10_0000 + other * LEN);
        }
        assert!(!is_warm(0x10_0000), "more than that");
    }

    #[test]
    fn it_is_known_who_filled_a_warm_one() {
        let mut warmth = Warmth::new();
        let mut fill = |by_engine| warmth.fill(0, LEN, |_| by_engine).by_engine;
        assert_eq!([fill(true), fill(false), fill(true)], [false, true, false]);
    }

    #[test]
    fn what_is_longer_than_the_cache_is_never_warm() {
        let mut warmth = Warmth::new();
        for _ in 0..3 {
            assert!(!warmth.fill(0, 1 << 20, |_| false).is_warm);
        }
    }
}
