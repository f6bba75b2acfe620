use clap::Args;
use ioatdma::sysfs::{Moved, PciAddress, Sysfs};

use crate::{
    command::bind::{not_moved, report},
    failure::Failure,
};

/// Gives an I/OAT function back to the kernel's driver.
///
/// A function that a process has open is left alone. Needs root.
#[derive(Debug, Args)]
#[command(after_help = "Example: ioat unbind 0000:00:04.0")]
pub(crate) struct Unbind {
    /// The function, as `ioat devices` lists it.
    address: PciAddress,
}

impl Unbind {
    pub(crate) fn run(&self) -> Result<(), Failure> {
        let moved = Sysfs::new().unbind(self.address).map_err(not_moved)?;
        report(self.address, &moved, "vfio-pci does not have it");
        if let Moved::To { to: None, .. } = moved {
            println!(
                "No driver of the kernel's wants it: modprobe ioatdma, if it should be used there."
            );
        }
        Ok(())
    }
}
