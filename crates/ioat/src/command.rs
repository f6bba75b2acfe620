//! The commands, one module each.

mod bench;
mod bind;
mod causes;
mod demo;
mod devices;
mod dmatest;
mod emulate;
mod explain;
mod progress;
mod recv;
mod soak;
mod unbind;

use crate::failure::Failure;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    Demo(demo::Demo),
    Recv(recv::Recv),
    Devices(devices::Devices),
    Bind(bind::Bind),
    Unbind(unbind::Unbind),
    Dmatest(dmatest::Dmatest),
    Emulate(emulate::Emulate),
    Bench(bench::Bench),
    Explain(explain::Explain),
    Soak(soak::Soak),
}

impl Command {
    pub(crate) fn run(self) -> Result<(), Failure> {
        match self {
            Self::Demo(command) => command.run(),
            Self::Recv(command) => command.run(),
            Self::Devices(command) => command.run(),
            Self::Bind(command) => command.run(),
            Self::Unbind(command) => command.run(),
            Self::Dmatest(command) => command.run(),
            Self::Emulate(command) => command.run(),
            Self::Bench(command) => command.run(),
            Self::Explain(command) => command.run(),
            Self::Soak(command) => command.run(),
        }
    }
}

/// Prints one JSON document.
fn print_json(document: &impl serde::Serialize) {
    let text = serde_json::to_string_pretty(document).expect("rows of numbers and words serialise");
    println!("{text}");
}

/// This machine, as it is, cannot do it.
fn machine(error: impl std::fmt::Display) -> Failure {
    Failure::Machine(error.to_string())
}
