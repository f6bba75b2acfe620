//! The register map of BAR 0.
//!
//! Offsets below [`CHANNEL_BLOCK`] belong to the device. Channel `i` has the block of
//! [`CHANNEL_BLOCK`] bytes at `CHANNEL_BLOCK * (i + 1)`; the offsets in [`channel`] count from its
//! start, and so do those in [`channel_v1`], which version 1.2 has instead. Names are those of
//! Intel's datasheets, as Linux spells them.

use bitflags::bitflags;

/// Size of BAR 0 in bytes.
pub const BAR_SIZE: u64 = 0x4000;
/// Size of a channel's register block in bytes.
pub const CHANNEL_BLOCK: u64 = 0x80;
/// The most channels that the model has (Linux drivers use at most 4).
pub const MAX_CHANNELS: u8 = 4;

/// Channel count, bits 4:0. 8 bits, read only.
pub const CHANCNT: u64 = 0x00;
/// log2 of the most bytes per descriptor, bits 4:0. 8 bits, read only.
pub const XFERCAP: u64 = 0x01;
/// General control: bit 0 enables debugging. Kept, without effect. 8 bits.
pub const GENCTRL: u64 = 0x02;
/// Interrupt control, see [`IntrCtrl`]. 8 bits. A read clears `MASTER_INT_EN`.
pub const INTRCTRL: u64 = 0x03;
/// One bit per channel that has raised an interrupt. 32 bits, read only, cleared by reading.
pub const ATTNSTATUS: u64 = 0x04;
/// Version, major in bits 7:4 and minor in bits 3:0. 8 bits, read only.
pub const CBVER: u64 = 0x08;
/// How long interrupts wait, in microseconds, bits 13:0; so that one serves several descriptors.
/// 16 bits. [`INTRDELAY_COALESCING`] is read only.
pub const INTRDELAY: u64 = 0x0c;
/// [`INTRDELAY`]: it has an effect.
pub const INTRDELAY_COALESCING: u16 = 1 << 15;
/// [`INTRDELAY`]: the time.
pub const INTRDELAY_MASK: u16 = 0x3fff;
/// Device status (`DEVICE_STATUS` in Linux): nothing is degraded, ever. 16 bits, read only.
pub const CS_STATUS: u64 = 0x0e;
/// What the device can do, see [`DmaCapability`]. 32 bits, read only.
pub const DMACAPABILITY: u64 = 0x10;
/// Where the registers of direct cache access are: nowhere. 16 bits, read only.
pub const DCAOFFSET: u64 = 0x14;
/// How many descriptors version 3.4 prefetches (CHWPREFLMT). Kept, without effect. 8 bits.
pub const PREFETCH_LIMIT: u64 = 0x4c;
/// The MSI-X table: 16 bytes a channel. 32 bits each, or 64.
pub const MSIX_TABLE: u64 = 0x1000;
/// MSI-X pending bits: none, ever. 64 bits, read only.
pub const MSIX_PBA: u64 = 0x1800;

bitflags! {
    /// Bits of [`INTRCTRL`].
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct IntrCtrl: u8 {
        /// Interrupts leave the device. Writable, cleared by reading.
        const MASTER_INT_EN = 1 << 0;
        /// Some bit of [`ATTNSTATUS`] is set. Read only.
        const INT_STATUS = 1 << 1;
        /// `INT_STATUS` and `MASTER_INT_EN`. Read only.
        const INT = 1 << 2;
        /// One MSI-X vector per channel. Writable.
        const MSIX_VECTOR_CONTROL = 1 << 3;
    }

    /// Bits of [`DMACAPABILITY`].
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct DmaCapability: u32 {
        /// Copies and fills that go on in another page.
        const PAGE_BREAK = 1 << 0;
        /// Fill descriptors.
        const BLOCK_FILL = 1 << 6;
        /// Exclusive or, and its check.
        const XOR = 1 << 8;
        /// P+Q, their check, and their update.
        const PQ = 1 << 9;
        /// The result of a P+Q check is written back into its descriptor.
        const DWBES = 1 << 13;
        /// P+Q with 9 to 16 sources, in super extended descriptors.
        const RAID16SS = 1 << 17;
        /// Descriptors are prefetched.
        const DPS = 1 << 23;
    }
}

/// Offsets inside a channel's block, for version 2 and later.
pub mod channel {
    /// Control, see [`ChanCtrl`](super::ChanCtrl). 16 bits. A read returns the present value and
    /// then sets `CHANNEL_IN_USE`: test and set in one access.
    pub const CHANCTRL: u64 = 0x00;
    /// Which older programming models the channel has. 16 bits, read only.
    pub const DMA_COMP: u64 = 0x02;
    /// Commands, see [`ChanCmd`](super::ChanCmd). 8 bits.
    pub const CHANCMD: u64 = 0x04;
    /// Running count, modulo 2^16, of descriptors that may be processed: the doorbell. 16 bits.
    pub const DMACOUNT: u64 = 0x06;
    /// Address of the last completed descriptor in bits 63:6, state in bits 2:0, and
    /// [`CHANSTS_SOFT_ERROR`](super::CHANSTS_SOFT_ERROR) and its like. 64 bits or two halves, read
    /// only. Reading the low half latches the high one, which is therefore to be read second.
    pub const CHANSTS: u64 = 0x08;
    /// Address of the first descriptor. 64 bits (to be written as such from version 3.0 on) or two
    /// halves; a write takes effect with its high half.
    pub const CHAINADDR: u64 = 0x10;
    /// Where the completion word goes. 64 bits (to be written as such from version 3.0 on) or two
    /// halves.
    pub const CHANCMP: u64 = 0x18;
    /// Address of the descriptor that is, or was last, worked on. 64 bits or two halves, read only.
    pub const CDAR: u64 = 0x20;
    /// Errors, see [`ChanErr`](super::ChanErr). 32 bits, write 1 to clear.
    pub const CHANERR: u64 = 0x28;
    /// Errors that do not halt the channel. 32 bits.
    pub const CHANERRMASK: u64 = 0x2c;
    /// Direct cache access: kept, without effect. 32 bits.
    pub const DCACTRL: u64 = 0x30;
    /// Version 3.4: size of the descriptor ring, for prefetch. Kept, without effect. 16 bits.
    ///
    /// It is at 0xb6 from the start of BAR 0 for channel 0. Linux adds that to the channel's block and
    /// so writes the register of the next channel; of the last channel's it writes none.
    pub const DRSCTL: u64 = 0x36;
    /// Version 3.4: latency tolerance, which of the two applies. Kept, without effect. 32 bits. Linux
    /// misses it, and the following two, by a block, as it does [`DRSCTL`].
    pub const LTR_SWSEL: u64 = 0x3c;
    /// Version 3.4: latency tolerance while active. Kept, without effect. 32 bits.
    pub const LTR_ACTIVE: u64 = 0x40;
    /// Version 3.4: latency tolerance while idle. Kept, without effect. 32 bits.
    pub const LTR_IDLE: u64 = 0x44;
}

/// Offsets inside a channel's block that differ in version 1.2. It has no DMACOUNT: chains end with
/// a next address of 0, and APPEND makes the channel look at it again.
pub mod channel_v1 {
    /// As [`channel::CHANSTS`](super::channel::CHANSTS).
    pub const CHANSTS: u64 = 0x04;
    /// Address of the first descriptor. START takes it.
    pub const CHAINADDR: u64 = 0x0c;
    /// As [`channel::CHANCMD`](super::channel::CHANCMD).
    pub const CHANCMD: u64 = 0x14;
}

/// [`channel::DMA_COMP`]: the version 1 programming model.
pub const DMA_COMP_V1: u16 = 1 << 0;
/// [`channel::DMA_COMP`]: the version 2 programming model.
pub const DMA_COMP_V2: u16 = 1 << 1;

/// [`channel::CHANSTS`]: CHANERR has [`ChanErr::SOFT`].
pub const CHANSTS_SOFT_ERROR: u64 = 1 << 4;
/// [`channel::CHANSTS`]: CHANERR has [`ChanErr::UNAFFILIATED`].
pub const CHANSTS_UNAFFILIATED_ERROR: u64 = 1 << 3;

bitflags! {
    /// Bits of [`channel::CHANCTRL`].
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct ChanCtrl: u16 {
        /// Write 1: the channel may raise one interrupt. Reads as 1 once it has (older name:
        /// `INT_DISABLE`).
        const INT_REARM = 1 << 0;
        /// A halt writes the completion word.
        const ERR_COMPLETION_EN = 1 << 2;
        /// Any error aborts. Kept, without effect: every unmasked error halts this model.
        const ANY_ERR_ABORT_EN = 1 << 3;
        /// A halt raises an interrupt.
        const ERR_INT_EN = 1 << 4;
        /// Descriptor reads are snooped. Kept, without effect.
        const DESC_ADDR_SNOOP = 1 << 5;
        /// The channel has an owner. Set by reading, released by writing 0.
        const CHANNEL_IN_USE = 1 << 8;
        /// Completion writes carry a DCA tag. Kept, without effect.
        const COMPL_DCA_EN = 1 << 9;
        /// Priority. Kept, without effect.
        const PRIORITY = 0xf000;
    }

    /// Bits of [`channel::CHANCMD`]; one at a time.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct ChanCmd: u8 {
        /// Version 1: begin at CHAINADDR.
        const START = 1 << 0;
        /// Version 1: the chain has grown.
        const APPEND = 1 << 1;
        /// Stop after the current descriptor, keep the place.
        const SUSPEND = 1 << 2;
        /// Stop after the current descriptor, halt.
        const ABORT = 1 << 3;
        /// Go on after a suspend.
        const RESUME = 1 << 4;
        /// Back to the initial state. Reads as 1 until nothing of the old work moves any more.
        const RESET = 1 << 5;
    }

    /// Bits of [`channel::CHANERR`] and [`channel::CHANERRMASK`].
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct ChanErr: u32 {
        /// The source address is illegal.
        const SOURCE_ADDRESS = 1 << 0;
        /// The destination address is illegal.
        const DESTINATION_ADDRESS = 1 << 1;
        /// The next-descriptor address is illegal.
        const NEXT_ADDRESS = 1 << 2;
        /// The next-descriptor address is no multiple of 64, or reading a descriptor failed.
        const DESCRIPTOR = 1 << 3;
        /// CHAINADDR is illegal or not a multiple of 64.
        const CHAIN_ADDRESS = 1 << 4;
        /// CHANCMD was given a command that does not exist, or two at once.
        const CHANCMD = 1 << 5;
        /// The chipset reported an uncorrectable data error.
        const CHIPSET_UNCORRECTABLE = 1 << 6;
        /// The engine found an uncorrectable data error.
        const DMA_UNCORRECTABLE = 1 << 7;
        /// Reading the source failed.
        const READ_DATA = 1 << 8;
        /// Writing the destination failed.
        const WRITE_DATA = 1 << 9;
        /// The descriptor's control word is illegal.
        const DESCRIPTOR_CONTROL = 1 << 10;
        /// The length is zero or beyond XFERCAP.
        const LENGTH = 1 << 11;
        /// CHANCMP is illegal or not a multiple of 8.
        const COMPLETION_ADDRESS = 1 << 12;
        /// The interrupt configuration is illegal.
        const INTERRUPT_CONFIGURATION = 1 << 13;
        /// A super extended descriptor address is illegal.
        const SOFT = 1 << 14;
        /// An error that belongs to no descriptor.
        const UNAFFILIATED = 1 << 15;
        /// Wrong XOR or P result, or CRC.
        const XOR_P_OR_CRC = 1 << 16;
        /// Wrong Q result.
        const XOR_Q = 1 << 17;
        /// An extended descriptor lies beyond DMACOUNT.
        const DESCRIPTOR_COUNT = 1 << 18;
        /// DIF: all ones.
        const DIF_ALL_F = 1 << 19;
        /// DIF: wrong guard tag.
        const DIF_GUARD = 1 << 20;
        /// DIF: wrong application tag.
        const DIF_APPLICATION = 1 << 21;
        /// DIF: wrong reference tag.
        const DIF_REFERENCE = 1 << 22;
        /// A bundle of descriptors is illegal.
        const BUNDLE = 1 << 23;
        /// DIF result: all ones.
        const RESULT_DIF_ALL_F = 1 << 24;
        /// DIF result: wrong guard tag.
        const RESULT_DIF_GUARD = 1 << 25;
        /// DIF result: wrong application tag.
        const RESULT_DIF_APPLICATION = 1 << 26;
        /// DIF result: wrong reference tag.
        const RESULT_DIF_REFERENCE = 1 << 27;
    }
}

/// Width of a register access. From the number of its bytes: [`TryFrom`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Width {
    /// One byte.
    W8,
    /// Two bytes.
    W16,
    /// Four bytes.
    W32,
    /// Eight bytes.
    W64,
}

impl TryFrom<usize> for Width {
    /// The number of bytes that no register has.
    type Error = usize;

    fn try_from(bytes: usize) -> Result<Self, usize> {
        match bytes {
            1 => Ok(Self::W8),
            2 => Ok(Self::W16),
            4 => Ok(Self::W32),
            8 => Ok(Self::W64),
            _ => Err(bytes),
        }
    }
}
