use std::{
    io,
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

use super::{Clock, Cpus};
use crate::lab::pin_to_cpu;

/// Alone in its cache lines: processors fetch them in pairs.
#[repr(align(128))]
struct Line(AtomicU32);

/// What a cache line takes from the caller's CPU to the engine's and back, in nanoseconds: a median.
///
/// Whatever hands an operation to a thread and its end back pays this at least once, so it says
/// what figures of a software engine from two machines, or two hours of a virtual one, have in common.
///
/// # Errors
///
/// The calling thread, or another, cannot be pinned to its CPU.
pub fn round_trip_ns(cpus: Cpus, clock: &Clock) -> io::Result<f64> {
    /// Few enough for a moment of the scheduler's; on one CPU each is a switch of threads.
    const TRIPS: u32 = 501;

    let (there, back) = (Line(AtomicU32::new(0)), Line(AtomicU32::new(0)));
    pin_to_cpu(cpus.caller)?;
    thread::scope(|scope| {
        let echo = scope.spawn(|| {
            let pinned = pin_to_cpu(cpus.engine);
            for trip in 1..=TRIPS {
                wait_for(&there, trip);
                // Release, as in the rings that this stands for.
                back.0.store(trip, Ordering::Release);
            }
            pinned
        });
        let mut trips: Vec<u64> = (1..=TRIPS)
            .map(|trip| {
                let start = Clock::now();
                // Release: as above.
                there.0.store(trip, Ordering::Release);
                wait_for(&back, trip);
                clock.since(start, Clock::now())
            })
            .collect();
        echo.join().unwrap_or_else(|_| Err(io::ErrorKind::Other.into()))?;
        trips.sort_unstable();
        Ok(clock.ns(trips[trips.len() / 2]))
    })
}

fn wait_for(line: &Line, trip: u32) {
    /// The other thread may need this CPU.
    const SPINS: u32 = 10_000;

    let mut spins = 0;
    // Acquire: pairs with the release of the store.
    while line.0.load(Ordering::Acquire) != trip {
        spins += 1;
        if spins % SPINS == 0 {
            thread::yield_now();
        }
        std::hint::spin_loop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_takes_some_time_and_cpus_must_exist() {
        let cpus = Cpus::choose().unwrap();
        let clock = Clock::calibrate();
        thread::spawn(move || {
            assert!(round_trip_ns(cpus, &clock).unwrap() > 0.0);
            let nowhere = Cpus { engine: usize::MAX, ..cpus };
            assert!(round_trip_ns(nowhere, &clock).is_err());
        })
        .join()
        .unwrap();
    }
}
