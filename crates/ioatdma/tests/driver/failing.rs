//! A channel of which operations fail to order: their descriptors are spoiled before the doorbell.

use std::{
    os::fd::BorrowedFd,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use dmaengine::{
    ChannelInfo, Completion, Cookie, DmaChannel, DmaDevice, Flags, Operation, Queue, Status, Stuck,
    SubmitError,
};
use ioat_model::{Config, Stepped};
use ioatdma::{Bar, Options};

use crate::{
    machine::{Host, Shell},
    rig::{Rig, check},
};

/// The statuses that [`Failing`] knows how to bring about.
pub(crate) const STATUSES: [Status; 3] =
    [Status::BadAddress, Status::BadLength, Status::BadDescriptor];

/// A bus address that no arena has.
const NOWHERE: u64 = 1 << 50;
/// CHAINADDR of channel 0, and where it is in version 1.
const CHAINADDR: u64 = 0x90;
const CHAINADDR_V1: u64 = 0x8c;

/// Channel 0 of a device; copies, by the number of their submission, end with other statuses.
pub(crate) struct Failing<S> {
    channel: Box<dyn DmaChannel>,
    host: Arc<Host<S>>,
    plan: Vec<(u64, Status)>,
    submitted: u64,
    /// The bus address of the ring: a fresh channel's chain begins in its first slot.
    ring: u64,
    slots: u64,
}

impl<S: Shell> Failing<S> {
    pub(crate) fn new(
        channel: Box<dyn DmaChannel>,
        host: &Arc<Host<S>>,
        plan: impl IntoIterator<Item = (u64, Status)>,
    ) -> Self {
        let version_1 = channel.info().version.as_deref() == Some("1.2");
        let register = if version_1 { CHAINADDR_V1 } else { CHAINADDR };
        let half = |offset| u64::from(host.read32(register + offset));
        // Three slots are not for operations.
        let slots = channel.info().ring_size as u64 + 3;
        let (ring, plan) = (half(4) << 32 | half(0), plan.into_iter().collect());
        Self { channel, host: Arc::clone(host), plan, submitted: 0, ring, slots }
    }

    /// Spoils the descriptors that write to `target`. Of those that are yet to be processed there is
    /// one, because a target belongs to one operation.
    fn spoil(&self, target: *const u8, status: Status) {
        for slot in 0..self.slots {
            let words = self.host.memory(self.ring + slot * 64).cast::<u64>();
            // SAFETY: a descriptor of the ring, in an arena that the host keeps. The device reads it
            // at the same time at most, and by atomics, as the driver does.
            let [head, source, to] =
                [0, 1, 2].map(|word| unsafe { AtomicU64::from_ptr(words.add(word)) });
            // Relaxed, all: the driver's doorbell orders them.
            let to = to.load(Ordering::Relaxed);
            if to != 0 && self.host.memory(to).cast_const() == target {
                let old = head.load(Ordering::Relaxed);
                match status {
                    Status::BadAddress => source.store(NOWHERE, Ordering::Relaxed),
                    Status::BadLength => head.store(old >> 32 << 32, Ordering::Relaxed),
                    // Reserved.
                    Status::BadDescriptor => head.store(old | 1 << (32 + 23), Ordering::Relaxed),
                    other => panic!("no descriptor ends with: {other}"),
                }
            }
        }
    }
}

impl<S> std::fmt::Debug for Failing<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Failing").field("channel", &self.channel).finish_non_exhaustive()
    }
}

// SAFETY: every promise is the inner channel's. A spoiled descriptor moves nothing.
unsafe impl<S: Shell> DmaChannel for Failing<S> {
    fn info(&self) -> &ChannelInfo {
        self.channel.info()
    }
    fn space(&self) -> usize {
        self.channel.space()
    }
    unsafe fn submit(
        &mut self,
        operation: &Operation<'_>,
        flags: Flags,
    ) -> Result<Cookie, SubmitError> {
        // SAFETY: the caller's promise.
        let cookie = unsafe { self.channel.submit(operation, flags) }?;
        let number = self.submitted;
        self.submitted += 1;
        let status = self.plan.iter().find(|(index, _)| *index == number).map(|(_, status)| status);
        if let (Some(status), Operation::Memcpy { target, .. }) = (status, operation) {
            self.spoil(*target, *status);
        }
        Ok(cookie)
    }
    fn issue_pending(&mut self) {
        self.channel.issue_pending();
    }
    fn poll(&mut self, report: &mut dyn FnMut(Completion)) {
        self.channel.poll(report);
    }
    fn arm(&mut self) -> bool {
        self.channel.arm()
    }
    fn event(&self) -> Option<BorrowedFd<'_>> {
        self.channel.event()
    }
    fn terminate_sync(&mut self, timeout: Duration) -> Result<(), Stuck> {
        self.channel.terminate_sync(timeout)
    }
}

/// One failure after the other, with copies around them, none of which is lost.
#[test]
fn a_storm_of_errors_ends_one_operation_each() {
    let Rig { arena, device, host, queue } =
        Rig::<Stepped>::new(Config::default(), Options::default());
    drop(queue);
    let rounds = 16 * STATUSES.len() as u64;
    let plan = (0..rounds).map(|round| (4 * round + 1, STATUSES[round as usize % STATUSES.len()]));
    let channel = device.request_channel(0).expect("free");
    let queue =
        Queue::new(Box::new(Failing::new(channel, &host, plan.clone())) as Box<dyn DmaChannel>);
    let mut rig = Rig { arena, device, host, queue };
    for (_, status) in plan {
        for number in 0..4 {
            rig.submit(number, 100);
        }
        rig.queue.issue_pending();
        let expected = [Status::Success, status, Status::Aborted, Status::Aborted];
        for (done, status) in rig.wait_for(4).iter().zip(expected) {
            check(done, status);
        }
    }
    rig.works();
}
