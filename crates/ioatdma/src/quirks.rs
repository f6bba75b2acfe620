//! What single devices and versions need beyond the common way.

use bitflags::bitflags;

/// CBVER's two halves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version {
    pub(crate) major: u8,
    pub(crate) minor: u8,
}

impl Version {
    pub(crate) const V3_2: Self = Self { major: 3, minor: 2 };
    pub(crate) const V3_3: Self = Self { major: 3, minor: 3 };

    /// Reads CBVER, but for [`Quirks::VERSION_3_2`].
    pub(crate) const fn new(cbver: u8, quirks: Quirks) -> Self {
        if quirks.contains(Quirks::VERSION_3_2) {
            return Self::V3_2;
        }
        Self { major: cbver >> 4, minor: cbver & 0xf }
    }
}

bitflags! {
    /// Deviations, each with the devices that have it.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub(crate) struct Quirks: u8 {
        /// The device is to be driven as 3.2 whatever CBVER says: Skylake Xeon, as Linux does.
        const VERSION_3_2 = 1 << 0;
        /// Errors are latched in PCI configuration space too, and must be cleared there before a
        /// reset: versions before 3.3.
        const CHANERR_INT = 1 << 1;
    }
}

/// Skylake Xeon.
const SKYLAKE_XEON: u16 = 0x2021;

impl Quirks {
    /// Those that the PCI device id tells.
    pub(crate) const fn of_device(device_id: u16) -> Self {
        match device_id {
            SKYLAKE_XEON => Self::VERSION_3_2,
            _ => Self::empty(),
        }
    }

    /// With those that the version tells.
    pub(crate) fn with_version(self, version: Version) -> Self {
        let early = version < Version::V3_3;
        if early { self | Self::CHANERR_INT } else { self }
    }
}
