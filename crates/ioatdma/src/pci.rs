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

    /// Every id by itself, so that a range of the table that is wrong shows. With Linux's names of them
    /// (`PCI_DEVICE_ID_INTEL_IOAT_...`).
    const IDS: [(&str, Family, &[u16]); 15] = [
        ("(none)", Family::Bensley, &[0x1a38]),
        ("CNB", Family::Cnb, &[0x360b]),
        ("SCNB", Family::Scnb, &[0x65ff]),
        ("DMA_DIRECTOR (Unisys)", Family::DmaDirector, &[0x001c]),
        ("SNB", Family::Series5400, &[0x402f]),
        (
            "TBG0 to TBG7",
            Family::Tylersburg,
            &[0x3430, 0x3431, 0x3432, 0x3433, 0x3429, 0x342a, 0x342b, 0x342c],
        ),
        (
            "JSF0 to JSF9",
            Family::JasperForest,
            &[0x3710, 0x3711, 0x3712, 0x3713, 0x3714, 0x3715, 0x3716, 0x3717, 0x3718, 0x3719],
        ),
        (
            "SNB0 to SNB9",
            Family::SandyBridge,
            &[0x3c20, 0x3c21, 0x3c22, 0x3c23, 0x3c24, 0x3c25, 0x3c26, 0x3c27, 0x3c2e, 0x3c2f],
        ),
        (
            "IVB0 to IVB9",
            Family::IvyBridge,
            &[0x0e20, 0x0e21, 0x0e22, 0x0e23, 0x0e24, 0x0e25, 0x0e26, 0x0e27, 0x0e2e, 0x0e2f],
        ),
        (
            "HSW0 to HSW9",
            Family::Haswell,
            &[0x2f20, 0x2f21, 0x2f22, 0x2f23, 0x2f24, 0x2f25, 0x2f26, 0x2f27, 0x2f2e, 0x2f2f],
        ),
        (
            "BDX0 to BDX9",
            Family::Broadwell,
            &[0x6f20, 0x6f21, 0x6f22, 0x6f23, 0x6f24, 0x6f25, 0x6f26, 0x6f27, 0x6f2e, 0x6f2f],
        ),
        ("SKX", Family::Skylake, &[0x2021]),
        ("BWD0 to BWD3", Family::Briarwood, &[0x0c50, 0x0c51, 0x0c52, 0x0c53]),
        ("BDXDE0 to BDXDE3", Family::BroadwellDe, &[0x6f50, 0x6f51, 0x6f52, 0x6f53]),
        ("ICX", Family::IceLake, &[0x0b00]),
    ];

    #[test]
    fn these_ids_are_known_and_no_others() {
        let vendor_of = |family| if family == Family::DmaDirector { UNISYS } else { INTEL };
        let mut expected: Vec<_> = IDS
            .iter()
            .flat_map(|(_, family, devices)| {
                let vendor = vendor_of(*family);
                devices.iter().map(move |device| (Id { vendor, device: *device }, *family))
            })
            .collect();
        expected.sort_unstable_by_key(|(id, _)| *id);
        assert_eq!(expected.len(), 73);
        // What is asked for each, among all that there can be.
        let ids = [UNISYS, INTEL]
            .into_iter()
            .flat_map(|vendor| (0..=u16::MAX).map(move |device| Id { vendor, device }));
        let known: Vec<_> = ids.filter_map(|id| Some((id, id.family()?))).collect();
        assert_eq!(known, expected);
        // What is listed, each once.
        let mut all: Vec<_> = Id::all().collect();
        all.sort_unstable();
        assert!(all.into_iter().eq(expected.iter().map(|(id, _)| *id)));
        assert_eq!(Id { vendor: UNISYS + 1, device: 0x2021 }.family(), None);
    }

    #[test]
    fn families_have_the_version_of_the_reference() {
        for (version, families) in [
            (Version::V1_2, &[Family::Bensley, Family::Cnb, Family::Scnb, Family::DmaDirector][..]),
            (Version::V2_0, &[Family::Series5400]),
            (Version::V3_0, &[Family::Tylersburg]),
            (
                Version::V3_2,
                &[
                    Family::JasperForest,
                    Family::SandyBridge,
                    Family::IvyBridge,
                    Family::Haswell,
                    Family::Broadwell,
                    Family::Skylake,
                ],
            ),
            (Version::V3_3, &[Family::Briarwood, Family::BroadwellDe]),
            (Version::V3_4, &[Family::IceLake]),
        ] {
            families.iter().for_each(|family| assert_eq!(family.version(), version, "{family}"));
        }
    }
}
