//! Measuring a receiver: wall time and the CPU time of its thread; and figures of several rounds.

mod spread;

use std::{
    io::{self, Read},
    time::{Duration, Instant},
};

use crate::lab::thread_cpu_time;

pub use spread::{Samples, Spread};

/// What receiving a stream took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measured {
    /// Bytes received.
    pub bytes: u64,
    /// From before the first read until after the last.
    pub wall: Duration,
    /// CPU time of the receiving thread meanwhile, in user space and in the kernel.
    pub cpu: Duration,
}

impl Measured {
    /// Gigabits (10^9) per second.
    #[must_use]
    pub fn gbps(&self) -> f64 {
        ratio(self.bytes as f64 * 8.0 / 1e9, self.wall.as_secs_f64())
    }

    /// CPU seconds of the receiving thread per gigabyte (10^9 bytes).
    #[must_use]
    pub fn cpu_s_per_gb(&self) -> f64 {
        self.s_per_gb(self.cpu)
    }

    /// Seconds of `time` per gigabyte (10^9 bytes) received.
    #[must_use]
    pub fn s_per_gb(&self, time: Duration) -> f64 {
        ratio(time.as_secs_f64(), self.bytes as f64 / 1e9)
    }
}

/// 0 where there is nothing to divide by: a stream without bytes has no speed.
fn ratio(dividend: f64, divisor: f64) -> f64 {
    if divisor > 0.0 { dividend / divisor } else { 0.0 }
}

/// A stream as a program gets it: piece by piece.
pub trait Pieces {
    /// Receives the next piece and gives it to `each`; `false` at the end.
    ///
    /// # Errors
    ///
    /// What receiving it, or `each`, returns.
    fn next(&mut self, each: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<bool>;
}

/// The pieces that reads into one buffer give. `Interrupted` reads are repeated.
#[derive(Debug)]
pub struct Reads<'a, R> {
    /// What is read.
    pub stream: R,
    /// Where to.
    pub buffer: &'a mut [u8],
}

impl<R: Read> Pieces for Reads<'_, R> {
    fn next(&mut self, each: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<bool> {
        loop {
            match self.stream.read(self.buffer) {
                Ok(0) => return Ok(false),
                Ok(len) => return each(&self.buffer[..len]).map(|()| true),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Receives a stream to its end, giving each piece to `each`.
///
/// # Errors
///
/// What receiving, or `each`, returns.
pub fn receive_all(
    pieces: &mut (impl Pieces + ?Sized),
    mut each: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<Measured> {
    let mut bytes = 0;
    let started = (Instant::now(), thread_cpu_time());
    while pieces.next(&mut |piece| {
        bytes += piece.len() as u64;
        each(piece)
    })? {}
    Ok(Measured {
        bytes,
        wall: started.0.elapsed(),
        cpu: thread_cpu_time().saturating_sub(started.1),
    })
}
