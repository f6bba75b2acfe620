//! The `ioat` command line.

use std::process::ExitCode;

use clap::Parser;

mod command;
mod failure;
mod size;

/// I/OAT for user space: received data is copied to its reader by a DMA engine, not by the CPU.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: command::Command,
}

fn main() -> ExitCode {
    // Bad arguments end in here, with exit status 2.
    match Arguments::parse().command.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("ioat: {failure}");
            failure.exit_code()
        }
    }
}
