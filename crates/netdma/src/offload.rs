//! Serving posted receives: taking segments, issuing copies, collecting their ends.

use std::{os::fd::BorrowedFd, sync::Arc};

use dmaengine::{
    Channel, Clock, Done, DrivenClock, Fallback, FallbackOptions, FallbackStats, PacketBuf,
    PacketSlice, Queue, Refused, Status, SubmitError, Target,
};
use netstack::{Instant, Segment, SocketId, Stack};

use crate::{
    Busy, Copybreak, Counters, CpuCause, Progress, ReceiveId,
    receive::{Receive, Receives},
};

/// After so many resets in a row that could not prove the engine idle, it is lost. They come later
/// and later: these take about 4 s.
const HOPELESS_RESETS: u64 = 5;

/// A channel that copies from packets to programs' buffers, with the CPU below it.
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
    /// That of the engine: the time of the last call.
    clock: DrivenClock,
    fallback: Arc<FallbackStats>,
    copybreak: Copybreak,
    receives: Receives,
    counters: Counters,
    /// Of the copies that have not ended.
    bytes_in_flight: usize,
}

impl Offload {
    /// An offload over `channel`, with the CPU below it ([`Fallback`]); without one, every copy is
    /// the CPU's.
    #[must_use]
    pub fn new(channel: Option<Channel>, copybreak: Copybreak) -> Self {
        let clock = DrivenClock::new();
        let layer = Fallback::new(FallbackOptions {
            clock: Clock::Driven(clock.clone()),
            // Each copy is its own: a receive call need not wait for another's.
            keeps_order: false,
            ..FallbackOptions::default()
        });
        let engine = channel.map(|channel| Queue::new(channel.layered(&layer)));
        Self {
            engine,
            clock,
            fallback: layer.stats().pop().unwrap_or_default(),
            copybreak,
            receives: Receives::default(),
            counters: Counters::default(),
            bytes_in_flight: 0,
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
    /// program wakes. Copies given to the engine have one doorbell. What the engine refuses is done
    /// by the CPU at that moment too, but has not ended before [`reap`](Self::reap) says so.
    pub fn serve(&mut self, stack: &mut Stack<RxPacket>, now: Instant, id: ReceiveId) {
        let Self { engine, clock, copybreak, receives, counters, bytes_in_flight, .. } = self;
        clock.set(now - Instant::ZERO);
        let Some(receive) = receives.get_mut(id) else { return };
        let mut engine = match engine {
            Some(engine) if receive.offloads && *copybreak != Copybreak::Off => Ok(engine),
            Some(_) if *copybreak != Copybreak::Off => Err(CpuCause::Copybreak),
            _ => Err(CpuCause::NoEngine),
        };
        while !receive.target.is_empty() {
            let Some(segment) = stack.take(receive.socket, receive.target.len()) else { break };
            let Segment { buffer: RxPacket(packet), range, charge, .. } = segment;
            let mut target = receive.target.split_to(range.len());
            receive.taken += range.len();
            let tag = Tag { receive: id, socket: receive.socket, charge };
            let len = range.len();
            let mut source = packet.into_slice(range);
            let cause = match &mut engine {
                Ok(engine) => match engine.copy(source, target, tag) {
                    Ok(_cookie) => {
                        receive.in_flight += 1;
                        *bytes_in_flight += len;
                        continue;
                    }
                    // The CPU below the engine does whatever there is room for.
                    Err(refused) => {
                        let error;
                        Refused { error, source, target, .. } = refused;
                        cause_of_refusal(error)
                    }
                },
                Err(cause) => *cause,
            };
            target.as_mut().copy_from_slice(source.as_ref());
            counters.count_cpu(cause, len);
            stack.release(now, tag.socket, charge);
        }
        if let Ok(engine) = engine {
            engine.issue_pending();
        }
    }

    /// Collects copies that have ended, and releases their segments. What the engine failed was done
    /// again by the CPU; an engine that stands still is reset. Never waits for the engine, except for
    /// a reset, in bounded time.
    ///
    /// `idle` is told each socket whose receive has no copy in flight any more.
    ///
    /// Call it after each batch, when [`event`](Self::event) is readable, and at
    /// [`poll_timeout`](Self::poll_timeout).
    ///
    /// # Panics
    ///
    /// If a copy was not done, neither by the engine nor by the CPU: its bytes would be lost.
    pub fn reap(
        &mut self,
        stack: &mut Stack<RxPacket>,
        now: Instant,
        mut idle: impl FnMut(SocketId),
    ) {
        let Self { engine, clock, fallback, receives, counters, bytes_in_flight, .. } = self;
        clock.set(now - Instant::ZERO);
        let Some(engine) = engine else { return };
        if engine.is_idle() {
            return;
        }
        engine.poll(|done: Done<PacketSlice, Target, Tag>| {
            let Done { status, bytes, fallback, tag, source, .. } = done;
            *bytes_in_flight -= source.len();
            assert_eq!(status, Status::Success, "the CPU does what the engine does not");
            counters.count_end(fallback, bytes);
            if let Some(receive) = receives.get_mut(tag.receive) {
                receive.in_flight -= 1;
                if receive.in_flight == 0 {
                    idle(tag.socket);
                }
            }
            stack.release(now, tag.socket, tag.charge);
        });
        counters.engine_resets = fallback.resets();
    }

    /// What the engine has been given and has not ended, in bytes.
    #[must_use]
    pub const fn bytes_in_flight(&self) -> usize {
        self.bytes_in_flight
    }

    /// Whether the engine holds memory and could not be stopped for some seconds. There is no way
    /// left to end the receive calls whose buffers it holds; [`dmaengine::lend`] aborts the process
    /// when such a call gives up.
    #[must_use]
    pub fn is_engine_lost(&self) -> bool {
        self.fallback.failed_resets_in_a_row() >= HOPELESS_RESETS
    }

    /// When [`reap`](Self::reap) must be called at the latest; `None` if nothing is in flight.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let engine = self.engine.as_ref()?;
        // Without a time the copies are the CPU's, and have ended.
        let due = || self.fallback.due().map_or(Instant::ZERO, Instant::from);
        (!engine.is_idle()).then(due)
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

/// Why the channel, with the CPU below the engine, refused a copy.
const fn cause_of_refusal(error: SubmitError) -> CpuCause {
    match error {
        SubmitError::RingFull => CpuCause::RingFull,
        // The device is being removed, or is another process's.
        _ => CpuCause::NoEngine,
    }
}
