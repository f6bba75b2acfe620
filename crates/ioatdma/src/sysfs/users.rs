//! Who has a function open.

use std::{fmt, fs};

use super::{IoatFunction, Sysfs, names, text};

/// A process that has a function, or its group, open through VFIO.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Its process id.
    pub pid: u32,
    /// Its name.
    pub name: String,
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (process {})", self.name, self.pid)
    }
}

impl Sysfs {
    /// The processes that have the function or its IOMMU group open. Those of other users are seen by
    /// root only.
    #[must_use]
    pub fn users(&self, function: &IoatFunction) -> Vec<User> {
        if !function.is_bound_to_vfio() {
            return Vec::new();
        }
        // As the kernel names open files, so not below our root.
        let group = function.group.as_ref().map(|group| format!("/dev/vfio/{}", group.id));
        let device = function.vfio_device.as_ref().map(|name| format!("/dev/vfio/devices/{name}"));
        let opened: Vec<String> = group.into_iter().chain(device).collect();
        let pids: Vec<u32> = names(&self.path("proc"));
        let users = pids.into_iter().filter_map(|pid| {
            let process = self.path("proc").join(pid.to_string());
            let mut files = fs::read_dir(process.join("fd")).ok()?.flatten();
            let has_it = files.any(|file| {
                fs::read_link(file.path()).is_ok_and(|target| {
                    target.to_str().is_some_and(|target| opened.iter().any(|path| path == target))
                })
            });
            let name = || text(&process.join("comm")).ok().flatten().unwrap_or_default();
            has_it.then(|| User { pid, name: name() })
        });
        users.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sysfs::tree::{Tree, address};

    #[test]
    fn by_group_and_by_device() {
        let tree = Tree::new();
        tree.ioat("0000:00:04.0");
        tree.bind("0000:00:04.0", "vfio-pci");
        tree.group(7, &["0000:00:04.0"]);
        tree.vfio_device("0000:00:04.0", "vfio2");
        tree.process(100, "qemu", &["/dev/null", "/dev/vfio/7"]);
        tree.process(101, "dpdk", &["/dev/vfio/devices/vfio2"]);
        tree.process(102, "other", &["/dev/vfio/vfio", "/dev/vfio/77", "anon_inode:[eventfd]"]);
        let function = tree.sysfs().function(address("0000:00:04.0")).unwrap();
        let users = tree.sysfs().users(&function);
        let users: Vec<_> = users.iter().map(User::to_string).collect();
        assert_eq!(users, ["qemu (process 100)", "dpdk (process 101)"]);
    }
}
