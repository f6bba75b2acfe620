use std::fmt;

/// Names one operation of one channel, as Linux's `dma_cookie_t` does.
///
/// Cookies of a channel are consecutive, whichever is the first (of the engines here,
/// [`Cookie::FIRST`]). They are 64 bits wide and wrap: at one operation per nanosecond after 584 years,
/// and then nothing happens, because two cookies are only ever compared by their distance. (Linux's
/// 32-bit cookies wrap too, but its comparison of three of them is only right on channels that complete
/// in order.)
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cookie(u64);

impl Cookie {
    /// The cookie of a channel's first operation.
    pub const FIRST: Self = Self(1);

    /// The cookie with this number. A channel may begin anywhere.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The cookie of the operation submitted after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.wrapping_add(1))
    }

    /// The cookie of the operation submitted `count` operations after this one.
    #[must_use]
    pub const fn plus(self, count: u64) -> Self {
        Self(self.0.wrapping_add(count))
    }

    /// How many operations after `earlier` this one was submitted; `None` if it was before it. Of
    /// two cookies less than 2^63 operations apart.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Option<u64> {
        let distance = self.0.wrapping_sub(earlier.0);
        if distance < 1 << 63 { Some(distance) } else { None }
    }

    /// Whether this operation was submitted before `later`.
    #[must_use]
    pub const fn is_before(self, later: Self) -> bool {
        self.since(later).is_none()
    }

    /// The cookie as a number, 1 for [`Cookie::FIRST`].
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Cookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_survive_the_wrap() {
        let last = Cookie::new(u64::MAX);
        let after = last.next().next();
        assert_eq!((after, after.since(last), last.since(after)), (Cookie::FIRST, Some(2), None));
        assert!(last.is_before(after) && !after.is_before(last) && !last.is_before(last));
        assert_eq!((last.plus(2), last.plus(0)), (after, last));
    }
}
