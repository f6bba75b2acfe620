//! What the driver needs of the machine, and one channel's view of the registers.

use std::{fmt, os::fd::BorrowedFd, sync::Arc, time::Duration};

use dmaengine::{Arena, MapError};

use crate::{
    error::ChanErr,
    registers::{
        CHANCMD, CHANCTRL, CHANERR, CHANNEL_BLOCK, CHANSTS, ChanCmd, ChanCtrl, ChanStatus, DMACOUNT,
    },
};

/// The registers of BAR 0: a VFIO mapping, or a model's.
///
/// Accesses reach the device in program order, in the width asked for. A device that is gone reads
/// as all ones.
pub trait Bar: Send + Sync {
    /// Reads 8 bits at `offset`.
    fn read8(&self, offset: u64) -> u8;
    /// Reads 16 bits at `offset`.
    fn read16(&self, offset: u64) -> u16;
    /// Reads 32 bits at `offset`.
    fn read32(&self, offset: u64) -> u32;
    /// Reads 64 bits at `offset`, at once.
    fn read64(&self, offset: u64) -> u64;
    /// Writes 8 bits at `offset`.
    fn write8(&self, offset: u64, value: u8);
    /// Writes 16 bits at `offset`: the doorbell, so it should cost no more than a store.
    fn write16(&self, offset: u64, value: u16);
    /// Writes 32 bits at `offset`.
    fn write32(&self, offset: u64, value: u32);
    /// Writes 64 bits at `offset`, at once.
    fn write64(&self, offset: u64, value: u64);
    /// Lets at least `duration` pass for the device. A model without a clock works meanwhile.
    fn delay(&self, duration: Duration);
}

/// What the driver needs of the machine besides registers.
///
/// # Safety
///
/// Implementors promise that `map`'s IOVAs reach that arena and nothing else, and that the arena's
/// memory stays until the device can no longer reach it: they keep a handle of it.
pub unsafe trait Platform: Send + Sync {
    /// Makes `arena` reachable for the device until the platform is dropped, and returns the IOVA of
    /// its first byte. Called once per arena.
    ///
    /// # Errors
    ///
    /// See [`MapError`]; the arena is then not reachable.
    fn map(&self, arena: &Arena) -> Result<u64, MapError>;

    /// The non-blocking eventfd that channel `channel` interrupts; `None` if there is none.
    fn interrupt(&self, channel: usize) -> Option<BorrowedFd<'_>>;

    /// Reads 32 bits of PCI configuration space; 0 where there is none.
    fn config_read32(&self, offset: u16) -> u32;

    /// Writes 32 bits of PCI configuration space; ignored where there is none.
    fn config_write32(&self, offset: u16, value: u32);

    /// Processor time that the device has used of this machine, if it is a model.
    fn cpu_time(&self) -> Option<Duration> {
        None
    }
}

/// One channel's registers.
#[derive(Clone)]
pub(crate) struct ChannelRegisters {
    bar: Arc<dyn Bar>,
    base: u64,
}

impl ChannelRegisters {
    pub(crate) fn new(bar: Arc<dyn Bar>, channel: usize) -> Self {
        Self { bar, base: CHANNEL_BLOCK * (channel as u64 + 1) }
    }

    /// CHANSTS.
    pub(crate) fn status(&self) -> ChanStatus {
        ChanStatus(self.bar.read64(self.base + CHANSTS))
    }

    pub(crate) fn errors(&self) -> ChanErr {
        ChanErr::from_bits_retain(self.bar.read32(self.base + CHANERR))
    }

    pub(crate) fn clear_errors(&self, errors: ChanErr) {
        self.bar.write32(self.base + CHANERR, errors.bits());
    }

    /// Test and set of `CHANNEL_IN_USE`: whether the channel was free, and is now ours.
    pub(crate) fn take(&self) -> bool {
        let control = ChanCtrl::from_bits_retain(self.bar.read16(self.base + CHANCTRL));
        !control.contains(ChanCtrl::CHANNEL_IN_USE)
    }

    /// Gives the channel up.
    pub(crate) fn release(&self) {
        self.set_control(ChanCtrl::empty());
    }

    pub(crate) fn set_control(&self, control: ChanCtrl) {
        self.bar.write16(self.base + CHANCTRL, control.bits());
    }

    pub(crate) fn command(&self, command: ChanCmd) {
        self.bar.write8(self.base + CHANCMD, command.bits());
    }

    /// Whether a RESET has not ended. A device that is gone never ends one.
    pub(crate) fn is_resetting(&self) -> bool {
        ChanCmd::from_bits_retain(self.bar.read8(self.base + CHANCMD)).contains(ChanCmd::RESET)
    }

    /// Writes a 64-bit address register in two halves, low first.
    pub(crate) fn set_address(&self, register: u64, address: u64) {
        self.bar.write32(self.base + register, address as u32);
        self.bar.write32(self.base + register + 4, (address >> 32) as u32);
    }

    /// Rings the doorbell.
    pub(crate) fn set_dma_count(&self, count: u16) {
        self.bar.write16(self.base + DMACOUNT, count);
    }

    /// As [`wait`].
    pub(crate) fn wait(&self, timeout: Duration, mut done: impl FnMut(&Self) -> bool) -> bool {
        wait(&*self.bar, timeout, || done(self))
    }
}

/// Waits until `done`, at most `timeout` of the device's time; whether it came to be.
pub(crate) fn wait(bar: &dyn Bar, timeout: Duration, mut done: impl FnMut() -> bool) -> bool {
    let mut pause = Duration::from_micros(1);
    let mut waited = Duration::ZERO;
    loop {
        if done() {
            return true;
        }
        if waited >= timeout {
            return false;
        }
        let now = pause.min(timeout - waited);
        bar.delay(now);
        waited += now;
        // Most waits end at once; those that do not need not load the bus.
        pause = (pause * 2).min(Duration::from_micros(100));
    }
}

impl fmt::Debug for ChannelRegisters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChannelRegisters").field("base", &self.base).finish()
    }
}
