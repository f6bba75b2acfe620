use std::{io, str::FromStr};

use serde::Serialize;

use crate::lab::{Placement, allowed_cpus};

/// Where the submitting thread runs, and where the engine's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Cpus {
    /// The thread that submits and polls.
    pub caller: usize,
    /// The thread that copies, or that is the device.
    pub engine: usize,
}

impl Cpus {
    /// The first two CPUs that this process may use; the same twice if there is only one.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn choose() -> io::Result<Self> {
        let allowed = allowed_cpus()?;
        let caller = *allowed.first().ok_or(io::ErrorKind::NotFound)?;
        Ok(Self { caller, engine: *allowed.get(1).unwrap_or(&caller) })
    }

    /// Whether the engine can work while the caller does.
    #[must_use]
    pub const fn are_two(&self) -> bool {
        self.caller != self.engine
    }

    /// Runs `make` where the engine's threads belong: those that it starts inherit that. The
    /// calling thread is then pinned to the caller's CPU.
    ///
    /// # Errors
    ///
    /// One of the CPUs does not exist, or this process may not use it.
    pub fn pin<T>(&self, make: impl FnOnce() -> T) -> io::Result<T> {
        let Self { caller, engine } = *self;
        Placement { sender: None, receiver: Some(caller), engine: Some(engine) }.pin(make)
    }
}

/// A text that does not name two CPUs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` does not name two CPUs: write the caller's and the engine's, such as 0,1")]
pub struct ParseCpusError(String);

impl FromStr for Cpus {
    type Err = ParseCpusError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.split_once(',')
            .and_then(|(caller, engine)| {
                Some(Self { caller: caller.parse().ok()?, engine: engine.parse().ok()? })
            })
            .ok_or_else(|| ParseCpusError(text.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_numbers() {
        assert_eq!("2,7".parse(), Ok(Cpus { caller: 2, engine: 7 }));
        for bad in ["", "1", "1,", ",1", "a,b", "1,2,3", "-1,0"] {
            assert!(bad.parse::<Cpus>().is_err(), "{bad:?}");
        }
        assert!(!Cpus { caller: 1, engine: 1 }.are_two());
    }

    #[test]
    fn threads_made_in_between_stay_with_the_engine() {
        let cpus = Cpus::choose().unwrap();
        std::thread::spawn(move || {
            let there = cpus.pin(|| std::thread::spawn(|| allowed_cpus().unwrap())).unwrap();
            assert_eq!(there.join().unwrap(), [cpus.engine]);
            assert_eq!(allowed_cpus().unwrap(), [cpus.caller]);
            assert!(Cpus { caller: 0, engine: usize::MAX }.pin(|| ()).is_err());
        })
        .join()
        .unwrap();
    }
}
