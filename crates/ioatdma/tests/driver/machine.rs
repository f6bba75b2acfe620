//! A machine with an I/OAT device in it: the model in a shell, and the arenas that it reaches.

use std::{
    os::fd::BorrowedFd,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use dmaengine::{Arena, Kind, MapError};
use ioat_model::{Config, Stepped, in_process, registers::Width};
use ioatdma::{Bar, IoatDevice, Options, Platform, ProbeError, Resources};

/// A shell around the model.
pub(crate) trait Shell: Send + Sync + 'static {
    fn new(config: Config) -> Self;
    fn read(&self, offset: u64, width: Width) -> u64;
    fn write(&self, offset: u64, width: Width, value: u64);
    fn interrupt(&self, channel: usize) -> Option<BorrowedFd<'_>>;
    /// # Safety
    ///
    /// The memory stays until the shell has been dropped.
    unsafe fn map(&self, iova: u64, memory: *mut u8, len: usize);
    /// Lets time pass.
    fn pass(&self, duration: Duration);
}

/// The model on its own thread.
pub(crate) struct Threaded {
    bar: in_process::Bar,
    /// Taken out to pull the device.
    pub(crate) device: Mutex<Option<in_process::Device>>,
}

impl Threaded {
    pub(crate) fn start(config: in_process::Config) -> Self {
        let device = in_process::Device::start(config).expect("a thread");
        Self { bar: device.bar(), device: Mutex::new(Some(device)) }
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

    fn interrupt(&self, channel: usize) -> Option<BorrowedFd<'_>> {
        self.bar.interrupt(channel)
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

    fn interrupt(&self, channel: usize) -> Option<BorrowedFd<'_>> {
        Self::interrupt(self, channel)
    }

    unsafe fn map(&self, iova: u64, memory: *mut u8, len: usize) {
        // SAFETY: the caller's promise.
        unsafe { Self::map(self, iova, memory, len) }.expect("aligned");
    }

    /// A descriptor a microsecond.
    fn pass(&self, duration: Duration) {
        for _ in 0..duration.as_micros() {
            if !self.step() {
                break;
            }
        }
    }
}

/// The machine: shell, arenas and their bus addresses.
pub(crate) struct Host<S> {
    // Before the arenas: the device is gone when their memory goes.
    pub(crate) shell: S,
    /// With the IOVA of the first byte.
    arenas: Mutex<Vec<(u64, Arena)>>,
    next_iova: AtomicU64,
}

impl<S: Shell> Host<S> {
    pub(crate) fn new(config: Config) -> Arc<Self> {
        Self::with_shell(S::new(config))
    }

    pub(crate) fn with_shell(shell: S) -> Arc<Self> {
        Arc::new(Self { shell, arenas: Mutex::default(), next_iova: AtomicU64::new(1 << 32) })
    }

    pub(crate) fn resources(self: &Arc<Self>) -> Resources {
        Resources {
            engine: "ioat-model".to_owned(),
            kind: Kind::Model,
            device_id: 0x2021,
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

    fn interrupt(&self, channel: usize) -> Option<BorrowedFd<'_>> {
        self.shell.interrupt(channel)
    }

    fn config_read32(&self, _: u16) -> u32 {
        0
    }

    fn config_write32(&self, _: u16, _: u32) {}
}

impl<S> std::fmt::Debug for Host<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host").finish_non_exhaustive()
    }
}
