//! An operation that the engine keeps for longer than it takes for the ring to come round.

use std::time::Duration;

use super::{puppet::plain, rig::Rig};
use crate::{ChannelInfo, FallbackCause, Flags, Ordering, Status};

/// Two operations that the engine keeps, and three rings of others that it does not.
fn lapped() -> Rig {
    let mut rig = Rig::new(ChannelInfo { ordering: Ordering::OutOfOrder, ..plain() });
    rig.copy_now(1, 101);
    rig.copy_now(2, 102);
    let ring_size = rig.channel.info().ring_size;
    for cookie in 3..3 + 3 * ring_size as u64 {
        rig.copy_now(3, 103);
        rig.engine.finish(2);
        assert_eq!(rig.ends(), [(cookie, None)]);
        assert_eq!(rig.channel.space(), ring_size - 2);
    }
    rig
}

#[test]
fn it_ends_like_any_other() {
    let mut rig = lapped();
    rig.engine.finish(1);
    assert_eq!(rig.ends(), [(2, None)]);
    rig.engine.fail(0, Status::WriteError);
    assert_eq!(rig.ends(), [(1, Some(FallbackCause::Failed))]);
    assert_eq!((rig.cell(101), rig.cell(102)), (1, 2));
    assert_eq!(rig.channel.space(), rig.channel.info().ring_size);
}

#[test]
fn it_is_overdue_like_any_other() {
    for silent in [false, true] {
        let mut rig = lapped();
        rig.engine.state().silent = silent;
        rig.copy_now(4, 104);
        rig.pass(Duration::from_millis(200));
        let mut ends = rig.ends();
        ends.sort_unstable_by_key(|end| end.0);
        let timed_out = Some(FallbackCause::TimedOut);
        assert_eq!(ends[..2], [(1, timed_out), (2, timed_out)]);
        assert_eq!((ends.len(), ends[2].1), (3, timed_out));
        assert_eq!([101, 102, 104].map(|cell| rig.cell(cell)), [1, 2, 4]);
    }
}

#[test]
fn it_holds_a_fence() {
    let mut rig = lapped();
    rig.copy(101, 104, Flags::FENCE);
    rig.channel.issue_pending();
    rig.engine.finish(1);
    assert_eq!(rig.ends(), [(2, None)]);
    assert_eq!(rig.engine.held(), 1);
    rig.engine.fail(0, Status::ReadError);
    assert_eq!(rig.ends().len(), 2);
    assert_eq!((rig.cell(101), rig.cell(104)), (1, 1), "repeated first");
}

#[test]
fn it_is_aborted_like_any_other() {
    let mut rig = lapped();
    rig.copy_now(4, 104);
    rig.engine.finish(1);
    rig.channel.terminate_sync(Duration::ZERO).unwrap();
    let mut ends: Vec<_> =
        rig.poll().into_iter().map(|end| (end.cookie.get(), end.status)).collect();
    ends.sort_unstable_by_key(|end| end.0);
    assert_eq!(ends[..2], [(1, Status::Aborted), (2, Status::Success)]);
    assert_eq!((ends.len(), ends[2].1), (3, Status::Aborted));
    assert_eq!(rig.channel.space(), rig.channel.info().ring_size);
    rig.copy_now(1, 101);
    rig.engine.finish(0);
    assert_eq!(rig.ends()[0].1, None);
}
