//! I/OAT for user space: the facade that applications depend on.

pub mod bench;
pub mod engine;
pub mod host;
pub mod host_side;
pub mod lab;
pub mod measure;
pub mod netlink;
pub mod offload_counters;
pub mod soak;

/// The examples of the README compile.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
