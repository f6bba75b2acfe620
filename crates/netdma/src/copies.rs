//! Taking segments for one receive, and issuing their copies.

use std::time::Duration;

use dmaengine::{Flags, PacketBuf, PacketSlice, Queue, Refused, SubmitError, Target};
use netstack::{Charge, Instant, ReceiveStatus, Segment, SocketId, Stack};

use crate::{
    Copybreak, Counters, CpuCause, ReceiveClass, ReceiveId, Waiting, WakeReason,
    policy::Policy,
    reading::{self, Moment, ReadLines},
    receive::Receive,
    share::{Share, Shared},
    warmth::Warmth,
    work_clock::WorkClock,
};

/// A channel that copies from packets to programs' buffers, with the CPU below it.
pub type Engine = Queue<PacketSlice, Target, Tag>;

/// What the offload attaches to each copy.
#[derive(Debug)]
pub struct Tag {
    pub(crate) receive: ReceiveId,
    pub(crate) socket: SocketId,
    /// What the segment holds of the socket's receive buffer, until the copy has ended.
    pub(crate) charge: Charge,
    /// Its receive was measured when the engine was given this. One may be given to `auto` in the
    /// middle.
    pub(crate) is_measured: bool,
    /// What the engine writes is to be looked at.
    pub(crate) is_read: bool,
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

/// Where the copies of one receive run.
pub(crate) struct Copies<'a> {
    pub(crate) engine: Result<&'a mut Engine, CpuCause>,
    pub(crate) counters: &'a mut Counters,
    pub(crate) bytes_in_flight: &'a mut usize,
    /// Bytes that wait for the doorbell.
    pub(crate) unannounced: &'a mut usize,
    /// With so many it is rung.
    pub(crate) doorbell_at: usize,
    pub(crate) share: &'a mut Share,
    pub(crate) policy: &'a mut Policy,
    pub(crate) clock: WorkClock,
    /// How buffers are looked at, if they are.
    pub(crate) read: Option<ReadLines>,
    /// What that has cost.
    pub(crate) reading: Duration,
    /// What the engine may still be given, in bytes.
    pub(crate) budget: usize,
    /// How the engine copies.
    pub(crate) flags: Flags,
}

impl Copies<'_> {
    /// What the engine gets at a time while a call takes what it is to return with: it begins while
    /// the rest is taken, and a doorbell is little beside it. What nobody waits for has one.
    const DOORBELL_BYTES: usize = 16 << 10;

    /// Takes what is queued for `receive`, and issues its copies. Returns why it takes no more; none
    /// if it waits for more.
    pub(crate) fn take(
        &mut self,
        stack: &mut Stack<RxPacket>,
        now: Instant,
        id: ReceiveId,
        receive: &mut Receive,
    ) -> Option<WakeReason> {
        let start = receive.is_measured().then(|| self.clock.now());
        self.reading = Duration::ZERO;
        self.doorbell_at = match receive.waiting {
            Waiting::Never | Waiting::ForMore => Self::DOORBELL_BYTES,
            Waiting::Elsewhere => usize::MAX,
        };
        let shared = self.begin(stack, receive);
        let reason = self.take_all(stack, now, id, receive);
        if let Some(shared) = shared {
            self.end(receive, shared);
        }
        if let Some(start) = start {
            // The doorbell is a part of the cost.
            self.ring();
            receive.cost += self.clock.now().saturating_sub(start + self.reading);
        }
        reason
    }

    /// Decides what the engine gets of what is at hand. Returns what is shared, if the call is to
    /// return with it.
    fn begin(&mut self, stack: &Stack<RxPacket>, receive: &Receive) -> Option<Shared> {
        self.budget = usize::MAX;
        let (backlog, room) = (*self.bytes_in_flight, receive.rest.len());
        if self.engine.is_err() || self.clock.stands_still() {
            return None;
        }
        let bytes = stack.receive_available(receive.socket).min(room);
        if bytes == 0 {
            return None;
        }
        let is_last = match receive.waiting {
            Waiting::Never => true,
            Waiting::ForMore => bytes == room,
            Waiting::Elsewhere => false,
        };
        if !is_last {
            self.budget = self.share.of_unawaited(bytes, backlog);
            return None;
        }
        self.budget = self.share.of(bytes, backlog);
        let start = self.clock.now();
        Some(Shared { bytes, backlog, cpu_bytes: bytes - self.budget, start, cpu_end: start })
    }

    /// All that the call takes is taken.
    fn end(&mut self, receive: &mut Receive, shared: Shared) {
        if receive.in_flight == 0 {
            self.share.was_left_out(shared.bytes);
        } else {
            self.ring();
            receive.shared = Some(Shared { cpu_end: self.clock.now(), ..shared });
        }
    }

    /// Rings the doorbell, if there is something that waits for it.
    fn ring(&mut self) {
        // What waits may be another receive's: it is not forgotten if this one has no engine.
        if let Ok(engine) = &mut self.engine
            && std::mem::take(self.unannounced) > 0
        {
            engine.issue_pending();
        }
    }

    fn take_all(
        &mut self,
        stack: &mut Stack<RxPacket>,
        now: Instant,
        id: ReceiveId,
        receive: &mut Receive,
    ) -> Option<WakeReason> {
        let socket = receive.socket;
        loop {
            if receive.rest.is_empty() {
                // A call that asks for nothing returns when there is something.
                let full = receive.taken > 0 || stack.receive_available(socket) > 0;
                return full.then_some(WakeReason::BufferFull);
            }
            if receive.taken > 0 && stack.is_at_mark(socket) {
                return Some(WakeReason::UrgentMark);
            }
            let Some(segment) = stack.take(socket, receive.rest.len()) else { break };
            self.issue(stack, now, id, receive, segment);
        }
        if receive.taken > 0 && stack.receive_status(socket) != ReceiveStatus::Open {
            return Some(WakeReason::StreamOver);
        }
        if receive.taken < receive.goal {
            return None;
        }
        if receive.is_pushed {
            return Some(WakeReason::Push);
        }
        stack.is_receive_buffer_half_full(socket).then_some(WakeReason::HalfFull)
    }

    fn issue(
        &mut self,
        stack: &mut Stack<RxPacket>,
        now: Instant,
        id: ReceiveId,
        receive: &mut Receive,
        segment: Segment<RxPacket>,
    ) {
        let Segment { buffer: RxPacket(packet), range, push, charge } = segment;
        let len = range.len();
        receive.taken += len;
        receive.is_pushed = push;
        let Some(mut target) = receive.rest.split_to(len) else {
            stack.release(now, receive.socket, charge);
            return;
        };
        self.counters.early_copies += u64::from(receive.is_early);
        let is_measured = receive.is_measured();
        let is_read = self.look_at(receive, &mut target);
        let tag = Tag { receive: id, socket: receive.socket, charge, is_measured, is_read };
        let mut source = packet.into_slice(range);
        let part = self.engine_part(len);
        let tag = match part {
            0 => {
                self.copy(&source, target, CpuCause::Shared);
                Some(tag)
            }
            part if part == len => self.give(source, target, tag),
            part => {
                let tag = self.give(source.split_to(part), target.split_to(part), tag);
                self.copy(&source, target, CpuCause::Shared);
                tag
            }
        };
        match tag {
            Some(Tag { charge, .. }) => stack.release(now, receive.socket, charge),
            None => {
                receive.in_flight += 1;
                receive.given += 1;
                receive.given_bytes += part;
            }
        }
    }

    /// Looks at a place that a segment will have, if its turn is now; whether its turn is when the
    /// engine has written it.
    fn look_at(&mut self, receive: &mut Receive, target: &mut Target) -> bool {
        let (Some(moment), Some(read), Some(decision)) =
            (receive.to_read, self.read, receive.decision)
        else {
            return false;
        };
        let Some(lines) = reading::lines(target.as_mut(), moment) else { return false };
        if self.engine.is_err() {
            return false;
        }
        receive.to_read = None;
        if moment == Moment::Left {
            let time = read(lines);
            self.reading += time;
            self.policy.learn_reading(decision.class, moment, lines.len(), time);
        }
        moment == Moment::Written
    }

    /// How much of a segment of `len` bytes the engine gets, its front; the CPU copies the rest.
    fn engine_part(&mut self, len: usize) -> usize {
        let part = match self.budget {
            budget if budget >= len => len,
            budget if budget < Share::PIECE_MIN => 0,
            budget if len - budget < Share::PIECE_MIN => len,
            budget => budget,
        };
        self.budget = self.budget.saturating_sub(part);
        part
    }

    /// Gives a copy to the engine; if that does not take it, the CPU copies, and the tag comes back:
    /// nobody holds the source.
    fn give(&mut self, source: PacketSlice, target: Target, tag: Tag) -> Option<Tag> {
        let len = target.len();
        let (source, target, cause, tag) = match &mut self.engine {
            Ok(engine) => match engine.copy_with(source, target, self.flags, tag) {
                Ok(_cookie) => {
                    *self.bytes_in_flight += len;
                    *self.unannounced += len;
                    if *self.unannounced >= self.doorbell_at {
                        self.ring();
                    }
                    return None;
                }
                // The CPU below the engine does whatever there is room for.
                Err(Refused { error, source, target, tag }) => {
                    (source, target, cause_of_refusal(error), tag)
                }
            },
            Err(cause) => (source, target, *cause, tag),
        };
        self.copy(&source, target, cause);
        Some(tag)
    }

    fn copy(&mut self, source: &PacketSlice, mut target: Target, cause: CpuCause) {
        if cause == CpuCause::Shared {
            // Before: the engine copies at the same time.
            self.ring();
        }
        target.as_mut().copy_from_slice(source.as_ref());
        self.counters.count_cpu(cause, target.len());
    }
}

/// The engine, if the receive may use it: the one place where that is decided.
pub(crate) fn engine_for<'a>(
    engine: &'a mut Option<Engine>,
    copybreak: Copybreak,
    chooser: &mut Chooser,
    receive: &mut Receive,
) -> Result<&'a mut Engine, CpuCause> {
    let engine = engine.as_mut().ok_or(CpuCause::NoEngine)?;
    match receive.copybreak.unwrap_or(copybreak) {
        Copybreak::Off => Err(CpuCause::Policy),
        Copybreak::Auto if chooser.chooses_engine(receive)? => Ok(engine),
        Copybreak::Auto => Err(CpuCause::Policy),
        copybreak if copybreak.offloads(receive.len) => Ok(engine),
        Copybreak::Bytes(_) => Err(CpuCause::Copybreak),
    }
}

/// What `auto` decides with.
#[derive(Debug)]
pub(crate) struct Chooser {
    pub(crate) policy: Policy,
    warmth: Warmth,
    /// Which moment a receive is looked at in, the last time that there was a choice.
    last_read: Moment,
}

impl Chooser {
    pub(crate) const fn new() -> Self {
        Self { policy: Policy::new(), warmth: Warmth::new(), last_read: Moment::Left }
    }

    /// Whether `receive` is the engine's; decided once.
    fn chooses_engine(&mut self, receive: &mut Receive) -> Result<bool, CpuCause> {
        if let Some(decision) = receive.decision {
            return Ok(decision.by_engine);
        }
        let Receive { len, waiting, .. } = *receive;
        if !ReceiveClass::exists(len, waiting) {
            return Err(CpuCause::Copybreak);
        }
        let Self { policy, warmth, last_read } = self;
        let mut decide = |is_warm| policy.decide(ReceiveClass::of(len, waiting, is_warm));
        let mut decision = None;
        let before = warmth.fill(receive.rest.address(), len, |is_warm| {
            decision.insert(decide(is_warm)).by_engine
        });
        receive.decision = decision;
        let Some(decision) = decision else { return Ok(false) };
        if decision.by_engine && decision.is_measured && len <= Warmth::CACHE_BYTES {
            // What the CPU has written tells nothing.
            let is_left = before.by_engine && *last_read == Moment::Written;
            *last_read = if is_left { Moment::Left } else { Moment::Written };
            receive.to_read = Some(*last_read);
        }
        Ok(decision.by_engine)
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
