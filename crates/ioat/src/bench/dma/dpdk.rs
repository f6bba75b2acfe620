//! The comparison program over DPDK: built from the source in `bench/dpdk`, and asked for passes.

use std::{
    fs::DirBuilder,
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio},
    time::Duration,
};

use serde::{Deserialize, de::DeserializeOwned};

use super::figures::{Cost, Percentiles, Point};
use crate::bench::Cpus;

/// So that an installed `ioat` needs no checkout.
const SOURCE: &str = include_str!("../../../../../bench/dpdk/dma.c");

/// The C compiler and its arguments: as in `bench/dpdk/Makefile`.
const COMPILER: &str = "cc";
const COMPILE: [&str; 5] = ["-O3", "-DALLOW_EXPERIMENTAL_API", "-x", "c", "-"];

/// Why there are no figures of DPDK's. The benchmark goes on without them.
#[derive(Debug, thiserror::Error)]
pub enum NoDpdk {
    /// Its copy thread needs a CPU of its own.
    #[error("its copy thread needs a second CPU: allow this process two, or name them with --cpus")]
    OneCpu,
    /// A program that building needs is missing.
    #[error("`{program}` cannot be run ({error}): apt-get install gcc pkg-config libdpdk-dev")]
    Program {
        /// Its name.
        program: &'static str,
        /// Why.
        error: io::Error,
    },
    /// `pkg-config` does not know it.
    #[error("DPDK is not installed: apt-get install libdpdk-dev")]
    NotInstalled,
    /// No folder to build in.
    #[error("there is no room to build the comparison program ({0}): set TMPDIR")]
    Folder(#[source] io::Error),
    /// The compiler refused it.
    #[error("the comparison program does not compile with this DPDK (22.11 is known to work): {0}")]
    Compile(String),
    /// DPDK did not come up.
    #[error("DPDK does not start: {0}")]
    Start(String),
}

/// The comparison program broke off.
#[derive(Debug, thiserror::Error)]
#[error("the comparison program over DPDK broke off: {0}")]
pub struct DpdkError(String);

/// The comparison program, running. Between passes it does nothing.
#[derive(Debug)]
pub(super) struct Dpdk {
    child: Child,
    /// `None` once it was told to end.
    requests: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    version: String,
}

/// Its first line.
#[derive(Deserialize)]
struct Greeting {
    version: String,
}

impl Dpdk {
    /// Builds and starts it.
    pub(super) fn start(cpus: Cpus) -> Result<Self, NoDpdk> {
        if !cpus.are_two() {
            return Err(NoDpdk::OneCpu);
        }
        let folder = BuildFolder::new().map_err(NoDpdk::Folder)?;
        let program = folder.0.join("dpdk-dma");
        compile(&program)?;
        let mut child = Command::new(&program)
            .args([cpus.caller.to_string(), cpus.engine.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| NoDpdk::Start(error.to_string()))?;
        // It runs on without its file.
        drop(folder);
        let (requests, answers) = (child.stdin.take(), child.stdout.take().expect("piped"));
        let mut dpdk =
            Self { child, requests, answers: BufReader::new(answers), version: String::new() };
        let greeting: Greeting =
            dpdk.answer().map_err(|DpdkError(reason)| NoDpdk::Start(reason))?;
        dpdk.version = greeting.version;
        Ok(dpdk)
    }

    pub(super) fn version(&self) -> &str {
        &self.version
    }

    /// A pass that measures what the caller pays.
    pub(super) fn cost(&mut self, request: Request) -> Result<Cost, DpdkError> {
        self.ask("cost", request)
    }

    /// A pass that measures how long operations take.
    pub(super) fn latency(&mut self, request: Request) -> Result<Percentiles, DpdkError> {
        self.ask("latency", request)
    }

    fn ask<T: DeserializeOwned>(&mut self, what: &str, request: Request) -> Result<T, DpdkError> {
        let Request { point: Point { size, batch }, depth, pairs, duration } = request;
        let line = format!("{what} {size} {batch} {depth} {pairs} {}\n", duration.as_micros());
        if let Some(requests) = &mut self.requests {
            // If it has gone, there is no answer either, and that says why.
            let _ = requests.write_all(line.as_bytes());
        }
        self.answer()
    }

    fn answer<T: DeserializeOwned>(&mut self) -> Result<T, DpdkError> {
        let mut line = String::new();
        match self.answers.read_line(&mut line) {
            Ok(0) => Err(DpdkError(self.last_words())),
            Ok(_) => serde_json::from_str(&line)
                .map_err(|error| DpdkError(format!("{error} in its answer {}", line.trim()))),
            Err(error) => Err(DpdkError(error.to_string())),
        }
    }

    /// What it wrote to standard error before it ended.
    fn last_words(&mut self) -> String {
        let mut said = String::new();
        if let Some(stderr) = &mut self.child.stderr {
            // Whatever can be read of it.
            let _ = stderr.read_to_string(&mut said);
        }
        said.trim().lines().last().unwrap_or("it said nothing").to_owned()
    }
}

impl Drop for Dpdk {
    fn drop(&mut self) {
        // The end of its input ends it, unless it is stuck.
        self.requests = None;
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A pass, as the program is asked for it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    pub(super) point: Point,
    pub(super) depth: usize,
    pub(super) pairs: usize,
    pub(super) duration: Duration,
}

fn compile(program: &Path) -> Result<(), NoDpdk> {
    let flags = run("pkg-config", Command::new("pkg-config").args(["--cflags", "libdpdk"]), "")?;
    let libraries = run("pkg-config", Command::new("pkg-config").args(["--libs", "libdpdk"]), "")?;
    let (Some(flags), Some(libraries)) = (text_of(&flags), text_of(&libraries)) else {
        return Err(NoDpdk::NotInstalled);
    };
    let mut compiler = Command::new(COMPILER);
    compiler.args(flags.split_whitespace()).args(COMPILE).arg("-o").arg(program);
    // After the source: with --as-needed the order matters.
    compiler.args(libraries.split_whitespace());
    let compiled = run(COMPILER, &mut compiler, SOURCE)?;
    if compiled.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&compiled.stderr);
    let first = said.lines().find(|line| line.contains("error")).unwrap_or_else(|| said.trim());
    Err(NoDpdk::Compile(first.to_owned()))
}

/// Runs a program with this standard input to its end.
fn run(program: &'static str, command: &mut Command, input: &str) -> Result<Output, NoDpdk> {
    let mut run = || {
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            // A program that ends without reading it all says why itself.
            let _ = stdin.write_all(input.as_bytes());
        }
        child.wait_with_output()
    };
    run().map_err(|error| NoDpdk::Program { program, error })
}

/// What a program that succeeded printed.
fn text_of(output: &Output) -> Option<&str> {
    if !output.status.success() {
        return None;
    }
    str::from_utf8(&output.stdout).ok()
}

/// A folder that only this process builds in, removed on drop.
struct BuildFolder(PathBuf);

impl BuildFolder {
    fn new() -> io::Result<Self> {
        let path = std::env::temp_dir().join(format!("ioat-bench-{}", std::process::id()));
        // Fails if it exists: what lies in a folder of somebody else's is not run.
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }
}

impl Drop for BuildFolder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
