//! A machine with an I/OAT device in it.

use std::{
    os::fd::BorrowedFd,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use dmaengine::{Arena, DmaBuf, DmaDevice, DmaSlice, Done, Kind, MapError, Queue, Status};
use ioat_model::{Config, Faults, Stepped, in_process, registers::Width};
use ioatdma::{Bar, IoatDevice, Options, Platform, ProbeError, Resources};

/// Descriptors that channel 0 has processed when its first owner gets it: the self test's start and
/// copy, and the owner's start.
pub(crate) const FIRST: u64 = 3;
/// The model's time, which a test waits for at most. Reaching it is a failure.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

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

impl Shell for Threaded {
    fn new(model: Config) -> Self {
        let config = in_process::Config { model, ..in_process::Config::default() };
        let device = in_process::Device::start(config).expect("a thread");
        Self { bar: device.bar(), device: Mutex::new(Some(device)) }
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
    arenas: Mutex<Vec<Arena>>,
    next_iova: AtomicU64,
}

impl<S: Shell> Host<S> {
    pub(crate) fn new(config: Config) -> Arc<Self> {
        Arc::new(Self {
            shell: S::new(config),
            arenas: Mutex::default(),
            next_iova: AtomicU64::new(1 << 32),
        })
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
        self.arenas.lock().expect("no panic").push(arena.clone());
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

/// What tests copy: parts of buffers, with a number.
pub(crate) type Copies = Queue<DmaSlice, DmaSlice, usize>;
pub(crate) type Ended = Done<DmaSlice, DmaSlice, usize>;

/// A device, an arena that it can reach, and a queue on channel 0.
pub(crate) struct Rig<S> {
    pub(crate) queue: Copies,
    pub(crate) arena: Arena,
    pub(crate) device: IoatDevice,
    pub(crate) host: Arc<Host<S>>,
}

impl<S: Shell> Rig<S> {
    pub(crate) fn new(config: Config, options: Options) -> Self {
        let host = Host::new(config);
        let device = host.probe(options).expect("a good device");
        let arena = Arena::new(4 << 20).expect("memory");
        device.map(&arena).expect("room");
        let queue = Queue::new(device.request_channel(0).expect("free"));
        Self { queue, arena, device, host }
    }

    pub(crate) fn with_faults(faults: Faults) -> Self {
        Self::new(Config { faults, ..Config::default() }, Options::default())
    }

    pub(crate) fn buffer(&self, len: usize, byte: u8) -> DmaBuf {
        let mut buffer = self.arena.alloc(len).expect("room");
        buffer.fill(byte);
        buffer
    }

    /// Submits a copy of `len` bytes of value `number + 1` over zeros, with guard bytes around.
    pub(crate) fn submit(&mut self, number: usize, len: usize) {
        let source = self.buffer(len, number as u8 + 1).slice(0..len);
        let target = self.buffer(len + 2, 0).slice(1..len + 1);
        self.queue.copy(source, target, number).expect("room in the ring");
    }

    /// Polls until `count` operations have ended.
    pub(crate) fn wait_for(&mut self, count: usize) -> Vec<Ended> {
        let mut ended = Vec::new();
        let start = Instant::now();
        while ended.len() < count {
            self.queue.poll(|done| ended.push(done));
            self.host.delay(Duration::from_micros(1));
            assert!(start.elapsed() < DEADLINE, "{} of {count} ended", ended.len());
        }
        ended
    }

    /// Copies something and expects it to arrive.
    pub(crate) fn works(&mut self) {
        self.submit(100, 10_000);
        self.queue.issue_pending();
        let ended = self.wait_for(1);
        check(&ended[0], Status::Success);
    }
}

/// Checks a copy made by [`Rig::submit`]: number, status and every byte.
pub(crate) fn check(done: &Ended, status: Status) {
    assert_eq!(done.status, status, "operation {}", done.tag);
    let byte = done.tag as u8 + 1;
    assert!(done.source.as_ref().iter().all(|value| *value == byte), "the source is unchanged");
    let target = done.target.as_ref();
    match status {
        Status::Success => {
            assert_eq!(done.bytes, target.len());
            assert!(target.iter().all(|value| *value == byte), "operation {}", done.tag);
        }
        _ => {
            assert_eq!(done.bytes, 0);
            assert!(target.iter().all(|value| [0, byte].contains(value)));
        }
    }
}

/// Numbers that look random and are the same in every run (`SplitMix64`).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`.
    pub(crate) const fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    pub(crate) fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let word = self.next().to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
    }
}

impl<S> std::fmt::Debug for Host<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host").finish_non_exhaustive()
    }
}
