//! Which client of shared channels uses which: the pure part.

use crate::Capabilities;

/// A channel that can be shared.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    pub(super) capabilities: Capabilities,
    /// That it is nearest to, if that is known.
    pub(super) node: Option<u32>,
}

/// A client, and the candidate that it has.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seat {
    /// What the channel must be able to do.
    pub(super) mask: Capabilities,
    /// Where the client runs, if that is known.
    pub(super) node: Option<u32>,
    /// An index of the candidates.
    pub(super) candidate: Option<usize>,
}

impl Seat {
    /// Whether a candidate is on another node. As in Linux, unknown is near to all.
    fn is_far_from(&self, candidate: &Candidate) -> bool {
        matches!((self.node, candidate.node), (Some(here), Some(there)) if here != there)
    }
}

/// Gives each client that has none, or one that could be better, the best candidate for it: on its
/// node if there is one, and then the one with the fewest clients, the first of equals. Whoever can
/// stay, stays.
///
/// It ends: each move takes a client to its node, or evens out the numbers.
pub(super) fn balance(seats: &mut [Seat], candidates: &[Candidate]) {
    let mut users = vec![0usize; candidates.len()];
    for at in seats.iter().filter_map(|seat| seat.candidate) {
        users[at] += 1;
    }
    loop {
        let mut settled = true;
        for seat in &mut *seats {
            if let Some(at) = seat.candidate {
                users[at] -= 1;
            }
            let cost = |at: usize| (seat.is_far_from(&candidates[at]), users[at]);
            let fits = |at: &usize| candidates[*at].capabilities.contains(seat.mask);
            let best = (0..candidates.len()).filter(fits).min_by_key(|&at| cost(at));
            let kept = seat.candidate.filter(fits);
            let kept = kept.filter(|&at| best.is_some_and(|best| cost(at) <= cost(best)));
            if kept.is_none() && seat.candidate != best {
                seat.candidate = best;
                settled = false;
            }
            if let Some(at) = seat.candidate {
                users[at] += 1;
            }
        }
        if settled {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const COPY: Candidate = Candidate { capabilities: Capabilities::MEMCPY, node: None };

    fn on(node: u32) -> Candidate {
        Candidate { node: Some(node), ..COPY }
    }

    fn client(node: Option<u32>) -> Seat {
        Seat { mask: Capabilities::MEMCPY, node, candidate: None }
    }

    fn balanced(mut seats: Vec<Seat>, candidates: &[Candidate]) -> Vec<Option<usize>> {
        balance(&mut seats, candidates);
        seats.iter().map(|seat| seat.candidate).collect()
    }

    #[test]
    fn clients_are_spread() {
        let seats = vec![client(None); 5];
        let expected = [0, 1, 2, 0, 1].map(Some);
        assert_eq!(balanced(seats, &[COPY; 3]), expected);
    }

    #[test]
    fn the_own_node_is_worth_a_crowd_and_unknown_is_near() {
        let near = vec![client(Some(1)); 3];
        assert_eq!(balanced(near.clone(), &[on(0), on(1)]), [Some(1); 3]);
        assert_eq!(
            balanced(near.clone(), &[on(0), on(0)]),
            [0, 1, 0].map(Some),
            "far is better than none"
        );
        assert_eq!(balanced(near, &[on(0), on(1), COPY]), [1, 2, 1].map(Some));
        assert_eq!(balanced(vec![client(None); 2], &[on(0), on(1)]), [0, 1].map(Some));
    }

    #[test]
    fn who_has_the_only_fitting_one_keeps_it() {
        let able = Candidate { capabilities: Capabilities::MEMCPY | Capabilities::XOR, node: None };
        let mask = Capabilities::XOR;
        let raid = Seat { mask, ..client(None) };
        assert_eq!(balanced(vec![raid, raid, client(None)], &[able, COPY]), [0, 0, 1].map(Some));
        assert_eq!(balanced(vec![raid], &[COPY]), [None]);
        assert_eq!(balanced(vec![Seat { candidate: Some(0), ..raid }], &[COPY]), [None]);
    }

    #[test]
    fn a_new_channel_relieves_the_fullest() {
        let mut seats: Vec<_> =
            [0, 0, 0, 1].map(|at| Seat { candidate: Some(at), ..client(None) }).into();
        balance(&mut seats, &[COPY; 3]);
        assert_eq!(
            seats.iter().map(|seat| seat.candidate).collect::<Vec<_>>(),
            [2, 0, 0, 1].map(Some)
        );
    }

    proptest! {
        /// It ends; nobody could do better by a move of his own; and to repeat it changes nothing.
        #[test]
        #[cfg_attr(miri, ignore = "long, and nothing unsafe")]
        fn nobody_would_rather_move(
            candidates in prop::collection::vec((0u32..4, prop::option::of(0u32..3)), 0..6),
            clients in prop::collection::vec(
                (0u32..4, prop::option::of(0u32..3), prop::option::of(0usize..6)), 0..12),
        ) {
            let candidates: Vec<_> = candidates.into_iter().map(|(bits, node)| Candidate {
                capabilities: Capabilities::from_bits_truncate(bits), node,
            }).collect();
            let mut seats: Vec<_> = clients.into_iter().map(|(bits, node, at)| Seat {
                mask: Capabilities::from_bits_truncate(bits),
                node,
                candidate: at.filter(|&at| at < candidates.len()),
            }).collect();
            balance(&mut seats, &candidates);
            for (index, seat) in seats.iter().enumerate() {
                let users = |at| seats.iter().enumerate()
                    .filter(|&(other, seat)| other != index && seat.candidate == Some(at)).count();
                let cost = |at: usize| (seat.is_far_from(&candidates[at]), users(at));
                let fits = |at: &usize| candidates[*at].capabilities.contains(seat.mask);
                let best = (0..candidates.len()).filter(fits).map(cost).min();
                prop_assert!(seat.candidate.as_ref().is_none_or(fits));
                prop_assert_eq!(seat.candidate.map(cost), best);
            }
            let before: Vec<_> = seats.iter().map(|seat| seat.candidate).collect();
            balance(&mut seats, &candidates);
            let after: Vec<_> = seats.iter().map(|seat| seat.candidate).collect();
            prop_assert_eq!(before, after);
        }
    }
}
