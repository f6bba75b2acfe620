//! The project's chores: `cargo xtask test` runs every test, `cargo xtask check` what comes before.
//!
//! Both are lists of commands, printed as they run, so that any of them can be repeated by hand.

mod callgrind;
mod miri;
mod packages;
mod vm;

use std::{
    env,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, ExitCode, Stdio},
    time::Instant,
};

const HELP: &str = "\
Usage: cargo xtask <COMMAND>

Commands:
  test        All tests: unit, property, simulation, model checking, TAP against the kernel's TCP,
              the counts of `callgrind`, a million operations on the device model without faults and
              with them, and the guests of `vm`
  check       Formatting, lints and documentation, with warnings as errors; of the fuzz targets the
              first two
  callgrind   Instructions that the I/OAT driver and reads take; fails where they are more than allowed
  miri        Unit tests of dmaengine under Miri, those that it can follow (TEST...: those of that
              name only); needs a nightly toolchain, and is no part of `test`
  vm          Stock Linux guests on the device model, one for each version (--version V: that one
              only), and our driver in them over VFIO; needs root

Example: cargo xtask check && cargo xtask test";

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let outcome = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["test"] => test(),
        ["check"] => check(),
        ["callgrind"] => callgrind::run(),
        ["miri", ref filters @ ..] => miri::run(filters),
        ["vm", ref arguments @ ..] => vm::run(arguments),
        // Not for people: the first process of a guest.
        ["vm-guest", version] => return vm::guest(version),
        ["help" | "--help" | "-h"] => {
            println!("{HELP}");
            return ExitCode::SUCCESS;
        }
        _ => {
            eprintln!("{HELP}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failed) => {
            eprintln!("xtask: failed: {failed}");
            ExitCode::FAILURE
        }
    }
}

/// The workspace's root.
fn root() -> &'static Path {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask)
}

/// A command that failed, as it can be typed again, or what else is wrong.
type Failed = String;

fn test() -> Result<(), Failed> {
    cargo(&["test", "--workspace", "--all-targets"], &[])?;
    // Documentation examples are not among `--all-targets`.
    cargo(&["test", "--workspace", "--doc"], &[])?;
    // Model checking explores every interleaving: of the copy threads' ring and their wake-up, of
    // the I/OAT driver and its device. Its own target folder, because the flag would otherwise
    // rebuild everything each time.
    let mut models = cargo_command();
    models
        .args(["test", "--package", "dmaengine", "--package", "ioatdma", "--lib", "--release"])
        .arg("model")
        .envs([("RUSTFLAGS", "--cfg loom"), ("CARGO_TARGET_DIR", "target/loom")]);
    run_tests_shown(&mut models)?;
    callgrind::run()?;
    // Optimised, as it takes minutes otherwise; `callgrind` has built most of it.
    let mut million = cargo_command();
    million.args(["test", "--package", "ioatdma", "--test", "driver", "--release", "--"]);
    run_tests_shown(million.args(["--ignored", "million"]))?;
    vm::run(&[])
}

fn check() -> Result<(), Failed> {
    cargo(&["fmt", "--all", "--check"], &[])?;
    cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"], &[])?;
    // The fuzz targets are apart from the workspace. Without libFuzzer, which takes a C++ compiler.
    let fuzz = "crates/ioat-model/fuzz/Cargo.toml";
    cargo(&["fmt", "--manifest-path", fuzz, "--check"], &[])?;
    let without_libfuzzer =
        ["clippy", "--manifest-path", fuzz, "--no-default-features", "--locked"];
    cargo(&[&without_libfuzzer[..], &["--", "-D", "warnings"]].concat(), &[])?;
    cargo(
        &["doc", "--workspace", "--no-deps", "--document-private-items"],
        &[("RUSTDOCFLAGS", "-D warnings")],
    )
}

/// Runs `cargo` at the workspace's root.
fn cargo(arguments: &[&str], variables: &[(&str, &str)]) -> Result<(), Failed> {
    run_shown(cargo_command().args(arguments).envs(variables.iter().copied()))
}

/// Runs a command, and prints it as it can be typed again.
fn run_shown(command: &mut Command) -> Result<(), Failed> {
    show(command, |command| command.status().is_ok_and(|status| status.success()))
}

/// As [`run_shown`], of tests that are chosen by a part of their names. A test program without any of
/// that name passes, so it is looked for.
fn run_tests_shown(command: &mut Command) -> Result<(), Failed> {
    show(command, |command| {
        let Ok(mut child) = command.stdout(Stdio::piped()).spawn() else { return false };
        let mut counts = Vec::new();
        if let Some(output) = child.stdout.take() {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                println!("{line}");
                counts.extend(tests_in(&line));
            }
        }
        let passed = child.wait().is_ok_and(|status| status.success());
        let all_ran = !counts.is_empty() && !counts.contains(&0);
        if passed && !all_ran {
            eprintln!("xtask: a test program has no test of that name");
        }
        passed && all_ran
    })
}

/// How many tests a test program is about to run, if the line tells it.
fn tests_in(line: &str) -> Option<usize> {
    let (count, unit) = line.strip_prefix("running ")?.split_once(' ')?;
    if matches!(unit, "test" | "tests") { count.parse().ok() } else { None }
}

/// Prints a command, has it run, which tells whether it passed, and prints that.
fn show(command: &mut Command, run: impl FnOnce(&mut Command) -> bool) -> Result<(), Failed> {
    let set = command.get_envs().filter_map(|(name, value)| Some((name, value?)));
    let mut shown: Vec<String> =
        set.map(|(name, value)| format!("{}='{}'", name.display(), value.display())).collect();
    let program = Path::new(command.get_program()).file_name().unwrap_or_default();
    shown.push(program.display().to_string());
    shown.extend(command.get_args().map(|argument| argument.display().to_string()));
    let shown = shown.join(" ");
    println!("xtask: {shown}");
    let started = Instant::now();
    if !run(command) {
        return Err(shown);
    }
    println!("xtask: passed in {:.1} s: {shown}", started.elapsed().as_secs_f64());
    Ok(())
}

/// `cargo`, to be run at the workspace's root.
fn cargo_command() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_program_tells_how_many_it_runs() {
        let counts = ["running 12 tests", "running 1 test", "running 0 tests"].map(tests_in);
        assert_eq!(counts, [Some(12), Some(1), Some(0)]);
        for line in ["", "running", "running 3 benches", "test result: ok. 0 passed"] {
            assert_eq!(tests_in(line), None);
        }
    }

    #[test]
    fn tests_that_are_not_there_are_a_failure() {
        let said = |text: &str| run_tests_shown(Command::new("echo").arg(text));
        assert_eq!(said("running 2 tests"), Ok(()));
        assert!(said("running 0 tests").is_err());
        assert!(said("nothing").is_err());
    }
}
