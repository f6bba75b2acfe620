use std::{os::fd::BorrowedFd, time::Duration};

use dmaengine::{
    Arena, ChannelInfo, Completion, Cookie, CpuDevice, DmaChannel, DmaDevice, Flags, Operation,
    Queue, Status, Stuck, SubmitError, ThreadsDevice,
};

use super::*;
use crate::bench::{
    dma::{bare::Bare, memcpy::Memcpy, pairs::Pairs, queued::Queued},
    null::NullChannel,
};

const PAIRS: usize = 8;
const SIZE: usize = 100;

fn pairs() -> Pairs {
    let arena: Arena = Pairs::arena(PAIRS, SIZE).unwrap();
    Pairs::new(&arena, PAIRS, SIZE).unwrap()
}

fn plan(clock: &Clock) -> Plan<'_> {
    Plan { clock, batch: 2, depth: 6, duration: Duration::from_millis(1), copies: true }
}

/// Both kinds of pass, one after the other.
fn both(subject: &mut impl Subject, plan: Plan<'_>) -> Result<(), PassError> {
    let cost = plan.cost(subject)?;
    assert!(cost.operations > 0 && cost.seconds > 0.0 && cost.submit_ns > 0.0, "{cost:?}");
    plan.latency(subject)?;
    Ok(())
}

#[test]
fn every_subject_copies_and_ends() {
    let clock = Clock::calibrate();
    let plan = plan(&clock);
    both(&mut Memcpy::new(pairs(), plan.depth), plan).unwrap();
    let devices: [Box<dyn DmaDevice>; 2] =
        [Box::new(CpuDevice::new(1)), Box::new(ThreadsDevice::new(1))];
    for device in devices {
        let mut channel = device.request_channel(0).unwrap();
        both(&mut Bare::new(&mut *channel, pairs(), SIZE), plan).unwrap();
        // Again: the channel's cookies do not begin with the first.
        both(&mut Bare::new(&mut *channel, pairs(), SIZE), plan).unwrap();
        drop(channel);
        let mut queue = Queue::new(device.request_channel(0).unwrap());
        both(&mut Queued::new(&mut queue, pairs()), plan).unwrap();
        both(&mut Queued::new(&mut queue, pairs()), plan).unwrap();
    }
}

#[test]
fn an_engine_that_does_not_copy_is_found_out() {
    let clock = Clock::calibrate();
    let plan = plan(&clock);
    let mut channel = NullChannel::new();
    let wrong = both(&mut Bare::new(&mut channel, pairs(), SIZE), plan);
    assert!(matches!(wrong, Err(PassError::Wrong)), "{wrong:?}");
    let nothing_expected = Plan { copies: false, ..plan };
    both(&mut Bare::new(&mut channel, pairs(), SIZE), nothing_expected).unwrap();
    let copied = both(&mut Memcpy::new(pairs(), plan.depth), nothing_expected);
    assert!(matches!(copied, Err(PassError::Wrong)), "{copied:?}");
}

/// What a [`Faulty`] channel does to all it is given.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    /// It is full.
    Refuses,
    /// It ends them with an error.
    Fails,
    /// It ends them never, and says that it is idle when it is stopped.
    StandsStill,
}

#[derive(Debug)]
struct Faulty {
    fault: Fault,
    inner: NullChannel,
}

// SAFETY: as `NullChannel`.
unsafe impl DmaChannel for Faulty {
    fn info(&self) -> &ChannelInfo {
        self.inner.info()
    }

    fn space(&self) -> usize {
        self.inner.space()
    }

    unsafe fn submit(
        &mut self,
        operation: &Operation<'_>,
        flags: Flags,
    ) -> Result<Cookie, SubmitError> {
        if self.fault == Fault::Refuses {
            return Err(SubmitError::RingFull);
        }
        // SAFETY: the caller's promise is that of the inner channel's.
        unsafe { self.inner.submit(operation, flags) }
    }

    fn issue_pending(&mut self) {
        if self.fault != Fault::StandsStill {
            self.inner.issue_pending();
        }
    }

    fn poll(&mut self, report: &mut dyn FnMut(Completion)) {
        self.inner.poll(&mut |completion| {
            report(Completion::failed(completion.cookie, Status::WriteError));
        });
    }

    fn arm(&mut self) -> bool {
        false
    }

    fn event(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn terminate_sync(&mut self, timeout: Duration) -> Result<(), Stuck> {
        self.inner.terminate_sync(timeout)
    }
}

#[test]
fn faults_are_told_apart_through_both_interfaces() {
    let clock = Clock::calibrate();
    let plan = plan(&clock);
    for fault in [Fault::Refuses, Fault::Fails, Fault::StandsStill] {
        let as_expected = |result: Result<(), PassError>| match fault {
            Fault::Refuses => {
                matches!(result, Err(PassError::Refused(SubmitError::RingFull)))
            }
            Fault::Fails => matches!(result, Err(PassError::Failed(Status::WriteError))),
            Fault::StandsStill => {
                matches!(result, Err(PassError::NothingEnded(_) | PassError::Timeout(_)))
            }
        };
        let mut channel = Faulty { fault, inner: NullChannel::new() };
        assert!(as_expected(both(&mut Bare::new(&mut channel, pairs(), SIZE), plan)), "{fault:?}");
        let channel: Box<dyn DmaChannel> = Box::new(Faulty { fault, inner: NullChannel::new() });
        let mut queue = Queue::new(channel);
        assert!(as_expected(both(&mut Queued::new(&mut queue, pairs()), plan)), "{fault:?}");
    }
}
