//! Inside the guest: the first process, which proves the steps and turns the machine off. Here are
//! those of Linux's driver.

mod ours;

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    thread,
    time::{Duration, Instant},
};

pub(super) use self::ours::IOMMUFD_MODULES;
use super::proof::{self, DEVICES, Device, FAILED, FAULTY, FINISHED, PASSED, STEPS, STOCK};
use crate::Failed;

/// Copies of each channel in each of dmatest's passes.
const ITERATIONS: u64 = 2000;
/// How long Linux's dmatest waits for a copy. Emulation has hiccups.
const TIMEOUT_MS: u32 = 10_000;
/// Likewise where copies are known to be lost: Linux takes up to 600 ms to reset a channel.
const SHORT_TIMEOUT_MS: u32 = 2000;

/// How long threads of dmatest may take to come to run.
const PATIENCE: Duration = Duration::from_secs(20);

/// The guest, and what it is to be.
pub(super) struct Guest {
    version: String,
}

/// Proves all steps. It is the first process: when it returns, the kernel panics, and the guest ends
/// by that if turning it off has failed.
pub(super) fn run(version: &str) -> ExitCode {
    let mut guest = Guest { version: version.to_owned() };
    if let Err(failed) = guest.prove() {
        println!("{failed}");
    }
    let _ = busybox(&["poweroff", "-f"]);
    ExitCode::FAILURE
}

impl Guest {
    fn prove(&mut self) -> Result<(), Failed> {
        for (kind, target) in [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev")] {
            busybox(&["mount", "-t", kind, kind, target])?;
        }
        // The first serial port is the console's.
        let mut report = write("/dev/ttyS1")?;
        for step in &STEPS {
            let started = Instant::now();
            let (verdict, seen) = match (step.prove)(self) {
                Ok(seen) => (PASSED, seen),
                Err(failed) => (FAILED, failed),
            };
            // One line, whatever it is.
            let seen = seen.replace(['\n', '\t'], " ");
            let took = started.elapsed().as_secs_f64();
            say(&mut report, &format!("{verdict}\t{}\t{seen} ({took:.1} s)\n", step.name))?;
            if verdict == FAILED {
                println!("{}", kernel_log()?.join("\n"));
                return Ok(());
            }
        }
        say(&mut report, &format!("{FINISHED}\n"))
    }

    /// Linux's driver takes the device: its self tests passed, or it would not.
    pub(super) fn stock_driver_binds(&mut self) -> Result<String, Failed> {
        busybox(&["modprobe", "ioatdma"])?;
        for device in &DEVICES {
            let driver = driver(device)?;
            if driver != "ioatdma" {
                return Err(format!("the driver of {} is {driver}", device.name));
            }
        }
        let channels = channels(&STOCK)?;
        if channels.len() != 2 {
            return Err(format!("channels: {channels:?}"));
        }
        let (version, capabilities) = (&self.version, proof::capabilities(&self.version));
        for channel in &channels {
            let read = |file| read(&Path::new("/sys/class/dma").join(channel).join(file));
            let (seen, cap) = (read("quickdata/version")?, read("quickdata/cap")?);
            if seen != *version || cap != capabilities {
                return Err(format!("{channel}: version `{seen}`, capabilities `{cap}`"));
            }
        }
        let complaints: Vec<String> =
            kernel_log()?.into_iter().filter(|line| is_complaint(line)).collect();
        if !complaints.is_empty() {
            return Err(complaints.join("; "));
        }
        Ok(format!("{} of version {version}, {capabilities}", channels.join(" and ")))
    }

    pub(super) fn dmatest_by_interrupt(&mut self) -> Result<String, Failed> {
        insmod("/lib/dmatest.ko")?;
        let before = interrupts(&STOCK)?;
        let seen = self.passes(&STOCK, false)?;
        let count = interrupts(&STOCK)? - before;
        if count == 0 {
            return Err(format!("{seen}, but there were no interrupts"));
        }
        Ok(format!("{seen}, {count} interrupts"))
    }

    pub(super) fn dmatest_polled(&mut self) -> Result<String, Failed> {
        let before = interrupts(&STOCK)?;
        let seen = self.passes(&STOCK, true)?;
        let count = interrupts(&STOCK)? - before;
        // The null descriptor that a channel begins with asks for one, whatever the test wants.
        if count > channels(&STOCK)?.len() as u64 {
            return Err(format!("{seen}, but there were {count} interrupts"));
        }
        Ok(seen)
    }

    /// Linux's driver meets the faults. What they hit fails, and dmatest goes on behind it.
    pub(super) fn dmatest_with_faults(&mut self) -> Result<String, Failed> {
        let before = kernel_log()?.len();
        let summaries = self.dmatest(&FAULTY, false, SHORT_TIMEOUT_MS)?;
        let log = kernel_log()?.split_off(before);
        let count = |word: &str| log.iter().filter(|line| line.contains(word)).count();
        let failures: u64 = summaries.iter().map(|summary| summary.failures).sum();
        let (halts, resets) = (count("Channel halted"), count("Restart channel"));
        let seen = format!("{failures} failures, {halts} halts, {resets} resets by the timer");
        // Each of the four that lose a copy fails at least one test. With it go those that were
        // submitted while the driver worked on it. One in a hundred is more than that.
        let most = ITERATIONS / 100 * summaries.len() as u64;
        if !(4..=most).contains(&failures) || halts != 1 || resets < 2 {
            return Err(format!("{seen}: {summaries:?}"));
        }
        Ok(seen)
    }

    pub(super) fn dmatest_after_faults(&mut self) -> Result<String, Failed> {
        self.passes(&FAULTY, false)
    }

    /// Runs Linux's dmatest on all channels of a device at once; all must pass.
    fn passes(&self, device: &Device, polled: bool) -> Result<String, Failed> {
        let summaries = self.dmatest(device, polled, TIMEOUT_MS)?;
        if summaries.iter().any(|summary| summary.failures > 0) {
            return Err(format!("{summaries:?}"));
        }
        let threads: Vec<&str> = summaries.iter().map(|each| each.thread.as_str()).collect();
        Ok(format!("{ITERATIONS} tests each of {}", threads.join(", ")))
    }

    /// Runs Linux's dmatest on all channels of a device at once; its threads must be those that the
    /// version should have, and go through to the end.
    fn dmatest(
        &self,
        device: &Device,
        polled: bool,
        timeout_ms: u32,
    ) -> Result<Vec<Summary>, Failed> {
        let channels = channels(device)?;
        let mut expected = Vec::new();
        for channel in &channels {
            expected.extend(proof::tests(&self.version).iter().map(|t| format!("{channel}-{t}0")));
        }
        expected.sort();
        let mut summaries = run_dmatest(&channels, polled, timeout_ms, expected.len())?;
        summaries.sort_by(|one, other| one.thread.cmp(&other.thread));
        let threads = summaries.iter().map(|each| &each.thread);
        if !threads.eq(&expected) || summaries.iter().any(|each| each.tests != ITERATIONS) {
            return Err(format!("expected {expected:?}, {ITERATIONS} tests each: {summaries:?}"));
        }
        Ok(summaries)
    }
}

/// One of dmatest's threads at its end.
#[derive(Debug, PartialEq, Eq)]
struct Summary {
    thread: String,
    tests: u64,
    failures: u64,
}

impl Summary {
    /// From a line of Linux's or of our own:
    /// `dmatest: dma0chan0-copy0: summary 2000 tests, 0 failures 792.17 iops 6447 KB/s (0)`.
    fn parse(line: &str) -> Option<Self> {
        let (_, rest) = line.split_once("dmatest: ")?;
        let (thread, rest) = rest.split_once(": summary ")?;
        let (tests, rest) = rest.split_once(" tests, ")?;
        let (failures, _) = rest.split_once(" failures ")?;
        let (tests, failures) = (tests.parse().ok()?, failures.parse().ok()?);
        Some(Self { thread: thread.to_owned(), tests, failures })
    }
}

/// Runs Linux's dmatest on channels, and returns what its threads, this many, say at the end.
fn run_dmatest(
    channels: &[String],
    polled: bool,
    timeout_ms: u32,
    threads: usize,
) -> Result<Vec<Summary>, Failed> {
    let before = kernel_log()?.len();
    set_dmatest("iterations", &ITERATIONS.to_string())?;
    set_dmatest("timeout", &timeout_ms.to_string())?;
    set_dmatest("polled", if polled { "1" } else { "0" })?;
    for channel in channels {
        set_dmatest("channel", channel)?;
    }
    set_dmatest("run", "1")?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        // Reading this waits for the threads that run, and takes those that have not come to run yet
        // for ended. So the log has the last word.
        read(Path::new("/sys/module/dmatest/parameters/wait"))?;
        let log = kernel_log()?;
        let summaries: Vec<_> =
            log.iter().skip(before).filter_map(|line| Summary::parse(line)).collect();
        if summaries.len() >= threads || Instant::now() >= deadline {
            return Ok(summaries);
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// Sets a parameter of Linux's dmatest.
fn set_dmatest(parameter: &str, value: &str) -> Result<(), Failed> {
    let path = format!("/sys/module/dmatest/parameters/{parameter}");
    say(&mut write(&path)?, value).map_err(|error| format!("{path}: `{value}`: {error}"))
}

/// The device in sysfs.
fn sysfs(device: &Device) -> PathBuf {
    Path::new("/sys/bus/pci/devices").join(device.address())
}

/// The name of a device's driver.
fn driver(device: &Device) -> Result<String, Failed> {
    let link = fs::read_link(sysfs(device).join("driver"));
    let link = link.map_err(|error| format!("{} has no driver: {error}", device.name))?;
    Ok(link.file_name().unwrap_or_default().to_string_lossy().into_owned())
}

/// The channels that Linux's driver has registered for a device.
fn channels(device: &Device) -> Result<Vec<String>, Failed> {
    let folder = sysfs(device).join("dma");
    let entries = fs::read_dir(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let names = entries.filter_map(|entry| Some(entry.ok()?.file_name()));
    let mut names: Vec<String> = names.map(|name| name.to_string_lossy().into_owned()).collect();
    names.sort();
    Ok(names)
}

/// Interrupts of a device so far, on all processors.
fn interrupts(device: &Device) -> Result<u64, Failed> {
    let table = read(Path::new("/proc/interrupts"))?;
    let address = device.address();
    Ok(table.lines().filter(|line| line.contains(&address)).map(sum_of_interrupts).sum())
}

/// What a line of `/proc/interrupts` counts, on all processors.
fn sum_of_interrupts(line: &str) -> u64 {
    let words = line.split_whitespace().skip(1);
    words.map_while(|word| word.parse::<u64>().ok()).sum()
}

/// Whether a line of the kernel's log says that the driver is not content.
fn is_complaint(line: &str) -> bool {
    let lower = line.to_lowercase();
    let ours = lower.contains("ioatdma") || lower.contains("dmar:") && lower.contains("fault");
    ours && ["error", "fail", "halted", "reset", "timed out", "fault"]
        .iter()
        .any(|word| lower.contains(word))
}

/// The kernel's log, all of it.
fn kernel_log() -> Result<Vec<String>, Failed> {
    Ok(busybox(&["dmesg"])?.lines().map(str::to_owned).collect())
}

fn insmod(module: &str) -> Result<(), Failed> {
    busybox(&["insmod", module]).map(drop)
}

/// Runs one of busybox's programs; its output.
fn busybox(arguments: &[&str]) -> Result<String, Failed> {
    run_program("/bin/busybox", arguments)
}

/// Runs our own program; its output.
fn ioat(arguments: &[&str]) -> Result<String, Failed> {
    run_program("/bin/ioat", arguments)
}

fn run_program(program: &str, arguments: &[&str]) -> Result<String, Failed> {
    let mut command = Command::new(program);
    // Not null, which would be opened: at first there is no /dev/null.
    let output = command.args(arguments).stdin(Stdio::inherit()).output();
    let shown = format!("{program} {}", arguments.join(" "));
    let output = output.map_err(|error| format!("{shown}: {error}"))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{shown}: {}: {said} {error}", output.status));
    }
    Ok(said)
}

fn read(path: &Path) -> Result<String, Failed> {
    let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(text.trim_end().to_owned())
}

fn write(path: &str) -> Result<File, Failed> {
    OpenOptions::new().write(true).open(path).map_err(|error| format!("{path}: {error}"))
}

fn say(file: &mut File, text: &str) -> Result<(), Failed> {
    file.write_all(text.as_bytes()).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries_are_read() {
        let line = "[    8.565568] dmatest: dma0chan0-copy0: summary 2000 tests, 1 failures 792.17 \
                    iops 6447 KB/s (0)";
        let expected = Summary { thread: "dma0chan0-copy0".into(), tests: 2000, failures: 1 };
        assert_eq!(Summary::parse(line), Some(expected));
        for other in [
            "[    5.5] dmatest: Added 1 threads using dma0chan0",
            "dmatest: dma0chan0-copy0: summary many tests, 1 failures 792.17 iops",
            "",
        ] {
            assert_eq!(Summary::parse(other), None, "{other}");
        }
    }

    #[test]
    fn complaints_are_told_from_news() {
        assert!(!is_complaint("[ 3.9] ioatdma: Intel(R) QuickData Technology Driver 5.00"));
        assert!(is_complaint(
            "[ 6.3] ioatdma 0000:00:03.0: ioat_timer_event: Channel halted (400)"
        ));
        assert!(is_complaint("[ 7.3] ioatdma 0000:00:03.0: Self-test xor timed out"));
        assert!(!is_complaint("[ 5.3] dmatest: module verification failed: signature missing"));
    }
}
