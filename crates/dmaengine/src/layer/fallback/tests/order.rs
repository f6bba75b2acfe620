//! What is visible in which order.

use std::time::Duration;

use super::{puppet::plain, rig::Rig};
use crate::{
    Capabilities, ChannelInfo, FallbackCause, FallbackOptions, Flags, Ordering, Status, SubmitError,
};

const FULL: Option<FallbackCause> = Some(FallbackCause::RingFull);
const FAILED: Option<FallbackCause> = Some(FallbackCause::Failed);

/// Has the CPU do a copy.
fn copy_by_cpu(rig: &mut Rig, from: usize, to: usize, flags: Flags) {
    rig.engine.state().refuse = Some(SubmitError::RingFull);
    rig.copy(from, to, flags);
    rig.channel.issue_pending();
    rig.engine.state().refuse = None;
}

#[test]
fn the_cpus_copy_is_not_reported_before_an_earlier_one_of_an_engine_in_order() {
    let mut rig = Rig::new(plain());
    rig.copy_now(1, 101);
    copy_by_cpu(&mut rig, 2, 102, Flags::empty());
    rig.copy_now(3, 103);
    assert_eq!(rig.cell(102), 2, "done at the doorbell");
    assert_eq!(rig.ends(), []);
    rig.engine.finish(0);
    assert_eq!(rig.ends(), [(1, None), (2, FULL)]);
    rig.engine.finish(0);
    assert_eq!(rig.ends(), [(3, None)]);
}

#[test]
fn who_asks_for_no_order_does_not_wait_for_it() {
    let mut rig = Rig::with_options(
        plain(),
        FallbackOptions { keeps_order: false, ..FallbackOptions::default() },
    );
    assert_eq!(rig.channel.info().ordering, Ordering::OutOfOrder);
    rig.copy_now(1, 101);
    copy_by_cpu(&mut rig, 2, 102, Flags::empty());
    assert_eq!(rig.ends(), [(2, FULL)]);
    rig.engine.finish(0);
    assert_eq!(rig.ends(), [(1, None)]);
}

#[test]
fn a_repetition_keeps_the_order_too() {
    let mut rig = Rig::new(plain());
    rig.copy_now(1, 101);
    rig.copy_now(2, 102);
    rig.engine.fail(1, Status::WriteError);
    assert_eq!(rig.ends(), []);
    rig.engine.finish(0);
    assert_eq!(rig.ends(), [(1, None), (2, FAILED)]);
}

#[test]
fn out_of_order_everything_is_reported_when_it_has_ended() {
    let mut rig = Rig::new(ChannelInfo { ordering: Ordering::OutOfOrder, ..plain() });
    rig.copy_now(1, 101);
    rig.copy_now(2, 102);
    copy_by_cpu(&mut rig, 3, 103, Flags::empty());
    let space = rig.channel.space();
    assert_eq!(rig.ends(), [(3, FULL)]);
    rig.engine.finish(1);
    assert_eq!(rig.ends(), [(2, None)]);
    assert_eq!(rig.channel.space(), space + 2);
    rig.engine.finish(0);
    assert_eq!(rig.ends(), [(1, None)]);
    assert_eq!(rig.channel.space(), space + 3);
}

#[test]
fn a_fence_holds_between_engine_and_engine() {
    // Also where the engine would keep it: it might go on behind a failure.
    for capabilities in [Capabilities::MEMCPY, Capabilities::MEMCPY | Capabilities::FENCE] {
        let mut rig = Rig::new(ChannelInfo { capabilities, ..plain() });
        rig.copy(1, 2, Flags::empty());
        rig.copy(2, 3, Flags::FENCE);
        rig.copy(4, 5, Flags::empty());
        rig.copy(3, 4, Flags::FENCE);
        rig.channel.issue_pending();
        assert_eq!((rig.engine.held(), rig.engine.state().doorbells), (1, 1));
        rig.engine.fail(0, Status::WriteError);
        // Repeated, and only then copied on; the engine rests, so all of it is the CPU's.
        assert_eq!(rig.ends().len(), 4);
        assert_eq!([2, 3, 5, 4].map(|cell| rig.cell(cell)), [1, 1, 4, 1]);
    }
}

#[test]
fn what_follows_a_fence_starts_when_all_before_it_has_ended() {
    let mut rig = Rig::new(ChannelInfo { ordering: Ordering::OutOfOrder, ..plain() });
    rig.copy(1, 101, Flags::empty());
    rig.copy(2, 102, Flags::empty());
    rig.copy(3, 103, Flags::FENCE);
    rig.copy(4, 104, Flags::empty());
    rig.channel.issue_pending();
    rig.engine.finish(1);
    assert_eq!(rig.ends(), [(2, None)]);
    assert_eq!(rig.engine.held(), 1);
    rig.engine.finish(0);
    assert_eq!(rig.ends(), [(1, None)]);
    assert_eq!((rig.engine.held(), rig.engine.state().doorbells), (2, 2));
    rig.engine.finish(1);
    rig.engine.finish(0);
    assert_eq!(rig.ends(), [(4, None), (3, None)]);
}

#[test]
fn a_fence_holds_between_engine_and_cpu_both_ways() {
    for ordering in [Ordering::InOrder, Ordering::OutOfOrder] {
        let mut rig = Rig::new(ChannelInfo { ordering, ..plain() });
        rig.copy_now(1, 2);
        // It is the CPU's only when it is started.
        rig.copy(2, 3, Flags::FENCE);
        rig.channel.issue_pending();
        assert_eq!(rig.cell(3), 3, "not before the engine has copied");
        assert_eq!(rig.ends(), []);
        rig.engine.state().refuse = Some(SubmitError::RingFull);
        rig.engine.finish(0);
        assert_eq!(rig.ends(), [(1, None), (2, FULL)]);
        assert_eq!(rig.cell(3), 1);
        // CPU first: a fence behind it costs the engine nothing once that is done.
        rig.copy(5, 6, Flags::empty());
        rig.engine.state().refuse = None;
        rig.copy(6, 7, Flags::FENCE);
        assert_eq!(rig.engine.held(), 0, "the CPU waits for the doorbell, and it for the CPU");
        rig.channel.issue_pending();
        assert_eq!((rig.cell(6), rig.engine.held()), (5, 1));
        rig.engine.finish(0);
        assert_eq!(rig.ends(), [(3, FULL), (4, None)]);
        assert_eq!(rig.cell(7), 5);
    }
}

#[test]
fn the_end_of_a_fence_is_no_doorbell() {
    let mut rig = Rig::new(plain());
    rig.copy(1, 2, Flags::empty());
    rig.copy(2, 3, Flags::FENCE);
    rig.channel.issue_pending();
    rig.copy(8, 9, Flags::FENCE);
    rig.copy(10, 11, Flags::empty());
    for cell in [2, 3] {
        rig.engine.finish(0);
        assert_eq!(rig.ends().len(), 1);
        assert_eq!(rig.cell(cell), 1);
    }
    rig.pass(Duration::from_secs(1));
    assert_eq!(rig.ends(), []);
    assert_eq!(rig.engine.held(), 0, "not issued");
    rig.channel.issue_pending();
    assert_eq!(rig.engine.held(), 2);
}

#[test]
fn what_can_be_polled_is_not_waited_for() {
    let capabilities = Capabilities::MEMCPY | Capabilities::INTERRUPT;
    for ordering in [Ordering::InOrder, Ordering::OutOfOrder] {
        let mut rig = Rig::new(ChannelInfo { capabilities, ordering, ..plain() });
        assert!(!rig.channel.arm(), "nothing is in flight");
        copy_by_cpu(&mut rig, 1, 101, Flags::empty());
        assert!(!rig.channel.arm(), "it has ended");
        rig.copy_now(2, 102);
        assert!(!rig.channel.arm());
        assert_eq!(rig.ends(), [(1, FULL)]);
        assert!(rig.channel.arm());
        copy_by_cpu(&mut rig, 3, 103, Flags::empty());
        // In order, it is not to be had before the engine's.
        assert_eq!(rig.channel.arm(), ordering == Ordering::InOrder);
        rig.engine.finish(0);
        assert!(!rig.channel.arm());
        assert_eq!(rig.ends().len(), 2);
    }
}
