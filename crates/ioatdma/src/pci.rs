//! Which PCI functions are I/OAT devices, and what each of them is.
//!
//! The ids are those of Linux's driver over its whole life: current Linux has dropped versions before
//! 3.0. All functions of a family are driven alike; what single ones need beyond that is a
//! [quirk](crate::quirks).

use std::{fmt, ops::RangeInclusive};

use crate::Version;

/// Intel's vendor id.
pub const INTEL: u16 = 0x8086;
/// The vendor id of Unisys.
pub const UNISYS: u16 = 0x1018;

/// Vendor and device id of a PCI function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id {
    /// Who made it.
    pub vendor: u16,
    /// What it is.
    pub device: u16,
}

impl Id {
    /// A device of Intel's.
    #[must_use]
    pub const fn intel(device: u16) -> Self {
        Self { vendor: INTEL, device }
    }

    /// What this function is; `None` if it is no I/OAT device.
    #[must_use]
    pub fn family(self) -> Option<Family> {
        let row = TABLE
            .iter()
            .find(|(vendor, devices, _)| *vendor == self.vendor && devices.contains(&self.device));
        row.map(|(_, _, family)| *family)
    }

    /// All ids that the driver knows.
    pub fn all() -> impl Iterator<Item = Self> {
        let ids = |(vendor, devices, _): &(u16, RangeInclusive<u16>, Family)| {
            let vendor = *vendor;
            devices.clone().map(move |device| Self { vendor, device })
        };
        TABLE.iter().flat_map(ids)
    }
}

/// As `lspci -n` prints it.
impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{:04x}:{:04x}", self.vendor, self.device))
    }
}

/// A generation of chips with I/OAT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// The 5000 series' memory controller hub ("Bensley").
    Bensley,
    /// CNB.
    Cnb,
    /// SCNB.
    Scnb,
    /// Unisys' "DMA director".
    DmaDirector,
    /// The 5400 series' memory controller hub.
    Series5400,
    /// Tylersburg.
    Tylersburg,
    /// Jasper Forest.
    JasperForest,
    /// Xeons of Sandy Bridge.
    SandyBridge,
    /// Xeons of Ivy Bridge.
    IvyBridge,
    /// Xeons of Haswell.
    Haswell,
    /// Xeons of Broadwell.
    Broadwell,
    /// Xeons of Skylake and Cascade Lake.
    Skylake,
    /// Atoms of Briarwood (S1200).
    Briarwood,
    /// Xeon D of Broadwell: the DMA engine is that of Briarwood.
    BroadwellDe,
    /// Xeons of Ice Lake.
    IceLake,
}

impl Family {
    /// The name, for people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bensley => "5000 series (Bensley)",
            Self::Cnb => "CNB",
            Self::Scnb => "SCNB",
            Self::DmaDirector => "Unisys DMA director",
            Self::Series5400 => "5400 series",
            Self::Tylersburg => "Tylersburg",
            Self::JasperForest => "Jasper Forest",
            Self::SandyBridge => "Sandy Bridge",
            Self::IvyBridge => "Ivy Bridge",
            Self::Haswell => "Haswell",
            Self::Broadwell => "Broadwell",
            Self::Skylake => "Skylake",
            Self::Briarwood => "Briarwood",
            Self::BroadwellDe => "Broadwell-DE",
            Self::IceLake => "Ice Lake",
        }
    }

    /// The version that the family is driven as. CBVER says the same, but on Skylake
    /// ([`Quirks::VERSION_OVERRIDE`](crate::quirks::Quirks::VERSION_OVERRIDE)).
    #[must_use]
    pub const fn version(self) -> Version {
        match self {
            Self::Bensley | Self::Cnb | Self::Scnb | Self::DmaDirector => Version::V1_2,
            Self::Series5400 => Version::V2_0,
            Self::Tylersburg => Version::V3_0,
            Self::JasperForest
            | Self::SandyBridge
            | Self::IvyBridge
            | Self::Haswell
            | Self::Broadwell
            | Self::Skylake => Version::V3_2,
            Self::Briarwood | Self::BroadwellDe => Version::V3_3,
            Self::IceLake => Version::V3_4,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Vendor, device ids and what they are.
const TABLE: [(u16, RangeInclusive<u16>, Family); 20] = [
    (INTEL, 0x1a38..=0x1a38, Family::Bensley),
    (INTEL, 0x360b..=0x360b, Family::Cnb),
    (INTEL, 0x65ff..=0x65ff, Family::Scnb),
    (UNISYS, 0x001c..=0x001c, Family::DmaDirector),
    (INTEL, 0x402f..=0x402f, Family::Series5400),
    (INTEL, 0x3429..=0x342c, Family::Tylersburg),
    (INTEL, 0x3430..=0x3433, Family::Tylersburg),
    (INTEL, 0x3710..=0x3719, Family::JasperForest),
    (INTEL, 0x3c20..=0x3c27, Family::SandyBridge),
    (INTEL, 0x3c2e..=0x3c2f, Family::SandyBridge),
    (INTEL, 0x0e20..=0x0e27, Family::IvyBridge),
    (INTEL, 0x0e2e..=0x0e2f, Family::IvyBridge),
    (INTEL, 0x2f20..=0x2f27, Family::Haswell),
    (INTEL, 0x2f2e..=0x2f2f, Family::Haswell),
    (INTEL, 0x6f20..=0x6f27, Family::Broadwell),
    (INTEL, 0x6f2e..=0x6f2f, Family::Broadwell),
    (INTEL, 0x2021..=0x2021, Family::Skylake),
    (INTEL, 0x0c50..=0x0c53, Family::Briarwood),
    (INTEL, 0x6f50..=0x6f53, Family::BroadwellDe),
    (INTEL, 0x0b00..=0x0b00, Family::IceLake),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_known_once_each_and_others_are_not() {
        let mut ids: Vec<_> = Id::all().collect();
        let count = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), count, "an id stands twice");
        // 3 and Unisys; 1; 4 + 4; 10 + 4 * 10 + 1; 4 + 4; 1.
        assert_eq!(count, 4 + 1 + 8 + 51 + 8 + 1);
        for (id, family, version) in [
            (Id::intel(0x1a38), Family::Bensley, Version::V1_2),
            (Id { vendor: UNISYS, device: 0x1c }, Family::DmaDirector, Version::V1_2),
            (Id::intel(0x402f), Family::Series5400, Version::V2_0),
            (Id::intel(0x3430), Family::Tylersburg, Version::V3_0),
            (Id::intel(0x3719), Family::JasperForest, Version::V3_2),
            (Id::intel(0x2021), Family::Skylake, Version::V3_2),
            (Id::intel(0x0c53), Family::Briarwood, Version::V3_3),
            (Id::intel(0x0b00), Family::IceLake, Version::V3_4),
        ] {
            assert_eq!(id.family(), Some(family));
            assert_eq!(family.version(), version);
        }
        for id in [Id::intel(0x001c), Id { vendor: UNISYS, device: 0x2021 }, Id::intel(0x3c28)] {
            assert_eq!(id.family(), None, "{id}");
        }
    }
}
