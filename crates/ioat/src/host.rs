//! One stack on a TAP link with an engine: what the commands open.

use std::sync::Arc;

use dmaengine::{
    Arena, ArenaError, ArenaFull, DmaBuf, DmaDevice, Kind, LookupError, MapError, Registry,
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

/// A TCP/IP stack in this process, at the far end of a TAP interface.
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
        // One arena for the packets and for the buffers they are copied to: mapped once.
        let arena = Arena::new(tap.arena_len() + buffer_bytes.next_multiple_of(PAGE) + PAGE)?;
        device.map(&arena)?;
        let link = Tap::open(&arena, tap)?;
        let interface = link.info().name.clone();
        let registry = Registry::new();
        registry.register(device.clone());
        let channel = registry.request("dma0chan0")?;
        // Without an engine the stack copies by itself: a channel in between would only cost.
        let engine = (channel.info().kind != Kind::Cpu).then_some(channel);
        let stack = Stack::start(Box::new(link), engine, sockets)?;
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

    /// The name of the interface at the kernel's end.
    #[must_use]
    pub fn interface(&self) -> &str {
        &self.interface
    }

    /// A buffer that the engine can fill.
    ///
    /// # Errors
    ///
    /// [`ArenaFull`] if `buffer_bytes` are used up.
    pub fn buffer(&self, len: usize) -> Result<DmaBuf, ArenaFull> {
        self.arena.alloc(len)
    }
}
