//! Taking segments for one receive, and issuing their copies.

use dmaengine::{PacketBuf, PacketSlice, Queue, Refused, SubmitError, Target};
use netstack::{Instant, ReceiveStatus, Segment, SocketId, Stack};

use crate::{Copybreak, Counters, CpuCause, ReceiveId, WakeReason, receive::Receive};

/// A channel that copies from packets to programs' buffers, with the CPU below it.
pub type Engine = Queue<PacketSlice, Target, Tag>;

/// What the offload attaches to each copy.
#[derive(Clone, Copy, Debug)]
pub struct Tag {
    pub(crate) receive: ReceiveId,
    pub(crate) socket: SocketId,
    /// What the segment holds of the socket's receive buffer, until the copy has ended.
    pub(crate) charge: usize,
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
    /// Something waits for the doorbell.
    pub(crate) issued: &'a mut bool,
}

impl Copies<'_> {
    /// Takes what is queued for `receive`, and issues its copies. Returns why it takes no more; none
    /// if it waits for more.
    pub(crate) fn take(
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
        let mut source = packet.into_slice(range);
        let cause = match &mut self.engine {
            Ok(engine) => {
                let tag = Tag { receive: id, socket: receive.socket, charge };
                match engine.copy(source, target, tag) {
                    Ok(_cookie) => {
                        receive.in_flight += 1;
                        *self.bytes_in_flight += len;
                        *self.issued = true;
                        return;
                    }
                    // The CPU below the engine does whatever there is room for.
                    Err(refused) => {
                        let error;
                        Refused { error, source, target, .. } = refused;
                        cause_of_refusal(error)
                    }
                }
            }
            Err(cause) => *cause,
        };
        target.as_mut().copy_from_slice(source.as_ref());
        self.counters.count_cpu(cause, len);
        stack.release(now, receive.socket, charge);
    }
}

/// The engine, if the receive may use it: the one place where that is decided.
pub(crate) fn engine_for<'a>(
    engine: &'a mut Option<Engine>,
    copybreak: Copybreak,
    receive: &Receive,
) -> Result<&'a mut Engine, CpuCause> {
    let engine = engine.as_mut().ok_or(CpuCause::NoEngine)?;
    match receive.copybreak.unwrap_or(copybreak) {
        Copybreak::Off => Err(CpuCause::Policy),
        copybreak if copybreak.offloads(receive.len) => Ok(engine),
        Copybreak::Bytes(_) => Err(CpuCause::Copybreak),
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
