//! Which parts of a heap's memory are taken: a bitmap that threads change without a lock.

use super::sync::{AtomicU64, AtomicUsize, Ordering};

/// Bits of a word.
pub(super) const BITS: usize = u64::BITS as usize;

/// Lengths of blocks that are told apart: by powers of two, and from the last on not at all.
const CLASSES: usize = 12;

/// A bit for each unit of memory, set if it is taken.
///
/// A block is claimed word by word, each with one atomic operation, and given back if another thread
/// was faster at one of them. So there is no moment at which the map is wrong, and nothing to wait
/// for: a signal handler may allocate, and a forked child may, wherever its parent's other threads
/// were. What those had claimed stays claimed in the child, as with any allocator.
#[derive(Debug)]
pub(super) struct Blocks<W> {
    words: W,
    /// Hints, for blocks of 1, 2 or 3, 4 to 7 units and so on: below are none that long. Low memory is
    /// used first, as it is warm, and not looked through by each block anew.
    lowest: [AtomicUsize; CLASSES],
    /// Units from here on were never given out, so they are as the system gave them: zero.
    untouched: AtomicUsize,
}

/// A block that was claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Claim {
    /// Its first unit.
    pub(super) first: usize,
    /// How many of its units, from the first on, may have been used before.
    pub(super) used: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Free,
    Taken,
}

impl<W: AsRef<[AtomicU64]>> Blocks<W> {
    /// All is free that `words` has bits for. They are zero.
    pub(super) fn new(words: W) -> Self {
        let lowest = std::array::from_fn(|_| AtomicUsize::new(0));
        Self { words, lowest, untouched: AtomicUsize::new(0) }
    }

    fn units(&self) -> usize {
        self.words.as_ref().len() * BITS
    }

    /// Claims `units` in a row, the first at a multiple of `align`. `None` if there are none, or other
    /// threads had them at that moment. Looks at each unit once or twice.
    pub(super) fn claim(&self, units: usize, align: usize) -> Option<Claim> {
        let lowest = &self.lowest[(units.max(1).ilog2() as usize).min(CLASSES - 1)];
        // Relaxed: a hint. What fits below it all the same is found in the second pass.
        let from = lowest.load(Ordering::Relaxed);
        let first = self
            .claim_from(from, units, align)
            .or_else(|| (from > 0).then(|| self.claim_from(0, units, align))?)?;
        if first > from && align == 1 {
            // Relaxed, as above. If it fails, another thread knows better.
            let _ = lowest.compare_exchange(from, first, Ordering::Relaxed, Ordering::Relaxed);
        }
        // Relaxed: a thread that had used a unit before has counted it before it released it, which
        // the claim has acquired.
        let untouched = self.untouched.fetch_max(first + units, Ordering::Relaxed);
        Some(Claim { first, used: untouched.saturating_sub(first).min(units) })
    }

    /// The first block that fits, from the unit `from` on.
    fn claim_from(&self, mut from: usize, units: usize, align: usize) -> Option<usize> {
        loop {
            let free = self.find(from, self.units(), State::Free)?;
            let first = free.checked_next_multiple_of(align)?;
            let end = first.checked_add(units).filter(|end| *end <= self.units())?;
            let taken = match self.find(first, end, State::Taken) {
                Some(taken) => taken,
                None => match self.claim_at(first, units) {
                    Ok(()) => return Some(first),
                    Err(taken) => taken,
                },
            };
            from = taken + 1;
        }
    }

    /// Claims exactly these units.
    ///
    /// # Errors
    ///
    /// A unit that is taken. Then nothing was claimed.
    fn claim_at(&self, first: usize, units: usize) -> Result<(), usize> {
        for (index, (word, mask)) in masks(first, units).enumerate() {
            let bits = &self.words.as_ref()[word];
            // Acquire: pairs with the release of who had the units before; what it did with the
            // memory is done.
            let taken = bits.fetch_or(mask, Ordering::Acquire) & mask;
            if taken != 0 {
                // Relaxed, both: nobody has used the units through this claim, and a release that
                // came before is still seen by who claims them next, as this is its sequence.
                bits.fetch_and(!(mask & !taken), Ordering::Relaxed);
                for (word, mask) in masks(first, units).take(index) {
                    self.words.as_ref()[word].fetch_and(!mask, Ordering::Relaxed);
                }
                return Err(word * BITS + taken.trailing_zeros() as usize);
            }
        }
        Ok(())
    }

    /// Claims the `more` units behind a block of `units` from `first` on, if they are free. Returns
    /// whether they are the block's now.
    pub(super) fn extend(&self, first: usize, units: usize, more: usize) -> bool {
        let Some(end) = first.checked_add(units + more).filter(|end| *end <= self.units()) else {
            return false;
        };
        let extended = self.claim_at(first + units, more).is_ok();
        if extended {
            // Relaxed: see `claim`.
            self.untouched.fetch_max(end, Ordering::Relaxed);
        }
        extended
    }

    /// Gives units back that were claimed. Nobody uses their memory any more.
    pub(super) fn release(&self, first: usize, units: usize) {
        for (word, mask) in masks(first, units) {
            // Release: what was done with the memory comes before another thread's claim.
            let before = self.words.as_ref()[word].fetch_and(!mask, Ordering::Release);
            debug_assert_eq!(before & mask, mask, "freed twice");
        }
        // Relaxed, all: hints. The units may have joined free ones before them, so for long blocks
        // that is a little too high: the second pass finds them.
        for lowest in &self.lowest {
            if lowest.load(Ordering::Relaxed) > first {
                lowest.fetch_min(first, Ordering::Relaxed);
            }
        }
    }

    /// How many units are taken at this moment.
    pub(super) fn taken(&self) -> usize {
        // Relaxed: a number to look at.
        let count = |word: &AtomicU64| word.load(Ordering::Relaxed).count_ones() as usize;
        self.words.as_ref().iter().map(count).sum()
    }

    /// The first unit in `from..to` that is in this state.
    fn find(&self, from: usize, to: usize, state: State) -> Option<usize> {
        masks(from, to.checked_sub(from)?).find_map(|(word, mask)| {
            // Relaxed: who claims looks again.
            let bits = self.words.as_ref()[word].load(Ordering::Relaxed);
            let wanted = mask & if state == State::Taken { bits } else { !bits };
            (wanted != 0).then(|| word * BITS + wanted.trailing_zeros() as usize)
        })
    }
}

/// The words that `units` from `first` on are in, with their bits.
fn masks(first: usize, units: usize) -> impl Iterator<Item = (usize, u64)> {
    let end = first + units;
    // No word at all for no units: each mask has a bit.
    let end = if units == 0 { first - first % BITS } else { end };
    (first / BITS..end.div_ceil(BITS)).map(move |word| {
        let from = first.saturating_sub(word * BITS);
        let to = (end - word * BITS).min(BITS);
        (word, (u64::MAX >> (BITS - (to - from))) << from)
    })
}

#[cfg(all(test, not(loom)))]
mod tests;
