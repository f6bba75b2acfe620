//! The suites of streams once more, on an engine that delays, fails, halts, hangs and vanishes at
//! random.

#![allow(
    clippy::duplicate_mod,
    reason = "each suite has its `pair`, here as in a crate of its own"
)]

/// What the suites' `pair` sees. A suite whose crate is its own has another.
const FAILS: bool = true;

#[path = "../blocking.rs"]
mod blocking;
#[path = "../nonblocking.rs"]
mod nonblocking;
#[path = "../posted.rs"]
mod posted;
#[path = "../shared.rs"]
mod shared;
