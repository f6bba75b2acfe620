//! Probe, and handing out channels.

use std::{
    fmt,
    num::NonZeroUsize,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use dmaengine::{
    Addressing, Arena, Capabilities, ChannelInfo, Completion, DmaChannel, DmaDevice, Flags,
    IovaMap, Kind, MapError, Operation, RequestError, Status,
};

use crate::{
    bar::{Bar, ChannelRegisters, Platform, wait},
    channel::IoatChannel,
    error::{Halt, ProbeError, StartError},
    lines,
    quirks::{Quirks, Version},
    registers::{
        CBVER, CHANCNT, COUNT_MASK, DMACAPABILITY, DMACAPABILITY_BLOCK_FILL, INTRCTRL,
        INTRCTRL_MASTER_INT_EN, INTRCTRL_MSIX_VECTOR_CONTROL, XFERCAP,
    },
    reset::reset,
    ring::RESERVED,
};

/// The most channels that are used of a device (Linux: the same).
const MAX_CHANNELS: u8 = 4;
/// The smallest XFERCAP that the specification allows, log2.
const MIN_XFERCAP: u8 = 12;
/// The most pieces on a side of a scatter-gather copy. The hardware has no lists, so that the ring
/// is the limit; but each piece is compared with each.
const MAX_SG: usize = 64;
/// How long a channel's first reset may take (Linux: 200 ms).
const RESET_TIMEOUT: Duration = Duration::from_millis(200);
/// Length of the self test's copy in bytes, as Linux's.
const SELF_TEST_LEN: usize = 2000;
/// How long the self test's copy may take (Linux: 3 s).
const SELF_TEST_TIMEOUT: Duration = Duration::from_secs(3);
/// Memory per channel besides its ring: the completion word, in a page.
const PER_CHANNEL: usize = 4096;

/// When the device writes the completion word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Completions {
    /// At the end of every operation: an 8-byte write each, and whoever waits for the first of a
    /// batch learns of it while the others run (DPDK's way). The write costs the device model 10 to
    /// 20 ns an operation; a receiver that gives memory back with each copy gains more than that.
    #[default]
    PerOperation,
    /// At the end of what one [`issue_pending`](DmaChannel::issue_pending) issued: all of a batch end
    /// together (SPDK's way).
    PerBatch,
}

/// Settings.
#[derive(Clone)]
pub struct Options {
    /// log2 of the descriptors in a channel's ring; brought into 2 to 15. Three of them are not for
    /// operations.
    pub ring_order: u8,
    /// When the device writes the completion word.
    pub completions: Completions,
    /// Called when a channel has halted and was reset, in the thread that polled: for logs.
    pub on_halt: Option<Arc<OnHalt>>,
}

/// See [`Options::on_halt`].
pub type OnHalt = dyn Fn(&Halt) + Send + Sync;

impl Default for Options {
    fn default() -> Self {
        Self { ring_order: 10, completions: Completions::default(), on_halt: None }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ring_order, completions, on_halt } = self;
        f.debug_struct("Options")
            .field("ring_order", ring_order)
            .field("completions", completions)
            .field("on_halt", &on_halt.is_some())
            .finish()
    }
}

/// What a device is made of, as whoever opened it found it.
#[derive(Clone)]
pub struct Resources {
    /// The engine's name in all output: `ioat-model`, or `ioat:` and the PCI address.
    pub engine: String,
    /// What it is.
    pub kind: Kind,
    /// The PCI device id, which tells some deviations.
    pub device_id: u16,
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
            .field("device_id", &self.device_id)
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
    pub(crate) quirks: Quirks,
    pub(crate) options: Options,
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

    /// Takes a channel, in this process and in CHANCTRL; whether it was free.
    fn take(&self, index: usize) -> bool {
        // AcqRel: the one who takes it sees what its last owner did, and the other way round.
        if self.in_use[index].swap(true, Ordering::AcqRel) {
            return false;
        }
        let taken = ChannelRegisters::new(Arc::clone(&self.bar), index).take();
        if !taken {
            self.release(index);
        }
        taken
    }

    /// Lets others of this process have the channel. CHANCTRL has been written by then.
    pub(crate) fn release(&self, index: usize) {
        // Release: pairs with the swap in `take`.
        self.in_use[index].store(false, Ordering::Release);
    }
}

impl IoatDevice {
    /// Takes a device into service: checks its version, resets its channels (but those that have
    /// another owner), and lets the first free one copy 2000 bytes.
    ///
    /// # Errors
    ///
    /// See [`ProbeError`]; nothing of the device is in use then.
    pub fn probe(resources: Resources, options: Options) -> Result<Self, ProbeError> {
        let Resources { engine, kind, device_id, bar, platform } = resources;
        let options = Options { ring_order: options.ring_order.clamp(2, 15), ..options };
        let cbver = bar.read8(CBVER);
        if cbver == u8::MAX {
            return Err(ProbeError::Gone);
        }
        let quirks = Quirks::of_device(device_id);
        let version = Version::new(cbver, quirks);
        if version != Version::V3_2 {
            let Version { major, minor } = version;
            return Err(ProbeError::Version { major, minor });
        }
        let count = (bar.read8(CHANCNT) & COUNT_MASK).min(MAX_CHANNELS).into();
        if count == 0 {
            return Err(ProbeError::NoChannels);
        }
        let log2 = bar.read8(XFERCAP) & COUNT_MASK;
        // 5 bits, so 2^31 at most.
        let xfercap = NonZeroUsize::new(1 << log2).filter(|_| log2 >= MIN_XFERCAP);
        let xfercap = xfercap.ok_or(ProbeError::TransferCapacity { log2 })?;

        // No cache hints: what the hardware has, tags that steer writes into a CPU's cache, takes a
        // tag map from the firmware.
        let mut capabilities = Capabilities::MEMCPY | Capabilities::MEMCPY_SG | Capabilities::FENCE;
        let fill = bar.read32(DMACAPABILITY) & DMACAPABILITY_BLOCK_FILL != 0;
        capabilities.set(Capabilities::MEMSET, fill);
        let channels = (0..count).map(|index| {
            let interrupt = platform.interrupt(index).is_some();
            let mut capabilities = capabilities;
            capabilities.set(Capabilities::INTERRUPT, interrupt);
            ChannelInfo {
                version: Some(format!("{}.{}", version.major, version.minor)),
                capabilities,
                addressing: Addressing::Iova,
                xfercap,
                ring_size: (1 << options.ring_order) - RESERVED,
                max_sg: MAX_SG.min((1 << options.ring_order) - RESERVED),
                ..ChannelInfo::new(engine.clone(), kind)
            }
        });
        let channels: Vec<_> = channels.collect();
        let ring = lines::SIZE << options.ring_order;
        let arena = Arena::new(count * (ring + PER_CHANNEL) + 2 * SELF_TEST_LEN + PER_CHANNEL)?;
        let shared = Shared {
            bar,
            platform,
            quirks: quirks.with_version(version),
            options,
            arena: arena.clone(),
            iova: IovaMap::new(),
            mapping: Mutex::new(()),
            in_use: (0..count).map(|_| AtomicBool::new(false)).collect(),
        };
        shared.map(&arena)?;
        let device = Self { shared: Arc::new(shared), channels };
        device.reset_channels()?;
        let interrupts = INTRCTRL_MASTER_INT_EN | INTRCTRL_MSIX_VECTOR_CONTROL;
        device.shared.bar.write8(INTRCTRL, interrupts);
        device.self_test()?;
        Ok(device)
    }

    /// Stops what an earlier owner may have left running.
    fn reset_channels(&self) -> Result<(), ProbeError> {
        for index in 0..self.channels.len() {
            if !self.shared.take(index) {
                continue;
            }
            let registers = ChannelRegisters::new(Arc::clone(&self.shared.bar), index);
            let Shared { platform, quirks, .. } = &*self.shared;
            reset(&registers, &**platform, *quirks, RESET_TIMEOUT)
                .map_err(|error| ProbeError::Start { channel: index, source: error.into() })?;
            registers.release();
            self.shared.release(index);
        }
        Ok(())
    }

    /// Copies [`SELF_TEST_LEN`] bytes on the first free channel.
    fn self_test(&self) -> Result<(), ProbeError> {
        let free = (0..self.channels.len()).find(|index| self.shared.take(*index));
        // If all have other owners, there is nothing to test, and nothing to hand out.
        let Some(index) = free else { return Ok(()) };
        let start = |source| ProbeError::Start { channel: index, source };
        let mut channel = self.open(index).map_err(start)?;
        let buffer = || self.shared.arena.alloc(SELF_TEST_LEN).map_err(StartError::from);
        let mut source = buffer().map_err(start)?;
        let mut target = buffer().map_err(start)?;
        for (index, byte) in source.iter_mut().enumerate() {
            *byte = index as u8;
        }
        target.fill(0);
        let copy = Operation::Memcpy {
            source: source.as_ptr(),
            target: target.as_mut_ptr(),
            len: SELF_TEST_LEN,
        };
        let mut ended = None;
        // SAFETY: both buffers are ours, disjoint, and not touched before the channel is dropped
        // below, which proves it idle or does not return.
        if unsafe { channel.submit(&copy, Flags::empty()) }.is_ok() {
            channel.issue_pending();
            wait(&*self.shared.bar, SELF_TEST_TIMEOUT, || {
                channel.poll(&mut |completion: Completion| ended = Some(completion.status));
                ended.is_some()
            });
        }
        drop(channel);
        let status = ended.unwrap_or(Status::TimedOut);
        if status != Status::Success {
            return Err(ProbeError::SelfTestStatus { status });
        }
        match source.iter().zip(target.iter()).position(|(from, to)| from != to) {
            None => Ok(()),
            Some(offset) => Err(ProbeError::SelfTestData { offset }),
        }
    }

    /// Brings up a channel that was taken.
    fn open(&self, index: usize) -> Result<IoatChannel, StartError> {
        let info = self.channels[index].clone();
        IoatChannel::open(Arc::clone(&self.shared), index, info)
    }
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
            .field("channels", &self.channels)
            .field("options", &self.shared.options)
            .finish_non_exhaustive()
    }
}
