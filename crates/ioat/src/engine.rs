//! Opening engines.

pub mod model;
