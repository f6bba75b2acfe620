use std::fmt;

/// Names one operation of one channel, as Linux's `dma_cookie_t` does.
///
/// Cookies of a channel are consecutive and start at [`Cookie::FIRST`]. They are 64 bits wide, so
/// they do not wrap: at one operation per nanosecond that takes 584 years. (Linux's 32-bit cookies
/// wrap, and its comparison of three of them is only right on channels that complete in order.)
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cookie(u64);

impl Cookie {
    /// The cookie of a channel's first operation.
    pub const FIRST: Self = Self(1);

    /// The cookie of the operation submitted after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// How many operations after `earlier` this one was submitted; `None` if it was before it.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Option<u64> {
        self.0.checked_sub(earlier.0)
    }

    /// The cookie as a number, 1 for the first.
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
