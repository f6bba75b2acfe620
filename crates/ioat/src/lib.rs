//! I/OAT for user space: the facade that applications depend on.

pub mod engine;
pub mod lab;
pub mod netlink;
