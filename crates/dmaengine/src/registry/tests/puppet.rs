//! A device that does what the test says.

use std::{
    collections::VecDeque,
    fmt,
    os::fd::BorrowedFd,
    sync::{Arc, Condvar, Mutex},
    time::Duration,
};

use crate::{
    Arena, Capabilities, ChannelInfo, Completion, Cookie, DmaChannel, DmaDevice, Flags, Kind,
    MapError, Operation, RequestError, Status, Stuck, SubmitError,
};

/// What all channels of a [`Puppet`] do, and have seen.
#[derive(Default)]
pub(super) struct Strings {
    /// No channel opens.
    pub(super) refuses: bool,
    /// Nothing ends.
    pub(super) holds: bool,
    /// All ends with this.
    pub(super) fails: Option<Status>,
    /// Termination fails.
    pub(super) stuck: bool,
    /// Called when a channel opens and closes, without a lock.
    pub(super) meddler: Option<Arc<dyn Fn() + Send + Sync>>,
    /// Operations submitted.
    pub(super) submitted: usize,
    /// Channels that are open.
    pub(super) open: usize,
}

#[derive(Debug)]
pub(super) struct Puppet {
    channels: Vec<ChannelInfo>,
    strings: Arc<Mutex<Strings>>,
    /// Something was submitted.
    submitted: Arc<Condvar>,
}

#[derive(Debug)]
struct PuppetChannel {
    info: ChannelInfo,
    strings: Arc<Mutex<Strings>>,
    submitted: Arc<Condvar>,
    next: Cookie,
    in_flight: VecDeque<Completion>,
    aborted: bool,
}

impl Puppet {
    /// A plain channel, with a ring of 4.
    pub(super) fn info(capabilities: Capabilities) -> ChannelInfo {
        ChannelInfo { capabilities, ring_size: 4, ..ChannelInfo::new("puppet", Kind::Software) }
    }

    pub(super) fn device(channels: &[ChannelInfo]) -> (Arc<Self>, Arc<Mutex<Strings>>) {
        let strings = Arc::<Mutex<Strings>>::default();
        let (channels, submitted) = (channels.to_vec(), Arc::default());
        (Arc::new(Self { channels, strings: Arc::clone(&strings), submitted }), strings)
    }

    /// Waits until `count` operations were submitted.
    pub(super) fn wait_submitted(&self, count: usize) {
        let strings = self.strings.lock().unwrap();
        drop(self.submitted.wait_while(strings, |strings| strings.submitted < count).unwrap());
    }
}

impl DmaDevice for Puppet {
    fn channels(&self) -> &[ChannelInfo] {
        &self.channels
    }

    fn map(&self, _arena: &Arena) -> Result<(), MapError> {
        Ok(())
    }

    fn request_channel(&self, index: usize) -> Result<Box<dyn DmaChannel>, RequestError> {
        let mut strings = self.strings.lock().unwrap();
        if strings.refuses {
            return Err(RequestError::Failed("the puppet does not dance".into()));
        }
        strings.open += 1;
        let meddler = strings.meddler.clone();
        drop(strings);
        if let Some(meddle) = meddler {
            meddle();
        }
        Ok(Box::new(PuppetChannel {
            info: self.channels[index].clone(),
            strings: Arc::clone(&self.strings),
            submitted: Arc::clone(&self.submitted),
            next: Cookie::FIRST,
            in_flight: VecDeque::new(),
            aborted: false,
        }))
    }
}

// SAFETY: there is no engine that could touch anything.
unsafe impl DmaChannel for PuppetChannel {
    fn info(&self) -> &ChannelInfo {
        &self.info
    }

    fn space(&self) -> usize {
        self.info.ring_size - self.in_flight.len()
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
        let cookie = self.next;
        self.next = cookie.next();
        self.in_flight.push_back(Completion::success(cookie, operation.len()));
        self.strings.lock().unwrap().submitted += 1;
        self.submitted.notify_all();
        Ok(cookie)
    }

    fn issue_pending(&mut self) {}

    fn poll(&mut self, report: &mut dyn FnMut(Completion)) {
        let strings = self.strings.lock().unwrap();
        if strings.holds && !self.aborted {
            return;
        }
        let fails = if self.aborted { Some(Status::Aborted) } else { strings.fails };
        drop(strings);
        self.aborted = false;
        for completion in self.in_flight.drain(..) {
            let failed = fails.map(|status| Completion::failed(completion.cookie, status));
            report(failed.unwrap_or(completion));
        }
    }

    fn arm(&mut self) -> bool {
        false
    }

    fn event(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn terminate_sync(&mut self, _timeout: Duration) -> Result<(), Stuck> {
        if self.strings.lock().unwrap().stuck {
            return Err(Stuck);
        }
        self.aborted = true;
        Ok(())
    }
}

impl Drop for PuppetChannel {
    fn drop(&mut self) {
        let mut strings = self.strings.lock().unwrap();
        strings.open -= 1;
        let meddler = strings.meddler.clone();
        drop(strings);
        if let Some(meddle) = meddler {
            meddle();
        }
    }
}

impl fmt::Debug for Strings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Strings").field("submitted", &self.submitted).finish_non_exhaustive()
    }
}
