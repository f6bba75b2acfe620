use std::{fmt, str::FromStr};

/// Which reads are offloaded: Linux's `net.ipv4.tcp_dma_copybreak`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Copybreak {
    /// Reads of this many bytes or less are copied by the CPU. The length is that of the buffer
    /// given to the receive call, not of the data at hand, and the test is strictly greater
    /// (Linux: `tcp_recvmsg`).
    Bytes(usize),
    /// The engine is not used.
    Off,
    /// As has cost less lately: measured, for each kind of receive ([`Offload::policy`]).
    ///
    /// [`Offload::policy`]: crate::Offload::policy
    #[default]
    Auto,
}

impl Copybreak {
    /// What Linux began with (`net/core/user_dma.c`), in bytes.
    pub const LINUX: Self = Self::Bytes(4096);

    /// Whether a read into a buffer of `len` bytes may use the engine; if it pays, for `auto`.
    #[must_use]
    pub const fn offloads(self, len: usize) -> bool {
        match self {
            Self::Bytes(copybreak) => len > copybreak,
            Self::Off => false,
            Self::Auto => true,
        }
    }
}

impl fmt::Display for Copybreak {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => bytes.fmt(f),
            Self::Off => f.pad("off"),
            Self::Auto => f.pad("auto"),
        }
    }
}

/// A copybreak that is neither a number of bytes nor `off` or `auto`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a copybreak is a number of bytes, such as 4096, or `off`, or `auto`")]
pub struct ParseCopybreakError;

impl FromStr for Copybreak {
    type Err = ParseCopybreakError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "off" => Ok(Self::Off),
            "auto" => Ok(Self::Auto),
            number => number.parse().map(Self::Bytes).map_err(|_| ParseCopybreakError),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_of_exactly_the_copybreak_stays_on_the_cpu() {
        assert!(!Copybreak::Bytes(4096).offloads(4096));
        assert!(Copybreak::Bytes(4096).offloads(4097));
        assert!(!Copybreak::Off.offloads(usize::MAX));
    }

    #[test]
    fn prints_what_it_parses() {
        for text in ["0", "4096", "off", "auto"] {
            assert_eq!(text.parse::<Copybreak>().unwrap().to_string(), text);
        }
        for text in ["", "-1", "4k", "OFF"] {
            assert_eq!(text.parse::<Copybreak>(), Err(ParseCopybreakError), "{text:?}");
        }
    }
}
