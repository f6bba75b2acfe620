//! A made-up machine: the kernel's files in a folder of the test's own.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use rustix::thread::{Uid, set_thread_res_uid};

use super::{PciAddress, Sysfs};

/// Removed on drop.
pub(super) struct Tree {
    root: PathBuf,
}

pub(super) fn address(text: &str) -> PciAddress {
    text.parse().expect("an address")
}

/// Runs `test` in a thread to which only what is open to all is open.
pub(super) fn as_nobody<T: Send>(test: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let nobody = || {
            if rustix::process::geteuid().is_root() {
                let nobody = Uid::from_raw(65534);
                set_thread_res_uid(nobody, nobody, nobody).expect("root may");
            }
            test()
        };
        scope.spawn(nobody).join().expect("the test's own panic")
    })
}

impl Tree {
    /// A machine without anything.
    pub(super) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        // Relaxed: only the numbers must differ.
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("ioatdma-sysfs-{}-{number}", std::process::id());
        let root = std::env::temp_dir().join(name);
        fs::create_dir_all(&root).expect("a folder of our own");
        Self { root }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn sysfs(&self) -> Sysfs {
        Sysfs::at(&self.root)
    }

    pub(super) fn folder(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = self.root.join(path);
        fs::create_dir_all(&path).expect("below our own folder");
        path
    }

    pub(super) fn write(&self, path: impl AsRef<Path>, text: &str) {
        let path = self.root.join(path);
        fs::create_dir_all(path.parent().expect("below the root")).expect("our own folder");
        fs::write(path, text).expect("our own folder");
    }

    /// A file below `/dev`, open to all.
    pub(super) fn node(&self, path: &str) {
        self.write(path, "");
        self.set_mode(path, 0o666);
    }

    /// Lets only root open a file.
    pub(super) fn close(&self, path: &str) {
        self.set_mode(path, 0o000);
    }

    fn set_mode(&self, path: &str, mode: u32) {
        let mode = fs::Permissions::from_mode(mode);
        fs::set_permissions(self.root.join(path), mode).expect("our own file");
    }

    pub(super) fn remove(&self, path: &str) {
        fs::remove_file(self.root.join(path)).expect("it is there");
    }

    fn link(&self, path: impl AsRef<Path>, target: impl AsRef<Path>) {
        let path = self.root.join(path);
        fs::create_dir_all(path.parent().expect("below the root")).expect("our own folder");
        // It may be there already.
        let _ = fs::remove_file(&path);
        symlink(target, path).expect("our own folder");
    }

    fn device(&self, address: &str) -> PathBuf {
        self.root.join("sys/bus/pci/devices").join(address)
    }

    /// A PCI function that no driver has.
    pub(super) fn function(&self, address: &str, vendor: u16, device: u16) -> PathBuf {
        let folder = self.device(address);
        self.write(folder.join("vendor"), &format!("{vendor:#06x}\n"));
        self.write(folder.join("device"), &format!("{device:#06x}\n"));
        self.write(folder.join("driver_override"), "(null)\n");
        self.write(folder.join("numa_node"), "-1\n");
        self.write(folder.join("enable"), "1\n");
        let resources = "0x00000000fe000000 0x00000000fe003fff 0x0000000000140204\n\
                         0x0000000000000000 0x0000000000000000 0x0000000000000000\n";
        self.write(folder.join("resource"), resources);
        folder
    }

    /// An I/OAT function that no driver has.
    pub(super) fn ioat(&self, address: &str) -> PathBuf {
        self.function(address, 0x8086, 0x2021)
    }

    /// A loaded driver.
    pub(super) fn driver(&self, name: &str) -> PathBuf {
        self.folder(Path::new("sys/bus/pci/drivers").join(name))
    }

    /// Gives a function to a driver.
    pub(super) fn bind(&self, address: &str, driver: &str) -> PathBuf {
        self.driver(driver);
        let folder = self.device(address);
        self.link(folder.join("driver"), Path::new("../../../bus/pci/drivers").join(driver));
        folder
    }

    /// Takes a function from its driver.
    pub(super) fn unbind(&self, address: &str) {
        fs::remove_file(self.device(address).join("driver")).expect("it has a driver");
    }

    /// Puts functions into an IOMMU group.
    pub(super) fn group(&self, id: u32, members: &[&str]) {
        let group = self.root.join("sys/kernel/iommu_groups").join(id.to_string());
        for address in members {
            self.link(group.join("devices").join(address), self.device(address));
            self.link(self.device(address).join("iommu_group"), &group);
        }
    }

    /// A channel that the kernel's driver has made of the function in `folder`.
    pub(super) fn channel(&self, folder: &Path, name: &str, in_use: u32) {
        let channel = folder.join("dma").join(name);
        self.write(channel.join("in_use"), &format!("{in_use}\n"));
        self.write(channel.join("memcpy_count"), "12\n");
        self.write(channel.join("bytes_transferred"), "4096\n");
    }

    /// The name below `/dev/vfio/devices` of a function that vfio-pci has.
    pub(super) fn vfio_device(&self, address: &str, name: &str) {
        self.folder(self.device(address).join("vfio-dev").join(name));
    }

    /// A process with these files open.
    pub(super) fn process(&self, pid: u32, name: &str, files: &[&str]) {
        let process = Path::new("proc").join(pid.to_string());
        self.write(process.join("comm"), &format!("{name}\n"));
        for (number, file) in files.iter().enumerate() {
            self.link(process.join("fd").join(number.to_string()), file);
        }
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let removed = fs::remove_dir_all(&self.root);
        assert!(removed.is_ok() || std::thread::panicking(), "{removed:?}");
    }
}
