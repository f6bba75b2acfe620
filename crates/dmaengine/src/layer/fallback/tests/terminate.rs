//! Stopping the channel.

use std::time::Duration;

use super::{puppet::plain, rig::Rig};
use crate::{ChannelInfo, Completion, FallbackCause, Flags, Ordering, Status, Stuck, SubmitError};

fn numbers(ends: &[Completion]) -> Vec<(u64, Status)> {
    ends.iter().map(|end| (end.cookie.get(), end.status)).collect()
}

#[test]
fn everything_that_has_not_ended_is_aborted() {
    for (ordering, silent) in [
        (Ordering::InOrder, false),
        (Ordering::InOrder, true),
        (Ordering::OutOfOrder, false),
        (Ordering::OutOfOrder, true),
    ] {
        let mut rig = Rig::new(ChannelInfo { ordering, ..plain() });
        rig.engine.state().silent = silent;
        rig.copy_now(1, 101);
        rig.copy_now(2, 102);
        rig.copy_now(3, 103);
        rig.engine.state().refuse = Some(SubmitError::RingFull);
        rig.copy_now(4, 104);
        rig.copy(5, 105, Flags::FENCE);
        rig.channel.issue_pending();
        rig.copy(6, 106, Flags::empty());
        rig.engine.state().refuse = None;
        rig.engine.finish(0);
        rig.engine.fail(0, Status::WriteError);
        rig.channel.terminate_sync(Duration::ZERO).unwrap();
        let mut ends = rig.poll();
        ends.sort_by_key(|end| end.cookie.get());
        let (ok, aborted) = (Status::Success, Status::Aborted);
        assert_eq!(
            numbers(&ends),
            [(1, ok), (2, aborted), (3, aborted), (4, ok), (5, aborted), (6, aborted)],
            "what had ended keeps its status"
        );
        assert_eq!(ends[3].fallback, Some(FallbackCause::RingFull));
        assert!(ends.iter().filter(|end| end.status == aborted).all(|end| end.bytes == 0));
        assert_eq!([103, 105, 106].map(|cell| rig.cell(cell)), [103, 105, 106]);
        assert_eq!(rig.channel.space(), rig.channel.info().ring_size);
        rig.copy_now(7, 107);
        rig.engine.finish(0);
        assert_eq!(rig.ends(), [(7, None)], "it works again");
    }
}

#[test]
fn a_channel_that_cannot_be_stopped_keeps_everything_and_goes_on() {
    let mut rig = Rig::new(plain());
    rig.copy_now(1, 101);
    rig.engine.state().stuck = true;
    assert_eq!(rig.channel.terminate_sync(Duration::ZERO), Err(Stuck));
    rig.copy_now(2, 102);
    assert_eq!((rig.ends().len(), rig.cell(102)), (0, 2), "reported behind the first");
    rig.engine.state().stuck = false;
    assert_eq!(rig.channel.terminate_sync(Duration::ZERO), Ok(()));
    assert_eq!(numbers(&rig.poll()), [(1, Status::Aborted), (2, Status::Success)]);
    assert_eq!(rig.stats.due(), None);
}

#[test]
fn a_probe_that_was_terminated_is_followed_by_another() {
    let mut rig = Rig::new(plain());
    rig.copy_now(1, 101);
    rig.engine.fail(0, Status::WriteError);
    assert_eq!(rig.ends().len(), 1);
    rig.pass(Duration::from_millis(1));
    rig.copy_now(2, 102);
    rig.channel.terminate_sync(Duration::ZERO).unwrap();
    assert_eq!(numbers(&rig.poll()), [(2, Status::Aborted)]);
    rig.copy_now(3, 103);
    assert_eq!((rig.engine.held(), rig.stats.probes()), (1, 2));
    rig.engine.finish(0);
    assert_eq!(rig.ends(), [(3, None)]);
    assert!(!rig.stats.is_open());
}
