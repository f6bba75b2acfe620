mod function;
mod row;

use clap::Args;
use dmaengine::Registry;
use ioat::engine::EngineName;
use ioatdma::sysfs::Sysfs;

use self::{function::Found, row::Row};
use crate::{
    command::{machine, print_json},
    failure::Failure,
};

/// Lists the DMA channels that this machine and this build offer, and the I/OAT functions in it.
///
/// Of an I/OAT function that can be opened and that nobody has open, the channels are listed: it is
/// opened for that, and reset. For each other one stands why it cannot be used, and what would change
/// that.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Devices {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

const AFTER_HELP: &str = "Example: ioat devices --json

The document is an array of rows, a channel each: name, engine, kind, version, caps, in_use, memcpy_count,
bytes_transferred. An I/OAT function that cannot be used is one row with its address for a name, no caps,
and the kernel's counts. All rows also have
  usable     whether the engine can be opened now
  reasons    why not: objects of reason (a word, see below), why, remedy (null if why says it)
  function   null, or the PCI function: address, id, family, driver, iommu_group, numa_node
Reasons are firmware, no-iommu, iommu-group, kernel-denylist, module, driver, not-bound, no-node, permission,
in-use, and not-opened for what shows only when it is opened.";

impl Devices {
    pub(crate) fn run(&self) -> Result<(), Failure> {
        let registry = Registry::new();
        for name in
            [EngineName::Cpu, EngineName::Threads(1), EngineName::Model(ioat_model::Version::V3_2)]
        {
            registry.register(name.open().map_err(machine)?);
        }
        let sysfs = Sysfs::new();
        let functions = sysfs.functions().map_err(machine)?;
        let mut unusable = Vec::new();
        let mut usable = Vec::new();
        for function in functions {
            let found = Found::look(&sysfs, function);
            match found.open() {
                Ok(device) => {
                    registry.register(device);
                    usable.push(found);
                }
                Err(reasons) => unusable.push(Row::of_function(&found, reasons)),
            }
        }
        let channels = registry.list().into_iter().map(|channel| {
            let found = usable.iter().find(|found| found.engine() == channel.info.engine);
            Row::of_channel(channel, found)
        });
        let rows: Vec<Row> = channels.chain(unusable).collect();
        if self.json {
            print_json(&rows);
        } else {
            row::print(&rows);
        }
        Ok(())
    }
}
