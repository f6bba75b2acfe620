//! Halts, hangs, lost completions and vanished devices.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use dmaengine::{DmaDevice, Queue, Status, Stuck, SubmitError};
use ioat_model::{Config, Fault, Faults, Stepped, registers::ChanErr};
use ioatdma::{Bar, Completions, Options};

use crate::rig::{Copies, FIRST, Rig, Shell, Threaded, check};

const BATCH: usize = 8;

/// One fault at each position of a batch, whose first half was issued before the rest.
fn halts_at_each_position<S: Shell>(fault: Fault, status: Status, completions: Completions) {
    for position in 0..BATCH {
        let faults = Faults::none().at(0, FIRST + position as u64, fault);
        let config = Config { faults, ..Config::default() };
        let mut rig = Rig::<S>::new(config, Options { completions, ..Options::default() });
        for number in 0..BATCH {
            rig.submit(number, 100);
            if number == BATCH / 2 {
                rig.queue.issue_pending();
            }
        }
        rig.queue.issue_pending();
        for (number, done) in rig.wait_for(BATCH).iter().enumerate() {
            assert_eq!(done.tag, number, "in order");
            let expected = match number.cmp(&position) {
                std::cmp::Ordering::Less => Status::Success,
                std::cmp::Ordering::Equal => status,
                std::cmp::Ordering::Greater => Status::Aborted,
            };
            check(done, expected);
        }
        rig.works();
    }
}

#[test]
fn each_error_ends_its_operation_with_its_status() {
    for (bits, status) in [
        (ChanErr::SOURCE_ADDRESS, Status::BadAddress),
        (ChanErr::DESTINATION_ADDRESS, Status::BadAddress),
        (ChanErr::NEXT_ADDRESS, Status::BadDescriptor),
        (ChanErr::DESCRIPTOR_CONTROL, Status::BadDescriptor),
        (ChanErr::LENGTH, Status::BadLength),
        (ChanErr::READ_DATA, Status::ReadError),
        (ChanErr::WRITE_DATA, Status::WriteError),
        (ChanErr::DMA_UNCORRECTABLE, Status::Aborted),
    ] {
        for completions in [Completions::PerOperation, Completions::PerBatch] {
            halts_at_each_position::<Stepped>(Fault::Error(bits), status, completions);
        }
        let fault = Fault::Error(bits);
        halts_at_each_position::<Threaded>(fault, status, Completions::PerOperation);
    }
    halts_at_each_position::<Stepped>(Fault::Halt, Status::Aborted, Completions::PerBatch);
}

#[test]
fn a_halt_at_any_piece_fails_the_whole_operation() {
    for piece in 0..3 {
        let fault = Fault::Error(ChanErr::WRITE_DATA);
        let faults = Faults::none().at(0, FIRST + 1 + piece, fault);
        let config = Config { xfercap: 12, faults, ..Config::default() };
        let mut rig = Rig::<Stepped>::new(config, Options::default());
        rig.submit(0, 10);
        rig.submit(1, 3 * 4096);
        rig.submit(2, 10);
        rig.queue.issue_pending();
        let ended = rig.wait_for(3);
        for (done, status) in
            ended.iter().zip([Status::Success, Status::WriteError, Status::Aborted])
        {
            check(done, status);
        }
        rig.works();
    }
}

#[test]
fn a_halt_is_told_by_name() {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let listener = Arc::clone(&heard);
    let on_incident: Arc<ioatdma::OnIncident> =
        Arc::new(move |incident| listener.lock().expect("no panic").push(incident.to_string()));
    let fault = Fault::Error(ChanErr::READ_DATA | ChanErr::LENGTH);
    let config = Config { faults: Faults::none().at(0, FIRST, fault), ..Config::default() };
    let options = Options { on_incident: Some(on_incident), ..Options::default() };
    let mut rig = Rig::<Stepped>::new(config, options);
    rig.submit(0, 10);
    rig.queue.issue_pending();
    rig.wait_for(1);
    assert_eq!(*heard.lock().expect("no panic"), ["channel 0 halted: READ_DATA | LENGTH"]);
}

/// The IOMMU does what a fault to order does not: the model itself finds the address.
#[test]
fn memory_that_the_device_cannot_reach_is_a_bad_address() {
    struct Forgetful(Arc<crate::rig::Host<Stepped>>);
    // SAFETY: as the host, but the second and later arenas get IOVAs that reach nothing.
    unsafe impl ioatdma::Platform for Forgetful {
        fn map(&self, arena: &dmaengine::Arena) -> Result<u64, dmaengine::MapError> {
            if arena.len() != 4 << 20 { self.0.map(arena) } else { Ok(1 << 50) }
        }
        fn interrupts(&self) -> ioatdma::Interrupts {
            ioatdma::Interrupts::None
        }
        fn vector(&self, _: usize) -> Option<std::os::fd::BorrowedFd<'_>> {
            None
        }
        fn config_read32(&self, _: u16) -> u32 {
            0
        }
        fn config_write32(&self, _: u16, _: u32) {}
    }
    let host = crate::rig::Host::<Stepped>::new(Config::default());
    let mut resources = host.resources();
    resources.platform = Arc::new(Forgetful(Arc::clone(&host)));
    let device = ioatdma::IoatDevice::probe(resources, Options::default()).expect("good");
    let arena = dmaengine::Arena::new(4 << 20).expect("memory");
    device.map(&arena).expect("room");
    let queue = Queue::new(device.request_channel(0).expect("free"));
    let mut rig = Rig { queue, arena, device, host };
    rig.submit(0, 10);
    rig.queue.issue_pending();
    check(&rig.wait_for(1)[0], Status::BadAddress);
}

#[test]
fn a_lost_completion_write_is_found_in_chansts() {
    for completions in [Completions::PerOperation, Completions::PerBatch] {
        let faults = Faults::none().at(0, FIRST + 1, Fault::LostCompletion);
        let config = Config { faults, ..Config::default() };
        let mut rig = Rig::<Stepped>::new(config, Options { completions, ..Options::default() });
        rig.submit(0, 10);
        rig.submit(1, 10);
        rig.queue.issue_pending();
        rig.wait_for(2).iter().for_each(|done| check(done, Status::Success));
    }
}

fn a_hang_is_over_after_terminate<S: Shell>() {
    let faults = Faults::none().at(0, FIRST + 1, Fault::Hang);
    let mut rig = Rig::<S>::with_faults(faults);
    for number in 0..4 {
        rig.submit(number, 10);
    }
    rig.queue.issue_pending();
    rig.submit(4, 10);
    check(&rig.wait_for(1)[0], Status::Success);
    let mut ended = Vec::new();
    rig.queue.terminate_sync(Duration::from_secs(1), |done| ended.push(done)).expect("a reset");
    assert_eq!(ended.len(), 4, "also the one that was not issued");
    ended.iter().for_each(|done| check(done, Status::Aborted));
    rig.works();
}

#[test]
fn a_hang_is_over_after_terminate_stepped_and_threaded() {
    a_hang_is_over_after_terminate::<Stepped>();
    a_hang_is_over_after_terminate::<Threaded>();
}

#[test]
fn terminate_reports_what_had_ended_as_such() {
    let mut rig = Rig::<Stepped>::with_faults(Faults::none());
    for number in 0..4 {
        rig.submit(number, 10);
    }
    rig.queue.issue_pending();
    rig.host.shell.step();
    let mut ended = Vec::new();
    rig.queue.terminate_sync(Duration::ZERO, |done| ended.push(done)).expect("idle at once");
    check(&ended[0], Status::Success);
    ended[1..].iter().for_each(|done| check(done, Status::Aborted));
    rig.works();
}

#[test]
fn a_channel_that_was_never_used_terminates_and_goes_on() {
    let mut rig = Rig::<Threaded>::with_faults(Faults::none());
    for _ in 0..3 {
        rig.queue.terminate_sync(Duration::from_secs(1), drop).expect("idle");
    }
    rig.works();
}

#[test]
fn start_and_stop_many_times() {
    let mut rig = Rig::<Threaded>::new(
        Config { channels: 2, ..Config::default() },
        Options { ring_order: 3, ..Options::default() },
    );
    for _ in 0..100 {
        let mut second: Copies = Queue::new(rig.device.request_channel(1).expect("given back"));
        let (source, target) = (rig.buffer(10, 1), rig.buffer(10, 0));
        second.copy(source.slice(0..10), target.slice(0..10), 0).expect("room");
        second.issue_pending();
        // Dropped with a copy in flight.
    }
    rig.works();
}

#[test]
fn a_dead_channel_is_stuck_and_takes_nothing() {
    let faults = Faults::none().at(0, FIRST, Fault::Dead);
    let mut rig = Rig::<Stepped>::with_faults(faults);
    rig.submit(0, 10);
    rig.queue.issue_pending();
    assert!(!rig.host.shell.step(), "it looked at the descriptor, and stopped");
    let stuck = rig.queue.terminate_sync(Duration::from_millis(10), drop);
    assert_eq!(stuck, Err(Stuck));
    assert_eq!(rig.queue.in_flight(), 1, "its memory is not given back");
    let (source, target) = (rig.buffer(10, 1), rig.buffer(10, 0));
    let refused = rig.queue.copy(source.slice(0..10), target.slice(0..10), 1);
    assert_eq!(refused.expect_err("down").error, SubmitError::ChannelDown);
    // Dropping the queue would end the process, as it must.
    std::mem::forget(rig.queue);
}

#[test]
fn a_device_that_is_pulled_loses_what_was_in_flight() {
    let faults = Faults::none().at(0, FIRST + 1, Fault::Hang);
    let mut rig = Rig::<Threaded>::with_faults(faults);
    for number in 0..3 {
        rig.submit(number, 10);
    }
    rig.queue.issue_pending();
    check(&rig.wait_for(1)[0], Status::Success);
    drop(rig.host.shell.device.lock().expect("no panic").take());
    rig.wait_for(2).iter().for_each(|done| check(done, Status::DeviceLost));
    let (source, target) = (rig.buffer(10, 1), rig.buffer(10, 0));
    let refused = rig.queue.copy(source.slice(0..10), target.slice(0..10), 9);
    assert_eq!(refused.expect_err("gone").error, SubmitError::ChannelDown);
    assert_eq!(rig.queue.terminate_sync(Duration::from_secs(1), drop), Ok(()));
    assert_eq!(rig.host.read8(0x08), u8::MAX);
}
