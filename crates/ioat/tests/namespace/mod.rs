//! Tests one after the other, each in a network namespace of its own: what the kernel still sends for
//! the connections of one, a FIN again and again, does not reach the stack of the next.
//!
//! A process can only enter a user namespace while it has one thread, so such a test has its own
//! `main` and no harness.

use std::{env, panic::catch_unwind, process::ExitCode, time::Instant};

use ioat::lab::{Namespace, PeerNamespace};

/// A test and its name.
pub(crate) type Test = (&'static str, fn());

/// A list of tests, each by the name of its function.
macro_rules! tests {
    ($($name:path),* $(,)?) => {
        &[$((stringify!($name), $name as fn())),*]
    };
}
pub(crate) use tests;

/// Enters a namespace and runs the tests; those whose name contains the first argument that is no
/// option, if there is one.
pub(crate) fn run(tests: &[Test]) -> ExitCode {
    if let Err(error) = Namespace::enter() {
        eprintln!("these tests need a namespace: {error}");
        return ExitCode::FAILURE;
    }
    let wanted = env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let mut failed = Vec::new();
    for (name, test) in tests {
        if wanted.as_ref().is_some_and(|wanted| !name.contains(wanted.as_str())) {
            continue;
        }
        let started = Instant::now();
        let inside = || PeerNamespace::new().and_then(|namespace| namespace.run(test));
        let passed = match catch_unwind(inside) {
            Ok(entered) => entered.inspect_err(|error| eprintln!("{name}: {error}")).is_ok(),
            Err(_panic) => false,
        };
        let seconds = started.elapsed().as_secs_f64();
        println!("test {name} ... {} ({seconds:.2} s)", if passed { "ok" } else { "FAILED" });
        if !passed {
            failed.push(*name);
        }
    }
    if failed.is_empty() {
        return ExitCode::SUCCESS;
    }
    eprintln!("failed: {}", failed.join(", "));
    ExitCode::FAILURE
}
