//! An engine that says that it has copied and has not: the limit of what an engine can save. It
//! breaks the promise that every user of an engine relies on, so nothing but the benchmarks has it.

use std::{os::fd::BorrowedFd, time::Duration};

use dmaengine::{
    Arena, Capabilities, ChannelInfo, Completion, Cookie, DmaChannel, DmaDevice, Flags, Kind,
    MapError, Operation, RequestError, Status, Stuck, SubmitError, Successes,
};

/// What moves the bytes, in the rows of the results.
pub(super) const KIND: &str = "none";

/// Hands out [`NullChannel`]s, any number of them.
#[derive(Debug)]
pub(super) struct NullDevice([ChannelInfo; 1]);

impl NullDevice {
    pub(super) fn new() -> Self {
        Self([NullChannel::new().info])
    }
}

impl DmaDevice for NullDevice {
    fn channels(&self) -> &[ChannelInfo] {
        &self.0
    }

    fn map(&self, _arena: &Arena) -> Result<(), MapError> {
        Ok(())
    }

    fn request_channel(&self, _index: usize) -> Result<Box<dyn DmaChannel>, RequestError> {
        Ok(Box::new(NullChannel::new()))
    }
}

/// As many as those of the other engines.
const RING_SIZE: usize = 1024;

#[derive(Debug)]
pub(super) struct NullChannel {
    info: ChannelInfo,
    /// Of a position modulo the ring's size: the length of its copy in bytes.
    lengths: Box<[usize]>,
    submitted: u64,
    issued: u64,
    reported: u64,
}

impl NullChannel {
    pub(super) fn new() -> Self {
        let info = ChannelInfo {
            capabilities: Capabilities::MEMCPY,
            ring_size: RING_SIZE,
            // Not the CPU: a stack would rather copy by itself.
            ..ChannelInfo::new("null", Kind::Software)
        };
        let lengths = vec![0; RING_SIZE].into();
        Self { info, lengths, submitted: 0, issued: 0, reported: 0 }
    }
}

// SAFETY: it touches no memory at all; cookies are consecutive, and each is reported once.
unsafe impl DmaChannel for NullChannel {
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
        self.lengths[position as usize % RING_SIZE] = operation.len();
        self.submitted += 1;
        Ok(cookie(position))
    }

    fn issue_pending(&mut self) {
        self.issued = self.submitted;
    }

    fn poll(&mut self, report: &mut dyn FnMut(Completion)) {
        while self.reported < self.issued {
            let position = self.reported;
            self.reported += 1;
            let len = self.lengths[position as usize % RING_SIZE];
            report(Completion::of(cookie(position), Status::Success, len));
        }
    }

    fn poll_successes(&mut self) -> Successes {
        let (first, count) = (cookie(self.reported), (self.issued - self.reported) as usize);
        self.reported = self.issued;
        Successes { first, count, more: false }
    }

    fn arm(&mut self) -> bool {
        false
    }

    fn event(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn terminate_sync(&mut self, _timeout: Duration) -> Result<(), Stuck> {
        self.issued = self.submitted;
        Ok(())
    }
}

const fn cookie(position: u64) -> Cookie {
    Cookie::new(Cookie::FIRST.get().wrapping_add(position))
}
