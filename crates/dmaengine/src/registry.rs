//! The devices of a program, and who has which channel.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use crate::{
    Arena, Capabilities, ChannelInfo, ChannelStats, DmaChannel, DmaDevice, MapError, RequestError,
};

/// The devices of a program, by name: channel `M` of the device registered as number `N` is
/// `dma<N>chan<M>`, as in Linux's `/sys/class/dma`.
///
/// ```
/// use std::sync::Arc;
/// use dmaengine::{CpuDevice, Registry};
///
/// let registry = Registry::new();
/// registry.register(Arc::new(CpuDevice::new(2)));
/// let channel = registry.request("dma0chan1")?;
/// assert!(registry.request("dma0chan1").is_err(), "channels are exclusive");
/// assert_eq!(registry.list().iter().filter(|channel| channel.in_use).count(), 1);
/// # Ok::<(), dmaengine::LookupError>(())
/// ```
#[derive(Debug, Default)]
pub struct Registry {
    devices: Mutex<Vec<Registered>>,
}

#[derive(Debug)]
struct Registered {
    device: Arc<dyn DmaDevice>,
    channels: Vec<Entry>,
}

#[derive(Debug, Default)]
struct Entry {
    /// The [`Lease`]s: more than one for as long as a client still lets go of what the next already
    /// has.
    leases: Arc<AtomicUsize>,
    stats: Arc<ChannelStats>,
}

/// One line of [`Registry::list`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelListing {
    /// `dma<N>chan<M>`.
    pub name: String,
    /// The fixed properties.
    pub info: ChannelInfo,
    /// Whether a client has it.
    pub in_use: bool,
    /// Copies submitted so far.
    pub memcpy_count: u64,
    /// Bytes moved so far.
    pub bytes_transferred: u64,
}

/// Why [`Registry::request`] or [`Registry::request_matching`] gave no channel.
#[derive(Debug, thiserror::Error)]
pub enum LookupError {
    /// No device has a channel of that name.
    #[error("there is no channel {name}: `list` gives the names")]
    UnknownName {
        /// The name asked for.
        name: String,
    },
    /// No free channel has the properties asked for, or there is no device.
    #[error("no free channel matches: register a device, ask for less, or wait for a release")]
    NoMatch,
    /// The device refused.
    #[error("{name}: {source}")]
    Request {
        /// The channel's name.
        name: String,
        /// Why.
        source: RequestError,
    },
}

impl Registry {
    /// A registry without devices.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a device and returns its number.
    pub fn register(&self, device: Arc<dyn DmaDevice>) -> usize {
        let channels = device.channels().iter().map(|_| Entry::default()).collect();
        let mut devices = self.devices();
        devices.push(Registered { device, channels });
        devices.len() - 1
    }

    /// Maps `arena` for every device that is registered.
    ///
    /// # Errors
    ///
    /// The first device's [`MapError`]; later devices are not asked.
    pub fn map(&self, arena: &Arena) -> Result<(), MapError> {
        self.devices().iter().try_for_each(|registered| registered.device.map(arena))
    }

    /// Hands out the channel `name`.
    ///
    /// # Errors
    ///
    /// See [`LookupError`].
    pub fn request(&self, name: &str) -> Result<Channel, LookupError> {
        let devices = self.devices();
        let (device, channel) = parse_name(name)
            .filter(|&(device, channel)| {
                devices.get(device).is_some_and(|device| channel < device.channels.len())
            })
            .ok_or_else(|| LookupError::UnknownName { name: name.to_owned() })?;
        devices[device].request(device, channel)
    }

    /// Hands out the first free channel for which `filter` is true of its name and properties.
    /// [`Capabilities::PRIVATE`] channels are left out.
    ///
    /// # Errors
    ///
    /// [`LookupError::NoMatch`], or why the last channel that matched was refused.
    pub fn request_matching(
        &self,
        mut filter: impl FnMut(&str, &ChannelInfo) -> bool,
    ) -> Result<Channel, LookupError> {
        let mut error = LookupError::NoMatch;
        for (number, registered) in self.devices().iter().enumerate() {
            for (index, info) in registered.device.channels().iter().enumerate() {
                if info.capabilities.contains(Capabilities::PRIVATE)
                    || registered.channels[index].is_in_use()
                    || !filter(&channel_name(number, index), info)
                {
                    continue;
                }
                match registered.request(number, index) {
                    Ok(channel) => return Ok(channel),
                    Err(refused) => error = refused,
                }
            }
        }
        Err(error)
    }

    /// All channels, by device number and index.
    #[must_use]
    pub fn list(&self) -> Vec<ChannelListing> {
        self.devices().iter().enumerate().flat_map(|(number, device)| device.list(number)).collect()
    }

    /// The processor time that the own threads of all engines have used so far.
    #[must_use]
    pub fn cpu_time(&self) -> Duration {
        self.devices().iter().filter_map(|registered| registered.device.cpu_time()).sum()
    }

    fn devices(&self) -> MutexGuard<'_, Vec<Registered>> {
        // The vector is valid even if a device's method panicked under the lock.
        self.devices.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Registered {
    fn request(&self, number: usize, index: usize) -> Result<Channel, LookupError> {
        let name = channel_name(number, index);
        let Entry { leases, stats } = &self.channels[index];
        match self.device.request_channel(index) {
            Ok(raw) => {
                let lease = Some(Lease::new(leases));
                Ok(Channel { raw, name, stats: Arc::clone(stats), _lease: lease })
            }
            Err(source) => Err(LookupError::Request { name, source }),
        }
    }

    fn list(&self, number: usize) -> impl Iterator<Item = ChannelListing> {
        let channels = self.device.channels().iter().zip(&self.channels).enumerate();
        channels.map(move |(index, (info, entry))| ChannelListing {
            name: channel_name(number, index),
            info: info.clone(),
            in_use: entry.is_in_use(),
            memcpy_count: entry.stats.memcpy_count(),
            bytes_transferred: entry.stats.bytes_transferred(),
        })
    }
}

impl Entry {
    fn is_in_use(&self) -> bool {
        // Acquire: pairs with the release in `Lease`'s drop: who sees it free sees all that its last
        // user did.
        self.leases.load(Ordering::Acquire) > 0
    }
}

fn channel_name(device: usize, channel: usize) -> String {
    format!("dma{device}chan{channel}")
}

fn parse_name(name: &str) -> Option<(usize, usize)> {
    let (device, channel) = name.strip_prefix("dma")?.split_once("chan")?;
    let numbers = (device.parse().ok()?, channel.parse().ok()?);
    // One name each: not `dma+0chan01`.
    (channel_name(numbers.0, numbers.1) == name).then_some(numbers)
}

/// A channel that a client has, with its name and counters. A [`Queue`](crate::Queue) is made of
/// it. Dropping it releases the channel.
///
/// It can also be made of a bare [`DmaChannel`]; its name is then that of its engine.
pub struct Channel {
    pub(crate) raw: Box<dyn DmaChannel>,
    pub(crate) name: String,
    pub(crate) stats: Arc<ChannelStats>,
    /// After `raw`: fields are dropped in order, and it is free when its driver has let go. By then
    /// another client may have it.
    _lease: Option<Lease>,
}

/// One client's hold on a channel, counted.
#[derive(Debug)]
struct Lease(Arc<AtomicUsize>);

impl Lease {
    fn new(leases: &Arc<AtomicUsize>) -> Self {
        // Relaxed: the driver has handed the channel over already.
        leases.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(leases))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // Release: see `Entry::is_in_use`.
        self.0.fetch_sub(1, Ordering::Release);
    }
}

impl Channel {
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
    pub fn stats(&self) -> &Arc<ChannelStats> {
        &self.stats
    }
}

impl From<Box<dyn DmaChannel>> for Channel {
    fn from(raw: Box<dyn DmaChannel>) -> Self {
        let name = raw.info().engine.clone();
        Self { raw, name, stats: Arc::default(), _lease: None }
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel")
            .field("name", &self.name)
            .field("raw", &self.raw)
            .field("stats", &self.stats)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CpuDevice, Queue};

    #[test]
    fn names_are_exact() {
        assert_eq!(parse_name("dma0chan12"), Some((0, 12)));
        for name in
            ["", "dma", "dma0", "dmachan", "dma0chan", "dma00chan0", "dma+1chan0", "dma0chan0 "]
        {
            assert_eq!(parse_name(name), None, "{name:?}");
        }
    }

    #[test]
    fn channels_are_exclusive_and_their_counters_stay() {
        let registry = Registry::new();
        registry.register(Arc::new(CpuDevice::new(1)));
        assert_eq!(registry.register(Arc::new(CpuDevice::new(1))), 1);
        assert!(matches!(registry.request("dma2chan0"), Err(LookupError::UnknownName { .. })));
        assert!(matches!(registry.request("dma0chan1"), Err(LookupError::UnknownName { .. })));

        let first = registry.request("dma0chan0").unwrap();
        assert!(matches!(
            registry.request("dma0chan0"),
            Err(LookupError::Request { source: RequestError::InUse, .. })
        ));
        let second = registry.request_matching(|_, info| info.engine == "cpu").unwrap();
        assert_eq!((first.name(), second.name()), ("dma0chan0", "dma1chan0"));
        assert!(matches!(registry.request_matching(|_, _| true), Err(LookupError::NoMatch)));

        let mut queue = Queue::new(first);
        queue.copy(vec![1u8; 100], vec![0u8; 100], ()).unwrap();
        queue.wait(Duration::from_secs(10), |_| ()).unwrap();
        drop(queue);
        let listing = &registry.list()[0];
        assert!(!listing.in_use);
        assert_eq!((listing.memcpy_count, listing.bytes_transferred), (1, 100));
        assert!(registry.list()[1].in_use);
        assert!(registry.request("dma0chan0").is_ok());
    }

    #[test]
    fn a_client_that_lets_go_slowly_leaves_the_channel_to_the_next() {
        let registry = Registry::new();
        registry.register(Arc::new(CpuDevice::new(1)));
        let Channel { raw, _lease: lease, .. } = registry.request("dma0chan0").unwrap();
        drop(raw);
        assert!(registry.list()[0].in_use, "half released");
        let next = registry.request("dma0chan0").unwrap();
        drop(lease);
        assert!(registry.list()[0].in_use, "the next client has it");
        drop(next);
        assert!(!registry.list()[0].in_use);
    }
}
