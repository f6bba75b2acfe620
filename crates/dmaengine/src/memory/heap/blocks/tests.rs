use std::sync::Barrier;

use proptest::prelude::*;

use super::*;

fn blocks(words: usize) -> Blocks<Box<[AtomicU64]>> {
    Blocks::new((0..words).map(|_| AtomicU64::new(0)).collect())
}

#[test]
fn masks_have_the_bits_of_each_word() {
    let all = |first, units| masks(first, units).collect::<Vec<_>>();
    assert_eq!(all(0, 64), [(0, u64::MAX)]);
    assert_eq!(all(63, 2), [(0, 1 << 63), (1, 1)]);
    assert_eq!(all(4, 3), [(0, 0b111_0000)]);
    assert_eq!(all(64, 130), [(1, u64::MAX), (2, u64::MAX), (3, 0b11)]);
    assert_eq!(all(5, 0), []);
    assert_eq!(all(64, 0), []);
}

#[test]
fn the_lowest_that_fits_and_what_was_used_before() {
    let blocks = blocks(2);
    assert_eq!(blocks.claim(60, 1), Some(Claim { first: 0, used: 0 }));
    assert_eq!(blocks.claim(10, 8), Some(Claim { first: 64, used: 0 }));
    assert_eq!(
        blocks.claim(4, 1),
        Some(Claim { first: 60, used: 4 }),
        "below, so not new for sure"
    );
    blocks.release(0, 60);
    assert_eq!(blocks.claim(61, 1), None);
    assert_eq!(blocks.claim(54, 1), Some(Claim { first: 0, used: 54 }));
    assert_eq!(blocks.claim(54, 1), Some(Claim { first: 74, used: 0 }));
    assert_eq!(blocks.taken(), 122);
    assert_eq!(blocks.claim(6, 1), Some(Claim { first: 54, used: 6 }), "the hole below the hint");
    assert_eq!(blocks.claim(1, 1), None);
}

#[test]
fn a_claim_that_fails_takes_nothing() {
    let blocks = blocks(3);
    blocks.claim(64, 1).unwrap();
    assert_eq!(blocks.claim_at(150, 1), Ok(()));
    assert_eq!(blocks.claim_at(64, 128), Err(150));
    assert_eq!(blocks.taken(), 65);
    assert!(!blocks.extend(0, 64, 87) && blocks.extend(0, 64, 86) && !blocks.extend(150, 1, 42));
    assert!(!blocks.extend(150, 1, usize::MAX - 200));
    assert_eq!(blocks.taken(), 151);
}

proptest! {
    /// Against a map of bools: blocks never overlap, one is found if there is one, and units that
    /// were used are known to be.
    #[test]
    #[cfg_attr(miri, ignore = "long, and nothing unsafe")]
    fn blocks_are_disjoint_and_found(
        steps in prop::collection::vec((1usize..100, 0u32..5, any::<prop::sample::Index>(), 0..4), 1..200)
    ) {
        const UNITS: usize = 4 * BITS;
        let blocks = blocks(4);
        let mut taken = [false; UNITS];
        let mut used = [false; UNITS];
        let mut claimed: Vec<(usize, usize)> = Vec::new();
        for (units, align, victim, what) in steps {
            let align = 1 << align;
            match what {
                0 if !claimed.is_empty() => {
                    let (first, units) = claimed.swap_remove(victim.index(claimed.len()));
                    taken[first..first + units].fill(false);
                    blocks.release(first, units);
                }
                1 if !claimed.is_empty() => {
                    let block = victim.index(claimed.len());
                    let (first, before) = claimed[block];
                    let end = first + before + units;
                    let free = end <= UNITS && !taken[first + before..end].contains(&true);
                    prop_assert_eq!(blocks.extend(first, before, units), free);
                    if free {
                        claimed[block].1 += units;
                        taken[first..end].fill(true);
                        used[first..end].fill(true);
                    }
                }
                _ => {
                    let fits = (0..=UNITS - units)
                        .step_by(align)
                        .find(|first| !taken[*first..first + units].contains(&true));
                    let claim = blocks.claim(units, align);
                    prop_assert_eq!(claim.is_some(), fits.is_some());
                    if let Some(Claim { first, used: so_many }) = claim {
                        prop_assert_eq!(first % align, 0);
                        prop_assert!(!taken[first..first + units].contains(&true));
                        prop_assert!(!used[first + so_many..first + units].contains(&true));
                        taken[first..first + units].fill(true);
                        used[first..first + units].fill(true);
                        claimed.push((first, units));
                    }
                }
            }
            prop_assert_eq!(blocks.taken(), taken.iter().filter(|taken| **taken).count());
        }
    }
}

/// Threads that fight for the same words: each writes its number into units that are its own.
#[test]
fn threads_get_different_units() {
    const THREADS: u64 = 4;
    const ROUNDS: u64 = if cfg!(miri) { 20 } else { 20_000 };
    let blocks = blocks(2);
    let owners: Vec<AtomicU64> = (0..2 * BITS).map(|_| AtomicU64::new(0)).collect();
    let barrier = Barrier::new(THREADS as usize);
    std::thread::scope(|scope| {
        for thread in 1..=THREADS {
            let (blocks, owners, barrier) = (&blocks, &owners, &barrier);
            scope.spawn(move || {
                barrier.wait();
                let mut claimed = 0;
                for round in 0..ROUNDS {
                    let units = ((round * thread) % 40 + 1) as usize;
                    let Some(Claim { first, .. }) = blocks.claim(units, 1) else { continue };
                    claimed += 1;
                    // Relaxed, all: the claim orders them, or the test fails.
                    for owner in &owners[first..first + units] {
                        assert_eq!(owner.swap(thread, Ordering::Relaxed), 0, "taken twice");
                    }
                    for owner in &owners[first..first + units] {
                        assert_eq!(owner.swap(0, Ordering::Relaxed), thread, "taken meanwhile");
                    }
                    blocks.release(first, units);
                }
                assert!(claimed > 0, "a thread got nothing at all");
            });
        }
    });
    assert_eq!(blocks.taken(), 0);
}
