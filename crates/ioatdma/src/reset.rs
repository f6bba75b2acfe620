//! Stopping a channel, with proof.

use std::time::Duration;

use crate::{
    bar::{ChannelRegisters, Interrupts, Platform},
    error::{ChanErr, StartError},
    quirks::Quirks,
    registers::{
        ChanCmd, ChanState, ChanStatus, PCI_CHANERR_INT, PCI_DMAUNCERRSTS, PCI_DMAUNCERRSTS_PARITY,
    },
};

/// How long a running channel gets to suspend (Linux waits as long).
const SUSPEND_TIMEOUT: Duration = Duration::from_millis(100);

/// How long one try may take, where a client does not say (Linux: 200 ms).
pub(crate) const TIMEOUT: Duration = Duration::from_millis(200);
/// How often the reset of a channel that gets an owner is tried: for a second in all.
const TRIES: usize = 5;

/// Where a channel stood when it was stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stopped {
    /// CHANSTS before the reset.
    pub(crate) status: ChanStatus,
    /// CHANERR before the reset.
    pub(crate) errors: ChanErr,
}

impl Stopped {
    /// Whether the channel had halted by itself.
    pub(crate) fn had_halted(self) -> bool {
        self.status.state() == ChanState::Halted
    }
}

/// Why a channel is not proven idle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ResetError {
    /// RESET did not end in time. It may still, and [`finish`] is then to follow.
    Stuck(Stopped),
    /// The device no longer answers. It has left the bus, so it reaches no memory either.
    Gone,
}

impl From<ResetError> for StartError {
    fn from(error: ResetError) -> Self {
        match error {
            ResetError::Stuck(_) => Self::Stuck,
            ResetError::Gone => Self::Gone,
        }
    }
}

/// Stops the channel: suspend if it runs, clear its errors, reset. When RESET reads as 0 again, the
/// channel moves no bytes, has none on the way, and looks at no descriptor.
///
/// A channel that never ran never suspends, so only a running one is asked to.
pub(crate) fn reset(
    registers: &ChannelRegisters,
    platform: &dyn Platform,
    quirks: Quirks,
    timeout: Duration,
) -> Result<Stopped, ResetError> {
    let runs = |status: ChanStatus| matches!(status.state(), ChanState::Active | ChanState::Done);
    if runs(registers.status()) {
        registers.command(ChanCmd::SUSPEND);
        // Not waiting for it would be fine; having waited tells how far the channel came.
        registers.wait(timeout.min(SUSPEND_TIMEOUT), |registers| !runs(registers.status()));
    }
    let stopped = Stopped { status: registers.status(), errors: registers.errors() };
    if stopped.status == ChanStatus::GONE {
        return Err(ResetError::Gone);
    }
    registers.clear_errors(stopped.errors);
    if quirks.contains(Quirks::CHANERR_INT) {
        // Write 1 to clear, as CHANERR is.
        let latched = platform.config_read32(PCI_CHANERR_INT);
        platform.config_write32(PCI_CHANERR_INT, latched);
    }
    clear_parity_error(platform, quirks);
    try_reset(registers, platform, quirks, timeout, stopped)
}

/// Commands RESET, and waits for its end.
fn try_reset(
    registers: &ChannelRegisters,
    platform: &dyn Platform,
    quirks: Quirks,
    timeout: Duration,
    stopped: Stopped,
) -> Result<Stopped, ResetError> {
    registers.command(ChanCmd::RESET);
    if registers.wait(timeout, |registers| !registers.is_resetting()) {
        finish(platform, quirks);
        return Ok(stopped);
    }
    let gone = registers.status() == ChanStatus::GONE;
    Err(if gone { ResetError::Gone } else { ResetError::Stuck(stopped) })
}

/// As [`reset`], for a channel that gets an owner: RESET is commanded again if it does not end, but not
/// for ever.
pub(crate) fn reset_for_owner(
    registers: &ChannelRegisters,
    platform: &dyn Platform,
    quirks: Quirks,
) -> Result<Stopped, ResetError> {
    let mut result = reset(registers, platform, quirks, TIMEOUT);
    for _ in 1..TRIES {
        let Err(ResetError::Stuck(stopped)) = result else { break };
        result = try_reset(registers, platform, quirks, TIMEOUT, stopped);
    }
    result
}

/// Repairs what a reset that has ended leaves behind.
pub(crate) fn finish(platform: &dyn Platform, quirks: Quirks) {
    clear_parity_error(platform, quirks);
    if quirks.contains(Quirks::VECTORS_LOST)
        && matches!(platform.interrupts(), Interrupts::MsiX { .. })
    {
        platform.restore_vectors();
    }
}

/// As Linux does before a reset, and after it, where the error comes from.
fn clear_parity_error(platform: &dyn Platform, quirks: Quirks) {
    if quirks.contains(Quirks::SPURIOUS_PARITY_ERROR) {
        platform.config_write32(PCI_DMAUNCERRSTS, PCI_DMAUNCERRSTS_PARITY);
    }
}
