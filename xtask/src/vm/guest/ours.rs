//! The steps of our own program: `ioat` takes devices from Linux's driver, works over real VFIO, and
//! gives one back.

use std::{
    fs::{self, File},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use super::{
    Guest, ITERATIONS, Summary, TIMEOUT_MS, busybox, channels, driver, insmod, ioat, read,
    set_dmatest, sum_of_interrupts, sysfs,
};
use crate::{
    Failed,
    vm::proof::{Device, FAULTY, OURS, OURS_FAULTY},
};

/// Bytes that each receiver of `ioat demo` gets.
const DEMO_BYTES: u64 = 16 << 20;
/// Channels of [`OURS`].
const OUR_CHANNELS: usize = 2;
/// Copies of each channel where only the way matters in which they are waited for: in an emulated guest,
/// to sleep and to be woken takes milliseconds.
const AWAITED_ITERATIONS: u64 = 200;

/// The modules of a kernel with iommufd, in the order in which they are loaded.
pub(crate) const IOMMUFD_MODULES: [&str; 4] = ["iommufd", "vfio", "vfio-pci-core", "vfio-pci"];
/// Those of Debian's kernel whose place they take, in the order in which they are unloaded.
const REPLACED_MODULES: [&str; 4] = ["vfio_pci", "vfio_pci_core", "vfio_iommu_type1", "vfio"];

impl Guest {
    /// Our own program moves devices from Linux's driver to VFIO, but not one that the kernel uses.
    pub(in crate::vm) fn bind(&mut self) -> Result<String, Failed> {
        busybox(&["modprobe", "vfio-pci"])?;
        busybox(&["modprobe", "vfio_iommu_type1"])?;
        let (listed, address) = (ioat(&["devices"])?, OURS.address());
        if channels_listed(&listed, &OURS) != 0 || !listed.contains("the driver ioatdma has it") {
            return Err(format!("`ioat devices` before: {listed}"));
        }
        // dmatest holds a channel from when it is named to when it is stopped.
        let channel = channels(&OURS)?.swap_remove(0);
        set_dmatest("channel", &channel)?;
        let used = refused(&["bind", &address], &format!("the kernel uses {channel}"));
        set_dmatest("run", "0")?;
        used?;
        let mut seen = Vec::new();
        for device in [&OURS, &OURS_FAULTY, &FAULTY] {
            let said = ioat(&["bind", &device.address()])?;
            let driver = driver(device)?;
            if driver != "vfio-pci" {
                return Err(format!("{said}, but the driver is {driver}"));
            }
            seen.push(said.trim().to_owned());
        }
        let listed = ioat(&["devices"])?;
        if channels_listed(&listed, &OURS) != OUR_CHANNELS {
            return Err(format!("`ioat devices` afterwards: {listed}"));
        }
        Ok(format!("{}, refused while dmatest had a channel", seen.join("; ")))
    }

    /// Our own driver, over real VFIO: polled, and with the kinds of interrupts that the devices have.
    pub(in crate::vm) fn our_dmatest(&mut self) -> Result<String, Failed> {
        let polled = passes_polled(&OURS, OUR_CHANNELS)?;
        let msix = passes_awaited(&OURS, OUR_CHANNELS, "vfio-msix")?;
        let msi = passes_awaited(&FAULTY, 1, "vfio-msi[")?;
        Ok(format!("{polled}; {msix}; {msi}"))
    }

    /// What a halt without a reason and a hang hit is named with what became of it, the rest passes,
    /// and then everything does. Polled, because who waits for interrupts has descriptors that belong to
    /// no copy, and then a fault may hit nothing that could be named.
    pub(in crate::vm) fn our_dmatest_with_faults(&mut self) -> Result<String, Failed> {
        let Ran { ok, summaries, errors, .. } = run(&OURS_FAULTY, 1, ITERATIONS, true)?;
        let failures: u64 = summaries.iter().map(|summary| summary.failures).sum();
        let count = |word: &str| errors.lines().filter(|line| line.contains(word)).count();
        if ok || failures != 2 || count("(aborted)") != 1 || count("(timed out)") != 1 {
            return Err(format!("{summaries:?} {errors}"));
        }
        let afterwards = |failed| format!("afterwards: {failed}");
        let polled = passes_polled(&OURS_FAULTY, 1).map_err(afterwards)?;
        let intx = passes_awaited(&OURS_FAULTY, 1, "vfio-intx").map_err(afterwards)?;
        Ok(format!("one test aborted, one timed out; afterwards {polled}; {intx}"))
    }

    /// The whole system, with our own driver over real VFIO.
    pub(in crate::vm) fn our_demo(&mut self) -> Result<String, Failed> {
        busybox(&["modprobe", "tun"])?;
        busybox(&["modprobe", "veth"])?;
        // The demonstration is in a user namespace, where root may lock no more memory than others.
        let command = format!(
            "ulimit -l unlimited && \
             exec ioat demo --engine ioat:{} --bytes {DEMO_BYTES} --rounds 1 --json",
            OURS.address()
        );
        let said = busybox(&["sh", "-c", &command])?;
        // The kernel's receiver and ours.
        let verified = said.matches("\"verified\": true").count();
        let by_engine = said.rsplit("\"bytes_by_engine\": ").next().unwrap_or_default();
        let by_engine: u64 = by_engine.split(',').next().unwrap_or_default().parse().unwrap_or(0);
        if verified != 2 || !said.contains("\"kind\": \"hardware\"") || by_engine == 0 {
            return Err(said);
        }
        Ok(format!("{DEMO_BYTES} bytes received and checked, {by_engine} of them by the engine"))
    }

    /// Linux's driver gets a device back, when nobody has it open. It has passed its self tests, or there
    /// would be no channel.
    pub(in crate::vm) fn unbind(&mut self) -> Result<String, Failed> {
        let address = OURS_FAULTY.address();
        let group = fs::read_link(sysfs(&OURS_FAULTY).join("iommu_group"));
        let group = group.map_err(|error| format!("{address} has no IOMMU group: {error}"))?;
        let node = Path::new("/dev/vfio").join(group.file_name().unwrap_or_default());
        let open = File::open(&node).map_err(|error| format!("{}: {error}", node.display()))?;
        refused(&["unbind", &address], "is open in")?;
        drop(open);
        let said = ioat(&["unbind", &address])?;
        let driver = driver(&OURS_FAULTY)?;
        if driver != "ioatdma" {
            return Err(format!("{said}, but the driver is {driver}"));
        }
        let channels = channels(&OURS_FAULTY)?;
        if channels.len() != 1 {
            return Err(format!("{said}, but its channels are {channels:?}"));
        }
        Ok(format!("{}, refused while it was open; {}", said.trim(), channels.join(" ")))
    }

    /// Our own driver through the other way to a function that Linux has. Without the module
    /// `vfio_iommu_type1` it is the only one.
    pub(in crate::vm) fn our_dmatest_through_iommufd(&mut self) -> Result<String, Failed> {
        for module in REPLACED_MODULES {
            busybox(&["rmmod", module])?;
        }
        for module in IOMMUFD_MODULES {
            insmod(&format!("/lib/iommufd/{module}.ko"))?;
        }
        // It is still marked as vfio-pci's.
        let driver = driver(&OURS)?;
        if driver != "vfio-pci" || !sysfs(&OURS).join("vfio-dev").is_dir() {
            return Err(format!("the driver is {driver}, or it has made no file for the function"));
        }
        let polled = passes_polled(&OURS, OUR_CHANNELS)?;
        let msix = passes_awaited(&OURS, OUR_CHANNELS, "vfio-msix")?;
        Ok(format!("{polled}; {msix}"))
    }
}

/// How many channels of a device `ioat devices` has listed.
fn channels_listed(listed: &str, device: &Device) -> usize {
    listed.matches(&format!("ioat:{} ", device.address())).count()
}

/// Runs our own program, which must refuse with these words.
fn refused(arguments: &[&str], words: &str) -> Result<(), Failed> {
    match ioat(arguments) {
        Err(said) if said.contains(words) => Ok(()),
        Err(said) => Err(format!("it should say `{words}`: {said}")),
        Ok(said) => Err(format!("ioat {}: not refused: {said}", arguments.join(" "))),
    }
}

/// What came of our own dmatest.
struct Ran {
    /// Its exit status said that all is well.
    ok: bool,
    summaries: Vec<Summary>,
    errors: String,
    /// The device's lines of `/proc/interrupts`, as they were last.
    interrupts: Vec<String>,
}

/// Runs our own dmatest on all channels of a device, polled; all must pass.
fn passes_polled(device: &Device, channels: usize) -> Result<String, Failed> {
    run(device, channels, ITERATIONS, true)?.check()?;
    Ok(format!("{ITERATIONS} tests each of {channels} channels, polled"))
}

/// Likewise, waiting for interrupts of this kind, which must come.
fn passes_awaited(device: &Device, channels: usize, kind: &str) -> Result<String, Failed> {
    let ran = run(device, channels, AWAITED_ITERATIONS, false)?;
    ran.check()?;
    let of_kind = ran.interrupts.iter().filter(|line| line.contains(kind));
    let count: u64 = of_kind.map(|line| sum_of_interrupts(line)).sum();
    if count == 0 {
        return Err(format!("no interrupt by {kind}: {:?}", ran.interrupts));
    }
    Ok(format!("{AWAITED_ITERATIONS}, {count} interrupts by {}", kind.trim_end_matches('[')))
}

impl Ran {
    /// All has passed.
    fn check(&self) -> Result<(), Failed> {
        let Self { ok, summaries, errors, .. } = self;
        if !ok || summaries.iter().any(|summary| summary.failures > 0) {
            return Err(format!("{summaries:?} {errors}"));
        }
        Ok(())
    }
}

/// Runs our own dmatest on a device, all this many channels of which must go through to the end.
fn run(device: &Device, channels: usize, tests: u64, polled: bool) -> Result<Ran, Failed> {
    let (address, iterations) = (device.address(), tests.to_string());
    let engine = format!("ioat:{address}");
    // More than the driver's own watchdog takes: what hangs is then its to report.
    let timeout = TIMEOUT_MS.to_string();
    let mut arguments =
        vec!["dmatest", "--engine", &engine, "--iterations", &iterations, "--timeout", &timeout];
    if polled {
        arguments.push("--polled");
    }
    let failed = |error| format!("ioat dmatest: {error}");
    let mut command = Command::new("/bin/ioat");
    command.args(&arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().map_err(failed)?;
    let waiter = thread::spawn(move || child.wait_with_output());
    // The kernel forgets them with the device's last user.
    let mut interrupts = Vec::new();
    while !waiter.is_finished() {
        let table = read(Path::new("/proc/interrupts"))?;
        let lines = table.lines().filter(|line| line.contains(&address));
        let now: Vec<String> = lines.map(str::to_owned).collect();
        if !now.is_empty() {
            interrupts = now;
        }
        thread::sleep(Duration::from_millis(20));
    }
    let output = waiter.join().map_err(|_| "the thread that waited has panicked")?;
    let output = output.map_err(failed)?;
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    let summaries: Vec<Summary> = said.lines().filter_map(Summary::parse).collect();
    let whole = summaries.iter().all(|summary| summary.tests == tests);
    if summaries.len() != channels || !whole {
        return Err(format!("{arguments:?}: {}: {said} {errors}", output.status));
    }
    Ok(Ran { ok: output.status.success(), summaries, errors, interrupts })
}
