//! The project's chores: `cargo xtask test` runs every test, `cargo xtask check` what comes before.
//!
//! Both are lists of commands, printed as they run, so that any of them can be repeated by hand.

mod callgrind;
mod miri;
mod packages;
mod vm;

use std::{
    env,
    path::Path,
    process::{Command, ExitCode},
    time::Instant,
};

const HELP: &str = "\
Usage: cargo xtask <COMMAND>

Commands:
  test        All tests: unit, property, simulation, model checking, TAP against the kernel's TCP,
              the counts of `callgrind`, and the guests of `vm`
  check       Formatting, lints and documentation, with warnings as errors; of the fuzz targets the
              first two
  callgrind   Instructions that the I/OAT driver takes; fails where they are more than allowed
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
    cargo(
        &["test", "--package", "dmaengine", "--package", "ioatdma", "--lib", "--release", "model"],
        &[("RUSTFLAGS", "--cfg loom"), ("CARGO_TARGET_DIR", "target/loom")],
    )?;
    callgrind::run()?;
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
    let set = command.get_envs().filter_map(|(name, value)| Some((name, value?)));
    let mut shown: Vec<String> =
        set.map(|(name, value)| format!("{}='{}'", name.display(), value.display())).collect();
    let program = Path::new(command.get_program()).file_name().unwrap_or_default();
    shown.push(program.display().to_string());
    shown.extend(command.get_args().map(|argument| argument.display().to_string()));
    let shown = shown.join(" ");
    println!("xtask: {shown}");
    let started = Instant::now();
    match command.status() {
        Ok(status) if status.success() => {
            println!("xtask: passed in {:.1} s: {shown}", started.elapsed().as_secs_f64());
            Ok(())
        }
        _ => Err(shown),
    }
}

/// `cargo`, to be run at the workspace's root.
fn cargo_command() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}
