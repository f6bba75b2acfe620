//! What a device is: its PCI id and its registers, read once and not trusted.

use std::num::NonZeroUsize;

use crate::{
    Bar, Version,
    error::ProbeError,
    pci::{Family, Id},
    quirks::Quirks,
    registers::{CBVER, CHANCNT, CHANNEL_BLOCK, COUNT_MASK, DMACAPABILITY, DmaCapability, XFERCAP},
};

/// The most channels that are used of a device (Linux: the same).
const MAX_CHANNELS: usize = 4;
/// The values of XFERCAP that make sense: the specification's minimum, and what fits a descriptor's
/// size.
const XFERCAPS: std::ops::RangeInclusive<u8> = 12..=31;

/// A device that can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hardware {
    pub(crate) family: Family,
    pub(crate) version: Version,
    pub(crate) quirks: Quirks,
    /// What may be used.
    pub(crate) capability: DmaCapability,
    pub(crate) channels: usize,
    /// The most bytes per descriptor, a multiple of 4096 and at most 2^31.
    pub(crate) xfercap: NonZeroUsize,
}

impl Hardware {
    /// Reads what the device says.
    pub(crate) fn read(bar: &dyn Bar, id: Id, dca_enabled: bool) -> Result<Self, ProbeError> {
        let family = id.family().ok_or(ProbeError::UnknownDevice { id })?;
        // Of one channel, before anything is read.
        fits(bar, 1)?;
        let cbver = bar.read8(CBVER);
        if cbver == u8::MAX {
            return Err(ProbeError::Gone);
        }
        let quirks = Quirks::of(id, family, dca_enabled);
        let version = version(family, cbver, quirks)?;
        let count = bar.read8(CHANCNT);
        let channels = match usize::from(count) {
            0 => return Err(ProbeError::NoChannels),
            // Reserved bits are set.
            _ if count & !COUNT_MASK != 0 => return Err(ProbeError::ChannelCount { count }),
            channels => channels.min(MAX_CHANNELS),
        };
        fits(bar, channels)?;
        Ok(Self {
            family,
            version,
            quirks,
            capability: quirks.usable(capability(bar, version)),
            channels,
            xfercap: xfercap(bar, version)?,
        })
    }
}

impl Hardware {
    /// Whether P and Q may have more sources than a descriptor and its extension hold.
    pub(crate) const fn has_super_extended(&self) -> bool {
        self.capability.contains(DmaCapability::PQ.union(DmaCapability::RAID16SS))
    }

    /// Whether the result of a check of P and Q is written to its descriptor, and does not halt the
    /// channel.
    pub(crate) const fn writes_results(&self) -> bool {
        self.capability.contains(DmaCapability::PQ.union(DmaCapability::DWBES))
            && self.quirks.contains(Quirks::MISMATCH_HALTS)
    }
}

/// Whether the registers of so many channels are in the BAR.
fn fits(bar: &dyn Bar, channels: usize) -> Result<(), ProbeError> {
    let (size, needed) = (bar.size(), CHANNEL_BLOCK * (channels as u64 + 1));
    if size < needed { Err(ProbeError::BarTooSmall { size, needed }) } else { Ok(()) }
}

fn version(family: Family, cbver: u8, quirks: Quirks) -> Result<Version, ProbeError> {
    let expected = family.version();
    if quirks.contains(Quirks::VERSION_OVERRIDE) {
        return Ok(expected);
    }
    let found = Version::from_cbver(cbver).ok_or(ProbeError::UnknownVersion { cbver })?;
    if found == expected {
        return Ok(found);
    }
    Err(ProbeError::OtherVersion { family, expected, found })
}

fn capability(bar: &dyn Bar, version: Version) -> DmaCapability {
    // Before version 3.0 there is no such register.
    let bits = if version < Version::V3_0 { 0 } else { bar.read32(DMACAPABILITY) };
    DmaCapability::from_bits_retain(bits)
}

fn xfercap(bar: &dyn Bar, version: Version) -> Result<NonZeroUsize, ProbeError> {
    let value = bar.read8(XFERCAP);
    let log2 = match value {
        // Without a limit: what fits a descriptor's size.
        0 if version == Version::V1_2 => *XFERCAPS.end(),
        log2 if XFERCAPS.contains(&log2) => log2,
        _ => return Err(ProbeError::TransferCapacity { value }),
    };
    NonZeroUsize::new(1 << log2).ok_or(ProbeError::TransferCapacity { value })
}
