//! A machine, a queue on its device's first channel, and memory to copy.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use dmaengine::{Arena, DmaBuf, DmaDevice, DmaSlice, Done, Queue, Status};
use ioat_model::{Config, Faults};
use ioatdma::{Bar, IoatDevice, Options};

pub(crate) use crate::machine::{Host, Shell, Threaded};

/// Descriptors that channel 0 has processed when its first owner gets it: the self test's start and
/// copy, and the owner's start.
pub(crate) const FIRST: u64 = 3;
/// The model's time, which a test waits for at most. Reaching it is a failure.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// What tests copy: parts of buffers, with a number.
pub(crate) type Copies = Queue<DmaSlice, DmaSlice, usize>;
pub(crate) type Ended = Done<DmaSlice, DmaSlice, usize>;

/// A device, an arena that it can reach, and a queue on channel 0.
pub(crate) struct Rig<S> {
    pub(crate) queue: Copies,
    pub(crate) arena: Arena,
    pub(crate) device: IoatDevice,
    pub(crate) host: Arc<Host<S>>,
}

impl<S: Shell> Rig<S> {
    pub(crate) fn new(config: Config, options: Options) -> Self {
        let host = Host::new(config);
        let device = host.probe(options).expect("a good device");
        let arena = Arena::new(4 << 20).expect("memory");
        device.map(&arena).expect("room");
        let queue = Queue::new(device.request_channel(0).expect("free"));
        Self { queue, arena, device, host }
    }

    pub(crate) fn with_faults(faults: Faults) -> Self {
        Self::new(Config { faults, ..Config::default() }, Options::default())
    }

    pub(crate) fn buffer(&self, len: usize, byte: u8) -> DmaBuf {
        let mut buffer = self.arena.alloc(len).expect("room");
        buffer.fill(byte);
        buffer
    }

    /// Submits a copy of `len` bytes of value `number + 1` over zeros, with guard bytes around.
    pub(crate) fn submit(&mut self, number: usize, len: usize) {
        let source = self.buffer(len, number as u8 + 1).slice(0..len);
        let target = self.buffer(len + 2, 0).slice(1..len + 1);
        self.queue.copy(source, target, number).expect("room in the ring");
    }

    /// Polls until `count` operations have ended.
    pub(crate) fn wait_for(&mut self, count: usize) -> Vec<Ended> {
        let mut ended = Vec::new();
        let start = Instant::now();
        while ended.len() < count {
            self.queue.poll(|done| ended.push(done));
            self.host.delay(Duration::from_micros(1));
            assert!(start.elapsed() < DEADLINE, "{} of {count} ended", ended.len());
        }
        ended
    }

    /// Copies something and expects it to arrive.
    pub(crate) fn works(&mut self) {
        self.submit(100, 10_000);
        self.queue.issue_pending();
        let ended = self.wait_for(1);
        check(&ended[0], Status::Success);
    }
}

/// Checks a copy made by [`Rig::submit`]: number, status and every byte.
pub(crate) fn check(done: &Ended, status: Status) {
    assert_eq!(done.status, status, "operation {}", done.tag);
    let byte = done.tag as u8 + 1;
    assert!(done.source.as_ref().iter().all(|value| *value == byte), "the source is unchanged");
    let target = done.target.as_ref();
    match status {
        Status::Success => {
            assert_eq!(done.bytes, target.len());
            assert!(target.iter().all(|value| *value == byte), "operation {}", done.tag);
        }
        _ => {
            assert_eq!(done.bytes, 0);
            assert!(target.iter().all(|value| [0, byte].contains(value)));
        }
    }
}

/// Numbers that look random and are the same in every run (`SplitMix64`).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`.
    pub(crate) const fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    pub(crate) fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let word = self.next().to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
    }
}
