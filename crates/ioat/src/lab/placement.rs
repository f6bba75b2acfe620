use std::io;

use serde::Serialize;

use super::{allowed_cpus, pin_to_cpu};

/// The CPUs of sender, receiver and engine; anywhere if `None`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Placement {
    /// The thread that sends.
    pub sender: Option<usize>,
    /// The thread that receives.
    pub receiver: Option<usize>,
    /// The thread that copies, or that is the device.
    pub engine: Option<usize>,
}

impl Placement {
    /// A CPU for each. Where there are two, engine and receiver share one: the sender needs its own
    /// from end to end, and what it is kept from doing the receiver would do for it, since the
    /// kernel sends more in whatever thread the acknowledgement comes from. Where there is one,
    /// nobody is pinned.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn choose() -> io::Result<Self> {
        Ok(match allowed_cpus()?[..] {
            [sender, receiver, engine, ..] => {
                Self { sender: Some(sender), receiver: Some(receiver), engine: Some(engine) }
            }
            [sender, shared] => {
                Self { sender: Some(sender), receiver: Some(shared), engine: Some(shared) }
            }
            _ => Self { sender: None, receiver: None, engine: None },
        })
    }

    /// As [`choose`](Self::choose), where the sender is no thread.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn without_sender() -> io::Result<Self> {
        Ok(match allowed_cpus()?[..] {
            [receiver, engine, ..] => {
                Self { sender: None, receiver: Some(receiver), engine: Some(engine) }
            }
            _ => Self { sender: None, receiver: None, engine: None },
        })
    }

    /// Whether the engine can work while the receiver does.
    #[must_use]
    pub fn engine_is_apart(&self) -> bool {
        self.engine.is_some() && self.engine != self.receiver
    }

    /// Runs `make` where the engine's threads belong: those that it starts inherit that. The calling
    /// thread then stays where the receiver belongs.
    ///
    /// # Errors
    ///
    /// One of the CPUs does not exist any more, or this process may not use it any more.
    pub fn pin<T>(&self, make: impl FnOnce() -> T) -> io::Result<T> {
        let pin = |cpu: Option<usize>| cpu.map_or(Ok(()), pin_to_cpu);
        pin(self.engine)?;
        let made = make();
        pin(self.receiver)?;
        Ok(made)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sender_has_its_cpu_to_itself_if_there_are_two() {
        std::thread::spawn(|| {
            let all = allowed_cpus().unwrap();
            let with = Placement::choose().unwrap();
            let without = Placement::without_sender().unwrap();
            if all.len() > 1 {
                assert!(with.sender.is_some() && with.sender != with.receiver);
                assert!(without.engine_is_apart());
            }
            assert_eq!(with.engine_is_apart(), all.len() > 2);
            pin_to_cpu(all[0]).unwrap();
            let nowhere = Placement { sender: None, receiver: None, engine: None };
            assert_eq!(Placement::choose().unwrap(), nowhere);
            assert_eq!(Placement::without_sender().unwrap(), nowhere);
        })
        .join()
        .unwrap();
    }
}
