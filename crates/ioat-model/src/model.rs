//! The whole device: register accesses and descriptors of all channels.

use crate::{
    channel::{Channel, Events},
    config_space::{
        BUS_MASTER, COMMAND, ConfigSpace, DEVICE_STATUS, InterruptStyle, MEMORY_SPACE, MSI_CONTROL,
        MSI_ENABLE, MSIX_CONTROL, MSIX_ENABLE, TRANSACTIONS_PENDING,
    },
    descriptor::Operation,
    faults::Faults,
    interrupts::{Interrupts, MsixTable},
    memory::{Memory, MoveError},
    registers::{
        ATTNSTATUS, CBVER, CHANCNT, CHANNEL_BLOCK, ChanErr, DMA_COMP_V2, DMACAPABILITY,
        DmaCapability, INTRCTRL, MAX_CHANNELS, MSIX_PBA, MSIX_TABLE, Width, XFERCAP,
        channel::{
            CDAR, CHAINADDR, CHANCMD, CHANCMP, CHANCTRL, CHANERR, CHANERRMASK, CHANSTS, DCACTRL,
            DMA_COMP, DMACOUNT,
        },
    },
    version::Version,
};

/// What device to be.
#[derive(Clone, Debug)]
pub struct Config {
    /// Hardware version.
    pub version: Version,
    /// Number of channels, 1 to 4; other values are brought into that range.
    pub channels: u8,
    /// XFERCAP: log2 of the most bytes per descriptor, 12 to 31; other values are brought into that
    /// range. 20 (1 MiB) is common on Xeons.
    pub xfercap: u8,
    /// What DMACAPABILITY reads; `None`: what the version's device has.
    pub capability: Option<DmaCapability>,
    /// The best way to interrupt that configuration space offers.
    pub interrupts: InterruptStyle,
    /// Faults to order.
    pub faults: Faults,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            version: Version::default(),
            channels: 1,
            xfercap: 20,
            capability: None,
            interrupts: InterruptStyle::default(),
            faults: Faults::none(),
        }
    }
}

/// The device as a state machine. It has no clock, no thread and no memory of its own.
///
/// Whoever owns it (a *shell*) passes register accesses in, and moves descriptors on in two steps:
/// [`fetch`](Self::fetch) says what is to be moved, [`retire`](Self::retire) is told how that went.
/// Between the two the registers may be used; so a shell need not hold its lock while bytes move.
/// After any call, [`take_interrupts`](Self::take_interrupts) says which interrupts left the device.
///
/// Nothing is fetched before configuration space allows the device to be a bus master.
///
/// # Register accesses
///
/// Registers answer to their own width; 64-bit registers also to aligned 32-bit halves, and those
/// of which the hardware takes effect on a write do so with the high half. Anything else (unknown
/// offset, other width, a channel that does not exist) reads as 0 and ignores writes.
#[derive(Debug)]
pub struct Model {
    version: Version,
    xfercap: u8,
    capability: DmaCapability,
    config: ConfigSpace,
    best_interrupts: InterruptStyle,
    interrupts: Interrupts,
    msix: MsixTable,
    channels: Vec<Channel>,
    /// The channel whose turn it is.
    turn: usize,
    faults: Faults,
}

/// A register offset, taken apart.
enum Place {
    Device(u64),
    Channel(usize, u64),
    /// Counted from the start of the MSI-X table.
    Msix(u64),
}

impl Place {
    fn of(offset: u64) -> Self {
        if (MSIX_TABLE..MSIX_PBA).contains(&offset) {
            return Self::Msix(offset - MSIX_TABLE);
        }
        match (offset / CHANNEL_BLOCK).checked_sub(1).map(usize::try_from) {
            None => Self::Device(offset),
            Some(index) => Self::Channel(index.unwrap_or(usize::MAX), offset % CHANNEL_BLOCK),
        }
    }
}

/// One 32-bit half of a 64-bit register.
const fn low(value: u64) -> u64 {
    value & 0xffff_ffff
}

const fn with_low(old: u64, value: u64) -> u64 {
    old & !0xffff_ffff | low(value)
}

const fn with_high(old: u64, value: u64) -> u64 {
    low(old) | value << 32
}

const HIGH: u64 = 4;
const CHANSTS_HIGH: u64 = CHANSTS + HIGH;
const CHAINADDR_HIGH: u64 = CHAINADDR + HIGH;
const CHANCMP_HIGH: u64 = CHANCMP + HIGH;
const CDAR_HIGH: u64 = CDAR + HIGH;

impl Model {
    /// A device after power-up.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let Config { version, channels, xfercap, capability, interrupts, faults } = config;
        let channels = channels.clamp(1, MAX_CHANNELS);
        Self {
            version,
            xfercap: xfercap.clamp(12, 31),
            capability: capability.unwrap_or_else(|| version.capability()),
            config: ConfigSpace::new(version, channels, interrupts),
            best_interrupts: interrupts,
            interrupts: Interrupts::default(),
            msix: MsixTable::new(channels.into()),
            channels: (0..channels).map(|_| Channel::new()).collect(),
            turn: 0,
            faults,
        }
    }

    /// Number of channels.
    #[must_use]
    pub fn channels(&self) -> usize {
        self.channels.len()
    }

    /// Reads bytes of configuration space; see [`ConfigSpace`].
    pub fn config_read(&self, offset: u64, bytes: &mut [u8]) {
        self.config.read(offset, bytes);
        let status = DEVICE_STATUS.checked_sub(offset).and_then(|at| usize::try_from(at).ok());
        if let Some(byte) = status.and_then(|at| bytes.get_mut(at))
            && self.channels.iter().any(Channel::is_busy)
        {
            *byte |= TRANSACTIONS_PENDING;
        }
    }

    /// Writes bytes of configuration space; see [`ConfigSpace`].
    pub fn config_write(&mut self, offset: u64, bytes: &[u8]) {
        if self.config.write(offset, bytes) {
            self.reset();
        }
        self.interrupts.send(&mut self.config);
    }

    /// Does what the kernel does for whoever opens a device: enables memory space, bus mastering and
    /// the best style of interrupts that there is.
    pub fn enable(&mut self) {
        self.config_write(COMMAND, &(MEMORY_SPACE | BUS_MASTER).to_le_bytes());
        match self.best_interrupts {
            InterruptStyle::Msix => self.config_write(MSIX_CONTROL, &MSIX_ENABLE.to_le_bytes()),
            InterruptStyle::Msi => self.config_write(MSI_CONTROL, &MSI_ENABLE.to_le_bytes()),
            InterruptStyle::Intx => {}
        }
    }

    /// Configuration space.
    #[must_use]
    pub const fn config_space(&self) -> &ConfigSpace {
        &self.config
    }

    /// Function level reset: everything is as after power-up, except that descriptors in hand end
    /// first (without a completion), and that [`Faults`] are counted on.
    pub fn reset(&mut self) {
        self.config.reset();
        self.msix = MsixTable::new(self.channels.len());
        for channel in &mut self.channels {
            channel.power_up();
        }
        for index in 0..self.channels.len() {
            self.collect(index);
        }
        self.interrupts.reset(&mut self.config);
    }

    /// A register read. It may have side effects (CHANCTRL, ATTNSTATUS), hence `&mut`.
    #[must_use]
    pub fn mmio_read(&mut self, offset: u64, width: Width) -> u64 {
        match Place::of(offset) {
            Place::Device(register) => self.read_device(register, width),
            Place::Msix(place) => self.msix.read(place, width),
            Place::Channel(index, register) => match self.channels.get_mut(index) {
                Some(channel) => Self::read_channel(channel, register, width),
                None => 0,
            },
        }
    }

    /// A register write.
    pub fn mmio_write(&mut self, offset: u64, width: Width, value: u64) {
        match Place::of(offset) {
            Place::Device(INTRCTRL) if width == Width::W8 => {
                self.interrupts.write_control(value as u8, &mut self.config);
            }
            Place::Device(_) => {}
            Place::Msix(place) => self.msix.write(place, width, value),
            Place::Channel(index, register) => {
                if let Some(channel) = self.channels.get_mut(index) {
                    Self::write_channel(channel, register, width, value);
                    self.collect(index);
                }
            }
        }
    }

    /// Takes the next descriptor in hand, of the channels in turn, and returns its channel and what
    /// is to be moved. `None`: no channel has anything to do.
    ///
    /// The channel does nothing else until [`retire`](Self::retire) is called for it; other channels
    /// may be fetched from meanwhile.
    #[must_use]
    pub fn fetch(&mut self, memory: &mut impl Memory) -> Option<(usize, Operation)> {
        if !self.config.is_bus_master() {
            return None;
        }
        let count = self.channels.len();
        for step in 0..count {
            let index = (self.turn + step) % count;
            let Some(channel) = self.channels.get_mut(index) else { continue };
            if !channel.is_ready() {
                continue;
            }
            let fault = self.faults.take(index, channel.position);
            let operation = channel.fetch(memory, 1 << self.xfercap, self.capability, fault);
            self.collect(index);
            if let Some(operation) = operation {
                self.turn = (index + 1) % count;
                return Some((index, operation));
            }
            // Refused: this channel has halted or hangs, and the next one has its turn.
        }
        None
    }

    /// Ends the descriptor that [`fetch`](Self::fetch) returned for `channel`: writes its completion
    /// word and raises its interrupt if it asks for them, or halts the channel. Ignored if the
    /// channel has no descriptor in hand.
    pub fn retire(
        &mut self,
        channel: usize,
        result: Result<(), MoveError>,
        memory: &mut impl Memory,
    ) {
        if let Some(state) = self.channels.get_mut(channel) {
            state.retire(result, memory);
            self.collect(channel);
        }
    }

    /// The vectors that the device has sent since the last call, a bit each. With INTA
    /// ([`ConfigSpace::interrupt_style`]) bit 0 says that it has risen; [`intx`](Self::intx) says
    /// whether it still is high.
    #[must_use]
    pub const fn take_interrupts(&mut self) -> u32 {
        self.interrupts.take()
    }

    /// The level of INTA. It falls when ATTNSTATUS or INTRCTRL is read.
    #[must_use]
    pub const fn intx(&self) -> bool {
        self.interrupts.intx()
    }

    /// Takes over what has happened in a channel.
    fn collect(&mut self, index: usize) {
        let Some(channel) = self.channels.get_mut(index) else { return };
        let Events { interrupt, errors, reset } = channel.take_events();
        if interrupt {
            self.interrupts.raise(index, &mut self.config);
        }
        if !errors.is_empty() {
            self.config.latch_errors(errors);
        }
        if reset {
            match self.version {
                Version::V3_0 => self.config.latch_parity_error(),
                // The channel's reset also takes the MSI-X table.
                Version::V3_3 => self.msix = MsixTable::new(self.channels.len()),
                Version::V3_2 | Version::V3_4 => {}
            }
        }
    }

    fn read_device(&mut self, register: u64, width: Width) -> u64 {
        match (register, width) {
            (CHANCNT, Width::W8) => self.channels.len() as u64,
            (XFERCAP, Width::W8) => self.xfercap.into(),
            (INTRCTRL, Width::W8) => self.interrupts.read_control(&mut self.config).into(),
            (ATTNSTATUS, Width::W32) => self.interrupts.read_attention(&mut self.config).into(),
            (CBVER, Width::W8) => self.version.cbver().into(),
            (DMACAPABILITY, Width::W32) => self.capability.bits().into(),
            _ => 0,
        }
    }

    fn read_channel(channel: &mut Channel, register: u64, width: Width) -> u64 {
        match (register, width) {
            (CHANCTRL, Width::W16) => channel.read_control().into(),
            (DMA_COMP, Width::W16) => DMA_COMP_V2.into(),
            (CHANCMD, Width::W8) => channel.command().into(),
            (DMACOUNT, Width::W16) => channel.dma_count().into(),
            (CHANSTS, Width::W64) => channel.status(),
            (CHANSTS, Width::W32) => low(channel.status()),
            (CHANSTS_HIGH, Width::W32) => channel.status() >> 32,
            (CHAINADDR, Width::W64) => channel.chain_address(),
            (CHAINADDR, Width::W32) => low(channel.chain_address()),
            (CHAINADDR_HIGH, Width::W32) => channel.chain_address() >> 32,
            (CHANCMP, Width::W64) => channel.completion_address(),
            (CHANCMP, Width::W32) => low(channel.completion_address()),
            (CHANCMP_HIGH, Width::W32) => channel.completion_address() >> 32,
            (CDAR, Width::W64) => channel.current_descriptor(),
            (CDAR, Width::W32) => low(channel.current_descriptor()),
            (CDAR_HIGH, Width::W32) => channel.current_descriptor() >> 32,
            (CHANERR, Width::W32) => channel.errors().into(),
            (CHANERRMASK, Width::W32) => channel.error_mask.bits().into(),
            (DCACTRL, Width::W32) => channel.dca_control.into(),
            _ => 0,
        }
    }

    fn write_channel(channel: &mut Channel, register: u64, width: Width, value: u64) {
        let chain = channel.chain_address();
        let completion = channel.completion_address();
        match (register, width) {
            (CHANCTRL, Width::W16) => channel.write_control(value as u16),
            (CHANCMD, Width::W8) => channel.write_command(value as u8),
            (DMACOUNT, Width::W16) => channel.write_dma_count(value as u16),
            (CHAINADDR, Width::W64) => channel.write_chain_address(value, true),
            (CHAINADDR, Width::W32) => channel.write_chain_address(with_low(chain, value), false),
            (CHAINADDR_HIGH, Width::W32) => {
                channel.write_chain_address(with_high(chain, value), true);
            }
            (CHANCMP, Width::W64) => channel.write_completion_address(value),
            (CHANCMP, Width::W32) => channel.write_completion_address(with_low(completion, value)),
            (CHANCMP_HIGH, Width::W32) => {
                channel.write_completion_address(with_high(completion, value));
            }
            (CHANERR, Width::W32) => channel.clear_errors(value as u32),
            (CHANERRMASK, Width::W32) => {
                channel.error_mask = ChanErr::from_bits_truncate(value as u32);
            }
            (DCACTRL, Width::W32) => channel.dca_control = value as u32,
            _ => {}
        }
    }
}
