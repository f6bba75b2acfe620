use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::puppet::Puppet;

#[derive(Clone, Debug)]
enum Step {
    Submit,
    /// Ends one that is in flight.
    End(prop::sample::Index),
    /// Reports a cookie at this distance from the oldest in flight.
    Lie(i8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => Just(Step::Submit),
        3 => any::<prop::sample::Index>().prop_map(Step::End),
        1 => any::<i8>().prop_map(Step::Lie),
    ];
    prop::collection::vec(step, 1..200)
}

proptest! {
    /// Against a map from cookie to what is kept, from near the wrap of cookies on.
    #[test]
    fn what_was_kept_comes_out_once_and_by_cookie(
        first in prop_oneof![Just(1), Just(u64::MAX - 20), any::<u64>()],
        capacity in 0..5_usize,
        steps in steps(),
    ) {
        let (mut channel, strings) = Puppet::with_ring(64);
        strings.set_next(Cookie::new(first));
        let mut in_flight = InFlight::with_capacity(capacity);
        let mut model = BTreeMap::new();
        let (mut submitted, mut lies, mut most) = (0u64, 0, 0);
        let (source, mut target) = ([7u8; 4], [0u8; 4]);
        let copy =
            Operation::Memcpy { source: source.as_ptr(), target: target.as_mut_ptr(), len: 4 };
        for step in steps {
            let mut ended = None;
            match step {
                Step::Submit => {
                    // SAFETY: the two outlive the channel, and nobody looks at the target.
                    let kept = unsafe {
                        in_flight.submit(&mut channel, &copy, Flags::empty(), submitted)
                    };
                    if model.len() == 64 {
                        prop_assert_eq!(kept.unwrap_err(), (SubmitError::RingFull, submitted));
                    } else {
                        let cookie = Cookie::new(first.wrapping_add(submitted));
                        prop_assert_eq!(kept, Ok(cookie));
                        model.insert(submitted, cookie);
                        submitted += 1;
                    }
                }
                Step::End(index) if !model.is_empty() => {
                    let place = index.index(model.len());
                    strings.end(place, Status::Success);
                    ended = model.iter().nth(place).map(|(&number, &cookie)| (number, cookie));
                }
                Step::End(_) => {}
                Step::Lie(distance) => {
                    let front = model.keys().next().copied().unwrap_or(submitted);
                    let number = front.wrapping_add_signed(distance.into());
                    if !model.contains_key(&number) {
                        strings.lie(Cookie::new(first.wrapping_add(number)));
                        lies += 1;
                    }
                }
            }
            let mut reported = Vec::new();
            let count = in_flight.poll(&mut channel, |completion, kept| {
                reported.push((kept, completion.cookie, completion.bytes));
            });
            let expected: Vec<_> =
                ended.iter().map(|&(number, cookie)| (number, cookie, 4)).collect();
            prop_assert_eq!(count, expected.len());
            prop_assert_eq!(reported, expected);
            if let Some((number, cookie)) = ended {
                model.remove(&number);
                prop_assert!(!in_flight.contains(cookie));
            }
            prop_assert_eq!(in_flight.len(), model.len());
            prop_assert!(model.values().all(|&cookie| in_flight.contains(cookie)));
            prop_assert_eq!(in_flight.spurious(), lies);
            most = most.max(model.len());
            prop_assert!(in_flight.room <= (4 * most).max(MIN_SLOTS));
        }
        let mut left = Vec::new();
        in_flight.drain(|kept| left.push(kept));
        prop_assert_eq!(left, model.into_keys().collect::<Vec<_>>());
        prop_assert!(in_flight.is_empty());
    }
}

#[test]
fn one_that_does_not_end_makes_no_room() {
    let (mut channel, strings) = Puppet::with_ring(64);
    let mut in_flight = InFlight::with_capacity(0);
    let (source, mut target) = ([7u8; 4], [0u8; 4]);
    let copy = Operation::Memcpy { source: source.as_ptr(), target: target.as_mut_ptr(), len: 4 };
    let mut submit = |in_flight: &mut InFlight<u32>, kept| {
        // SAFETY: the two outlive the channel, and nobody looks at the target.
        unsafe { in_flight.submit(&mut channel, &copy, Flags::empty(), kept) }.unwrap();
        if kept < 2 {
            return;
        }
        // The third in the order of submission: the first two hang.
        strings.end(2, Status::Success);
        let mut ended = Vec::new();
        assert_eq!(in_flight.poll(&mut channel, |_, kept| ended.push(kept)), 1);
        assert_eq!(ended, [kept]);
    };
    for kept in 0..10_000 {
        submit(&mut in_flight, kept);
    }
    assert_eq!((in_flight.len(), in_flight.room, in_flight.slots.len()), (2, MIN_SLOTS, MIN_SLOTS));
    strings.end(1, Status::Success);
    let mut ended = Vec::new();
    in_flight.poll(&mut channel, |_, kept| ended.push(kept));
    assert_eq!(ended, [1]);
    in_flight.drain(|kept| ended.push(kept));
    assert_eq!(ended, [1, 0]);
}
