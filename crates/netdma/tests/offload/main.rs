//! The offload over a real stack, packet by packet, and over an engine that does as it is told.

mod auto;
mod bench;
mod calls;
mod clock;
mod engine;
mod measured;
mod sharing;
mod wake;
