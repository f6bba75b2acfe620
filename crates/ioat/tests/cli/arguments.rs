//! Arguments that make no sense are refused with exit status 2, and help is given.

use crate::{DONE, USAGE, ioat, refuses};

#[test]
fn what_is_refused_is_named() {
    let recv = |more: &[&str]| {
        let mut command = ioat(&["recv", "--listen", "10.77.0.2:9000"]);
        command.args(more);
        command
    };
    refuses(&mut recv(&["--engine", "gpu"]), USAGE, &["unknown engine `gpu`", "ioat-model"]);
    refuses(&mut recv(&["--engine", "threads:0"]), USAGE, &["1 to 64"]);
    refuses(&mut recv(&["--engine", "ioat:eth0"]), USAGE, &["`eth0` is no PCI address"]);
    refuses(&mut recv(&["--engine", "ioat-model:9"]), USAGE, &["no version `9`", "3.2"]);
    refuses(&mut recv(&["--link", "eth0"]), USAGE, &["tap:NAME"]);
    refuses(&mut recv(&["--address", "10.77.0.2"]), USAGE, &["10.77.0.2/24"]);
    refuses(&mut recv(&["--address", "10.77.0.2/33"]), USAGE, &["10.77.0.2/24"]);
    refuses(&mut recv(&["--address", "10.77.0.3/24"]), USAGE, &["10.77.0.3", "make them equal"]);
    refuses(&mut recv(&["--read-size", "0"]), USAGE, &["1 byte"]);
    refuses(&mut recv(&["--read-size", "2T"]), USAGE, &["--read-size"]);
    refuses(&mut recv(&["--copybreak", "some"]), USAGE, &["`off`"]);
    refuses(&mut recv(&["--out", "/proc/nowhere/file"]), USAGE, &["cannot write", "--out"]);
    refuses(&mut ioat(&["recv", "--listen", "here"]), USAGE, &["--listen"]);
    refuses(&mut ioat(&["recv", "--listen", "0.0.0.0:9000"]), USAGE, &["--address CIDR"]);
    refuses(&mut ioat(&["recv"]), USAGE, &["--listen"]);
    refuses(&mut ioat(&["demo", "--bytes", "1Q"]), USAGE, &["`Q` is no unit"]);
    refuses(&mut ioat(&["demo", "--bytes", "0"]), USAGE, &["1 byte"]);
    refuses(&mut ioat(&["demo", "--rounds", "0"]), USAGE, &["--rounds"]);
    refuses(&mut ioat(&["dmatest"]), USAGE, &["--engine"]);
    refuses(&mut ioat(&["dmatest", "--engine", "cpu", "--op", "add"]), USAGE, &["memcpy"]);
    refuses(&mut ioat(&["dmatest", "--engine", "cpu", "--timeout", "0"]), USAGE, &["--timeout"]);
    refuses(&mut ioat(&["soak", "--seconds", "0"]), USAGE, &["--seconds"]);
    refuses(&mut ioat(&["soak", "--connections", "0"]), USAGE, &["--connections"]);
    refuses(&mut ioat(&["fly"]), USAGE, &["fly"]);
}

#[test]
fn every_command_has_help_with_an_example() {
    for command in ["demo", "recv", "devices", "bind", "unbind", "dmatest", "soak"] {
        let output = ioat(&[command, "--help"]).output().unwrap();
        let help = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), DONE);
        let (_, example) = help.split_once("Example:").unwrap_or_else(|| panic!("{help}"));
        assert!(example.contains(&format!("ioat {command}")), "{help}");
    }
}

#[test]
fn options_can_be_given_by_the_environment() {
    let mut command = ioat(&["recv", "--listen", "10.77.0.2:9000"]);
    refuses(command.env("IOAT_ENGINE", "gpu"), USAGE, &["unknown engine `gpu`"]);
}
