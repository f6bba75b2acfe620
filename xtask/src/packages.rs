//! Debian packages that the tests need: installed where that can be done, named where not.

use std::{
    io,
    process::{Command, Stdio},
};

use crate::Failed;

/// Makes sure that `program`, from the Debian package `package`, can be run. On a machine with `apt-get`
/// it is installed if we are root.
pub(crate) fn ensure(program: &str, package: &str) -> Result<(), Failed> {
    if is_there(program)? {
        return Ok(());
    }
    let missing = format!("{program} is not installed: `apt-get install {package}`");
    if !is_root() || !is_there("apt-get")? {
        return Err(missing);
    }
    for arguments in [&["update", "--quiet"][..], &["install", "--yes", "--quiet", package]] {
        println!("xtask: apt-get {}", arguments.join(" "));
        let status = Command::new("apt-get")
            .args(arguments)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .status();
        if !status.is_ok_and(|status| status.success()) {
            return Err(missing);
        }
    }
    if is_there(program)? { Ok(()) } else { Err(missing) }
}

fn is_there(program: &str) -> Result<bool, Failed> {
    match Command::new(program).arg("--version").stdout(Stdio::null()).status() {
        Ok(status) if status.success() => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        outcome => Err(format!("{program} --version: {outcome:?}")),
    }
}

pub(crate) fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output();
    id.is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}
