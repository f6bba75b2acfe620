//! Posted receives: serving them, collecting the ends of their copies, ending them.

use std::{os::fd::BorrowedFd, sync::Arc, time::Duration};

use dmaengine::{
    Capabilities, Channel, Clock, Done, DrivenClock, Fallback, FallbackOptions, FallbackStats,
    Flags, PacketSlice, Queue, Status, Target,
};
use netstack::{ConnectionError, Instant, SocketId, Stack};

use crate::{
    Busy, Conditions, Copybreak, Counters, CpuCause, Decision, Destination, Engine, PolicyRow,
    Progress, ReadLines, ReceiveId, RecvError, RecvFlags, Request, RxPacket, Tag, Verdict,
    WakeReason,
    copies::{Copies, engine_for},
    lessons::Lessons,
    receive::{Receive, Receives},
    recv::decide,
    work_clock::WorkClock,
};

/// After so many resets in a row that could not prove the engine idle, it is lost. They come later
/// and later: these take about 4 s.
const HOPELESS_RESETS: u64 = 5;

/// Buffers up to this length, in bytes, find room in the last-level cache that the receiving thread
/// shares with others and with the packets: they are there when it reads them.
const CACHE_BYTES: usize = 4 << 20;

/// The receive copy offload of one stack.
#[derive(Debug)]
pub struct Offload {
    engine: Option<Engine>,
    /// That of the engine: the time of the last call.
    clock: DrivenClock,
    now: Instant,
    fallback: Arc<FallbackStats>,
    copybreak: Copybreak,
    receives: Receives,
    /// Sockets whose receives have enough, and may get more.
    unsettled: Vec<SocketId>,
    counters: Counters,
    /// Of the copies that have not ended.
    bytes_in_flight: usize,
    /// Has the engine write to a cache; nothing if it cannot choose.
    to_cache: Flags,
    lessons: Lessons,
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
        // Of the engine itself: the CPU below it heeds hints, too.
        let heeds =
            |channel: &Channel| channel.info().capabilities.contains(Capabilities::CACHE_HINT);
        let to_cache = match channel.as_ref().is_some_and(heeds) {
            true => Flags::TO_CACHE,
            false => Flags::empty(),
        };
        let engine = channel.map(|channel| Queue::new(channel.layered(&layer)));
        Self {
            engine,
            clock,
            now: Instant::ZERO,
            fallback: layer.stats().pop().unwrap_or_default(),
            copybreak,
            receives: Receives::default(),
            unsettled: Vec::new(),
            counters: Counters::default(),
            bytes_in_flight: 0,
            to_cache,
            lessons: Lessons::new(WorkClock::Still),
        }
    }

    /// Has it learn from how long copies take, by this clock.
    #[must_use]
    pub const fn timed_by(mut self, clock: WorkClock) -> Self {
        self.lessons.clock = clock;
        self
    }

    /// Has it learn what the reader pays to look at what the engine copied, by looking at some lines of
    /// some receives in this way.
    #[must_use]
    pub const fn reading_by(mut self, read: ReadLines) -> Self {
        self.lessons.read = Some(read);
        self
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

    /// Sets which reads are offloaded from now on, also of receives that are posted, unless their
    /// socket has a copybreak of its own.
    pub const fn set_copybreak(&mut self, copybreak: Copybreak) {
        self.copybreak = copybreak;
    }

    /// Which reads are offloaded.
    #[must_use]
    pub const fn copybreak(&self) -> Copybreak {
        self.copybreak
    }

    /// Posts a receive: `destination` is filled from its start with what `socket` receives, after
    /// the receives that were posted before. Call [`serve`](Self::serve) for what is queued already,
    /// and [`settle`](Self::settle), as there is nothing more for the moment.
    #[must_use]
    pub fn post(
        &mut self,
        socket: SocketId,
        destination: impl Into<Destination>,
        request: Request,
    ) -> ReceiveId {
        self.receives.insert(Receive::new(socket, destination.into(), request))
    }

    /// How far a receive has come; `None` if it is not posted.
    #[must_use]
    pub fn progress(&self, id: ReceiveId) -> Option<Progress> {
        self.receives.get(id).map(|receive| Progress {
            taken: receive.taken,
            in_flight: receive.in_flight,
            room: receive.rest.len(),
            ended: receive.ended,
        })
    }

    /// What the call that posted a receive does next. A verdict other than [`Verdict::Wait`] ends
    /// the receive: it takes no more bytes.
    pub fn check(
        &mut self,
        stack: &mut Stack<RxPacket>,
        id: ReceiveId,
        conditions: Conditions,
    ) -> Verdict {
        let Some(receive) = self.receives.get(id) else {
            return Verdict::Fail(ConnectionError::NotOpen.into());
        };
        let Receive { socket, taken, in_flight, ended, .. } = *receive;
        if ended.is_none() {
            // What has enough already waits for a reason to wake up.
            let goal = usize::MAX;
            let verdict = decide(taken, goal, stack.receive_status(socket), conditions);
            if verdict == Verdict::Wait {
                return verdict;
            }
            self.stop(id);
            if taken == 0 {
                if let Verdict::Fail(RecvError::Connection(_)) = verdict {
                    stack.take_error(socket);
                }
                return verdict;
            }
        }
        if in_flight > 0 { Verdict::Copying } else { Verdict::Return(taken) }
    }

    /// Has a receive take no more bytes, if it still does: [`WakeReason::Stopped`].
    pub fn stop(&mut self, id: ReceiveId) {
        self.end(id, WakeReason::Stopped);
    }

    fn end(&mut self, id: ReceiveId, reason: WakeReason) {
        if !self.receives.end(id, reason) {
            return;
        }
        let Some(receive) = self.receives.get_mut(id) else { return };
        if receive.in_flight > 0 {
            receive.copying_since = Some(self.now);
            self.counters.waits += 1;
        }
        self.lessons.on_end(receive);
    }

    /// Ends a receive and gives back how many bytes its buffer holds; 0 if it is not posted.
    ///
    /// # Errors
    ///
    /// [`Busy`] while copies into the buffer are in flight. It takes no more bytes, and is withdrawn
    /// when they have ended.
    pub fn withdraw(&mut self, id: ReceiveId) -> Result<usize, Busy> {
        self.stop(id);
        match self.receives.get(id) {
            Some(receive) if receive.in_flight > 0 => Err(Busy),
            _ => Ok(self.receives.remove(id).map_or(0, |receive| receive.taken)),
        }
    }

    /// Forgets a receive: its buffer is let go of with the last copy into it. What it took is gone.
    pub fn abandon(&mut self, id: ReceiveId) {
        if self.withdraw(id).is_err()
            && let Some(receive) = self.receives.get_mut(id)
        {
            receive.is_abandoned = true;
        }
    }

    /// Moves what is queued on `socket` into the buffers of its posted receives, in the order in
    /// which they were posted: the early copy. Call it for each socket that became readable or is
    /// over, after each batch of packets and before any program wakes. Copies given to the engine
    /// have one doorbell, or some if a call waits for them. What the engine refuses is done by the
    /// CPU at that moment too, but has not ended before [`reap`](Self::reap) says so.
    ///
    /// Returns whether somebody has something to look at: `false` if all that came was for a reader
    /// that had better sleep on.
    pub fn serve(&mut self, stack: &mut Stack<RxPacket>, now: Instant, socket: SocketId) -> bool {
        self.advance(now);
        let Some(mut id) = self.receives.first(socket) else { return true };
        let mut wakes = false;
        let mut unannounced = 0;
        while let Some(receive) = self.receives.get_mut(id) {
            let before = receive.in_flight;
            let mut copies = Copies {
                engine: engine_for(
                    &mut self.engine,
                    self.copybreak,
                    &mut self.lessons.chooser,
                    receive,
                ),
                counters: &mut self.counters,
                bytes_in_flight: &mut self.bytes_in_flight,
                unannounced: &mut unannounced,
                doorbell_at: usize::MAX,
                share: &mut self.lessons.share,
                policy: &mut self.lessons.chooser.policy,
                read: self.lessons.read,
                reading: Duration::ZERO,
                clock: self.lessons.clock,
                budget: usize::MAX,
                flags: match receive.len {
                    0..=CACHE_BYTES => self.to_cache,
                    _ => Flags::empty(),
                },
            };
            let reason = copies.take(stack, now, id, receive);
            receive.is_early = true;
            self.lessons.on_given(receive, receive.in_flight - before);
            let Some(reason) = reason else {
                if receive.taken >= receive.goal && !self.unsettled.contains(&socket) {
                    self.unsettled.push(socket);
                }
                break;
            };
            wakes |= receive.in_flight == 0;
            self.end(id, reason);
            let Some(next) = self.receives.first(socket) else { break };
            id = next;
        }
        if unannounced > 0
            && let Some(engine) = &mut self.engine
        {
            engine.issue_pending();
        }
        wakes
    }

    /// Nothing more is at hand: receives that have enough end ([`WakeReason::Idle`]). Call it when
    /// the link has no more frames, before anybody sleeps. `woken` is told each socket of which one
    /// has ended, and its copies too.
    pub fn settle(&mut self, mut woken: impl FnMut(SocketId)) {
        while let Some(socket) = self.unsettled.pop() {
            // Others may have ended, or stand first, since.
            let enough = |receive: &&Receive| receive.taken >= receive.goal;
            let Some(id) = self.receives.first(socket) else { continue };
            let Some(receive) = self.receives.get(id).filter(enough) else { continue };
            if receive.in_flight == 0 {
                woken(socket);
            }
            self.end(id, WakeReason::Idle);
        }
    }

    /// As [`settle`](Self::settle), for one receive that was just posted: a call that finds enough
    /// in the queue returns with it.
    pub fn settle_one(&mut self, id: ReceiveId) {
        if self.receives.get(id).is_some_and(|receive| receive.taken >= receive.goal) {
            self.end(id, WakeReason::Idle);
        }
    }

    /// What a receive call with [`RecvFlags::PEEK`] does next. If it returns, the bytes are in
    /// `buffer`, unless they are not wanted ([`RecvFlags::TRUNC`]): never by the engine, since the
    /// program looks at them at once.
    pub fn peek(
        &mut self,
        stack: &mut Stack<RxPacket>,
        socket: SocketId,
        buffer: &mut [u8],
        request: Request,
        conditions: Conditions,
    ) -> Verdict {
        let len = buffer.len();
        let found: usize = stack.peek(socket, len).map(<[u8]>::len).sum();
        let status = stack.receive_status(socket);
        // The mark ends a call that has bytes, however few; and one that asks for none needs none.
        let complete = found > 0 && stack.bytes_until_mark(socket) == Some(found)
            || len == 0 && stack.receive_available(socket) > 0;
        let verdict = match complete {
            true => Verdict::Return(found),
            false => decide(found, request.goal(len), status, conditions),
        };
        match verdict {
            Verdict::Return(_) if !request.flags.contains(RecvFlags::TRUNC) => {
                let mut rest = buffer;
                for piece in stack.peek(socket, len) {
                    let (front, back) = rest.split_at_mut(piece.len());
                    front.copy_from_slice(piece);
                    rest = back;
                }
                self.counters.count_cpu(CpuCause::Peek, found);
            }
            Verdict::Fail(RecvError::Connection(_)) => {
                stack.take_error(socket);
            }
            _ => {}
        }
        verdict
    }

    fn advance(&mut self, now: Instant) {
        self.now = now;
        self.clock.set(now - Instant::ZERO);
    }

    /// Collects copies that have ended, and releases their segments. What the engine failed was done
    /// again by the CPU; an engine that stands still is reset. Never waits for the engine, except for
    /// a reset, in bounded time.
    ///
    /// `idle` is told each socket of which a receive has ended, and now its copies too.
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
        self.advance(now);
        let Self { engine, fallback, receives, counters, bytes_in_flight, lessons, .. } = self;
        let Some(engine) = engine else { return };
        if engine.is_idle() {
            return;
        }
        let mut look = lessons.look();
        let collected = engine.poll(|done: Done<PacketSlice, Target, Tag>| {
            let Done { status, bytes, fallback, source, mut target, tag, .. } = done;
            *bytes_in_flight -= source.len();
            assert_eq!(status, Status::Success, "the CPU does what the engine does not");
            if tag.is_read
                && fallback.is_none()
                && let Some(receive) = receives.get(tag.receive)
            {
                lessons.on_written(receive, target.as_mut(), &mut look);
            }
            // Before its receive goes: a buffer that was abandoned goes with it.
            drop(target);
            counters.count_end(fallback, bytes);
            lessons.on_copy(&tag);
            if let Some(receive) = receives.get_mut(tag.receive) {
                receive.in_flight -= 1;
                if receive.in_flight == 0 && receive.ended.is_some() {
                    let since = receive.copying_since.take();
                    counters.wait_time += since.map_or(Duration::ZERO, |since| now - since);
                    lessons.on_last_copy(receive, &mut look);
                    idle(tag.socket);
                    if receive.is_abandoned {
                        receives.remove(tag.receive);
                    }
                }
            }
            stack.release(now, tag.socket, tag.charge);
        });
        counters.engine_resets = fallback.resets();
        lessons.looked(&look, collected);
    }

    /// Tells what it has cost a thread to wait for the engine: for the policy to know.
    pub fn add_wait(&mut self, cost: Duration) {
        self.lessons.add_wait(cost);
    }

    /// What [`Copybreak::Auto`] knows of the receives that have occurred.
    pub fn policy(&self) -> impl Iterator<Item = PolicyRow> {
        self.lessons.chooser.policy.rows()
    }

    /// What it has decided last, the oldest first: some dozens.
    pub fn last_decisions(&self) -> impl Iterator<Item = Decision> {
        self.lessons.chooser.policy.last()
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
