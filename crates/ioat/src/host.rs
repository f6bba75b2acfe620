//! One stack on a link with an engine: what the commands open.

use std::sync::Arc;

use dmaengine::{
    Arena, ArenaError, ArenaFull, DmaBuf, DmaDevice, Heap, Kind, LookupError, MapError, Registry,
};
use netdev::{Link, Tap, TapConfig};
use netstack::Ipv4Cidr;
use sockets::{Config, Stack, StartError};

use crate::engine::{self, EngineName};

/// Large buffers start at a page.
const PAGE: usize = 4096;

/// How to open a [`Host`].
#[derive(Clone, Debug)]
pub struct HostConfig {
    /// The link.
    pub tap: TapConfig,
    /// The stack.
    pub sockets: Config,
    /// What copies received data.
    pub engine: EngineName,
    /// Memory for [`Host::buffer`], in bytes.
    pub buffer_bytes: usize,
}

impl HostConfig {
    /// A stack at `address` behind the TAP interface `interface`, with defaults for all else and
    /// 4 MiB for buffers.
    #[must_use]
    pub fn new(interface: &str, address: Ipv4Cidr, engine: EngineName) -> Self {
        Self {
            tap: TapConfig::new(interface),
            sockets: Config::new(address),
            engine,
            buffer_bytes: 4 << 20,
        }
    }
}

/// A TCP/IP stack in this process, with its engine: at the far end of a TAP interface, or on another
/// link.
#[derive(Debug)]
pub struct Host {
    stack: Stack,
    arena: Arena,
    device: Arc<dyn DmaDevice>,
    interface: String,
}

/// Why a host could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The engine.
    #[error(transparent)]
    Engine(#[from] engine::OpenError),
    /// The engine's channel.
    #[error(transparent)]
    Channel(#[from] LookupError),
    /// Memory for packets and buffers.
    #[error(transparent)]
    Memory(#[from] ArenaError),
    /// The engine cannot reach the memory.
    #[error(transparent)]
    Map(#[from] MapError),
    /// The TAP link.
    #[error(transparent)]
    Tap(#[from] netdev::OpenError),
    /// Room for the frames of another link.
    #[error("the link's frames do not fit: {0}")]
    Frames(#[from] ArenaFull),
    /// The stack.
    #[error(transparent)]
    Start(#[from] StartError),
}

impl Host {
    /// Opens engine, memory and link, and starts the stack.
    ///
    /// # Errors
    ///
    /// See [`OpenError`].
    pub fn open(config: &HostConfig) -> Result<Self, OpenError> {
        Self::with_device(config, config.engine.open()?)
    }

    /// As [`open`](Self::open), with a device that is open already in place of the configured
    /// engine: a device model with faults, for example. Its first channel is used.
    ///
    /// # Errors
    ///
    /// See [`OpenError`].
    pub fn with_device(config: &HostConfig, device: Arc<dyn DmaDevice>) -> Result<Self, OpenError> {
        let HostConfig { tap, sockets, engine: _, buffer_bytes } = config;
        Self::on_link(device, sockets, tap.arena_len(), *buffer_bytes, |arena| {
            Ok(Box::new(Tap::open(arena, tap)?))
        })
    }

    /// A host on a link that `open` makes, which takes `link_bytes` of the arena that it is given.
    ///
    /// # Errors
    ///
    /// See [`OpenError`].
    pub fn on_link(
        device: Arc<dyn DmaDevice>,
        sockets: &Config,
        link_bytes: usize,
        buffer_bytes: usize,
        open: impl FnOnce(&Arena) -> Result<Box<dyn Link>, OpenError>,
    ) -> Result<Self, OpenError> {
        // One arena for the packets and for the buffers they are copied to: mapped once.
        let arena = Arena::new(link_bytes + buffer_bytes.next_multiple_of(PAGE) + PAGE)?;
        device.map(&arena)?;
        let link = open(&arena)?;
        let interface = link.info().name.clone();
        let registry = Registry::new();
        registry.register(device.clone());
        let channel = registry.request("dma0chan0")?;
        // Without an engine the stack copies by itself: a channel in between would only cost.
        let engine = (channel.info().kind != Kind::Cpu).then_some(channel);
        let stack = Stack::start(link, engine, sockets)?;
        Ok(Self { stack, arena, device, interface })
    }

    /// The stack, for its sockets.
    #[must_use]
    pub const fn stack(&self) -> &Stack {
        &self.stack
    }

    /// The engine's device.
    #[must_use]
    pub fn device(&self) -> &dyn DmaDevice {
        &*self.device
    }

    /// The link's name: that of the interface at the kernel's end of a TAP link.
    #[must_use]
    pub fn interface(&self) -> &str {
        &self.interface
    }

    /// Lets the engine reach the program's heap from now on, so that it can fill ordinary buffers:
    /// `heap` is the program's global allocator.
    ///
    /// ```
    /// use ioat::host::Host;
    /// use dmaengine::Heap;
    ///
    /// #[global_allocator]
    /// static HEAP: Heap = Heap::new();
    ///
    /// fn receive(host: &Host) -> Result<Vec<u8>, Box<dyn std::error::Error>> {
    ///     host.map_heap(&HEAP)?;
    ///     let buffer = vec![0; 65536];
    ///     // … read into it from a stream of `host.stack()`.
    ///     Ok(buffer)
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// [`OpenError::Memory`] and [`OpenError::Map`]. Such buffers are then filled by the CPU.
    pub fn map_heap(&self, heap: &'static Heap) -> Result<(), OpenError> {
        Ok(self.device.map(&heap.arena()?)?)
    }

    /// A buffer that the engine can fill, whatever the program's allocator is.
    ///
    /// # Errors
    ///
    /// [`ArenaFull`] if `buffer_bytes` are used up.
    pub fn buffer(&self, len: usize) -> Result<DmaBuf, ArenaFull> {
        self.arena.alloc(len)
    }
}
