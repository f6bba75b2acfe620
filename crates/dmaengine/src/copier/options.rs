use std::time::Duration;

use crate::Flags;

/// What one operation of a [`Copier`](crate::Copier) has of its own, beside its memory. Flags alone,
/// or a time alone, are turned into it.
///
/// ```
/// use std::time::Duration;
/// use dmaengine::{Copier, CopyOptions, CpuDevice, DmaDevice, Flags};
///
/// let copier = Copier::new(CpuDevice::new(1).request_channel(0)?, Duration::from_secs(5))?;
/// copier.copy_with(vec![1; 8], vec![0; 8], Flags::TO_MEMORY).wait()?;
/// copier.copy_with(vec![1; 8], vec![0; 8], Duration::from_millis(500)).wait()?;
/// let both = CopyOptions { flags: Flags::FENCE, timeout: Some(Duration::from_millis(500)) };
/// copier.fill_with(0, vec![1; 8], both).wait()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CopyOptions {
    /// How it is done. A [fence](Flags::FENCE) is behind all that the copier was given before,
    /// whoever gave it.
    pub flags: Flags,
    /// The time that it has to end in; `None` for the copier's.
    pub timeout: Option<Duration>,
}

impl From<Flags> for CopyOptions {
    fn from(flags: Flags) -> Self {
        Self { flags, timeout: None }
    }
}

impl From<Duration> for CopyOptions {
    fn from(timeout: Duration) -> Self {
        Self { flags: Flags::empty(), timeout: Some(timeout) }
    }
}
