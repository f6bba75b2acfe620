use std::str::FromStr;

use serde::Serialize;

/// How a program receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// It waits in the call that reads.
    Blocking,
    /// It waits until the stream is readable; then it reads, which does not wait.
    Nonblocking,
    /// It has posted buffers ahead of the data, and takes them as they come back.
    Posted,
}

impl Mode {
    const ALL: [Self; 3] = [Self::Blocking, Self::Nonblocking, Self::Posted];

    /// The name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Blocking => "blocking",
            Self::Nonblocking => "nonblocking",
            Self::Posted => "posted",
        }
    }
}

/// A text that names no way to receive.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no way to receive: use blocking, nonblocking or posted")]
pub struct ParseModeError(String);

impl FromStr for Mode {
    type Err = ParseModeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mode = Self::ALL.into_iter().find(|mode| mode.as_str() == text);
        mode.ok_or_else(|| ParseModeError(text.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for mode in Mode::ALL {
            assert_eq!(mode.as_str().parse(), Ok(mode));
        }
        assert!("async".parse::<Mode>().is_err());
    }
}
