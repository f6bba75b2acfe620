//! The register map of BAR 0 as this driver uses it.
//!
//! Sources: the datasheets' chapters on `QuickData`; Linux's `drivers/dma/ioat/registers.h` for names.

use bitflags::bitflags;

/// Number of channels, bits 4:0. 8 bits.
pub(crate) const CHANCNT: u64 = 0x00;
/// log2 of the most bytes per descriptor, bits 4:0. 8 bits.
pub(crate) const XFERCAP: u64 = 0x01;
/// Interrupt control. 8 bits.
pub(crate) const INTRCTRL: u64 = 0x03;
/// Interrupts of channels since it was last read, a bit each. 32 bits.
pub(crate) const ATTNSTATUS: u64 = 0x04;
/// Version: major in bits 7:4, minor in bits 3:0. 8 bits.
pub(crate) const CBVER: u64 = 0x08;
/// How long interrupts are held back to be one. 16 bits.
pub(crate) const INTRDELAY: u64 = 0x0c;
/// Capabilities, from version 3.0 on. 32 bits.
pub(crate) const DMACAPABILITY: u64 = 0x10;
/// Descriptors that are fetched ahead (`CHWPREFLMT`), from version 3.4 on. 8 bits.
pub(crate) const PREFETCH_LIMIT: u64 = 0x4c;

/// The counts in [`CHANCNT`] and [`XFERCAP`].
pub(crate) const COUNT_MASK: u8 = 0x1f;
/// [`INTRCTRL`]: interrupts leave the device.
pub(crate) const INTRCTRL_MASTER_INT_EN: u8 = 0x01;
/// [`INTRCTRL`]: a channel, or the device, asks for an interrupt.
pub(crate) const INTRCTRL_INT_STATUS: u8 = 0x02;
/// [`INTRCTRL`]: one MSI-X vector per channel.
pub(crate) const INTRCTRL_MSIX_VECTOR_CONTROL: u8 = 0x08;
/// [`INTRDELAY`]: the delay in microseconds.
pub(crate) const INTRDELAY_MASK: u16 = 0x3fff;
/// [`INTRDELAY`]: the device can delay interrupts.
pub(crate) const INTRDELAY_SUPPORTED: u16 = 0x8000;

/// Channel `i`'s registers begin at `CHANNEL_BLOCK * (i + 1)`.
pub(crate) const CHANNEL_BLOCK: u64 = 0x80;

/// Channel control. 16 bits. Reading it takes the channel if it is free.
pub(crate) const CHANCTRL: u64 = 0x00;
/// The doorbell: running count of descriptors, modulo 2^16. 16 bits. Not in version 1.
pub(crate) const DMACOUNT: u64 = 0x06;
/// Where the completion word goes. Written as CHAINADDR is.
pub(crate) const CHANCMP: u64 = 0x18;
/// Errors. 32 bits, write 1 to clear.
pub(crate) const CHANERR: u64 = 0x28;
/// Errors that do not halt the channel. 32 bits.
pub(crate) const CHANERRMASK: u64 = 0x2c;

/// The registers of a channel that are elsewhere in version 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    /// CHANCMD, commands. 8 bits.
    pub(crate) command: u64,
    /// CHANSTS, state and last completed descriptor. 64 bits.
    pub(crate) status: u64,
    /// CHAINADDR, the first descriptor. 64 bits, written in two halves, low first (a 64-bit write is
    /// not reliable on older parts).
    pub(crate) chain_address: u64,
}

impl Layout {
    /// From version 2.0 on.
    pub(crate) const RING: Self = Self { command: 0x04, status: 0x08, chain_address: 0x10 };
    /// Version 1.
    pub(crate) const CHAIN: Self = Self { command: 0x14, status: 0x04, chain_address: 0x0c };
}

/// PCI configuration: what version 1 does on the bus. 32 bits.
pub(crate) const PCI_DMACTRL: u16 = 0x48;
/// [`PCI_DMACTRL`]: it may read and write memory.
pub(crate) const PCI_DMACTRL_DMA_EN: u32 = 0x1;
/// [`PCI_DMACTRL`]: it interrupts by MSI.
pub(crate) const PCI_DMACTRL_MSI_EN: u32 = 0x2;
/// PCI configuration: uncorrectable errors of the device (`DMAUNCERRSTS`). 32 bits, write 1 to clear.
pub(crate) const PCI_DMAUNCERRSTS: u16 = 0x148;
/// [`PCI_DMAUNCERRSTS`]: a parity error of configuration space.
pub(crate) const PCI_DMAUNCERRSTS_PARITY: u32 = 0x10;
/// PCI configuration: the error bits once more, on versions before 3.3. 32 bits, write 1 to clear.
pub(crate) const PCI_CHANERR_INT: u16 = 0x180;

bitflags! {
    /// Bits of [`DMACAPABILITY`].
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct DmaCapability: u32 {
        /// Fill descriptors.
        const BLOCK_FILL = 0x40;
        /// Exclusive ors.
        const XOR = 0x100;
        /// P and Q.
        const PQ = 0x200;
        /// The result of a check of P and Q is written to its descriptor.
        const DWBES = 0x2000;
        /// P and Q of up to 16 sources.
        const RAID16SS = 0x2_0000;
        const _ = !0;
    }

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

    /// Commands.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct ChanCmd: u8 {
        /// Version 1: begin at CHAINADDR.
        const START = 0x01;
        /// Version 1: look again at the address of the next descriptor in the last one.
        const APPEND = 0x02;
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

    /// What tells nothing: not where the channel stands, nor that it has halted.
    pub(crate) const NOTHING: Self = Self(0);

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
