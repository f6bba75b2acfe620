//! The device on a thread of this process.
//!
//! ```text
//!   driver's thread                             device's thread ("ioat-model")
//!   ---------------                             ------------------------------
//!   DMACOUNT write --> doorbell (an atomic) --> fetch  \
//!   other registers -> [ lock: Model ] <------- retire / one short lock per descriptor
//!                                               bytes move outside the lock
//!   eventfd of the channel <------------------- interrupt
//! ```
//!
//! Doorbells are posted, as PCI Express writes are: they cost the driver a store, and a system call
//! only if the device sleeps. Any other access first delivers the doorbells before it, as a read on
//! the bus pushes posted writes ahead of it.

use std::{
    fmt, io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    os::unix::thread::JoinHandleExt,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence},
    },
    thread::{self, JoinHandle, Thread},
    time::{Duration, Instant},
};

use rustix::{
    event::{EventfdFlags, eventfd},
    thread::sched_getcpu,
};

use crate::{
    Fault,
    address_space::{AddressSpace, MapError},
    model::{self, Model},
    registers::{BAR_SIZE, CHANNEL_BLOCK, Width, channel::DMACOUNT},
};

/// How to run the device.
#[derive(Clone, Debug)]
pub struct Config {
    /// What device to be.
    pub model: model::Config,
    /// How long the device's thread looks for a doorbell before it sleeps. Longer saves the driver
    /// wake-ups (a system call each), and costs a processor meanwhile.
    pub spin: Duration,
}

impl Default for Config {
    fn default() -> Self {
        // The time between two super-frames of a stream of 10 Gbit/s.
        Self { model: model::Config::default(), spin: Duration::from_micros(50) }
    }
}

/// A device, running until it is dropped.
///
/// After that it is as if pulled out of its slot: reads of its [`Bar`] give all ones, writes are
/// ignored, and it touches no memory.
#[derive(Debug)]
pub struct Device {
    bar: Bar,
    thread: Option<JoinHandle<()>>,
}

/// What a driver sees of the device. Cheap to clone; any thread may use it.
#[derive(Clone)]
pub struct Bar {
    shared: Arc<Shared>,
    thread: Thread,
}

struct Shared {
    model: Mutex<Model>,
    /// Where the model's time begins.
    started: Instant,
    /// A posted DMACOUNT write per channel: [`POSTED`] and the value, or 0.
    doorbells: Vec<AtomicU32>,
    /// Register writes may have given the device work, or it shall stop.
    kick: AtomicBool,
    /// The device's thread is about to sleep, or does.
    sleeping: AtomicBool,
    /// The processor of the thread that woke the device last.
    waker_cpu: AtomicUsize,
    /// The thread has been told to end, or has ended.
    stopped: AtomicBool,
    mappings: Mutex<Mappings>,
    /// Counts changes of the mappings, so that the device need not lock to see that there are none.
    version: AtomicU64,
    /// Signalled when the device has taken over the mappings.
    adopted: Condvar,
    interrupts: Vec<OwnedFd>,
}

/// Marks a doorbell that was not yet delivered.
const POSTED: u32 = 1 << 16;

struct Mappings {
    current: Arc<AddressSpace>,
    version: u64,
    /// The version that the device uses; `u64::MAX` once it has ended.
    adopted: u64,
}

impl Device {
    /// Starts a device, and does [`Model::enable`].
    ///
    /// # Errors
    ///
    /// When the system refuses an eventfd or a thread.
    pub fn start(config: Config) -> io::Result<Self> {
        let Config { model, spin } = config;
        let mut model = Model::new(model);
        model.enable();
        let channels = model.channels();
        let interrupts = (0..channels)
            .map(|_| eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK))
            .collect::<Result<Vec<_>, _>>()?;
        let shared = Arc::new(Shared {
            model: Mutex::new(model),
            started: Instant::now(),
            doorbells: (0..channels).map(|_| AtomicU32::new(0)).collect(),
            kick: AtomicBool::new(false),
            sleeping: AtomicBool::new(false),
            waker_cpu: AtomicUsize::new(usize::MAX),
            stopped: AtomicBool::new(false),
            mappings: Mutex::new(Mappings { current: Arc::default(), version: 0, adopted: 0 }),
            version: AtomicU64::new(0),
            adopted: Condvar::new(),
            interrupts,
        });
        let device = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("ioat-model".to_owned())
            .spawn(move || Engine::new(device, spin).run())?;
        let bar = Bar { shared, thread: thread.thread().clone() };
        Ok(Self { bar, thread: Some(thread) })
    }

    /// The registers, interrupts and mappings.
    #[must_use]
    pub fn bar(&self) -> Bar {
        self.bar.clone()
    }

    /// Processor time that the device's thread has used.
    ///
    /// # Errors
    ///
    /// When the system refuses to tell.
    pub fn cpu_time(&self) -> io::Result<Duration> {
        let Some(thread) = &self.thread else { return Ok(Duration::ZERO) };
        let mut clock = 0;
        // SAFETY: the thread has not been joined (that happens in `drop` only), so its handle is
        // valid; `clock` is valid for a write.
        let error = unsafe { libc::pthread_getcpuclockid(thread.as_pthread_t(), &raw mut clock) };
        if error != 0 {
            return Err(io::Error::from_raw_os_error(error));
        }
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: `time` is valid for a write.
        if unsafe { libc::clock_gettime(clock, &raw mut time) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32))
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // Release: pairs with the acquire of `Engine::run`; nothing is published by it.
        self.bar.shared.stopped.store(true, Ordering::Release);
        self.bar.kick();
        if let Some(thread) = self.thread.take() {
            // The thread does not panic; if it did, it has ended all the same.
            let _ = thread.join();
        }
    }
}

impl Bar {
    /// A register read; see [`Model`] for the widths. All ones once the device is gone.
    #[must_use]
    pub fn read(&self, offset: u64, width: Width) -> u64 {
        if self.is_gone() || offset >= BAR_SIZE {
            return u64::MAX;
        }
        let mut model = self.shared.lock_model_now();
        let delivered = self.shared.deliver_doorbells(&mut model);
        let value = model.mmio_read(offset, width);
        drop(model);
        if delivered {
            self.kick();
        }
        value
    }

    /// A register write. DMACOUNT is posted: it takes no lock, and a system call only if the device
    /// sleeps.
    pub fn write(&self, offset: u64, width: Width, value: u64) {
        let Some(doorbell) = self.doorbell(offset, width) else {
            self.write_through(offset, width, value);
            return;
        };
        // Release: the device, which takes it with acquire, sees the descriptors written before.
        doorbell.store(POSTED | u32::from(value as u16), Ordering::Release);
        self.wake();
    }

    /// A register write that the device sees before this returns. Apart, to keep the doorbell's way
    /// short.
    #[inline(never)]
    fn write_through(&self, offset: u64, width: Width, value: u64) {
        if self.is_gone() {
            return;
        }
        let mut model = self.shared.lock_model_now();
        self.shared.deliver_doorbells(&mut model);
        model.mmio_write(offset, width, value);
        let interrupts = model.take_interrupts();
        drop(model);
        self.shared.send(interrupts);
        self.kick();
    }

    /// Reads bytes of configuration space; see [`ConfigSpace`](crate::ConfigSpace). All ones once the
    /// device is gone.
    pub fn config_read(&self, offset: u64, bytes: &mut [u8]) {
        if self.is_gone() {
            bytes.fill(u8::MAX);
            return;
        }
        self.shared.lock_model().config_read(offset, bytes);
    }

    /// Writes bytes of configuration space.
    pub fn config_write(&self, offset: u64, bytes: &[u8]) {
        if self.is_gone() {
            return;
        }
        let mut model = self.shared.lock_model_now();
        self.shared.deliver_doorbells(&mut model);
        model.config_write(offset, bytes);
        let interrupts = model.take_interrupts();
        drop(model);
        self.shared.send(interrupts);
        self.kick();
    }

    /// Orders a fault; see [`Model::order`].
    pub fn order(&self, channel: usize, fault: Fault) {
        self.shared.lock_model().order(channel, fault);
    }

    /// The level of INTA; see [`Model::intx`].
    #[must_use]
    pub fn intx(&self) -> bool {
        !self.is_gone() && self.shared.lock_model().intx()
    }

    /// The eventfd that counts what is sent by `vector`; `None` if there is no such vector. There is
    /// one for each channel; with MSI and INTA only vector 0 is used.
    #[must_use]
    pub fn interrupt(&self, vector: usize) -> Option<BorrowedFd<'_>> {
        self.shared.interrupts.get(vector).map(AsFd::as_fd)
    }

    /// Lets the device reach `len` bytes at `memory` under the bus addresses from `iova` on.
    ///
    /// # Errors
    ///
    /// [`MapError`]; nothing was mapped.
    ///
    /// # Safety
    ///
    /// Until [`unmap`](Self::unmap) has returned, or the [`Device`] has been dropped, the memory
    /// stays valid for reads and writes. Whoever programs the device sees to it that no Rust
    /// reference contradicts what a descriptor reads or writes while it is worked on.
    pub unsafe fn map(&self, iova: u64, memory: *mut u8, len: usize) -> Result<(), MapError> {
        let mut mappings = self.shared.lock_mappings();
        let mut changed = (*mappings.current).clone();
        // SAFETY: the caller's promise; `unmap` returns only when no copy with the region in it is
        // in use any more.
        unsafe { changed.map(iova, memory, len) }?;
        self.shared.publish(&mut mappings, changed);
        Ok(())
    }

    /// Takes the region that was mapped at `iova` from the device, and waits until the device uses
    /// it no more. `false` if nothing was mapped there.
    #[must_use]
    pub fn unmap(&self, iova: u64) -> bool {
        let mut mappings = self.shared.lock_mappings();
        let mut changed = (*mappings.current).clone();
        if !changed.unmap(iova) {
            return false;
        }
        self.shared.publish(&mut mappings, changed);
        let version = mappings.version;
        self.wake();
        while mappings.adopted < version {
            mappings = self.shared.adopted.wait(mappings).unwrap_or_else(PoisonError::into_inner);
        }
        true
    }

    fn is_gone(&self) -> bool {
        // Acquire: pairs with the release in `drop`; nothing is published by it.
        self.shared.stopped.load(Ordering::Acquire)
    }

    fn doorbell(&self, offset: u64, width: Width) -> Option<&AtomicU32> {
        if width != Width::W16 || offset % CHANNEL_BLOCK != DMACOUNT {
            return None;
        }
        let index = (offset / CHANNEL_BLOCK).checked_sub(1)?;
        self.shared.doorbells.get(usize::try_from(index).ok()?)
    }

    /// Makes the device look at its registers.
    fn kick(&self) {
        // Release: pairs with the acquire of the thread's swap.
        self.shared.kick.store(true, Ordering::Release);
        self.wake();
    }

    /// Wakes the device if it sleeps or is about to.
    fn wake(&self) {
        // SeqCst, with the fence in `Engine::sleep`: either this thread sees `sleeping`, or the
        // device sees the doorbell, kick or mapping that was stored before. Never neither.
        fence(Ordering::SeqCst);
        // Relaxed: the fence orders it.
        if self.shared.sleeping.load(Ordering::Relaxed) {
            self.unpark();
        }
    }

    #[cold]
    fn unpark(&self) {
        // Relaxed: a hint.
        self.shared.waker_cpu.store(sched_getcpu(), Ordering::Relaxed);
        self.thread.unpark();
    }
}

impl fmt::Debug for Bar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bar").field("channels", &self.shared.doorbells.len()).finish()
    }
}

impl Shared {
    fn lock_model(&self) -> MutexGuard<'_, Model> {
        // The model does not panic; were it to, its registers would still be plain values.
        self.model.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The model, and it knows the time if it needs it.
    fn lock_model_now(&self) -> MutexGuard<'_, Model> {
        let mut model = self.lock_model();
        if model.needs_time() {
            model.set_time(self.started.elapsed());
        }
        model
    }

    fn lock_mappings(&self) -> MutexGuard<'_, Mappings> {
        self.mappings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Passes posted DMACOUNT writes on; whether there were any. A driver's thread that took one
    /// must kick the device, which may have been woken by it and finds it gone.
    fn deliver_doorbells(&self, model: &mut Model) -> bool {
        let mut delivered = false;
        let mut offset = DMACOUNT;
        for doorbell in &self.doorbells {
            offset += CHANNEL_BLOCK;
            // Relaxed: only a hint whether the swap, which is dearer, is worth it.
            if doorbell.load(Ordering::Relaxed) == 0 {
                continue;
            }
            // Acquire: pairs with the release of the posted write. Several posted writes merge into
            // the last, which counts for all.
            let posted = doorbell.swap(0, Ordering::Acquire);
            if posted & POSTED != 0 {
                model.mmio_write(offset, Width::W16, (posted & !POSTED).into());
                delivered = true;
            }
        }
        delivered
    }

    fn publish(&self, mappings: &mut Mappings, changed: AddressSpace) {
        mappings.current = Arc::new(changed);
        mappings.version += 1;
        // Release: who sees the version finds the mappings (it then locks anyway).
        self.version.store(mappings.version, Ordering::Release);
    }

    /// Counts the vectors whose bits are set.
    fn send(&self, vectors: u32) {
        for (index, interrupt) in self.interrupts.iter().enumerate() {
            if vectors & 1 << index != 0 {
                // It fails only if the counter is full, and then the file is readable already.
                let _ = rustix::io::write(interrupt, &1_u64.to_ne_bytes());
            }
        }
    }
}

/// The device's thread.
struct Engine {
    shared: Arc<Shared>,
    spin: Duration,
    space: Arc<AddressSpace>,
    version: u64,
}

impl Engine {
    fn new(shared: Arc<Shared>, spin: Duration) -> Self {
        Self { shared, spin, space: Arc::default(), version: 0 }
    }

    fn run(mut self) {
        // Acquire: pairs with `Device::drop`.
        while !self.shared.stopped.load(Ordering::Acquire) {
            let deadline = self.work();
            if !self.spin(deadline) {
                self.sleep(deadline);
            }
        }
        let mut mappings = self.shared.lock_mappings();
        mappings.adopted = u64::MAX;
        self.shared.adopted.notify_all();
    }

    /// Works on descriptors until there are none. When there is something to do again, if nothing
    /// comes.
    fn work(&mut self) -> Option<Instant> {
        // Acquire: register writes before the kick are seen under the lock below.
        self.shared.kick.swap(false, Ordering::Acquire);
        let shared = Arc::clone(&self.shared);
        let mut ended = None;
        loop {
            let mut model = shared.lock_model_now();
            shared.deliver_doorbells(&mut model);
            // After the doorbells: memory that was mapped before a doorbell is seen with it.
            self.adopt_mappings();
            let mut memory = &*self.space;
            if let Some((channel, performed)) = ended.take() {
                model.retire(channel, performed, &mut memory);
            }
            model.advance(&mut memory);
            let fetched = model.fetch(&mut memory);
            let interrupts = model.take_interrupts();
            let deadline = model.next_deadline();
            drop(model);
            if interrupts != 0 {
                shared.send(interrupts);
            }
            let Some((channel, operation)) = fetched else {
                return deadline.and_then(|deadline| shared.started.checked_add(deadline));
            };
            ended = Some((channel, operation.perform(&mut memory)));
            // Acquire: pairs with `Device::drop`.
            if shared.stopped.load(Ordering::Acquire) {
                return None;
            }
        }
    }

    /// Takes over changed mappings. Between two descriptors, so none of them is in use.
    fn adopt_mappings(&mut self) {
        // Acquire: pairs with `publish`.
        if self.shared.version.load(Ordering::Acquire) == self.version {
            return;
        }
        let mut mappings = self.shared.lock_mappings();
        self.space = Arc::clone(&mappings.current);
        self.version = mappings.version;
        mappings.adopted = mappings.version;
        self.shared.adopted.notify_all();
    }

    /// Whether something has come for the device to do.
    fn has_mail(&self) -> bool {
        let shared = &*self.shared;
        // Relaxed, all of them: only whether to look; `work` and `run` look with acquire.
        shared.doorbells.iter().any(|doorbell| doorbell.load(Ordering::Relaxed) != 0)
            || shared.kick.load(Ordering::Relaxed)
            || shared.version.load(Ordering::Relaxed) != self.version
            || shared.stopped.load(Ordering::Relaxed)
    }

    /// Looks for work for a while; whether it has come, or the deadline has. Not on the processor of
    /// the driver, who could not go on meanwhile.
    fn spin(&self, deadline: Option<Instant>) -> bool {
        // Relaxed: a hint.
        if self.shared.waker_cpu.load(Ordering::Relaxed) == sched_getcpu() {
            return self.has_mail();
        }
        let start = Instant::now();
        loop {
            if self.has_mail() {
                return true;
            }
            let now = Instant::now();
            if deadline.is_some_and(|deadline| deadline <= now) {
                return true;
            }
            if now.duration_since(start) >= self.spin {
                return false;
            }
            std::hint::spin_loop();
        }
    }

    fn sleep(&self, deadline: Option<Instant>) {
        // Relaxed: the fence orders it.
        self.shared.sleeping.store(true, Ordering::Relaxed);
        // SeqCst: see `Bar::wake`.
        fence(Ordering::SeqCst);
        while !self.has_mail() {
            // May return early; the condition is looked at again.
            match deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())) {
                None => thread::park(),
                Some(left) if left.is_zero() => break,
                Some(left) => thread::park_timeout(left),
            }
        }
        // Relaxed: a writer that still sees `true` unparks once too often, which is harmless.
        self.shared.sleeping.store(false, Ordering::Relaxed);
    }
}
