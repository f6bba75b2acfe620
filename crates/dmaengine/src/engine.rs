//! Engines made of software.

mod cpu;
mod lanes;
mod threads;

pub use cpu::CpuDevice;
pub use threads::{ThreadsDevice, ThreadsOptions};
