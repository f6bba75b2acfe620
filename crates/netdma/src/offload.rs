//! Serving posted receives: taking segments, issuing copies, collecting their ends.

use std::{os::fd::BorrowedFd, time::Duration};

use dmaengine::{Done, PacketBuf, PacketSlice, Queue, Refused, Status, Stuck, SubmitError, Target};
use netstack::{Instant, Segment, SocketId, Stack};

use crate::{
    Busy, Copybreak, Counters, CpuCause, Progress, ReceiveId,
    health::Health,
    receive::{Receive, Receives},
};

/// An engine that ended no copy for so long, while it had some, is reset. Linux's `ioatdma` waits
/// as long (`completion_timeout`, 200 ms). On an engine that ends copies out of order, others hide
/// one that does not end.
const STALL_TIMEOUT: Duration = Duration::from_millis(200);

/// How long a reset may take: Linux's `ioat_reset_sync` is given 200 ms.
const RESET_TIMEOUT: Duration = Duration::from_millis(200);

/// After so many resets in a row that could not prove the engine idle, it is lost.
const HOPELESS_RESETS: u32 = 10;

/// A channel that copies from packets to programs' buffers.
pub type Engine = Queue<PacketSlice, Target, Tag>;

/// What the offload attaches to each copy.
#[derive(Clone, Copy, Debug)]
pub struct Tag {
    receive: ReceiveId,
    socket: SocketId,
    /// What the segment holds of the socket's receive buffer, until the copy has ended.
    charge: usize,
}

/// A received packet as the stack holds it.
#[derive(Clone, Debug)]
pub struct RxPacket(pub PacketBuf);

impl AsRef<[u8]> for RxPacket {
    fn as_ref(&self) -> &[u8] {
        self.0.as_ref()
    }
}

impl netstack::PacketBuffer for RxPacket {
    fn truesize(&self) -> usize {
        self.0.truesize()
    }
}

/// The receive copy offload of one stack.
#[derive(Debug)]
pub struct Offload {
    engine: Option<Engine>,
    copybreak: Copybreak,
    health: Health,
    /// When the engine last ended a copy, or was given one while idle.
    progress_at: Instant,
    /// Resets in a row that could not prove the engine idle.
    failed_resets: u32,
    receives: Receives,
    counters: Counters,
}

impl Offload {
    /// An offload over `engine`; without one, every copy is the CPU's.
    #[must_use]
    pub fn new(engine: Option<Engine>, copybreak: Copybreak) -> Self {
        Self {
            engine,
            copybreak,
            health: Health::new(),
            progress_at: Instant::ZERO,
            failed_resets: 0,
            receives: Receives::default(),
            counters: Counters::default(),
        }
    }

    /// What was done so far.
    #[must_use]
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The engine, for its properties and statistics.
    #[must_use]
    pub const fn engine(&self) -> Option<&Engine> {
        self.engine.as_ref()
    }

    /// Sets which reads are offloaded from now on.
    pub const fn set_copybreak(&mut self, copybreak: Copybreak) {
        self.copybreak = copybreak;
    }

    /// Posts a receive: `target` is filled from its start with what `socket` receives. Call
    /// [`serve`](Self::serve) for what is queued already.
    #[must_use]
    pub fn post(&mut self, socket: SocketId, target: Target) -> ReceiveId {
        let offloads = self.copybreak.offloads(target.len());
        self.receives.insert(Receive { socket, target, offloads, taken: 0, in_flight: 0 })
    }

    /// How far a receive has come; `None` if it is not posted.
    #[must_use]
    pub fn progress(&self, id: ReceiveId) -> Option<Progress> {
        self.receives.get(id).map(|receive| Progress {
            taken: receive.taken,
            in_flight: receive.in_flight,
            room: receive.target.len(),
        })
    }

    /// Ends a receive and gives back how many bytes its buffer holds; 0 if it is not posted.
    ///
    /// # Errors
    ///
    /// [`Busy`] while copies into the buffer are in flight. Nothing changed then.
    pub fn withdraw(&mut self, id: ReceiveId) -> Result<usize, Busy> {
        match self.receives.get(id) {
            Some(receive) if receive.in_flight > 0 => Err(Busy),
            _ => Ok(self.receives.remove(id).map_or(0, |receive| receive.taken)),
        }
    }

    /// Moves what is queued on the receive's socket into its buffer: the early copy. Call it for
    /// each posted receive whose socket became readable, after each batch of packets and before any
    /// program wakes. Copies given to the engine have one doorbell. An engine that is down is reset,
    /// in bounded time.
    pub fn serve(&mut self, stack: &mut Stack<RxPacket>, now: Instant, id: ReceiveId) {
        let Self { engine, copybreak, health, progress_at, receives, counters, .. } = self;
        let Some(receive) = receives.get_mut(id) else { return };
        let may_offload = if engine.is_none() || *copybreak == Copybreak::Off {
            Err(CpuCause::NoEngine)
        } else if !receive.offloads {
            Err(CpuCause::Copybreak)
        } else {
            Ok(())
        };
        let mut issued = false;
        while !receive.target.is_empty() {
            let Some(segment) = stack.take(receive.socket, receive.target.len()) else { break };
            let Segment { buffer: RxPacket(packet), range, charge, .. } = segment;
            let mut target = receive.target.split_to(range.len());
            receive.taken += range.len();
            let tag = Tag { receive: id, socket: receive.socket, charge };
            let source = packet.into_slice(range);
            let refused = match (&mut *engine, may_offload) {
                (Some(engine), Ok(())) if health.is_trusted(now) => {
                    if engine.is_idle() {
                        *progress_at = now;
                    }
                    match engine.copy(source, target, tag) {
                        Ok(_cookie) => {
                            receive.in_flight += 1;
                            counters.copies_issued += 1;
                            issued = true;
                            continue;
                        }
                        Err(Refused { error, source, target: whole, .. }) => {
                            target = whole;
                            if error == SubmitError::ChannelDown && engine.is_idle() {
                                // It did not start again after its last reset, and nothing is in
                                // flight whose stall would reset it once more.
                                if engine.terminate_sync(RESET_TIMEOUT, |_| {}) == Err(Stuck) {
                                    health.reset_failed(now + RESET_TIMEOUT);
                                }
                                counters.engine_resets += 1;
                            }
                            (source, cause_of_refusal(error, health, now))
                        }
                    }
                }
                (Some(_), Ok(())) => (source, CpuCause::Resting),
                (_, Err(cause)) => (source, cause),
                (None, Ok(())) => (source, CpuCause::NoEngine),
            };
            let (source, cause) = refused;
            target.as_mut().copy_from_slice(source.as_ref());
            counters.count_cpu(cause, source.as_ref().len());
            stack.release(now, tag.socket, charge);
        }
        if issued && let Some(engine) = engine {
            engine.issue_pending();
        }
    }

    /// Collects copies that have ended: releases their segments, and does again with the CPU what
    /// the engine failed. An engine that stands still is reset. Never waits for the engine, except
    /// for a reset, in bounded time.
    ///
    /// `idle` is told each socket whose receive has no copy in flight any more.
    ///
    /// Call it after each batch, when [`event`](Self::event) is readable, and at
    /// [`poll_timeout`](Self::poll_timeout).
    pub fn reap(
        &mut self,
        stack: &mut Stack<RxPacket>,
        now: Instant,
        mut idle: impl FnMut(SocketId),
    ) {
        let Self { engine, health, progress_at, failed_resets, receives, counters, .. } = self;
        let Some(engine) = engine else { return };
        if engine.is_idle() {
            return;
        }
        let mut settle = |done: Done<PacketSlice, Target, Tag>| {
            let Done { status, source, mut target, tag, .. } = done;
            let bytes = source.as_ref();
            if status == Status::Success {
                counters.bytes_by_engine += bytes.len() as u64;
                health.succeeded();
            } else {
                // The engine gave the memory back, so this is its only writer now. The whole
                // segment is copied again: a prefix that arrived is written twice, not wrongly.
                target.as_mut().copy_from_slice(bytes);
                counters.count_cpu(CpuCause::Failed, bytes.len());
                counters.copies_repeated += 1;
                health.failed(now);
            }
            if let Some(receive) = receives.get_mut(tag.receive) {
                receive.in_flight -= 1;
                if receive.in_flight == 0 {
                    idle(tag.socket);
                }
            }
            stack.release(now, tag.socket, tag.charge);
        };
        if engine.poll(&mut settle) > 0 {
            *progress_at = now;
            *failed_resets = 0;
        } else if now - *progress_at >= STALL_TIMEOUT {
            // If it cannot be proven idle, the copies stay in flight and the next call after
            // another timeout tries again; the receive calls that wait for them cannot return.
            match engine.terminate_sync(RESET_TIMEOUT, &mut settle) {
                Ok(()) => {
                    *failed_resets = 0;
                    *progress_at = now;
                    health.failed(now);
                }
                Err(Stuck) => {
                    // The time that it took has passed since `now`.
                    *failed_resets += 1;
                    *progress_at = now + RESET_TIMEOUT;
                    health.reset_failed(*progress_at);
                }
            }
            counters.engine_resets += 1;
        }
    }

    /// Whether the engine holds memory and could not be stopped for some seconds. There is no way
    /// left to end the receive calls whose buffers it holds; [`dmaengine::lend`] aborts the process
    /// when such a call gives up.
    #[must_use]
    pub const fn is_engine_lost(&self) -> bool {
        self.failed_resets >= HOPELESS_RESETS
    }

    /// When [`reap`](Self::reap) must be called at the latest; `None` if nothing is in flight.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let engine = self.engine.as_ref()?;
        (!engine.is_idle()).then(|| self.progress_at + STALL_TIMEOUT)
    }

    /// Asks for one event when all copies issued so far have ended. `false` if there is nothing to
    /// wait for, or the engine has no event: reap instead.
    pub fn arm(&mut self) -> bool {
        self.engine.as_mut().is_some_and(Engine::arm)
    }

    /// What becomes readable when the armed event fires.
    #[must_use]
    pub fn event(&self) -> Option<BorrowedFd<'_>> {
        self.engine.as_ref()?.event()
    }
}

fn cause_of_refusal(error: SubmitError, health: &mut Health, now: Instant) -> CpuCause {
    match error {
        SubmitError::RingFull => CpuCause::RingFull,
        SubmitError::Unreachable { .. } => CpuCause::Unreachable,
        _ => {
            health.failed(now);
            CpuCause::Failed
        }
    }
}
