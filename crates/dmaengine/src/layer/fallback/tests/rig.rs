//! A layer over a [`Puppet`], with memory to copy about and time to pass.

use std::{sync::Arc, time::Duration};

use super::puppet::{Puppet, Strings};
use crate::{
    ChannelInfo, Clock, Completion, Cookie, DmaChannel, DrivenClock, Fallback, FallbackCause,
    FallbackOptions, FallbackStats, Flags, Layer, Operation, Status, SubmitError,
};

/// Bytes of a cell.
pub(super) const CELL: usize = 64;
pub(super) const CELLS: usize = 512;

/// It begins at a multiple of its length: tests of alignment rely on it.
#[repr(align(64))]
struct Cell(#[expect(dead_code, reason = "reached through pointers")] [u8; CELL]);

pub(super) struct Rig {
    pub(super) channel: Box<dyn DmaChannel>,
    pub(super) engine: Strings,
    pub(super) stats: Arc<FallbackStats>,
    clock: DrivenClock,
    now: Duration,
    /// The test's `CELLS` cells, freed in `drop`. Touched through this pointer alone.
    memory: *mut u8,
}

impl Rig {
    pub(super) fn new(info: ChannelInfo) -> Self {
        let clock = DrivenClock::new();
        let options =
            FallbackOptions { clock: Clock::Driven(clock.clone()), ..FallbackOptions::default() };
        let mut rig = Self::with_options(info, options);
        rig.clock = clock;
        rig.pass(Duration::from_secs(1));
        rig
    }

    /// Time is the options' business.
    pub(super) fn with_options(info: ChannelInfo, options: FallbackOptions) -> Self {
        let (puppet, engine) = Puppet::new(info);
        let fallback = Fallback::new(options);
        let channel = fallback.wrap(Box::new(puppet));
        let [stats] = fallback.stats().try_into().expect("one channel");
        let cells: Box<[_]> = (0..CELLS).map(|cell| Cell([cell as u8; CELL])).collect();
        Self {
            channel,
            engine,
            stats,
            clock: DrivenClock::new(),
            now: Duration::ZERO,
            memory: Box::into_raw(cells).cast(),
        }
    }

    pub(super) fn pass(&mut self, time: Duration) {
        self.now += time;
        self.clock.set(self.now);
    }

    pub(super) fn now(&self) -> Duration {
        self.now
    }

    pub(super) fn at(&self, cell: usize) -> *mut u8 {
        assert!(cell < CELLS);
        // SAFETY: within the memory.
        unsafe { self.memory.add(cell * CELL) }
    }

    /// A cell's bytes; one that differs from its first byte is an error.
    pub(super) fn cell(&self, cell: usize) -> u8 {
        // SAFETY: our memory, and no engine runs but when a test calls it.
        let bytes = unsafe { self.at(cell).cast::<[u8; CELL]>().read() };
        assert!(bytes.iter().all(|byte| *byte == bytes[0]), "cell {cell}: {bytes:?}");
        bytes[0]
    }

    pub(super) fn submit(
        &mut self,
        operation: &Operation<'_>,
        flags: Flags,
    ) -> Result<Cookie, SubmitError> {
        // SAFETY: tests name their cells, which live as long as the channel, and overlap operations
        // only across fences.
        unsafe { self.channel.submit(operation, flags) }
    }

    /// Copies one cell.
    pub(super) fn copy(&mut self, from: usize, to: usize, flags: Flags) -> Cookie {
        let copy = Operation::Memcpy { source: self.at(from), target: self.at(to), len: CELL };
        self.submit(&copy, flags).unwrap()
    }

    /// Copies one cell and rings the doorbell.
    pub(super) fn copy_now(&mut self, from: usize, to: usize) -> Cookie {
        let cookie = self.copy(from, to, Flags::empty());
        self.channel.issue_pending();
        cookie
    }

    /// What one poll reports.
    pub(super) fn poll(&mut self) -> Vec<Completion> {
        let mut ends = Vec::new();
        self.channel.poll(&mut |completion| ends.push(completion));
        ends
    }

    /// What one poll reports, all of which must have succeeded: the cookies' numbers and causes.
    pub(super) fn ends(&mut self) -> Vec<(u64, Option<FallbackCause>)> {
        let ends = self.poll().into_iter();
        ends.map(|Completion { cookie, status, bytes, fallback }| {
            assert_eq!((status, bytes), (Status::Success, CELL));
            (cookie.get(), fallback)
        })
        .collect()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // The test has failed; its memory is leaked.
            return;
        }
        self.engine.state().stuck = false;
        self.channel.terminate_sync(Duration::ZERO).unwrap();
        let memory = std::ptr::slice_from_raw_parts_mut(self.memory.cast::<Cell>(), CELLS);
        // SAFETY: from `Box::into_raw`, and the channel is idle.
        drop(unsafe { Box::from_raw(memory) });
    }
}
