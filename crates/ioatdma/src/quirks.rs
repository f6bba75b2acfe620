//! What single devices and versions need beyond the common way, and why.
//!
//! A [quirk](Quirks) is what some devices need and others must not or need not have. Other traps of
//! the hardware are avoided on all devices alike, because it costs nothing:
//!
//! - An empty descriptor's size is 1: version 3.0 halts at one of size 0.
//! - CHAINADDR and CHANCMP are written in two halves, the low one first: older parts lose a 64-bit
//!   write.
//! - CHANSTS is asked when the completion word has stood still: the write of it may be lost.
//! - An address of 0 in CHANSTS or in the completion word means that nothing has completed since the
//!   chain began.
//! - Reading CHANCTRL takes the channel, so it is read for that only.
//! - DMACOUNT counts from 0 after a reset, modulo 2^16.
//! - An exclusive or by a descriptor of its own takes addresses and lengths that are multiples of 64
//!   bytes (Linux's `xor_align`). P without Q is the same sum without that limit, and is what the
//!   others become.
//! - PCI Express's relaxed ordering is turned off: the completion word would pass the data.
//! - An XFERCAP of 0 means, on version 1.2, that there is no limit; later, that the device cannot be
//!   used (Linux takes it so; SPDK reads 4 GiB).
//!
//! Two things that are said of the hardware are not followed. DPDK does not handle errors before Ice
//! Lake, for it found them unusable; Linux does, on every version, and so does this driver: a reset
//! is what leads out of everything. Linux has copies aligned to 64 bytes on the Xeons of version 3.2;
//! SPDK and DPDK copy from and to everywhere on the same devices, and so does this driver.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::CpuidResult;

use bitflags::bitflags;

use crate::{
    Version,
    pci::{Family, Id},
    registers::DmaCapability,
};

bitflags! {
    /// Deviations of a device from the common way.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Quirks: u16 {
        /// The version is that of the family, whatever CBVER says: Skylake (as Linux does).
        const VERSION_OVERRIDE = 1 << 0;
        /// No exclusive or, P and Q, whatever DMACAPABILITY says: the Xeons of version 3.2, half of
        /// Briarwood's functions, and Broadwell-DE (as Linux does; presumably errata).
        const NO_RAID = 1 << 1;
        /// No exclusive or, P and Q, because the firmware has enabled direct cache access, with which
        /// they do not go together.
        const DCA_EXCLUDES_RAID = 1 << 2;
        /// Errors are latched in PCI configuration space too (`CHANERR_INT`), and are cleared there
        /// before a reset: versions from 3.0 to 3.2.
        const CHANERR_INT = 1 << 3;
        /// A reset leaves a parity error of configuration space behind in `DMAUNCERRSTS` that was
        /// none: the first function of Tylersburg. It is cleared.
        const SPURIOUS_PARITY_ERROR = 1 << 4;
        /// A reset of a channel clears the device's MSI-X table, which is then set up anew: Briarwood
        /// and Broadwell-DE.
        const VECTORS_LOST = 1 << 5;
        /// The completion write of an exclusive or, P and Q may pass that of a copy before it, as
        /// another unit writes it. Such operations end with an empty descriptor, which has the
        /// completion written in order: versions before 3.3.
        const RAID_COMPLETIONS_PASS = 1 << 6;
        /// A check that finds a mismatch halts the channel though its result is written to the
        /// descriptor. The error is masked where results are written: Briarwood.
        const MISMATCH_HALTS = 1 << 7;
        /// Descriptors are fetched ahead, as many as `CHWPREFLMT` says: version 3.4.
        const PREFETCH_LIMIT = 1 << 8;
    }
}

/// The two of Briarwood's functions that have no exclusive or, P and Q.
const BRIARWOOD_WITHOUT_RAID: [u16; 2] = [0x0c52, 0x0c53];
/// The first function of Tylersburg.
const TYLERSBURG_0: u16 = 0x3430;

impl Quirks {
    /// Those of a device, in a machine whose firmware has enabled direct cache access or not.
    pub(crate) fn of(id: Id, family: Family, dca_enabled: bool) -> Self {
        let version = family.version();
        let briarwood = family == Family::Briarwood;
        let broadwell_de = family == Family::BroadwellDe;
        let has = [
            (Self::VERSION_OVERRIDE, family == Family::Skylake),
            (
                Self::NO_RAID,
                version == Version::V3_2
                    || briarwood && BRIARWOOD_WITHOUT_RAID.contains(&id.device)
                    || broadwell_de,
            ),
            (Self::DCA_EXCLUDES_RAID, dca_enabled),
            (Self::CHANERR_INT, (Version::V3_0..Version::V3_3).contains(&version)),
            (
                Self::SPURIOUS_PARITY_ERROR,
                family == Family::Tylersburg && id.device == TYLERSBURG_0,
            ),
            (Self::VECTORS_LOST, briarwood || broadwell_de),
            (Self::RAID_COMPLETIONS_PASS, version < Version::V3_3),
            (Self::MISMATCH_HALTS, briarwood),
            (Self::PREFETCH_LIMIT, version >= Version::V3_4),
        ];
        has.into_iter().filter(|(_, has)| *has).map(|(quirk, _)| quirk).collect()
    }

    /// What of a device's capabilities may be used.
    pub(crate) fn usable(self, capability: DmaCapability) -> DmaCapability {
        if self.intersects(Self::NO_RAID | Self::DCA_EXCLUDES_RAID) {
            return capability - (DmaCapability::XOR | DmaCapability::PQ | DmaCapability::RAID16SS);
        }
        capability
    }
}

/// Whether the firmware of this machine has enabled direct cache access: the processor says so in
/// CPUID (leaf 1, ECX bit 18: it can; leaf 9, EAX bit 0: it is enabled).
#[must_use]
pub fn dca_enabled() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{__cpuid, __get_cpuid_max};

        let (last_leaf, _) = __get_cpuid_max(0);
        says_dca_enabled(last_leaf, __cpuid)
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        // No other processor has it.
        false
    }
}

/// As [`dca_enabled`], of a processor with leaves up to `last_leaf`. A leaf that there is not gives
/// what another one has.
#[cfg(target_arch = "x86_64")]
fn says_dca_enabled(last_leaf: u32, leaf: impl Fn(u32) -> CpuidResult) -> bool {
    const DCA: u32 = 1 << 18;
    const ENABLED: u32 = 1 << 0;
    last_leaf >= 9 && leaf(1).ecx & DCA != 0 && leaf(9).eax & ENABLED != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn direct_cache_access_is_both_there_and_enabled() {
        // The highest leaf, ECX of leaf 1, EAX of leaf 9.
        for (last_leaf, ecx, eax, enabled) in [
            (9, 1 << 18, 1, true),
            (0x16, u32::MAX, u32::MAX, true),
            (9, !(1 << 18), u32::MAX, false),
            (9, u32::MAX, !1, false),
            (8, u32::MAX, u32::MAX, false),
            (0, u32::MAX, u32::MAX, false),
        ] {
            let none = CpuidResult { eax: 0, ebx: 0, ecx: 0, edx: 0 };
            let leaf = |number| match number {
                1 => CpuidResult { ecx, ..none },
                9 => CpuidResult { eax, ..none },
                _ => panic!("leaf {number} says nothing of it"),
            };
            let told = says_dca_enabled(last_leaf, leaf);
            assert_eq!(told, enabled, "{last_leaf}, {ecx:#x}, {eax:#x}");
        }
    }

    fn quirks(id: Id) -> Quirks {
        Quirks::of(id, id.family().expect("known"), false)
    }

    #[test]
    fn each_quirk_is_some_device_s_and_not_every_one_s() {
        let all: Vec<_> = Id::all().map(quirks).collect();
        for quirk in Quirks::all() - Quirks::DCA_EXCLUDES_RAID {
            let count = all.iter().filter(|quirks| quirks.contains(quirk)).count();
            assert!((1..all.len()).contains(&count), "{quirk:?}: {count}");
        }
    }

    #[test]
    fn xeons_of_version_3_2_have_no_raid() {
        let all = DmaCapability::all();
        for id in Id::all() {
            let version = id.family().expect("known").version();
            let raid = quirks(id).usable(all) == all;
            let expected = match version {
                Version::V3_2 => false,
                Version::V3_3 => [0x0c50, 0x0c51].contains(&id.device),
                _ => true,
            };
            assert_eq!(raid, expected, "{id}");
        }
        assert!(!quirks(Id::intel(0x2021)).usable(all).contains(DmaCapability::PQ));
        let usable = Quirks::DCA_EXCLUDES_RAID.usable(all);
        assert_eq!(all - usable, DmaCapability::XOR | DmaCapability::PQ | DmaCapability::RAID16SS);
    }

    #[test]
    fn single_functions() {
        assert!(quirks(Id::intel(0x3430)).contains(Quirks::SPURIOUS_PARITY_ERROR));
        assert!(!quirks(Id::intel(0x3431)).contains(Quirks::SPURIOUS_PARITY_ERROR));
        assert!(quirks(Id::intel(0x6f50)).contains(Quirks::VECTORS_LOST));
        assert!(!quirks(Id::intel(0x6f50)).contains(Quirks::MISMATCH_HALTS));
        assert!(!quirks(Id::intel(0x1a38)).contains(Quirks::CHANERR_INT));
    }
}
