//! Links against the kernel, and what they cost.

mod namespace;
mod no_allocation;
mod tap;
