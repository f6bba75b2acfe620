//! What the engine takes and does not do.

use std::time::Duration;

use super::{
    puppet::plain,
    rig::{CELL, Rig},
};
use crate::{
    Capabilities, ChannelInfo, Completion, Cookie, FallbackCause, FallbackOptions, Flags,
    Operation, Ordering, Status,
};

const TIMEOUT: Duration = Duration::from_millis(200);

const FAILED: Option<FallbackCause> = Some(FallbackCause::Failed);
const RESTING: Option<FallbackCause> = Some(FallbackCause::Resting);
const TIMED_OUT: Option<FallbackCause> = Some(FallbackCause::TimedOut);

/// The causes that were counted, and how often. Each operation has a cell's length.
fn counted(rig: &Rig) -> Vec<(FallbackCause, u64)> {
    let causes = FallbackCause::ALL.into_iter();
    let counts = causes.map(|cause| {
        let operations = rig.stats.operations(cause);
        assert_eq!(rig.stats.bytes(cause), operations * CELL as u64, "{cause:?}");
        (cause, operations)
    });
    counts.filter(|(_, operations)| *operations > 0).collect()
}

#[test]
fn what_fails_and_what_is_aborted_behind_it_is_repeated() {
    for status in Status::ALL.into_iter().filter(|status| !status.is_done()) {
        let mut rig = Rig::new(plain());
        for cell in 1..=4 {
            rig.copy_now(cell, 100 + cell);
        }
        rig.engine.finish(0);
        rig.engine.fail(0, status);
        rig.engine.fail(0, Status::Aborted);
        assert_eq!(rig.ends(), [(1, None), (2, FAILED), (3, FAILED)]);
        assert!((1..=3).all(|cell| rig.cell(100 + cell) == cell as u8));
        assert_eq!(rig.stats.opened(), 1, "failures that come together count once");
        // It goes on with what it has, and gets nothing new.
        rig.copy_now(5, 105);
        rig.engine.finish(0);
        assert_eq!(rig.ends(), [(4, None), (5, RESTING)]);
        assert_eq!(counted(&rig), [(FallbackCause::Resting, 1), (FallbackCause::Failed, 2)]);
    }
}

#[test]
fn what_a_check_finds_is_no_failure() {
    let info = ChannelInfo { capabilities: Capabilities::XOR_VAL, max_xor: 4, ..plain() };
    let mut rig = Rig::new(info);
    let sources = [rig.at(1).cast_const(), rig.at(2).cast_const()];
    rig.submit(&Operation::XorVal { sources: &sources, len: 64 }, Flags::empty()).unwrap();
    rig.channel.issue_pending();
    rig.engine.finish(0);
    let found = Completion::of(Cookie::FIRST, Status::MismatchP, 64);
    assert_eq!(rig.poll(), [found]);
    assert!(!rig.stats.is_open());
}

#[test]
fn one_probe_goes_to_the_engine_and_nothing_else_until_it_has_succeeded() {
    let mut rig = Rig::new(plain());
    rig.copy_now(1, 101);
    rig.engine.fail(0, Status::ReadError);
    assert_eq!(rig.ends(), [(1, FAILED)]);
    for (round, rest) in [1, 2, 4].into_iter().enumerate() {
        rig.pass(Duration::from_millis(rest));
        rig.copy_now(2, 102);
        rig.copy_now(3, 103);
        assert_eq!((rig.engine.held(), rig.stats.probes()), (1, round as u64 + 1));
        rig.pass(Duration::from_millis(100));
        rig.copy_now(4, 104);
        assert_eq!(rig.engine.held(), 1, "however long it takes");
        let cookie = 2 + 3 * round as u64;
        if round < 2 {
            rig.engine.fail(0, Status::ReadError);
            assert_eq!(
                rig.ends(),
                [(cookie, FAILED), (cookie + 1, RESTING), (cookie + 2, RESTING)]
            );
        } else {
            rig.engine.finish(0);
            assert_eq!(rig.ends(), [(cookie, None), (cookie + 1, RESTING), (cookie + 2, RESTING)]);
        }
    }
    rig.copy_now(5, 105);
    rig.copy_now(6, 106);
    assert_eq!(rig.engine.held(), 2, "closed again");
    assert_eq!((rig.stats.opened(), rig.stats.closed()), (1, 1));
}

#[test]
fn an_older_operation_that_succeeds_does_not_close_the_breaker() {
    let mut rig = Rig::new(ChannelInfo { ordering: Ordering::OutOfOrder, ..plain() });
    rig.copy_now(1, 101);
    rig.copy_now(2, 102);
    rig.engine.fail(0, Status::ReadError);
    assert_eq!(rig.ends(), [(1, FAILED)]);
    rig.pass(Duration::from_millis(1));
    rig.copy_now(3, 103);
    assert_eq!(rig.engine.held(), 2);
    rig.engine.finish(0);
    assert_eq!(rig.ends(), [(2, None)]);
    assert!(rig.stats.is_open(), "the probe has not ended");
    rig.engine.finish(0);
    assert_eq!(rig.ends(), [(3, None)]);
    assert!(!rig.stats.is_open());
}

#[test]
fn an_engine_that_stands_still_is_reset_after_the_timeout() {
    for silent in [false, true] {
        let mut rig = Rig::new(plain());
        rig.copy_now(1, 101);
        rig.copy_now(2, 102);
        assert_eq!(rig.stats.due(), Some(rig.now() + TIMEOUT));
        rig.engine.state().silent = silent;
        rig.pass(TIMEOUT - Duration::from_nanos(1));
        assert_eq!(rig.ends(), []);
        assert_eq!(rig.engine.state().stops, 0);
        rig.pass(Duration::from_nanos(1));
        assert_eq!(rig.ends(), [(1, TIMED_OUT), (2, TIMED_OUT)]);
        assert_eq!((rig.cell(101), rig.cell(102)), (1, 2));
        assert_eq!(counted(&rig), [(FallbackCause::TimedOut, 2)]);
        assert_eq!((rig.stats.resets(), rig.stats.failed_resets()), (1, 0));
        assert!(rig.stats.is_open());
        assert_eq!(rig.stats.due(), None);
    }
}

#[test]
fn an_engine_in_order_that_makes_progress_is_not_overdue() {
    let mut rig = Rig::new(plain());
    for cell in 1..=8 {
        rig.copy_now(cell, 100 + cell);
    }
    for cookie in 1..=8 {
        rig.pass(TIMEOUT - Duration::from_nanos(1));
        assert_eq!(rig.ends(), []);
        rig.engine.finish(0);
        assert_eq!(rig.ends(), [(cookie, None)]);
    }
    assert_eq!(rig.stats.resets(), 0);
}

#[test]
fn one_operation_that_does_not_end_is_found_while_others_do() {
    let mut rig = Rig::new(ChannelInfo { ordering: Ordering::OutOfOrder, ..plain() });
    rig.copy_now(1, 101);
    let mut rounds = 0;
    let end = loop {
        rig.copy_now(2, 102);
        rig.engine.finish(rig.engine.held() - 1);
        match rig.ends()[..] {
            [(_, None)] => rounds += 1,
            [_, end] => break end,
            ref other => panic!("{other:?}"),
        }
        rig.pass(TIMEOUT / 50);
        assert!(rounds < 1000, "it was not found");
    };
    assert_eq!(end, (1, TIMED_OUT));
    assert!((49..=100).contains(&rounds), "{rounds}");
    assert_eq!(rig.cell(101), 1);
}

#[test]
fn a_lost_completion_of_an_engine_in_order_is_found_too() {
    let mut rig = Rig::new(plain());
    rig.copy_now(1, 101);
    rig.copy_now(2, 102);
    rig.engine.lose(0);
    rig.engine.finish(0);
    assert_eq!(rig.ends(), [], "the first was not reported");
    rig.pass(TIMEOUT);
    assert_eq!(rig.ends(), [(1, TIMED_OUT), (2, None)]);
}

#[test]
fn what_was_not_issued_is_never_overdue_and_survives_a_reset() {
    let mut rig = Rig::new(plain());
    rig.copy(1, 101, Flags::empty());
    rig.pass(TIMEOUT * 10);
    assert_eq!(rig.ends(), []);
    assert_eq!((rig.engine.state().stops, rig.stats.due()), (0, None));
    rig.channel.issue_pending();
    rig.copy(2, 102, Flags::empty());
    assert_eq!(rig.ends(), []);
    rig.pass(TIMEOUT);
    assert_eq!(rig.ends(), [(1, TIMED_OUT)]);
    assert_eq!(rig.cell(102), 102, "no doorbell yet");
    rig.channel.issue_pending();
    assert_eq!(rig.ends(), [(2, TIMED_OUT)]);
    assert_eq!(rig.cell(102), 2);
}

#[test]
fn completions_that_are_late_doubled_or_invented_end_nothing() {
    let mut rig = Rig::new(ChannelInfo { ordering: Ordering::OutOfOrder, ..plain() });
    rig.engine.invent(Cookie::new(7));
    rig.copy_now(1, 101);
    rig.copy_now(2, 102);
    rig.engine.finish_twice(1);
    assert_eq!(rig.ends(), [(2, None)]);
    assert_eq!(rig.stats.spurious_completions(), 2);
    rig.engine.state().silent = true;
    rig.pass(TIMEOUT);
    assert_eq!(rig.ends(), [(1, TIMED_OUT)]);
    // The first cookie of the puppet: now the engine remembers it.
    rig.engine.invent(Cookie::new(u64::MAX - 20));
    rig.pass(TIMEOUT);
    rig.copy_now(3, 103);
    rig.engine.finish(0);
    assert_eq!(rig.ends(), [(3, None)]);
    assert_eq!(rig.stats.spurious_completions(), 3);
}

#[test]
fn an_engine_that_cannot_be_stopped_keeps_what_it_has_and_gets_nothing_new() {
    let mut rig = Rig::new(ChannelInfo { ordering: Ordering::OutOfOrder, ..plain() });
    rig.copy_now(1, 101);
    rig.copy_now(2, 102);
    rig.engine.state().stuck = true;
    rig.pass(TIMEOUT);
    let mut cookie = 3;
    let mut resets = Vec::new();
    for _ in 0..7 {
        let due = rig.stats.due().expect("it has something");
        rig.pass(due.saturating_sub(rig.now()));
        assert_eq!(rig.ends(), []);
        resets.push((rig.stats.resets(), rig.stats.failed_resets_in_a_row()));
        rig.copy_now(3, 103);
        assert_eq!(rig.ends(), [(cookie, RESTING)]);
        cookie += 1;
        assert!(rig.stats.due().unwrap() > rig.now(), "later and later");
    }
    assert_eq!(resets, (1..=7).map(|count| (count, count)).collect::<Vec<_>>());
    assert_eq!((rig.engine.held(), rig.cell(101)), (2, 101));
    // One of them ends by itself, late.
    rig.engine.finish(0);
    assert_eq!(rig.ends(), [(1, None)]);
    assert_eq!(rig.stats.failed_resets_in_a_row(), 7);
    rig.engine.state().stuck = false;
    rig.pass(rig.stats.due().unwrap().saturating_sub(rig.now()));
    assert_eq!(rig.ends(), [(2, TIMED_OUT)]);
    assert_eq!((rig.cell(102), rig.stats.failed_resets_in_a_row()), (2, 0));
    // And it comes back.
    rig.pass(Duration::from_secs(10));
    rig.copy_now(4, 104);
    rig.engine.finish(0);
    assert_eq!(rig.ends(), [(cookie, None)]);
    assert!(!rig.stats.is_open());
}

/// With the system's clock.
fn impatient() -> FallbackOptions {
    FallbackOptions { timeout: Duration::from_millis(5), ..FallbackOptions::default() }
}

#[test]
#[cfg_attr(miri, ignore = "no timers")]
fn who_waits_for_an_event_is_woken_when_the_engine_never_will() {
    let info =
        ChannelInfo { capabilities: Capabilities::MEMCPY | Capabilities::INTERRUPT, ..plain() };
    let mut rig = Rig::with_options(info, impatient());
    for round in 0..3 {
        rig.engine.state().works = true;
        while rig.stats.is_open() {
            rig.copy_now(1, 101);
            rig.poll();
        }
        rig.engine.state().works = false;
        let cookie = rig.copy_now(2, 102);
        let ends = loop {
            if rig.channel.arm() {
                let event = rig.channel.event().expect("the engine has one");
                let mut fds = [rustix::event::PollFd::new(&event, rustix::event::PollFlags::IN)];
                let timeout = rustix::event::Timespec { tv_sec: 30, tv_nsec: 0 };
                assert_eq!(rustix::event::poll(&mut fds, Some(&timeout)), Ok(1));
            }
            let ends = rig.ends();
            if !ends.is_empty() {
                break ends;
            }
        };
        assert_eq!(ends, [(cookie.get(), TIMED_OUT)], "{round}");
    }
}

#[test]
fn with_the_systems_clock_polling_alone_finds_it() {
    let mut rig = Rig::with_options(plain(), impatient());
    rig.copy_now(1, 101);
    let ends = loop {
        let ends = rig.ends();
        if !ends.is_empty() {
            break ends;
        }
    };
    assert_eq!(ends, [(1, TIMED_OUT)]);
}
