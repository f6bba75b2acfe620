//! I/OAT hardware over Linux's VFIO: registers, mappings, interrupts and configuration space of a PCI
//! function that this process is given for itself.
//!
//! # Model
//!
//! The driver vfio-pci holds the function in the kernel's name
//! ([`Sysfs::bind`](crate::sysfs::Sysfs::bind) gives it the function) and an IOMMU stands before it:
//! whatever is written into its descriptors, it reaches what this process has mapped, and nothing
//! else. Each open function has an address space of its own.
//!
//! ```text
//!    process                       kernel                      machine
//!    Bar: loads and stores ------------------------------------> BAR 0
//!    Platform::map    ------------> container or iommufd ------> IOMMU  <-- DMA -- function
//!    Platform::vector <- eventfd --- interrupt handler <--------------- MSI-X -- function
//!    Platform::config_read32 -----> vfio-pci ------------------> configuration space
//! ```
//!
//! There are two ways to it, and [`open`] takes what the system has: *iommufd* with a file for each
//! function (`/dev/iommu`, `/dev/vfio/devices/vfio0`; Linux 6.6 and newer), or a *container* with a
//! file for each IOMMU group (`/dev/vfio/vfio`, `/dev/vfio/7`).
//!
//! # Mappings
//!
//! An arena is mapped once, whole, and stays mapped: there is no unmapping, in no type here. Arenas are
//! released when the last handle to the function is gone, after its file has been closed: then the
//! kernel has reset it and taken its access to memory away. (Should a forked child keep the file open,
//! the pages stay the kernel's: it pins what is mapped, and hands no pinned page to anybody else.)
//!
//! The lowest free addresses that the IOMMU allows are given out. They are not the process's, so that
//! an address that was not translated faults instead of hitting something.
//!
//! # Order of accesses
//!
//! Registers are accessed by volatile loads and stores of the register's width; no reference to them
//! exists. Which fences stand beside them, and which need not, is said in the source at each, for x86:
//! the module exists on `x86_64` only, which is where the devices are.

mod config;
mod error;
mod fork;
mod info;
mod interrupts;
mod ioctl;
mod iommu;
mod iova;
mod registers;

use std::{
    fmt, io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
    time::Duration,
};

use dmaengine::{Arena, Kind, MapError};
pub use error::{NotMapped, OpenError};
use vfio_bindings::bindings::vfio::{VFIO_DEVICE_FLAGS_PCI, VFIO_DEVICE_FLAGS_RESET};

use self::{config::ConfigSpace, interrupts::Vectors, iommu::Mappings, registers::Registers};
use crate::{
    Bar, Interrupts, Platform, Resources,
    sysfs::{IoatFunction, Nodes, PciAddress, Sysfs},
};

/// What the addresses of a descriptor reach: 64 bits. (The IOMMU's are fewer, and the kernel tells.)
const DMA_MASK: u64 = u64::MAX;

/// Opens the function at `address` for this process alone, resets it, and makes what the
/// [driver](crate::IoatDevice::probe) needs of it. It is closed when all of that has been dropped.
///
/// ```no_run
/// use ioatdma::{IoatDevice, Options, sysfs::Sysfs, vfio};
///
/// let resources = vfio::open(&Sysfs::new(), "0000:00:04.0".parse()?)?;
/// let device = IoatDevice::probe(resources, Options::default())?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// See [`OpenError`]; nothing is changed then.
pub fn open(sysfs: &Sysfs, address: PciAddress) -> Result<Resources, OpenError> {
    let function = sysfs.function(address)?;
    let obstacles = sysfs.obstacles(&function);
    if !obstacles.is_empty() {
        return Err(OpenError::Obstacles { address, obstacles });
    }
    let ways = sysfs
        .nodes(&function)
        .map_err(|obstacle| OpenError::Obstacles { address, obstacles: vec![obstacle] })?;
    let mut first_error = None;
    for nodes in &ways {
        match open_through(sysfs, &function, nodes) {
            Ok(resources) => return Ok(resources),
            Err(error) => {
                first_error.get_or_insert(error);
            }
        }
    }
    Err(first_error.expect("there is a way where there is no obstacle"))
}

/// As [`open`], one way of several.
///
/// # Errors
///
/// See [`OpenError`]; nothing is changed then.
pub fn open_through(
    sysfs: &Sysfs,
    function: &IoatFunction,
    nodes: &Nodes,
) -> Result<Resources, OpenError> {
    let opened = Arc::new(Opened::new(sysfs, function, nodes)?);
    Ok(Resources {
        engine: format!("ioat:{}", function.address),
        kind: Kind::Hardware,
        id: function.id,
        numa_node: function.numa_node,
        bar: Arc::clone(&opened) as _,
        platform: opened,
    })
}

/// An open function.
struct Opened {
    // The order is that of dropping. The mapping of the registers keeps the file open, so it goes
    // first; with the file the function's access to memory ends, and only then may the memory go.
    registers: Registers,
    device: OwnedFd,
    vectors: Vectors,
    config: ConfigSpace,
    mappings: Mappings,
}

impl Opened {
    fn new(sysfs: &Sysfs, function: &IoatFunction, nodes: &Nodes) -> Result<Self, OpenError> {
        let (device, mappings) = iommu::open(sysfs, function, nodes, DMA_MASK)?;
        let system = |call| move |source: io::Error| OpenError::System { call, source };
        let flags = ioctl::device_flags(&device).map_err(system("VFIO_DEVICE_GET_INFO"))?;
        if flags & VFIO_DEVICE_FLAGS_PCI == 0 {
            let source = io::ErrorKind::Unsupported.into();
            return Err(OpenError::System { call: "VFIO_DEVICE_GET_INFO", source });
        }
        let config = ConfigSpace::new(&device).map_err(system("VFIO_DEVICE_GET_REGION_INFO"))?;
        if flags & VFIO_DEVICE_FLAGS_RESET != 0 {
            // What an earlier owner left running ends here, also if it was killed.
            ioctl::reset(&device).map_err(system("VFIO_DEVICE_RESET"))?;
        }
        config.enable(&device).map_err(system("write to configuration space"))?;
        let registers = Registers::map(&device, function.address)?;
        let vectors = Vectors::enable(&device).map_err(system("eventfd"))?;
        Ok(Self { registers, device, vectors, config, mappings })
    }
}

/// Delays from here on are slept through; shorter ones would take far longer that way.
const SLEEP: Duration = Duration::from_micros(100);

impl Bar for Opened {
    fn size(&self) -> u64 {
        self.registers.size()
    }

    fn read8(&self, offset: u64) -> u8 {
        self.registers.read(offset)
    }

    fn read16(&self, offset: u64) -> u16 {
        self.registers.read(offset)
    }

    fn read32(&self, offset: u64) -> u32 {
        self.registers.read(offset)
    }

    fn read64(&self, offset: u64) -> u64 {
        self.registers.read(offset)
    }

    fn write8(&self, offset: u64, value: u8) {
        self.registers.write(offset, value);
    }

    fn write16(&self, offset: u64, value: u16) {
        self.registers.write(offset, value);
    }

    fn write32(&self, offset: u64, value: u32) {
        self.registers.write(offset, value);
    }

    fn write64(&self, offset: u64, value: u64) {
        self.registers.write(offset, value);
    }

    fn delay(&self, duration: Duration) {
        if duration >= SLEEP {
            std::thread::sleep(duration);
            return;
        }
        let start = std::time::Instant::now();
        while start.elapsed() < duration {
            std::hint::spin_loop();
        }
    }
}

// SAFETY: `Mappings` maps exactly the arena, at addresses that it gives out once, and keeps a handle
// to it, which is dropped after the function's file was closed (see the fields of `Opened`).
unsafe impl Platform for Opened {
    fn map(&self, arena: &Arena) -> Result<u64, MapError> {
        fork::check(arena)?;
        Ok(self.mappings.map(arena)?)
    }

    fn interrupts(&self) -> Interrupts {
        self.vectors.interrupts()
    }

    fn vector(&self, vector: usize) -> Option<BorrowedFd<'_>> {
        self.vectors.get(vector).map(AsFd::as_fd)
    }

    fn unmask(&self) {
        self.vectors.unmask(&self.device);
    }

    fn restore_vectors(&self) {
        self.vectors.restore(&self.device);
    }

    fn config_read32(&self, offset: u16) -> u32 {
        self.config.read32(&self.device, offset)
    }

    fn config_write32(&self, offset: u16, value: u32) {
        self.config.write32(&self.device, offset, value);
    }

    fn dca_enabled(&self) -> bool {
        crate::quirks::dca_enabled()
    }
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened")
            .field("registers", &self.registers)
            .field("vectors", &self.vectors)
            .finish_non_exhaustive()
    }
}
