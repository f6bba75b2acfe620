//! Benchmarks: what an engine costs and gives, beside its peers.
//!
//! Whatever is compared takes turns in one run, A B A B, for at least five rounds; a figure is the
//! median of its rounds, with the least and the greatest. What is timed is checked, but outside of
//! the timed part. Who moved the bytes stands beside every figure: a model's or a thread's is never
//! presented as hardware's.

mod clock;
mod cpus;
pub mod dma;
mod null;
mod picture;
pub mod receive;
mod round_trip;

pub use clock::Clock;
pub use cpus::Cpus;
pub use picture::PictureError;
pub use round_trip::round_trip_ns;
