use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    process::Command,
};

use super::*;
use crate::{
    CpuDevice, DmaDevice, Status, ThreadsDevice,
    fork::child,
    puppet::{Puppet, Strings},
};

const TIMEOUT: Duration = Duration::from_secs(10);
/// For operations that never end.
const SHORT: Duration = Duration::from_millis(5);

fn segment_len(len: usize) -> NonZeroUsize {
    NonZeroUsize::new(len).unwrap()
}

/// Nothing is in the engine's hands once a scope has been left: the invariant.
fn assert_joined(strings: &Strings) {
    assert_eq!(strings.in_ring(), 0, "the engine still has borrowed memory");
}

#[test]
fn every_operation_on_the_calling_thread() {
    every_operation(&CpuDevice::new(1));
}

#[test]
fn every_operation_on_another_thread() {
    every_operation(&ThreadsDevice::new(1));
}

fn every_operation(device: &dyn DmaDevice) {
    let mut channel = Channel::from(device.request_channel(0).unwrap());
    let sources = [[0x11u8; 64], [0x22; 64], [0x44; 64]];
    let all = [&sources[0][..], &sources[1], &sources[2]];
    let coefficients = [1, 2, 4];
    let mut copy = [0u8; 64];
    let mut fill = [0u8; 10];
    let (mut front, mut back) = ([0u8; 100], [0u8; 92]);
    let mut parity = [0u8; 64];
    let (mut p, mut q) = ([0u8; 64], [0u8; 64]);
    let started = scope(&mut channel, TIMEOUT, |scope| -> Result<(), SubmitError> {
        scope.copy(&sources[1], &mut copy)?;
        scope.fill(0x0706_0504_0302_0100, &mut fill)?;
        let mut targets = [&mut front[..], &mut back];
        scope.copy_sg(&all, &mut targets)?;
        assert!(targets.iter().all(|target| target.is_empty()), "they are taken");
        scope.xor(&all, &mut parity)?;
        let both = Syndromes { p: Some(&mut p[..]), q: Some(&mut q[..]) };
        Ok(scope.pq(&all, &coefficients, both)?)
    });
    started.unwrap().unwrap();
    assert_eq!((copy, fill), (sources[1], [0, 1, 2, 3, 4, 5, 6, 7, 0, 1]));
    let scattered: Vec<u8> = front.into_iter().chain(back).collect();
    assert_eq!(scattered, all.concat());
    assert_eq!((parity, p), ([0x77; 64], [0x77; 64]));

    let checked = scope(&mut channel, TIMEOUT, |scope| -> Result<(), SubmitError> {
        scope.xor_val(&[all[0], all[1], all[2], &p])?;
        let both = Syndromes { p: Some(&p[..]), q: Some(&q[..]) };
        scope.pq_val(&all, &coefficients, both)
    });
    checked.unwrap().unwrap();
    q[63] ^= 1;
    let checked = scope(&mut channel, TIMEOUT, |scope| -> Result<u8, SubmitError> {
        scope.xor_val(&all)?;
        scope.pq_val(&all, &coefficients, Syndromes { p: None, q: Some(&q) })?;
        Ok(7)
    });
    let error = checked.unwrap_err();
    assert_eq!((error.value.as_ref(), error.failed, error.operation), (Ok(&7), 2, 0));
    assert_eq!((error.kind, error.status), (crate::OperationKind::XorVal, Status::MismatchP));
}

#[test]
fn a_scope_ends_after_its_operations() {
    let (mut channel, strings) = Puppet::channel();
    let (source, mut target) = ([5u8; 100], [0u8; 100]);
    strings.end_after_polls(50);
    let value = scope(&mut channel, TIMEOUT, |scope| {
        scope.copy(&source, &mut target).unwrap();
        assert_eq!((scope.in_flight(), strings.doorbells()), (1, 0));
        scope.issue_pending();
        strings.doorbells()
    });
    assert_eq!(value, Ok(1));
    assert_joined(&strings);
    assert_eq!(target, source);
}

#[test]
fn an_early_return_waits() {
    let (mut channel, strings) = Puppet::channel();
    let (source, mut target, mut short) = ([5u8; 100], [0u8; 100], [0u8; 99]);
    strings.end_after_polls(50);
    let value = scope(&mut channel, TIMEOUT, |scope| -> Result<(), SubmitError> {
        scope.copy(&source, &mut target)?;
        scope.copy(&source, &mut short)?;
        unreachable!("the lengths differ");
    });
    let error = SubmitError::LengthMismatch { source_len: 100, target_len: 99 };
    assert_eq!(value, Ok(Err(error)));
    assert_joined(&strings);
    assert_eq!(target, source);
}

#[test]
fn a_panic_waits() {
    let (mut channel, strings) = Puppet::channel();
    let (source, mut target) = ([5u8; 100], [0u8; 100]);
    strings.end_after_polls(50);
    let panic = catch_unwind(AssertUnwindSafe(|| {
        scope(&mut channel, TIMEOUT, |scope| {
            scope.copy(&source, &mut target).unwrap();
            panic!("closure");
        })
    }));
    assert_eq!(*panic.unwrap_err().downcast::<&str>().unwrap(), "closure");
    assert_joined(&strings);
    assert_eq!(target, source);
}

#[test]
fn a_panic_while_another_unwinds_waits_too() {
    /// Uses a scope while it is dropped by a panic.
    struct Guard<'a>(&'a mut Channel, &'a Strings);
    impl Drop for Guard<'_> {
        fn drop(&mut self) {
            let (source, mut target) = ([5u8; 8], [0u8; 8]);
            let inner = catch_unwind(AssertUnwindSafe(|| {
                scope(self.0, TIMEOUT, |scope| {
                    scope.copy(&source, &mut target).unwrap();
                    panic!("inner");
                })
            }));
            assert!(inner.is_err());
            assert_joined(self.1);
            assert_eq!(target, source);
        }
    }

    let (mut channel, strings) = Puppet::channel();
    strings.end_after_polls(20);
    let outer = catch_unwind(AssertUnwindSafe(|| {
        let _guard = Guard(&mut channel, &strings);
        panic!("outer");
    }));
    assert_eq!(*outer.unwrap_err().downcast::<&str>().unwrap(), "outer");
}

#[test]
fn what_never_ends_is_terminated_and_has_timed_out() {
    let (mut channel, strings) = Puppet::channel();
    let (source, mut a, mut b, mut c) = ([5u8; 8], [0u8; 8], [0u8; 8], [0u8; 8]);
    let error = scope(&mut channel, SHORT, |scope| {
        scope.copy(&source, &mut a).unwrap();
        scope.fill(0, &mut b).unwrap();
        scope.copy(&source, &mut c).unwrap();
        scope.issue_pending();
        strings.end(0, Status::Success);
        7
    })
    .unwrap_err();
    assert_joined(&strings);
    assert_eq!(strings.terminations(), 1);
    let kind = crate::OperationKind::Memset;
    let status = Status::TimedOut;
    assert_eq!(error, ScopeError { value: 7, failed: 2, operation: 1, kind, status });
    assert!(error.to_string().contains("number 1 (memset) first: timed out"), "{error}");

    // The channel is as good as new.
    strings.end_after_polls(0);
    scope(&mut channel, TIMEOUT, |scope| scope.copy(&source, &mut a).unwrap()).unwrap();
    assert_eq!(a, source);
}

#[test]
fn the_first_failure_is_the_one_that_was_started_first() {
    let (mut channel, strings) = Puppet::channel();
    let (source, mut a, mut b) = ([5u8; 8], [0u8; 8], [0u8; 8]);
    let error = scope(&mut channel, TIMEOUT, |scope| {
        scope.copy(&source, &mut a).unwrap();
        let mut prefix = scope.copy_segmented(&source, &mut b, segment_len(8)).unwrap();
        strings.end(1, Status::WriteError);
        assert_eq!(prefix.ready(), []);
        strings.end(0, Status::ReadError);
    })
    .unwrap_err();
    assert_eq!((error.failed, error.operation, error.status), (2, 0, Status::ReadError));
}

#[test]
fn ends_that_are_reported_twice_or_under_a_wrong_name_do_not_end_a_scope() {
    let (mut channel, strings) = Puppet::channel();
    let (source, mut a, mut b) = ([5u8; 8], [0u8; 8], [0u8; 8]);
    let result = scope(&mut channel, SHORT, |scope| {
        scope.copy(&source, &mut a).unwrap();
        scope.copy(&source, &mut b).unwrap();
        let [first, second] = strings.cookies()[..] else { panic!("two are in flight") };
        strings.end(0, Status::Success);
        [first, first, second.next()].into_iter().for_each(|cookie| strings.lie(cookie));
    });
    let error = result.unwrap_err();
    assert_eq!((error.failed, error.operation, error.status), (1, 1, Status::TimedOut));
    assert_eq!(strings.terminations(), 1);
    assert_joined(&strings);
}

#[test]
fn a_driver_that_panics_with_an_operation_in_the_ring_is_terminated() {
    let (mut channel, strings) = Puppet::channel();
    let (source, mut target) = ([5u8; 8], [0u8; 8]);
    strings.panic_in_submit("driver");
    let panic = catch_unwind(AssertUnwindSafe(|| {
        scope(&mut channel, TIMEOUT, |scope| scope.copy(&source, &mut target).unwrap())
    }));
    assert!(panic.is_err());
    assert_eq!(strings.terminations(), 1, "it is in the ring, but in nobody's book");
    assert_joined(&strings);
}

#[test]
fn a_full_ring_is_emptied_inside_the_scope() {
    let (mut channel, strings) = Puppet::with_ring(4);
    let sources: Vec<[u8; 4]> = (0..100u8).map(|number| [number; 4]).collect();
    let mut targets = vec![[0u8; 4]; 100];
    strings.end_after_polls(3);
    scope(&mut channel, TIMEOUT, |scope| {
        for (source, target) in sources.iter().zip(&mut targets) {
            scope.copy(source, target).unwrap();
            assert!(scope.in_flight() <= 4);
        }
    })
    .unwrap();
    assert_joined(&strings);
    assert_eq!(targets, sources);
}

#[test]
fn a_ring_that_stays_full_refuses_and_the_borrow_can_be_used() {
    let (mut channel, strings) = Puppet::with_ring(1);
    let (source, mut a, mut b) = ([5u8; 4], [0u8; 4], [0u8; 4]);
    let result = scope(&mut channel, SHORT, |scope| {
        scope.copy(&source, &mut a).unwrap();
        let refused = scope.copy(&source, &mut b).unwrap_err();
        refused.target.copy_from_slice(refused.source);
        refused.error
    });
    assert_eq!(result.unwrap_err().value, SubmitError::RingFull);
    assert_eq!(b, source);
    assert_joined(&strings);
}

#[test]
fn what_is_refused_comes_back() {
    let mut channel = Channel::from(CpuDevice::new(1).request_channel(0).unwrap());
    let (source, mut a, mut b) = ([5u8; 4], [0u8; 4], [0u8; 4]);
    scope(&mut channel, TIMEOUT, |scope| {
        let empty = scope.copy(&[], &mut []).unwrap_err();
        assert_eq!(empty.error, SubmitError::ZeroLength);
        assert_eq!(scope.fill(0, &mut []).unwrap_err().error, SubmitError::ZeroLength);
        let empty = scope.copy_segmented(&[], &mut [], segment_len(1)).unwrap_err();
        assert_eq!(empty.error, SubmitError::ZeroLength);
        let many = vec![&source[..]; 1000];
        let refused = scope.xor(&many, &mut a).unwrap_err();
        assert!(matches!(refused.error, SubmitError::SourceCount { sources: 1000, .. }));
        let mut targets = [refused.target];
        let error = scope.copy_sg(&[&source, &source], &mut targets).unwrap_err();
        assert_eq!(error, SubmitError::LengthMismatch { source_len: 8, target_len: 4 });
        let [target] = targets;
        target.fill(9);
        let syndromes = Syndromes { p: Some(target), q: Some(&mut b[..3]) };
        let refused = scope.pq(&[&source], &[1], syndromes).unwrap_err();
        let argument = Argument::Q;
        assert_eq!(refused.error, SubmitError::UnequalLengths { argument, len: 3, first_len: 4 });
        let uneven: [&[u8]; 2] = [&source, &source[..3]];
        let argument = Argument::Source(1);
        let error = SubmitError::UnequalLengths { argument, len: 3, first_len: 4 };
        assert_eq!(scope.xor_val(&uneven), Err(error));
        assert_eq!(refused.target.p.unwrap(), [9; 4]);
    })
    .unwrap();
}

#[test]
fn a_scope_within_a_scope() {
    let (mut outer, outer_strings) = Puppet::channel();
    let (mut inner, inner_strings) = Puppet::channel();
    outer_strings.end_after_polls(5);
    inner_strings.end_after_polls(5);
    let (source, mut end) = ([5u8; 4], [0u8; 4]);
    scope(&mut outer, TIMEOUT, |outside| {
        let mut middle = [0u8; 4];
        scope(&mut inner, TIMEOUT, |inside| inside.copy(&source, &mut middle).unwrap()).unwrap();
        assert_joined(&inner_strings);
        assert_eq!(middle, source);
        outside.copy(&source, &mut end).unwrap();
    })
    .unwrap();
    assert_joined(&outer_strings);
    assert_eq!(end, source);
}

#[test]
fn a_prefix_grows_in_order_whatever_ends_first() {
    let (mut channel, strings) = Puppet::channel();
    let source: Vec<u8> = (0..10).collect();
    let mut target = [0u8; 10];
    scope(&mut channel, TIMEOUT, |scope| {
        let mut prefix = scope.copy_segmented(&source, &mut target, segment_len(3)).unwrap();
        assert_eq!((prefix.ready(), strings.in_ring()), (&[][..], 4));
        strings.end(1, Status::Success);
        assert_eq!(prefix.ready(), []);
        strings.end(0, Status::Success);
        assert_eq!(prefix.ready(), [0, 1, 2, 3, 4, 5]);
        let late = prefix.wait_for(7, SHORT).unwrap_err();
        assert_eq!(late, PrefixError::TimedOut { ready: 6 });
        strings.end(1, Status::Success);
        assert_eq!(prefix.wait_for(6, TIMEOUT).unwrap().len(), 6);
        strings.end(0, Status::Success);
        let target = prefix.finish(TIMEOUT).unwrap();
        assert_eq!(target, source);
        target[0] = 77;
    })
    .unwrap();
    assert_joined(&strings);
    assert_eq!(target[..2], [77, 1]);
}

#[test]
fn a_segment_that_fails_ends_the_prefix() {
    let (mut channel, strings) = Puppet::with_ring(4);
    let (source, mut target) = ([7u8; 100], [0u8; 100]);
    let result = scope(&mut channel, TIMEOUT, |scope| {
        let mut prefix = scope.copy_segmented(&source, &mut target, segment_len(10)).unwrap();
        strings.end(0, Status::Success);
        strings.end(1, Status::ReadError);
        strings.end(2, Status::WriteError);
        strings.end(3, Status::Success);
        assert_eq!(prefix.ready(), [7; 10]);
        assert_eq!(strings.in_ring(), 0, "nothing more is submitted");
        let failed = PrefixError::Failed { status: Status::ReadError, ready: 10 };
        assert_eq!(prefix.wait_for(5, TIMEOUT).unwrap(), [7; 10]);
        assert_eq!(prefix.wait_for(11, TIMEOUT), Err(failed));
        assert_eq!(prefix.finish(TIMEOUT).unwrap_err(), failed);
    });
    let error = result.unwrap_err();
    assert_eq!((error.failed, error.status), (1, Status::ReadError), "one copy");
    assert_joined(&strings);
}

#[test]
fn the_rest_of_a_copy_in_segments_is_done_at_the_end_of_the_scope() {
    let (mut channel, strings) = Puppet::with_ring(4);
    let source: Vec<u8> = (0..=255).cycle().take(1000).collect();
    let mut target = vec![0u8; 1000];
    strings.end_after_polls(2);
    scope(&mut channel, TIMEOUT, |scope| {
        scope.copy_segmented(&source, &mut target, segment_len(7)).unwrap();
        assert_eq!(scope.in_flight(), 4, "as many as there is room for");
    })
    .unwrap();
    assert_joined(&strings);
    assert_eq!(target, source);
}

#[test]
fn a_prefix_that_is_forgotten_changes_nothing() {
    let (mut channel, strings) = Puppet::with_ring(2);
    let (source, mut target) = ([7u8; 100], [0u8; 100]);
    strings.end_after_polls(20);
    scope(&mut channel, TIMEOUT, |scope| {
        let prefix = scope.copy_segmented(&source, &mut target, segment_len(10)).unwrap();
        // The scope, not the prefix, sees to the end: there is nothing to drop.
        assert!(!std::mem::needs_drop::<Prefix<'_, '_>>());
        let _forgotten = std::mem::ManuallyDrop::new(prefix);
        assert_eq!(scope.in_flight(), 2, "and more to be submitted");
    })
    .unwrap();
    assert_joined(&strings);
    assert_eq!(target, source);
}

#[test]
fn a_copy_in_segments_that_never_ends_is_cut_off() {
    let (mut channel, strings) = Puppet::with_ring(4);
    let (source, mut target) = ([7u8; 100], [0u8; 100]);
    let result = scope(&mut channel, SHORT, |scope| {
        scope.copy_segmented(&source, &mut target, segment_len(10)).unwrap();
    });
    let error = result.unwrap_err();
    assert_eq!((error.failed, error.status), (1, Status::TimedOut));
    assert_joined(&strings);
}

#[test]
fn two_copies_in_segments_on_a_real_engine() {
    const LEN: usize = if cfg!(miri) { 20_000 } else { 1 << 20 };
    let mut channel = Channel::from(ThreadsDevice::new(1).request_channel(0).unwrap());
    let source: Vec<u8> = (0..=255).cycle().take(LEN).collect();
    let (mut a, mut b) = (vec![0u8; LEN], vec![0u8; LEN]);
    scope(&mut channel, TIMEOUT, |scope| {
        let mut first = scope.copy_segmented(&source, &mut a, segment_len(4096)).unwrap();
        let mut second = scope.copy_segmented(&source, &mut b, segment_len(5000)).unwrap();
        let mut seen = 0;
        while seen < source.len() {
            let ready = first.wait_for(seen + 1, TIMEOUT).unwrap();
            assert!(ready[seen..] == source[seen..ready.len()]);
            seen = ready.len();
            assert!(source.starts_with(second.ready()));
        }
    })
    .unwrap();
    assert!(a == source && b == source);
}

/// The process aborts, so another one is asked: this test, run with `variable` set.
fn aborts(test: &str, variable: &str, body: impl FnOnce()) {
    if std::env::var_os(variable).is_some() {
        body();
        return;
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture"])
        .env(variable, "1")
        .output()
        .unwrap();
    let signal = std::os::unix::process::ExitStatusExt::signal(&output.status);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(signal, Some(6), "SIGABRT: {stderr}");
    assert!(stderr.contains("aborting rather than"), "{stderr}");
}

#[test]
#[cfg_attr(miri, ignore = "no child processes")]
fn an_engine_that_cannot_be_stopped_takes_the_process_with_it() {
    aborts(
        "scope::tests::an_engine_that_cannot_be_stopped_takes_the_process_with_it",
        "DMAENGINE_TEST_STUCK_SCOPE",
        || {
            let (mut channel, strings) = Puppet::channel();
            let (source, mut target) = ([5u8; 8], [0u8; 8]);
            strings.set_stuck(true);
            let _ = scope(&mut channel, SHORT, |scope| scope.copy(&source, &mut target).is_ok());
        },
    );
}

#[test]
#[cfg_attr(miri, ignore = "no child processes")]
fn a_driver_that_panics_while_a_scope_joins_takes_the_process_with_it() {
    aborts(
        "scope::tests::a_driver_that_panics_while_a_scope_joins_takes_the_process_with_it",
        "DMAENGINE_TEST_PANIC_IN_JOIN",
        || {
            let (mut channel, strings) = Puppet::channel();
            let (source, mut target) = ([5u8; 8], [0u8; 8]);
            strings.panic_in_poll(1);
            // Caught by nobody: it must not come so far that the buffers are used again.
            let _ = catch_unwind(AssertUnwindSafe(|| {
                scope(&mut channel, TIMEOUT, |scope| scope.copy(&source, &mut target).is_ok())
            }));
        },
    );
}

#[test]
fn a_driver_that_panics_in_poll_inside_a_scope_is_waited_for() {
    let (mut channel, strings) = Puppet::channel();
    let (source, mut target) = ([5u8; 100], [0u8; 100]);
    strings.end_after_polls(20);
    let panic = catch_unwind(AssertUnwindSafe(|| {
        scope(&mut channel, TIMEOUT, |scope| {
            let mut prefix = scope.copy_segmented(&source, &mut target, segment_len(30)).unwrap();
            strings.panic_in_poll(1);
            prefix.ready().len()
        })
    }));
    assert_eq!(*panic.unwrap_err().downcast::<&str>().unwrap(), "the driver panics in poll");
    assert_joined(&strings);
    assert_eq!(target, source);
}

#[test]
#[cfg_attr(miri, ignore = "no fork")]
fn a_child_that_is_forked_in_a_scope_does_not_wait_for_its_parents_engine() {
    let (mut channel, strings) = Puppet::channel();
    let (source, mut target) = ([5u8; 8], [0u8; 8]);
    let result = scope(&mut channel, TIMEOUT, |scope| {
        scope.copy(&source, &mut target).unwrap();
        // SAFETY: the child leaves the scope, which takes no lock and allocates nothing, and ends.
        let child = unsafe { child::fork() };
        if child.is_some() {
            strings.end(0, Status::Success);
        }
        child
    });
    let child = match result {
        Ok(child) => child.expect("a child's scope fails"),
        Err(error) => child::exit(error.value.is_none() && error.status == Status::TimedOut),
    };
    assert_joined(&strings);
    assert_eq!(target, source);
    assert!(child.join(), "in the child");
}
