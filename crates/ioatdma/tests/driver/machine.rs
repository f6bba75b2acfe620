//! A machine with an I/OAT device in it: the model in a shell, and the arenas that it reaches.

use std::{
    os::fd::BorrowedFd,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use dmaengine::{Arena, DmaDevice, Kind, MapError};
use ioat_model::{
    Config, InterruptStyle, Stepped, in_process,
    registers::{BAR_SIZE, Width},
};
use ioatdma::{Bar, Interrupts, IoatDevice, Options, Platform, ProbeError, Resources, pci};

const MICROSECOND: Duration = Duration::from_micros(1);

/// A shell around the model.
pub(crate) trait Shell: Send + Sync + 'static {
    fn new(config: Config) -> Self;
    fn read(&self, offset: u64, width: Width) -> u64;
    fn write(&self, offset: u64, width: Width, value: u64);
    fn interrupt(&self, vector: usize) -> Option<BorrowedFd<'_>>;
    fn intx(&self) -> bool;
    fn config_read(&self, offset: u64, bytes: &mut [u8]);
    fn config_write(&self, offset: u64, bytes: &[u8]);
    /// # Safety
    ///
    /// The memory stays until the shell has been dropped.
    unsafe fn map(&self, iova: u64, memory: *mut u8, len: usize);
    /// Lets time pass.
    fn pass(&self, duration: Duration);
    /// The time.
    fn now(&self) -> Duration;
}

/// The model on its own thread.
pub(crate) struct Threaded {
    bar: in_process::Bar,
    started: Instant,
    /// Taken out to pull the device.
    pub(crate) device: Mutex<Option<in_process::Device>>,
}

impl Threaded {
    pub(crate) fn start(config: in_process::Config) -> Self {
        let device = in_process::Device::start(config).expect("a thread");
        let (bar, started) = (device.bar(), Instant::now());
        Self { bar, started, device: Mutex::new(Some(device)) }
    }
}

impl Shell for Threaded {
    fn new(model: Config) -> Self {
        Self::start(in_process::Config { model, ..in_process::Config::default() })
    }

    fn read(&self, offset: u64, width: Width) -> u64 {
        self.bar.read(offset, width)
    }

    fn write(&self, offset: u64, width: Width, value: u64) {
        self.bar.write(offset, width, value);
    }

    fn interrupt(&self, vector: usize) -> Option<BorrowedFd<'_>> {
        self.bar.interrupt(vector)
    }

    fn intx(&self) -> bool {
        self.bar.intx()
    }

    fn config_read(&self, offset: u64, bytes: &mut [u8]) {
        self.bar.config_read(offset, bytes);
    }

    fn config_write(&self, offset: u64, bytes: &[u8]) {
        self.bar.config_write(offset, bytes);
    }

    unsafe fn map(&self, iova: u64, memory: *mut u8, len: usize) {
        // SAFETY: the caller's promise.
        unsafe { self.bar.map(iova, memory, len) }.expect("aligned");
    }

    fn pass(&self, duration: Duration) {
        let start = Instant::now();
        while start.elapsed() < duration {
            std::thread::yield_now();
        }
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }
}

impl Shell for Stepped {
    fn new(config: Config) -> Self {
        Self::new(config).expect("eventfd")
    }

    fn read(&self, offset: u64, width: Width) -> u64 {
        Self::read(self, offset, width)
    }

    fn write(&self, offset: u64, width: Width, value: u64) {
        Self::write(self, offset, width, value);
    }

    fn interrupt(&self, vector: usize) -> Option<BorrowedFd<'_>> {
        Self::interrupt(self, vector)
    }

    fn intx(&self) -> bool {
        Self::intx(self)
    }

    fn config_read(&self, offset: u64, bytes: &mut [u8]) {
        Self::config_read(self, offset, bytes);
    }

    fn config_write(&self, offset: u64, bytes: &[u8]) {
        Self::config_write(self, offset, bytes);
    }

    unsafe fn map(&self, iova: u64, memory: *mut u8, len: usize) {
        // SAFETY: the caller's promise.
        unsafe { Self::map(self, iova, memory, len) }.expect("aligned");
    }

    /// A descriptor a microsecond.
    fn pass(&self, duration: Duration) {
        let mut left = duration;
        while left >= MICROSECOND && self.step() {
            Self::pass(self, MICROSECOND);
            left -= MICROSECOND;
        }
        Self::pass(self, left);
    }

    fn now(&self) -> Duration {
        Self::now(self)
    }
}

/// A stepped model that counts its descriptors.
pub(crate) struct Counted {
    stepped: Stepped,
    steps: AtomicU64,
}

impl Counted {
    /// How many descriptors of channel 0 a device like this has processed when its first owner gets
    /// it: those of the self test, and the owner's start. Faults are ordered by that.
    pub(crate) fn first(config: &Config) -> u64 {
        let faults = ioat_model::Faults::none();
        let host = Host::<Self>::new(Config { faults, ..config.clone() });
        let device = host.probe(Options::default()).expect("a good device");
        let _channel = device.request_channel(0).expect("free");
        host.shell.steps.load(Ordering::Relaxed)
    }
}

impl Shell for Counted {
    fn new(config: Config) -> Self {
        let stepped = Stepped::new(config).expect("eventfd");
        Self { stepped, steps: AtomicU64::new(0) }
    }

    fn read(&self, offset: u64, width: Width) -> u64 {
        self.stepped.read(offset, width)
    }

    fn write(&self, offset: u64, width: Width, value: u64) {
        self.stepped.write(offset, width, value);
    }

    fn interrupt(&self, vector: usize) -> Option<BorrowedFd<'_>> {
        self.stepped.interrupt(vector)
    }

    fn intx(&self) -> bool {
        self.stepped.intx()
    }

    fn config_read(&self, offset: u64, bytes: &mut [u8]) {
        self.stepped.config_read(offset, bytes);
    }

    fn config_write(&self, offset: u64, bytes: &[u8]) {
        self.stepped.config_write(offset, bytes);
    }

    unsafe fn map(&self, iova: u64, memory: *mut u8, len: usize) {
        // SAFETY: the caller's promise.
        unsafe { self.stepped.map(iova, memory, len) }.expect("aligned");
    }

    fn pass(&self, duration: Duration) {
        while self.stepped.step() {
            self.steps.fetch_add(1, Ordering::Relaxed);
        }
        self.stepped.pass(duration);
    }

    fn now(&self) -> Duration {
        self.stepped.now()
    }
}

/// The machine: shell, arenas and their bus addresses.
pub(crate) struct Host<S> {
    // Before the arenas: the device is gone when their memory goes.
    pub(crate) shell: S,
    /// With the IOVA of the first byte.
    arenas: Mutex<Vec<(u64, Arena)>>,
    next_iova: AtomicU64,
    pub(crate) interrupts: Interrupts,
    /// The PCI function's id, from configuration space.
    pub(crate) id: pci::Id,
    /// How often the vectors were set up anew.
    pub(crate) restored: AtomicUsize,
}

impl<S: Shell> Host<S> {
    pub(crate) fn new(config: Config) -> Arc<Self> {
        let interrupts = match config.interrupts {
            InterruptStyle::Msix => Interrupts::MsiX { vectors: config.channels.into() },
            InterruptStyle::Msi => Interrupts::Msi,
            InterruptStyle::Intx => Interrupts::Intx,
        };
        Self::with_shell(S::new(config), interrupts)
    }

    pub(crate) fn with_shell(shell: S, interrupts: Interrupts) -> Arc<Self> {
        let mut ids = [0; 4];
        shell.config_read(0, &mut ids);
        let [vendor, device] = [[ids[0], ids[1]], [ids[2], ids[3]]].map(u16::from_le_bytes);
        Arc::new(Self {
            shell,
            arenas: Mutex::default(),
            next_iova: AtomicU64::new(1 << 32),
            interrupts,
            id: pci::Id { vendor, device },
            restored: AtomicUsize::new(0),
        })
    }

    pub(crate) fn resources(self: &Arc<Self>) -> Resources {
        Resources {
            engine: "ioat-model".to_owned(),
            kind: Kind::Model,
            id: self.id,
            numa_node: None,
            bar: Arc::clone(self) as _,
            platform: Arc::clone(self) as _,
        }
    }

    pub(crate) fn probe(self: &Arc<Self>, options: Options) -> Result<IoatDevice, ProbeError> {
        IoatDevice::probe(self.resources(), options)
    }
}

impl<S> Host<S> {
    /// The process address of the memory at `iova`.
    pub(crate) fn memory(&self, iova: u64) -> *mut u8 {
        let arenas = self.arenas.lock().expect("no panic");
        let place = arenas.iter().find_map(|(first, arena)| {
            let offset = iova.checked_sub(*first).filter(|offset| *offset < arena.len() as u64)?;
            Some(arena.base().cast_mut().wrapping_add(offset as usize))
        });
        place.expect("an IOVA of an arena")
    }
}

impl<S: Shell> Bar for Host<S> {
    fn size(&self) -> u64 {
        BAR_SIZE
    }
    fn read8(&self, offset: u64) -> u8 {
        self.shell.read(offset, Width::W8) as u8
    }
    fn read16(&self, offset: u64) -> u16 {
        self.shell.read(offset, Width::W16) as u16
    }
    fn read32(&self, offset: u64) -> u32 {
        self.shell.read(offset, Width::W32) as u32
    }
    fn read64(&self, offset: u64) -> u64 {
        self.shell.read(offset, Width::W64)
    }
    fn write8(&self, offset: u64, value: u8) {
        self.shell.write(offset, Width::W8, value.into());
    }
    fn write16(&self, offset: u64, value: u16) {
        self.shell.write(offset, Width::W16, value.into());
    }
    fn write32(&self, offset: u64, value: u32) {
        self.shell.write(offset, Width::W32, value.into());
    }
    fn write64(&self, offset: u64, value: u64) {
        self.shell.write(offset, Width::W64, value);
    }
    fn delay(&self, duration: Duration) {
        self.shell.pass(duration);
    }
    fn now(&self) -> Duration {
        self.shell.now()
    }
}

// SAFETY: `map` maps the arena at IOVAs of its own and keeps a handle, which is dropped after the
// shell.
unsafe impl<S: Shell> Platform for Host<S> {
    fn map(&self, arena: &Arena) -> Result<u64, MapError> {
        // Gaps between the arenas, so that running past one's end shows.
        let size = arena.len().next_multiple_of(1 << 21) as u64 + (1 << 21);
        let iova = self.next_iova.fetch_add(size, Ordering::Relaxed);
        self.arenas.lock().expect("no panic").push((iova, arena.clone()));
        // SAFETY: the handle just stored is dropped after the shell.
        unsafe { self.shell.map(iova, arena.base().cast_mut(), arena.len()) };
        Ok(iova)
    }

    fn interrupts(&self) -> Interrupts {
        self.interrupts
    }

    fn vector(&self, vector: usize) -> Option<BorrowedFd<'_>> {
        self.shell.interrupt(vector)
    }

    /// As VFIO does it: if the line is still high, it interrupts again.
    fn unmask(&self) {
        if self.shell.intx()
            && let Some(vector) = self.shell.interrupt(0)
        {
            rustix::io::write(vector, &1_u64.to_ne_bytes()).expect("the counter is not full");
        }
    }

    fn restore_vectors(&self) {
        self.restored.fetch_add(1, Ordering::Relaxed);
    }

    fn config_read32(&self, offset: u16) -> u32 {
        let mut bytes = [0; 4];
        self.shell.config_read(offset.into(), &mut bytes);
        u32::from_le_bytes(bytes)
    }

    fn config_write32(&self, offset: u16, value: u32) {
        self.shell.config_write(offset.into(), &value.to_le_bytes());
    }
}

impl<S> std::fmt::Debug for Host<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host").finish_non_exhaustive()
    }
}
