//! A guest with its devices: `ioat emulate` for each of them, and QEMU.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::{cache::Cache, proof::DEVICES};
use crate::Failed;

/// How long a guest may take. It takes a quarter of that on two idle processors, emulated.
const LIMIT: Duration = Duration::from_secs(180);

/// How many accesses to the registers of a device are shown where a proof fails.
const LAST_ACCESSES: usize = 100;

/// What a guest has said.
pub(super) struct Outcome {
    /// Lines on the serial port that the proof has for itself.
    pub(super) report: Vec<String>,
    /// What the guest's kernel and programs printed, and the devices, for people.
    pub(super) logs: String,
    /// Why it did not end by itself, or a device not as it should.
    pub(super) wrong: Option<Failed>,
}

/// The folder of one guest, in the root so that QEMU finds it. It goes with the guest.
struct Folder {
    path: PathBuf,
    /// As it is seen in the root.
    inside: String,
}

impl Folder {
    fn new(cache: &Cache, version: &str) -> Result<Self, Failed> {
        let inside = format!("/run/ioat-{}-{version}", std::process::id());
        let path = cache.root.join(inside.trim_start_matches('/'));
        fs::create_dir_all(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Self { path, inside })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed is removed with the cache.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Boots a guest with devices of this version, and waits until it ends.
pub(super) fn boot(
    cache: &Cache,
    initramfs: &[u8],
    ioat: &Path,
    version: &str,
) -> Result<Outcome, Failed> {
    let folder = Folder::new(cache, version)?;
    let image = folder.path.join("initramfs");
    fs::write(&image, initramfs).map_err(|error| format!("{}: {error}", image.display()))?;
    let mut devices = Vec::new();
    for device in &DEVICES {
        devices.push(Emulated::start(ioat, &folder.path, version, device.name, device.options)?);
    }
    let mut qemu = qemu(cache, &folder, version)?.spawn().map_err(|e| format!("QEMU: {e}"))?;
    let (report, mut wrong) = watch(&mut qemu);
    let console = fs::read(folder.path.join("console")).unwrap_or_default();
    let errors = qemu.stderr.take().map(read_all).unwrap_or_default();
    let mut logs = format!(
        "--- the guest's console\n{}\n--- QEMU\n{errors}\n",
        String::from_utf8_lossy(&console)
    );
    for device in devices {
        let name = device.name;
        let (log, ended) = device.end();
        logs.push_str(&format!("--- ioat emulate, {name}\n{log}\n"));
        wrong = wrong.or_else(|| ended.err());
    }
    Ok(Outcome { report, logs, wrong })
}

/// The command that boots the guest. Its second serial port is the command's output.
fn qemu(cache: &Cache, folder: &Folder, version: &str) -> Result<Command, Failed> {
    let kernel = cache.only("boot", "vmlinuz-")?;
    let kernel = kernel.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let inside = &folder.inside;
    let mut qemu = cache.command("qemu-system-x86_64");
    // Memory that devices in other processes can map; an IOMMU, which tells them of every mapping.
    qemu.args(["-machine", "q35,memory-backend=memory,kernel-irqchip=split"]);
    qemu.args(["-object", "memory-backend-memfd,id=memory,size=768M,share=on", "-m", "768"]);
    qemu.args(["-device", "intel-iommu,caching-mode=on,aw-bits=48"]);
    qemu.args(["-accel", "tcg", "-cpu", "max", "-smp", "2"]);
    qemu.args(["-nodefaults", "-display", "none", "-no-reboot"]);
    qemu.args(["-serial", &format!("file:{inside}/console"), "-serial", "stdio"]);
    qemu.args(["-kernel", &format!("/boot/{kernel}")]);
    qemu.args(["-initrd", &format!("{inside}/initramfs")]);
    // On a busy machine, emulated processors are too slow for the kernel's check of its timer. Linux's
    // driver counts ticks while it waits in a timer for a channel that hangs: processors that were
    // idle must tick, or it waits for ever.
    // The kernel's own drivers get physical addresses, VFIO's users those that they choose.
    qemu.arg("-append").arg(format!(
        "console=ttyS0 quiet panic=-1 no_timer_check nohz=off intel_iommu=on iommu=pt rdinit=/bin/xtask \
         -- vm-guest {version}"
    ));
    for device in &DEVICES {
        let (slot, name) = (device.slot, device.name);
        qemu.arg("-device").arg(format!(
            r#"{{"driver":"vfio-user-pci","addr":"{slot}.0","socket":{{"type":"unix","path":"{inside}/{name}"}}}}"#
        ));
    }
    qemu.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Ok(qemu)
}

/// Collects what the guest reports, until it ends or its time is over.
fn watch(qemu: &mut Child) -> (Vec<String>, Option<Failed>) {
    let (sender, lines) = mpsc::channel();
    let reader = qemu.stdout.take().map(|stdout| {
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        })
    });
    let deadline = Instant::now() + LIMIT;
    let mut report = Vec::new();
    let wrong = loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match lines.recv_timeout(left) {
            Ok(line) => report.push(line.trim_end().to_owned()),
            Err(RecvTimeoutError::Disconnected) => break None,
            Err(RecvTimeoutError::Timeout) => {
                // It may just have ended by itself.
                let _ = qemu.kill();
                break Some(format!("the guest has not ended after {LIMIT:?}"));
            }
        }
    };
    drop(lines);
    if let Some(reader) = reader {
        // It does not panic, and ends with QEMU.
        let _ = reader.join();
    }
    let wrong = match qemu.wait() {
        _ if wrong.is_some() => wrong,
        Ok(status) if status.success() => None,
        outcome => Some(format!("QEMU: {outcome:?}")),
    };
    (report, wrong)
}

/// An `ioat emulate`.
struct Emulated {
    name: &'static str,
    child: Child,
    log: Option<JoinHandle<String>>,
    socket: PathBuf,
    trace: PathBuf,
}

impl Emulated {
    /// Starts it and waits until it listens.
    fn start(
        ioat: &Path,
        folder: &Path,
        version: &str,
        name: &'static str,
        options: &[&str],
    ) -> Result<Self, Failed> {
        let trace = format!("{name}.trace");
        // Named from within the folder: a path to a socket must be short.
        let mut command = Command::new(ioat);
        command.current_dir(folder).args(["emulate", "--socket", name, "--version", version]);
        command.args(["--trace", &trace]).args(options).stdin(Stdio::null()).stderr(Stdio::piped());
        let shown = format!("{command:?}");
        let mut child = command.spawn().map_err(|error| format!("{shown}: {error}"))?;
        let stderr = child.stderr.take().ok_or("a child without a standard error")?;
        let mut stderr = BufReader::new(stderr);
        let mut first = String::new();
        // Whatever it says first: only one line says that it listens.
        let _ = stderr.read_line(&mut first);
        let (socket, trace) = (folder.join(name), folder.join(trace));
        let mut device = Self { name, child, log: None, socket, trace };
        if !first.starts_with("listening on ") {
            // It is ending.
            let _ = device.child.wait();
            return Err(format!("{shown}: {first}{}", read_all(stderr)));
        }
        device.log = Some(thread::spawn(move || first + &read_all(stderr)));
        Ok(device)
    }

    /// Ends it as Ctrl-C does; its log, and whether it ended well.
    fn end(mut self) -> (String, Result<(), Failed>) {
        let name = self.name;
        let interrupt = ["-c", "kill -INT \"$0\"", &self.child.id().to_string()];
        let interrupt = Command::new("sh").args(interrupt).status();
        if !interrupt.is_ok_and(|status| status.success()) {
            // It has ended already, which its status tells.
            let _ = self.child.kill();
        }
        let status = self.child.wait();
        let mut log = self.log.take().and_then(|log| log.join().ok()).unwrap_or_default();
        let trace = fs::read_to_string(&self.trace).unwrap_or_default();
        let accesses: Vec<&str> = trace.lines().collect();
        let last = accesses.len().saturating_sub(LAST_ACCESSES);
        log.push_str(&format!("…\n{}\n", accesses[last..].join("\n")));
        let ended = match status {
            Ok(status) if !status.success() => Err(format!("ioat emulate, {name}: {status}")),
            Err(error) => Err(format!("ioat emulate, {name}: {error}")),
            Ok(_) if self.socket.exists() => {
                Err(format!("ioat emulate, {name}: it has left its socket behind"))
            }
            Ok(_) => Ok(()),
        };
        (log, ended)
    }
}

impl Drop for Emulated {
    fn drop(&mut self) {
        // After `end` there is nothing left to kill or to wait for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read_all(mut source: impl Read) -> String {
    let mut bytes = Vec::new();
    // What was read before an error is better than nothing.
    let _ = source.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}
