//! Why the CPU copied, as outputs print it.

use std::fmt;

use netdma::{Counters, CpuCause};
use serde::{Serialize, Serializer, ser::SerializeMap};

/// Bytes that the CPU copied, by cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Causes([u64; CpuCause::ALL.len()]);

impl Causes {
    /// All that was counted.
    pub(crate) const fn of(counters: &Counters) -> Self {
        Self(counters.bytes_by_cpu)
    }

    /// All for one cause.
    pub(crate) fn only(cause: CpuCause, bytes: u64) -> Self {
        let mut causes = Self::default();
        causes.0[cause as usize] = bytes;
        causes
    }

    /// What was counted since `earlier`.
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self(std::array::from_fn(|cause| self.0[cause] - earlier.0[cause]))
    }

    /// The mean of some.
    pub(crate) fn mean(all: impl ExactSizeIterator<Item = Self> + Clone) -> Self {
        let count = all.len().max(1) as u64;
        Self(std::array::from_fn(|cause| all.clone().map(|one| one.0[cause]).sum::<u64>() / count))
    }

    /// Those that there were.
    fn found(&self) -> impl Iterator<Item = (CpuCause, u64)> {
        CpuCause::ALL.into_iter().zip(self.0).filter(|(_, bytes)| *bytes > 0)
    }
}

/// `below copybreak: 100, not reachable: 65536`; nothing if there are none.
impl fmt::Display for Causes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (cause, bytes)) in self.found().enumerate() {
            let comma = if index > 0 { ", " } else { "" };
            write!(f, "{comma}{}: {bytes}", cause.as_str())?;
        }
        Ok(())
    }
}

/// All causes, also those that there were not: `{"no engine":0,…}`.
impl Serialize for Causes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (cause, bytes) in CpuCause::ALL.into_iter().zip(self.0) {
            map.serialize_entry(cause.as_str(), &bytes)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_named() {
        let mut causes = Causes::only(CpuCause::Copybreak, 100);
        assert_eq!(Causes::default().to_string(), "");
        causes.0[CpuCause::Unreachable as usize] = 65536;
        assert_eq!(causes.to_string(), "below copybreak: 100, not reachable: 65536");
        let json = serde_json::to_value(causes).unwrap();
        assert_eq!((&json["not reachable"], &json["peek"]), (&65536.into(), &0.into()));
        assert_eq!(json.as_object().unwrap().len(), CpuCause::ALL.len());
        assert_eq!(causes.since(Causes::only(CpuCause::Copybreak, 40)).0[2], 60);
        let mean = Causes::mean([causes, Causes::default()].into_iter());
        assert_eq!(mean.to_string(), "below copybreak: 50, not reachable: 32768");
    }
}
