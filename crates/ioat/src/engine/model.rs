//! The engine `ioat-model`: the I/OAT driver on the device model, in this process.

use std::{
    io,
    mem::ManuallyDrop,
    os::fd::BorrowedFd,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use dmaengine::{Arena, DmaDevice, Kind, MapError, fork::Owner};
use ioat_model::{
    Fault, InterruptStyle,
    config_space::VENDOR_ID,
    in_process::{Bar, Config, Device},
    registers::{BAR_SIZE, Width},
};
use ioatdma::{Interrupts, IoatDevice, Options, Platform, ProbeError, Resources, pci};

/// The engine's name.
pub const NAME: &str = "ioat-model";

/// Where arenas are mapped from. Not their process addresses: a driver that forgot to translate one
/// would not be found out.
const FIRST_IOVA: u64 = 1 << 32;
/// Arenas lie at multiples of this, at least this far apart.
const IOVA_GAP: u64 = 2 << 20;
/// Delays from here on are slept through; shorter ones would take far longer that way.
const SLEEP: Duration = Duration::from_micros(100);

/// Why the engine could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// No thread or no eventfd for the device.
    #[error("the device model could not be started ({0}): raise the limits on threads and files")]
    Start(#[from] io::Error),
    /// The driver refused it.
    #[error("the driver refused the device model: {0}")]
    Probe(#[from] ProbeError),
}

/// Starts a device model and the driver on it.
///
/// The device's thread ends when the returned device and all its channels have been dropped.
///
/// ```
/// use dmaengine::{Arena, DmaBuf, Queue};
/// use ioat::engine::model;
/// # use std::time::Duration;
///
/// let device = model::open(Default::default(), Default::default())?;
/// let arena = Arena::new(1 << 20)?;
/// device.map(&arena)?;
/// let mut queue: Queue<DmaBuf, DmaBuf, ()> = Queue::new(device.request_channel(0)?);
///
/// let mut source = arena.alloc(5)?;
/// source.copy_from_slice(b"hello");
/// queue.copy(source, arena.alloc(5)?, ()).map_err(|refused| refused.error)?;
/// queue.wait(Duration::from_secs(5), |done| assert_eq!(&done.target[..], b"hello"))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// See [`OpenError`].
pub fn open(config: Config, options: Options) -> Result<Arc<dyn DmaDevice>, OpenError> {
    open_with_orders(config, options).map(|(device, _)| device)
}

/// As [`open`], with what orders faults while the device works.
///
/// # Errors
///
/// See [`OpenError`].
pub fn open_with_orders(
    config: Config,
    options: Options,
) -> Result<(Arc<dyn DmaDevice>, FaultOrders), OpenError> {
    let interrupts = match config.model.interrupts {
        InterruptStyle::Msix => Interrupts::MsiX { vectors: config.model.channels.into() },
        InterruptStyle::Msi => Interrupts::Msi,
        InterruptStyle::Intx => Interrupts::Intx,
    };
    let id = pci::Id { vendor: VENDOR_ID, device: config.model.version.device_id() };
    let device = ManuallyDrop::new(Device::start(config)?);
    let (bar, owner) = (device.bar(), Owner::current());
    let platform = Arc::new(ModelPlatform {
        device,
        owner,
        bar: bar.clone(),
        interrupts,
        arenas: Mutex::default(),
        next_iova: AtomicU64::new(FIRST_IOVA),
    });
    let orders = FaultOrders { bar: bar.clone() };
    let resources = Resources {
        engine: NAME.to_owned(),
        kind: Kind::Model,
        id,
        numa_node: None,
        bar: Arc::new(ModelBar { bar, owner }),
        platform,
    };
    Ok((Arc::new(IoatDevice::probe(resources, options)?), orders))
}

/// Orders faults of a device model that works.
#[derive(Clone, Debug)]
pub struct FaultOrders {
    bar: Bar,
}

impl FaultOrders {
    /// Has what comes next on `channel` meet `fault`: see [`ioat_model::Model::order`].
    pub fn order(&self, channel: usize, fault: Fault) {
        self.bar.order(channel, fault);
    }
}

/// The registers. To a forked child, which has no device behind them, the slot is empty: reads give
/// all ones and writes are ignored. Nothing waits for a lock that a thread of its parent may have.
struct ModelBar {
    bar: Bar,
    owner: Owner,
}

impl ModelBar {
    fn read(&self, offset: u64, width: Width) -> u64 {
        if self.owner.is_here() { self.bar.read(offset, width) } else { u64::MAX }
    }

    fn write(&self, offset: u64, width: Width, value: u64) {
        if self.owner.is_here() {
            self.bar.write(offset, width, value);
        }
    }
}

impl ioatdma::Bar for ModelBar {
    fn size(&self) -> u64 {
        BAR_SIZE
    }

    fn read8(&self, offset: u64) -> u8 {
        self.read(offset, Width::W8) as u8
    }

    fn read16(&self, offset: u64) -> u16 {
        self.read(offset, Width::W16) as u16
    }

    fn read32(&self, offset: u64) -> u32 {
        self.read(offset, Width::W32) as u32
    }

    fn read64(&self, offset: u64) -> u64 {
        self.read(offset, Width::W64)
    }

    fn write8(&self, offset: u64, value: u8) {
        self.write(offset, Width::W8, value.into());
    }

    fn write16(&self, offset: u64, value: u16) {
        self.write(offset, Width::W16, value.into());
    }

    fn write32(&self, offset: u64, value: u32) {
        self.write(offset, Width::W32, value.into());
    }

    fn write64(&self, offset: u64, value: u64) {
        self.write(offset, Width::W64, value);
    }

    fn delay(&self, duration: Duration) {
        if duration >= SLEEP {
            thread::sleep(duration);
            return;
        }
        let start = Instant::now();
        while start.elapsed() < duration {
            // The device's thread may need this processor.
            thread::yield_now();
        }
    }
}

struct ModelPlatform {
    /// Dropped in `drop`, before the arenas, so that it is gone when their memory goes; but not in a
    /// forked child, where there is no thread of its to join.
    device: ManuallyDrop<Device>,
    /// Who has the device.
    owner: Owner,
    bar: Bar,
    interrupts: Interrupts,
    /// What the device can reach.
    arenas: Mutex<Vec<Arena>>,
    next_iova: AtomicU64,
}

impl Drop for ModelPlatform {
    fn drop(&mut self) {
        if self.owner.is_here() {
            // SAFETY: dropped here and nowhere else, and not used afterwards.
            unsafe { ManuallyDrop::drop(&mut self.device) };
        }
    }
}

// SAFETY: `map` maps exactly the arena, at IOVAs that nothing else has, and keeps a handle that is
// dropped after the device.
unsafe impl Platform for ModelPlatform {
    fn map(&self, arena: &Arena) -> Result<u64, MapError> {
        if !self.owner.is_here() {
            return Err(MapError::System(io::ErrorKind::NotFound.into()));
        }
        let size = (arena.len() as u64).next_multiple_of(IOVA_GAP) + IOVA_GAP;
        // Relaxed: only the numbers must differ.
        let iova = self.next_iova.fetch_add(size, Ordering::Relaxed);
        let mut arenas = self.arenas.lock().unwrap_or_else(PoisonError::into_inner);
        arenas.push(arena.clone());
        // SAFETY: the handle just stored keeps the memory until the device has been dropped. The
        // driver's descriptors name only memory of operations in flight, and `Coherent` memory.
        let mapped = unsafe { self.bar.map(iova, arena.base().cast_mut(), arena.len()) };
        if mapped.is_err() {
            arenas.pop();
            return Err(MapError::IovaTaken { iova });
        }
        Ok(iova)
    }

    fn interrupts(&self) -> Interrupts {
        self.interrupts
    }

    fn vector(&self, vector: usize) -> Option<BorrowedFd<'_>> {
        self.bar.interrupt(vector)
    }

    fn unmask(&self) {
        // As an interrupt controller does it: a line that is still high interrupts again.
        if self.owner.is_here()
            && self.bar.intx()
            && let Some(vector) = self.bar.interrupt(0)
        {
            // It fails only if the counter is full, and then the file is readable already.
            let _ = rustix::io::write(vector, &1_u64.to_ne_bytes());
        }
    }

    // The model's MSI-X table is for others: its vectors are eventfds, which no reset takes away.

    fn config_read32(&self, offset: u16) -> u32 {
        let mut bytes = [0xff; 4];
        if self.owner.is_here() {
            self.bar.config_read(offset.into(), &mut bytes);
        }
        u32::from_le_bytes(bytes)
    }

    fn config_write32(&self, offset: u16, value: u32) {
        if self.owner.is_here() {
            self.bar.config_write(offset.into(), &value.to_le_bytes());
        }
    }

    fn cpu_time(&self) -> Option<Duration> {
        self.owner.is_here().then(|| self.device.cpu_time().ok())?
    }
}

#[cfg(test)]
mod tests {
    use dmaengine::{
        DmaBuf, Flags, Operation, Queue, Status,
        conformance::{self, in_child},
    };
    use ioat_model::Version;

    use super::*;

    #[test]
    fn copies_and_outlives_its_handle() {
        let device = open(Config::default(), Options::default()).expect("a thread");
        let arena = Arena::new(1 << 20).expect("memory");
        device.map(&arena).expect("room");
        device.map(&arena).expect("again is fine");
        assert_eq!(device.channels()[0].engine, NAME);
        assert!(device.cpu_time().is_some());
        let mut queue: Queue<DmaBuf, DmaBuf, ()> =
            Queue::new(device.request_channel(0).expect("free"));
        drop(device);
        let mut source = arena.alloc(100_000).expect("room");
        source.fill(7);
        let target = arena.alloc(100_000).expect("room");
        queue.copy(source, target, ()).expect("room");
        let mut copied = None;
        queue.wait(Duration::from_secs(20), |done| copied = Some(done)).expect("in time");
        let copied = copied.expect("one");
        assert_eq!(copied.status, Status::Success);
        assert!(copied.target.iter().all(|byte| *byte == 7));
    }

    #[test]
    fn every_version_is_an_engine() {
        for version in Version::ALL {
            println!("{version}");
            let model =
                ioat_model::Config { version, channels: 4, ..ioat_model::Config::default() };
            let config = Config { model, ..Config::default() };
            let device = open(config, Options::default()).expect("a thread");
            assert_eq!(device.channels().len(), 4);
            let arena = Arena::new(conformance::ARENA_LEN).expect("memory");
            conformance::device(&*device, &arena);
        }
    }

    #[test]
    fn a_forked_child_can_drop_it() {
        let device = open(Config::default(), Options::default()).expect("a thread");
        let arena = Arena::new(1 << 20).expect("memory");
        device.map(&arena).expect("room");
        let mut channel = device.request_channel(0).expect("free");
        // Long enough for the device to be at work, and to have its lock, when the child is forked.
        let (source, mut target) = (arena.alloc(1 << 18), arena.alloc(1 << 18));
        let (source, target) = (source.expect("room"), target.as_mut().expect("room"));
        let (source, target) = (source.as_ptr(), target.as_mut_ptr());
        for _ in 0..4 {
            let copy = Operation::Memcpy { source, target, len: 1 << 18 };
            // SAFETY: the buffers are used by nobody else until the channel has been stopped.
            unsafe { channel.submit(&copy, Flags::empty()) }.expect("room");
        }
        channel.issue_pending();
        let mut inherited = Some((channel, device));
        assert!(in_child(|| {
            let Some((channel, device)) = inherited.take() else { return false };
            let is_gone = device.cpu_time().is_none();
            drop((channel, device));
            is_gone
        }));
        let (mut channel, device) = inherited.expect("the child has another");
        channel.terminate_sync(Duration::from_secs(20)).expect("the device is here");
        assert!(device.cpu_time().is_some());
    }
}
