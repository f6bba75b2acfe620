use std::panic::{AssertUnwindSafe, catch_unwind};

use super::*;
use crate::{
    DmaDevice, ThreadsDevice,
    fork::child::in_child,
    puppet::{Memory, Puppet, Strings},
};

const TIMEOUT: Duration = Duration::from_secs(10);
/// For operations that never end.
const SHORT: Duration = Duration::from_millis(5);

fn segment_len(len: usize) -> NonZeroUsize {
    NonZeroUsize::new(len).unwrap()
}

/// A copy of ten bytes in segments of three.
fn ten() -> (SegmentedCopy<Memory, Memory>, Strings) {
    let (channel, strings) = Puppet::channel();
    let source: Vec<u8> = (0..10).collect();
    let (source, target) = (strings.memory(&source), strings.memory(&[99; 10]));
    (SegmentedCopy::start(channel, source, target, segment_len(3)).unwrap(), strings)
}

#[test]
fn a_prefix_grows_while_the_rest_is_copied() {
    let (mut copy, strings) = ten();
    assert_eq!((copy.ready(), strings.in_ring()), (&[][..], 4));
    strings.end(1, Status::Success);
    assert_eq!(copy.ready(), []);
    strings.end(0, Status::Success);
    assert_eq!(copy.wait_for(4, TIMEOUT).unwrap(), [0, 1, 2, 3, 4, 5]);
    assert_eq!(copy.wait_for(7, SHORT), Err(PrefixError::TimedOut { ready: 6 }));
    strings.end_after_polls(0);
    let (channel, done) = copy.finish(TIMEOUT).unwrap();
    assert_eq!((done.status, done.bytes, done.cookie), (Status::Success, 10, Cookie::FIRST));
    assert_eq!((done.target.as_ref(), strings.in_ring()), (done.source.as_ref(), 0));

    // The channel is as good as new.
    let again = SegmentedCopy::start(channel, done.source, done.target, segment_len(99)).unwrap();
    assert_eq!(again.finish(TIMEOUT).unwrap().1.status, Status::Success);
    assert_eq!(strings.dropped(), (2, 0));
}

#[test]
fn a_segment_that_fails_ends_the_prefix() {
    let (mut copy, strings) = ten();
    strings.end(2, Status::ReadError);
    strings.end(0, Status::Success);
    assert_eq!(copy.ready(), [0, 1, 2]);
    let error = PrefixError::Failed { status: Status::ReadError, ready: 3 };
    assert_eq!(copy.wait_for(4, TIMEOUT), Err(error));
    strings.end_after_polls(0);
    let (_, done) = copy.finish(TIMEOUT).unwrap();
    assert_eq!((done.status, done.bytes), (Status::ReadError, 6));
}

#[test]
fn memory_comes_back_after_the_engine_was_stopped() {
    let (copy, strings) = ten();
    strings.end(0, Status::Success);
    strings.set_stuck(true);
    let copy = copy.finish(SHORT).unwrap_err();
    assert_eq!(strings.dropped(), (0, 0));
    strings.set_stuck(false);
    let (_, done) = copy.finish(SHORT).unwrap();
    assert_eq!((done.status, done.bytes, strings.in_ring()), (Status::TimedOut, 3, 0));
}

#[test]
fn dropping_it_stops_the_engine_before_the_memory_goes() {
    let (copy, strings) = ten();
    drop(copy);
    assert_eq!((strings.terminations(), strings.dropped()), (1, (2, 0)));

    let (copy, strings) = ten();
    strings.set_stuck(true);
    drop(copy);
    assert_eq!(strings.dropped(), (0, 0), "leaked");

    let (copy, strings) = ten();
    std::mem::forget(copy);
    strings.end(0, Status::Success);
    assert_eq!(strings.dropped(), (0, 0), "leaked");
}

#[test]
fn what_is_refused_comes_back() {
    let (channel, strings) = Puppet::channel();
    let memory = |len| strings.memory(&vec![1; len]);
    let start = |channel, from, to| {
        SegmentedCopy::start(channel, memory(from), memory(to), segment_len(3)).unwrap_err()
    };
    let (channel, refused) = start(channel, 3, 4);
    assert_eq!(refused.error, SubmitError::LengthMismatch { source_len: 3, target_len: 4 });
    let (_, refused) = start(channel, 0, 0);
    assert_eq!(refused.error, SubmitError::ZeroLength);
}

#[test]
fn a_driver_that_panics_in_poll_frees_nothing_under_the_engine() {
    let (mut copy, strings) = ten();
    strings.panic_in_poll(1);
    assert!(catch_unwind(AssertUnwindSafe(|| copy.ready().len())).is_err());
    assert_eq!((strings.in_ring(), strings.dropped()), (4, (0, 0)));
    strings.end_after_polls(0);
    let (_, done) = copy.finish(TIMEOUT).unwrap();
    assert_eq!((done.status, done.bytes), (Status::Success, 10));

    // In `finish`, which has taken the copy: it goes as if it were dropped.
    let (copy, strings) = ten();
    strings.panic_in_poll(1);
    assert!(catch_unwind(AssertUnwindSafe(|| copy.finish(TIMEOUT).is_ok())).is_err());
    assert_eq!((strings.terminations(), strings.dropped()), (1, (2, 0)));
}

#[test]
#[cfg_attr(miri, ignore = "no fork")]
fn a_forked_child_leaves_the_copy_to_its_parent() {
    let (mut copy, strings) = ten();
    strings.end(0, Status::Success);
    let source: Vec<u8> = (0..10).collect();
    assert_eq!(copy.ready(), &source[..3]);
    let mut of_child = Some(copy);
    let is_right = in_child(|| {
        let Some(mut copy) = of_child.take() else { return false };
        // What was there is there; nothing more comes, and nobody waits for it.
        let is_there = copy.ready() == [0, 1, 2];
        let late = copy.wait_for(4, TIMEOUT) == Err(PrefixError::TimedOut { ready: 3 });
        let kept = copy.finish(TIMEOUT);
        let is_kept = kept.is_err();
        drop(kept);
        // Neither the engine nor the memory is the child's: both are left alone.
        is_there && late && is_kept && strings.terminations() == 0 && strings.dropped() == (0, 0)
    });
    assert!(is_right);
    strings.end_after_polls(0);
    let (_, done) = of_child.unwrap().finish(TIMEOUT).unwrap();
    assert_eq!((done.status, done.target.as_ref()), (Status::Success, &source[..]));
}

#[test]
fn on_a_real_engine() {
    const LEN: usize = if cfg!(miri) { 20_000 } else { 1 << 20 };
    let channel = Channel::from(ThreadsDevice::new(1).request_channel(0).unwrap());
    let bytes: Vec<u8> = (0..=255).cycle().take(LEN + 5).collect();
    let target = vec![0u8; bytes.len()];
    let mut copy = SegmentedCopy::start(channel, bytes.clone(), target, segment_len(4096)).unwrap();
    let mut seen = 0;
    while seen < bytes.len() {
        let ready = copy.wait_for(seen + 1, TIMEOUT).unwrap();
        assert!(ready[seen..] == bytes[seen..ready.len()]);
        seen = ready.len();
    }
    let (_, done) = copy.finish(TIMEOUT).unwrap();
    assert_eq!(done.status, Status::Success);
    assert!(done.target == bytes);
}
