use std::sync::Arc;

use dmaengine::DmaDevice;
use ioat::engine::EngineName;
use ioatdma::sysfs::{IoatFunction, Obstacle, Sysfs, User};
use serde::Serialize;

/// An I/OAT function, and what speaks against opening it.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) function: IoatFunction,
    pub(super) users: Vec<User>,
    obstacles: Vec<Obstacle>,
}

/// Why a function cannot be used now.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Reason {
    /// A word for it, for scripts.
    pub(super) reason: &'static str,
    /// The same in words.
    pub(super) why: String,
    /// What would change it, if `why` does not say so.
    pub(super) remedy: Option<String>,
}

impl From<&Obstacle> for Reason {
    fn from(obstacle: &Obstacle) -> Self {
        let (why, remedy) = (obstacle.to_string(), Some(obstacle.remedy()));
        Self { reason: obstacle.reason(), why, remedy }
    }
}

impl Found {
    pub(super) fn look(sysfs: &Sysfs, function: IoatFunction) -> Self {
        let users = sysfs.users(&function);
        let obstacles = sysfs.obstacles(&function);
        Self { function, users, obstacles }
    }

    /// The name of the engine that it makes.
    pub(super) fn engine(&self) -> String {
        EngineName::Hardware(self.function.address).to_string()
    }

    /// Opens it, if nothing speaks against that and nobody has it.
    pub(super) fn open(&self) -> Result<Arc<dyn DmaDevice>, Vec<Reason>> {
        let mut reasons: Vec<Reason> = self.obstacles.iter().map(Reason::from).collect();
        if !self.users.is_empty() {
            let users: Vec<_> = self.users.iter().map(User::to_string).collect();
            let why = format!("it is open in {}", users.join(", "));
            let remedy = Some("end that, or use another function".to_owned());
            reasons.push(Reason { reason: "in-use", why, remedy });
        }
        if !reasons.is_empty() {
            return Err(reasons);
        }
        EngineName::Hardware(self.function.address).open().map_err(|error| {
            vec![Reason { reason: "not-opened", why: error.to_string(), remedy: None }]
        })
    }

    /// Whether somebody uses it: a process, or the kernel.
    pub(super) fn in_use(&self) -> bool {
        let mut channels = self.function.channels.iter();
        !self.users.is_empty() || channels.any(|channel| channel.in_use > 0)
    }
}
