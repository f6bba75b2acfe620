use std::{fmt, str::FromStr, sync::Arc};

use dmaengine::DmaDevice;

use crate::{
    bench::null::{self, NullDevice},
    engine::{EngineName, OpenError, ParseEngineError},
};

/// What `ioat bench receive --engine` takes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ReceiveEngine {
    /// One of ours.
    Ours(EngineName),
    /// Completes without copying.
    Null,
}

impl ReceiveEngine {
    /// The receiving thread by itself.
    pub const CPU: Self = Self::Ours(EngineName::Cpu);

    pub(super) fn open(&self) -> Result<Arc<dyn DmaDevice>, OpenError> {
        match self {
            Self::Ours(name) => name.open(),
            Self::Null => Ok(Arc::new(NullDevice::new())),
        }
    }

    /// What moves the bytes with this engine's device.
    pub(super) fn kind(&self, device: &dyn DmaDevice) -> &'static str {
        match self {
            Self::Ours(_) => device.channels()[0].kind.as_str(),
            Self::Null => null::KIND,
        }
    }
}

impl FromStr for ReceiveEngine {
    type Err = ParseEngineError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "null" { Ok(Self::Null) } else { text.parse().map(Self::Ours) }
    }
}

impl fmt::Display for ReceiveEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ours(name) => name.fmt(f),
            Self::Null => f.write_str("null"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for name in ["cpu", "threads:2", "ioat-model:3.2", "null"] {
            assert_eq!(name.parse::<ReceiveEngine>().unwrap().to_string(), name);
        }
        assert!("dpdk".parse::<ReceiveEngine>().is_err());
        let null = ReceiveEngine::Null;
        assert_eq!(null.kind(&*null.open().unwrap()), "none");
        let cpu = ReceiveEngine::CPU;
        assert_eq!(cpu.kind(&*cpu.open().unwrap()), "cpu");
    }
}
