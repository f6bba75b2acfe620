//! Waiting for interrupts.

use std::time::Duration;

use dmaengine::Status;
use ioat_model::{Config, Fault, Faults, Stepped, registers::ChanErr};
use ioatdma::Options;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::rig::{DEADLINE, FIRST, Random, Rig, Shell, Threaded, check};

/// Whether the event is set now.
fn is_set<S: Shell>(rig: &Rig<S>) -> bool {
    let event = rig.queue.event().expect("an event");
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut [PollFd::new(&event, PollFlags::IN)], Some(&now)) == Ok(1)
}

#[test]
fn nothing_to_wait_for_is_said() {
    let mut rig = Rig::<Stepped>::with_faults(Faults::none());
    assert!(!rig.queue.arm(), "nothing was submitted");
    rig.submit(0, 10);
    assert!(!rig.queue.arm(), "nothing was issued");
    rig.queue.issue_pending();
    while rig.host.shell.step() {}
    assert!(!rig.queue.arm(), "it has ended");
    assert_eq!(rig.wait_for(1).len(), 1);
    assert!(!rig.queue.arm());
    assert!(!is_set(&rig));
}

#[test]
fn the_event_comes_when_everything_issued_has_ended() {
    let mut rig = Rig::<Stepped>::with_faults(Faults::none());
    for number in 0..3 {
        rig.submit(number, 10);
    }
    rig.queue.issue_pending();
    assert!(rig.queue.arm());
    for _ in 0..3 {
        assert!(rig.host.shell.step());
        assert!(!is_set(&rig), "not all have ended");
    }
    assert!(rig.host.shell.step(), "the empty descriptor");
    assert!(is_set(&rig));
    rig.wait_for(3).iter().for_each(|done| check(done, Status::Success));
    assert!(!rig.queue.arm());
    rig.works();
    assert_eq!(rig.queue.space(), rig.queue.info().ring_size);
}

#[test]
fn a_second_arm_behind_more_work_is_not_lost() {
    let mut rig = Rig::<Stepped>::with_faults(Faults::none());
    rig.submit(0, 10);
    rig.queue.issue_pending();
    assert!(rig.queue.arm());
    rig.submit(1, 10);
    rig.queue.issue_pending();
    assert!(rig.queue.arm());
    // The first call's descriptor interrupts, early for the second; who is woken arms again.
    rig.host.shell.step();
    rig.host.shell.step();
    assert!(is_set(&rig));
    assert_eq!(rig.queue.poll(|done| check(&done, Status::Success)), 1);
    assert!(rig.queue.arm());
    assert!(!is_set(&rig), "arming clears it");
    while rig.host.shell.step() {}
    assert!(is_set(&rig));
}

/// As above, but the first call's descriptor has ended unseen when the second call comes.
#[test]
fn a_second_arm_after_the_first_event_is_not_lost() {
    let mut rig = Rig::<Stepped>::with_faults(Faults::none());
    rig.submit(0, 10);
    rig.queue.issue_pending();
    assert!(rig.queue.arm());
    while rig.host.shell.step() {}
    rig.submit(1, 10);
    rig.queue.issue_pending();
    assert!(rig.queue.arm());
    assert!(!is_set(&rig));
    assert_eq!(rig.queue.poll(|done| assert_eq!(done.tag, 0)), 1, "arming keeps what it found");
    while rig.host.shell.step() {}
    assert!(is_set(&rig));
    check(&rig.wait_for(1)[0], Status::Success);
    assert_eq!(rig.queue.space(), rig.queue.info().ring_size);
}

#[test]
fn a_halt_sets_the_event() {
    let fault = Fault::Error(ChanErr::READ_DATA);
    let mut rig = Rig::<Stepped>::with_faults(Faults::none().at(0, FIRST, fault));
    rig.submit(0, 10);
    rig.queue.issue_pending();
    assert!(rig.queue.arm());
    rig.host.shell.step();
    assert!(is_set(&rig));
    check(&rig.wait_for(1)[0], Status::ReadError);
}

#[test]
fn a_halt_at_the_event_s_own_descriptor_fails_no_operation() {
    let fault = Fault::Error(ChanErr::READ_DATA);
    let mut rig = Rig::<Stepped>::with_faults(Faults::none().at(0, FIRST + 1, fault));
    rig.submit(0, 10);
    rig.queue.issue_pending();
    assert!(rig.queue.arm());
    while rig.host.shell.step() {}
    assert!(is_set(&rig));
    check(&rig.wait_for(1)[0], Status::Success);
    rig.works();
}

#[test]
fn arming_finds_a_lost_completion() {
    let mut rig = Rig::<Stepped>::with_faults(Faults::none().at(0, FIRST, Fault::LostCompletion));
    rig.submit(0, 10);
    rig.queue.issue_pending();
    while rig.host.shell.step() {}
    assert!(!rig.queue.arm());
    let mut ended = 0;
    rig.queue.poll(|done| {
        check(&done, Status::Success);
        ended += 1;
    });
    assert_eq!(ended, 1, "by the first poll");
}

#[test]
fn a_ring_filled_to_the_brim_can_be_armed() {
    let options = Options { ring_order: 2, ..Options::default() };
    let mut rig = Rig::<Stepped>::new(Config::default(), options);
    for _ in 0..10 {
        assert_eq!(rig.queue.space(), 1);
        rig.submit(0, 10);
        rig.queue.issue_pending();
        assert!(rig.queue.arm());
        assert!(rig.queue.arm(), "twice");
        while rig.host.shell.step() {}
        assert!(is_set(&rig));
        rig.wait_for(1);
    }
}

/// Blocks on every batch; a lost event would end in the time-out.
#[test]
fn no_event_is_lost_while_a_thread_waits() {
    let mut rig = Rig::<Threaded>::with_faults(Faults::none());
    let mut random = Random(7);
    let timeout = Timespec::try_from(DEADLINE).expect("fits");
    for _ in 0..3000 {
        let count = 1 + random.below(4);
        for number in 0..count {
            rig.submit(number, 1 + random.below(3000));
        }
        rig.queue.issue_pending();
        let mut ended = 0;
        while ended < count {
            if rig.queue.arm() {
                let event = rig.queue.event().expect("an event");
                let ready = poll(&mut [PollFd::new(&event, PollFlags::IN)], Some(&timeout));
                assert_eq!(ready, Ok(1), "the event was lost");
            }
            rig.queue.poll(|done| {
                check(&done, Status::Success);
                ended += 1;
            });
        }
    }
}

#[test]
fn the_queue_s_wait_ends_or_says_that_it_does_not() {
    let mut rig = Rig::<Threaded>::with_faults(Faults::none().at(0, FIRST + 100, Fault::Hang));
    let mut ended = 0;
    for number in 0..50 {
        rig.submit(number, 1000);
        rig.queue.wait(DEADLINE, |_| ended += 1).expect("in time");
    }
    assert_eq!(ended, 50);
    for number in 0..101 {
        rig.submit(number, 10);
    }
    rig.queue.wait(Duration::from_millis(20), |_| ended += 1).expect_err("hangs");
    rig.queue.terminate_sync(Duration::from_secs(1), |_| ended += 1).expect("a reset");
    assert_eq!(ended, 151);
    rig.works();
}
