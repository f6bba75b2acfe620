//! Operations that are late, and those beside them that are not.

use super::*;
use crate::{FaultPlan, Faults, Flags, Layered};

/// For operations that are late when a test says so: see [`pass`].
const SOON: Duration = Duration::from_secs(100);
/// For those that are not.
const LATER: Duration = Duration::from_secs(10_000);

/// Has it be so much later, for a moment: what is late by then ends. No clock is waited for.
fn pass<S: DmaSource, D: DmaTarget>(copier: &Copier<S, D>, time: Duration) {
    copier.handles.core.with(|state| state.expire(Instant::now() + time));
}

/// A copier over the CPU with faults.
fn faulty(plan: &str) -> Copier<Vec<u8>, Vec<u8>> {
    let plan: FaultPlan = plan.parse().unwrap();
    let device = Layered::new(Arc::new(CpuDevice::new(1)), Faults::new(plan));
    Copier::new(device.request_channel(0).unwrap(), LATER).unwrap()
}

fn late(copier: &Memories, strings: &Strings, timeout: Duration) -> Copying<Memory, Memory> {
    copier.copy_with(strings.memory(b"from"), strings.memory(b"to.."), timeout)
}

#[test]
fn a_copy_that_never_ends_times_out_with_its_memory() {
    for blocking in [false, true] {
        for (channel, strings) in puppets() {
            let copier = Memories::new(channel, TIMEOUT).unwrap();
            let late = late(&copier, &strings, SHORT);
            let late = if blocking { late.wait() } else { block_on(late) }.unwrap();
            assert_eq!((late.status, late.target.as_ref()), (Status::TimedOut, &b"to.."[..]));
            assert_eq!((strings.in_ring(), strings.terminations()), (0, 1));
            // As good as new.
            let copying = copy(&copier, &strings);
            strings.end_after_polls(0);
            assert_eq!(block_on(copying).unwrap().status, Status::Success);
            assert_eq!(strings.dropped().1, 0);
        }
    }
}

#[test]
fn those_that_are_not_late_are_submitted_again_in_order() {
    for (channel, strings) in puppets() {
        let copier = Memories::new(channel, LATER).unwrap();
        let copy = |target: &[u8]| copier.copy(strings.memory(b"from"), strings.memory(target));
        let early = copy(b"1...");
        let late = late(&copier, &strings, SOON);
        let detached = copy(b"gone");
        let (source, target) = (strings.memory(b"from"), strings.memory(b"2..."));
        let fenced = copier.copy_with(source, target, Flags::FENCE);
        // The engine ends one of them at the same time.
        let ended = copy(b"3...");
        drop(detached);
        strings.end(4, Status::ReadError);

        pass(&copier, SOON);
        let late = late.wait().unwrap();
        assert_eq!((late.status, late.target.as_ref()), (Status::TimedOut, &b"to.."[..]));
        // Once more: the one before the late one and the one behind it.
        assert_eq!((strings.terminations(), strings.in_ring()), (1, 2));
        assert_eq!(strings.flags(), [Flags::empty(), Flags::FENCE]);
        assert_eq!(ended.wait().unwrap().status, Status::ReadError);
        assert_eq!(strings.dropped(), (2 + 2, 0), "also what nobody waits for");

        let [first, second] = strings.cookies()[..] else { panic!("two are in flight") };
        strings.end(0, Status::Success);
        let early = early.wait().unwrap();
        assert_eq!((early.status, early.cookie), (Status::Success, first));
        assert_eq!(early.target.as_ref(), b"from");
        strings.end(0, Status::Success);
        assert_eq!(fenced.wait().unwrap().cookie, second);
        assert_eq!(strings.dropped().1, 0);
    }
}

#[test]
fn they_come_before_what_waits_for_its_turn() {
    let (channel, strings) = Puppet::with_ring(2);
    let copier = Memories::new(channel, LATER).unwrap();
    let patient = copy(&copier, &strings);
    let late = late(&copier, &strings, SOON);
    let waiting: Vec<_> = (0..2).map(|_| copy(&copier, &strings)).collect();
    pass(&copier, SOON);
    assert_eq!(late.wait().unwrap().status, Status::TimedOut);
    let [again, _] = strings.cookies()[..] else { panic!("a full ring") };
    strings.end_after_polls(0);
    assert_eq!(patient.wait().unwrap().cookie, again);
    assert!(waiting.into_iter().all(|copy| copy.wait().unwrap().status == Status::Success));
}

#[test]
fn each_is_late_in_its_own_time() {
    let (channel, strings) = Puppet::channel();
    let copier = Memories::new(channel, LATER).unwrap();
    let [first, third, second] = [1, 3, 2].map(|time| late(&copier, &strings, SOON * time));
    for (copy, left) in [(first, 2), (second, 1), (third, 0)] {
        pass(&copier, SOON * (3 - left));
        assert_eq!(copy.wait().unwrap().status, Status::TimedOut);
        assert_eq!((strings.in_ring(), strings.terminations()), (left as usize, 3 - left as usize));
    }
    assert_eq!(strings.dropped(), (6, 0));
}

#[test]
fn one_that_fails_when_it_is_submitted_again_has_failed() {
    let copier = faulty("lose@1x2,fail@3:write-error");
    let [first, second] =
        [SOON, LATER].map(|timeout| copier.copy_with(vec![1; 8], vec![0; 8], timeout));
    pass(&copier, SOON);
    assert_eq!(first.wait().unwrap().status, Status::TimedOut);
    assert_eq!(second.wait().unwrap().status, Status::WriteError);
    let stats = copier.stats();
    assert_eq!((stats.submitted(), stats.ended(Status::Aborted)), (3, 2));
}

#[test]
fn one_that_is_not_taken_again_has_been_aborted() {
    let copier = faulty("lose@1x2,full@3");
    let [first, second] =
        [SOON, LATER].map(|timeout| copier.copy_with(vec![1; 8], vec![0; 8], timeout));
    pass(&copier, SOON);
    assert_eq!(first.wait().unwrap().status, Status::TimedOut);
    let second = block_on(second).unwrap();
    assert_eq!((second.status, second.source), (Status::Aborted, vec![1; 8]));
    assert_eq!(copier.fill(0, vec![1; 8]).wait().unwrap().status, Status::Success);
}

#[test]
fn one_that_is_late_before_it_can_be_submitted_again_has_timed_out() {
    let (channel, strings) = Puppet::channel();
    let copier = Memories::new(channel, LATER).unwrap();
    let [first, second] = [SOON, SOON * 2].map(|timeout| late(&copier, &strings, timeout));
    strings.break_when_stopped();
    pass(&copier, SOON);
    assert_eq!(first.wait().unwrap().status, Status::TimedOut);
    pass(&copier, SOON * 2);
    assert_eq!(second.wait().unwrap().status, Status::TimedOut);
    assert_eq!(strings.dropped(), (4, 0));
}

#[test]
fn a_channel_that_is_down_is_brought_back() {
    for blocking in [false, true] {
        let copier = faulty("halt@1:bad-address,halt@3:read-error");
        let copy = || {
            let copy = copier.copy(vec![1; 8], vec![0; 8]);
            if blocking { copy.wait() } else { block_on(copy) }.unwrap().status
        };
        let ends: Vec<_> = (0..5).map(|_| copy()).collect();
        let well = Status::Success;
        assert_eq!(ends, [Status::BadAddress, well, Status::ReadError, well, well]);
    }
}

#[test]
fn a_channel_that_stays_down_refuses() {
    let copier = faulty("vanish@1");
    let copy = || block_on(copier.copy(vec![1; 8], vec![0; 8]));
    assert_eq!(copy().unwrap().status, Status::DeviceLost);
    for _ in 0..2 {
        let refused = copy().unwrap_err();
        let CopyError::Refused(Refused { error, source, .. }) = refused else { panic!() };
        assert_eq!((error, source), (SubmitError::ChannelDown, vec![1; 8]));
    }
}

#[test]
fn a_channel_that_is_down_and_does_not_stop_refuses_at_the_deadline() {
    let copier = faulty("halt@1,stuck=1000000");
    let copy = |timeout: Duration| block_on(copier.copy_with(vec![1; 8], vec![0; 8], timeout));
    assert_eq!(copy(LATER).unwrap().status, Status::WriteError);
    let CopyError::Refused(refused) = copy(SHORT).unwrap_err() else { panic!() };
    assert_eq!(refused.error, SubmitError::ChannelDown);
}

#[test]
fn a_detached_copy_that_never_ends_is_terminated_too() {
    for (channel, strings) in puppets() {
        let copier = Memories::new(channel, SHORT).unwrap();
        drop(copy(&copier, &strings));
        eventually("its deadline passes", || strings.dropped() == (2, 0));
        assert_eq!(strings.terminations(), 1);
    }
}
