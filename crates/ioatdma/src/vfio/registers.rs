//! BAR 0, mapped.

use std::{
    os::fd::AsFd,
    ptr::NonNull,
    sync::atomic::{Ordering, compiler_fence},
};

use rustix::mm::{Advice, MapFlags, ProtFlags};
use vfio_bindings::bindings::vfio::{
    VFIO_PCI_BAR0_REGION_INDEX, VFIO_REGION_INFO_FLAG_MMAP, VFIO_REGION_INFO_FLAG_READ,
    VFIO_REGION_INFO_FLAG_WRITE,
};

use super::{OpenError, ioctl};
use crate::sysfs::PciAddress;

/// All registers lie in the first page: channel `i`'s begin at `0x80 * (i + 1)`. What is behind it is
/// the MSI-X table, which is the kernel's, so it is not mapped.
const PAGE: u64 = 4096;

/// The device's registers. Unmapped on drop.
#[derive(Debug)]
pub(super) struct Registers {
    base: NonNull<u8>,
    /// At most a page.
    size: u64,
}

// SAFETY: the mapping is process-wide, and accessing it from several threads is what `Bar` is for:
// each access is one load or store.
unsafe impl Send for Registers {}
// SAFETY: as above.
unsafe impl Sync for Registers {}

/// What a register can be read or written as.
pub(super) trait Word: Copy {
    /// What a read gives where no device answers.
    const NOBODY: Self;
}

impl Word for u8 {
    const NOBODY: Self = Self::MAX;
}

impl Word for u16 {
    const NOBODY: Self = Self::MAX;
}

impl Word for u32 {
    const NOBODY: Self = Self::MAX;
}

impl Word for u64 {
    const NOBODY: Self = Self::MAX;
}

impl Registers {
    /// Maps BAR 0 of an open function.
    pub(super) fn map(device: impl AsFd, address: PciAddress) -> Result<Self, OpenError> {
        let system = |call| move |source| OpenError::System { call, source };
        let region = ioctl::region(&device, VFIO_PCI_BAR0_REGION_INDEX)
            .map_err(system("VFIO_DEVICE_GET_REGION_INFO"))?;
        let needed =
            VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE | VFIO_REGION_INFO_FLAG_MMAP;
        if region.size == 0 || region.flags & needed != needed {
            return Err(OpenError::NotMappable { address, size: region.size });
        }
        // SAFETY: a fresh mapping at an address of the kernel's choice changes no existing memory.
        let base = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                PAGE as usize,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                &device,
                region.offset,
            )
        };
        let base =
            base.map_err(|errno| OpenError::System { call: "mmap", source: errno.into() })?;
        let base = NonNull::new(base.cast()).expect("the kernel maps nothing at 0 unasked");
        let registers = Self { base, size: region.size.min(PAGE) };
        // A forked child has no business with them, and would keep the device open.
        // SAFETY: the range is our own mapping; the advice changes nothing of this process's.
        let advised = unsafe {
            rustix::mm::madvise(base.as_ptr().cast(), PAGE as usize, Advice::LinuxDontFork)
        };
        match advised {
            Ok(()) => Ok(registers),
            Err(errno) => Err(OpenError::System { call: "madvise", source: errno.into() }),
        }
    }

    /// The length in bytes.
    pub(super) const fn size(&self) -> u64 {
        self.size
    }

    /// Where a register is; `None` if a part of it lies behind the end, or it is not aligned.
    fn at<T>(&self, offset: u64) -> Option<*mut T> {
        let width = size_of::<T>() as u64;
        let inside =
            offset.is_multiple_of(width) && offset < self.size && self.size - offset >= width;
        // SAFETY: within the mapping.
        inside.then(|| unsafe { self.base.as_ptr().add(offset as usize).cast() })
    }

    /// Reads a register: all ones behind the end, as of a device that is not there.
    pub(super) fn read<T: Word>(&self, offset: u64) -> T {
        let Some(register) = self.at::<T>(offset) else { return T::NOBODY };
        // The processor: loads are not reordered with each other, and a load from uncached memory
        // (vfio-pci maps BARs so) is neither speculated nor merged. The bus: the answer pushes the
        // device's earlier writes before it. So no instruction is needed before looking at memory
        // that the device says it has written.
        // SAFETY: within the mapping, aligned, and any bits are a `T`. The device is the other side,
        // not Rust's; it is read by one instruction.
        let value = unsafe { register.read_volatile() };
        // The compiler: what is loaded after this, from memory, is not loaded before.
        compiler_fence(Ordering::Acquire);
        value
    }

    /// Writes a register; nothing behind the end.
    pub(super) fn write<T: Word>(&self, offset: u64, value: T) {
        let Some(register) = self.at::<T>(offset) else { return };
        // The compiler: descriptors and data stored before this, in memory, are not stored after.
        compiler_fence(Ordering::Release);
        // The processor: stores to uncached memory come after all earlier stores, because stores are
        // not reordered with each other (only non-temporal ones are, and whoever makes those has to
        // fence them, as `memcpy` does). The device reads through the caches' coherence, so what is
        // stored is what it sees. No instruction is needed before a doorbell.
        //
        // The write may still be on its way when this returns: it is posted. Who must know that it
        // has arrived reads a register, which cannot pass it.
        // SAFETY: as in `read`; what a store does to the device is its own affair: it reaches only
        // memory that was mapped for it.
        unsafe { register.write_volatile(value) };
    }
}

impl Drop for Registers {
    fn drop(&mut self) {
        // SAFETY: what mmap returned; no pointer into it outlives a call.
        let unmapped = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), PAGE as usize) };
        debug_assert_eq!(unmapped, Ok(()), "munmap of our own mapping");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A page of memory in place of a device's.
    fn page(size: u64) -> Registers {
        // SAFETY: a fresh mapping.
        let base = unsafe {
            rustix::mm::mmap_anonymous(
                std::ptr::null_mut(),
                PAGE as usize,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE,
            )
        };
        Registers { base: NonNull::new(base.unwrap().cast()).unwrap(), size }
    }

    #[test]
    fn words_of_each_width_where_they_belong() {
        let registers = page(PAGE);
        registers.write(0x88, 0x1122_3344_5566_7788_u64);
        assert_eq!(registers.read::<u8>(0x88), 0x88);
        assert_eq!(registers.read::<u16>(0x8a), 0x5566);
        assert_eq!(registers.read::<u32>(0x8c), 0x1122_3344);
        registers.write(0x8f, 0xaa_u8);
        registers.write(0x88, 0xbbbb_u16);
        assert_eq!(registers.read::<u64>(0x88), 0xaa22_3344_5566_bbbb);
        assert_eq!(registers.read::<u64>(0x90), 0);
    }

    #[test]
    fn nothing_behind_the_end_or_across_it() {
        let registers = page(0x101);
        for offset in [0x100, 0x101, 0x102, PAGE, PAGE - 4, u64::MAX, u64::MAX - 3, 2] {
            registers.write(offset, 0u32);
            assert_eq!(registers.read::<u32>(offset), u32::MAX, "{offset:#x}");
        }
        registers.write(0x100, 5u8);
        assert_eq!(registers.read::<u8>(0x100), 5);
        assert_eq!(registers.read::<u8>(0x101), 0xff);
        assert_eq!(registers.read::<u64>(0xf8), 0);
    }
}
