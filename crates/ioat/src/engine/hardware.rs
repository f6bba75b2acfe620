//! The engine `ioat:PCI-ADDRESS`: the I/OAT driver on hardware, over VFIO.

use std::sync::Arc;

use dmaengine::DmaDevice;
use ioatdma::{
    IoatDevice, Options, ProbeError,
    sysfs::{PciAddress, Sysfs},
    vfio,
};

/// Why the engine could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// VFIO does not give it to this process.
    #[error(transparent)]
    Vfio(#[from] vfio::OpenError),
    /// The driver refused it.
    #[error("the driver refused {address}: {source}")]
    Probe {
        /// The function.
        address: PciAddress,
        /// Why.
        source: ProbeError,
    },
}

/// Opens the I/OAT function at a PCI address for this process alone, and starts the driver on it. It is
/// closed when the returned device and all its channels have been dropped.
///
/// # Errors
///
/// See [`OpenError`].
pub fn open(address: PciAddress, options: Options) -> Result<Arc<dyn DmaDevice>, OpenError> {
    let resources = vfio::open(&Sysfs::new(), address)?;
    let device = IoatDevice::probe(resources, options);
    Ok(Arc::new(device.map_err(|source| OpenError::Probe { address, source })?))
}

/// The first I/OAT function of the machine that can be opened and that nobody has open; `None` if there
/// is none.
#[must_use]
pub fn open_any(options: &Options) -> Option<Arc<dyn DmaDevice>> {
    let sysfs = Sysfs::new();
    let functions = sysfs.functions().ok()?;
    let free = functions.into_iter().filter(|function| {
        sysfs.obstacles(function).is_empty() && sysfs.users(function).is_empty()
    });
    free.into_iter().find_map(|function| open(function.address, options.clone()).ok())
}
