//! The hardware versions, and what each of them has.

use std::{fmt, str::FromStr};

use crate::registers::DmaCapability;

/// Hardware versions that the model can be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// 1.2: the 5000 series of chipsets (Bensley). Copies, in chains that grow with APPEND.
    V1_2,
    /// 2.0: the 5400 chipset. Copies, in rings with DMACOUNT.
    V2_0,
    /// 3.0: the Tylersburg chipset. Copies and fills.
    V3_0,
    /// 3.2: Xeons from Jasper Forest to Skylake. Exclusive or and P+Q besides.
    #[default]
    V3_2,
    /// 3.3: Atoms (Briarwood). P+Q with up to 16 sources, results written back into descriptors.
    V3_3,
    /// 3.4: Ice Lake Xeons. Copies and fills again, with descriptor prefetch.
    V3_4,
}

impl Version {
    /// All of them, oldest first.
    pub const ALL: [Self; 6] =
        [Self::V1_2, Self::V2_0, Self::V3_0, Self::V3_2, Self::V3_3, Self::V3_4];

    /// The PCI device id of a device with this version, one that Linux's table has (for 1.2 and 2.0:
    /// had, since it drives them no more). Of those with
    /// version 3.3 it is the one whose P+Q engine Linux uses.
    #[must_use]
    pub const fn device_id(self) -> u16 {
        match self {
            Self::V1_2 => 0x1a38,
            Self::V2_0 => 0x402f,
            // Tylersburg, function 0.
            Self::V3_0 => 0x3430,
            // Skylake Xeon.
            Self::V3_2 => 0x2021,
            // Briarwood, function 0.
            Self::V3_3 => 0x0c50,
            // Ice Lake Xeon.
            Self::V3_4 => 0x0b00,
        }
    }

    /// What the CBVER register of that device reads.
    ///
    /// Skylake says 3.3 and is 3.2 in all that it does: Linux drives it as 3.2 whatever it says.
    #[must_use]
    pub const fn cbver(self) -> u8 {
        match self {
            Self::V1_2 => 0x12,
            Self::V2_0 => 0x20,
            Self::V3_0 => 0x30,
            Self::V3_2 | Self::V3_3 => 0x33,
            Self::V3_4 => 0x34,
        }
    }

    /// What the DMACAPABILITY register of that device reads.
    ///
    /// Versions 1.2 and 2.0 do not have the register. Xeons of version 3.2 claim exclusive or and P+Q, and Linux does not believe them. Version 3.3
    /// claims P+Q only: Linux masks its XOR error, and its own self test would fail if it then used
    /// `XOR_VAL`, which reports by halting.
    #[must_use]
    pub const fn capability(self) -> DmaCapability {
        let all = DmaCapability::PAGE_BREAK.union(DmaCapability::BLOCK_FILL);
        match self {
            Self::V1_2 | Self::V2_0 => DmaCapability::empty(),
            Self::V3_0 => all,
            Self::V3_2 => all.union(DmaCapability::XOR).union(DmaCapability::PQ),
            Self::V3_3 => all
                .union(DmaCapability::PQ)
                .union(DmaCapability::DWBES)
                .union(DmaCapability::RAID16SS),
            Self::V3_4 => all.union(DmaCapability::DPS),
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V1_2 => "1.2",
            Self::V2_0 => "2.0",
            Self::V3_0 => "3.0",
            Self::V3_2 => "3.2",
            Self::V3_3 => "3.3",
            Self::V3_4 => "3.4",
        })
    }
}

/// A text that names no version of the model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the device model has no version `{0}`: use 1.2, 2.0, 3.0, 3.2, 3.3 or 3.4")]
pub struct ParseVersionError(String);

impl FromStr for Version {
    type Err = ParseVersionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let named = Self::ALL.into_iter().find(|version| version.to_string() == text);
        named.ok_or_else(|| ParseVersionError(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_read_as_it_is_printed() {
        for version in Version::ALL {
            assert_eq!(version.to_string().parse(), Ok(version));
        }
        for text in ["", "3", "3.1", "3.20", " 3.2", "v3.2"] {
            let error = text.parse::<Version>().expect_err(text);
            assert!(error.to_string().contains(&format!("`{text}`")), "{error}");
            for version in Version::ALL {
                assert!(error.to_string().contains(&version.to_string()), "{error}");
            }
        }
    }

    #[test]
    fn each_has_a_device_of_its_own() {
        for (index, version) in Version::ALL.iter().enumerate() {
            assert!(Version::ALL[..index].iter().all(|v| v.device_id() != version.device_id()));
        }
    }
}
