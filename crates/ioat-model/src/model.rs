//! The whole device: register accesses and descriptors of all channels.

use std::time::Duration;

use crate::{
    channel::{Channel, Context, Events},
    config_space::{
        BUS_MASTER, COMMAND, ConfigSpace, DEVICE_STATUS, InterruptStyle, MEMORY_SPACE, MSI_CONTROL,
        MSI_ENABLE, MSIX_CONTROL, MSIX_ENABLE, TRANSACTIONS_PENDING,
    },
    descriptor::{Operation, Performed},
    faults::{Event, Fault, Faults},
    interrupts::{Interrupts, MsixTable},
    layout::{ChannelRegister, Part, Place},
    memory::Memory,
    registers::{
        ATTNSTATUS, CBVER, CHANCNT, CS_STATUS, ChanCmd, DCAOFFSET, DMACAPABILITY, DmaCapability,
        GENCTRL, INTRCTRL, INTRDELAY, INTRDELAY_COALESCING, INTRDELAY_MASK, MAX_CHANNELS,
        PREFETCH_LIMIT, Width, XFERCAP,
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
    /// range. 20 (1 MiB) is common on Xeons. With `DWBES` it is at most 24: a greater length would
    /// look like a result that was written back.
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
/// # Time
///
/// Faults, limits and INTRDELAY may need time. Where [`needs_time`](Self::needs_time) says so, a
/// shell tells the time with [`set_time`](Self::set_time) before it does anything else, calls
/// [`advance`](Self::advance) before it fetches, and wakes for [`next_deadline`](Self::next_deadline).
/// Time counts from where the shell likes, and never goes back.
///
/// # Register accesses
///
/// Registers answer to their own width; 64-bit registers also to aligned 32-bit halves, and those
/// of which the hardware takes effect on a write do so with the high half. Before version 3.0 they
/// are written in halves only. Anything else (unknown offset, other width, a channel that does not
/// exist) reads as 0 and ignores writes.
#[derive(Debug)]
pub struct Model {
    version: Version,
    config: ConfigSpace,
    best_interrupts: InterruptStyle,
    interrupts: Interrupts,
    msix: MsixTable,
    general_control: u8,
    prefetch_limit: u8,
    context: Context,
    channels: Vec<Channel>,
    /// The channel whose turn it is.
    turn: usize,
    faults: Faults,
    needs_time: bool,
    /// The descriptors fetched so far are through then, at the bandwidth that there is.
    moved: Duration,
    /// The device has vanished from the bus.
    gone: bool,
}

impl Model {
    /// A device after power-up.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let Config { version, channels, xfercap, capability, interrupts, faults } = config;
        let channels = channels.clamp(1, MAX_CHANNELS);
        let capability = capability.unwrap_or_else(|| version.capability());
        let largest = if capability.contains(DmaCapability::DWBES) { 24 } else { 31 };
        let context = Context {
            chains: version == Version::V1_2,
            xfercap: 1 << xfercap.clamp(12, largest),
            capability,
            interrupt_delay: Duration::ZERO,
            bus_master: false,
            now: Duration::ZERO,
        };
        Self {
            version,
            config: ConfigSpace::new(version, channels, interrupts),
            best_interrupts: interrupts,
            interrupts: Interrupts::default(),
            msix: MsixTable::new(channels.into()),
            general_control: 0,
            prefetch_limit: 0,
            context,
            channels: (0..channels).map(|_| Channel::new()).collect(),
            turn: 0,
            needs_time: faults.need_time(),
            faults,
            moved: Duration::ZERO,
            gone: false,
        }
    }

    /// Number of channels.
    #[must_use]
    pub fn channels(&self) -> usize {
        self.channels.len()
    }

    /// Reads bytes of configuration space; see [`ConfigSpace`].
    pub fn config_read(&self, offset: u64, bytes: &mut [u8]) {
        if self.gone {
            bytes.fill(u8::MAX);
            return;
        }
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
        if self.gone {
            return;
        }
        if self.config.write(offset, bytes) {
            self.reset();
        }
        self.context.bus_master = self.config.is_bus_master();
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
    /// first (without a completion), that [`Faults`] are counted on, and that a device which has
    /// vanished stays away.
    pub fn reset(&mut self) {
        if self.gone {
            return;
        }
        self.config.reset();
        self.context.bus_master = false;
        self.msix = MsixTable::new(self.channels.len());
        self.general_control = 0;
        self.prefetch_limit = 0;
        self.context.interrupt_delay = Duration::ZERO;
        for index in 0..self.channels.len() {
            self.channels[index].power_up(&self.context);
            self.collect(index);
        }
        self.interrupts.reset(&mut self.config);
    }

    /// Takes the device off the bus, for ever: as [`Fault::Vanish`] does.
    pub fn vanish(&mut self) {
        self.gone = true;
        self.interrupts.vanish();
    }

    /// Whether the device has vanished from the bus.
    #[must_use]
    pub const fn is_gone(&self) -> bool {
        self.gone
    }

    /// A register read. It may have side effects (CHANCTRL, ATTNSTATUS, INTRCTRL), hence `&mut`.
    #[must_use]
    pub fn mmio_read(&mut self, offset: u64, width: Width) -> u64 {
        if self.gone {
            return u64::MAX;
        }
        match Place::of(offset) {
            Place::Device(register) => self.read_device(register, width),
            Place::Msix(place) => self.msix.read(place, width),
            Place::Channel(index, offset) => {
                let register = ChannelRegister::at(self.version, offset, width);
                match (self.channels.get_mut(index), register) {
                    (Some(channel), Some(register)) => channel.read(register, &self.context),
                    _ => 0,
                }
            }
        }
    }

    /// A register write.
    pub fn mmio_write(&mut self, offset: u64, width: Width, value: u64) {
        if self.gone {
            return;
        }
        match Place::of(offset) {
            Place::Device(register) => self.write_device(register, width, value),
            Place::Msix(place) => self.msix.write(place, width, value),
            Place::Channel(index, offset) => {
                if let Some(register) = ChannelRegister::at(self.version, offset, width) {
                    self.write_channel(index, register, value);
                }
            }
        }
    }

    /// Takes the next descriptor in hand, of the channels in turn, and returns its channel and what
    /// is to be moved. `None`: no channel has anything to do now.
    ///
    /// The channel does nothing else until [`retire`](Self::retire) is called for it; other channels
    /// may be fetched from meanwhile.
    #[must_use]
    pub fn fetch(&mut self, memory: &mut impl Memory) -> Option<(usize, Operation)> {
        if self.gone || !self.context.bus_master {
            return None;
        }
        // Two ranges and no remainder: a division would be a good part of a small descriptor's time.
        for index in (self.turn..self.channels.len()).chain(0..self.turn) {
            let Some(channel) = self.channels.get_mut(index) else { continue };
            if !channel.is_ready() {
                continue;
            }
            let operation = if channel.follow(memory, &self.context) {
                let number = channel.counts.descriptors;
                let fault = self.faults.take(Event::Descriptor, index, number);
                if fault == Some(Fault::Vanish) {
                    self.vanish();
                    return None;
                }
                channel.fetch(memory, fault, &self.context)
            } else {
                None
            };
            self.collect(index);
            if let Some(operation) = operation {
                self.turn = if index + 1 < self.channels.len() { index + 1 } else { 0 };
                if self.faults.has_limits() {
                    self.limit(index, &operation);
                }
                return Some((index, operation));
            }
            // Refused: this channel has halted or hangs, and the next one has its turn.
        }
        None
    }

    /// Holds a descriptor for as long as the limits say.
    fn limit(&mut self, index: usize, operation: &Operation) {
        self.moved = self.faults.moved(self.moved.max(self.context.now), operation.bytes());
        if let Some(channel) = self.channels.get_mut(index) {
            channel.hold(self.faults.ends(self.context.now).max(self.moved));
        }
    }

    /// Ends the descriptor that [`fetch`](Self::fetch) returned for `channel`: writes its completion
    /// word and raises its interrupt if it asks for them, or halts the channel. Ignored if the
    /// channel has no descriptor in hand.
    pub fn retire(&mut self, channel: usize, performed: Performed, memory: &mut impl Memory) {
        if self.gone {
            return;
        }
        if let Some(state) = self.channels.get_mut(channel) {
            state.retire(performed, memory, &self.context);
            self.collect(channel);
        }
    }

    /// Orders a fault while the device works: the next descriptor of `channel` meets it that is
    /// fetched, or its next doorbell or reset, in place of another that was ordered for the same.
    /// Ignored if there is no such channel.
    pub fn order(&mut self, channel: usize, fault: Fault) {
        let Some(state) = self.channels.get(channel) else { return };
        self.faults.order(channel, state.counts, fault);
        self.needs_time |= self.faults.need_time();
    }

    /// Whether the device depends on time.
    #[must_use]
    pub const fn needs_time(&self) -> bool {
        self.needs_time
    }

    /// Tells the time. Resets that take long end when they are due.
    pub fn set_time(&mut self, now: Duration) {
        self.context.now = self.context.now.max(now);
        for index in 0..self.channels.len() {
            self.channels[index].end_reset(&self.context);
            self.collect(index);
        }
    }

    /// When something is due that no register access brings about; `None`: nothing is, as things
    /// are.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Duration> {
        if !self.needs_time || self.gone || !self.context.bus_master {
            return None;
        }
        self.channels.iter().filter_map(Channel::deadline).min()
    }

    /// Does what is due, in the order in which it is.
    pub fn advance(&mut self, memory: &mut impl Memory) {
        let now = self.context.now;
        while let Some(due) = self.next_deadline().filter(|due| *due <= now) {
            // What follows from an event is timed from it, not from when the shell looked.
            self.context.now = due;
            for index in 0..self.channels.len() {
                let channel = &mut self.channels[index];
                if channel.deadline() == Some(due) {
                    channel.advance(memory, &self.context);
                    self.collect(index);
                }
            }
        }
        self.context.now = now;
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
                Version::V1_2 | Version::V2_0 | Version::V3_2 | Version::V3_4 => {}
            }
        }
    }

    fn read_device(&mut self, register: u64, width: Width) -> u64 {
        match (register, width) {
            (CHANCNT, Width::W8) => self.channels.len() as u64,
            (XFERCAP, Width::W8) => self.context.xfercap.trailing_zeros().into(),
            (GENCTRL, Width::W8) => self.general_control.into(),
            (INTRCTRL, Width::W8) => self.interrupts.read_control(&mut self.config).into(),
            (ATTNSTATUS, Width::W32) => self.interrupts.read_attention(&mut self.config).into(),
            (CBVER, Width::W8) => self.version.cbver().into(),
            (INTRDELAY, Width::W16) => {
                // It was written as so many microseconds.
                let delay = self.context.interrupt_delay.as_micros() as u64;
                delay | u64::from(INTRDELAY_COALESCING)
            }
            (DMACAPABILITY, Width::W32) => self.context.capability.bits().into(),
            (PREFETCH_LIMIT, Width::W8) => self.prefetch_limit.into(),
            // Nothing is degraded; there is no direct cache access.
            (CS_STATUS | DCAOFFSET, Width::W16) => 0,
            _ => 0,
        }
    }

    fn write_device(&mut self, register: u64, width: Width, value: u64) {
        match (register, width) {
            (GENCTRL, Width::W8) => self.general_control = value as u8 & 1,
            (INTRCTRL, Width::W8) => self.interrupts.write_control(value as u8, &mut self.config),
            (INTRDELAY, Width::W16) => {
                let delay = u64::from(value as u16 & INTRDELAY_MASK);
                self.context.interrupt_delay = Duration::from_micros(delay);
                // For good: an interrupt may be late already when the delay is taken back.
                self.needs_time |= delay != 0;
            }
            (PREFETCH_LIMIT, Width::W8) if self.version == Version::V3_4 => {
                self.prefetch_limit = value as u8;
            }
            _ => {}
        }
    }

    fn write_channel(&mut self, index: usize, register: ChannelRegister, value: u64) {
        let Some(channel) = self.channels.get_mut(index) else { return };
        let command = |command: ChanCmd| {
            register == ChannelRegister::Command && value as u8 == command.bits()
        };
        let chains = self.context.chains;
        if register == ChannelRegister::Count || chains && command(ChanCmd::APPEND) {
            let number = channel.counts.doorbells;
            channel.counts.doorbells += 1;
            if self.faults.take(Event::Doorbell, index, number) == Some(Fault::LostDoorbell) {
                return;
            }
        } else if command(ChanCmd::RESET) && !channel.is_resetting() {
            let number = channel.counts.resets;
            channel.counts.resets += 1;
            if let Some(Fault::SlowReset(time)) = self.faults.take(Event::Reset, index, number) {
                channel.slow_reset(time, &self.context);
            }
        }
        let long = matches!(
            register,
            ChannelRegister::Chain(Part::Whole) | ChannelRegister::Completion(Part::Whole)
        );
        // "1 64b write doesn't work" (Linux), on the hardware of its day.
        if long && self.version < Version::V3_0 {
            return;
        }
        channel.write(register, value, &self.context);
        self.collect(index);
    }
}
