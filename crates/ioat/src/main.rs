//! The `ioat` command line.

fn main() {}
