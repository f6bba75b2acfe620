//! A wire in memory, between two stacks of one process.

use std::{
    collections::VecDeque,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use dmaengine::{Arena, ArenaFull, PacketBuf};
use rustix::event::{EventfdFlags, eventfd};

use crate::{
    BufferCounts, Link, LinkInfo, ReceiveError, RxInfo, Statistics, TransmitError, TxInfo,
    buffers::Buffers, offload::MAX_SUPER_FRAME_LEN,
};

/// The properties of a [`Wire`], the same in both directions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WireConfig {
    /// From transmission to arrival, on the scale of `now`.
    pub delay: Duration,
    /// Frames that can be under way in one direction; more are refused with
    /// [`TransmitError::Full`].
    pub queue: usize,
    /// The most bytes behind the Ethernet header.
    pub mtu: usize,
    /// Whether partial checksums and super-frames are carried, as between a guest and its host.
    pub offload: bool,
    /// Receive buffers of each end.
    pub buffers: BufferCounts,
    /// Whether arrivals can be waited for with [`Link::event`]. In virtual time nobody does, and
    /// the system calls can be saved.
    pub event: bool,
}

impl Default for WireConfig {
    fn default() -> Self {
        Self {
            delay: Duration::ZERO,
            queue: 1024,
            mtu: 1500,
            offload: true,
            buffers: BufferCounts { small: 1024, large: 128 },
            event: true,
        }
    }
}

impl WireConfig {
    /// The bytes of arena memory that one end takes at most.
    #[must_use]
    pub fn arena_len(&self) -> usize {
        self.buffers.arena_len(self.info(0).frame_max())
    }

    fn info(&self, end: u8) -> LinkInfo {
        let mut info = LinkInfo {
            name: format!("wire{end}"),
            mac: [0x02, 0, 0, 0, 0, end + 1],
            mtu: self.mtu,
            checksum_offload: self.offload,
            tso_max: self.offload.then_some(MAX_SUPER_FRAME_LEN),
            receive_memory: 0,
        };
        info.receive_memory = self.buffers.receive_memory(info.frame_max());
        info
    }
}

/// Makes wires.
#[derive(Debug)]
pub struct Wire;

/// Why a [`Wire`] could not be made.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The arena has no room for the receive buffers.
    #[error("no receive buffers for the wire, which take {needed} bytes: {source}")]
    Buffers {
        /// What the buffers of both ends take, in bytes.
        needed: usize,
        /// What the arena said.
        source: ArenaFull,
    },
    /// No eventfd: too many files are open.
    #[error("no event descriptor for the wire: {0}")]
    Event(#[source] std::io::Error),
}

impl Wire {
    /// The two ends of a new wire, both with their receive buffers in `arena`, which needs twice
    /// [`WireConfig::arena_len`].
    ///
    /// The ends may be used by two threads; both then give the time since the same epoch. When one
    /// end is dropped the cable is cut: what the other transmits is lost without an error.
    ///
    /// # Errors
    ///
    /// See [`WireError`].
    pub fn pair(arena: &Arena, config: &WireConfig) -> Result<(WireLink, WireLink), WireError> {
        let a = Arc::new(Direction::new(arena, config)?);
        let b = Arc::new(Direction::new(arena, config)?);
        let end = |number, incoming: &Arc<Direction>, outgoing: &Arc<Direction>| WireLink {
            info: config.info(number),
            incoming: Arc::clone(incoming),
            outgoing: Arc::clone(outgoing),
            statistics: Statistics::default(),
        };
        Ok((end(0, &a, &b), end(1, &b, &a)))
    }
}

/// One end of a [`Wire`].
#[derive(Debug)]
pub struct WireLink {
    info: LinkInfo,
    incoming: Arc<Direction>,
    outgoing: Arc<Direction>,
    statistics: Statistics,
}

/// What is under way to one end.
#[derive(Debug)]
struct Direction {
    state: Mutex<State>,
    /// Where the frames lie.
    buffers: Buffers,
    event: Option<OwnedFd>,
    delay: Duration,
    capacity: usize,
}

#[derive(Debug)]
struct State {
    /// In the order of arrival, since all are delayed by the same time.
    frames: VecDeque<InFlight>,
    /// Whether the event is readable.
    signalled: bool,
    /// Whether the receiving end was dropped.
    cut: bool,
}

#[derive(Debug)]
struct InFlight {
    arrival: Duration,
    frame: PacketBuf,
    info: RxInfo,
}

impl Direction {
    fn new(arena: &Arena, config: &WireConfig) -> Result<Self, WireError> {
        let frame_max = config.info(0).frame_max();
        let buffers = Buffers::new(arena, frame_max, config.buffers)
            .map_err(|source| WireError::Buffers { needed: 2 * config.arena_len(), source })?;
        let event = config
            .event
            .then(|| eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC))
            .transpose()
            .map_err(|errno| WireError::Event(errno.into()))?;
        let frames = VecDeque::with_capacity(config.queue);
        Ok(Self {
            state: Mutex::new(State { frames, signalled: false, cut: false }),
            buffers,
            event,
            delay: config.delay,
            capacity: config.queue,
        })
    }

    /// The state. Nothing that can panic runs while it is locked, and it is valid at any time.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the event readable, or not. An eventfd of value 0 or 1 takes both without waiting.
    fn signal(&self, state: &mut State, readable: bool) {
        let Some(event) = &self.event else { return };
        if state.signalled != readable {
            state.signalled = readable;
            let mut value = 1_u64.to_ne_bytes();
            let done = if readable {
                rustix::io::write(event, &value)
            } else {
                rustix::io::read(event, &mut value)
            };
            debug_assert_eq!(done, Ok(8), "an eventfd of value 0 or 1");
        }
    }

    fn transmit(&self, now: Duration, frame: &[u8], info: RxInfo) -> Result<(), TransmitError> {
        let mut state = self.lock();
        if state.cut {
            return Ok(());
        }
        if state.frames.len() >= self.capacity {
            return Err(TransmitError::Full);
        }
        let frame = self.buffers.copy(frame).ok_or(TransmitError::Full)?;
        state.frames.push_back(InFlight { arrival: now.saturating_add(self.delay), frame, info });
        self.signal(&mut state, true);
        Ok(())
    }

    /// The next frame that has arrived by `now`.
    fn receive(&self, now: Duration) -> Option<InFlight> {
        self.lock().frames.pop_front_if(|front| front.arrival <= now)
    }

    /// Ends a batch: the event stays readable only if more has arrived.
    fn settle(&self, now: Duration) {
        let mut state = self.lock();
        let more = state.frames.front().is_some_and(|front| front.arrival <= now);
        self.signal(&mut state, more);
    }
}

impl Link for WireLink {
    fn info(&self) -> &LinkInfo {
        &self.info
    }

    fn statistics(&self) -> &Statistics {
        &self.statistics
    }

    fn receive(
        &mut self,
        now: Duration,
        max: usize,
        each: &mut dyn FnMut(PacketBuf, RxInfo),
    ) -> Result<usize, ReceiveError> {
        let mut received = 0;
        while received < max
            && let Some(InFlight { frame, info, .. }) = self.incoming.receive(now)
        {
            received += 1;
            self.statistics.count_received(frame.as_ref().len());
            // Not locked: `each` may transmit at the other end.
            each(frame, info);
        }
        self.incoming.settle(now);
        Ok(received)
    }

    fn transmit(&mut self, now: Duration, frame: &[u8], info: TxInfo) -> Result<(), TransmitError> {
        let outcome = info
            .check(frame, &self.info)
            .and_then(|()| self.outgoing.transmit(now, frame, info.seen_by_receiver()));
        self.statistics.count_transmitted(frame.len(), &outcome);
        outcome
    }

    fn event(&self) -> Option<BorrowedFd<'_>> {
        self.incoming.event.as_ref().map(AsFd::as_fd)
    }

    fn poll_timeout(&self) -> Option<Duration> {
        self.incoming.lock().frames.front().map(|front| front.arrival)
    }
}

impl Drop for WireLink {
    fn drop(&mut self) {
        let mut state = self.incoming.lock();
        state.cut = true;
        state.frames.clear();
    }
}

#[cfg(test)]
mod tests;
