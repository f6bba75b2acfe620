//! Which of a layer's operations is which of the channel below.

use std::collections::VecDeque;

use crate::Cookie;

/// The operations that a layer has passed on and that have not ended below, by their cookies there.
/// A position is the number of operations that the layer took before one.
#[derive(Debug)]
pub(super) struct Passed {
    /// `None` marks one that ended before an earlier one.
    positions: VecDeque<Option<u64>>,
    /// Of the first entry, if there is one.
    first: Cookie,
}

impl Passed {
    /// With room for a ring of `capacity`.
    pub(super) fn new(capacity: usize) -> Self {
        Self { positions: VecDeque::with_capacity(capacity), first: Cookie::FIRST }
    }

    /// The operation at `position` has got `cookie` below, the next after the last one pushed: the
    /// channel below promises that.
    pub(super) fn push(&mut self, cookie: Cookie, position: u64) {
        if self.positions.is_empty() {
            self.first = cookie;
        }
        self.positions.push_back(Some(position));
    }

    /// The operation with this cookie has ended: its position. `None` if none is under way by that
    /// cookie.
    pub(super) fn take(&mut self, cookie: Cookie) -> Option<u64> {
        let index = usize::try_from(cookie.since(self.first)?).ok()?;
        let position = self.positions.get_mut(index)?.take();
        while let Some(None) = self.positions.front() {
            self.positions.pop_front();
            self.first = self.first.next();
        }
        position
    }

    /// Nothing is under way: the channel below was stopped.
    pub(super) fn clear(&mut self) {
        self.positions.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_found_once_in_any_order_and_across_the_wrap() {
        let mut passed = Passed::new(4);
        let cookies: [_; 3] =
            std::array::from_fn(|at| Cookie::new(u64::MAX.wrapping_add(at as u64)));
        for (cookie, position) in cookies.into_iter().zip([5, 6, 9]) {
            passed.push(cookie, position);
        }
        assert_eq!(passed.take(cookies[1]), Some(6));
        assert_eq!(passed.take(cookies[1]), None);
        assert_eq!(passed.take(cookies[0]), Some(5));
        assert_eq!((passed.take(cookies[0]), passed.take(Cookie::new(7))), (None, None));
        assert_eq!(passed.take(cookies[2]), Some(9));
        passed.push(Cookie::new(70), 10);
        passed.clear();
        assert_eq!(passed.take(Cookie::new(70)), None);
    }
}
