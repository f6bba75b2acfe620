//! The command line, run as a user runs it: what it prints, its exit status, what it leaves behind.
//!
//! The tests that need a network namespace, a mount namespace or another user need root, and say so
//! when they fail for want of it. They use the programs of util-linux and coreutils.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    path::PathBuf,
    process::{Child, ChildStderr, Command, Output, Stdio},
};

use ioat::lab::PeerNamespace;
use rustix::process::{Pid, Signal, kill_process};

mod arguments;
mod bench;
mod bench_receive;
mod dma;
mod emulate;
mod hardware;
mod interrupted;
mod machine;
mod receiving;
mod showing;
mod soak;
#[path = "../waiting/mod.rs"]
mod waiting;

/// The program under test.
const IOAT: &str = env!("CARGO_BIN_EXE_ioat");

/// Where the examples of the documentation have it.
const STACK: &str = "10.77.0.2:9000";

/// A process's exit status when it is done, when a check failed, when its arguments make no sense,
/// and when the machine cannot do it.
const DONE: Option<i32> = Some(0);
const FAILED: Option<i32> = Some(1);
const USAGE: Option<i32> = Some(2);
const MACHINE: Option<i32> = Some(3);

/// Runs `test` in a network namespace of its own, in which it is alone.
fn in_namespace<T: Send>(test: impl FnOnce() -> T + Send) -> T {
    let namespace = PeerNamespace::new();
    let namespace = namespace.unwrap_or_else(|error| panic!("this test needs root: {error}"));
    namespace.run(test).expect("a namespace just made can be entered")
}

fn ioat(arguments: &[&str]) -> Command {
    let mut command = Command::new(IOAT);
    command.args(arguments);
    command
}

/// `ioat` with these arguments, in a mount namespace of its own that `script` has prepared, as root.
/// The script ends by running its arguments, which are the program with its own.
fn ioat_after(script: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-euc", script, "sh", IOAT]).args(arguments);
    command
}

/// Replaces the shell by its arguments, as nobody, who is not root. The program moves to where
/// everybody can execute it.
const AS_NOBODY: &str = r#"
    mount -t tmpfs -o mode=755 tmpfs /mnt
    cp "$1" /mnt/ioat
    shift
    exec setpriv --reuid 65534 --regid 65534 --clear-groups /mnt/ioat "$@""#;

/// Replaces `/dev/net/tun` by one with these permissions.
fn tun_with_mode(mode: &str) -> String {
    format!(
        "mount -t tmpfs -o mode=755 tmpfs /dev/net
         mknod -m {mode} /dev/net/tun c 10 200"
    )
}

/// Runs it and checks its exit status and that standard error contains each of `words`. What `ioat`
/// itself says is one line.
#[track_caller]
fn refuses(command: &mut Command, status: Option<i32>, words: &[&str]) {
    let output = command.output().expect("it can be run");
    let said = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), status, "{command:?} said: {said}");
    for word in words {
        assert!(said.contains(word), "{command:?} did not say `{word}`, but: {said}");
    }
    let last = said.lines().last().unwrap_or_default();
    assert!(last.starts_with("ioat: ") || said.starts_with("error: "), "{said}");
}

/// Runs it to its end, which must be good; what it printed, as JSON.
#[track_caller]
fn json(command: &mut Command) -> serde_json::Value {
    let output = command.output().expect("it can be run");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), DONE, "{command:?} said: {said}");
    serde_json::from_slice(&output.stdout).expect("JSON and nothing else")
}

/// Checks that an object has these fields and no others.
#[track_caller]
fn has_fields(object: &serde_json::Value, fields: &[&str]) {
    let mut expected = fields.to_vec();
    expected.sort_unstable();
    let present: Vec<_> = object.as_object().expect("an object").keys().collect();
    assert_eq!(present, expected);
}

/// An `ioat` that is running.
struct Running {
    child: Child,
    stderr: BufReader<ChildStderr>,
}

impl Running {
    fn start(command: &mut Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("it can be run");
        let stderr = BufReader::new(child.stderr.take().expect("piped"));
        Self { child, stderr }
    }

    /// Starts one that listens, and waits until it does.
    #[track_caller]
    fn listening(command: &mut Command) -> Self {
        let mut running = Self::start(command);
        running.wait_for("listening on ");
        running
    }

    /// Waits for a line on standard error that begins with this.
    #[track_caller]
    fn wait_for(&mut self, beginning: &str) {
        let mut said = String::new();
        loop {
            let start = said.len();
            let len = self.stderr.read_line(&mut said).expect("text");
            assert!(len > 0, "it ended without saying `{beginning}`, but: {said}");
            if said[start..].starts_with(beginning) {
                return;
            }
        }
    }

    fn interrupt(&self) {
        kill_process(self.pid(), Signal::INT).expect("our own child");
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// The links of the namespace that it is in.
    fn links(&self) -> Vec<String> {
        links(&format!("/proc/{}/net/dev", self.child.id()))
    }

    /// Waits until it ends by itself.
    fn finish(self) -> Output {
        let Self { child, mut stderr } = self;
        let mut said = Vec::new();
        stderr.read_to_end(&mut said).expect("a pipe");
        let mut output = child.wait_with_output().expect("our own child");
        output.stderr = said;
        output
    }
}

/// The links of the calling thread's network namespace.
fn links_here() -> Vec<String> {
    links("/proc/thread-self/net/dev")
}

/// The links that a `/proc/.../net/dev` lists.
fn links(path: &str) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let named = text.lines().filter_map(|line| line.split_once(':'));
    named.map(|(name, _)| name.trim().to_owned()).collect()
}

/// A folder of the test's own, empty.
fn folder(name: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    if path.exists() {
        fs::remove_dir_all(&path).expect("our own folder");
    }
    fs::create_dir_all(&path).expect("the target folder can be written");
    path
}
