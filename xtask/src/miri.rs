//! The unit tests of `dmaengine` under Miri, which finds undefined behaviour: memory that is used
//! after it was freed, two threads at the same bytes, a reference to what an engine writes.
//!
//! Twice: with what every processor has, and `software` with AVX2 too, since under Miri a processor has
//! what the program is compiled for, and no more.
//!
//! Not a part of `cargo xtask test`: it takes a nightly toolchain, and half an hour.

use std::process::{Command, Stdio};

use crate::{Failed, root, run_shown};

/// What Miri is told beside its defaults. Its clock stays the virtual one, so that no test waits.
const FLAGS: [&str; 1] = [
    // Memory that an engine may still write is leaked rather than freed, and tests do it on purpose;
    // the thread of a copier outlives its last user by a moment, at the end of a test too.
    "-Zmiri-ignore-leaks",
];

/// The module that has code for more than every processor.
const BY_PROCESSOR: &str = "software::";

/// Runs the tests whose names contain one of `filters`; all if there are none.
pub(crate) fn run(filters: &[&str]) -> Result<(), Failed> {
    if !is_there() {
        return Err("Miri is not installed: \
                    `rustup toolchain install nightly --component miri,rust-src`"
            .into());
    }
    test(filters, "")?;
    let by_processor: Vec<&str> = match filters {
        [] => vec![BY_PROCESSOR],
        _ => filters.iter().copied().filter(|filter| filter.starts_with(BY_PROCESSOR)).collect(),
    };
    if by_processor.is_empty() || !cfg!(target_arch = "x86_64") {
        return Ok(());
    }
    test(&by_processor, "-Ctarget-feature=+avx2")
}

/// Runs tests, compiled with these flags.
fn test(filters: &[&str], rustflags: &str) -> Result<(), Failed> {
    // Those of the environment come last, so that `-Zmiri-tree-borrows` and its like can be added.
    let of_environment = std::env::var("MIRIFLAGS").unwrap_or_default();
    let flags = [&FLAGS.join(" "), of_environment.trim()].join(" ");
    let rustflags = [rustflags, &std::env::var("RUSTFLAGS").unwrap_or_default()].join(" ");
    let mut command = Command::new("rustup");
    command
        .args(["run", "nightly", "cargo", "miri", "test", "--package", "dmaengine", "--lib", "--"])
        .args(filters)
        .env("MIRIFLAGS", flags.trim())
        .env("RUSTFLAGS", rustflags.trim())
        .current_dir(root());
    run_shown(&mut command)
}

fn is_there() -> bool {
    let version = Command::new("rustup")
        .args(["run", "nightly", "cargo", "miri", "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    version.is_ok_and(|status| status.success())
}
