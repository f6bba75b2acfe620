//! The whole device: register accesses and descriptors of all channels.

use crate::{
    channel::Channel,
    descriptor::Operation,
    faults::Faults,
    memory::{Memory, MoveError},
    registers::{
        ATTNSTATUS, CBVER, CHANCNT, CHANNEL_BLOCK, ChanErr, DMA_COMP_V2, DMACAPABILITY,
        DmaCapability, INTRCTRL, IntrCtrl, MAX_CHANNELS, Width, XFERCAP,
        channel::{
            CDAR, CHAINADDR, CHANCMD, CHANCMP, CHANCTRL, CHANERR, CHANERRMASK, CHANSTS, DCACTRL,
            DMA_COMP, DMACOUNT,
        },
    },
};

/// Hardware versions that the model can be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Version {
    /// 3.2: Xeons from Sandy Bridge to Skylake.
    #[default]
    V3_2,
}

impl Version {
    /// The CBVER register's value.
    #[must_use]
    pub const fn cbver(self) -> u8 {
        match self {
            Self::V3_2 => 0x32,
        }
    }
}

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
    /// Whether there are fill descriptors.
    pub block_fill: bool,
    /// Faults to order.
    pub faults: Faults,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            version: Version::V3_2,
            channels: 1,
            xfercap: 20,
            block_fill: true,
            faults: Faults::none(),
        }
    }
}

/// The device as a state machine. It has no clock, no thread and no memory of its own.
///
/// Whoever owns it (a *shell*) passes register accesses in, and moves descriptors on in two steps:
/// [`fetch`](Self::fetch) says what is to be moved, [`retire`](Self::retire) is told how that went.
/// Between the two the registers may be used; so a shell need not hold its lock while bytes move.
/// After any call, [`take_interrupts`](Self::take_interrupts) says which channels interrupt.
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
    interrupt_control: IntrCtrl,
    /// ATTNSTATUS.
    attention: u32,
    /// Interrupts that have left the device and were not yet taken, a bit per channel.
    interrupts: u32,
    channels: Vec<Channel>,
    /// The channel whose turn it is.
    turn: usize,
    faults: Faults,
}

/// A register offset, taken apart.
enum Place {
    Device(u64),
    Channel(usize, u64),
}

impl Place {
    fn of(offset: u64) -> Self {
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
        let Config { version, channels, xfercap, block_fill, faults } = config;
        let mut capability = DmaCapability::empty();
        capability.set(DmaCapability::BLOCK_FILL, block_fill);
        let channels = channels.clamp(1, MAX_CHANNELS);
        Self {
            version,
            xfercap: xfercap.clamp(12, 31),
            capability,
            interrupt_control: IntrCtrl::empty(),
            attention: 0,
            interrupts: 0,
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

    /// A register read. It may have side effects (CHANCTRL, ATTNSTATUS), hence `&mut`.
    #[must_use]
    pub fn mmio_read(&mut self, offset: u64, width: Width) -> u64 {
        match Place::of(offset) {
            Place::Device(register) => self.read_device(register, width),
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
                let writable = IntrCtrl::MASTER_INT_EN | IntrCtrl::MSIX_VECTOR_CONTROL;
                self.interrupt_control = IntrCtrl::from_bits_truncate(value as u8) & writable;
            }
            Place::Device(_) => {}
            Place::Channel(index, register) => {
                if let Some(channel) = self.channels.get_mut(index) {
                    Self::write_channel(channel, register, width, value);
                    self.collect_interrupt(index);
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
        let count = self.channels.len();
        for step in 0..count {
            let index = (self.turn + step) % count;
            let Some(channel) = self.channels.get_mut(index) else { continue };
            if !channel.is_ready() {
                continue;
            }
            let fault = self.faults.take(index, channel.position);
            let operation = channel.fetch(memory, 1 << self.xfercap, self.capability, fault);
            self.collect_interrupt(index);
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
            self.collect_interrupt(channel);
        }
    }

    /// The channels, a bit each, that have interrupted since the last call.
    #[must_use]
    pub const fn take_interrupts(&mut self) -> u32 {
        std::mem::replace(&mut self.interrupts, 0)
    }

    fn collect_interrupt(&mut self, index: usize) {
        let raised = self.channels.get_mut(index).is_some_and(Channel::take_interrupt);
        if raised {
            self.attention |= 1 << index;
            if self.interrupt_control.contains(IntrCtrl::MASTER_INT_EN) {
                self.interrupts |= 1 << index;
            }
        }
    }

    fn read_device(&mut self, register: u64, width: Width) -> u64 {
        match (register, width) {
            (CHANCNT, Width::W8) => self.channels.len() as u64,
            (XFERCAP, Width::W8) => self.xfercap.into(),
            (INTRCTRL, Width::W8) => {
                let mut value = self.interrupt_control;
                let status = self.attention != 0;
                value.set(IntrCtrl::INT_STATUS, status);
                value.set(IntrCtrl::INT, status && value.contains(IntrCtrl::MASTER_INT_EN));
                value.bits().into()
            }
            (ATTNSTATUS, Width::W32) => std::mem::replace(&mut self.attention, 0).into(),
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
