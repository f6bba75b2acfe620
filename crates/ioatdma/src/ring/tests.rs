use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

fn ended(ring: &mut Ring, count: usize) -> Vec<Completion> {
    let mut reports = Vec::new();
    ring.end(count, |_| Mismatch::empty(), &mut |completion| reports.push(completion));
    reports
}

/// A ring of `2^order` slots that operations can have.
fn ring(order: u8) -> Ring {
    let mut ring = Ring::new(order);
    ring.set_limit(0);
    ring
}

/// Submits an operation of so many descriptors.
fn push(ring: &mut Ring, descriptors: usize, len: usize) -> Cookie {
    for _ in 1..descriptors {
        ring.push_part(Slot::empty());
    }
    ring.push_last(len)
}

#[test]
fn operations_get_all_but_the_reserved_slots() {
    let mut ring = ring(3);
    for _ in 0..20 {
        assert_eq!(ring.space(), 5);
        push(&mut ring, 5, 1);
        assert_eq!(ring.space(), 0);
        ring.issue();
        assert_eq!(ended(&mut ring, 5).len(), 1);
        ring.set_limit(2);
        assert_eq!(ring.space(), 3, "some are withheld");
        ring.set_limit(0);
    }
    ring.close();
    assert_eq!(ring.space(), 0);
}

/// With a full ring there is a slot for an event's descriptor, and with one in use as well.
#[test]
fn what_is_no_operation_s_takes_the_slot_kept_for_it() {
    let mut ring = ring(3);
    push(&mut ring, 2, 1);
    ring.push_null();
    ring.set_limit(0);
    assert_eq!(ring.space(), 3);
    push(&mut ring, 3, 1);
    ring.issue();
    assert_eq!(ended(&mut ring, 3).len(), 1);
    assert!(!ring.has_null());
    ring.set_limit(0);
    assert_eq!(ring.space(), 2);
}

/// A fence's descriptor is in the slot kept for it until it is issued; from then on, another slot is
/// kept.
#[test]
fn a_fence_takes_a_slot_from_the_doorbell_on() {
    let mut ring = ring(4);
    push(&mut ring, 1, 1);
    ring.issue();
    assert_eq!(ring.space(), 12);
    ring.push_fence();
    push(&mut ring, 1, 1);
    assert_eq!(ring.space(), 11);
    ring.set_limit(0);
    assert_eq!(ring.space(), 11);
    push(&mut ring, 11, 1);
    ring.issue();
    assert_eq!(ring.space(), 0);
    for (count, space) in [(0, 0), (1, 0), (1, 1), (1, 2)] {
        ended(&mut ring, count);
        ring.set_limit(0);
        assert_eq!(ring.space(), space);
    }
    // One that is taken back before it was issued is in use no more.
    ring.push_fence();
    push(&mut ring, 1, 1);
    ring.end_all(Status::Aborted, &mut |_| {});
    ring.set_limit(0);
    assert_eq!(ring.space(), 13);
}

#[test]
fn dmacount_wraps_and_begins_again_with_a_chain() {
    let mut ring = ring(15);
    let mut expected = 0_u16;
    for _ in 0..5 {
        for _ in 0..30_000 {
            ring.push_last(1);
        }
        expected = expected.wrapping_add(30_000);
        ring.issue();
        assert_eq!(ring.count(), expected);
        assert_eq!(ended(&mut ring, 30_000).len(), 30_000);
    }
    ring.begin_chain();
    ring.push_null();
    ring.issue();
    assert_eq!(ring.count(), 1);
}

#[test]
fn an_operation_ends_with_its_last_piece() {
    let mut ring = ring(4);
    push(&mut ring, 3, 300);
    ring.push_null();
    push(&mut ring, 1, 1);
    ring.issue();
    assert!(ended(&mut ring, 2).is_empty());
    let completion = Completion::success;
    assert_eq!(ended(&mut ring, 1), [completion(Cookie::FIRST, 300)]);
    assert!(ended(&mut ring, 1).is_empty());
    assert_eq!(ended(&mut ring, 1), [completion(Cookie::FIRST.next(), 1)]);
}

#[test]
fn a_failed_piece_fails_its_operation_only() {
    let mut ring = ring(4);
    for descriptors in [1, 3, 1] {
        push(&mut ring, descriptors, descriptors);
    }
    ring.issue();
    push(&mut ring, 1, 5);
    let mut statuses = Vec::new();
    let mut report = |completion: Completion| statuses.push((completion.status, completion.bytes));
    ring.end(2, |_| Mismatch::empty(), &mut report);
    ring.end_operation(Status::ReadError, &mut report);
    ring.end_all(Status::Aborted, &mut report);
    let expected =
        [(Status::Success, 1), (Status::ReadError, 0), (Status::Aborted, 0), (Status::Aborted, 0)];
    assert_eq!(statuses, expected);
    assert!(!ring.has_operation());
    assert_eq!((ring.in_flight(), ring.last_pending()), (0, None));
    assert_eq!(push(&mut ring, 1, 1).get(), 5, "cookies stay consecutive");
}

#[test]
fn cookies_wrap() {
    let mut ring = ring(3);
    let last = Cookie::new(u64::MAX);
    ring.lead = last.get();
    (ring.oldest, ring.unissued) = (last, last);
    let cookies = [(); 3].map(|()| push(&mut ring, 1, 1));
    assert_eq!(cookies, [last, last.next(), last.next().next()]);
    ring.push_null();
    ring.issue();
    assert!(ring.has_operation() && ring.has_issued_operation());
    let reports = ended(&mut ring, 3);
    assert!(reports.iter().map(|completion| completion.cookie).eq(cookies));
    assert!(!ring.has_operation() && !ring.has_issued_operation());
    assert_eq!(push(&mut ring, 2, 1), Cookie::new(2));
}

#[test]
fn a_failed_descriptor_of_nobody_fails_nobody() {
    let mut ring = ring(4);
    ring.push_null();
    push(&mut ring, 1, 1);
    ring.issue();
    let mut statuses = Vec::new();
    let mut report = |completion: Completion| statuses.push(completion.status);
    ring.end_operation(Status::ReadError, &mut report);
    ring.end_all(Status::Aborted, &mut report);
    assert_eq!(statuses, [Status::Aborted]);
}

#[test]
fn completed_indices_outside_what_is_in_flight_mean_nothing() {
    let mut ring = ring(3);
    for _ in 0..3 {
        ring.push_last(1);
    }
    ring.issue();
    ring.push_last(1);
    assert_eq!([0, 1, 2].map(|index| ring.ended_at(index)), [1, 2, 3]);
    assert_eq!([3, 4, 7].map(|index| ring.ended_at(index)), [0, 0, 0]);
    ended(&mut ring, 3);
    assert_eq!(ring.ended_at(2), 0, "reported already");
}

#[test]
fn knows_what_there_is_to_wait_for() {
    let mut ring = ring(3);
    ring.push_null();
    ring.issue();
    assert!(ring.has_null() && !ring.has_issued_operation());
    ring.push_last(1);
    assert!(ring.has_null() && !ring.has_issued_operation() && ring.has_operation());
    assert_eq!(ring.last_pending(), Some(Index(1)));
    ring.issue();
    assert!(ring.has_issued_operation());
    ended(&mut ring, 2);
    assert!(!ring.has_issued_operation() && !ring.has_operation() && !ring.has_null());
}

/// Submits a check of two descriptors, each with an extension, and a trailing empty one.
fn push_check(ring: &mut Ring, len: usize) -> Cookie {
    for flags in [Slot::CHECK, Slot::EXTENSION, Slot::CHECK, Slot::EXTENSION] {
        ring.push_part(flags);
    }
    ring.push_last_as(Slot::empty(), len)
}

/// The device names the first half only.
#[test]
fn an_extension_ends_with_the_half_before() {
    let mut ring = ring(4);
    push(&mut ring, 1, 1);
    ring.push_part(Slot::empty());
    assert_eq!(ring.last_pending(), Some(Index(1)));
    ring.push_last_as(Slot::EXTENSION, 7);
    assert_eq!(ring.last_pending(), Some(Index(1)), "what has a control word");
    ring.issue();
    push(&mut ring, 1, 1);
    assert_eq!([0, 1, 2, 3].map(|index| ring.ended_at(index)), [1, 3, 3, 0]);
    let reports = ended(&mut ring, 3);
    assert_eq!(reports.last(), Some(&Completion::success(Cookie::FIRST.next(), 7)));
}

#[test]
fn a_check_ends_with_all_that_its_parts_have_found() {
    for (found, status) in [
        ([Mismatch::empty(), Mismatch::empty()], Status::Success),
        ([Mismatch::P, Mismatch::empty()], Status::MismatchP),
        ([Mismatch::empty(), Mismatch::Q], Status::MismatchQ),
        ([Mismatch::Q, Mismatch::P], Status::MismatchPq),
    ] {
        let mut ring = ring(4);
        push_check(&mut ring, 5);
        push(&mut ring, 1, 1);
        ring.issue();
        let mut reports = Vec::new();
        // By what is written to the descriptors ...
        let verdict = |index: Index| found[index.get() / 2];
        ring.end(6, verdict, &mut |completion| reports.push(completion));
        // ... and by halts.
        push_check(&mut ring, 5);
        push(&mut ring, 1, 1);
        ring.issue();
        for found in found {
            assert!(ring.oldest_is_check());
            ring.end_check(found, &mut |completion| reports.push(completion));
        }
        assert!(!ring.oldest_is_check());
        ring.end(2, |_| Mismatch::empty(), &mut |completion| reports.push(completion));
        let statuses: Vec<_> = reports.iter().map(|completion| completion.status).collect();
        assert_eq!(statuses, [status, Status::Success, status, Status::Success]);
        assert!(reports.iter().step_by(2).all(|completion| completion.bytes == 5));
    }
}

#[test]
fn a_failure_behind_a_mismatch_is_a_failure_and_leaves_nothing_behind() {
    let mut ring = ring(4);
    push_check(&mut ring, 5);
    push(&mut ring, 1, 1);
    ring.issue();
    let mut statuses = Vec::new();
    let mut report = |completion: Completion| statuses.push(completion.status);
    ring.end_check(Mismatch::P, &mut report);
    ring.end_operation(Status::ReadError, &mut report);
    ring.end(1, |_| Mismatch::empty(), &mut report);
    assert_eq!(statuses, [Status::ReadError, Status::Success]);
}

/// A slot is not used again before the completion word has told of its descriptor: late, it would tell
/// of the next one there.
#[test]
fn slots_whose_end_is_owed_are_not_free() {
    let mut ring = ring(3);
    push(&mut ring, 1, 1);
    push(&mut ring, 1, 1);
    push(&mut ring, 1, 1);
    ring.issue();
    assert_eq!(ring.ended_at(1), 2);
    assert_eq!(ended(&mut ring, 2).len(), 2);
    ring.owe(2);
    ring.set_limit(0);
    assert_eq!((ring.space(), ring.is_owed()), (2, true));
    push(&mut ring, 2, 1);
    ring.issue();
    // Slot 0 is that of position 0 still.
    assert_eq!(ring.told_of(0), 0);
    ring.set_limit(0);
    assert_eq!((ring.space(), ring.is_owed()), (1, true));
    // What was not written, or was passed over, is told of by what comes later.
    assert_eq!(ring.told_of(3), 2);
    assert!(!ring.is_owed());
    assert_eq!(ended(&mut ring, 2).len(), 1);
    assert_eq!(ring.told_of(3), 0, "told already");
    assert_eq!(ring.told_of(4), 1);
    assert_eq!(ended(&mut ring, 1).len(), 1);
    ring.set_limit(0);
    assert_eq!(ring.space(), 5);
    // A new chain owes nothing.
    push(&mut ring, 1, 1);
    ring.issue();
    ended(&mut ring, 1);
    ring.owe(1);
    ring.begin_chain();
    ring.set_limit(0);
    assert_eq!((ring.space(), ring.is_owed()), (5, false));
}

/// What was issued is the chain then, what was not waits for its doorbell.
#[test]
fn a_chain_begins_again_with_what_is_in_flight() {
    let mut ring = ring(4);
    push(&mut ring, 3, 1);
    push(&mut ring, 2, 2);
    ring.issue();
    push(&mut ring, 1, 3);
    ring.end_operation(Status::TimedOut, &mut |_| {});
    ring.begin_chain();
    assert_eq!((ring.count(), ring.issued()), (2, 3..5));
    ring.issue();
    assert_eq!(ring.count(), 3);
    assert_eq!(ended(&mut ring, 3).len(), 2);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Against a queue of (descriptors, cookie, issued): the same cookies in the same order, and no
    /// slot lost.
    #[test]
    fn agrees_with_a_queue(actions in prop::collection::vec((0..4_u8, 1..6_usize), 1..400)) {
        let mut ring = ring(5);
        let mut oracle = VecDeque::new();
        let (mut next, mut expected_count) = (1, 0_u16);
        for (action, amount) in actions {
            match action {
                0 | 1 if ring.space() >= amount => {
                    prop_assert_eq!(push(&mut ring, amount, amount * 100).get(), next);
                    oracle.push_back((amount, next, false));
                    next += 1;
                }
                2 => {
                    for (pieces, _, issued) in &mut oracle {
                        if !*issued {
                            expected_count = expected_count.wrapping_add(*pieces as u16);
                        }
                        *issued = true;
                    }
                    ring.issue();
                    prop_assert_eq!(ring.count(), expected_count);
                }
                3 => {
                    if let Some((pieces, cookie, true)) = oracle.front().copied() {
                        let used: usize = oracle.iter().map(|(pieces, ..)| pieces).sum();
                        let last = ring.head() - used as u64 + pieces as u64 - 1;
                        prop_assert_eq!(ring.ended_at(ring.index(last).get()), pieces);
                        let reports = ended(&mut ring, pieces);
                        prop_assert_eq!(reports.len(), 1);
                        prop_assert_eq!(reports[0].cookie.get(), cookie);
                        prop_assert_eq!(reports[0].bytes, pieces * 100);
                        oracle.pop_front();
                        ring.set_limit(0);
                    }
                }
                _ => {}
            }
            let used: usize = oracle.iter().map(|(pieces, ..)| pieces).sum();
            prop_assert_eq!(ring.space(), 29 - used);
        }
    }
}
