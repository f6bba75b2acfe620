//! Hardware versions.

use std::fmt;

/// A version of the hardware that this driver knows, as CBVER tells it. Later ones are greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// 1.2: a chain of descriptors that grows by APPEND.
    V1_2,
    /// 2.0: a ring, and DMACOUNT.
    V2_0,
    /// 3.0: capabilities, exclusive or, P and Q.
    V3_0,
    /// 3.2: Xeons from Jasper Forest to Skylake.
    V3_2,
    /// 3.3: 16 sources, results of checks in the descriptor.
    V3_3,
    /// 3.4: Ice Lake; descriptors are prefetched.
    V3_4,
}

impl Version {
    /// All of them, the oldest first.
    pub const ALL: [Self; 6] =
        [Self::V1_2, Self::V2_0, Self::V3_0, Self::V3_2, Self::V3_3, Self::V3_4];

    /// The value of CBVER: major in bits 7:4, minor in bits 3:0.
    #[must_use]
    pub const fn cbver(self) -> u8 {
        match self {
            Self::V1_2 => 0x12,
            Self::V2_0 => 0x20,
            Self::V3_0 => 0x30,
            Self::V3_2 => 0x32,
            Self::V3_3 => 0x33,
            Self::V3_4 => 0x34,
        }
    }

    /// The version with this CBVER; `None` if this driver does not know it.
    #[must_use]
    pub fn from_cbver(cbver: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|version| version.cbver() == cbver)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cbver = self.cbver();
        f.pad(&format!("{}.{}", cbver >> 4, cbver & 0xf))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn are_ordered_and_told_by_cbver() {
        assert!(Version::ALL.is_sorted());
        for version in Version::ALL {
            assert_eq!(Version::from_cbver(version.cbver()), Some(version));
        }
        assert_eq!([0x11, 0x31, 0xff].map(Version::from_cbver), [None; 3]);
        assert_eq!(
            Version::ALL.map(|version| version.to_string()).join(" "),
            "1.2 2.0 3.0 3.2 3.3 3.4"
        );
    }
}
