//! The register map of BAR 0 as this driver uses it, for version 3.x.
//!
//! Sources: the datasheets' chapters on `QuickData`; Linux's `drivers/dma/ioat/registers.h` for names.

use bitflags::bitflags;

/// Number of channels, bits 4:0. 8 bits.
pub(crate) const CHANCNT: u64 = 0x00;
/// log2 of the most bytes per descriptor, bits 4:0. 8 bits.
pub(crate) const XFERCAP: u64 = 0x01;
/// Interrupt control. 8 bits.
pub(crate) const INTRCTRL: u64 = 0x03;
/// Version: major in bits 7:4, minor in bits 3:0. 8 bits.
pub(crate) const CBVER: u64 = 0x08;
/// Capabilities. 32 bits.
pub(crate) const DMACAPABILITY: u64 = 0x10;

/// The counts in [`CHANCNT`] and [`XFERCAP`].
pub(crate) const COUNT_MASK: u8 = 0x1f;
/// [`INTRCTRL`]: interrupts leave the device.
pub(crate) const INTRCTRL_MASTER_INT_EN: u8 = 0x01;
/// [`INTRCTRL`]: one MSI-X vector per channel.
pub(crate) const INTRCTRL_MSIX_VECTOR_CONTROL: u8 = 0x08;
/// [`DMACAPABILITY`]: fill descriptors.
pub(crate) const DMACAPABILITY_BLOCK_FILL: u32 = 0x40;

/// Channel `i`'s registers begin at `CHANNEL_BLOCK * (i + 1)`.
pub(crate) const CHANNEL_BLOCK: u64 = 0x80;

/// Channel control. 16 bits. Reading it takes the channel if it is free.
pub(crate) const CHANCTRL: u64 = 0x00;
/// Commands. 8 bits.
pub(crate) const CHANCMD: u64 = 0x04;
/// The doorbell: running count of descriptors, modulo 2^16. 16 bits.
pub(crate) const DMACOUNT: u64 = 0x06;
/// State and last completed descriptor. 64 bits.
pub(crate) const CHANSTS: u64 = 0x08;
/// First descriptor. 64 bits, written in two halves, low first (a 64-bit write is not reliable on
/// older parts).
pub(crate) const CHAINADDR: u64 = 0x10;
/// Where the completion word goes. Written as CHAINADDR is.
pub(crate) const CHANCMP: u64 = 0x18;
/// Errors. 32 bits, write 1 to clear.
pub(crate) const CHANERR: u64 = 0x28;

/// PCI configuration: the error bits once more, on versions before 3.3. 32 bits, write 1 to clear.
pub(crate) const PCI_CHANERR_INT: u16 = 0x180;

bitflags! {
    /// Bits of [`CHANCTRL`].
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct ChanCtrl: u16 {
        /// Allow one interrupt.
        const INT_REARM = 0x0001;
        /// Write the completion word when halting.
        const ERR_COMPLETION_EN = 0x0004;
        /// Abort on any error.
        const ANY_ERR_ABORT_EN = 0x0008;
        /// Interrupt when halting.
        const ERR_INT_EN = 0x0010;
        /// The channel has an owner: set by the read that finds it 0, released by writing 0.
        const CHANNEL_IN_USE = 0x0100;
    }

    /// Bits of [`CHANCMD`].
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct ChanCmd: u8 {
        /// Stop after the descriptor in hand.
        const SUSPEND = 0x04;
        /// Stop and forget. Reads as 1 until done.
        const RESET = 0x20;
    }
}

impl ChanCtrl {
    /// What a running channel of ours has set.
    pub(crate) const RUN: Self = Self::INT_REARM
        .union(Self::ERR_COMPLETION_EN)
        .union(Self::ANY_ERR_ABORT_EN)
        .union(Self::ERR_INT_EN)
        .union(Self::CHANNEL_IN_USE);
}

/// The 64-bit value of CHANSTS and of the completion word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ChanStatus(pub(crate) u64);

/// Bits 2:0 of [`ChanStatus`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChanState {
    Active,
    Done,
    Suspended,
    Halted,
    Armed,
    /// 5 to 7: no documented meaning.
    Reserved,
}

impl ChanStatus {
    /// What a read of a device that is no longer there gives.
    pub(crate) const GONE: Self = Self(u64::MAX);

    pub(crate) const fn state(self) -> ChanState {
        match self.0 & 7 {
            0 => ChanState::Active,
            1 => ChanState::Done,
            2 => ChanState::Suspended,
            3 => ChanState::Halted,
            4 => ChanState::Armed,
            _ => ChanState::Reserved,
        }
    }

    /// The last completed descriptor; 0 if none has been since the chain began.
    pub(crate) const fn descriptor(self) -> u64 {
        self.0 & !0x3f
    }
}
