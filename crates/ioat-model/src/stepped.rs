//! The device without a thread: it works when it is told to, so a test decides what happens when.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rustix::event::{EventfdFlags, eventfd};

use crate::{
    Fault,
    address_space::{AddressSpace, MapError},
    model::{Config, Model},
    registers::Width,
};

/// A device that processes a descriptor when [`step`](Self::step) is called. Any thread may use it.
#[derive(Debug)]
pub struct Stepped {
    inner: Mutex<Inner>,
    interrupts: Vec<OwnedFd>,
}

#[derive(Debug)]
struct Inner {
    model: Model,
    space: AddressSpace,
    now: Duration,
}

impl Stepped {
    /// A device after power-up, and after [`Model::enable`].
    ///
    /// # Errors
    ///
    /// When the system refuses an eventfd.
    pub fn new(config: Config) -> io::Result<Self> {
        let mut model = Model::new(config);
        model.enable();
        let interrupts = (0..model.channels())
            .map(|_| eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK))
            .collect::<Result<Vec<_>, _>>()?;
        let inner =
            Mutex::new(Inner { model, space: AddressSpace::default(), now: Duration::ZERO });
        Ok(Self { inner, interrupts })
    }

    /// Processes one descriptor; `false` if there is none.
    pub fn step(&self) -> bool {
        let mut inner = self.lock();
        let Inner { model, space, .. } = &mut *inner;
        let mut memory = &*space;
        let fetched = model.fetch(&mut memory);
        let any = fetched.is_some();
        if let Some((channel, operation)) = fetched {
            let performed = operation.perform(&mut memory);
            model.retire(channel, performed, &mut memory);
        }
        self.send(model.take_interrupts());
        any
    }

    /// Lets time pass; it passes in no other way. What is due meanwhile happens, but no descriptor is
    /// processed.
    pub fn pass(&self, time: Duration) {
        let mut inner = self.lock();
        let Inner { model, space, now } = &mut *inner;
        *now = now.saturating_add(time);
        model.set_time(*now);
        model.advance(&mut &*space);
        self.send(model.take_interrupts());
    }

    /// The time that has [passed](Self::pass).
    #[must_use]
    pub fn now(&self) -> Duration {
        self.lock().now
    }

    /// How long it takes until something is due; `None`: nothing is.
    #[must_use]
    pub fn until_deadline(&self) -> Option<Duration> {
        let inner = self.lock();
        inner.model.next_deadline().map(|deadline| deadline.saturating_sub(inner.now))
    }

    /// Takes the device off the bus; see [`Model::vanish`].
    pub fn vanish(&self) {
        self.lock().model.vanish();
    }

    /// Orders a fault; see [`Model::order`].
    pub fn order(&self, channel: usize, fault: Fault) {
        self.lock().model.order(channel, fault);
    }

    /// A register read; see [`Model`] for the widths.
    #[must_use]
    pub fn read(&self, offset: u64, width: Width) -> u64 {
        self.lock().model.mmio_read(offset, width)
    }

    /// A register write.
    pub fn write(&self, offset: u64, width: Width, value: u64) {
        let mut inner = self.lock();
        inner.model.mmio_write(offset, width, value);
        self.send(inner.model.take_interrupts());
    }

    /// Reads bytes of configuration space; see [`ConfigSpace`](crate::ConfigSpace).
    pub fn config_read(&self, offset: u64, bytes: &mut [u8]) {
        self.lock().model.config_read(offset, bytes);
    }

    /// Writes bytes of configuration space.
    pub fn config_write(&self, offset: u64, bytes: &[u8]) {
        let mut inner = self.lock();
        inner.model.config_write(offset, bytes);
        self.send(inner.model.take_interrupts());
    }

    /// The level of INTA; see [`Model::intx`].
    #[must_use]
    pub fn intx(&self) -> bool {
        self.lock().model.intx()
    }

    /// The eventfd that counts what is sent by `vector`; `None` if there is no such vector. There is
    /// one for each channel; with MSI and INTA only vector 0 is used.
    #[must_use]
    pub fn interrupt(&self, vector: usize) -> Option<BorrowedFd<'_>> {
        self.interrupts.get(vector).map(AsFd::as_fd)
    }

    /// Lets the device reach `len` bytes at `memory` under the bus addresses from `iova` on.
    ///
    /// # Errors
    ///
    /// [`MapError`]; nothing was mapped.
    ///
    /// # Safety
    ///
    /// Until [`unmap`](Self::unmap) has returned, or this value has been dropped, the memory stays
    /// valid for reads and writes. Whoever programs the device sees to it that no Rust reference
    /// contradicts what a descriptor reads or writes while it is worked on.
    pub unsafe fn map(&self, iova: u64, memory: *mut u8, len: usize) -> Result<(), MapError> {
        // SAFETY: the caller's promise.
        unsafe { self.lock().space.map(iova, memory, len) }
    }

    /// Takes the region that was mapped at `iova` from the device. `false` if there is none.
    #[must_use]
    pub fn unmap(&self, iova: u64) -> bool {
        self.lock().space.unmap(iova)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // The model does not panic; were it to, its registers would still be plain values.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send(&self, vectors: u32) {
        for (index, interrupt) in self.interrupts.iter().enumerate() {
            if vectors & 1 << index != 0 {
                // It fails only if the counter is full, and then the file is readable already.
                let _ = rustix::io::write(interrupt, &1_u64.to_ne_bytes());
            }
        }
    }
}
