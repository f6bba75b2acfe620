//! The devices of a program, and who has which channel.
//!
//! # Two ways to a channel
//!
//! *Exclusive*: [`Registry::request`] by name and [`Registry::request_matching`] by capabilities
//! give a [`Channel`] that nobody else has, for a [`Queue`](crate::Queue). Its data path takes no
//! lock.
//!
//! *Shared*: [`Registry::find_channel`] gives a [`SharedChannel`]. The registry keeps a table of
//! the clients, one row for each thread and set of capabilities, and spreads them over the channels
//! that nobody has alone: near to the thread's NUMA node first, then where the fewest clients are.
//! The table is balanced anew when a device or a client comes or goes.
//!
//! A channel is one or the other, from its first user to its last. (Linux decides this for all
//! channels of a device together, because there it is a capability of the device; here siblings are
//! independent.) A channel with [`Capabilities::PRIVATE`] is never shared, and exclusive only for
//! who names it or asks for that capability.
//!
//! # Devices come and go
//!
//! [`Registry::subscribe`] tells of every device added and removed. [`Registry::unregister`] begins
//! a removal: from then on nobody gets a channel of the device, the channels that clients have
//! refuse what is new, shared clients are moved to other channels, and what is in flight ends with a
//! status as ever. It is removed when the last client has dropped its channel. For a device that is
//! lost ([`Status::DeviceLost`](crate::Status::DeviceLost)) the same holds: nothing of it is needed
//! to remove it.

use std::{
    sync::{
        Arc, PoisonError,
        atomic::Ordering,
        mpsc::{self, Receiver},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{
    Arena, Capabilities, ChannelInfo, DmaDevice, FallbackStats, MapError, RequestError, Snapshot,
};

mod balance;
mod error;
mod event;
mod handle;
mod lease;
mod name;
mod numa;
mod shared;
mod state;

pub use self::{
    error::{Holder, LookupError, RemovalError},
    event::DeviceEvent,
    handle::Channel,
    shared::{NotDone, SharedChannel, SharedError},
};
use self::{
    lease::Lease,
    name::ChannelName,
    state::{Inner, Registered, Row, State, Usage},
};

/// The devices of a program, by name: channel `M` of the device registered as number `N` is
/// `dma<N>chan<M>`, as in Linux's `/sys/class/dma`.
///
/// It belongs to the process that made it. In a forked child it has no devices and takes none.
///
/// ```
/// use std::{sync::Arc, time::Duration};
/// use dmaengine::{CpuDevice, Registry};
///
/// let registry = Registry::new();
/// registry.register(Arc::new(CpuDevice::new(2)));
/// let channel = registry.request("dma0chan1")?;
/// assert!(registry.request("dma0chan1").is_err(), "channels are exclusive");
/// assert_eq!(registry.list().iter().filter(|channel| channel.users > 0).count(), 1);
///
/// let error = registry.unregister(0, Duration::ZERO).unwrap_err();
/// assert!(error.to_string().contains("dma0chan1"), "it says who is in the way");
/// drop(channel);
/// registry.unregister(0, Duration::from_secs(1)).unwrap();
/// # Ok::<(), dmaengine::LookupError>(())
/// ```
#[derive(Debug)]
pub struct Registry {
    inner: Arc<Inner>,
}

/// One line of [`Registry::list`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelListing {
    /// `dma<N>chan<M>`.
    pub name: String,
    /// The number of its device.
    pub device: usize,
    /// The fixed properties.
    pub info: ChannelInfo,
    /// Clients that have it: one at most, unless it is shared.
    pub users: usize,
    /// Clients that have a channel of its device.
    pub device_users: usize,
    /// Whether its device is being removed.
    pub in_removal: bool,
    /// What it has done.
    pub stats: Snapshot,
}

impl Default for Registry {
    fn default() -> Self {
        Self::new()
    }
}

impl Registry {
    /// A registry without devices.
    #[must_use]
    pub fn new() -> Self {
        Self { inner: Arc::new(Inner::new()) }
    }

    /// Adds a device and returns its number, which no other device will have.
    pub fn register(&self, device: Arc<dyn DmaDevice>) -> usize {
        let registered = Registered::new(device);
        let channels = registered.channels.len();
        // Relaxed: only the number itself matters.
        let device = self.inner.next.fetch_add(1, Ordering::Relaxed);
        let Some(mut state) = self.inner.lock() else {
            // A child's registry takes no devices, and may not be able to drop its parent's.
            std::mem::forget(registered);
            return device;
        };
        state.devices.insert(device, registered);
        state.tell(DeviceEvent::Added { device, channels });
        let closing = state.rebalance(&self.inner);
        drop(state);
        drop(closing);
        device
    }

    /// Removes a device: nobody gets a channel of it any more, nothing more is submitted to it
    /// ([`SubmitError::Removed`](crate::SubmitError::Removed)), and subscribers are told. Waits
    /// until the last client has dropped its channel, but no longer than `timeout`.
    ///
    /// Arenas that were mapped for the device stay so as long as somebody else keeps it.
    ///
    /// # Errors
    ///
    /// See [`RemovalError`]. After [`RemovalError::InUse`] the removal stays begun; call it again to
    /// go on waiting.
    pub fn unregister(&self, device: usize, timeout: Duration) -> Result<(), RemovalError> {
        // A deadline that no clock reaches is none.
        let deadline = Instant::now().checked_add(timeout);
        let mut state = self.inner.lock().ok_or(RemovalError::Forked)?;
        let registered = state.devices.get_mut(&device);
        let registered = registered.ok_or(RemovalError::UnknownDevice { device })?;
        if !registered.in_removal {
            registered.in_removal = true;
            // Relaxed: a client that sees it late submits one operation more before it drops the
            // channel, and that is waited for.
            registered.removing.store(true, Ordering::Relaxed);
            state.tell(DeviceEvent::Removing { device });
            let closing = state.rebalance(&self.inner);
            drop(state);
            // Joins threads perhaps, and releases what was shared and is not at work.
            drop(closing);
            state = self.inner.lock().ok_or(RemovalError::Forked)?;
        }
        loop {
            // Gone: somebody else was faster with the same.
            let Some(holders) = state.holders(device) else { return Ok(()) };
            if holders.is_empty() {
                break;
            }
            let released = &self.inner.released;
            state = match deadline.map(|it| it.saturating_duration_since(Instant::now())) {
                Some(Duration::ZERO) => return Err(RemovalError::InUse { device, holders }),
                Some(left) => {
                    released.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
                None => released.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
        let removed = state.devices.remove(&device);
        state.tell(DeviceEvent::Removed { device });
        // Who waits for the same device.
        self.inner.released.notify_all();
        drop(state);
        // Not under the lock: it may take a while.
        drop(removed);
        Ok(())
    }

    /// What happens to devices from now on, in order. It begins with what there is: the devices
    /// that were added, and which of them are being removed.
    ///
    /// Dropping the receiver ends the subscription. Events are kept until they are received.
    #[must_use]
    pub fn subscribe(&self) -> Receiver<DeviceEvent> {
        let (sender, receiver) = mpsc::channel();
        // In a forked child: an end without events.
        let Some(mut state) = self.inner.lock() else { return receiver };
        for (&device, registered) in &state.devices {
            let channels = registered.channels.len();
            // The receiver is here.
            let _ = sender.send(DeviceEvent::Added { device, channels });
            if registered.in_removal {
                let _ = sender.send(DeviceEvent::Removing { device });
            }
        }
        state.subscribers.push(sender);
        receiver
    }

    /// Maps `arena` for every device that is registered.
    ///
    /// # Errors
    ///
    /// The first device's [`MapError`]; later devices are not asked.
    pub fn map(&self, arena: &Arena) -> Result<(), MapError> {
        self.devices().iter().try_for_each(|device| device.map(arena))
    }

    /// Hands out the channel `name`.
    ///
    /// # Errors
    ///
    /// See [`LookupError`].
    pub fn request(&self, name: &str) -> Result<Channel, LookupError> {
        let unknown = || LookupError::UnknownName { name: name.to_owned() };
        self.take(ChannelName::parse(name).ok_or_else(unknown)?)
    }

    /// Hands out the first free channel that has all capabilities of `mask`, and for which `filter`
    /// is true of its name and properties (Linux: `dma_request_channel`). Channels with
    /// [`Capabilities::PRIVATE`] are left out, unless the mask has it.
    ///
    /// # Errors
    ///
    /// [`LookupError::NoMatch`], or why the last channel that matched was refused.
    pub fn request_matching(
        &self,
        mask: Capabilities,
        mut filter: impl FnMut(&str, &ChannelInfo) -> bool,
    ) -> Result<Channel, LookupError> {
        let mut error = LookupError::NoMatch;
        // The filter is the caller's code, and not called under the lock.
        let free = self.inner.lock().ok_or(LookupError::Forked)?.free(mask);
        for (name, info) in free {
            if !filter(&name.to_string(), &info) {
                continue;
            }
            match self.take(name) {
                Ok(channel) => return Ok(channel),
                // Somebody took it meanwhile.
                Err(LookupError::Request { source: RequestError::InUse, .. }) => {}
                Err(refused) => error = refused,
            }
        }
        Err(error)
    }

    /// Looks up a channel with all capabilities of `mask`, to be shared with others (Linux:
    /// `dma_find_channel`): near to the NUMA node on which the calling thread runs, and there the
    /// one with the fewest clients. A thread that has a handle for the same mask gets another handle
    /// to the same channel.
    ///
    /// # Errors
    ///
    /// [`LookupError::NoMatch`], or why the last channel that fits did not open.
    pub fn find_channel(&self, mask: Capabilities) -> Result<SharedChannel, LookupError> {
        self.find_channel_near(mask, numa::current_node())
    }

    /// As [`find_channel`](Self::find_channel), near to `node`: that of the memory, or of a network
    /// card, instead of the thread's. A thread's handles for one mask and one node are the same.
    ///
    /// # Errors
    ///
    /// As for [`find_channel`](Self::find_channel).
    pub fn find_channel_near(
        &self,
        mask: Capabilities,
        node: Option<u32>,
    ) -> Result<SharedChannel, LookupError> {
        let mut state = self.inner.lock().ok_or(LookupError::Forked)?;
        let thread = thread::current().id();
        let is_it = |row: &&mut Row| (row.mask, row.thread, row.node) == (mask, thread, node);
        let place = if let Some(row) = state.table.iter_mut().find(is_it) {
            row.handles += 1;
            Arc::clone(&row.place)
        } else {
            let place = Arc::default();
            state.table.push(Row { mask, thread, node, handles: 1, place: Arc::clone(&place) });
            place
        };
        let closing = state.rebalance(&self.inner);
        drop(state);
        drop(closing);
        let channel = SharedChannel::new(Arc::clone(&self.inner), place);
        channel.open()?;
        Ok(channel)
    }

    /// All channels, by device number and index.
    #[must_use]
    pub fn list(&self) -> Vec<ChannelListing> {
        self.inner.lock().map_or_else(Vec::new, |state| state.list())
    }

    /// What the [`Fallback`](crate::Fallback) over the channel `name` has done since its last user
    /// got it: the device has that layer, or the user has put it over the channel
    /// ([`Channel::layered`]). `None` if there is no such channel, or has been no such layer. What a
    /// user left stays until the next comes.
    ///
    /// ```
    /// use std::{sync::Arc, time::Duration};
    /// use dmaengine::{CpuDevice, Fallback, Queue, Registry};
    ///
    /// let registry = Registry::new();
    /// registry.register(Arc::new(CpuDevice::new(1)));
    /// let mut queue = Queue::new(registry.request("dma0chan0")?.layered(&Fallback::default()));
    /// queue.copy(vec![7; 100], vec![0; 100], ()).map_err(|refused| refused.error)?;
    /// queue.wait(Duration::from_secs(5), |done| assert_eq!(done.target, [7; 100]))?;
    /// assert_eq!(registry.fallback_stats("dma0chan0").map(|stats| stats.resets()), Some(0));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn fallback_stats(&self, name: &str) -> Option<Arc<FallbackStats>> {
        self.inner.lock()?.entry(ChannelName::parse(name)?)?.fallback.clone()
    }

    /// The processor time that the own threads of all engines have used so far.
    #[must_use]
    pub fn cpu_time(&self) -> Duration {
        self.devices().iter().filter_map(|device| device.cpu_time()).sum()
    }

    fn take(&self, name: ChannelName) -> Result<Channel, LookupError> {
        let refused = |source| LookupError::Request { name: name.to_string(), source };
        let mut state = self.inner.lock().ok_or(LookupError::Forked)?;
        let unknown = || LookupError::UnknownName { name: name.to_string() };
        let registered = state.devices.get_mut(&name.device).ok_or_else(unknown)?;
        let entry = registered.channels.get_mut(name.channel).ok_or_else(unknown)?;
        if registered.in_removal {
            return Err(LookupError::Removing { name: name.to_string() });
        }
        if !entry.usage.is_free() {
            return Err(refused(RequestError::InUse));
        }
        entry.usage = Usage::exclusive();
        entry.fallback = None;
        let stats = Arc::clone(&entry.stats);
        let removing = Arc::clone(&registered.removing);
        let device = Arc::clone(&registered.device);
        drop(state);
        // From here on it is given back whatever happens.
        let lease = Lease::new(Arc::clone(&self.inner), name);
        let raw = device.request_channel(name.channel).map_err(refused)?;
        if let Some(entry) = self.inner.lock().as_mut().and_then(|state| state.entry(name)) {
            entry.defective = false;
        }
        Ok(Channel::new(raw, name.to_string(), stats, removing, Some(lease)))
    }

    /// The devices, to be called without the lock. None in a forked child.
    fn devices(&self) -> Vec<Arc<dyn DmaDevice>> {
        let Some(state) = self.inner.lock() else { return Vec::new() };
        state.devices.values().map(|registered| Arc::clone(&registered.device)).collect()
    }
}

impl State {
    /// The free channels with all capabilities of `mask`.
    fn free(&self, mask: Capabilities) -> Vec<(ChannelName, ChannelInfo)> {
        let mut free = Vec::new();
        for (&device, registered) in self.devices.iter().filter(|(_, device)| !device.in_removal) {
            for (channel, entry) in registered.channels.iter().enumerate() {
                let capabilities = entry.info.capabilities;
                let asked = mask | (capabilities & Capabilities::PRIVATE);
                if entry.usage.is_free() && asked == mask && capabilities.contains(mask) {
                    free.push((ChannelName { device, channel }, entry.info.clone()));
                }
            }
        }
        free
    }

    fn list(&self) -> Vec<ChannelListing> {
        let mut list = Vec::new();
        for (&device, registered) in &self.devices {
            let first = list.len();
            for (channel, entry) in registered.channels.iter().enumerate() {
                let name = ChannelName { device, channel };
                list.push(ChannelListing {
                    name: name.to_string(),
                    device,
                    info: entry.info.clone(),
                    users: self.users(name, &entry.usage),
                    device_users: 0,
                    in_removal: registered.in_removal,
                    stats: entry.stats.snapshot(),
                });
            }
            let users = list[first..].iter().map(|channel| channel.users).sum();
            list[first..].iter_mut().for_each(|channel| channel.device_users = users);
        }
        list
    }
}

#[cfg(test)]
mod tests;
