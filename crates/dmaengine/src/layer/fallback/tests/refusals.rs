//! What the engine does not take.

use std::{num::NonZeroUsize, time::Duration};

use super::{
    puppet::plain,
    rig::{CELL, Rig},
};
use crate::{
    Argument, ChannelInfo, Completion, Cookie, FallbackCause, Flags, Operation, Segment,
    SegmentMut, Status, SubmitError,
};

#[test]
fn each_refusal_has_its_cause_and_the_cpu_does_it_at_the_doorbell() {
    for (error, cause) in [
        (SubmitError::RingFull, FallbackCause::RingFull),
        (
            SubmitError::Unreachable { argument: Argument::Target(0), address: 1 },
            FallbackCause::Unreachable,
        ),
        (SubmitError::TooLong { len: 64, max: 8 }, FallbackCause::Unsupported),
        (SubmitError::TooManyDescriptors { descriptors: 9, max: 8 }, FallbackCause::Unsupported),
        (SubmitError::ChannelDown, FallbackCause::Failed),
    ] {
        let mut rig = Rig::new(plain());
        rig.engine.state().refuse = Some(error);
        rig.copy(7, 100, Flags::empty());
        assert_eq!(rig.ends(), []);
        assert_eq!(rig.cell(100), 100, "nothing moves before the doorbell");
        rig.channel.issue_pending();
        assert_eq!(rig.cell(100), 7);
        assert_eq!(rig.ends(), [(1, Some(cause))], "{error}");
        assert_eq!(rig.engine.state().doorbells, 0);
        assert_eq!((rig.stats.operations(cause), rig.stats.bytes(cause)), (1, CELL as u64));
        assert_eq!(rig.stats.is_open(), cause == FallbackCause::Failed);
    }
}

#[test]
fn what_the_engine_cannot_do_at_all() {
    let info = ChannelInfo {
        alignment: NonZeroUsize::new(8).unwrap(),
        xfercap: NonZeroUsize::new(1024).unwrap(),
        ..plain()
    };
    let mut rig = Rig::new(info);
    let (source, target) = (rig.at(3).cast_const(), rig.at(200));
    let sources = [rig.at(1).cast_const(), rig.at(2).cast_const()];
    let p = std::ptr::NonNull::new(target);
    let unaligned = source.wrapping_add(1);
    for (operation, status) in [
        (Operation::Memcpy { source, target, len: 8192 }, None),
        (Operation::Memcpy { source, target, len: 8200 }, Some(Status::Success)),
        (Operation::Memcpy { source: unaligned, target, len: 8 }, Some(Status::Success)),
        (Operation::Memcpy { source, target, len: 7 }, Some(Status::Success)),
        (Operation::Memset { pattern: 1, target, len: 8 }, Some(Status::Success)),
        (Operation::Xor { sources: &sources, target, len: 8 }, Some(Status::Success)),
        (Operation::XorVal { sources: &sources, len: 8 }, Some(Status::MismatchP)),
        (
            Operation::Pq { sources: &sources, coefficients: &[1, 2], p, q: None, len: 8 },
            Some(Status::Success),
        ),
        (
            Operation::MemcpySg {
                sources: &[Segment { address: source, len: 8 }],
                targets: &[SegmentMut { address: target, len: 8 }],
            },
            Some(Status::Success),
        ),
    ] {
        rig.submit(&operation, Flags::empty()).unwrap();
        rig.channel.issue_pending();
        let ends = rig.poll();
        if let Some(status) = status {
            let [Completion { bytes, .. }] = ends[..] else { panic!("{operation:?}: {ends:?}") };
            assert_eq!(bytes, operation.len());
            assert_eq!(
                (ends[0].status, ends[0].fallback),
                (status, Some(FallbackCause::Unsupported))
            );
        } else {
            assert_eq!(ends, []);
            rig.engine.finish(0);
            assert_eq!(rig.poll()[0].fallback, None);
        }
    }
    assert!(!rig.stats.is_open(), "it has not failed");
}

#[test]
fn what_nobody_can_do_is_refused() {
    let mut rig = Rig::new(plain());
    let (source, target) = (rig.at(3).cast_const(), rig.at(100));
    let pieces = [Segment { address: source, len: 1 }; 17];
    let overlap = SubmitError::Overlap { target: Argument::Target(0), other: Argument::Source(0) };
    for (operation, error) in [
        (Operation::Memcpy { source, target, len: 0 }, SubmitError::ZeroLength),
        (Operation::Memcpy { source, target: rig.at(3), len: 1 }, overlap),
        (
            Operation::MemcpySg { sources: &pieces, targets: &[] },
            SubmitError::TooManySegments { list: Argument::Sources, segments: 17, max: 16 },
        ),
    ] {
        assert_eq!(rig.submit(&operation, Flags::empty()), Err(error));
    }
    assert_eq!(rig.channel.space(), rig.channel.info().ring_size);
    assert_eq!(rig.copy_now(1, 2), Cookie::FIRST);
}

#[test]
fn a_full_engine_leaves_the_rest_to_the_cpu_and_a_full_ring_refuses() {
    let mut rig = Rig::new(plain());
    let ring_size = rig.channel.info().ring_size;
    for cell in 0..ring_size {
        rig.copy(cell, 100 + cell, Flags::empty());
    }
    let copy = Operation::Memcpy { source: rig.at(0), target: rig.at(200), len: CELL };
    assert_eq!(rig.submit(&copy, Flags::empty()), Err(SubmitError::RingFull));
    rig.channel.issue_pending();
    assert_eq!(rig.engine.held(), 8);
    for _ in 0..8 {
        rig.engine.finish(0);
    }
    let ends = rig.ends();
    assert_eq!(ends.len(), ring_size);
    for (index, (cookie, cause)) in ends.into_iter().enumerate() {
        assert_eq!(
            (cookie, cause),
            (index as u64 + 1, (index >= 8).then_some(FallbackCause::RingFull))
        );
        assert_eq!(rig.cell(100 + index), index as u8);
    }
}

#[test]
fn an_engine_that_is_down_is_reset_rests_and_is_probed() {
    let mut rig = Rig::new(plain());
    rig.engine.state().refuse = Some(SubmitError::ChannelDown);
    rig.copy_now(1, 101);
    rig.copy_now(2, 102);
    assert_eq!(rig.stats.due(), Some(rig.now()));
    let causes = [FallbackCause::Failed, FallbackCause::Resting].map(Some);
    assert_eq!(rig.ends(), [(1, causes[0]), (2, causes[1])]);
    assert_eq!((rig.stats.resets(), rig.stats.failed_resets()), (1, 0));
    assert_eq!(rig.stats.due(), None);
    rig.copy_now(3, 103);
    assert_eq!(rig.ends(), [(3, causes[1])], "it rests");
    rig.pass(Duration::from_millis(1));
    rig.copy_now(4, 104);
    assert_eq!(rig.engine.held(), 1);
    rig.engine.finish(0);
    assert_eq!(rig.ends(), [(4, None)]);
    assert!(!rig.stats.is_open());
    assert_eq!((rig.stats.opened(), rig.stats.probes(), rig.stats.closed()), (1, 1, 1));
}

#[test]
fn a_probe_that_is_refused_says_nothing() {
    let mut rig = Rig::new(plain());
    rig.copy_now(1, 101);
    rig.engine.fail(0, Status::WriteError);
    assert_eq!(rig.ends(), [(1, Some(FallbackCause::Failed))]);
    rig.pass(Duration::from_millis(1));
    rig.engine.state().refuse =
        Some(SubmitError::Unreachable { argument: Argument::Target(0), address: 1 });
    rig.copy_now(2, 102);
    assert_eq!(rig.ends(), [(2, Some(FallbackCause::Unreachable))]);
    rig.engine.state().refuse = None;
    rig.copy_now(3, 103);
    assert_eq!((rig.engine.held(), rig.stats.probes()), (1, 1), "the next one is the probe");
}
