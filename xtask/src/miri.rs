//! The unit tests of `dmaengine` under Miri, which finds undefined behaviour: memory that is used
//! after it was freed, two threads at the same bytes, a reference to what an engine writes.
//!
//! Twice: with what every processor has, and `software` with AVX2 too, since under Miri a processor has
//! what the program is compiled for, and no more.
//!
//! Not a part of `cargo xtask test`: it takes a nightly toolchain, and half an hour.

use std::{
    collections::BTreeMap,
    num::NonZero,
    process::{Command, Output, Stdio},
    sync::Mutex,
    thread,
};

use crate::{Failed, root};

/// What Miri is told beside its defaults. Its clock stays the virtual one, so that no test waits.
const FLAGS: [&str; 3] = [
    // Memory that an engine may still write is leaked rather than freed, and tests do it on purpose;
    // the thread of a copier outlives its last user by a moment, at the end of a test too.
    "-Zmiri-ignore-leaks",
    // proptest looks for the file of what has failed before: Miri has no folders. And a case takes
    // seconds.
    "-Zmiri-env-set=PROPTEST_DISABLE_FAILURE_PERSISTENCE=true",
    "-Zmiri-env-set=PROPTEST_CASES=8",
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

/// Runs tests, compiled with these flags: each module's in a process of its own, as many at a time as
/// there are processors. What Miri knows of each byte goes with its process; with all tests in one it
/// had 12 GiB after half an hour, and hardly moved.
fn test(filters: &[&str], rustflags: &str) -> Result<(), Failed> {
    let listed = command(filters, rustflags).arg("--list").stderr(Stdio::inherit()).output();
    let listed = listed.map_err(|error| format!("cannot run Miri: {error}"))?;
    if !listed.status.success() {
        return Err("Miri cannot list the tests".into());
    }
    let listed = String::from_utf8_lossy(&listed.stdout);
    let mut modules: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (module, test) in listed.lines().filter_map(module_and_test) {
        modules.entry(module).or_default().push(test);
    }
    if modules.is_empty() {
        return Err("there is no test of that name".into());
    }
    let left = Mutex::new(modules.into_iter());
    let failed = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, NonZero::get) {
            scope.spawn(|| {
                loop {
                    let next = left.lock().ok().and_then(|mut left| left.next());
                    let Some((module, tests)) = next else { return };
                    let output = command(&tests, rustflags).arg("--exact").output();
                    let passed = output.as_ref().is_ok_and(|output| output.status.success());
                    // One print, so that those of two do not mix.
                    println!("Miri: {module} {}", if passed { "passed" } else { "FAILED" });
                    if !passed && let Ok(mut failed) = failed.lock() {
                        failed.push((module, output));
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap_or_default();
    for (module, output) in &failed {
        match output {
            Ok(Output { stdout, stderr, .. }) => {
                let [stdout, stderr] = [stdout, stderr].map(|text| String::from_utf8_lossy(text));
                eprintln!("{module}\n{stdout}{stderr}");
            }
            Err(error) => eprintln!("{module}: {error}"),
        }
    }
    if failed.is_empty() { Ok(()) } else { Err("tests failed under Miri".into()) }
}

/// The module of a test in a list of them, and its name: `layer::split` of
/// `layer::split::tests::the_name: test`.
fn module_and_test(line: &str) -> Option<(&str, &str)> {
    let test = line.strip_suffix(": test")?;
    let mut ends = test.match_indices("::").map(|(end, _)| end);
    let first = ends.next()?;
    Some((&test[..ends.next().unwrap_or(first)], test))
}

/// Miri, for the tests whose names contain one of `filters`.
fn command(filters: &[&str], rustflags: &str) -> Command {
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
    command
}

fn is_there() -> bool {
    let version = Command::new("rustup")
        .args(["run", "nightly", "cargo", "miri", "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    version.is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_are_chosen_by_their_module() {
        let module = |line| module_and_test(line).map(|(module, _)| module);
        assert_eq!(module("layer::split::tests::a_name: test"), Some("layer::split"));
        assert_eq!(module("cookie::tests::a_name: test"), Some("cookie::tests"));
        assert_eq!(module("tests::a_name: test"), Some("tests"));
        assert_eq!([module("2 tests, 0 benchmarks"), module("")], [None, None]);
    }
}
