//! What a registry knows, behind its lock.

use std::{
    collections::BTreeMap,
    mem,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize},
        mpsc::Sender,
    },
    thread::{self, ThreadId},
};

use super::{
    Holder,
    balance::{self, Candidate},
    event::DeviceEvent,
    lease::Lease,
    name::ChannelName,
    shared::Core,
};
use crate::{Capabilities, ChannelInfo, ChannelStats, DmaDevice, FallbackStats, fork::Owner};

/// A registry, as its channels know it.
///
/// No driver, no client's code and no destructor of a channel runs under its lock.
#[derive(Debug)]
pub(super) struct Inner {
    owner: Owner,
    /// The number of the next device.
    pub(super) next: AtomicUsize,
    state: Mutex<State>,
    /// A channel was released.
    pub(super) released: Condvar,
}

#[derive(Debug, Default)]
pub(super) struct State {
    /// By number, which is never given twice.
    pub(super) devices: BTreeMap<usize, Registered>,
    /// Which client of shared channels uses which: by capabilities and thread.
    pub(super) table: Vec<Row>,
    pub(super) subscribers: Vec<Sender<DeviceEvent>>,
}

#[derive(Debug)]
pub(super) struct Registered {
    pub(super) device: Arc<dyn DmaDevice>,
    /// Known to the channels that are handed out.
    pub(super) removing: Arc<AtomicBool>,
    pub(super) in_removal: bool,
    pub(super) channels: Vec<Entry>,
}

/// A channel of a device.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) info: ChannelInfo,
    pub(super) stats: Arc<ChannelStats>,
    /// Of its last user, if there was a layer that has some.
    pub(super) fallback: Option<Arc<FallbackStats>>,
    pub(super) usage: Usage,
    /// It did not open when it was to be shared: left out until somebody has had it alone.
    pub(super) defective: bool,
}

#[derive(Debug)]
pub(super) enum Usage {
    Free,
    /// By one client.
    Exclusive {
        /// Who asked for it: a thread's name or number.
        thread: String,
    },
    /// By the rows of the table that have it, or by an operation that still runs.
    Shared,
}

/// One client of shared channels: a thread that looked one up, and all handles from that.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) mask: Capabilities,
    pub(super) thread: ThreadId,
    /// Where the thread ran.
    pub(super) node: Option<u32>,
    pub(super) handles: usize,
    pub(super) place: Arc<Place>,
}

/// Where a client finds its channel, which changes when devices come and go.
#[derive(Debug, Default)]
pub(super) struct Place(Mutex<Option<Arc<Core>>>);

/// Channels that nobody shares any more, to be closed when the lock is released: that may take a
/// while, and takes the lock again.
#[derive(Debug, Default)]
#[must_use = "drop it after the lock"]
pub(super) struct Closing {
    _cores: Vec<Arc<Core>>,
}

impl Inner {
    pub(super) fn new() -> Self {
        Self {
            owner: Owner::current(),
            next: AtomicUsize::new(0),
            state: Mutex::default(),
            released: Condvar::new(),
        }
    }

    /// The state; `None` in a forked child, where a thread that does not exist may hold the lock.
    pub(super) fn lock(&self) -> Option<MutexGuard<'_, State>> {
        // Valid in every state: changes are made as a whole, by code that does not panic.
        self.is_here().then(|| self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether this is the process that made the registry.
    pub(super) fn is_here(&self) -> bool {
        self.owner.is_here()
    }

    /// Marks a channel as free.
    pub(super) fn release(self: &Arc<Self>, name: ChannelName) {
        let Some(mut state) = self.lock() else { return };
        if let Some(entry) = state.entry(name) {
            entry.usage = Usage::Free;
        }
        self.released.notify_all();
        let closing = state.rebalance(self);
        drop(state);
        drop(closing);
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if !self.is_here() {
            // Devices are left alone: to drop one may mean to join threads that do not exist here.
            let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
            mem::forget(mem::take(state));
        }
    }
}

impl State {
    pub(super) fn entry(&mut self, name: ChannelName) -> Option<&mut Entry> {
        self.devices.get_mut(&name.device)?.channels.get_mut(name.channel)
    }

    /// Tells all subscribers that still listen.
    pub(super) fn tell(&mut self, event: DeviceEvent) {
        self.subscribers.retain(|subscriber| subscriber.send(event).is_ok());
    }

    /// Gives each client of shared channels the best channel for it, and takes those away that are
    /// no longer to be used.
    pub(super) fn rebalance(&mut self, registry: &Arc<Inner>) -> Closing {
        let Self { devices, table, .. } = self;
        let had: Vec<_> = table.iter().map(|row| row.place.get()).collect();
        let shared = |name| had.iter().flatten().find(|core| core.name() == name);
        let mut names = Vec::new();
        let mut candidates = Vec::new();
        for (&number, registered) in devices.iter().filter(|(_, device)| !device.in_removal) {
            for (index, entry) in registered.channels.iter().enumerate() {
                let name = ChannelName { device: number, channel: index };
                let Entry { info, usage, defective, .. } = entry;
                let available = match usage {
                    Usage::Free => true,
                    Usage::Exclusive { .. } => false,
                    // Without a row it is about to be closed.
                    Usage::Shared => shared(name).is_some(),
                };
                if available && !defective && !info.capabilities.contains(Capabilities::PRIVATE) {
                    let (capabilities, node) = (info.capabilities, info.numa_node);
                    names.push(name);
                    candidates.push(Candidate { capabilities, node });
                }
            }
        }
        let mut seats: Vec<_> = table
            .iter()
            .zip(&had)
            .map(|(&Row { mask, node, .. }, had)| {
                let name = had.as_ref().map(|core| core.name());
                let candidate = name.and_then(|name| names.binary_search(&name).ok());
                balance::Seat { mask, node, candidate }
            })
            .collect();
        balance::balance(&mut seats, &candidates);
        let mut cores: Vec<_> = names.iter().map(|&name| shared(name).cloned()).collect();
        for (row, seat) in table.iter().zip(seats) {
            let core = seat.candidate.map(|at| {
                let core =
                    cores[at].get_or_insert_with(|| open_later(devices, names[at], registry));
                Arc::clone(core)
            });
            row.place.set(core);
        }
        // All that anybody had; the new ones are in the rows.
        Closing { _cores: had.into_iter().flatten().chain(cores.into_iter().flatten()).collect() }
    }

    /// Who has channels of a device; `None` if there is no such device.
    pub(super) fn holders(&self, device: usize) -> Option<Vec<Holder>> {
        let channels = self.devices.get(&device)?.channels.iter().enumerate();
        let holders = channels.filter_map(|(channel, entry)| {
            let thread = match &entry.usage {
                Usage::Free => return None,
                Usage::Exclusive { thread } => Some(thread.clone()),
                Usage::Shared => None,
            };
            Some(Holder { channel: ChannelName { device, channel }.to_string(), thread })
        });
        Some(holders.collect())
    }

    /// How many clients a channel has.
    pub(super) fn users(&self, name: ChannelName, usage: &Usage) -> usize {
        match usage {
            Usage::Free => 0,
            Usage::Exclusive { .. } => 1,
            Usage::Shared => {
                let rows = self.table.iter().filter(|row| row.place.name() == Some(name));
                // Without a handle there is still the operation that it is not free for.
                rows.map(|row| row.handles).sum::<usize>().max(1)
            }
        }
    }
}

/// A core for a channel that is free, which is opened by the first who needs it.
fn open_later(
    devices: &mut BTreeMap<usize, Registered>,
    name: ChannelName,
    registry: &Arc<Inner>,
) -> Arc<Core> {
    let registered = devices.get_mut(&name.device).expect("a candidate's device is registered");
    let entry = &mut registered.channels[name.channel];
    entry.usage = Usage::Shared;
    entry.fallback = None;
    let lease = Lease::new(Arc::clone(registry), name);
    let (device, removing) = (&registered.device, &registered.removing);
    Arc::new(Core::new(lease, Arc::clone(device), Arc::clone(&entry.stats), Arc::clone(removing)))
}

impl Registered {
    pub(super) fn new(device: Arc<dyn DmaDevice>) -> Self {
        let channels = device.channels().iter().map(|info| Entry {
            info: info.clone(),
            stats: Arc::default(),
            fallback: None,
            usage: Usage::Free,
            defective: false,
        });
        let channels = channels.collect();
        Self { device, removing: Arc::default(), in_removal: false, channels }
    }
}

impl Usage {
    /// By one client, the calling thread.
    pub(super) fn exclusive() -> Self {
        let thread = thread::current();
        let number = || format!("{:?}", thread.id());
        Self::Exclusive { thread: thread.name().map_or_else(number, str::to_owned) }
    }

    pub(super) const fn is_free(&self) -> bool {
        matches!(self, Self::Free)
    }
}

impl Place {
    /// The channel, if there is one.
    pub(super) fn get(&self) -> Option<Arc<Core>> {
        self.lock().clone()
    }

    /// The same, and nothing is left.
    pub(super) fn take(&self) -> Option<Arc<Core>> {
        self.lock().take()
    }

    fn name(&self) -> Option<ChannelName> {
        self.lock().as_ref().map(|core| core.name())
    }

    /// Who calls it keeps what was here before: it is not to be dropped under a lock.
    fn set(&self, core: Option<Arc<Core>>) {
        *self.lock() = core;
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<Core>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
