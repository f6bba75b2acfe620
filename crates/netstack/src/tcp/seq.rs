use std::ops::{Add, AddAssign, Sub};

/// A sequence number. All arithmetic is modulo 2^32 (RFC 9293 section 3.4); comparisons hold for
/// numbers that are less than 2^31 apart, which windows of at most 2^30 bytes guarantee.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct SeqNumber(pub(crate) u32);

impl SeqNumber {
    /// How far this is after `base`; negative if it is before.
    pub(crate) const fn offset_from(self, base: Self) -> i32 {
        self.0.wrapping_sub(base.0) as i32
    }

    /// How far this is after `base`; zero if it is before.
    pub(crate) const fn saturating_offset_from(self, base: Self) -> usize {
        let offset = self.offset_from(base);
        if offset > 0 { offset as usize } else { 0 }
    }

    pub(crate) const fn is_before(self, other: Self) -> bool {
        self.offset_from(other) < 0
    }

    pub(crate) const fn is_after(self, other: Self) -> bool {
        self.offset_from(other) > 0
    }

    pub(crate) const fn max(self, other: Self) -> Self {
        if self.is_before(other) { other } else { self }
    }

    pub(crate) const fn min(self, other: Self) -> Self {
        if self.is_before(other) { self } else { other }
    }
}

impl Add<usize> for SeqNumber {
    type Output = Self;

    fn add(self, bytes: usize) -> Self {
        // Truncation is arithmetic modulo 2^32.
        Self(self.0.wrapping_add(bytes as u32))
    }
}

impl AddAssign<usize> for SeqNumber {
    fn add_assign(&mut self, bytes: usize) {
        *self = *self + bytes;
    }
}

impl Sub<usize> for SeqNumber {
    type Output = Self;

    fn sub(self, bytes: usize) -> Self {
        // Truncation is arithmetic modulo 2^32.
        Self(self.0.wrapping_sub(bytes as u32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_survives_the_wrap() {
        let before = SeqNumber(u32::MAX - 1);
        let after = before + 4;
        assert_eq!(after, SeqNumber(2));
        assert!(before.is_before(after) && after.is_after(before));
        assert!(!before.is_before(before) && !before.is_after(before));
        assert_eq!(after.offset_from(before), 4);
        assert_eq!(before.offset_from(after), -4);
        assert_eq!(before.saturating_offset_from(after), 0);
        assert_eq!(before.max(after), after);
        assert_eq!(before.min(after), before);
        assert_eq!(after - 4, before);
    }
}
