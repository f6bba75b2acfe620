//! The calling thread as an engine.

use std::{collections::VecDeque, os::fd::BorrowedFd, time::Duration};

use super::{
    lanes::{Lane, Lanes},
    software::Task,
};
use crate::{
    Arena, Capabilities, ChannelInfo, Completion, Cookie, DmaChannel, DmaDevice, Flags, Kind,
    MapError, Operation, RequestError, Status, Stuck, SubmitError,
};

/// Operations per channel that can wait for `poll`.
const RING_SIZE: usize = 1024;

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
            capabilities: Capabilities::MEMCPY | Capabilities::MEMSET | Capabilities::FENCE,
            ring_size: RING_SIZE,
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
            next: Cookie::FIRST,
            pending: VecDeque::with_capacity(RING_SIZE),
            ended: VecDeque::with_capacity(RING_SIZE),
            _lane: lane,
        }))
    }
}

#[derive(Debug)]
struct CpuChannel {
    info: ChannelInfo,
    /// Of the next operation.
    next: Cookie,
    /// Submitted, not issued. Together with `ended` never more than the ring's size, so neither
    /// allocates.
    pending: VecDeque<(Cookie, Task)>,
    /// Not yet polled for.
    ended: VecDeque<Completion>,
    _lane: Lane,
}

// SAFETY: an operation is in `pending` until it was executed or terminated, and then in `ended`
// until it is reported; it is executed by the thread that calls `issue_pending`, which has returned
// when the operation is reported, and writes its target only.
unsafe impl DmaChannel for CpuChannel {
    fn info(&self) -> &ChannelInfo {
        &self.info
    }

    fn space(&self) -> usize {
        RING_SIZE - self.pending.len() - self.ended.len()
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
        let task = Task::try_from(operation)?;
        let cookie = self.next;
        self.next = cookie.next();
        self.pending.push_back((cookie, task));
        Ok(cookie)
    }

    fn issue_pending(&mut self) {
        for (cookie, task) in self.pending.drain(..) {
            // SAFETY: submitted and not reported, so its memory is ours.
            unsafe { task.execute() };
            self.ended.push_back(Completion::success(cookie, task.len()));
        }
    }

    fn poll(&mut self, report: &mut dyn FnMut(Completion)) {
        while let Some(completion) = self.ended.pop_front() {
            report(completion);
        }
    }

    fn arm(&mut self) -> bool {
        false
    }

    fn event(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn terminate_sync(&mut self, _timeout: Duration) -> Result<(), Stuck> {
        let aborted =
            self.pending.drain(..).map(|(cookie, _)| Completion::failed(cookie, Status::Aborted));
        self.ended.extend(aborted);
        Ok(())
    }
}
