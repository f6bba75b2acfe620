//! `ioat bench`: the benchmarks, one module each.

use std::collections::HashSet;

use clap::{Args, Subcommand};

use self::output::Output;
use crate::failure::Failure;

mod dma;
mod output;
pub(super) mod receive;

/// The fewest turns of which a median is worth printing without a word about it.
const ENOUGH_ROUNDS: usize = 5;

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
    Receive(receive::Receive),
}

impl Bench {
    pub(crate) fn run(&self) -> Result<(), Failure> {
        match &self.what {
            What::Dma(command) => command.run(),
            What::Receive(command) => command.run(),
        }
    }
}

fn parse_rounds(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(rounds @ 1..=1000) => Ok(rounds),
        _ => Err("it must be a number from 1 to 1000".into()),
    }
}

/// The first element that an earlier one is equal to.
fn repeated<T: Eq + std::hash::Hash>(elements: &[T]) -> Option<&T> {
    let mut seen = HashSet::new();
    elements.iter().find(|element| !seen.insert(*element))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_repeated_is_found() {
        assert_eq!(repeated(&[1, 2, 3, 2, 1]), Some(&2));
        assert_eq!(repeated(&["a", "b"]), None);
    }
}
