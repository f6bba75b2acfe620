//! The data frames of a [`Generator`](super::Generator): prepared once, sent again and again.

use std::{fmt, fs, str::FromStr};

use dmaengine::{Arena, ArenaFull, PacketBuf, PacketPool};

use super::headers::{DATA_HEADER_LEN, Station, Tcp};
use crate::lab::Pattern;

/// So much cold memory where the system does not say how large its last-level cache is, in bytes.
const DEFAULT_CACHE: usize = 32 << 20;

/// Frames whose headers are written before they are sent, and as many again whose headers are
/// fetched before they are written: the receiver finds them in its cache, as after a network card's
/// DMA (DDIO) and a driver's prefetch, and does not wait for a sender's misses.
const AHEAD: u64 = 16;

const CONTENT: Pattern = Pattern::new(0x6e57);

/// How long the data frames are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FrameKind {
    /// The longest that Linux's TCP sends over a link with segmentation offload: 45 segments in one
    /// frame.
    Super,
    /// One segment of a link with an MTU of 1500.
    Segment,
}

impl FrameKind {
    /// Bytes of payload.
    #[must_use]
    pub const fn payload(self) -> usize {
        match self {
            Self::Super => 45 * 1448,
            Self::Segment => 1448,
        }
    }

    /// The length of a receive buffer in bytes: as the links of `netdev` have them.
    const fn slot_len(self) -> usize {
        match self {
            Self::Super => 17 * 4096,
            Self::Segment => netdev::SMALL_SLOT_LEN,
        }
    }
}

impl fmt::Display for FrameKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Super => "64K",
            Self::Segment => "1448",
        })
    }
}

/// A text that names no length of frames.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("frames of `{0}` are not sent: use 64K or 1448")]
pub struct ParseFrameError(String);

impl FromStr for FrameKind {
    type Err = ParseFrameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::Super, Self::Segment]
            .into_iter()
            .find(|kind| kind.to_string() == text)
            .ok_or_else(|| ParseFrameError(text.into()))
    }
}

/// A ring of frames with payload. A stream's frames are taken in the order of the ring, which is
/// larger than the last-level cache: payload is cold when it is received.
pub(super) struct Frames {
    kind: FrameKind,
    /// As many as a power of two. Empty only while a frame's header is being rewritten.
    ring: Box<[Option<PacketBuf>]>,
    /// The place in the ring of the stream's first frame.
    base: u64,
    /// How many it has.
    len: u64,
    /// The first frame of the stream whose headers are not written.
    unwritten: u64,
}

impl Frames {
    /// How many frames of this kind are more than the last-level cache holds.
    pub(super) fn count(kind: FrameKind) -> usize {
        let cache = last_level_cache().unwrap_or(DEFAULT_CACHE);
        (2 * cache / kind.payload()).next_power_of_two()
    }

    /// The arena memory that `count` frames take, in bytes.
    pub(super) const fn arena_len(kind: FrameKind, count: usize) -> usize {
        count * kind.slot_len()
    }

    pub(super) fn new(
        arena: &Arena,
        kind: FrameKind,
        count: usize,
        from: Station,
        to: Station,
    ) -> Result<Self, ArenaFull> {
        assert!(count.is_power_of_two(), "{count} frames: places are found by masking");
        let pool = PacketPool::new(arena, kind.slot_len(), count)?;
        let payload = kind.payload();
        let blank = Tcp {
            source_port: 0,
            destination_port: 0,
            seq: 0,
            ack: 0,
            flags: 0,
            timestamps: (0, 0),
        };
        let ring = (0..count as u64)
            .map(|place| {
                let mut slot = pool.take()?;
                let bytes = slot.as_mut();
                let header_len = blank.write(bytes, from, to, payload);
                let end = header_len + payload;
                CONTENT.fill(place * payload as u64, &mut bytes[header_len..end]);
                Some(slot.freeze(end))
            })
            .collect();
        Ok(Self { kind, ring, base: 0, len: 0, unwritten: 0 })
    }

    pub(super) const fn kind(&self) -> FrameKind {
        self.kind
    }

    /// The packet memory of all frames, in bytes.
    pub(super) const fn memory(&self) -> usize {
        Self::arena_len(self.kind, self.ring.len())
    }

    /// Begins a stream of `len` frames, behind the one before: the coldest come first.
    pub(super) const fn begin(&mut self, len: u64) {
        self.base = self.base.wrapping_add(self.len);
        self.len = len;
        self.unwritten = 0;
    }

    /// What this stream consists of.
    pub(super) const fn content(&self) -> Content {
        let len = self.kind.payload() as u64;
        let frames = self.ring.len() as u64;
        Content { start: self.base % frames * len, period: frames * len }
    }

    const fn place(&self, frame: u64) -> usize {
        (self.base.wrapping_add(frame) as usize) & (self.ring.len() - 1)
    }

    /// A handle to a frame of the stream; `None` if somebody still has its place's last one. `header`
    /// gives the headers of a frame.
    #[inline]
    pub(super) fn get(&mut self, frame: u64, header: impl Fn(u64) -> Tcp) -> Option<PacketBuf> {
        if frame >= self.unwritten {
            self.write(frame + AHEAD, header);
        }
        if frame >= self.unwritten {
            return None;
        }
        self.ring[self.place(frame)].clone()
    }

    /// Writes the headers of all frames before `end`, up to the first that somebody has.
    fn write(&mut self, end: u64, header: impl Fn(u64) -> Tcp) {
        while self.unwritten < end {
            if let Some(later) = &self.ring[self.place(self.unwritten + AHEAD)] {
                prefetch(later);
            }
            let place = self.place(self.unwritten);
            let Some(packet) = self.ring[place].take() else { return };
            let len = packet.len();
            match packet.try_into_mut() {
                Ok(mut slot) => {
                    header(self.unwritten).rewrite(slot.as_mut(), DATA_HEADER_LEN);
                    self.ring[place] = Some(slot.freeze(len));
                    self.unwritten += 1;
                }
                Err(packet) => {
                    self.ring[place] = Some(packet);
                    return;
                }
            }
        }
    }
}

impl fmt::Debug for Frames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, ring, base, len, unwritten } = self;
        f.debug_struct("Frames")
            .field("kind", kind)
            .field("count", &ring.len())
            .field("base", base)
            .field("len", len)
            .field("unwritten", unwritten)
            .finish()
    }
}

/// Begins to load a frame's headers into the cache.
fn prefetch(frame: &[u8]) {
    // Only x86-64 has a stable intrinsic. Elsewhere the headers are cold when they are written.
    #[cfg(target_arch = "x86_64")]
    for line in frame[..DATA_HEADER_LEN].chunks(64) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: it is a hint, which reads nothing as far as the program is concerned, and every
        // processor has it.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = frame;
}

/// What a stream consists of: the same again and again, from some place on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Content {
    /// The stream's first byte, in the period.
    pub(super) start: u64,
    /// In bytes.
    pub(super) period: u64,
}

impl Content {
    /// The offset in the stream of the first of `bytes`, which start at `offset`, that is wrong.
    pub(super) fn first_wrong(&self, mut offset: u64, mut bytes: &[u8]) -> Option<u64> {
        while !bytes.is_empty() {
            let at = (self.start + offset) % self.period;
            let until_end = usize::try_from(self.period - at).unwrap_or(usize::MAX);
            let (piece, rest) = bytes.split_at(bytes.len().min(until_end));
            if let Some(wrong) = CONTENT.first_wrong(at, piece) {
                return Some(offset + (wrong - at));
            }
            offset += piece.len() as u64;
            bytes = rest;
        }
        None
    }
}

/// The size of the largest cache of the first processor, in bytes.
fn last_level_cache() -> Option<usize> {
    let caches = fs::read_dir("/sys/devices/system/cpu/cpu0/cache").ok()?;
    caches
        .filter_map(|cache| {
            let size = fs::read_to_string(cache.ok()?.path().join("size")).ok()?;
            size.trim().strip_suffix('K')?.parse::<usize>().ok()
        })
        .max()
        .map(|kib| kib << 10)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const STATION: Station = Station { mac: [2; 6], address: Ipv4Addr::LOCALHOST };

    fn frames(count: usize) -> Frames {
        let kind = FrameKind::Segment;
        let arena = Arena::new(Frames::arena_len(kind, count)).unwrap();
        Frames::new(&arena, kind, count, STATION, STATION).unwrap()
    }

    fn header(frame: u64) -> Tcp {
        let seq = frame as u32;
        Tcp { source_port: 1, destination_port: 2, seq, ack: 3, flags: 4, timestamps: (5, 6) }
    }

    /// The sequence number and whether the payload is the stream's.
    fn read(frames: &Frames, frame: u64, packet: &[u8]) -> (u32, bool) {
        let (headers, payload) = packet.split_at(DATA_HEADER_LEN);
        let seq = u32::from_be_bytes(*headers[38..].first_chunk().unwrap());
        (seq, frames.content().first_wrong(frame * 1448, payload).is_none())
    }

    #[test]
    fn kinds_are_parsed() {
        for kind in [FrameKind::Super, FrameKind::Segment] {
            assert_eq!(kind.to_string().parse(), Ok(kind));
            let frames = Frames::count(kind);
            assert!(frames * kind.payload() > last_level_cache().unwrap_or(0));
        }
        assert!("9000".parse::<FrameKind>().is_err());
    }

    #[test]
    fn a_stream_goes_round_the_ring() {
        let mut frames = frames(32);
        for stream in 0..3 {
            frames.begin(50);
            for frame in 0..50 {
                let packet = frames.get(frame, header).expect("nobody has one");
                assert_eq!(read(&frames, frame, &packet), (frame as u32, true), "{stream}");
            }
        }
    }

    #[test]
    fn a_frame_that_somebody_has_is_not_written() {
        let mut frames = frames(32);
        let first = frames.get(0, header).expect("nobody has it");
        let held = first.clone();
        for frame in 1..32 {
            assert!(frames.get(frame, header).is_some());
        }
        assert!(frames.get(32, header).is_none(), "the place of the first");
        assert_eq!(read(&frames, 0, &held), (0, true));
        // To be sent again it needs no writing.
        assert!(frames.get(0, header).is_some());
        drop((first, held));
        assert_eq!(read(&frames, 32, &frames.ring[0].clone().unwrap()), (0, true));
        let next = frames.get(32, header).expect("nobody has it");
        assert_eq!(read(&frames, 32, &next).0, 32);
    }

    #[test]
    fn a_wrong_byte_is_found_across_the_period() {
        let content = Content { start: 90, period: 100 };
        let mut bytes = vec![0; 250];
        for (at, byte) in bytes.iter_mut().enumerate() {
            let mut one = [0];
            CONTENT.fill((90 + at as u64) % 100, &mut one);
            *byte = one[0];
        }
        assert_eq!(content.first_wrong(0, &bytes), None);
        assert_eq!(content.first_wrong(30, &bytes[30..]), None);
        bytes[211] ^= 1;
        assert_eq!(content.first_wrong(0, &bytes), Some(211));
    }
}
