use std::{fmt::Debug, os::fd::BorrowedFd, time::Duration};

use crate::{Capabilities, ChannelInfo, Completion, Cookie};

/// One copy, in process addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyDescriptor {
    /// The first byte to read.
    pub source: *const u8,
    /// The first byte to write.
    pub target: *mut u8,
    /// Length in bytes.
    pub len: usize,
}

/// One fill, in process addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FillDescriptor {
    /// Repeated from the first byte on, lowest byte first; the last repetition may be cut short.
    pub pattern: u64,
    /// The first byte to write.
    pub target: *mut u8,
    /// Length in bytes.
    pub len: usize,
}

/// Why an operation was not submitted. Nothing of it was shown to the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum SubmitError {
    /// No room for its descriptors until some that are in flight are reported by `poll`.
    #[error("the ring is full: poll for completions, or copy with the CPU")]
    RingFull,
    /// It takes more descriptors than the ring will ever have free.
    #[error("{len} bytes need more descriptors than the ring holds; the most is {max} bytes")]
    TooLong {
        /// The length asked for, in bytes.
        len: usize,
        /// The greatest length that fits an empty ring, in bytes.
        max: usize,
    },
    /// A length of zero moves nothing.
    #[error("the length is zero: there is nothing to do")]
    ZeroLength,
    /// Source and target lengths differ.
    #[error("the source has {source_len} bytes and the target {target_len}; they must be equal")]
    LengthMismatch {
        /// The source's length in bytes.
        source_len: usize,
        /// The target's length in bytes.
        target_len: usize,
    },
    /// Source and target share bytes.
    #[error("source and target overlap")]
    Overlap,
    /// The memory at `address` is in no arena that is mapped for this engine.
    #[error("the memory at {address:#x} is not mapped for this engine: use arena memory")]
    Unreachable {
        /// The first address that cannot be reached.
        address: usize,
    },
    /// The channel cannot do this operation ([`crate::Capabilities`]).
    #[error("the channel lacks this operation")]
    Unsupported,
    /// The channel is out of service until it has been terminated with success.
    #[error("the channel is down: terminate it to bring it back")]
    ChannelDown,
}

impl ChannelInfo {
    /// Whether a channel like this can take `copy` when its ring is empty, and the descriptors that
    /// it needs. Drivers begin their `submit_memcpy` with it.
    ///
    /// # Errors
    ///
    /// [`Unsupported`](SubmitError::Unsupported), [`ZeroLength`](SubmitError::ZeroLength),
    /// [`TooLong`](SubmitError::TooLong) or [`Overlap`](SubmitError::Overlap).
    pub fn check_memcpy(&self, copy: &CopyDescriptor) -> Result<usize, SubmitError> {
        let CopyDescriptor { source, target, len } = *copy;
        let descriptors = self.check(Capabilities::MEMCPY, len)?;
        if source.addr().abs_diff(target.addr()) < len {
            return Err(SubmitError::Overlap);
        }
        Ok(descriptors)
    }

    /// As [`check_memcpy`](Self::check_memcpy), for a fill.
    ///
    /// # Errors
    ///
    /// [`Unsupported`](SubmitError::Unsupported), [`ZeroLength`](SubmitError::ZeroLength) or
    /// [`TooLong`](SubmitError::TooLong).
    pub fn check_memset(&self, fill: &FillDescriptor) -> Result<usize, SubmitError> {
        self.check(Capabilities::MEMSET, fill.len)
    }

    fn check(&self, operation: Capabilities, len: usize) -> Result<usize, SubmitError> {
        if !self.capabilities.contains(operation) {
            return Err(SubmitError::Unsupported);
        }
        if len == 0 {
            return Err(SubmitError::ZeroLength);
        }
        let descriptors = self.descriptors(len);
        if descriptors > self.ring_size {
            let max = self.xfercap.get().saturating_mul(self.ring_size);
            return Err(SubmitError::TooLong { len, max });
        }
        Ok(descriptors)
    }
}

/// The engine could not be proven idle: memory that was submitted may still be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[error("the engine did not become idle in time; its memory cannot be released")]
pub struct Stuck;

/// A channel as its driver implements it. Clients use a [`crate::Queue`] on top of it.
///
/// One thread uses a channel at a time. Operations are submitted, then issued together with one
/// doorbell, then polled for.
///
/// # Safety
///
/// Implementors promise, for every operation that was submitted with success:
///
/// * its cookie is the [`next`](Cookie::next) after that of the operation submitted before it;
/// * it is reported by [`poll`](Self::poll) at most once, with the cookie that `submit_*` returned;
/// * after its report the engine touches neither its source nor its target, and all that it wrote
///   is visible to the thread that polled (acquire);
/// * nothing outside `target .. target + len` is written on its behalf;
/// * an operation that `submit_*` refused is never shown to the engine;
/// * after `terminate_sync` returned `Ok`, and after `drop`, the engine touches no memory of any
///   operation. If that cannot be reached in `drop`, what belongs to the engine is leaked and the
///   process aborts rather than let memory be reused under DMA.
pub unsafe trait DmaChannel: Send + Debug {
    /// The fixed properties.
    fn info(&self) -> &ChannelInfo;

    /// Descriptors that can be submitted now.
    fn space(&self) -> usize;

    /// Submits a copy, which the engine may not look at before [`issue_pending`](Self::issue_pending).
    ///
    /// # Errors
    ///
    /// See [`SubmitError`]; nothing was submitted.
    ///
    /// # Safety
    ///
    /// Until this operation is reported, or `terminate_sync` returns `Ok`:
    ///
    /// * `source .. source + len` stays valid for reads and nobody writes it;
    /// * `target .. target + len` stays valid for writes, and nobody else reads or writes it or
    ///   holds a reference to it;
    /// * the two do not overlap.
    unsafe fn submit_memcpy(&mut self, copy: CopyDescriptor) -> Result<Cookie, SubmitError>;

    /// Submits a fill.
    ///
    /// # Errors
    ///
    /// See [`SubmitError`]; nothing was submitted.
    ///
    /// # Safety
    ///
    /// As for [`submit_memcpy`](Self::submit_memcpy), for the target.
    unsafe fn submit_memset(&mut self, fill: FillDescriptor) -> Result<Cookie, SubmitError>;

    /// Rings the doorbell for all that was submitted. Does nothing if there is nothing new.
    fn issue_pending(&mut self);

    /// Reports operations that have ended since the last call; never waits for one. A halted
    /// engine is restarted in here, in bounded time: the operation it halted at ends with its own
    /// status, earlier ones with success, later ones [`Aborted`](crate::Status::Aborted).
    ///
    /// Call it again whenever [`event`](Self::event) is readable, or as often as progress is wanted.
    fn poll(&mut self, report: &mut dyn FnMut(Completion));

    /// Asks for one event on [`event`](Self::event) when everything issued so far has ended.
    /// Returns `false`, and asks for nothing, if there is nothing to wait for: poll instead.
    fn arm(&mut self) -> bool;

    /// The file descriptor that becomes readable when an armed event fires; `None` if the channel
    /// has no interrupts. [`arm`](Self::arm) clears it.
    fn event(&self) -> Option<BorrowedFd<'_>>;

    /// Stops the engine, proves it idle and makes the channel usable again, within `timeout`.
    /// Operations that had not ended are reported by the next [`poll`](Self::poll) as
    /// [`Aborted`](crate::Status::Aborted).
    ///
    /// # Errors
    ///
    /// [`Stuck`] if idleness could not be proven; the memory of operations in flight then still
    /// belongs to the engine. Calling again is allowed and may succeed.
    fn terminate_sync(&mut self, timeout: Duration) -> Result<(), Stuck>;
}
