//! Tests of the tests: an engine with a defect must not pass, and for the right reason.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::{
    super::{ARENA_LEN, Failure, Suite},
    toy::{AfterFailure, Defect, Toys},
};
use crate::{Addressing, Arena, Capabilities, Cookie, Ordering, Status};

/// A toy runs in the calling thread: what has not happened after this will not.
const TIMEOUT: std::time::Duration = std::time::Duration::from_millis(200);

/// What the suite says about it; it must find something.
#[track_caller]
fn complaint(defect: Defect, test: impl FnOnce()) -> String {
    let panic = catch_unwind(AssertUnwindSafe(test));
    let panic = panic.err().unwrap_or_else(|| panic!("{defect:?} was not found"));
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).expect("a message")
}

#[track_caller]
fn is_found(defect: Defect, words: &str, change: impl Fn(&mut Toys)) {
    let arena = Arena::new(ARENA_LEN).unwrap();
    let mut toys = Toys::new(&arena);
    toys.defect = Some(defect);
    change(&mut toys);
    let suite = Suite::new(&arena).timeout(TIMEOUT);
    let said = complaint(defect, || suite.all(|| toys.channel(&[])));
    assert!(said.contains(words), "of {defect:?} the suite said: {said}");
}

#[test]
#[cfg_attr(miri, ignore = "hours: the suite looks at every byte")]
fn wrong_bytes() {
    for defect in [
        Defect::OneByteMore,
        Defect::OneByteLess,
        Defect::OneByteBefore,
        Defect::SourceWritten,
        Defect::SourceRestarts,
    ] {
        is_found(defect, "a copy of", |_| ());
    }
    is_found(Defect::LastPieceLeftOut, "pieces: byte", |_| ());
    is_found(Defect::PatternByAddress, "a fill of", |_| ());
    is_found(Defect::LastSourceLeftOut, "the exclusive or of 2 sources", |_| ());
    is_found(Defect::ChecksAlwaysPass, "wrong at", |_| ());
    is_found(Defect::PAndQConfused, "the check of 1 sources", |_| ());
}

#[test]
#[cfg_attr(miri, ignore = "hours: the suite looks at every byte")]
fn wrong_reports() {
    is_found(Defect::ReportsTwice, "twice", |_| ());
    is_found(Defect::Loses, "operations were lost", |_| ());
    is_found(Defect::LosesWithoutStatus, "operations were lost", |_| ());
    is_found(Defect::LosesOnAnotherThread, "operations were lost", |_| ());
    is_found(Defect::ReportsOutOfOrder, "before an earlier one", |_| ());
    is_found(Defect::SaysAborted, "Aborted", |_| ());
    is_found(Defect::SuccessesReportedTwice, "or twice", |_| ());
    is_found(Defect::SuccessesHideTheRest, "in flight after a stop", |_| ());
    is_found(Defect::SaysTooFewBytes, "bytes completed", |_| ());
    is_found(Defect::SkipsACookie, "cookies are consecutive", |_| ());
    is_found(Defect::CookiesOf16Bits, "cookies are consecutive", |_| ());
    is_found(Defect::CookiesRestartAtAStop, "cookies are consecutive", |_| ());
    is_found(Defect::CookiesSkipZero, "cookies are consecutive", |toys| {
        toys.first = Cookie::new(u64::MAX - 3);
    });
}

#[test]
#[cfg_attr(miri, ignore = "hours: the suite looks at every byte")]
fn wrong_times() {
    is_found(Defect::MovesBeforeTheDoorbell, "that was not issued", |_| ());
    is_found(Defect::EndsBeforeTheDoorbell, "ended that was not issued", |_| ());
    is_found(Defect::IgnoresFences, "behind a fence", |toys| {
        toys.info.ordering = Ordering::OutOfOrder;
    });
    is_found(Defect::ScribblesAfterTheEnd, "should be", |_| ());
    is_found(Defect::ScribblesAfterAStop, "that was never issued", |_| ());
    is_found(Defect::ScribblesAfterADrop, "whose channel was dropped", |_| ());
}

#[test]
#[cfg_attr(miri, ignore = "hours: the suite looks at every byte")]
fn wrong_space() {
    is_found(Defect::LeaksSpace, "the space of an idle channel", |_| ());
    is_found(Defect::TakesTooMuchSpace, "space taken by memset", |_| ());
    is_found(Defect::ListsTakeTooMuchSpace, "space taken by memcpy_sg", |_| ());
    is_found(Defect::RefusalTakesSpace, "changed the space", |_| ());
    is_found(Defect::RingOneShort, "the ring is full", |_| ());
    is_found(Defect::RingOneTooLong, "took no space", |_| ());
}

#[test]
#[cfg_attr(miri, ignore = "hours: the suite looks at every byte")]
fn wrong_refusals() {
    is_found(Defect::TakesOverlaps, "was taken; it should be refused", |_| ());
    is_found(Defect::RefusesFences, "is allowed, but", |_| ());
    is_found(Defect::NamesAWrongLimit, "TooManySegments", |_| ());
    is_found(Defect::TakesWhatItCannot, "the channel cannot do memset", |toys| {
        toys.info.capabilities -= Capabilities::MEMSET;
    });
    is_found(Defect::TakesStrangeMemory, "was taken", |toys| {
        toys.info.addressing = Addressing::Iova;
    });
}

#[test]
#[cfg_attr(miri, ignore = "hours: the suite looks at every byte")]
fn wrong_events_and_stops() {
    is_found(Defect::NoEvent, "the event did not come", |_| ());
    is_found(Defect::ArmsWithNothingInFlight, "nothing is in flight", |_| ());
    is_found(Defect::StopForgets, "in flight after a stop", |_| ());
    is_found(Defect::StopSaysTimedOut, "TimedOut", |_| ());
    is_found(Defect::DoesNotStop, "can be stopped", |_| ());
}

/// Alone: in the whole suite other tests find these before it.
#[test]
#[cfg_attr(miri, ignore = "hours: the suite looks at every byte")]
fn what_dmatest_finds() {
    for (defect, words) in [
        (Defect::OneByteMore, "dstbuf["),
        (Defect::OneByteLess, "dstbuf["),
        (Defect::SourceWritten, "srcbuf["),
        (Defect::PatternByAddress, "set0: result #"),
        (Defect::LastSourceLeftOut, "xor0: result #1: 'data error'"),
        (Defect::PAndQConfused, "(Q does not match)"),
        (Defect::ChecksAlwaysPass, "'damage not found'"),
        (Defect::SaysAborted, "'completion error status'"),
        (Defect::Loses, "'test timed out'"),
    ] {
        let arena = Arena::new(ARENA_LEN).unwrap();
        let mut toys = Toys::new(&arena);
        toys.defect = Some(defect);
        let suite = Suite::new(&arena).timeout(TIMEOUT);
        let said = complaint(defect, || suite.dmatest(&mut || toys.channel(&[])));
        assert!(said.contains(words), "of {defect:?} the suite said: {said}");
    }
}

#[test]
#[cfg_attr(miri, ignore = "hours: the suite looks at every byte")]
fn what_one_client_does_to_another() {
    let arena = Arena::new(ARENA_LEN).unwrap();
    let mut toys = Toys::new(&arena);
    toys.defect = Some(Defect::MovesForAnotherChannel);
    let suite = Suite::new(&arena).timeout(TIMEOUT);
    let channels = || (0..2).map(|_| toys.channel(&[])).collect();
    let said = complaint(Defect::MovesForAnotherChannel, || suite.clients(channels()));
    assert!(said.contains("beside other clients"), "the suite said: {said}");
}

#[test]
#[cfg_attr(miri, ignore = "hours: the suite looks at every byte")]
fn wrong_failures() {
    use AfterFailure::{Abort, DoNotAttempt, GoDown, GoOn};
    let statuses = [Status::ReadError, Status::NotAttempted];
    for (defect, after_failure, words) in [
        (Defect::FailureHidden, GoOn, "ended with: success"),
        (Defect::FailureMisnamed, Abort, "ended with: write error"),
        (Defect::FailureReportedTwice, Abort, "twice"),
        (Defect::FailureAbortsEarlierOnes, GoOn, "ended with: aborted"),
        (Defect::FailureLosesLaterOnes, GoOn, "operations were lost"),
        (Defect::FailureSkipsLaterOnes, GoOn, "should be"),
        (Defect::FailureWritesOutside, DoNotAttempt, "should be"),
        (Defect::FailureLeavesGarbage, GoDown, "neither what was there"),
        (Defect::NotAttemptedAndTouched, DoNotAttempt, "should be"),
        (Defect::FailureIsForEver, GoOn, "the channel is down"),
    ] {
        let arena = Arena::new(ARENA_LEN).unwrap();
        let mut toys = Toys::new(&arena);
        toys.defect = Some(defect);
        toys.after_failure = after_failure;
        let suite = Suite::new(&arena).timeout(TIMEOUT);
        let failing = |failures: &[Failure]| toys.channel(failures);
        let said = complaint(defect, || suite.errors(&statuses, failing));
        assert!(said.contains(words), "of {defect:?} the suite said: {said}");
    }
}
