//! The files below `/dev` through which VFIO gives a function to a process.

use std::path::PathBuf;

use rustix::{fs::Access, io::Errno};

use super::{IoatFunction, Obstacle, Sysfs};

/// A way to open a function: VFIO has two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Nodes {
    /// The function by itself, and iommufd for its mappings: Linux 6.6 and newer.
    Iommufd {
        /// `/dev/iommu`.
        iommufd: PathBuf,
        /// `/dev/vfio/devices/vfio0`, say.
        device: PathBuf,
    },
    /// The function's IOMMU group, and a container for the mappings of its groups.
    Container {
        /// `/dev/vfio/vfio`.
        container: PathBuf,
        /// `/dev/vfio/7`, say.
        group: PathBuf,
    },
}

impl Nodes {
    /// Both files: the one that maps memory, and the function's or its group's.
    fn paths(&self) -> [&PathBuf; 2] {
        match self {
            Self::Iommufd { iommufd, device } => [iommufd, device],
            Self::Container { container, group } => [container, group],
        }
    }
}

impl Sysfs {
    /// The ways in which this process may open a function that vfio-pci has, the better one first.
    ///
    /// # Errors
    ///
    /// If there is none: [`Obstacle::NoNode`] or [`Obstacle::Permission`].
    pub fn nodes(&self, function: &IoatFunction) -> Result<Vec<Nodes>, Obstacle> {
        let mut usable = Vec::new();
        let mut refused = None;
        for nodes in self.candidates(function) {
            let obstacle = nodes.paths().into_iter().find_map(closed);
            match obstacle {
                None => usable.push(nodes),
                // That somebody else may open it says more than that another file is missing.
                Some(obstacle @ Obstacle::Permission { .. }) => refused = Some(obstacle),
                Some(obstacle) => {
                    refused.get_or_insert(obstacle);
                }
            }
        }
        match refused {
            Some(obstacle) if usable.is_empty() => Err(obstacle),
            _ => Ok(usable),
        }
    }

    fn candidates(&self, function: &IoatFunction) -> Vec<Nodes> {
        let iommufd = function.vfio_device.as_ref().map(|name| Nodes::Iommufd {
            iommufd: self.path("dev/iommu"),
            device: self.path("dev/vfio/devices").join(name),
        });
        let container = function.group.as_ref().map(|group| Nodes::Container {
            container: self.path("dev/vfio/vfio"),
            group: self.path("dev/vfio").join(group.id.to_string()),
        });
        iommufd.into_iter().chain(container).collect()
    }
}

/// Why this process cannot open a file for reading and writing; `None` if it can.
fn closed(path: &PathBuf) -> Option<Obstacle> {
    match rustix::fs::access(path, Access::READ_OK | Access::WRITE_OK) {
        Ok(()) => None,
        Err(Errno::ACCESS | Errno::PERM) => Some(Obstacle::Permission { path: path.clone() }),
        Err(_) => Some(Obstacle::NoNode { path: path.clone() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sysfs::tree::{Tree, address, as_nobody};

    const ADDRESS: &str = "0000:00:04.0";

    /// A function that vfio-pci has, in group 7.
    fn bound() -> Tree {
        let tree = Tree::new();
        tree.ioat(ADDRESS);
        tree.bind(ADDRESS, "vfio-pci");
        tree.group(7, &[ADDRESS]);
        tree
    }

    fn nodes(tree: &Tree) -> Result<Vec<Nodes>, Obstacle> {
        tree.sysfs().nodes(&tree.sysfs().function(address(ADDRESS)).unwrap())
    }

    #[test]
    fn iommufd_comes_first_and_needs_both_files() {
        let tree = bound();
        tree.node("dev/vfio/vfio");
        tree.node("dev/vfio/7");
        let [Nodes::Container { container, group }] = &nodes(&tree).unwrap()[..] else {
            panic!("the container alone")
        };
        assert_eq!(*container, tree.root().join("dev/vfio/vfio"));
        assert_eq!(*group, tree.root().join("dev/vfio/7"));
        tree.vfio_device(ADDRESS, "vfio0");
        tree.node("dev/vfio/devices/vfio0");
        assert_eq!(nodes(&tree).unwrap().len(), 1, "no /dev/iommu yet");
        tree.node("dev/iommu");
        let both = nodes(&tree).unwrap();
        assert!(matches!(both[..], [Nodes::Iommufd { .. }, Nodes::Container { .. }]), "{both:?}");
    }

    #[test]
    fn a_missing_file_is_named() {
        let tree = bound();
        tree.node("dev/vfio/vfio");
        let path = tree.root().join("dev/vfio/7");
        assert_eq!(nodes(&tree), Err(Obstacle::NoNode { path }));
    }

    #[test]
    fn a_file_closed_to_this_user_is_named() {
        let tree = bound();
        tree.node("dev/vfio/vfio");
        tree.node("dev/vfio/7");
        tree.close("dev/vfio/7");
        tree.vfio_device(ADDRESS, "vfio0");
        let path = tree.root().join("dev/vfio/7");
        assert_eq!(as_nobody(|| nodes(&tree)), Err(Obstacle::Permission { path }));
    }
}
