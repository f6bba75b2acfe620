/// A small reproducible generator: `SplitMix64` (Steele, Lea, Flood, OOPSLA 2014). The same seed gives
/// the same faults on every machine and in every version.
#[derive(Clone, Debug)]
pub(crate) struct SplitMix64(u64);

impl SplitMix64 {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// True with this probability.
    pub(crate) fn chance(&mut self, probability: f64) -> bool {
        // 53 random bits are every multiple of 2^-53 below 1, which an f64 holds exactly.
        ((self.next() >> 11) as f64) < probability * (1_u64 << 53) as f64
    }

    /// An index below `bound`, which is not 0. The bias is below `bound / 2^64`.
    pub(crate) const fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequence_is_the_published_one() {
        let mut random = SplitMix64::new(1_234_567);
        let first: [u64; 3] = std::array::from_fn(|_| random.next());
        assert_eq!(
            first,
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]
        );
    }

    #[test]
    fn certain_is_always_and_impossible_is_never() {
        let mut random = SplitMix64::new(7);
        assert!((0..10_000).all(|_| random.chance(1.0)));
        assert!((0..10_000).all(|_| !random.chance(0.0)));
        let tenth = (0..10_000).filter(|_| random.chance(0.1)).count();
        assert!((900..1100).contains(&tenth), "{tenth}");
    }
}
