//! `ioat bench`: the benchmarks, one module each.

use clap::{Args, Subcommand};

use crate::failure::Failure;

mod dma;

/// Measures what engines cost and give on this machine, beside their peers.
#[derive(Debug, Args)]
#[command(after_help = "Example: ioat bench dma --engine threads --json")]
pub(crate) struct Bench {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    Dma(dma::Dma),
}

impl Bench {
    pub(crate) fn run(&self) -> Result<(), Failure> {
        match &self.what {
            What::Dma(command) => command.run(),
        }
    }
}
