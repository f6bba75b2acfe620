//! Which register is meant by an offset and a width.

use crate::{
    registers::{
        CHANNEL_BLOCK, MSIX_PBA, MSIX_TABLE, Width,
        channel::{
            CDAR, CHAINADDR, CHANCMD, CHANCMP, CHANCTRL, CHANERR, CHANERRMASK, CHANSTS, DCACTRL,
            DMA_COMP, DMACOUNT, DRSCTL, LTR_ACTIVE, LTR_IDLE, LTR_SWSEL,
        },
        channel_v1,
    },
    version::Version,
};

/// A register offset, taken apart.
pub(crate) enum Place {
    Device(u64),
    /// Which channel, and the offset in its block.
    Channel(usize, u64),
    /// Counted from the start of the MSI-X table.
    Msix(u64),
}

impl Place {
    pub(crate) fn of(offset: u64) -> Self {
        if (MSIX_TABLE..MSIX_PBA).contains(&offset) {
            return Self::Msix(offset - MSIX_TABLE);
        }
        match (offset / CHANNEL_BLOCK).checked_sub(1).map(usize::try_from) {
            None => Self::Device(offset),
            Some(index) => Self::Channel(index.unwrap_or(usize::MAX), offset % CHANNEL_BLOCK),
        }
    }
}

/// Which part of a 64-bit register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Whole,
    Low,
    High,
}

impl Part {
    /// The part of `value`.
    pub(crate) const fn get(self, value: u64) -> u64 {
        match self {
            Self::Whole => value,
            Self::Low => value & 0xffff_ffff,
            Self::High => value >> 32,
        }
    }

    /// `old` with this part replaced.
    pub(crate) const fn set(self, old: u64, value: u64) -> u64 {
        match self {
            Self::Whole => value,
            Self::Low => old & !0xffff_ffff | value & 0xffff_ffff,
            Self::High => old & 0xffff_ffff | value << 32,
        }
    }

    /// Whether a write of this part makes a register take effect.
    pub(crate) const fn has_high(self) -> bool {
        !matches!(self, Self::Low)
    }
}

/// A register of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChannelRegister {
    Control,
    Compatibility,
    Command,
    Count,
    Status(Part),
    Chain(Part),
    Completion(Part),
    Current(Part),
    Errors,
    ErrorMask,
    DcaControl,
    /// A register of version 3.4 that is only kept, by index.
    Kept(usize),
}

impl ChannelRegister {
    /// How many registers [`Kept`](Self::Kept) has.
    pub(crate) const KEPT: usize = 4;

    /// The register that an access of `width` at `offset` means; `None`: there is none, or not of
    /// that width.
    pub(crate) fn at(version: Version, offset: u64, width: Width) -> Option<Self> {
        let long = |register| match width {
            Width::W64 if offset == register => Some(Part::Whole),
            Width::W32 if offset == register => Some(Part::Low),
            Width::W32 if offset == register + 4 => Some(Part::High),
            _ => None,
        };
        let (status, chain, command) = match version {
            Version::V1_2 => (channel_v1::CHANSTS, channel_v1::CHAINADDR, channel_v1::CHANCMD),
            _ => (CHANSTS, CHAINADDR, CHANCMD),
        };
        if let Some(part) = long(status) {
            return Some(Self::Status(part));
        }
        if let Some(part) = long(chain) {
            return Some(Self::Chain(part));
        }
        if let Some(part) = long(CHANCMP) {
            return Some(Self::Completion(part));
        }
        if let Some(part) = long(CDAR) {
            return Some(Self::Current(part));
        }
        Some(match (offset, width) {
            (CHANCTRL, Width::W16) => Self::Control,
            (DMA_COMP, Width::W16) => Self::Compatibility,
            (DMACOUNT, Width::W16) if version != Version::V1_2 => Self::Count,
            (offset, Width::W8) if offset == command => Self::Command,
            (CHANERR, Width::W32) => Self::Errors,
            (CHANERRMASK, Width::W32) => Self::ErrorMask,
            (DCACTRL, Width::W32) => Self::DcaControl,
            (DRSCTL, Width::W16) if version == Version::V3_4 => Self::Kept(0),
            (LTR_SWSEL, Width::W32) if version == Version::V3_4 => Self::Kept(1),
            (LTR_ACTIVE, Width::W32) if version == Version::V3_4 => Self::Kept(2),
            (LTR_IDLE, Width::W32) if version == Version::V3_4 => Self::Kept(3),
            _ => return None,
        })
    }
}
