//! A bad network, over any link, from a seed.

use std::{cmp::Reverse, collections::BinaryHeap, os::fd::BorrowedFd, time::Duration};

use dmaengine::{Arena, ArenaFull, PacketBuf};

use crate::{
    BufferCounts, Link, LinkInfo, ReceiveError, RxInfo, Statistics, TransmitError, TxInfo,
    buffers::Buffers, offload::ETHERNET_HEADER_LEN, random::SplitMix64,
};

/// Buffers for received frames that are corrupted; there is one more frame lost if they run out.
const CORRUPTED: BufferCounts = BufferCounts { small: 64, large: 16 };

/// What happens to the frames of one direction. Probabilities are from 0 to 1, drawn independently
/// for each frame. The default is a perfect network.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Profile {
    /// The probability that a frame vanishes.
    pub loss: f64,
    /// The probability that a frame comes twice.
    pub duplicate: f64,
    /// The probability that one bit of a frame flips. See [`Faults`] for which bits.
    pub corrupt: f64,
    /// The probability that a frame is held back for [`hold`](Self::hold), so that later ones
    /// overtake it.
    pub reorder: f64,
    /// How long a reordered frame is held back, beyond the delay.
    pub hold: Duration,
    /// How much later every frame comes.
    pub delay: Duration,
}

impl Profile {
    fn probabilities(&self) -> [f64; 4] {
        let Self { loss, duplicate, corrupt, reorder, hold: _, delay: _ } = *self;
        [loss, duplicate, corrupt, reorder]
    }
}

/// How many frames met which fault.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultStatistics {
    /// Vanished.
    pub lost: u64,
    /// Came twice.
    pub duplicated: u64,
    /// With one bit flipped.
    pub corrupted: u64,
    /// Held back.
    pub reordered: u64,
    /// Transmitted late or a second time, and refused by the link.
    pub refused: u64,
}

/// Why there can be no such [`Faults`].
#[derive(Debug, thiserror::Error)]
pub enum FaultsError {
    /// A probability outside 0 to 1.
    #[error("{0} is not a probability: give a number from 0 to 1")]
    BadProbability(f64),
    /// With checksum offload nobody would notice the flipped bits.
    #[error("corruption would go unnoticed on a link with checksum offload: open it without")]
    CorruptionUnnoticed,
    /// The arena has no room for corrupted frames.
    #[error("no buffers for corrupted frames, which take {needed} bytes: {source}")]
    Buffers {
        /// What they take, in bytes.
        needed: usize,
        /// What the arena said.
        source: ArenaFull,
    },
}

/// A link whose frames are lost, doubled, reordered, delayed and corrupted, in both directions. The
/// same seed and the same calls give the same faults.
///
/// # Corruption
///
/// One bit flips, somewhere behind the Ethernet header, in frames that carry IPv4 or IPv6. The
/// Internet checksum notices every such flip, so a byte stream over it must arrive whole. Nothing
/// above the Ethernet's own check sequence protects other frames (ARP) and the Ethernet header:
/// they stay as they are. On a link with checksum offload corruption is refused.
#[derive(Debug)]
pub struct Faults<L> {
    link: L,
    transmit: Lane<(Vec<u8>, TxInfo)>,
    receive: Lane<(PacketBuf, RxInfo)>,
    corrupted: Option<Buffers>,
    /// A frame that is being corrupted.
    scratch: Vec<u8>,
    /// The memory of frames that were transmitted late, to be used again.
    spare: Vec<Vec<u8>>,
}

impl<L: Link> Faults<L> {
    /// Puts faults over `link`. `arena` needs [`arena_len`](Self::arena_len) bytes if received
    /// frames are to be corrupted.
    ///
    /// # Errors
    ///
    /// See [`FaultsError`].
    pub fn new(
        link: L,
        arena: &Arena,
        seed: u64,
        transmit: Profile,
        receive: Profile,
    ) -> Result<Self, FaultsError> {
        for probability in transmit.probabilities().into_iter().chain(receive.probabilities()) {
            if !(0.0..=1.0).contains(&probability) {
                return Err(FaultsError::BadProbability(probability));
            }
        }
        if link.info().checksum_offload && (transmit.corrupt > 0.0 || receive.corrupt > 0.0) {
            return Err(FaultsError::CorruptionUnnoticed);
        }
        let frame_max = link.info().frame_max();
        let corrupted = (receive.corrupt > 0.0)
            .then(|| Buffers::new(arena, frame_max, CORRUPTED))
            .transpose()
            .map_err(|source| FaultsError::Buffers {
                needed: Self::arena_len(link.info()),
                source,
            })?;
        // One stream of numbers per direction: traffic in one does not move the other's faults.
        let mut seeds = SplitMix64::new(seed);
        Ok(Self {
            link,
            transmit: Lane::new(transmit, seeds.next()),
            receive: Lane::new(receive, seeds.next()),
            corrupted,
            scratch: Vec::new(),
            spare: Vec::new(),
        })
    }

    /// The bytes of arena memory that corrupting received frames takes.
    #[must_use]
    pub fn arena_len(link: &LinkInfo) -> usize {
        CORRUPTED.arena_len(link.frame_max())
    }

    /// What happened to transmitted frames.
    #[must_use]
    pub const fn transmit_faults(&self) -> FaultStatistics {
        self.transmit.statistics
    }

    /// What happened to received frames.
    #[must_use]
    pub const fn receive_faults(&self) -> FaultStatistics {
        self.receive.statistics
    }

    /// Transmits what was held back until now.
    fn transmit_due(&mut self, now: Duration) {
        let Self { link, transmit, spare, .. } = self;
        while let Some((frame, info)) = transmit.due(now) {
            // Whoever sent it was told that it went out: a network that is full drops.
            if link.transmit(now, &frame, info).is_err() {
                transmit.statistics.refused += 1;
            }
            spare.push(frame);
        }
    }
}

impl<L: Link> Link for Faults<L> {
    fn info(&self) -> &LinkInfo {
        self.link.info()
    }

    fn statistics(&self) -> &Statistics {
        self.link.statistics()
    }

    fn receive(
        &mut self,
        now: Duration,
        max: usize,
        each: &mut dyn FnMut(PacketBuf, RxInfo),
    ) -> Result<usize, ReceiveError> {
        self.transmit_due(now);
        let Self { link, receive, corrupted, scratch, .. } = self;
        let mut received = 0;
        let room = max - receive.count_due(now).min(max);
        let outcome = link.receive(now, room, &mut |mut frame, info| {
            let Some(fate) = receive.judge(frame.as_ref()) else { return };
            if let Some(bit) = fate.flip {
                flip(scratch, frame.as_ref(), bit);
                match corrupted.as_ref().and_then(|buffers| buffers.copy(scratch)) {
                    Some(copy) => frame = copy,
                    None => return,
                }
            }
            let due = now.saturating_add(fate.delay);
            if fate.twice {
                receive.hold(due, (frame.clone(), info));
            }
            receive.hold(due, (frame, info));
        });
        while received < max
            && let Some((frame, info)) = receive.due(now)
        {
            received += 1;
            each(frame, info);
        }
        match outcome {
            Err(error) if received == 0 => Err(error),
            _ => Ok(received),
        }
    }

    fn transmit(&mut self, now: Duration, frame: &[u8], info: TxInfo) -> Result<(), TransmitError> {
        self.transmit_due(now);
        let Self { link, transmit, scratch, spare, .. } = self;
        if info.check(frame, link.info()).is_err() {
            // The link refuses it now, and counts that; held back it would be too late.
            return link.transmit(now, frame, info);
        }
        let Some(fate) = transmit.judge(frame) else { return Ok(()) };
        let frame = match fate.flip {
            None => frame,
            Some(bit) => {
                flip(scratch, frame, bit);
                scratch
            }
        };
        if fate.delay.is_zero() {
            link.transmit(now, frame, info)?;
            if fate.twice && link.transmit(now, frame, info).is_err() {
                // The frame itself went out: that is what the caller asked for.
                transmit.statistics.refused += 1;
            }
            return Ok(());
        }
        for _ in 0..1 + u8::from(fate.twice) {
            let mut copy = spare.pop().unwrap_or_default();
            copy.clear();
            copy.extend_from_slice(frame);
            transmit.hold(now.saturating_add(fate.delay), (copy, info));
        }
        Ok(())
    }

    fn event(&self) -> Option<BorrowedFd<'_>> {
        self.link.event()
    }

    fn poll_timeout(&self) -> Option<Duration> {
        [self.link.poll_timeout(), self.transmit.next_due(), self.receive.next_due()]
            .into_iter()
            .flatten()
            .min()
    }
}

/// One direction: who meets which fault, and who waits.
#[derive(Debug)]
struct Lane<F> {
    profile: Profile,
    random: SplitMix64,
    held: BinaryHeap<Reverse<Held<F>>>,
    /// Frames held so far, which orders those that are due at the same time.
    count: u64,
    statistics: FaultStatistics,
}

#[derive(Debug)]
struct Held<F> {
    due: Duration,
    order: u64,
    frame: F,
}

impl<F> Ord for Held<F> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.due, self.order).cmp(&(other.due, other.order))
    }
}

impl<F> PartialOrd for Held<F> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<F> PartialEq for Held<F> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<F> Eq for Held<F> {}

/// What happens to a frame that is not lost.
struct Fate {
    /// The bit that flips.
    flip: Option<usize>,
    twice: bool,
    delay: Duration,
}

impl<F> Lane<F> {
    fn new(profile: Profile, seed: u64) -> Self {
        Self {
            profile,
            random: SplitMix64::new(seed),
            held: BinaryHeap::new(),
            count: 0,
            statistics: FaultStatistics::default(),
        }
    }

    /// Decides over the next frame; `None` if it is lost.
    fn judge(&mut self, frame: &[u8]) -> Option<Fate> {
        let Self { profile, random, statistics, .. } = self;
        // All are drawn for every frame, so that one more fault leaves the others where they were.
        let lost = random.chance(profile.loss);
        let twice = random.chance(profile.duplicate);
        let corrupt = random.chance(profile.corrupt);
        let reorder = random.chance(profile.reorder);
        let bits = 8 * frame.len().saturating_sub(ETHERNET_HEADER_LEN);
        let bit = random.below(bits.max(1));
        if lost {
            statistics.lost += 1;
            return None;
        }
        let flip =
            (corrupt && bits > 0 && carries_ip(frame)).then_some(8 * ETHERNET_HEADER_LEN + bit);
        statistics.corrupted += u64::from(flip.is_some());
        statistics.duplicated += u64::from(twice);
        statistics.reordered += u64::from(reorder);
        let hold = if reorder { profile.hold } else { Duration::ZERO };
        Some(Fate { flip, twice, delay: profile.delay.saturating_add(hold) })
    }

    fn hold(&mut self, due: Duration, frame: F) {
        self.held.push(Reverse(Held { due, order: self.count, frame }));
        self.count += 1;
    }

    /// The next frame that is due by `now`.
    fn due(&mut self, now: Duration) -> Option<F> {
        if self.next_due()? > now {
            return None;
        }
        self.held.pop().map(|Reverse(held)| held.frame)
    }

    fn count_due(&self, now: Duration) -> usize {
        self.held.iter().filter(|held| held.0.due <= now).count()
    }

    fn next_due(&self) -> Option<Duration> {
        self.held.peek().map(|held| held.0.due)
    }
}

/// Whether the Ethernet header announces IPv4 or IPv6.
fn carries_ip(frame: &[u8]) -> bool {
    matches!(frame.get(12..ETHERNET_HEADER_LEN), Some([0x08, 0x00] | [0x86, 0xdd]))
}

/// Makes `scratch` a copy of `frame` with one bit flipped.
fn flip(scratch: &mut Vec<u8>, frame: &[u8], bit: usize) {
    scratch.clear();
    scratch.extend_from_slice(frame);
    scratch[bit / 8] ^= 1 << (bit % 8);
}

#[cfg(test)]
mod tests;
