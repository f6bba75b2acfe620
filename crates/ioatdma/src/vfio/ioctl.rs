//! The `ioctl`s of VFIO and iommufd that are used here, a safe function each.
//!
//! Structures and numbers are those of the crates `vfio-bindings` and `iommufd-bindings`, which are
//! generated from the kernel's headers. Every file descriptor may be passed to every function: the
//! kernel answers ENOTTY to a request that is not the file's.

use std::{
    ffi::{CString, c_void},
    io,
    mem::offset_of,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
    ptr,
};

use iommufd_bindings::{
    IOMMUFD_CMD_IOAS_ALLOC, IOMMUFD_CMD_IOAS_IOVA_RANGES, IOMMUFD_CMD_IOAS_MAP, IOMMUFD_TYPE,
    iommu_ioas_alloc, iommu_ioas_iova_ranges, iommu_ioas_map, iommu_iova_range,
    iommufd_ioas_map_flags_IOMMU_IOAS_MAP_FIXED_IOVA as FIXED_IOVA,
    iommufd_ioas_map_flags_IOMMU_IOAS_MAP_READABLE as READABLE,
    iommufd_ioas_map_flags_IOMMU_IOAS_MAP_WRITEABLE as WRITEABLE,
};
use rustix::ioctl::{self, Ioctl, IoctlOutput, Opcode};
use vfio_bindings::bindings::vfio::{
    VFIO_BASE, VFIO_DMA_MAP_FLAG_READ, VFIO_DMA_MAP_FLAG_WRITE, VFIO_IRQ_SET_ACTION_TRIGGER,
    VFIO_IRQ_SET_ACTION_UNMASK, VFIO_IRQ_SET_DATA_EVENTFD, VFIO_IRQ_SET_DATA_NONE, VFIO_TYPE,
    vfio_device_attach_iommufd_pt, vfio_device_bind_iommufd, vfio_device_info, vfio_group_status,
    vfio_iommu_type1_dma_map, vfio_iommu_type1_info, vfio_irq_info, vfio_irq_set, vfio_region_info,
};

use super::{info::AllowedIovas, interrupts::MAX_VECTORS, iova::Range};

/// VFIO's requests, by their distance from `VFIO_BASE`. (The bindings lack these: the header has them
/// as macros.)
mod request {
    pub(super) const GET_API_VERSION: u32 = 0;
    pub(super) const CHECK_EXTENSION: u32 = 1;
    pub(super) const SET_IOMMU: u32 = 2;
    pub(super) const GROUP_GET_STATUS: u32 = 3;
    pub(super) const GROUP_SET_CONTAINER: u32 = 4;
    pub(super) const GROUP_GET_DEVICE_FD: u32 = 6;
    pub(super) const DEVICE_GET_INFO: u32 = 7;
    pub(super) const DEVICE_GET_REGION_INFO: u32 = 8;
    pub(super) const DEVICE_GET_IRQ_INFO: u32 = 9;
    pub(super) const DEVICE_SET_IRQS: u32 = 10;
    pub(super) const DEVICE_RESET: u32 = 11;
    pub(super) const IOMMU_GET_INFO: u32 = 12;
    pub(super) const IOMMU_MAP_DMA: u32 = 13;
    pub(super) const DEVICE_BIND_IOMMUFD: u32 = 18;
    pub(super) const DEVICE_ATTACH_IOMMUFD_PT: u32 = 19;
}

const fn vfio(request: u32) -> Opcode {
    ioctl::opcode::none(VFIO_TYPE, (VFIO_BASE + request) as u8)
}

const fn iommufd(request: u32) -> Opcode {
    ioctl::opcode::none(IOMMUFD_TYPE, request as u8)
}

/// A request whose argument is a number, or nothing.
struct WithNumber(Opcode, usize);

// SAFETY: the argument is a number to the kernel, which accesses no memory for it.
unsafe impl Ioctl for WithNumber {
    type Output = i32;
    const IS_MUTATING: bool = false;

    fn opcode(&self) -> Opcode {
        self.0
    }

    fn as_ptr(&mut self) -> *mut c_void {
        ptr::without_provenance_mut(self.1)
    }

    unsafe fn output_from_ptr(output: IoctlOutput, _: *mut c_void) -> rustix::io::Result<i32> {
        Ok(output)
    }
}

/// A request whose argument is a structure, which the kernel reads and may write.
struct WithStruct<'a, T>(Opcode, &'a mut T);

// SAFETY: the pointer is that of an exclusive reference, valid for the call. That the kernel accesses
// a `T` there is for whoever makes the request to see to.
unsafe impl<T> Ioctl for WithStruct<'_, T> {
    type Output = i32;
    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        self.0
    }

    fn as_ptr(&mut self) -> *mut c_void {
        ptr::from_mut(self.1).cast()
    }

    unsafe fn output_from_ptr(output: IoctlOutput, _: *mut c_void) -> rustix::io::Result<i32> {
        Ok(output)
    }
}

fn with_number(fd: impl AsFd, opcode: Opcode, number: usize) -> io::Result<i32> {
    // SAFETY: only used with VFIO's requests that take a number.
    Ok(unsafe { ioctl::ioctl(fd, WithNumber(opcode, number)) }?)
}

/// # Safety
///
/// The kernel's structure for `opcode` is no longer than `T`, or `argument` says how much of itself
/// there is; what addresses are in it are valid for what the kernel does with them.
unsafe fn with_struct<T>(fd: impl AsFd, opcode: Opcode, argument: &mut T) -> io::Result<i32> {
    // SAFETY: the caller's promise.
    Ok(unsafe { ioctl::ioctl(fd, WithStruct(opcode, argument)) }?)
}

const fn size_of_u32<T>() -> u32 {
    size_of::<T>() as u32
}

// The container and the group.

/// The version of VFIO's interface.
pub(super) fn api_version(container: impl AsFd) -> io::Result<i32> {
    with_number(container, vfio(request::GET_API_VERSION), 0)
}

/// Whether the container has an extension: a kind of IOMMU, say.
pub(super) fn has_extension(container: impl AsFd, extension: u32) -> io::Result<bool> {
    Ok(with_number(container, vfio(request::CHECK_EXTENSION), extension as usize)? > 0)
}

/// Decides which interface the container's mappings have.
pub(super) fn set_iommu(container: impl AsFd, kind: u32) -> io::Result<()> {
    with_number(container, vfio(request::SET_IOMMU), kind as usize).map(drop)
}

/// The group's `VFIO_GROUP_FLAGS`.
pub(super) fn group_flags(group: impl AsFd) -> io::Result<u32> {
    let mut status = vfio_group_status { argsz: size_of_u32::<vfio_group_status>(), flags: 0 };
    // SAFETY: the structure is this request's, and tells its size.
    unsafe { with_struct(group, vfio(request::GROUP_GET_STATUS), &mut status) }?;
    Ok(status.flags)
}

/// Puts the group into the container.
pub(super) fn set_container(group: impl AsFd, container: impl AsFd) -> io::Result<()> {
    let mut container = container.as_fd().as_raw_fd();
    // SAFETY: this request reads a file descriptor.
    unsafe { with_struct(group, vfio(request::GROUP_SET_CONTAINER), &mut container) }.map(drop)
}

/// Opens a function of the group by its PCI address.
pub(super) fn group_device(group: impl AsFd, address: &str) -> io::Result<OwnedFd> {
    // Longer than any PCI address, and a C string in any case.
    let name = CString::new(address)?;
    let mut bytes = [0u8; 32];
    let name = name.as_bytes();
    let room = bytes.len() - 1;
    bytes[..name.len().min(room)].copy_from_slice(&name[..name.len().min(room)]);
    // SAFETY: this request reads a C string, which ends within the array.
    let fd = unsafe { with_struct(group, vfio(request::GROUP_GET_DEVICE_FD), &mut bytes) }?;
    // SAFETY: what the request answers is a new file descriptor, which nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// What the container says about its IOMMU.
pub(super) fn iommu_info(container: impl AsFd) -> io::Result<AllowedIovas> {
    // Room for the capabilities behind the structure: some hundreds of ranges.
    let mut buffer = [0u64; 1024];
    let len = size_of_val(&buffer) as u32;
    // `argsz` is the structure's first field, in the first half of the first word (little-endian).
    const { assert!(offset_of!(vfio_iommu_type1_info, argsz) == 0 && cfg!(target_endian = "little")) }
    buffer[0] = len.into();
    // SAFETY: the structure begins with its size, which is the buffer's. It is aligned as u64 is.
    unsafe { with_struct(container, vfio(request::IOMMU_GET_INFO), &mut buffer) }?;
    let mut bytes = Vec::with_capacity(size_of_val(&buffer));
    bytes.extend(buffer.iter().flat_map(|word| word.to_ne_bytes()));
    Ok(AllowedIovas::parse_type1(&bytes))
}

/// Makes memory of this process reachable for the container's devices.
///
/// # Safety
///
/// The memory must be the process's to give. From now on devices may read and write it, until the
/// container and all its groups have been closed. (It stays allocated: the kernel pins it.)
pub(super) unsafe fn map_dma(
    container: impl AsFd,
    range: Range,
    address: *const u8,
) -> io::Result<()> {
    let mut map = vfio_iommu_type1_dma_map {
        argsz: size_of_u32::<vfio_iommu_type1_dma_map>(),
        flags: VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE,
        vaddr: address.expose_provenance() as u64,
        iova: range.start,
        size: range.len(),
    };
    // SAFETY: the structure is this request's, and tells its size; the memory is the caller's to
    // give.
    unsafe { with_struct(container, vfio(request::IOMMU_MAP_DMA), &mut map) }.map(drop)
}

// iommufd.

/// Makes an IO address space; its id.
pub(super) fn allocate_ioas(iommu: impl AsFd) -> io::Result<u32> {
    let size = size_of_u32::<iommu_ioas_alloc>();
    let mut alloc = iommu_ioas_alloc { size, ..Default::default() };
    // SAFETY: the structure is this request's, and tells its size.
    unsafe { with_struct(iommu, iommufd(IOMMUFD_CMD_IOAS_ALLOC), &mut alloc) }?;
    Ok(alloc.out_ioas_id)
}

/// Binds a function to an iommufd, which makes it ours.
pub(super) fn bind_iommufd(device: impl AsFd, iommu: impl AsFd) -> io::Result<()> {
    let mut bind = vfio_device_bind_iommufd {
        argsz: size_of_u32::<vfio_device_bind_iommufd>(),
        iommufd: iommu.as_fd().as_raw_fd(),
        ..Default::default()
    };
    // SAFETY: the structure is this request's, and tells its size; the token's address is not looked
    // at without a flag.
    unsafe { with_struct(device, vfio(request::DEVICE_BIND_IOMMUFD), &mut bind) }.map(drop)
}

/// Lets a function use an IO address space.
pub(super) fn attach_ioas(device: impl AsFd, ioas: u32) -> io::Result<()> {
    let mut attach = vfio_device_attach_iommufd_pt {
        argsz: size_of_u32::<vfio_device_attach_iommufd_pt>(),
        pt_id: ioas,
        ..Default::default()
    };
    // SAFETY: the structure is this request's, and tells its size.
    unsafe { with_struct(device, vfio(request::DEVICE_ATTACH_IOMMUFD_PT), &mut attach) }.map(drop)
}

/// What an IO address space may map, now that its devices are attached.
pub(super) fn ioas_ranges(iommu: impl AsFd, ioas: u32) -> io::Result<AllowedIovas> {
    let mut ranges = [iommu_iova_range::default(); 256];
    let mut request = iommu_ioas_iova_ranges {
        size: size_of_u32::<iommu_ioas_iova_ranges>(),
        ioas_id: ioas,
        num_iovas: ranges.len() as u32,
        allowed_iovas: ranges.as_mut_ptr().expose_provenance() as u64,
        ..Default::default()
    };
    // SAFETY: the structure is this request's, and tells its size; the array that it points to is as
    // long as it says.
    unsafe { with_struct(iommu, iommufd(IOMMUFD_CMD_IOAS_IOVA_RANGES), &mut request) }?;
    let count = (request.num_iovas as usize).min(ranges.len());
    let ranges = ranges[..count].iter();
    Ok(AllowedIovas {
        ranges: ranges.filter_map(|range| Range::new(range.start, range.last)).collect(),
        // At most a page, says the interface.
        page_size: request.out_iova_alignment.max(4096),
    })
}

/// As [`map_dma`], in an IO address space.
///
/// # Safety
///
/// As [`map_dma`]'s, until the iommufd and its devices have been closed.
pub(super) unsafe fn map_ioas(
    iommu: impl AsFd,
    ioas: u32,
    range: Range,
    address: *const u8,
) -> io::Result<()> {
    let mut map = iommu_ioas_map {
        size: size_of_u32::<iommu_ioas_map>(),
        flags: FIXED_IOVA | READABLE | WRITEABLE,
        ioas_id: ioas,
        user_va: address.expose_provenance() as u64,
        length: range.len(),
        iova: range.start,
        ..Default::default()
    };
    // SAFETY: the structure is this request's, and tells its size; the memory is the caller's to
    // give.
    unsafe { with_struct(iommu, iommufd(IOMMUFD_CMD_IOAS_MAP), &mut map) }.map(drop)
}

// The function.

/// The function's `VFIO_DEVICE_FLAGS`.
pub(super) fn device_flags(device: impl AsFd) -> io::Result<u32> {
    let argsz = size_of_u32::<vfio_device_info>();
    let mut info = vfio_device_info { argsz, ..Default::default() };
    // SAFETY: the structure is this request's, and tells its size.
    unsafe { with_struct(device, vfio(request::DEVICE_GET_INFO), &mut info) }?;
    Ok(info.flags)
}

/// Where a region (a BAR, configuration space) is in the function's file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Region {
    /// `VFIO_REGION_INFO_FLAGS`.
    pub(super) flags: u32,
    /// Its length in bytes.
    pub(super) size: u64,
    /// Its first byte's place in the file.
    pub(super) offset: u64,
}

pub(super) fn region(device: impl AsFd, index: u32) -> io::Result<Region> {
    let argsz = size_of_u32::<vfio_region_info>();
    let mut info = vfio_region_info { argsz, index, ..Default::default() };
    // SAFETY: the structure is this request's, and tells its size.
    unsafe { with_struct(device, vfio(request::DEVICE_GET_REGION_INFO), &mut info) }?;
    let vfio_region_info { flags, size, offset, .. } = info;
    Ok(Region { flags, size, offset })
}

/// How many interrupts of a kind the function has.
pub(super) fn irq_count(device: impl AsFd, index: u32) -> io::Result<u32> {
    let argsz = size_of_u32::<vfio_irq_info>();
    let mut info = vfio_irq_info { argsz, index, ..Default::default() };
    // SAFETY: the structure is this request's, and tells its size.
    unsafe { with_struct(device, vfio(request::DEVICE_GET_IRQ_INFO), &mut info) }?;
    Ok(info.count)
}

/// `vfio_irq_set` with room for its array.
#[repr(C)]
struct IrqSet {
    head: vfio_irq_set,
    eventfds: [RawFd; MAX_VECTORS],
}

const _: () = assert!(
    offset_of!(IrqSet, eventfds) == offset_of!(vfio_irq_set, data),
    "the array follows at once"
);

fn set_irqs(
    device: impl AsFd,
    index: u32,
    flags: u32,
    count: u32,
    eventfds: &[BorrowedFd<'_>],
) -> io::Result<()> {
    assert!(eventfds.len() <= MAX_VECTORS, "more eventfds than vectors");
    let mut set = IrqSet { head: vfio_irq_set::default(), eventfds: [-1; MAX_VECTORS] };
    for (slot, eventfd) in set.eventfds.iter_mut().zip(eventfds) {
        *slot = eventfd.as_raw_fd();
    }
    let len = offset_of!(IrqSet, eventfds) + eventfds.len() * size_of::<RawFd>();
    set.head.argsz = len as u32;
    set.head.flags = flags;
    set.head.index = index;
    set.head.count = count;
    // SAFETY: the structure is this request's, and tells its size, which is at most `IrqSet`'s.
    unsafe { with_struct(device, vfio(request::DEVICE_SET_IRQS), &mut set) }.map(drop)
}

/// Enables the first interrupts of a kind: each is told by its eventfd.
pub(super) fn enable_irqs(
    device: impl AsFd,
    index: u32,
    eventfds: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER;
    set_irqs(device, index, flags, eventfds.len() as u32, eventfds)
}

/// Lets an interrupt that the kernel masks when it comes (`INTx`) come again.
pub(super) fn unmask_irq(device: impl AsFd, index: u32) -> io::Result<()> {
    set_irqs(device, index, VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_UNMASK, 1, &[])
}

/// Resets the function. Its configuration stays.
pub(super) fn reset(device: impl AsFd) -> io::Result<()> {
    with_number(device, vfio(request::DEVICE_RESET), 0).map(drop)
}
