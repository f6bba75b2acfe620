//! Probe, and handing out channels.

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use dmaengine::{
    Addressing, Arena, Capabilities, ChannelInfo, DmaChannel, DmaDevice, IovaMap, Kind, MapError,
    RequestError,
};

use crate::{
    Options, Version,
    bar::{Bar, ChannelRegisters, Interrupts, Platform},
    channel::{IoatChannel, SuperExtended},
    error::{ProbeError, StartError},
    hardware::Hardware,
    incident::IncidentKind,
    interrupt::Vectors,
    lines, pci,
    quirks::Quirks,
    registers::{
        DmaCapability, INTRCTRL, INTRDELAY, INTRDELAY_MASK, INTRDELAY_SUPPORTED, PCI_DMACTRL,
        PCI_DMACTRL_DMA_EN, PCI_DMACTRL_MSI_EN, PREFETCH_LIMIT,
    },
    relaxed_ordering,
    reset::reset_for_owner,
    ring::RESERVED,
    self_test,
};

/// The most pieces on a side of a scatter-gather copy. The hardware has no lists, so that the ring
/// is the limit; but each piece is compared with each.
const MAX_SG: usize = 64;
/// The most sources of an exclusive or, and of P and Q without super extended descriptors.
const MAX_SOURCES: usize = 8;
/// The most sources of P and Q with super extended descriptors.
pub(crate) const MAX_SOURCES_16: usize = 16;
/// The most descriptors that a piece of an operation with several sources takes: it has an extension,
/// and an empty descriptor tells of its end.
const RAID_DESCRIPTORS: usize = 3;
/// The shortest time that the watchdog waits.
const MIN_WATCHDOG: Duration = Duration::from_millis(1);
/// What goes to [`PREFETCH_LIMIT`]: Linux's value, which is what the hardware is used with.
const DESCRIPTORS_AHEAD: u8 = 5;
/// Memory per channel besides its rings: the completion word, in a page.
const PER_CHANNEL: usize = 4096;

/// What a device is made of, as whoever opened it found it.
#[derive(Clone)]
pub struct Resources {
    /// The engine's name in all output: `ioat-model`, or `ioat:` and the PCI address.
    pub engine: String,
    /// What it is.
    pub kind: Kind,
    /// The PCI function's id, which tells what it is and how it deviates.
    pub id: pci::Id,
    /// The NUMA node that it is nearest to, if that is known.
    pub numa_node: Option<u32>,
    /// The registers.
    pub bar: Arc<dyn Bar>,
    /// Mappings, interrupts, configuration space.
    pub platform: Arc<dyn Platform>,
}

impl fmt::Debug for Resources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resources")
            .field("engine", &self.engine)
            .field("kind", &self.kind)
            .field("id", &self.id)
            .field("numa_node", &self.numa_node)
            .finish_non_exhaustive()
    }
}

/// An I/OAT device.
pub struct IoatDevice {
    shared: Arc<Shared>,
    channels: Vec<ChannelInfo>,
}

/// What the device's channels share.
pub(crate) struct Shared {
    pub(crate) bar: Arc<dyn Bar>,
    pub(crate) platform: Arc<dyn Platform>,
    pub(crate) hardware: Hardware,
    pub(crate) options: Options,
    pub(crate) vectors: Vectors,
    /// Rings and completion words.
    pub(crate) arena: Arena,
    pub(crate) iova: IovaMap,
    /// Held while an arena is mapped, so that none is mapped twice.
    mapping: Mutex<()>,
    in_use: Vec<AtomicBool>,
}

impl Shared {
    fn map(&self, arena: &Arena) -> Result<(), MapError> {
        // The lock guards no data.
        let _mapping = self.mapping.lock().unwrap_or_else(PoisonError::into_inner);
        if self.iova.translate(arena.base(), arena.len()).is_some() {
            return Ok(());
        }
        let iova = self.platform.map(arena)?;
        self.iova.insert(arena, iova)
    }

    /// A channel's registers.
    pub(crate) fn registers(&self, index: usize) -> ChannelRegisters {
        ChannelRegisters::new(Arc::clone(&self.bar), self.hardware.version, index)
    }

    /// Takes a channel, in this process and in CHANCTRL; whether it was free.
    fn take(&self, index: usize) -> bool {
        // AcqRel: the one who takes it sees what its last owner did, and the other way round.
        if self.in_use[index].swap(true, Ordering::AcqRel) {
            return false;
        }
        let taken = self.registers(index).take();
        if !taken {
            self.release(index);
        }
        taken
    }

    /// Stops what the last owner of a channel that was taken may have left running.
    pub(crate) fn stop(&self, index: usize) -> Result<(), StartError> {
        let Self { platform, hardware, .. } = self;
        reset_for_owner(&self.registers(index), &**platform, hardware.quirks)?;
        Ok(())
    }

    /// Gives up a channel that was taken and has no memory.
    pub(crate) fn give_back(&self, index: usize) {
        self.registers(index).release();
        self.release(index);
    }

    /// Lets others of this process have the channel. CHANCTRL has been written by then.
    pub(crate) fn release(&self, index: usize) {
        // Release: pairs with the swap in `take`.
        self.in_use[index].store(false, Ordering::Release);
    }
}

impl IoatDevice {
    /// Takes a device into service: checks what it is, resets its channels (but those that have
    /// another owner), and tests the first free one: it copies 2000 bytes, and makes and checks
    /// parity if it can.
    ///
    /// A channel whose reset does not end within a second is nothing against the others. It is told
    /// of ([`IncidentKind::Stuck`]), and reset again by each
    /// [`request_channel`](DmaDevice::request_channel) for it.
    ///
    /// # Errors
    ///
    /// See [`ProbeError`]; nothing of the device is in use then.
    pub fn probe(resources: Resources, options: Options) -> Result<Self, ProbeError> {
        let Resources { engine, kind, id, numa_node, bar, platform } = resources;
        let options = Options {
            ring_order: options.ring_order.clamp(2, 15),
            watchdog: options.watchdog.max(MIN_WATCHDOG),
            ..options
        };
        let hardware = Hardware::read(&*bar, id, platform.dca_enabled())?;
        let count = hardware.channels;
        let vectors = Vectors::new(&*platform, count).map_err(ProbeError::Event)?;
        let info = ChannelInfo {
            numa_node,
            ..channel_info(ChannelInfo::new(engine, kind), &hardware, options.ring_order)
        };
        let channels = (0..count).map(|_| {
            let mut info = info.clone();
            let interrupts = !matches!(vectors, Vectors::None);
            info.capabilities.set(Capabilities::INTERRUPT, interrupts);
            info
        });
        let channels: Vec<_> = channels.collect();
        let arena = Arena::new(count * channel_memory(&hardware, &options) + self_test::MEMORY)?;
        let shared = Shared {
            bar,
            platform,
            hardware,
            options,
            vectors,
            arena: arena.clone(),
            iova: IovaMap::new(),
            mapping: Mutex::new(()),
            in_use: (0..count).map(|_| AtomicBool::new(false)).collect(),
        };
        shared.map(&arena)?;
        let device = Self { shared: Arc::new(shared), channels };
        device.set_up_bus();
        let idle = device.reset_channels()?;
        device.set_up_device();
        device.self_test(&idle)?;
        Ok(device)
    }

    /// What of PCI configuration space has to be as the driver needs it.
    fn set_up_bus(&self) {
        let Shared { platform, hardware, .. } = &*self.shared;
        relaxed_ordering::turn_off(&**platform);
        if hardware.version < Version::V2_0 {
            let mut control = platform.config_read32(PCI_DMACTRL) | PCI_DMACTRL_DMA_EN;
            if platform.interrupts() == Interrupts::Msi {
                control |= PCI_DMACTRL_MSI_EN;
            } else {
                control &= !PCI_DMACTRL_MSI_EN;
            }
            platform.config_write32(PCI_DMACTRL, control);
        }
    }

    /// The registers that all channels share.
    fn set_up_device(&self) {
        let Shared { bar, hardware, options, vectors, .. } = &*self.shared;
        bar.write8(INTRCTRL, vectors.control());
        self.set_interrupt_delay(options.interrupt_delay);
        if hardware.quirks.contains(Quirks::PREFETCH_LIMIT) {
            bar.write8(PREFETCH_LIMIT, DESCRIPTORS_AHEAD);
        }
    }

    /// Has interrupts held back for `delay`, 16383 us at most, so that several become one (Linux:
    /// `intr_coalesce`). Returns `false`, and changes nothing, if the device cannot.
    pub fn set_interrupt_delay(&self, delay: Duration) -> bool {
        let bar = &self.shared.bar;
        if bar.read16(INTRDELAY) & INTRDELAY_SUPPORTED == 0 {
            return delay.is_zero();
        }
        let micros = delay.as_micros().min(INTRDELAY_MASK.into()) as u16;
        bar.write16(INTRDELAY, micros);
        true
    }

    /// What the device is.
    #[must_use]
    pub fn family(&self) -> pci::Family {
        self.shared.hardware.family
    }

    /// The version that it is driven as.
    #[must_use]
    pub fn version(&self) -> Version {
        self.shared.hardware.version
    }

    /// How it deviates from the common way.
    #[must_use]
    pub fn quirks(&self) -> Quirks {
        self.shared.hardware.quirks
    }

    /// Stops what an earlier owner may have left running. Returns the channels that are idle then:
    /// all but those that have another owner, and those that do not stop.
    fn reset_channels(&self) -> Result<Vec<usize>, ProbeError> {
        let mut idle = Vec::new();
        let mut stuck = None;
        for channel in 0..self.channels.len() {
            if !self.shared.take(channel) {
                continue;
            }
            let stopped = self.shared.stop(channel);
            self.shared.give_back(channel);
            match stopped {
                Ok(()) => idle.push(channel),
                Err(StartError::Stuck) => {
                    self.shared.options.tell(channel, IncidentKind::Stuck);
                    stuck = stuck.or(Some(channel));
                }
                Err(source) => return Err(ProbeError::Start { channel, source }),
            }
        }
        match stuck {
            Some(channel) if idle.is_empty() => {
                Err(ProbeError::Start { channel, source: StartError::Stuck })
            }
            _ => Ok(idle),
        }
    }

    /// Tests the first channel of those that are `idle` and free.
    fn self_test(&self, idle: &[usize]) -> Result<(), ProbeError> {
        let free = idle.iter().copied().find(|index| self.shared.take(*index));
        // If all have other owners, there is nothing to test, and nothing to hand out.
        let Some(index) = free else { return Ok(()) };
        let start = |source| ProbeError::Start { channel: index, source };
        let channel = self.open(index).map_err(start)?;
        self_test::run(&self.shared, channel, index)
    }

    /// Brings up a channel that was taken.
    fn open(&self, index: usize) -> Result<IoatChannel, StartError> {
        let info = self.channels[index].clone();
        IoatChannel::open(Arc::clone(&self.shared), index, info)
    }
}

/// What a channel of the device can do with a ring of `2^ring_order` descriptors.
fn channel_info(info: ChannelInfo, hardware: &Hardware, ring_order: u8) -> ChannelInfo {
    let Hardware { version, capability, xfercap, .. } = *hardware;
    let ring_size = (1 << ring_order) - RESERVED;
    // No cache hints: what the hardware has, tags that steer writes into a CPU's cache, takes a tag
    // map from the firmware.
    let mut capabilities = Capabilities::MEMCPY | Capabilities::MEMCPY_SG | Capabilities::FENCE;
    capabilities.set(Capabilities::MEMSET, capability.contains(DmaCapability::BLOCK_FILL));
    let fits = ring_size >= RAID_DESCRIPTORS;
    let pq = fits && capability.contains(DmaCapability::PQ);
    // P without Q is an exclusive or.
    let xor = pq || fits && capability.contains(DmaCapability::XOR);
    capabilities.set(Capabilities::XOR | Capabilities::XOR_VAL, xor);
    capabilities.set(Capabilities::PQ | Capabilities::PQ_VAL, pq);
    let max_pq =
        if capability.contains(DmaCapability::RAID16SS) { MAX_SOURCES_16 } else { MAX_SOURCES };
    ChannelInfo {
        version: Some(version.to_string()),
        capabilities,
        addressing: Addressing::Iova,
        xfercap,
        ring_size,
        max_sg: MAX_SG.min(ring_size),
        max_xor: match (xor, pq) {
            (_, true) => max_pq,
            (true, false) => MAX_SOURCES,
            (false, false) => 0,
        },
        max_pq: if pq { max_pq } else { 0 },
        ..info
    }
}

/// Memory that a channel shares with the device, in bytes.
fn channel_memory(hardware: &Hardware, options: &Options) -> usize {
    let super_extended = if hardware.has_super_extended() { SuperExtended::LINES } else { 0 };
    PER_CHANNEL + (((1 + super_extended) * lines::SIZE) << options.ring_order)
}

impl DmaDevice for IoatDevice {
    fn channels(&self) -> &[ChannelInfo] {
        &self.channels
    }

    fn map(&self, arena: &Arena) -> Result<(), MapError> {
        self.shared.map(arena)
    }

    fn request_channel(&self, index: usize) -> Result<Box<dyn DmaChannel>, RequestError> {
        let channels = self.channels.len();
        if index >= channels {
            return Err(RequestError::NoSuchChannel { index, channels });
        }
        if !self.shared.take(index) {
            return Err(RequestError::InUse);
        }
        match self.open(index) {
            Ok(channel) => Ok(Box::new(channel)),
            Err(error) => Err(RequestError::Failed(Box::new(error))),
        }
    }

    fn cpu_time(&self) -> Option<Duration> {
        self.shared.platform.cpu_time()
    }
}

impl fmt::Debug for IoatDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IoatDevice")
            .field("hardware", &self.shared.hardware)
            .field("channels", &self.channels)
            .field("options", &self.shared.options)
            .finish_non_exhaustive()
    }
}
