use std::{fmt, str::FromStr};

use serde::Serialize;

use crate::engine::{EngineName, ParseEngineError};

/// What `ioat bench dma --engine` takes. The caller's own `memcpy` is always measured beside them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum BenchEngine {
    /// One of ours.
    Ours(EngineName),
    /// DPDK's software dmadev.
    Dpdk,
    /// Completes without copying.
    Null,
}

impl FromStr for BenchEngine {
    type Err = ParseEngineError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "dpdk" => Ok(Self::Dpdk),
            "null" => Ok(Self::Null),
            name => name.parse().map(Self::Ours),
        }
    }
}

impl fmt::Display for BenchEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ours(name) => name.fmt(f),
            Self::Dpdk => f.write_str("dpdk"),
            Self::Null => f.write_str("null"),
        }
    }
}

/// An engine that was not measured because this machine lacks something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LeftOut {
    /// Its name.
    pub engine: String,
    /// What is missing and how to get it.
    pub reason: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for name in ["cpu", "threads:2", "ioat-model:3.2", "dpdk", "null"] {
            assert_eq!(name.parse::<BenchEngine>().unwrap().to_string(), name);
        }
        assert!("gpu".parse::<BenchEngine>().is_err());
        for only_here in ["dpdk", "null"] {
            assert!(only_here.parse::<EngineName>().is_err(), "{only_here}");
        }
    }
}
