//! The calling thread as an engine.

use std::{collections::VecDeque, num::NonZeroUsize, os::fd::BorrowedFd, time::Duration};

use super::{
    lanes::{Lane, Lanes},
    software::Operation,
};
use crate::{
    Addressing, Arena, Capabilities, ChannelInfo, Completion, Cookie, CopyDescriptor, DmaChannel,
    DmaDevice, FillDescriptor, Kind, MapError, Ordering, RequestError, Status, Stuck, SubmitError,
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
            engine: "cpu".to_owned(),
            kind: Kind::Cpu,
            version: None,
            capabilities: Capabilities::MEMCPY | Capabilities::MEMSET,
            addressing: Addressing::Process,
            ordering: Ordering::InOrder,
            partial_completion: false,
            xfercap: NonZeroUsize::MAX,
            ring_size: RING_SIZE,
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
    pending: VecDeque<(Cookie, Operation)>,
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

    unsafe fn submit_memcpy(&mut self, copy: CopyDescriptor) -> Result<Cookie, SubmitError> {
        self.info.check_memcpy(&copy)?;
        self.submit(Operation::Copy(copy))
    }

    unsafe fn submit_memset(&mut self, fill: FillDescriptor) -> Result<Cookie, SubmitError> {
        self.info.check_memset(&fill)?;
        self.submit(Operation::Fill(fill))
    }

    fn issue_pending(&mut self) {
        for (cookie, operation) in self.pending.drain(..) {
            // SAFETY: submitted and not reported, so its memory is ours.
            unsafe { operation.execute() };
            let bytes = operation.len();
            self.ended.push_back(Completion { cookie, status: Status::Success, bytes });
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
        let aborted = self.pending.drain(..).map(|(cookie, _)| Completion {
            cookie,
            status: Status::Aborted,
            bytes: 0,
        });
        self.ended.extend(aborted);
        Ok(())
    }
}

impl CpuChannel {
    fn submit(&mut self, operation: Operation) -> Result<Cookie, SubmitError> {
        if self.space() == 0 {
            return Err(SubmitError::RingFull);
        }
        let cookie = self.next;
        self.next = cookie.next();
        self.pending.push_back((cookie, operation));
        Ok(cookie)
    }
}
