//! The model on a thread, with the client's memory and interrupts.

use std::{
    io,
    os::fd::OwnedFd,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockWriteGuard},
    thread::{self, JoinHandle},
    time::Instant,
};

use rustix::io::Errno;

use super::{interrupts::Interrupts, memory::GuestMemory};
use crate::{
    InterruptStyle,
    config_space::CONFIG_SIZE,
    model::{self, Model},
    registers::{BAR_SIZE, Width},
};

/// A device at work until it is dropped.
#[derive(Debug)]
pub(super) struct Device {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    /// Locked before `state` where both are. Read-locked while bytes move; so whoever has it for
    /// writing knows that nothing moves.
    memory: RwLock<GuestMemory>,
    state: Mutex<State>,
    /// There may be work.
    work: Condvar,
    /// The model's time counts from here.
    started: Instant,
}

#[derive(Debug)]
struct State {
    model: Model,
    interrupts: Interrupts,
    /// Something has changed since the thread looked for work.
    kicked: bool,
    stopped: bool,
}

impl Device {
    pub(super) fn start(config: model::Config) -> io::Result<Self> {
        let model = Model::new(config);
        let interrupts = Interrupts::new(model.channels());
        let state = State { model, interrupts, kicked: false, stopped: false };
        let shared = Arc::new(Shared {
            memory: RwLock::default(),
            state: Mutex::new(state),
            work: Condvar::new(),
            started: Instant::now(),
        });
        let engine = Arc::clone(&shared);
        let thread =
            thread::Builder::new().name("ioat-model".to_owned()).spawn(move || engine.run())?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Reads from BAR 0.
    ///
    /// # Errors
    ///
    /// `EINVAL` for what no processor does: other lengths than 1, 2, 4 and 8 bytes, or across their
    /// alignment, or past the end.
    pub(super) fn read_bar(&self, offset: u64, bytes: &mut [u8]) -> Result<(), Errno> {
        let width = width(offset, bytes.len())?;
        let value = self.access(|state| state.model.mmio_read(offset, width)).to_le_bytes();
        bytes.iter_mut().zip(value).for_each(|(byte, value)| *byte = value);
        Ok(())
    }

    /// Writes to BAR 0; as [`read_bar`](Self::read_bar).
    pub(super) fn write_bar(&self, offset: u64, bytes: &[u8]) -> Result<(), Errno> {
        let width = width(offset, bytes.len())?;
        let mut value = [0; 8];
        value.iter_mut().zip(bytes).for_each(|(value, byte)| *value = *byte);
        self.access(|state| state.model.mmio_write(offset, width, u64::from_le_bytes(value)));
        Ok(())
    }

    /// Reads configuration space, any bytes of it.
    pub(super) fn read_config(&self, offset: u64, bytes: &mut [u8]) -> Result<(), Errno> {
        within(offset, bytes.len(), CONFIG_SIZE)?;
        self.access(|state| state.model.config_read(offset, bytes));
        Ok(())
    }

    /// Writes configuration space, any bytes of it.
    pub(super) fn write_config(&self, offset: u64, bytes: &[u8]) -> Result<(), Errno> {
        within(offset, bytes.len(), CONFIG_SIZE)?;
        self.access(|state| state.model.config_write(offset, bytes));
        Ok(())
    }

    /// Resets the function.
    pub(super) fn reset(&self) {
        self.access(|state| state.model.reset());
    }

    /// The client's memory, while nothing moves in it.
    pub(super) fn memory(&self) -> RwLockWriteGuard<'_, GuestMemory> {
        self.shared.memory.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Flags and number of the interrupts of a kind.
    pub(super) fn interrupt_info(&self, kind: u32) -> Result<(u32, u32), Errno> {
        self.shared.lock().interrupts.info(kind)
    }

    /// Sets up, masks or triggers interrupts.
    pub(super) fn set_interrupts(
        &self,
        flags: u32,
        kind: u32,
        range: (u32, u32),
        data: &[u8],
        files: Vec<OwnedFd>,
    ) -> Result<(), Errno> {
        self.shared.lock().interrupts.set(flags, kind, range, data, files)
    }

    /// The client has gone: its memory and its eventfds are given up. The registers stay, as the
    /// protocol wants it; a new client that wants a fresh device resets it, as QEMU does.
    pub(super) fn disconnect(&self) {
        self.memory().unmap_all();
        let mut state = self.shared.lock();
        state.interrupts = Interrupts::new(state.model.channels());
        // INTA, if it is high, is high for the next client too.
        state.deliver();
    }

    fn access<T>(&self, access: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.shared.lock_now();
        let value = access(&mut state);
        state.deliver();
        state.kicked = true;
        drop(state);
        self.shared.work.notify_one();
        value
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.shared.lock().stopped = true;
        self.shared.work.notify_one();
        if let Some(thread) = self.thread.take() {
            // The thread does not panic; if it did, it has ended all the same.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // The model does not panic; were it to, its registers would still be plain values.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state, with the model knowing how late it is.
    fn lock_now(&self) -> MutexGuard<'_, State> {
        let mut state = self.lock();
        if state.model.needs_time() {
            state.model.set_time(self.started.elapsed());
        }
        state
    }

    /// The device's thread.
    fn run(&self) {
        let mut ended = None;
        loop {
            // Taken anew for each descriptor: between two of them, memory can be unmapped.
            let memory = self.memory.read().unwrap_or_else(PoisonError::into_inner);
            let mut view = &*memory;
            let mut state = self.lock_now();
            if state.stopped {
                return;
            }
            state.kicked = false;
            if let Some((channel, performed)) = ended.take() {
                state.model.retire(channel, performed, &mut view);
            }
            state.model.advance(&mut view);
            let fetched = state.model.fetch(&mut view);
            state.deliver();
            if let Some((channel, operation)) = fetched {
                drop(state);
                ended = Some((channel, operation.perform(&mut view)));
                continue;
            }
            drop(memory);
            self.wait(state);
        }
    }

    /// Waits until there may be work.
    fn wait(&self, mut state: MutexGuard<'_, State>) {
        while !state.kicked && !state.stopped {
            state = match state.model.next_deadline() {
                None => self.work.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.saturating_sub(self.started.elapsed());
                    if left.is_zero() {
                        return;
                    }
                    let waited = self.work.wait_timeout(state, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }
}

impl State {
    /// Passes on what the model has to say to the interrupt controller.
    fn deliver(&mut self) {
        let vectors = self.model.take_interrupts();
        self.interrupts.drive_intx(self.model.intx());
        match self.model.config_space().interrupt_style() {
            InterruptStyle::Intx => {}
            InterruptStyle::Msi if vectors == 0 => {}
            InterruptStyle::Msi => self.interrupts.raise_msi(),
            InterruptStyle::Msix => {
                for vector in (0..u32::BITS).filter(|vector| vectors & 1 << vector != 0) {
                    self.interrupts.raise_msix(vector as usize);
                }
            }
        }
    }
}

/// The width of an access to BAR 0.
fn width(offset: u64, len: usize) -> Result<Width, Errno> {
    within(offset, len, BAR_SIZE)?;
    let width = match len {
        1 => Width::W8,
        2 => Width::W16,
        4 => Width::W32,
        8 => Width::W64,
        _ => return Err(Errno::INVAL),
    };
    if offset.is_multiple_of(len as u64) { Ok(width) } else { Err(Errno::INVAL) }
}

fn within(offset: u64, len: usize, size: u64) -> Result<(), Errno> {
    let end = offset.checked_add(len as u64).ok_or(Errno::INVAL)?;
    if end <= size { Ok(()) } else { Err(Errno::INVAL) }
}
