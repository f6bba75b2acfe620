//! What the kernel says about the I/OAT functions in this machine, and moving them between drivers.
//!
//! All of it is read from the kernel's files: `/sys/bus/pci`, `/sys/kernel/iommu_groups`, `/dev/vfio`,
//! `/proc`. A function is opened for none of it, so nobody who uses it is disturbed.
//!
//! ```text
//!            bind                        vfio::open
//!   ioatdma ------> vfio-pci, idle <------------------> in use by a process
//!           <------
//!            unbind
//! ```
//!
//! [`Sysfs::functions`] lists them. [`Sysfs::obstacles`] says why one cannot be opened over VFIO, and
//! each [`Obstacle`] what would change it. [`Sysfs::bind`] and [`Sysfs::unbind`] move one.
//!
//! ```no_run
//! use ioatdma::sysfs::Sysfs;
//!
//! let sysfs = Sysfs::new();
//! for function in sysfs.functions()? {
//!     println!("{} {}", function.address, function.family);
//!     for obstacle in sysfs.obstacles(&function) {
//!         println!("    {obstacle}: {}", obstacle.remedy());
//!     }
//! }
//! # Ok::<(), std::io::Error>(())
//! ```

mod address;
mod bind;
mod function;
mod nodes;
mod obstacle;
#[cfg(test)]
mod tree;
mod users;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

pub use address::{ParseAddressError, PciAddress};
pub use bind::{BindError, Moved};
pub use function::{FindError, Group, IoatFunction, KernelChannel, Member};
pub use nodes::Nodes;
pub use obstacle::Obstacle;
pub use users::User;

/// The driver that makes a PCI function reachable for a process.
pub const VFIO_PCI: &str = "vfio-pci";

/// The kernel's files, below a root folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sysfs {
    root: PathBuf,
}

impl Default for Sysfs {
    fn default() -> Self {
        Self::new()
    }
}

impl Sysfs {
    /// This machine's: the root folder is `/`.
    #[must_use]
    pub fn new() -> Self {
        Self::at("/")
    }

    /// Those below `root`, which has `sys`, `dev` and `proc` in it: a container's view, or a made-up
    /// machine's.
    #[must_use]
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// A path below the root, given without its leading slash.
    fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        self.root.join(path)
    }

    /// The folder of a PCI function.
    fn device(&self, address: PciAddress) -> PathBuf {
        self.path("sys/bus/pci/devices").join(address.to_string())
    }

    /// The folder of a PCI driver: it exists while the driver is there to be bound.
    fn driver(&self, name: &str) -> PathBuf {
        self.path("sys/bus/pci/drivers").join(name)
    }

    /// Whether the kernel's command line forbids a module (`module_blacklist=`), under any spelling.
    fn is_denied(&self, module: &str) -> bool {
        let line = fs::read_to_string(self.path("proc/cmdline")).unwrap_or_default();
        let lists =
            line.split_whitespace().filter_map(|word| word.strip_prefix("module_blacklist="));
        let mut denied = lists.flat_map(|list| list.split(','));
        denied.any(|name| name.replace('-', "_") == module.replace('-', "_"))
    }
}

/// The text of a file of the kernel's, without the newline; `None` if there is no such file.
fn text(path: &Path) -> io::Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The last part of where a link leads; `None` if there is no such link.
fn link_name(path: &Path) -> Option<String> {
    let target = fs::read_link(path).ok()?;
    Some(target.file_name()?.to_str()?.to_owned())
}

/// The names in a folder that can be read as a `T`, sorted; none if there is no such folder.
fn names<T: std::str::FromStr + Ord>(folder: &Path) -> Vec<T> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<T> =
        entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    names.sort_unstable();
    names
}
