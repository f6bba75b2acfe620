mod core;

use std::{
    fmt,
    mem::ManuallyDrop,
    sync::Arc,
    time::{Duration, Instant},
};

pub(super) use self::core::Core;
use self::core::ExecuteError;
use super::{
    LookupError,
    name::ChannelName,
    state::{Inner, Place},
};
use crate::{Completion, DmaSource, DmaTarget, Flags, Operation, Stuck, SubmitError};

/// A channel that is shared with other threads and other clients, from
/// [`Registry::find_channel`](crate::Registry::find_channel).
///
/// Its operations block, as Linux's `dma_sync_wait` does: whoever shares a channel has nothing in
/// flight on it between two calls, so there is nothing to give back to the wrong client, and the
/// handle can move to another channel at any time. It does so when devices come and go; a client
/// notices nothing, unless the last channel that can do what it asked for is gone
/// ([`LookupError::NoMatch`]), and only until there is another.
///
/// **Each call takes locks**, one for the handle and one for the channel, for moments: several threads
/// can have operations in flight on it at the same time. (A [`Copier`](crate::Copier) takes one; the
/// other ways take none.) Threads that move much memory have a channel each, and a
/// [`Queue`](crate::Queue).
///
/// Cloning makes another handle to the same place; it counts as a user of the channel.
pub struct SharedChannel {
    registry: Arc<Inner>,
    place: Arc<Place>,
}

/// Why a shared channel has not done an operation.
#[derive(Debug, thiserror::Error)]
pub enum SharedError {
    /// There is no channel now; nothing was submitted.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// Nothing was submitted.
    #[error(transparent)]
    Submit(#[from] SubmitError),
    /// It did not end in time, and the engine could not be stopped.
    #[error(transparent)]
    Stuck(#[from] Stuck),
}

/// An operation on owned memory that was not done.
#[derive(Debug)]
pub struct NotDone<M> {
    /// Why.
    pub error: SharedError,
    /// What would have been read and written; `None` if the engine could not be stopped and may
    /// still write it: it is leaked.
    pub memory: Option<M>,
}

impl SharedChannel {
    pub(super) const fn new(registry: Arc<Inner>, place: Arc<Place>) -> Self {
        Self { registry, place }
    }

    /// The name of the channel that it uses now, `dma<N>chan<M>`; `None` if there is none.
    #[must_use]
    pub fn name(&self) -> Option<String> {
        self.core().ok().map(|core| core.name().to_string())
    }

    /// Copies all of `source` to all of `target`, and returns when that has ended, with both.
    ///
    /// If it has not ended after `timeout`, the channel is reset: this operation is
    /// [`TimedOut`](crate::Status::TimedOut), and other threads' operations on the same channel are
    /// [`Aborted`](crate::Status::Aborted).
    ///
    /// ```
    /// use std::{sync::Arc, time::Duration};
    /// use dmaengine::{Capabilities, Registry, Status, ThreadsDevice};
    ///
    /// let registry = Registry::new();
    /// registry.register(Arc::new(ThreadsDevice::new(2)));
    /// let channel = registry.find_channel(Capabilities::MEMCPY)?;
    /// let (end, _, target) =
    ///     channel.copy(vec![7u8; 4096], vec![0u8; 4096], Duration::from_secs(1)).unwrap();
    /// assert_eq!((end.status, end.bytes), (Status::Success, 4096));
    /// assert_eq!(target, [7; 4096]);
    /// # Ok::<(), dmaengine::LookupError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// See [`SharedError`]. That an operation was done says nothing about how it ended: see
    /// [`Completion::status`].
    pub fn copy<S: DmaSource, D: DmaTarget>(
        &self,
        source: S,
        target: D,
        timeout: Duration,
    ) -> Result<(Completion, S, D), NotDone<(S, D)>> {
        self.owned((source, target), timeout, |(source, target)| {
            let (source, target) = (source.as_ref(), target.as_mut());
            let (source_len, target_len) = (source.len(), target.len());
            if source_len != target_len {
                return Err(SubmitError::LengthMismatch { source_len, target_len });
            }
            let (source, target) = (source.as_ptr(), target.as_mut_ptr());
            Ok(Operation::Memcpy { source, target, len: source_len })
        })
        .map(|(completion, (source, target))| (completion, source, target))
    }

    /// Fills all of `target` with `pattern`, repeated from the first byte on, lowest byte first, and
    /// returns when that has ended. `timeout` is as for [`copy`](Self::copy).
    ///
    /// # Errors
    ///
    /// As for [`copy`](Self::copy).
    pub fn fill<D: DmaTarget>(
        &self,
        pattern: u64,
        target: D,
        timeout: Duration,
    ) -> Result<(Completion, D), NotDone<D>> {
        self.owned(target, timeout, |target| {
            let target = target.as_mut();
            let (target, len) = (target.as_mut_ptr(), target.len());
            Ok(Operation::Memset { pattern, target, len })
        })
    }

    /// Does any operation, and returns when it has ended; `timeout` is as for [`copy`](Self::copy).
    ///
    /// # Errors
    ///
    /// See [`SharedError`].
    ///
    /// # Safety
    ///
    /// Until this returns a completion, or an error other than [`SharedError::Stuck`], the memory
    /// is the operation's, as [`DmaChannel::submit`](crate::DmaChannel::submit) demands. If it
    /// returns that error, or panics because a driver did, it is so for ever.
    pub unsafe fn execute(
        &self,
        operation: &Operation<'_>,
        flags: Flags,
        timeout: Duration,
    ) -> Result<Completion, SharedError> {
        // A deadline that no clock reaches is none.
        let deadline = Instant::now().checked_add(timeout);
        loop {
            let core = self.core()?;
            // SAFETY: the caller's promise, passed on. An operation was not submitted if this goes
            // round.
            match unsafe { core.execute(operation, flags, deadline) } {
                Ok(completion) => return Ok(completion),
                Err(ExecuteError::Open(source)) => {
                    self.leave_out(core.name());
                    if self.core().is_err() {
                        let name = core.name().to_string();
                        return Err(LookupError::Request { name, source }.into());
                    }
                }
                // The place is given another channel, or none, under the lock that begins the
                // removal: with the lock, that is over.
                Err(ExecuteError::Submit(SubmitError::Removed)) => drop(self.registry.lock()),
                Err(ExecuteError::Submit(error)) => return Err(error.into()),
                Err(ExecuteError::Stuck(error)) => return Err(error.into()),
            }
        }
    }

    /// Does the operation that `operation` makes of `memory`'s own bytes.
    fn owned<M>(
        &self,
        memory: M,
        timeout: Duration,
        operation: impl FnOnce(&mut M) -> Result<Operation<'static>, SubmitError>,
    ) -> Result<(Completion, M), NotDone<M>> {
        // Not dropped if a driver panics: the engine may have it.
        let mut memory = ManuallyDrop::new(memory);
        let done = match operation(&mut memory) {
            // SAFETY:
            // - valid and unwritten, respectively exclusive: `DmaSource` and `DmaTarget` promise it
            //   while the values exist. They are not touched until this returns, and not given back
            //   if the engine may still write them;
            // - no overlap: memory that somebody owns exclusively is nobody's shared source.
            Ok(operation) => unsafe { self.execute(&operation, Flags::empty(), timeout) },
            Err(error) => Err(error.into()),
        };
        match done {
            Ok(completion) => Ok((completion, ManuallyDrop::into_inner(memory))),
            Err(error @ SharedError::Stuck(_)) => Err(NotDone { error, memory: None }),
            Err(error) => Err(NotDone { error, memory: Some(ManuallyDrop::into_inner(memory)) }),
        }
    }

    /// Opens the channel, or another that fits if it does not open.
    pub(super) fn open(&self) -> Result<(), LookupError> {
        loop {
            let core = self.core()?;
            let Err(source) = core.open() else { return Ok(()) };
            self.leave_out(core.name());
            if self.core().is_err() {
                return Err(LookupError::Request { name: core.name().to_string(), source });
            }
        }
    }

    fn core(&self) -> Result<Arc<Core>, LookupError> {
        // Before any lock: in a child a thread that does not exist may hold it.
        if !self.registry.is_here() {
            return Err(LookupError::Forked);
        }
        self.place.get().ok_or(LookupError::NoMatch)
    }

    /// A channel did not open: nobody is to share it.
    fn leave_out(&self, name: ChannelName) {
        let Some(mut state) = self.registry.lock() else { return };
        if let Some(entry) = state.entry(name) {
            entry.defective = true;
        }
        let closing = state.rebalance(&self.registry);
        drop(state);
        drop(closing);
    }
}

impl Clone for SharedChannel {
    fn clone(&self) -> Self {
        if let Some(mut state) = self.registry.lock() {
            let is_it = |place: &Arc<Place>| Arc::ptr_eq(place, &self.place);
            if let Some(row) = state.table.iter_mut().find(|row| is_it(&row.place)) {
                row.handles += 1;
            }
        }
        Self { registry: Arc::clone(&self.registry), place: Arc::clone(&self.place) }
    }
}

impl Drop for SharedChannel {
    fn drop(&mut self) {
        let Some(mut state) = self.registry.lock() else { return };
        let is_it = |place: &Arc<Place>| Arc::ptr_eq(place, &self.place);
        let Some(at) = state.table.iter().position(|row| is_it(&row.place)) else { return };
        state.table[at].handles -= 1;
        if state.table[at].handles > 0 {
            return;
        }
        let row = state.table.remove(at);
        let closing = state.rebalance(&self.registry);
        drop(state);
        // Last: the channel is closed if nobody else has it.
        drop((closing, row.place.take()));
    }
}

impl fmt::Debug for SharedChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedChannel").field("name", &self.name()).finish_non_exhaustive()
    }
}
