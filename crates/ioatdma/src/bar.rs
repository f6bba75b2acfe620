//! What the driver needs of the machine, and one channel's view of the registers.

use std::{
    fmt,
    os::fd::BorrowedFd,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use dmaengine::{Arena, MapError};

use crate::{
    Version,
    error::ChanErr,
    registers::{
        CHANCMP, CHANCTRL, CHANERR, CHANERRMASK, CHANNEL_BLOCK, ChanCmd, ChanCtrl, ChanStatus,
        DMACOUNT, Layout,
    },
};

/// The registers of BAR 0: a VFIO mapping, or a model's.
///
/// Accesses reach the device in program order, in the width asked for. A device that is gone reads
/// as all ones.
pub trait Bar: Send + Sync {
    /// Its size in bytes. Nothing at or behind it is accessed.
    fn size(&self) -> u64;
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
    /// The device's time, from any point on: the one that [`delay`](Self::delay) lets pass. It is the
    /// process's monotonic clock, unless the device is simulated.
    fn now(&self) -> Duration {
        static START: OnceLock<Instant> = OnceLock::new();
        START.get_or_init(Instant::now).elapsed()
    }
}

/// How the interrupts of a device reach this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Interrupts {
    /// Not at all: channels can only be polled.
    #[default]
    None,
    /// By MSI-X. With a vector for each channel, each has its own; with fewer, all share the first.
    MsiX {
        /// How many vectors there are.
        vectors: usize,
    },
    /// By MSI: all channels share a vector.
    Msi,
    /// By a line, which all channels share, and perhaps other devices.
    Intx,
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

    /// How interrupts come. It does not change.
    fn interrupts(&self) -> Interrupts;

    /// The non-blocking eventfd that counts the interrupts of a vector: MSI-X's `vector`-th, or, as
    /// 0, the only one of MSI and `INTx`. `None` if there is no such vector.
    fn vector(&self, vector: usize) -> Option<BorrowedFd<'_>>;

    /// `INTx`: lets the line interrupt again, which is masked when it has. The device has been told to
    /// let go of it. (VFIO: `VFIO_IRQ_SET_ACTION_UNMASK`.)
    fn unmask(&self) {}

    /// Sets up the MSI-X vectors anew, because the device has lost its table in a reset of a channel
    /// ([`Quirks::VECTORS_LOST`](crate::quirks::Quirks::VECTORS_LOST)). Only who owns the interrupts
    /// can: under VFIO a driver does not reach the table, and `VFIO_DEVICE_SET_IRQS` with the same
    /// eventfds writes it again.
    fn restore_vectors(&self) {}

    /// Reads 32 bits of PCI configuration space; 0 where there is none.
    fn config_read32(&self, offset: u16) -> u32;

    /// Writes 32 bits of PCI configuration space; ignored where there is none.
    fn config_write32(&self, offset: u16, value: u32);

    /// Whether the firmware of the machine has enabled direct cache access
    /// ([`dca_enabled`](crate::quirks::dca_enabled), if the device is of this machine).
    fn dca_enabled(&self) -> bool {
        false
    }

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
    layout: Layout,
}

impl ChannelRegisters {
    pub(crate) fn new(bar: Arc<dyn Bar>, version: Version, channel: usize) -> Self {
        let layout = if version < Version::V2_0 { Layout::CHAIN } else { Layout::RING };
        Self { bar, base: CHANNEL_BLOCK * (channel as u64 + 1), layout }
    }

    /// CHANSTS.
    pub(crate) fn status(&self) -> ChanStatus {
        let register = self.base + self.layout.status;
        if self.layout != Layout::CHAIN {
            return ChanStatus(self.bar.read64(register));
        }
        // Not aligned to its width in version 1, so it takes two reads, and the device may move on
        // between them. The high half is the same before and behind the low one if it did not; a
        // device that moves on each time is asked again later.
        let half = |offset| u64::from(self.bar.read32(register + offset));
        let mut high = half(4);
        for _ in 0..3 {
            let low = half(0);
            let again = half(4);
            if again == high {
                return ChanStatus(high << 32 | low);
            }
            high = again;
        }
        ChanStatus::NOTHING
    }

    pub(crate) fn errors(&self) -> ChanErr {
        ChanErr::from_bits_retain(self.bar.read32(self.base + CHANERR))
    }

    pub(crate) fn clear_errors(&self, errors: ChanErr) {
        self.bar.write32(self.base + CHANERR, errors.bits());
    }

    /// Keeps the channel from halting for these errors.
    pub(crate) fn mask_errors(&self, errors: ChanErr) {
        self.bar.write32(self.base + CHANERRMASK, errors.bits());
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
        self.bar.write8(self.base + self.layout.command, command.bits());
    }

    /// Whether a RESET has not ended. A device that is gone never ends one.
    pub(crate) fn is_resetting(&self) -> bool {
        let command = self.bar.read8(self.base + self.layout.command);
        ChanCmd::from_bits_retain(command).contains(ChanCmd::RESET)
    }

    /// Sets where the first descriptor is.
    pub(crate) fn set_chain_address(&self, address: u64) {
        self.set_address(self.layout.chain_address, address);
    }

    /// Sets where the completion word is.
    pub(crate) fn set_completion_address(&self, address: u64) {
        self.set_address(CHANCMP, address);
    }

    /// Writes a 64-bit address register in two halves, low first.
    fn set_address(&self, register: u64, address: u64) {
        self.bar.write32(self.base + register, address as u32);
        self.bar.write32(self.base + register + 4, (address >> 32) as u32);
    }

    /// Rings the doorbell.
    pub(crate) fn set_dma_count(&self, count: u16) {
        self.bar.write16(self.base + DMACOUNT, count);
    }

    /// The device's time.
    pub(crate) fn now(&self) -> Duration {
        self.bar.now()
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
