use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

fn ended(ring: &mut Ring, count: usize, status: Status) -> Vec<Completion> {
    let mut reports = Vec::new();
    ring.end(count, status, &mut |completion| reports.push(completion));
    reports
}

#[test]
fn one_slot_is_always_free() {
    let mut ring = Ring::new(3);
    assert_eq!(ring.free(), 7);
    for _ in 0..7 {
        ring.push(Slot::Last(1));
    }
    assert_eq!(ring.free(), 0);
    ring.issue();
    assert_eq!(ended(&mut ring, 7, Status::Success).len(), 7);
    assert_eq!(ring.free(), 7);
}

#[test]
fn dmacount_wraps_and_begins_again_with_a_chain() {
    let mut ring = Ring::new(15);
    let mut expected = 0_u16;
    for _ in 0..5 {
        for _ in 0..30_000 {
            ring.push(Slot::Last(1));
        }
        expected = expected.wrapping_add(30_000);
        assert_eq!(ring.issue(), expected);
        assert_eq!(ended(&mut ring, 30_000, Status::Success).len(), 30_000);
    }
    ring.begin_chain();
    ring.push(Slot::Null);
    assert_eq!(ring.issue(), 1);
}

#[test]
fn an_operation_ends_with_its_last_piece() {
    let mut ring = Ring::new(4);
    for slot in [Slot::Part, Slot::Part, Slot::Last(300), Slot::Null, Slot::Last(1)] {
        ring.push(slot);
    }
    ring.issue();
    assert!(ended(&mut ring, 2, Status::Success).is_empty());
    let completion = Completion::success;
    assert_eq!(ended(&mut ring, 1, Status::Success), [completion(Cookie::FIRST, 300)]);
    assert!(ended(&mut ring, 1, Status::Success).is_empty());
    assert_eq!(ended(&mut ring, 1, Status::Success), [completion(Cookie::FIRST.next(), 1)]);
}

#[test]
fn a_failed_piece_fails_its_operation_only() {
    let mut ring = Ring::new(4);
    for slot in [Slot::Last(1), Slot::Part, Slot::Part, Slot::Last(3), Slot::Last(4)] {
        ring.push(slot);
    }
    ring.issue();
    ring.push(Slot::Last(5));
    let mut statuses = Vec::new();
    let mut report = |completion: Completion| statuses.push((completion.status, completion.bytes));
    ring.end(2, Status::Success, &mut report);
    ring.end_operation(Status::ReadError, &mut report);
    ring.end_all(Status::Aborted, &mut report);
    let expected =
        [(Status::Success, 1), (Status::ReadError, 0), (Status::Aborted, 0), (Status::Aborted, 0)];
    assert_eq!(statuses, expected);
    assert!(!ring.has_operation());
    assert_eq!((ring.in_flight(), ring.last_pending()), (0, None));
    assert_eq!(ring.next_cookie().get(), 5, "cookies stay consecutive");
}

#[test]
fn completed_indices_outside_what_is_in_flight_mean_nothing() {
    let mut ring = Ring::new(3);
    for _ in 0..3 {
        ring.push(Slot::Last(1));
    }
    ring.issue();
    ring.push(Slot::Last(1));
    assert_eq!([0, 1, 2].map(|index| ring.ended_at(index)), [1, 2, 3]);
    assert_eq!([3, 4, 7].map(|index| ring.ended_at(index)), [0, 0, 0]);
    ended(&mut ring, 3, Status::Success);
    assert_eq!(ring.ended_at(2), 0, "reported already");
}

#[test]
fn knows_what_there_is_to_wait_for() {
    let mut ring = Ring::new(3);
    ring.push(Slot::Null);
    ring.issue();
    assert!(ring.nulls() == 1 && !ring.has_issued_operation());
    ring.push(Slot::Last(1));
    assert!(ring.nulls() == 1 && !ring.has_issued_operation() && ring.has_operation());
    assert_eq!(ring.last_pending(), Some(1));
    ring.issue();
    assert!(ring.has_issued_operation());
    ended(&mut ring, 2, Status::Success);
    assert!(!ring.has_issued_operation() && !ring.has_operation() && ring.nulls() == 0);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Against a queue of (pieces left, length): the same cookies in the same order, and no slot lost.
    #[test]
    fn agrees_with_a_queue(actions in prop::collection::vec((0..4_u8, 1..6_usize), 1..400)) {
        let mut ring = Ring::new(5);
        let mut oracle = VecDeque::new();
        let (mut next, mut expected_count) = (1, 0_u16);
        for (action, amount) in actions {
            match action {
                0 | 1 if ring.free() >= amount => {
                    for _ in 1..amount {
                        ring.push(Slot::Part);
                    }
                    ring.push(Slot::Last(amount * 100));
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
                    prop_assert_eq!(ring.issue(), expected_count);
                }
                3 => {
                    if let Some((pieces, cookie, true)) = oracle.front().copied() {
                        let first = (ring.head_index() + 32 - (31 - ring.free())) % 32;
                        let last = (first + pieces - 1) % 32;
                        prop_assert_eq!(ring.ended_at(last), pieces);
                        let reports = ended(&mut ring, pieces, Status::Success);
                        prop_assert_eq!(reports.len(), 1);
                        prop_assert_eq!(reports[0].cookie.get(), cookie);
                        prop_assert_eq!(reports[0].bytes, pieces * 100);
                        oracle.pop_front();
                    }
                }
                _ => {}
            }
            let used: usize = oracle.iter().map(|(pieces, ..)| pieces).sum();
            prop_assert_eq!(ring.free(), 31 - used);
        }
    }
}
