//! Why a function was not opened, or memory not mapped for it.

use std::{io, path::PathBuf};

use dmaengine::MapError;
use rustix::{
    io::Errno,
    process::{Resource, getrlimit},
};

use crate::sysfs::{FindError, Obstacle, PciAddress, User};

/// Why a function could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is no such I/OAT function.
    #[error(transparent)]
    Find(#[from] FindError),
    /// What the kernel's files tell speaks against it already.
    #[error("{address} cannot be opened: {obstacles}", obstacles = list(.obstacles))]
    Obstacles {
        /// The function.
        address: PciAddress,
        /// All that is to be dealt with, in order.
        obstacles: Vec<Obstacle>,
    },
    /// A file below `/dev` could not be opened.
    #[error("cannot open {path} ({source}): see `ioat devices`", path = .path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// Somebody has it, or another function of its IOMMU group.
    #[error("{address} is in use by {users}: end that, or take another", users = names(.users))]
    InUse {
        /// The function.
        address: PciAddress,
        /// Which other processes have it. Those of other users are seen by root only.
        users: Vec<User>,
    },
    /// The kernel does DMA with others of its group.
    #[error(
        "the IOMMU group of {address} has functions with which the kernel does DMA: `ioat devices` \
         names them; take them from their drivers too"
    )]
    NotViable {
        /// The function.
        address: PciAddress,
    },
    /// The IOMMU does not isolate it.
    #[error(
        "the kernel does not give {address} to a process, because interrupts are not remapped or the \
         firmware reserves memory for it: enable interrupt remapping in the firmware's settings and do \
         not boot with intremap=off; on a machine that is yours alone: modprobe {module} \
         allow_unsafe_interrupts=1"
    )]
    NotIsolated {
        /// The function.
        address: PciAddress,
        /// The module that decides so.
        module: &'static str,
    },
    /// The kernel refused it for another reason.
    #[error("the kernel does not give {address} to this process ({source}): see dmesg")]
    Refused {
        /// The function.
        address: PciAddress,
        /// What the system answered.
        source: io::Error,
    },
    /// VFIO's interface is not the one that is known here.
    #[error(
        "the kernel's VFIO has no type1v2 IOMMU: modprobe vfio_iommu_type1, on Linux 4.0 or newer"
    )]
    Interface,
    /// The registers cannot be mapped.
    #[error(
        "BAR 0 of {address} ({size} bytes) cannot be mapped, most likely because it shares a page: \
         boot with pci=resource_alignment=12@{address}"
    )]
    NotMappable {
        /// The function.
        address: PciAddress,
        /// The length of BAR 0 in bytes.
        size: u64,
    },
    /// A system call failed that should not.
    #[error("{call} failed ({source}): see dmesg")]
    System {
        /// The call.
        call: &'static str,
        /// What the system answered.
        source: io::Error,
    },
}

fn list(obstacles: &[Obstacle]) -> String {
    let said = obstacles.iter().map(|obstacle| format!("{obstacle} ({})", obstacle.remedy()));
    said.collect::<Vec<_>>().join("; ")
}

fn names(users: &[User]) -> String {
    if users.is_empty() {
        return "this process, or one that only root sees (with `ioat devices`)".to_owned();
    }
    users.iter().map(User::to_string).collect::<Vec<_>>().join(", ")
}

/// Why memory was not mapped for a function: what is in [`MapError::System`].
#[derive(Debug, thiserror::Error)]
pub enum NotMapped {
    /// More memory would be locked than the process may lock.
    #[error(
        "{locked} bytes would be locked, and this process may lock {limit} (RLIMIT_MEMLOCK): ulimit -l \
         in the shell, memlock in /etc/security/limits.conf, or LimitMEMLOCK= of the service"
    )]
    LockedMemory {
        /// What is mapped already and what was to be, in bytes.
        locked: usize,
        /// The limit in bytes.
        limit: u64,
    },
    /// The container has as many mappings as it may.
    #[error("the kernel allows no more mappings: modprobe vfio_iommu_type1 dma_entry_limit=…")]
    TooManyMappings,
    /// The IOMMU has no free addresses for it.
    #[error("the IOMMU has no {len} addresses left for it")]
    NoAddresses {
        /// The arena's length in bytes.
        len: usize,
    },
    /// Anything else.
    #[error("{0}")]
    Other(io::Error),
}

impl NotMapped {
    /// What the system's answer means if `locked` bytes would have been mapped then.
    pub(super) fn new(source: io::Error, locked: usize) -> Self {
        match Errno::from_io_error(&source) {
            // Which of them it is depends on the kernel. Memory itself is not short: it is there.
            Some(Errno::NOMEM | Errno::PERM | Errno::AGAIN) => {
                let limit = getrlimit(Resource::Memlock).current.unwrap_or(u64::MAX);
                Self::LockedMemory { locked, limit }
            }
            Some(Errno::NOSPC) => Self::TooManyMappings,
            _ => Self::Other(source),
        }
    }
}

impl From<NotMapped> for MapError {
    fn from(reason: NotMapped) -> Self {
        Self::System(io::Error::other(reason))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_to_do_is_said() {
        let address = "0000:00:04.0".parse().unwrap();
        let obstacles =
            vec![Obstacle::NoIommu { machine_has_one: false }, Obstacle::NotBound { address }];
        let said = OpenError::Obstacles { address, obstacles }.to_string();
        for words in ["intel_iommu=on", "ioat bind 0000:00:04.0"] {
            assert!(said.contains(words), "{said}");
        }
        let said = OpenError::InUse { address, users: Vec::new() }.to_string();
        assert!(said.contains("this process, or one that only root sees"), "{said}");
        let said = MapError::from(NotMapped::new(Errno::NOMEM.into(), 1 << 20)).to_string();
        for words in ["1048576 bytes would be locked", "RLIMIT_MEMLOCK", "ulimit -l"] {
            assert!(said.contains(words), "{said}");
        }
        let said = MapError::from(NotMapped::new(Errno::NOSPC.into(), 1 << 20)).to_string();
        assert!(said.contains("dma_entry_limit"), "{said}");
    }
}
