use std::cell::RefCell;

use super::*;
use crate::sysfs::tree::{Tree, address};

const ADDRESS: &str = "0000:00:04.0";

/// What a driver does with a function that it may have.
#[derive(Clone, Copy, PartialEq)]
enum Probe {
    Takes,
    Refuses,
}

/// The kernel's part: what a write to its files does.
struct Kernel<'a> {
    tree: &'a Tree,
    /// Its drivers for I/OAT functions, in the order in which they are asked.
    drivers: &'a [(&'static str, Probe)],
    /// The file that cannot be written, and what is answered.
    refuses: Option<(&'static str, io::ErrorKind)>,
    writes: RefCell<Vec<String>>,
}

impl<'a> Kernel<'a> {
    fn new(tree: &'a Tree, drivers: &'a [(&'static str, Probe)]) -> Self {
        for (driver, _) in drivers {
            tree.driver(driver);
        }
        Self { tree, drivers, refuses: None, writes: RefCell::default() }
    }

    fn write(&self, path: &Path, text: &str) -> io::Result<()> {
        let file = path.file_name().unwrap().to_str().unwrap();
        self.writes.borrow_mut().push(format!("{file} {text:?}"));
        if let Some((refused, kind)) = self.refuses
            && refused == file
        {
            return Err(kind.into());
        }
        let device = self.tree.root().join("sys/bus/pci/devices").join(ADDRESS);
        match file {
            "driver_override" => {
                let shown = if text.trim().is_empty() { "(null)" } else { text };
                fs::write(device.join(file), format!("{shown}\n"))
            }
            "unbind" => {
                assert_eq!(text, ADDRESS);
                let driver = path.parent().unwrap().file_name().unwrap();
                let bound = fs::read_link(device.join("driver")).unwrap();
                assert_eq!(bound.file_name(), Some(driver), "it is not this driver's");
                self.tree.unbind(ADDRESS);
                Ok(())
            }
            "drivers_probe" => {
                assert_eq!(text, ADDRESS);
                let only = fs::read_to_string(device.join("driver_override")).unwrap();
                let only = only.trim();
                let taker = self.drivers.iter().find(|(name, probe)| {
                    // vfio-pci has no ids of its own: it takes what is reserved for it.
                    let may = if only == "(null)" { *name != VFIO_PCI } else { only == *name };
                    may && *probe == Probe::Takes
                });
                if let Some((name, _)) = taker {
                    self.tree.bind(ADDRESS, name);
                }
                Ok(())
            }
            "bind" => {
                assert_eq!(text, ADDRESS);
                let driver = path.parent().unwrap().file_name().unwrap().to_str().unwrap();
                let (name, probe) =
                    self.drivers.iter().find(|(name, _)| *name == driver).expect("a driver");
                assert!(*probe == Probe::Takes, "{driver} never had it");
                self.tree.bind(ADDRESS, name);
                Ok(())
            }
            _ => panic!("{} is none of our business", path.display()),
        }
    }

    fn bind(&self) -> Result<Moved, BindError> {
        let sysfs = self.tree.sysfs();
        let mut write = |path: &Path, text: &str| self.write(path, text);
        Move { sysfs: &sysfs, address: address(ADDRESS), write: &mut write }.bind()
    }

    fn unbind(&self) -> Result<Moved, BindError> {
        let sysfs = self.tree.sysfs();
        let mut write = |path: &Path, text: &str| self.write(path, text);
        Move { sysfs: &sysfs, address: address(ADDRESS), write: &mut write }.unbind()
    }

    fn function(&self) -> IoatFunction {
        self.tree.sysfs().function(address(ADDRESS)).unwrap()
    }

    fn state(&self) -> (Option<String>, Option<String>) {
        let function = self.function();
        (function.driver, function.driver_override)
    }

    fn wrote_nothing(&self) -> bool {
        self.writes.borrow().is_empty()
    }
}

const BOTH: &[(&str, Probe)] = &[("ioatdma", Probe::Takes), (VFIO_PCI, Probe::Takes)];

fn owned(name: &str) -> Option<String> {
    Some(name.to_owned())
}

/// A function that the kernel's driver has, in group 7.
fn kernels() -> Tree {
    let tree = Tree::new();
    tree.ioat(ADDRESS);
    tree.bind(ADDRESS, "ioatdma");
    tree.group(7, &[ADDRESS]);
    tree
}

#[test]
fn there_and_back() {
    let tree = kernels();
    let kernel = Kernel::new(&tree, BOTH);
    let moved = Moved::To { from: owned("ioatdma"), to: owned(VFIO_PCI) };
    assert_eq!(kernel.bind().unwrap(), moved);
    assert_eq!(kernel.state(), (owned(VFIO_PCI), owned(VFIO_PCI)));
    let wrote = [
        "driver_override \"vfio-pci\"",
        "unbind \"0000:00:04.0\"",
        "drivers_probe \"0000:00:04.0\"",
    ];
    assert_eq!(*kernel.writes.borrow(), wrote);
    let moved = Moved::To { from: owned(VFIO_PCI), to: owned("ioatdma") };
    assert_eq!(kernel.unbind().unwrap(), moved);
    assert_eq!(kernel.state(), (owned("ioatdma"), None));
}

#[test]
fn a_second_time_nothing_is_done() {
    let tree = kernels();
    let kernel = Kernel::new(&tree, BOTH);
    assert_eq!(kernel.unbind().unwrap(), Moved::Already);
    assert!(kernel.wrote_nothing());
    kernel.bind().unwrap();
    kernel.writes.borrow_mut().clear();
    assert_eq!(kernel.bind().unwrap(), Moved::Already);
    assert!(kernel.wrote_nothing());
}

#[test]
fn one_that_no_driver_has() {
    let tree = kernels();
    tree.unbind(ADDRESS);
    let kernel = Kernel::new(&tree, &[(VFIO_PCI, Probe::Takes)]);
    assert_eq!(kernel.bind().unwrap(), Moved::To { from: None, to: owned(VFIO_PCI) });
    // Nobody else wants it.
    assert_eq!(kernel.unbind().unwrap(), Moved::To { from: owned(VFIO_PCI), to: None });
    assert_eq!(kernel.state(), (None, None));
}

#[test]
fn one_that_is_only_reserved_is_set_free() {
    let tree = kernels();
    tree.unbind(ADDRESS);
    let folder = tree.folder(format!("sys/bus/pci/devices/{ADDRESS}"));
    tree.write(folder.join("driver_override"), "vfio-pci\n");
    let kernel = Kernel::new(&tree, BOTH);
    assert_eq!(kernel.unbind().unwrap(), Moved::To { from: None, to: owned("ioatdma") });
}

#[test]
fn it_goes_back_if_vfio_pci_does_not_take_it() {
    let tree = kernels();
    let drivers = [("ioatdma", Probe::Takes), (VFIO_PCI, Probe::Refuses)];
    let kernel = Kernel::new(&tree, &drivers);
    let error = kernel.bind().unwrap_err();
    assert!(matches!(error, BindError::NotTaken { .. }), "{error}");
    assert_eq!(kernel.state(), (owned("ioatdma"), None));
}

#[test]
fn it_goes_back_if_a_step_is_refused() {
    for step in ["unbind", "drivers_probe"] {
        let tree = kernels();
        let mut kernel = Kernel::new(&tree, BOTH);
        kernel.refuses = Some((step, io::ErrorKind::InvalidInput));
        let error = kernel.bind().unwrap_err();
        assert!(error.to_string().contains(step), "{error}");
        assert_eq!(kernel.state(), (owned("ioatdma"), None), "{step}");
    }
}

#[test]
fn unbinding_that_is_refused_leaves_it_reserved() {
    let tree = kernels();
    let mut kernel = Kernel::new(&tree, BOTH);
    kernel.bind().unwrap();
    kernel.refuses = Some(("unbind", io::ErrorKind::ResourceBusy));
    assert!(matches!(kernel.unbind(), Err(BindError::Refused { .. })));
    assert_eq!(kernel.state(), (owned(VFIO_PCI), owned(VFIO_PCI)));
}

#[test]
fn a_channel_in_use_is_not_taken_away() {
    let tree = kernels();
    let folder = tree.folder(format!("sys/bus/pci/devices/{ADDRESS}"));
    tree.channel(&folder, "dma0chan0", 0);
    tree.channel(&folder, "dma1chan0", 3);
    let kernel = Kernel::new(&tree, BOTH);
    let error = kernel.bind().unwrap_err();
    assert!(error.to_string().starts_with("the kernel uses dma1chan0 of 0000:00:04.0"), "{error}");
    assert!(kernel.wrote_nothing());
}

#[test]
fn an_open_function_is_not_taken_away() {
    let tree = kernels();
    let kernel = Kernel::new(&tree, BOTH);
    kernel.bind().unwrap();
    kernel.writes.borrow_mut().clear();
    tree.process(4242, "dpdk-testpmd", &["/dev/vfio/7"]);
    let error = kernel.unbind().unwrap_err();
    assert!(error.to_string().contains("dpdk-testpmd (process 4242)"), "{error}");
    assert!(kernel.wrote_nothing());
}

#[test]
fn no_vfio_pci() {
    let tree = kernels();
    let kernel = Kernel::new(&tree, &[("ioatdma", Probe::Takes)]);
    let error = kernel.bind().unwrap_err();
    assert!(error.to_string().contains("modprobe vfio-pci"), "{error}");
    assert!(kernel.wrote_nothing());
}

#[test]
fn no_iommu() {
    let tree = Tree::new();
    tree.ioat(ADDRESS);
    tree.bind(ADDRESS, "ioatdma");
    let kernel = Kernel::new(&tree, BOTH);
    let error = kernel.bind().unwrap_err();
    assert!(error.to_string().contains("intel_iommu=on"), "{error}");
    assert!(kernel.wrote_nothing());
}

#[test]
fn a_driver_that_is_not_known_here() {
    let tree = kernels();
    tree.bind(ADDRESS, "uio_pci_generic");
    let kernel = Kernel::new(&tree, BOTH);
    let error = kernel.bind().unwrap_err();
    assert!(error.to_string().contains("drivers/uio_pci_generic/unbind"), "{error}");
    assert!(kernel.wrote_nothing());
}

#[test]
fn whoever_is_not_root_is_told_so() {
    let tree = kernels();
    let mut kernel = Kernel::new(&tree, BOTH);
    kernel.refuses = Some(("driver_override", io::ErrorKind::PermissionDenied));
    assert!(matches!(kernel.bind(), Err(BindError::NotRoot { .. })));
    assert_eq!(kernel.function().driver, owned("ioatdma"));
}

#[test]
fn only_ioat_functions_are_moved() {
    let tree = kernels();
    tree.function(ADDRESS, 0x8086, 0x1572);
    let kernel = Kernel::new(&tree, BOTH);
    for result in [kernel.bind(), kernel.unbind()] {
        assert!(matches!(result, Err(BindError::Find(FindError::NotIoat { .. }))), "{result:?}");
    }
    assert!(kernel.wrote_nothing());
}
