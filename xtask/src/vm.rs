//! A stock Linux guest on the device model, and our own driver in it over VFIO.
//!
//! ```text
//!   this machine                                   guest (QEMU, emulated, no KVM)
//!   ------------                                   ------------------------------
//!   cache: QEMU, kernel, modules, dmatest.ko ----> kernel, ioatdma, dmatest, vfio-pci
//!   ioat emulate, one for each device <--socket--> PCI devices 0000:00:10.0 and on
//!   this program <------------- serial port ------ this program again, as the first process
//! ```
//!
//! One guest for each version. What is proven, and in which order, is [`proof`]'s; the guest reports
//! each step on a serial port of its own, and a step that is not reported has failed. On a failure
//! the guest's console and the devices' logs are printed.
//!
//! By hand: `cargo xtask vm --version 3.2` boots one of them.

mod cache;
mod cpio;
mod guest;
mod initramfs;
mod machine;
mod mirror;
mod proof;

use std::{path::PathBuf, process::ExitCode, time::Instant};

use crate::{Failed, cargo, packages, root};

/// Runs the proofs of these versions; of all, if none are named.
pub(crate) fn run(arguments: &[&str]) -> Result<(), Failed> {
    let versions = match arguments {
        [] => proof::VERSIONS.to_vec(),
        ["--version", version] if proof::VERSIONS.contains(version) => vec![*version],
        _ => {
            return Err(format!("usage: cargo xtask vm [--version {}]", proof::VERSIONS.join("|")));
        }
    };
    if !packages::is_root() {
        return Err("the guests run in a root of their own, which takes root: \
                    run `cargo xtask vm` as root"
            .into());
    }
    let cache = cache::Cache::open()?;
    let ioat = build()?;
    let initramfs = initramfs::build(&cache, &ioat)?;
    for version in versions {
        let started = Instant::now();
        println!("xtask: booting a guest with I/OAT {version}");
        let outcome = machine::boot(&cache, &initramfs, &ioat, version)?;
        if let Err(failed) = proof::judge(version, &outcome) {
            println!("{}", outcome.logs);
            return Err(format!("I/OAT {version} in a guest: {failed}"));
        }
        println!("xtask: proven in {:.1} s: I/OAT {version}", started.elapsed().as_secs_f64());
    }
    Ok(())
}

/// The guest's first process.
pub(crate) fn guest(version: &str) -> ExitCode {
    guest::run(version)
}

/// Builds `ioat`, as the tests have it.
fn build() -> Result<PathBuf, Failed> {
    cargo(&["build", "--package", "ioat", "--bin", "ioat"], &[])?;
    let folder =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    Ok(root().join(folder).join("debug/ioat"))
}
