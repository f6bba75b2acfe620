//! One I/OAT function: what is read of it.

use std::{fs, io, path::Path};

use super::{PciAddress, Sysfs, VFIO_PCI, link_name, names, text};
use crate::pci::{Family, Id};

/// An I/OAT function of this machine, as the kernel describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IoatFunction {
    /// Where it is.
    pub address: PciAddress,
    /// Vendor and device.
    pub id: Id,
    /// What that stands for.
    pub family: Family,
    /// The driver that has it.
    pub driver: Option<String>,
    /// The only driver that may have it, if somebody has decided so.
    pub driver_override: Option<String>,
    /// The memory node that it is nearest to, if the firmware tells.
    pub numa_node: Option<u32>,
    /// Whether a driver has enabled it. VFIO does so when it is opened.
    pub enabled: bool,
    /// The length of BAR 0 in bytes; 0 if the firmware gave it no addresses.
    pub bar_size: u64,
    /// Its IOMMU group; `None` if no IOMMU stands before it.
    pub group: Option<Group>,
    /// The channels that the kernel's driver has made of it.
    pub channels: Vec<KernelChannel>,
    /// Its name below `/dev/vfio/devices`, if vfio-pci has it and the kernel has such names.
    pub vfio_device: Option<String>,
}

impl IoatFunction {
    /// Whether vfio-pci has it.
    #[must_use]
    pub fn is_bound_to_vfio(&self) -> bool {
        self.driver.as_deref() == Some(VFIO_PCI)
    }
}

/// The functions that the IOMMU cannot tell apart: they are given to a process together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its number, which is also its name below `/dev/vfio`.
    pub id: u32,
    /// The other functions in it.
    pub others: Vec<Member>,
}

impl Group {
    /// Those whose drivers do DMA of their own, so that the group cannot be given to a process.
    #[must_use]
    pub fn conflicts(&self) -> Vec<Member> {
        self.others.iter().filter(|member| member.does_dma()).cloned().collect()
    }
}

/// A function that shares an IOMMU group with an I/OAT function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Where it is.
    pub address: PciAddress,
    /// The driver that has it.
    pub driver: Option<String>,
}

impl Member {
    /// Whether its driver maps memory for it in the kernel's name. Of the drivers in Linux these do
    /// not (`driver_managed_dma`): VFIO's, the stub, and the one for bridges.
    fn does_dma(&self) -> bool {
        self.driver.as_deref().is_some_and(|driver| {
            !matches!(driver, "pci-stub" | "pcieport") && !driver.contains("vfio")
        })
    }
}

/// A DMA channel that the kernel's driver has made of a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelChannel {
    /// Its name, as `dma0chan0`.
    pub name: String,
    /// How many clients in the kernel hold it.
    pub in_use: u64,
    /// Copies submitted so far.
    pub memcpy_count: u64,
    /// Bytes copied so far.
    pub bytes_transferred: u64,
}

/// Why there is no such function.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// No PCI function has this address.
    #[error("there is no PCI function {0}: `ioat devices` lists the I/OAT functions there are")]
    NoSuchFunction(PciAddress),
    /// It is something else.
    #[error(
        "{address} is no I/OAT function (its id is {id}): `ioat devices` lists those there are"
    )]
    NotIoat {
        /// Where it is.
        address: PciAddress,
        /// What it is.
        id: Id,
    },
    /// The kernel's files cannot be read.
    #[error("the kernel's files about {address} cannot be read ({source}): is /sys mounted?")]
    Read {
        /// Where it is.
        address: PciAddress,
        /// What the system answered.
        source: io::Error,
    },
}

impl Sysfs {
    /// All I/OAT functions of the machine, by address.
    ///
    /// # Errors
    ///
    /// If the kernel's files cannot be read. A machine without PCI has no functions.
    pub fn functions(&self) -> io::Result<Vec<IoatFunction>> {
        let folder = self.path("sys/bus/pci/devices");
        match fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => drop(other?),
        }
        let mut functions = Vec::new();
        for address in names(&folder) {
            match self.function(address) {
                Ok(function) => functions.push(function),
                // Others' functions, and one that has left between the two looks.
                Err(FindError::NotIoat { .. } | FindError::NoSuchFunction(_)) => {}
                Err(FindError::Read { source, .. }) => return Err(source),
            }
        }
        Ok(functions)
    }

    /// The I/OAT function at an address.
    ///
    /// # Errors
    ///
    /// See [`FindError`].
    pub fn function(&self, address: PciAddress) -> Result<IoatFunction, FindError> {
        let folder = self.device(address);
        let read = |source| FindError::Read { address, source };
        let number = |name| hexadecimal(&folder, name).map_err(read);
        let (Some(vendor), Some(device)) = (number("vendor")?, number("device")?) else {
            return Err(FindError::NoSuchFunction(address));
        };
        let id = Id { vendor, device };
        let Some(family) = id.family() else {
            return Err(FindError::NotIoat { address, id });
        };
        let word = |name: &str| text(&folder.join(name)).map_err(read);
        // The kernel writes "(null)" where nothing is set, and -1 where no node is known.
        let driver_override = word("driver_override")?.filter(|name| name != "(null)");
        let numa_node = word("numa_node")?.and_then(|node| node.parse().ok());
        let resources = word("resource")?.unwrap_or_default();
        let vfio_devices: Vec<String> = names(&folder.join("vfio-dev"));
        Ok(IoatFunction {
            address,
            id,
            family,
            driver: link_name(&folder.join("driver")),
            driver_override: driver_override.filter(|name| !name.is_empty()),
            numa_node,
            enabled: word("enable")?.is_some_and(|count| count != "0"),
            bar_size: first_resource_size(&resources),
            group: self.group(address),
            channels: channels(&folder.join("dma")),
            vfio_device: vfio_devices.into_iter().next(),
        })
    }

    fn group(&self, address: PciAddress) -> Option<Group> {
        let id: u32 = link_name(&self.device(address).join("iommu_group"))?.parse().ok()?;
        let folder = self.path("sys/kernel/iommu_groups").join(id.to_string());
        // VFIO's own invention where there is no IOMMU ("noiommu" mode): the device would be given
        // physical addresses, and could reach all memory. Not a group.
        if text(&folder.join("name")).ok().flatten().as_deref() == Some("vfio-noiommu") {
            return None;
        }
        let members: Vec<PciAddress> = names(&folder.join("devices"));
        let others = members.into_iter().filter(|member| *member != address);
        let others = others.map(|address| Member {
            address,
            driver: link_name(&self.device(address).join("driver")),
        });
        Some(Group { id, others: others.collect() })
    }
}

/// A file that holds a number as `0x8086`.
fn hexadecimal(folder: &Path, name: &str) -> io::Result<Option<u16>> {
    let text = text(&folder.join(name))?;
    Ok(text.and_then(|text| u16::from_str_radix(text.strip_prefix("0x")?, 16).ok()))
}

/// The length of the first of a function's address ranges: a line each with first address, last
/// address and flags.
fn first_resource_size(resources: &str) -> u64 {
    let first = resources.lines().next().unwrap_or_default();
    let mut numbers = first
        .split_whitespace()
        .map(|number| u64::from_str_radix(number.trim_start_matches("0x"), 16));
    match (numbers.next(), numbers.next()) {
        // A range that has a size but no place begins at 0.
        (Some(Ok(start)), Some(Ok(end))) if start > 0 && end >= start => end - start + 1,
        _ => 0,
    }
}

fn channels(folder: &Path) -> Vec<KernelChannel> {
    let names: Vec<String> = names(folder);
    let channel = |name: String| {
        let count = |file: &str| {
            let text = text(&folder.join(&name).join(file)).ok().flatten();
            text.and_then(|text| text.parse().ok()).unwrap_or(0)
        };
        KernelChannel {
            in_use: count("in_use"),
            memcpy_count: count("memcpy_count"),
            bytes_transferred: count("bytes_transferred"),
            name,
        }
    };
    names.into_iter().map(channel).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sysfs::tree::{Tree, address};

    #[test]
    fn a_function_of_the_kernels_driver() {
        let tree = Tree::new();
        let folder = tree.ioat("0000:00:04.0");
        tree.bind("0000:00:04.0", "ioatdma");
        tree.group(7, &["0000:00:04.0", "0000:00:04.1", "0000:00:1c.0"]);
        tree.function("0000:00:04.1", 0x8086, 0x1234);
        tree.function("0000:00:1c.0", 0x8086, 0x1235);
        tree.bind("0000:00:1c.0", "pcieport");
        tree.channel(&folder, "dma0chan0", 2);
        tree.write(folder.join("numa_node"), "1\n");
        let function = tree.sysfs().function(address("0000:00:04.0")).unwrap();
        assert_eq!((function.id, function.family), (Id::intel(0x2021), Family::Skylake));
        assert_eq!(function.driver.as_deref(), Some("ioatdma"));
        assert_eq!(function.driver_override, None);
        assert_eq!(function.numa_node, Some(1));
        assert!(function.enabled);
        assert_eq!(function.bar_size, 0x4000);
        assert_eq!(function.vfio_device, None);
        let group = function.group.unwrap();
        assert_eq!(group.id, 7);
        let others: Vec<_> = group.others.iter().map(|other| other.address).collect();
        assert_eq!(others, [address("0000:00:04.1"), address("0000:00:1c.0")]);
        assert_eq!(group.conflicts(), []);
        let [channel] = &function.channels[..] else { panic!("one channel") };
        assert_eq!((&channel.name[..], channel.in_use), ("dma0chan0", 2));
    }

    #[test]
    fn only_ioat_functions_are_listed_in_order() {
        let tree = Tree::new();
        tree.ioat("0000:80:04.1");
        tree.ioat("0000:00:04.2");
        tree.function("0000:00:1f.6", 0x8086, 0x15fa);
        tree.function("0000:01:00.0", 0x1af4, 0x2021);
        tree.write(tree.root().join("sys/bus/pci/devices/nonsense/vendor"), "0x8086\n");
        let functions = tree.sysfs().functions().unwrap();
        let found: Vec<_> = functions.iter().map(|function| function.address).collect();
        assert_eq!(found, [address("0000:00:04.2"), address("0000:80:04.1")]);
        assert_eq!(Tree::new().sysfs().functions().unwrap(), []);
    }

    #[test]
    fn others_and_nothing_are_told_apart() {
        let tree = Tree::new();
        tree.function("0000:01:00.0", 0x1af4, 0x1041);
        let error = tree.sysfs().function(address("0000:01:00.0")).unwrap_err();
        assert!(error.to_string().contains("1af4:1041"), "{error}");
        let error = tree.sysfs().function(address("0000:02:00.0")).unwrap_err();
        assert!(matches!(error, FindError::NoSuchFunction(_)), "{error}");
    }

    #[test]
    fn nonsense_in_the_files_is_not_believed() {
        for resources in ["", "x y z", "0x0 0x3fff 0x40200", "0x2 0x1 0", "0xf"] {
            assert_eq!(first_resource_size(resources), 0, "{resources:?}");
        }
        assert_eq!(first_resource_size("0xfe000000 0xfe003fff 0x140204\n0 0 0"), 0x4000);
        let tree = Tree::new();
        let folder = tree.ioat("0000:00:04.0");
        for file in ["vendor", "device"] {
            tree.write(folder.join(file), "0xffffff\n");
        }
        let error = tree.sysfs().function(address("0000:00:04.0")).unwrap_err();
        assert!(matches!(error, FindError::NoSuchFunction(_)), "{error}");
    }

    #[test]
    fn a_group_without_an_iommu_is_none() {
        let tree = Tree::new();
        tree.ioat("0000:00:04.0");
        tree.group(3, &["0000:00:04.0"]);
        tree.write(tree.root().join("sys/kernel/iommu_groups/3/name"), "vfio-noiommu\n");
        assert_eq!(tree.sysfs().function(address("0000:00:04.0")).unwrap().group, None);
    }
}
