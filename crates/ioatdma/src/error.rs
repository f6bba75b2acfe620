//! CHANERR, by name, and why a device or channel cannot be used.

use std::fmt;

use bitflags::bitflags;
use dmaengine::{ArenaError, ArenaFull, MapError, OperationKind, Status};
use rustix::io::Errno;

use crate::{
    Version,
    pci::{Family, Id},
};

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
        /// DIF: all ones. (No operation of this driver has data integrity fields, nor bundles.)
        const DIF_ALL_F = 1 << 19;
        /// DIF: guard tag.
        const DIF_GUARD = 1 << 20;
        /// DIF: application tag.
        const DIF_APPLICATION = 1 << 21;
        /// DIF: reference tag.
        const DIF_REFERENCE = 1 << 22;
        /// Bundle of descriptors.
        const BUNDLE = 1 << 23;
        /// DIF result: all ones.
        const RESULT_DIF_ALL_F = 1 << 24;
        /// DIF result: guard tag.
        const RESULT_DIF_GUARD = 1 << 25;
        /// DIF result: application tag.
        const RESULT_DIF_APPLICATION = 1 << 26;
        /// DIF result: reference tag.
        const RESULT_DIF_REFERENCE = 1 << 27;
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

/// Why a device cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// Every register reads as all ones.
    #[error("the device does not answer: is it powered, and memory access enabled?")]
    Gone,
    /// The PCI function is no I/OAT device.
    #[error("{id} is no I/OAT device that this driver knows (`ioatdma::pci` lists them)")]
    UnknownDevice {
        /// The function's id.
        id: Id,
    },
    /// BAR 0 ends before the registers do.
    #[error("BAR 0 has {size} bytes where the registers take {needed}: is it the right region?")]
    BarTooSmall {
        /// Its size in bytes.
        size: u64,
        /// What the registers take, in bytes.
        needed: u64,
    },
    /// A hardware version that this driver does not know.
    #[error("version {}.{} is not supported; this driver knows 1.2, 2.0 and 3.0 to 3.4", cbver >> 4, cbver & 0xf)]
    UnknownVersion {
        /// The register CBVER.
        cbver: u8,
    },
    /// A hardware version that devices with this id do not have.
    #[error(
        "it says version {found}, where {family} has {expected}: the registers are not those of the device that the PCI id names"
    )]
    OtherVersion {
        /// What the id says.
        family: Family,
        /// The version that the family has.
        expected: Version,
        /// What CBVER says.
        found: Version,
    },
    /// CHANCNT is 0.
    #[error("the device has no channels: the firmware may have disabled them")]
    NoChannels,
    /// CHANCNT has reserved bits set.
    #[error("CHANCNT is {count:#x}, which is no number of channels: the device is not usable")]
    ChannelCount {
        /// The register's value.
        count: u8,
    },
    /// XFERCAP is below the specified minimum of 12 (4 KiB), or is more than a descriptor can say.
    #[error("XFERCAP is {value}, and must be 12 to 31 (4 KiB to 2 GiB): the device is not usable")]
    TransferCapacity {
        /// The register's value.
        value: u8,
    },
    /// No memory for descriptor rings.
    #[error("no memory for the descriptor rings: {0}")]
    Memory(#[from] ArenaError),
    /// The descriptor rings are out of the device's reach.
    #[error("the descriptor rings could not be mapped for the device: {0}")]
    Map(#[from] MapError),
    /// The system has no more files for the channels' events.
    #[error("no event could be made for its channels ({0}): raise the limit on open files")]
    Event(Errno),
    /// A channel does not start.
    #[error("channel {channel} does not start: {source}")]
    Start {
        /// The channel's index.
        channel: usize,
        /// Why.
        source: StartError,
    },
    /// An operation of the self test was refused, or did not end as it should.
    #[error(
        "the self test's {operation} ended with: {status}, not: {expected}; the device is not usable"
    )]
    SelfTestStatus {
        /// What was tried.
        operation: OperationKind,
        /// How it ended; `TimedOut` if not at all, `Aborted` if it was refused.
        status: Status,
        /// How it should have.
        expected: Status,
    },
    /// An operation of the self test gave wrong bytes.
    #[error(
        "the self test's {operation} wrote wrong bytes, first at offset {offset}: the device is not usable"
    )]
    SelfTestData {
        /// What was tried.
        operation: OperationKind,
        /// The first wrong byte.
        offset: usize,
    },
}

/// Why a channel does not start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// RESET did not end in time, though it was tried several times. It may end later.
    #[error(
        "its reset does not end: try again, or close the device and open it, which resets all of it"
    )]
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
    /// The system has no more files for it to be waited for.
    #[error("no event could be made for it ({0}): raise the limit on open files")]
    Event(Errno),
    /// The first, empty descriptor halted it.
    #[error("it halts at an empty descriptor ({0}): check the IOMMU's mappings and bus mastering")]
    Halted(ChanErr),
    /// It never took up the first, empty descriptor.
    #[error(
        "it does not process an empty descriptor: close the device and open it, which resets all of it"
    )]
    Silent,
    /// CHANSTS shows progress, the completion word does not.
    #[error("its completion word is not written: check the IOMMU's mappings and bus mastering")]
    NoCompletionWrite,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By bit. Those behind have no name.
    const BITS: [(&str, Status); 28] = [
        ("SOURCE_ADDRESS", Status::BadAddress),
        ("DESTINATION_ADDRESS", Status::BadAddress),
        ("NEXT_ADDRESS", Status::BadDescriptor),
        ("DESCRIPTOR", Status::BadDescriptor),
        ("CHAIN_ADDRESS", Status::BadDescriptor),
        ("CHANCMD", Status::Aborted),
        ("CHIPSET_UNCORRECTABLE", Status::Aborted),
        ("DMA_UNCORRECTABLE", Status::Aborted),
        ("READ_DATA", Status::ReadError),
        ("WRITE_DATA", Status::WriteError),
        ("DESCRIPTOR_CONTROL", Status::BadDescriptor),
        ("LENGTH", Status::BadLength),
        ("COMPLETION_ADDRESS", Status::Aborted),
        ("INTERRUPT_CONFIGURATION", Status::Aborted),
        ("SOFT", Status::BadDescriptor),
        ("UNAFFILIATED", Status::Aborted),
        ("XOR_P_OR_CRC", Status::Aborted),
        ("XOR_Q", Status::Aborted),
        ("DESCRIPTOR_COUNT", Status::Aborted),
        ("DIF_ALL_F", Status::Aborted),
        ("DIF_GUARD", Status::Aborted),
        ("DIF_APPLICATION", Status::Aborted),
        ("DIF_REFERENCE", Status::Aborted),
        ("BUNDLE", Status::Aborted),
        ("RESULT_DIF_ALL_F", Status::Aborted),
        ("RESULT_DIF_GUARD", Status::Aborted),
        ("RESULT_DIF_APPLICATION", Status::Aborted),
        ("RESULT_DIF_REFERENCE", Status::Aborted),
    ];

    #[test]
    fn every_bit_has_the_model_s_name_and_a_status() {
        let model = ioat_model::registers::ChanErr::all();
        let names: Vec<_> = model.iter_names().map(|(name, bit)| (name, bit.bits())).collect();
        let expected: Vec<_> = (0..).map(|bit| 1 << bit).zip(BITS).collect();
        assert!(names.iter().copied().eq(expected.iter().map(|(bit, (name, _))| (*name, *bit))));
        for (bit, (name, status)) in expected {
            let errors = ChanErr::from_bits_retain(bit);
            assert_eq!(errors.to_string(), name);
            assert_eq!(errors.status(), status, "{name}");
        }
        for bit in BITS.len()..32 {
            let errors = ChanErr::from_bits_retain(1 << bit);
            assert_eq!(errors.to_string(), format!("{:#x}", 1_u32 << bit));
            assert_eq!(errors.status(), Status::Aborted);
        }
        assert_eq!(ChanErr::empty().to_string(), "no error bit");
        // A halt without a reason.
        assert_eq!(ChanErr::empty().status(), Status::Aborted);
    }

    /// The more telling reason decides; and none of them is a success.
    #[test]
    fn of_two_reasons_one_decides() {
        for (two, status) in [
            (ChanErr::READ_DATA | ChanErr::SOURCE_ADDRESS, Status::BadAddress),
            (ChanErr::READ_DATA | ChanErr::WRITE_DATA, Status::ReadError),
            (ChanErr::LENGTH | ChanErr::WRITE_DATA, Status::WriteError),
            (ChanErr::LENGTH | ChanErr::DESCRIPTOR, Status::BadLength),
            (ChanErr::DESCRIPTOR | ChanErr::CHANCMD, Status::BadDescriptor),
        ] {
            assert_eq!(two.status(), status, "{two}");
        }
    }
}
