//! Why a function cannot be opened over VFIO, and what would change it.

use std::{fmt, fs, path::PathBuf};

use super::{IoatFunction, Member, PciAddress, Sysfs, VFIO_PCI};

/// One reason why a function cannot be opened. Its text says why, its [remedy](Self::remedy) what
/// would change that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// BAR 0, where the registers are, has no addresses.
    NoRegisters,
    /// No IOMMU stands before the function, so that a process with it could reach all memory.
    NoIommu {
        /// Whether the kernel drives an IOMMU at all.
        machine_has_one: bool,
    },
    /// Others of its IOMMU group have drivers that do DMA in the kernel's name.
    GroupNotViable {
        /// The group.
        group: u32,
        /// Those others.
        others: Vec<Member>,
    },
    /// The kernel's command line forbids the module that it takes.
    ModuleDenied {
        /// The module.
        module: &'static str,
    },
    /// The module that it takes is not loaded.
    ModuleMissing {
        /// The module.
        module: &'static str,
    },
    /// No driver has it.
    NotBound {
        /// Where the function is.
        address: PciAddress,
    },
    /// Another driver than vfio-pci has it.
    OtherDriver {
        /// Where the function is.
        address: PciAddress,
        /// The driver.
        driver: String,
        /// The channels of it that clients in the kernel hold.
        busy_channels: Vec<String>,
    },
    /// A file that it is opened through does not exist.
    NoNode {
        /// The file.
        path: PathBuf,
    },
    /// A file that it is opened through is closed to this user.
    Permission {
        /// The file.
        path: PathBuf,
    },
}

impl Obstacle {
    /// A word for it, which stays the same from version to version.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::NoRegisters => "firmware",
            Self::NoIommu { .. } => "no-iommu",
            Self::GroupNotViable { .. } => "iommu-group",
            Self::ModuleDenied { .. } => "kernel-denylist",
            Self::ModuleMissing { .. } => "module",
            Self::NotBound { .. } => "not-bound",
            Self::OtherDriver { .. } => "driver",
            Self::NoNode { .. } => "no-node",
            Self::Permission { .. } => "permission",
        }
    }

    /// What would change it.
    #[must_use]
    pub fn remedy(&self) -> String {
        match self {
            Self::NoRegisters => {
                "enable the DMA engine in the firmware's settings (CBDMA, I/OAT or \
                                  Crystal Beach), or let the kernel assign addresses: boot with \
                                  pci=realloc"
                    .to_owned()
            }
            Self::NoIommu { machine_has_one: false } => {
                "enable VT-d (AMD: AMD-Vi) in the firmware's settings and boot with \
                 intel_iommu=on iommu=pt"
                    .to_owned()
            }
            Self::NoIommu { machine_has_one: true } => {
                "boot with intel_iommu=on; if it stays so, the firmware's DMAR table leaves this \
                 function out, or Linux does because the table is wrong (5400 series): see dmesg, \
                 and the firmware's updates"
                    .to_owned()
            }
            Self::GroupNotViable { others, .. } => {
                let names: Vec<_> = others.iter().map(|other| other.address.to_string()).collect();
                format!(
                    "take them from their drivers too (echo ADDRESS > \
                     /sys/bus/pci/devices/ADDRESS/driver/unbind for {}), if nothing needs them",
                    names.join(", ")
                )
            }
            Self::ModuleDenied { module } => {
                format!("take {module} out of module_blacklist= on the kernel's command line")
            }
            Self::ModuleMissing { module } => format!("as root: modprobe {module}"),
            Self::NotBound { address } => format!("as root: ioat bind {address}"),
            Self::OtherDriver { address, busy_channels, .. } if busy_channels.is_empty() => {
                format!("as root: ioat bind {address}")
            }
            Self::OtherDriver { address, .. } => format!(
                "stop what uses them (rmmod dmatest, async_tx or ntb_transport, say), then as root: \
                 ioat bind {address}"
            ),
            Self::NoNode { path } if path.ends_with("iommu") => {
                "as root: modprobe iommufd".to_owned()
            }
            Self::NoNode { path } if path.ends_with("vfio/vfio") => {
                "as root: modprobe vfio_iommu_type1".to_owned()
            }
            Self::NoNode { .. } => "give it to this container (docker run --device), or let udev \
                                    make it"
                .to_owned(),
            Self::Permission { path } => {
                format!("as root: chown USER {} (a udev rule does it for good)", path.display())
            }
        }
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRegisters => f.write_str("the firmware gave its registers no addresses"),
            Self::NoIommu { machine_has_one: false } => f.write_str("the kernel drives no IOMMU"),
            Self::NoIommu { machine_has_one: true } => f.write_str("it is behind no IOMMU"),
            Self::GroupNotViable { group, others } => {
                write!(f, "the kernel does DMA with others of its IOMMU group {group}: ")?;
                for (index, Member { address, driver }) in others.iter().enumerate() {
                    let separator = if index == 0 { "" } else { ", " };
                    write!(f, "{separator}{address} ({})", driver.as_deref().unwrap_or("-"))?;
                }
                Ok(())
            }
            Self::ModuleDenied { module } => {
                write!(f, "the kernel's command line forbids the module {module}")
            }
            Self::ModuleMissing { module } => write!(f, "the module {module} is not loaded"),
            Self::NotBound { .. } => f.write_str("no driver has it"),
            Self::OtherDriver { driver, busy_channels, .. } if busy_channels.is_empty() => {
                write!(f, "the driver {driver} has it")
            }
            Self::OtherDriver { driver, busy_channels, .. } => {
                let channels = busy_channels.join(", ");
                write!(f, "the driver {driver} has it, and the kernel uses {channels}")
            }
            Self::NoNode { path } => write!(f, "there is no {}", path.display()),
            Self::Permission { path } => write!(f, "{} is closed to this user", path.display()),
        }
    }
}

/// The module of the driver [`VFIO_PCI`].
const MODULE: &str = "vfio-pci";

impl Sysfs {
    /// Why a function cannot be opened over VFIO: all reasons that can be seen from outside, in the
    /// order in which they are to be dealt with. Empty if nothing speaks against it, though somebody
    /// may [have it open](Self::users).
    #[must_use]
    pub fn obstacles(&self, function: &IoatFunction) -> Vec<Obstacle> {
        let mut obstacles = Vec::new();
        if function.bar_size == 0 {
            obstacles.push(Obstacle::NoRegisters);
        }
        obstacles.extend(self.no_iommu(function));
        if let Some(group) = &function.group {
            let others = group.conflicts();
            if !others.is_empty() {
                obstacles.push(Obstacle::GroupNotViable { group: group.id, others });
            }
        }
        if function.is_bound_to_vfio() {
            if let Err(obstacle) = self.nodes(function) {
                obstacles.push(obstacle);
            }
            return obstacles;
        }
        obstacles.extend(self.vfio_pci_missing());
        let address = function.address;
        obstacles.push(match &function.driver {
            None => Obstacle::NotBound { address },
            Some(driver) => {
                let busy = function.channels.iter().filter(|channel| channel.in_use > 0);
                let busy_channels = busy.map(|channel| channel.name.clone()).collect();
                Obstacle::OtherDriver { address, driver: driver.clone(), busy_channels }
            }
        });
        obstacles
    }

    /// Why there is no vfio-pci to bind to; `None` if there is.
    pub(super) fn vfio_pci_missing(&self) -> Option<Obstacle> {
        if self.driver(VFIO_PCI).is_dir() {
            return None;
        }
        Some(if self.is_denied(MODULE) {
            Obstacle::ModuleDenied { module: MODULE }
        } else {
            Obstacle::ModuleMissing { module: MODULE }
        })
    }

    /// That no IOMMU stands before the function; `None` if one does.
    pub(super) fn no_iommu(&self, function: &IoatFunction) -> Option<Obstacle> {
        if function.group.is_some() {
            return None;
        }
        let mut iommus = fs::read_dir(self.path("sys/class/iommu")).into_iter().flatten();
        Some(Obstacle::NoIommu { machine_has_one: iommus.next().is_some() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sysfs::tree::{Tree, address};

    const ADDRESS: &str = "0000:00:04.0";

    fn obstacles(tree: &Tree) -> Vec<Obstacle> {
        tree.sysfs().obstacles(&tree.sysfs().function(address(ADDRESS)).unwrap())
    }

    /// A function that can be opened.
    fn usable() -> Tree {
        let tree = Tree::new();
        tree.ioat(ADDRESS);
        tree.bind(ADDRESS, "vfio-pci");
        tree.group(7, &[ADDRESS]);
        tree.node("dev/vfio/vfio");
        tree.node("dev/vfio/7");
        tree
    }

    #[test]
    fn nothing_speaks_against_it() {
        assert_eq!(obstacles(&usable()), []);
    }

    #[test]
    fn no_iommu() {
        let tree = Tree::new();
        tree.ioat(ADDRESS);
        tree.driver("vfio-pci");
        let not_bound = Obstacle::NotBound { address: address(ADDRESS) };
        let none = Obstacle::NoIommu { machine_has_one: false };
        assert!(none.remedy().contains("intel_iommu=on"));
        assert_eq!(obstacles(&tree), [none, not_bound.clone()]);
        tree.folder("sys/class/iommu/dmar0");
        assert_eq!(obstacles(&tree), [Obstacle::NoIommu { machine_has_one: true }, not_bound]);
    }

    #[test]
    fn others_of_the_group_are_named_with_their_drivers() {
        let tree = usable();
        tree.group(7, &[ADDRESS, "0000:00:04.1", "0000:00:1f.0", "0000:00:1f.3"]);
        tree.ioat("0000:00:04.1");
        tree.function("0000:00:1f.0", 0x8086, 0xa1c1);
        tree.function("0000:00:1f.3", 0x8086, 0xa1f0);
        tree.bind("0000:00:04.1", "ioatdma");
        tree.bind("0000:00:1f.3", "snd_hda_intel");
        let [not_viable] = &obstacles(&tree)[..] else { panic!("one") };
        assert_eq!(
            not_viable.to_string(),
            "the kernel does DMA with others of its IOMMU group 7: 0000:00:04.1 (ioatdma), \
             0000:00:1f.3 (snd_hda_intel)"
        );
        assert!(not_viable.remedy().contains("0000:00:04.1, 0000:00:1f.3"));
        for driver in ["vfio-pci", "pci-stub", "pcieport", "mlx5_vfio_pci"] {
            tree.bind("0000:00:04.1", driver);
            tree.bind("0000:00:1f.3", driver);
            assert_eq!(obstacles(&tree), [], "{driver}");
        }
    }

    #[test]
    fn the_kernels_driver_and_its_clients() {
        let tree = usable();
        let folder = tree.bind(ADDRESS, "ioatdma");
        tree.channel(&folder, "dma0chan0", 0);
        let [obstacle] = &obstacles(&tree)[..] else { panic!("one") };
        assert_eq!(obstacle.to_string(), "the driver ioatdma has it");
        assert_eq!(obstacle.remedy(), "as root: ioat bind 0000:00:04.0");
        tree.channel(&folder, "dma0chan0", 1);
        let [obstacle] = &obstacles(&tree)[..] else { panic!("one") };
        assert!(obstacle.to_string().ends_with("the kernel uses dma0chan0"), "{obstacle}");
        assert!(obstacle.remedy().contains("rmmod dmatest"));
    }

    #[test]
    fn the_module_is_missing_or_forbidden() {
        let tree = Tree::new();
        tree.ioat(ADDRESS);
        tree.group(7, &[ADDRESS]);
        let missing = Obstacle::ModuleMissing { module: "vfio-pci" };
        assert_eq!(obstacles(&tree)[0], missing);
        assert_eq!(missing.remedy(), "as root: modprobe vfio-pci");
        let line = |text| tree.write(tree.root().join("proc/cmdline"), text);
        line("root=/dev/sda1 module_blacklist=nouveau,vfio_pci_core quiet\n");
        assert_eq!(obstacles(&tree)[0], missing, "another module");
        line("root=/dev/sda1 module_blacklist=nouveau,vfio_pci quiet\n");
        assert_eq!(obstacles(&tree)[0], Obstacle::ModuleDenied { module: "vfio-pci" });
    }

    #[test]
    fn the_firmware_left_it_out() {
        let tree = usable();
        let folder = tree.ioat(ADDRESS);
        tree.bind(ADDRESS, "vfio-pci");
        tree.write(folder.join("resource"), "0x0 0x0 0x0\n");
        let [obstacle] = &obstacles(&tree)[..] else { panic!("one") };
        assert_eq!(obstacle.reason(), "firmware");
    }

    #[test]
    fn a_missing_file_below_dev() {
        let tree = usable();
        tree.remove("dev/vfio/vfio");
        let [obstacle] = &obstacles(&tree)[..] else { panic!("one") };
        assert_eq!(obstacle.remedy(), "as root: modprobe vfio_iommu_type1");
    }

    #[test]
    fn words_for_scripts_are_distinct() {
        let address = address(ADDRESS);
        let all = [
            Obstacle::NoRegisters,
            Obstacle::NoIommu { machine_has_one: true },
            Obstacle::GroupNotViable { group: 1, others: Vec::new() },
            Obstacle::ModuleDenied { module: MODULE },
            Obstacle::ModuleMissing { module: MODULE },
            Obstacle::NotBound { address },
            Obstacle::OtherDriver { address, driver: String::new(), busy_channels: Vec::new() },
            Obstacle::NoNode { path: PathBuf::new() },
            Obstacle::Permission { path: PathBuf::new() },
        ];
        let mut words: Vec<_> = all.iter().map(Obstacle::reason).collect();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), all.len());
        assert!(all.iter().all(|obstacle| !obstacle.remedy().is_empty()));
    }
}
