//! The calling thread as an engine.

use std::{os::fd::BorrowedFd, time::Duration};

use super::lanes::{Lane, Lanes};
use crate::{
    Arena, ChannelInfo, Completion, Cookie, DmaChannel, DmaDevice, Flags, Kind, MapError,
    Operation, RequestError, Status, Stuck, SubmitError,
    software::{self, Descriptor, MAX_SEGMENTS, MAX_SOURCES},
};

/// Operations per channel that can wait for `poll`.
const RING_SIZE: usize = if cfg!(miri) { 64 } else { 1024 };

/// Channels on which the calling thread copies, in
/// [`issue_pending`](crate::DmaChannel::issue_pending): the baseline that engines are compared with,
/// and the engine of machines that have none.
///
/// It keeps the rules of all others: nothing moves before the doorbell, and nothing has ended
/// before it was polled for. A client that works with it does not depend on the copy being immediate.
#[derive(Debug)]
pub struct CpuDevice {
    channels: Vec<ChannelInfo>,
    lanes: Lanes,
}

impl CpuDevice {
    /// A device of `channels` channels.
    #[must_use]
    pub fn new(channels: usize) -> Self {
        let info = ChannelInfo {
            capabilities: software::CAPABILITIES,
            ring_size: RING_SIZE,
            max_sg: MAX_SEGMENTS,
            max_xor: MAX_SOURCES,
            max_pq: MAX_SOURCES,
            ..ChannelInfo::new("cpu", Kind::Cpu)
        };
        Self { channels: vec![info; channels], lanes: Lanes::new(channels) }
    }
}

impl DmaDevice for CpuDevice {
    fn channels(&self) -> &[ChannelInfo] {
        &self.channels
    }

    fn map(&self, _arena: &Arena) -> Result<(), MapError> {
        Ok(())
    }

    fn request_channel(&self, index: usize) -> Result<Box<dyn DmaChannel>, RequestError> {
        let lane = self.lanes.take(index)?;
        Ok(Box::new(CpuChannel {
            info: self.channels[index].clone(),
            slots: (0..RING_SIZE).map(|_| Slot::default()).collect(),
            submitted: 0,
            executed: 0,
            reported: 0,
            _lane: lane,
        }))
    }
}

#[derive(Debug)]
struct CpuChannel {
    info: ChannelInfo,
    /// Of a position, which never wraps: the position modulo the ring's size.
    slots: Box<[Slot]>,
    submitted: u64,
    /// Or aborted.
    executed: u64,
    reported: u64,
    _lane: Lane,
}

#[derive(Debug, Default)]
struct Slot {
    descriptor: Descriptor,
    /// How it ended, once it was executed or aborted.
    status: Option<Status>,
}

impl CpuChannel {
    const fn slot(&mut self, position: u64) -> &mut Slot {
        &mut self.slots[position as usize % RING_SIZE]
    }

    /// Ends everything submitted with what `end` makes of it.
    fn end_all(&mut self, end: impl Fn(&Descriptor) -> Status) {
        for position in self.executed..self.submitted {
            let Slot { descriptor, status } = self.slot(position);
            *status = Some(end(descriptor));
        }
        self.executed = self.submitted;
    }
}

// SAFETY: an operation is between `executed` and `submitted` until it was executed or terminated,
// and then before `executed` until it is reported; it is executed by the thread that calls
// `issue_pending`, which has returned when the operation is reported, and writes its targets only.
unsafe impl DmaChannel for CpuChannel {
    fn info(&self) -> &ChannelInfo {
        &self.info
    }

    fn space(&self) -> usize {
        RING_SIZE - (self.submitted - self.reported) as usize
    }

    unsafe fn submit(
        &mut self,
        operation: &Operation<'_>,
        flags: Flags,
    ) -> Result<Cookie, SubmitError> {
        self.info.check(operation, flags)?;
        if self.space() == 0 {
            return Err(SubmitError::RingFull);
        }
        let position = self.submitted;
        self.slot(position).descriptor.set(operation, flags);
        self.submitted += 1;
        Ok(cookie(position))
    }

    fn issue_pending(&mut self) {
        // SAFETY: submitted and not reported, so its memory is ours.
        self.end_all(|descriptor| unsafe {
            software::execute(&descriptor.operation(), descriptor.flags())
        });
    }

    fn poll(&mut self, report: &mut dyn FnMut(Completion)) {
        while self.reported < self.executed {
            let position = self.reported;
            self.reported += 1;
            let Slot { descriptor, status } = self.slot(position);
            let (status, len) = (status.unwrap_or(Status::Aborted), descriptor.len());
            report(Completion::of(cookie(position), status, len));
        }
    }

    fn arm(&mut self) -> bool {
        false
    }

    fn event(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn terminate_sync(&mut self, _timeout: Duration) -> Result<(), Stuck> {
        self.end_all(|_| Status::Aborted);
        Ok(())
    }
}

/// The cookie of the operation at a position.
const fn cookie(position: u64) -> Cookie {
    Cookie::new(Cookie::FIRST.get().wrapping_add(position))
}
