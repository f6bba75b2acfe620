//! Moving a function between the kernel's driver and vfio-pci.

use std::{fs, io, path::Path};

use super::{FindError, IoatFunction, Obstacle, PciAddress, Sysfs, User, VFIO_PCI};

/// What became of a function that was to be moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Moved {
    /// It was there already. Nothing was changed.
    Already,
    /// It has another driver now, or none.
    To {
        /// The driver that had it.
        from: Option<String>,
        /// The driver that has it.
        to: Option<String>,
    },
}

/// Why a function was not moved. It has the driver that it had.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// There is no such I/OAT function.
    #[error(transparent)]
    Find(#[from] FindError),
    /// vfio-pci would not take it: it is not there, or there is no IOMMU.
    #[error("vfio-pci cannot have it: {0} ({remedy})", remedy = .0.remedy())]
    Obstacle(Obstacle),
    /// Clients in the kernel hold channels of it.
    #[error(
        "the kernel uses {channels} of {address}: stop what does (rmmod dmatest, async_tx or \
         ntb_transport, say), then try again",
        channels = .channels.join(", ")
    )]
    ChannelsInUse {
        /// The function.
        address: PciAddress,
        /// Those channels.
        channels: Vec<String>,
    },
    /// Processes have it open.
    #[error("{address} is open in {users}: end that first", users = list(.users))]
    Open {
        /// The function.
        address: PciAddress,
        /// Those processes.
        users: Vec<User>,
    },
    /// A driver has it that is neither the kernel's for I/OAT nor VFIO's.
    #[error(
        "the driver {driver} has {address}, and what it does there is not known here: unbind it by \
         hand (echo {address} > /sys/bus/pci/drivers/{driver}/unbind), then try again"
    )]
    ForeignDriver {
        /// The function.
        address: PciAddress,
        /// That driver.
        driver: String,
    },
    /// This process may not write the kernel's files.
    #[error("moving {address} to another driver takes root: run as root, with /sys writable")]
    NotRoot {
        /// The function.
        address: PciAddress,
    },
    /// The kernel refused a step.
    #[error("the kernel refused to move {address} ({step}: {source}): see dmesg")]
    Refused {
        /// The function.
        address: PciAddress,
        /// The file that could not be written.
        step: &'static str,
        /// What the system answered.
        source: io::Error,
    },
    /// vfio-pci did not take it, although every step succeeded.
    #[error(
        "vfio-pci does not take {address}; it has its old driver again: see dmesg (vfio-pci has a \
         list of devices that it denies, and refuses functions with virtual functions enabled)"
    )]
    NotTaken {
        /// The function.
        address: PciAddress,
    },
}

/// The kernel's driver for these functions.
const IOATDMA: &str = "ioatdma";
/// The driver that does nothing but keep others away.
const STUB: &str = "pci-stub";
/// What clears `driver_override`.
const NOTHING: &str = "\n";

fn list(users: &[User]) -> String {
    let names: Vec<_> = users.iter().map(User::to_string).collect();
    names.join(", ")
}

/// Writes a text to one of the kernel's files.
type Write<'a> = dyn FnMut(&Path, &str) -> io::Result<()> + 'a;

impl Sysfs {
    /// Gives a function to vfio-pci, so that a process can open it. If vfio-pci has it, nothing is
    /// done; if it does not take it, the function goes back to the driver it had.
    ///
    /// Between the look at the users of the channels and the move another may come. The kernel has no
    /// way to do both at once.
    ///
    /// # Errors
    ///
    /// See [`BindError`].
    pub fn bind(&self, address: PciAddress) -> Result<Moved, BindError> {
        Move { sysfs: self, address, write: &mut |path, text| fs::write(path, text) }.bind()
    }

    /// Takes a function from vfio-pci and lets the kernel's drivers have it. If vfio-pci does not
    /// have it, nothing is done. It may be that no driver takes it: that is no error.
    ///
    /// # Errors
    ///
    /// See [`BindError`].
    pub fn unbind(&self, address: PciAddress) -> Result<Moved, BindError> {
        Move { sysfs: self, address, write: &mut |path, text| fs::write(path, text) }.unbind()
    }
}

struct Move<'a> {
    sysfs: &'a Sysfs,
    address: PciAddress,
    write: &'a mut Write<'a>,
}

impl Move<'_> {
    fn bind(mut self) -> Result<Moved, BindError> {
        let address = self.address;
        let before = self.sysfs.function(address)?;
        if before.is_bound_to_vfio() {
            return Ok(Moved::Already);
        }
        let obstacle = self.sysfs.no_iommu(&before).or_else(|| self.sysfs.vfio_pci_missing());
        if let Some(obstacle) = obstacle {
            return Err(BindError::Obstacle(obstacle));
        }
        match before.driver.as_deref() {
            None | Some(IOATDMA | STUB) => {}
            Some(driver) => {
                return Err(BindError::ForeignDriver { address, driver: driver.to_owned() });
            }
        }
        let busy = before.channels.iter().filter(|channel| channel.in_use > 0);
        let channels: Vec<_> = busy.map(|channel| channel.name.clone()).collect();
        if !channels.is_empty() {
            return Err(BindError::ChannelsInUse { address, channels });
        }
        let result = self.try_to(&before, VFIO_PCI).and_then(|to| match to {
            Some(driver) if driver == VFIO_PCI => {
                Ok(Moved::To { from: before.driver.clone(), to: Some(driver) })
            }
            _ => Err(BindError::NotTaken { address }),
        });
        if result.is_err() {
            self.restore(&before);
        }
        result
    }

    fn unbind(mut self) -> Result<Moved, BindError> {
        let address = self.address;
        let before = self.sysfs.function(address)?;
        let reserved = before.driver_override.as_deref() == Some(VFIO_PCI);
        if !before.is_bound_to_vfio() && !reserved {
            return Ok(Moved::Already);
        }
        let users = self.sysfs.users(&before);
        if !users.is_empty() {
            return Err(BindError::Open { address, users });
        }
        match self.try_to(&before, NOTHING) {
            Ok(to) => Ok(Moved::To { from: before.driver, to }),
            Err(error) => {
                self.restore(&before);
                Err(error)
            }
        }
    }

    /// Takes the function from its driver and lets those look at it that `driver_override` allows.
    /// Returns the driver that has it then.
    fn try_to(
        &mut self,
        before: &IoatFunction,
        driver_override: &str,
    ) -> Result<Option<String>, BindError> {
        self.set_override(driver_override)?;
        if let Some(driver) = &before.driver {
            let unbind = self.sysfs.driver(driver).join("unbind");
            self.step(&unbind, "unbind", &self.address.to_string())?;
        }
        self.probe()?;
        Ok(self.sysfs.function(self.address)?.driver)
    }

    /// Undoes what was done. What the kernel refuses now it would refuse again: the error that led
    /// here says more.
    fn restore(&mut self, before: &IoatFunction) {
        let _ = self.set_override(before.driver_override.as_deref().unwrap_or(NOTHING));
        let now = self.sysfs.function(self.address).ok().and_then(|function| function.driver);
        if let Some(driver) = &before.driver
            && now != before.driver
        {
            let bind = self.sysfs.driver(driver).join("bind");
            let _ = self.step(&bind, "bind", &self.address.to_string());
        }
    }

    fn set_override(&mut self, driver: &str) -> Result<(), BindError> {
        let path = self.sysfs.device(self.address).join("driver_override");
        self.step(&path, "driver_override", driver)
    }

    fn probe(&mut self) -> Result<(), BindError> {
        let path = self.sysfs.path("sys/bus/pci/drivers_probe");
        self.step(&path, "drivers_probe", &self.address.to_string())
    }

    fn step(&mut self, path: &Path, step: &'static str, text: &str) -> Result<(), BindError> {
        let address = self.address;
        (self.write)(path, text).map_err(|source| match source.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                BindError::NotRoot { address }
            }
            _ => BindError::Refused { address, step, source },
        })
    }
}

#[cfg(test)]
mod tests;
