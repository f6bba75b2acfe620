//! What receiving costs the receiver, with an engine for the copies and without.

mod generator;

pub use generator::{FrameKind, Generator, GeneratorHandle, ParseFrameError, Station};
