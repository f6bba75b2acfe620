use clap::Args;
use ioatdma::sysfs::{BindError, Moved, PciAddress, Sysfs};

use crate::{command::machine, failure::Failure};

/// Gives an I/OAT function to vfio-pci, so that `--engine ioat:ADDRESS` can open it.
///
/// Until it is given back (`ioat unbind`) the kernel does not use it. A function whose channels the
/// kernel uses is left alone. Needs root.
#[derive(Debug, Args)]
#[command(after_help = "Example: ioat bind 0000:00:04.0")]
pub(crate) struct Bind {
    /// The function, as `ioat devices` lists it.
    address: PciAddress,
}

impl Bind {
    pub(crate) fn run(&self) -> Result<(), Failure> {
        let sysfs = Sysfs::new();
        let moved = sysfs.bind(self.address).map_err(not_moved)?;
        report(self.address, &moved, "vfio-pci has it already");
        let Ok(function) = sysfs.function(self.address) else { return Ok(()) };
        for obstacle in sysfs.obstacles(&function) {
            println!("It cannot be opened yet: {obstacle}.");
            println!("    {}", obstacle.remedy());
        }
        Ok(())
    }
}

/// Says who had the function and who has it.
pub(super) fn report(address: PciAddress, moved: &Moved, already: &str) {
    match moved {
        Moved::Already => println!("{address}: {already}"),
        Moved::To { from, to } => {
            let name = |driver: &Option<String>| driver.clone().unwrap_or_else(|| "none".into());
            println!("{address}: {} -> {}", name(from), name(to));
        }
    }
}

/// What the kernel did not do broke off; the rest is for the machine's owner to change.
pub(super) fn not_moved(error: BindError) -> Failure {
    match error {
        BindError::Refused { .. } | BindError::NotTaken { .. } => {
            Failure::Failed(error.to_string())
        }
        _ => machine(error),
    }
}
