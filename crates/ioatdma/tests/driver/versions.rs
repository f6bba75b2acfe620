//! The devices that are driven: every version, and those of its capabilities that make a difference.

use ioat_model::{Config, Version, registers::DmaCapability};

/// A device's name, for messages, and what it is.
pub(crate) type Case = (&'static str, Config);

/// Each version as it comes, and versions with capabilities that some devices of theirs have.
pub(crate) fn all() -> Vec<Case> {
    let of = |version, capability| Config { version, capability, ..Config::default() };
    let raid = DmaCapability::XOR | DmaCapability::PQ;
    vec![
        ("1.2", of(Version::V1_2, None)),
        ("2.0", of(Version::V2_0, None)),
        ("3.0", of(Version::V3_0, None)),
        ("3.0 with XOR", of(Version::V3_0, Some(DmaCapability::XOR | DmaCapability::BLOCK_FILL))),
        ("3.0 with XOR and PQ", of(Version::V3_0, Some(raid))),
        ("3.2", of(Version::V3_2, None)),
        ("3.3", of(Version::V3_3, None)),
        ("3.3 without results", of(Version::V3_3, Some(raid | DmaCapability::RAID16SS))),
        ("3.3 with XOR", of(Version::V3_3, Some(raid | DmaCapability::DWBES))),
        ("3.4", of(Version::V3_4, None)),
        ("3.4 with all", of(Version::V3_4, Some(DmaCapability::all() - DmaCapability::DWBES))),
    ]
}
