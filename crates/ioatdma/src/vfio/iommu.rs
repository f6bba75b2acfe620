//! The function's file, and the address space that it gets: through iommufd or a container.

use std::{
    fs::{File, OpenOptions},
    io,
    os::fd::OwnedFd,
    path::Path,
    sync::{Mutex, PoisonError},
};

use dmaengine::Arena;
use rustix::io::Errno;
use vfio_bindings::bindings::vfio::{
    VFIO_API_VERSION, VFIO_GROUP_FLAGS_VIABLE, VFIO_TYPE1v2_IOMMU,
};

use super::{
    NotMapped, OpenError,
    info::AllowedIovas,
    ioctl,
    iova::{IovaAllocator, Range},
};
use crate::sysfs::{IoatFunction, Nodes, Sysfs};

/// A function's address space. What is mapped in it stays mapped until it is dropped.
#[derive(Debug)]
pub(super) struct Mappings {
    // Closed before the arenas are released: with it the mappings go.
    iommu: Iommu,
    mapped: Mutex<Mapped>,
}

#[derive(Debug)]
enum Iommu {
    Iommufd {
        iommufd: OwnedFd,
        ioas: u32,
    },
    Container {
        /// Holds the container's IOMMU in place.
        _group: OwnedFd,
        container: OwnedFd,
    },
}

#[derive(Debug)]
struct Mapped {
    free: IovaAllocator,
    /// What the function can reach.
    arenas: Vec<Arena>,
}

/// Opens a function, and makes an empty address space for it. The function's file is to be closed
/// before the address space is dropped.
pub(super) fn open(
    sysfs: &Sysfs,
    function: &IoatFunction,
    nodes: &Nodes,
    dma_mask: u64,
) -> Result<(OwnedFd, Mappings), OpenError> {
    let (device, iommu, allowed) = match nodes {
        Nodes::Iommufd { iommufd, device } => through_iommufd(sysfs, function, iommufd, device),
        Nodes::Container { container, group } => {
            through_container(sysfs, function, container, group)
        }
    }?;
    let free = IovaAllocator::new(&allowed, dma_mask);
    let mapped = Mutex::new(Mapped { free, arenas: Vec::new() });
    Ok((device, Mappings { iommu, mapped }))
}

type Opened = (OwnedFd, Iommu, AllowedIovas);

fn through_iommufd(
    sysfs: &Sysfs,
    function: &IoatFunction,
    iommufd: &Path,
    device: &Path,
) -> Result<Opened, OpenError> {
    let system = |call| move |source| OpenError::System { call, source };
    let iommufd = open_file(sysfs, function, iommufd)?;
    let device = open_file(sysfs, function, device)?;
    ioctl::bind_iommufd(&device, &iommufd).map_err(|source| busy(sysfs, function, source))?;
    let ioas = ioctl::allocate_ioas(&iommufd).map_err(system("IOMMU_IOAS_ALLOC"))?;
    ioctl::attach_ioas(&device, ioas).map_err(|source| attach(function, "iommufd", source))?;
    // After attaching: until then nothing limits the ranges.
    let allowed = ioctl::ioas_ranges(&iommufd, ioas).map_err(system("IOMMU_IOAS_IOVA_RANGES"))?;
    Ok((device, Iommu::Iommufd { iommufd, ioas }, allowed))
}

fn through_container(
    sysfs: &Sysfs,
    function: &IoatFunction,
    container: &Path,
    group: &Path,
) -> Result<Opened, OpenError> {
    let system = |call| move |source| OpenError::System { call, source };
    let container = open_file(sysfs, function, container)?;
    let version = ioctl::api_version(&container).map_err(system("VFIO_GET_API_VERSION"))?;
    let type1v2 = ioctl::has_extension(&container, VFIO_TYPE1v2_IOMMU);
    if version != VFIO_API_VERSION as i32 || !type1v2.map_err(system("VFIO_CHECK_EXTENSION"))? {
        return Err(OpenError::Interface);
    }
    let group = open_file(sysfs, function, group)?;
    let flags = ioctl::group_flags(&group).map_err(system("VFIO_GROUP_GET_STATUS"))?;
    if flags & VFIO_GROUP_FLAGS_VIABLE == 0 {
        return Err(OpenError::NotViable { address: function.address });
    }
    // The first group decides which IOMMU the container is for; either request may find it unfit.
    ioctl::set_container(&group, &container)
        .and_then(|()| ioctl::set_iommu(&container, VFIO_TYPE1v2_IOMMU))
        .map_err(|source| attach(function, "vfio_iommu_type1", source))?;
    let device = ioctl::group_device(&group, &function.address.to_string())
        .map_err(|source| busy(sysfs, function, source))?;
    let allowed = ioctl::iommu_info(&container).map_err(system("VFIO_IOMMU_GET_INFO"))?;
    Ok((device, Iommu::Container { _group: group, container }, allowed))
}

fn open_file(sysfs: &Sysfs, function: &IoatFunction, path: &Path) -> Result<OwnedFd, OpenError> {
    let opened = OpenOptions::new().read(true).write(true).open(path);
    opened.map(File::into).map_err(|source| match source.kind() {
        io::ErrorKind::ResourceBusy => busy(sysfs, function, source),
        _ => OpenError::Open { path: path.to_owned(), source },
    })
}

/// Why a file or function that exists was not given to us.
fn busy(sysfs: &Sysfs, function: &IoatFunction, source: io::Error) -> OpenError {
    let address = function.address;
    match Errno::from_io_error(&source) {
        // EINVAL is what binding to an iommufd says if the group is open in the other way.
        Some(Errno::BUSY | Errno::INVAL) => {
            let mut users = sysfs.users(function);
            // We have just opened it ourselves: by iommufd the next step is the one that fails.
            users.retain(|user| user.pid != std::process::id());
            OpenError::InUse { address, users }
        }
        _ => OpenError::Refused { address, source },
    }
}

/// Why the IOMMU did not take the function.
fn attach(function: &IoatFunction, module: &'static str, source: io::Error) -> OpenError {
    let address = function.address;
    match Errno::from_io_error(&source) {
        Some(Errno::PERM) => OpenError::NotIsolated { address, module },
        _ => OpenError::Refused { address, source },
    }
}

impl Mappings {
    /// Maps an arena, and returns the address of its first byte.
    pub(super) fn map(&self, arena: &Arena) -> Result<u64, NotMapped> {
        // It is consistent also if a thread has panicked with it.
        let mut mapped = self.mapped.lock().unwrap_or_else(PoisonError::into_inner);
        let len = arena.len();
        // If it fails, the addresses are as free as before.
        let mut free = mapped.free.clone();
        let range = free.allocate(len as u64).ok_or(NotMapped::NoAddresses { len })?;
        // Kept before the device can reach it. The kernel maps all of it or nothing.
        mapped.arenas.push(arena.clone());
        match self.map_at(range.start, arena) {
            Ok(()) => {
                mapped.free = free;
                Ok(range.start)
            }
            Err(source) => {
                let locked = mapped.arenas.iter().map(Arena::len).sum();
                mapped.arenas.pop();
                Err(NotMapped::new(source, locked))
            }
        }
    }

    /// Maps an arena and nothing else, also if the IOMMU's pages were larger than ours.
    fn map_at(&self, start: u64, arena: &Arena) -> io::Result<()> {
        let range = Range { start, last: start + (arena.len() as u64 - 1) };
        // SAFETY: the arena's memory is the process's, and stays as long as the handle that was just
        // stored, which is dropped after `iommu`, before which the function's file was closed. That
        // the device accesses only memory of operations in flight and `Coherent` memory is the
        // driver's promise.
        unsafe {
            match &self.iommu {
                Iommu::Iommufd { iommufd, ioas } => {
                    ioctl::map_ioas(iommufd, *ioas, range, arena.base())
                }
                Iommu::Container { container, .. } => {
                    ioctl::map_dma(container, range, arena.base())
                }
            }
        }
    }
}
