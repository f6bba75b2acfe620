//! CHANERR, by name, and why a device or channel cannot be used.

use std::fmt;

use bitflags::bitflags;
use dmaengine::{ArenaError, ArenaFull, MapError, Status};

bitflags! {
    /// Why a channel halted: the CHANERR register.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct ChanErr: u32 {
        /// Source address.
        const SOURCE_ADDRESS = 1 << 0;
        /// Destination address.
        const DESTINATION_ADDRESS = 1 << 1;
        /// Next-descriptor address.
        const NEXT_ADDRESS = 1 << 2;
        /// Descriptor alignment, or reading it.
        const DESCRIPTOR = 1 << 3;
        /// CHAINADDR.
        const CHAIN_ADDRESS = 1 << 4;
        /// CHANCMD.
        const CHANCMD = 1 << 5;
        /// Chipset uncorrectable data.
        const CHIPSET_UNCORRECTABLE = 1 << 6;
        /// DMA uncorrectable data.
        const DMA_UNCORRECTABLE = 1 << 7;
        /// Reading data.
        const READ_DATA = 1 << 8;
        /// Writing data.
        const WRITE_DATA = 1 << 9;
        /// Descriptor control word.
        const DESCRIPTOR_CONTROL = 1 << 10;
        /// Length.
        const LENGTH = 1 << 11;
        /// Completion address.
        const COMPLETION_ADDRESS = 1 << 12;
        /// Interrupt configuration.
        const INTERRUPT_CONFIGURATION = 1 << 13;
        /// Super extended descriptor address.
        const SOFT = 1 << 14;
        /// Unaffiliated.
        const UNAFFILIATED = 1 << 15;
        /// XOR or P result, or CRC.
        const XOR_P_OR_CRC = 1 << 16;
        /// Q result.
        const XOR_Q = 1 << 17;
        /// Descriptor count.
        const DESCRIPTOR_COUNT = 1 << 18;
        // Bits without a name here are kept and printed as a number.
        const _ = !0;
    }
}

impl ChanErr {
    /// How the operation ended at which the channel halted for these reasons.
    #[must_use]
    pub const fn status(self) -> Status {
        const ADDRESS: ChanErr = ChanErr::SOURCE_ADDRESS.union(ChanErr::DESTINATION_ADDRESS);
        const DESCRIPTOR: ChanErr = ChanErr::NEXT_ADDRESS
            .union(ChanErr::DESCRIPTOR)
            .union(ChanErr::CHAIN_ADDRESS)
            .union(ChanErr::DESCRIPTOR_CONTROL)
            .union(ChanErr::SOFT);
        if self.intersects(ADDRESS) {
            Status::BadAddress
        } else if self.intersects(Self::READ_DATA) {
            Status::ReadError
        } else if self.intersects(Self::WRITE_DATA) {
            Status::WriteError
        } else if self.intersects(Self::LENGTH) {
            Status::BadLength
        } else if self.intersects(DESCRIPTOR) {
            Status::BadDescriptor
        } else {
            // The engine stopped, and which bytes it had moved is not known.
            Status::Aborted
        }
    }
}

impl fmt::Display for ChanErr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            f.write_str("no error bit")
        } else {
            bitflags::parser::to_writer(self, f)
        }
    }
}

/// A channel has halted, and is about to be reset: for logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Halt {
    /// The channel's index.
    pub channel: usize,
    /// Why.
    pub errors: ChanErr,
}

impl fmt::Display for Halt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "channel {} halted: {}", self.channel, self.errors)
    }
}

/// Why a device cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// Every register reads as all ones.
    #[error("the device does not answer: is it powered, and memory access enabled?")]
    Gone,
    /// A hardware version that this driver does not know.
    #[error("version {major}.{minor} is not supported; this driver knows 3.2")]
    Version {
        /// CBVER, upper half.
        major: u8,
        /// CBVER, lower half.
        minor: u8,
    },
    /// CHANCNT is 0.
    #[error("the device has no channels: the firmware may have disabled them")]
    NoChannels,
    /// XFERCAP is below the specified minimum of 12 (4 KiB).
    #[error("XFERCAP is 2^{log2} bytes and must be at least 2^12: the device is not usable")]
    TransferCapacity {
        /// The register's value.
        log2: u8,
    },
    /// No memory for descriptor rings.
    #[error("no memory for the descriptor rings: {0}")]
    Memory(#[from] ArenaError),
    /// The descriptor rings are out of the device's reach.
    #[error("the descriptor rings could not be mapped for the device: {0}")]
    Map(#[from] MapError),
    /// A channel does not start.
    #[error("channel {channel} does not start: {source}")]
    Start {
        /// The channel's index.
        channel: usize,
        /// Why.
        source: StartError,
    },
    /// The self test's copy did not end.
    #[error("the self test's copy did not end ({status}): the device is not usable")]
    SelfTestStatus {
        /// How it ended; `TimedOut` if not at all.
        status: Status,
    },
    /// The self test's copy gave wrong bytes.
    #[error("the self test copied wrong bytes, first at offset {offset}: the device is not usable")]
    SelfTestData {
        /// The first wrong byte.
        offset: usize,
    },
}

/// Why a channel does not start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// RESET did not end in time.
    #[error("its reset does not end: reset the device, or the machine")]
    Stuck,
    /// The device no longer answers.
    #[error("the device is gone")]
    Gone,
    /// No memory for its ring.
    #[error("no memory for its descriptor ring: {0}")]
    Memory(#[from] ArenaFull),
    /// Its ring is in no arena that is mapped for the device.
    #[error("its descriptor ring is not mapped for the device")]
    Unmapped,
    /// The first, empty descriptor halted it.
    #[error("it halts at an empty descriptor ({0}): check the IOMMU's mappings and bus mastering")]
    Halted(ChanErr),
    /// It never took up the first, empty descriptor.
    #[error("it does not process an empty descriptor: reset the device")]
    Silent,
    /// CHANSTS shows progress, the completion word does not.
    #[error("its completion word is not written: check the IOMMU's mappings and bus mastering")]
    NoCompletionWrite,
}
