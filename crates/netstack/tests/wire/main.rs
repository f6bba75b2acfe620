//! Two stacks on a wire, through the public interface, in virtual time.

mod memory;
mod pair;
mod recovery;
mod streams;
