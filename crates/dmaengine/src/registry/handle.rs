use std::{
    fmt,
    mem::ManuallyDrop,
    os::fd::BorrowedFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use super::lease::Lease;
use crate::{
    ChannelInfo, ChannelStats, Completion, Cookie, DmaChannel, Flags, Layer, Operation,
    OperationKind, Stuck, SubmitError, Successes, fork::Owner, stats::Meter,
};

/// A channel that a client has, with its name and counters. A [`Queue`](crate::Queue) is made of
/// it. Dropping it releases the channel.
///
/// It can also be made of a bare [`DmaChannel`]; its name is then that of its engine. And it is one
/// itself, for clients without a queue: what they do is not counted.
///
/// # Removal
///
/// While its device is being [unregistered](crate::Registry::unregister), nothing new is submitted
/// ([`SubmitError::Removed`]); what is in flight ends as ever. Drop the channel then: the removal
/// waits for it.
///
/// # Forking
///
/// A forked child inherits the value, but neither the threads nor the device behind it. There
/// `submit` refuses with [`SubmitError::Forked`], `poll` reports nothing, there is no event to wait
/// for, `terminate_sync` cannot prove anything, and dropping it, or a queue of it, leaks. The
/// parent's channel is not disturbed. To know costs one load for each call.
pub struct Channel {
    /// Dropped in `drop`, unless this is a forked child.
    raw: ManuallyDrop<Box<dyn DmaChannel>>,
    name: String,
    meter: Meter,
    owner: Owner,
    /// Set while the device is being removed.
    removing: Arc<AtomicBool>,
    /// After `raw`: fields are dropped in order and after `drop`, so the channel is free when its
    /// driver has let go.
    _lease: Option<Lease>,
}

impl Channel {
    /// A channel of a registered device, which is `removing` or not; `lease` is given up after it.
    pub(super) fn new(
        raw: Box<dyn DmaChannel>,
        name: String,
        stats: Arc<ChannelStats>,
        removing: Arc<AtomicBool>,
        lease: Option<Lease>,
    ) -> Self {
        let meter = Meter::new(stats, raw.info().ring_size);
        let raw = ManuallyDrop::new(raw);
        Self { raw, name, meter, owner: Owner::current(), removing, _lease: lease }
    }

    /// The channel's name, `dma<N>chan<M>`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The fixed properties.
    #[must_use]
    pub fn info(&self) -> &ChannelInfo {
        self.raw.info()
    }

    /// What the channel has done.
    #[must_use]
    pub const fn stats(&self) -> &Arc<ChannelStats> {
        self.meter.stats()
    }

    /// Whether its device is being removed: drop the channel.
    #[must_use]
    #[inline]
    pub fn is_removed(&self) -> bool {
        // Relaxed: seen a moment later it costs one operation more. What the removal waits for is
        // the channel's drop.
        self.removing.load(Ordering::Relaxed)
    }

    /// Whether this is a forked child, and the channel its parent's.
    #[must_use]
    #[inline]
    pub fn is_forked(&self) -> bool {
        !self.owner.is_here()
    }

    /// The same channel with `layer` over it: the client's name, counters and hold stay.
    #[must_use]
    pub fn layered(self, layer: &impl Layer) -> Self {
        // Leaked if `wrap` panics.
        let mut channel = ManuallyDrop::new(self);
        // SAFETY: taken once, and not used before it is there again.
        let raw = unsafe { ManuallyDrop::take(&mut channel.raw) };
        channel.raw = ManuallyDrop::new(layer.wrap(raw));
        let mut channel = ManuallyDrop::into_inner(channel);
        channel.meter = Meter::new(Arc::clone(channel.stats()), channel.info().ring_size);
        channel
    }

    /// Counts an operation that was submitted; `depth` are now in flight.
    #[inline]
    pub(crate) fn count_submit(&mut self, cookie: Cookie, kind: OperationKind, depth: usize) {
        self.meter.count_submit(cookie, kind, depth);
    }

    /// What to poll, with the place to count each end in, while `depth` are in flight; `None` in a
    /// forked child.
    #[inline]
    pub(crate) fn begin_poll(&mut self, depth: usize) -> Option<(&mut dyn DmaChannel, &mut Meter)> {
        if self.is_forked() {
            return None;
        }
        let Self { raw, meter, .. } = self;
        // It has not been greater since the last poll.
        meter.note_depth(depth);
        Some((&mut ***raw, meter))
    }
}

// SAFETY: all promises are those of the channel below, which alone submits, reports and becomes idle.
// In a forked child nothing reaches it, so nothing is submitted; what the parent's engine has in
// flight is written through the parent's address space, or to arenas, which a child does not have.
unsafe impl DmaChannel for Channel {
    fn info(&self) -> &ChannelInfo {
        self.raw.info()
    }

    #[inline]
    fn space(&self) -> usize {
        // Also in a forked child: it only reads memory, and who finds space learns more from `submit`.
        self.raw.space()
    }

    #[inline]
    unsafe fn submit(
        &mut self,
        operation: &Operation<'_>,
        flags: Flags,
    ) -> Result<Cookie, SubmitError> {
        if self.is_forked() {
            return Err(SubmitError::Forked);
        }
        if self.is_removed() {
            return Err(SubmitError::Removed);
        }
        // SAFETY: the caller's promise, passed on.
        unsafe { self.raw.submit(operation, flags) }
    }

    #[inline]
    fn issue_pending(&mut self) {
        // Also while it is removed: what was submitted before must end.
        if !self.is_forked() {
            self.raw.issue_pending();
        }
    }

    fn poll(&mut self, report: &mut dyn FnMut(Completion)) {
        if !self.is_forked() {
            self.raw.poll(report);
        }
    }

    fn poll_successes(&mut self) -> Successes {
        if self.is_forked() {
            return Successes { more: false, ..Successes::UNKNOWN };
        }
        self.raw.poll_successes()
    }

    fn arm(&mut self) -> bool {
        // In a child it would clear the event that its parent waits for.
        !self.is_forked() && self.raw.arm()
    }

    fn event(&self) -> Option<BorrowedFd<'_>> {
        if self.is_forked() { None } else { self.raw.event() }
    }

    fn terminate_sync(&mut self, timeout: Duration) -> Result<(), Stuck> {
        if self.is_forked() { Err(Stuck) } else { self.raw.terminate_sync(timeout) }
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        if !self.is_forked() {
            // SAFETY: dropped here and nowhere else, and not used afterwards.
            unsafe { ManuallyDrop::drop(&mut self.raw) };
        }
    }
}

impl From<Box<dyn DmaChannel>> for Channel {
    fn from(raw: Box<dyn DmaChannel>) -> Self {
        let name = raw.info().engine.clone();
        Self::new(raw, name, Arc::default(), Arc::default(), None)
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel")
            .field("name", &self.name)
            .field("raw", &self.raw)
            .field("stats", self.stats())
            .finish_non_exhaustive()
    }
}
