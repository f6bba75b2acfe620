//! One channel of an engine, its two stacks, and their connections.

use std::{
    io,
    net::{Ipv4Addr, SocketAddrV4},
    num::NonZeroUsize,
    sync::Arc,
    thread::JoinHandle,
    time::Duration,
};

use dmaengine::{Arena, Channel};
use netdev::{BufferCounts, Wire, WireConfig};
use netdma::{Copybreak, Counters};
use netstack::{Ipv4Cidr, TcpConfig};
use sockets::{Config, Stack, TcpListener};

use super::{
    SoakError,
    control::Control,
    fork::Shelf,
    orders::Device,
    random::Random,
    readers::{self, Buffer},
    senders,
};

const RECEIVER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
const SENDER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// Of the first connection; the next has the next.
const FIRST_PORT: u16 = 9000;

/// The longest read.
const BUFFER_LEN: usize = 128 << 10;
/// Buffers that a ring has.
const POSTED: usize = 4;
/// Reads that are not longer are the CPU's, so that there are some.
const COPYBREAK: Copybreak = Copybreak::Bytes(64);

/// A shard.
pub(super) struct Shard {
    device: Arc<Device>,
    arena: Arena,
    sender: Stack,
    receiver: Stack,
    connections: usize,
}

impl Shard {
    /// Opens a shard on each channel of the device, up to two, and shares `connections` out.
    pub(super) fn open_all(
        device: &Arc<Device>,
        connections: NonZeroUsize,
    ) -> Result<Vec<Self>, SoakError> {
        let channels = device.channels()?;
        let count = channels.len();
        let shards = channels.into_iter().enumerate().map(|(index, channel)| {
            let connections = (connections.get() + index) / count;
            Self::open(device, channel, connections, index % 2 == 0)
        });
        shards.collect()
    }

    fn open(
        device: &Arc<Device>,
        channel: Channel,
        connections: usize,
        super_frames: bool,
    ) -> Result<Self, SoakError> {
        // A queue for all that the senders may have under way.
        let (small, large) = if super_frames { (4096, 128) } else { (8192, 1) };
        let buffers = BufferCounts { small, large };
        let wire =
            WireConfig { buffers, queue: small, offload: super_frames, ..WireConfig::default() };
        let buffers = (connections * POSTED * (BUFFER_LEN + 4096)).next_multiple_of(4096);
        let arena = Arena::new(2 * wire.arena_len() + buffers + 4096)?;
        device.device.map(&arena)?;
        let (a, b) = Wire::pair(&arena, &wire)?;
        let config = |address| {
            let tcp = TcpConfig {
                // All of it is written to, and freed with each connection.
                send_buffer: 256 << 10,
                // The same ports again and again, and no timers when all stands still.
                time_wait: Duration::from_millis(100),
                ..TcpConfig::default()
            };
            let network = Ipv4Cidr { address, prefix_len: 24 };
            Config { tcp, copybreak: COPYBREAK, ..Config::new(network) }
        };
        let sender = Stack::start(Box::new(a), None, &config(SENDER))?;
        let receiver = Stack::start(Box::new(b), Some(channel), &config(RECEIVER))?;
        Ok(Self { device: Arc::clone(device), arena, sender, receiver, connections })
    }

    /// Starts the threads of all connections. Returns where their readers leave received data.
    pub(super) fn start(
        &self,
        control: &Arc<Control>,
        seeds: &mut Random,
        threads: &mut Vec<JoinHandle<()>>,
    ) -> Result<Vec<Arc<Shelf>>, SoakError> {
        let mut shelves = Vec::new();
        let mut polled = (Vec::new(), Vec::new());
        for number in 0..self.connections {
            let port = FIRST_PORT + u16::try_from(number).unwrap_or(u16::MAX - FIRST_PORT);
            let address = SocketAddrV4::new(RECEIVER, port);
            let listener = TcpListener::bind(&self.receiver, address)?;
            let in_arena = number / 3 % 2 == 0;
            match number % 3 {
                0 => {
                    let buffer = self.buffer(in_arena)?;
                    let shelf = new_shelf(&mut shelves);
                    self.reader(threads, control, seeds, "soak-blocks", move |control, random| {
                        readers::block(&listener, buffer, &shelf, control, random)
                    })?;
                }
                1 => {
                    polled.0.push(listener);
                    polled.1.push(self.buffer(in_arena)?);
                }
                _ => {
                    let shelf = new_shelf(&mut shelves);
                    let is_task = number % 2 == 0;
                    if in_arena {
                        let buffers: Result<Vec<_>, _> =
                            (0..POSTED).map(|_| self.arena.alloc(BUFFER_LEN)).collect();
                        let buffers = buffers.map_err(io::Error::other)?;
                        self.reader(threads, control, seeds, "soak-posts", move |control, _| {
                            readers::post(&listener, buffers, is_task, &shelf, control)
                        })?;
                    } else {
                        let buffers = vec![vec![0; BUFFER_LEN]; POSTED];
                        self.reader(threads, control, seeds, "soak-posts", move |control, _| {
                            readers::post(&listener, buffers, is_task, &shelf, control)
                        })?;
                    }
                }
            }
            let (stack, control, random) = (self.sender.clone(), Arc::clone(control), seeds.fork());
            let body = {
                let control = Arc::clone(&control);
                move || {
                    if let Err(error) = senders::send(&stack, address, &control, random) {
                        control.fail(format!("a sender's call failed: {error}"));
                    }
                }
            };
            threads.push(control.spawn("soak-sends", body)?);
        }
        if !polled.0.is_empty() {
            let (stack, shelf) = (self.receiver.clone(), new_shelf(&mut shelves));
            let (listeners, buffers) = polled;
            self.reader(threads, control, seeds, "soak-polls", move |control, random| {
                readers::poll(&stack, &listeners, buffers, &shelf, control, random)
            })?;
        }
        Ok(shelves)
    }

    fn reader(
        &self,
        threads: &mut Vec<JoinHandle<()>>,
        control: &Arc<Control>,
        seeds: &mut Random,
        name: &str,
        read: impl FnOnce(&Control, Random) -> Result<(), String> + Send + 'static,
    ) -> io::Result<()> {
        let (own, random) = (Arc::clone(control), seeds.fork());
        let engine = self.device.name.to_string();
        threads.push(control.spawn(name, move || {
            if let Err(error) = read(&own, random) {
                own.fail(format!("{engine}: {error}"));
            }
        })?);
        Ok(())
    }

    fn buffer(&self, in_arena: bool) -> io::Result<Buffer> {
        Ok(match in_arena {
            true => Buffer::Arena(self.arena.alloc(BUFFER_LEN).map_err(io::Error::other)?),
            false => Buffer::Heap(vec![0; BUFFER_LEN]),
        })
    }

    pub(super) fn is_of(&self, device: &Arc<Device>) -> bool {
        Arc::ptr_eq(&self.device, device)
    }

    pub(super) const fn connections(&self) -> usize {
        self.connections
    }

    pub(super) fn offload(&self) -> Counters {
        self.receiver.statistics().offload
    }

    /// Whether no memory is charged, and nothing is with the engine.
    pub(super) fn is_idle(&self) -> bool {
        [&self.sender, &self.receiver].iter().all(|stack| {
            let statistics = stack.statistics();
            (statistics.receive_charged, statistics.bytes_in_flight) == (0, 0)
        })
    }

    /// Closes all that is left. Fails if something of the arena is still out.
    pub(super) fn close(self) -> Result<(), String> {
        let Self { device, arena, sender, receiver, .. } = self;
        drop((sender, receiver));
        match arena.alloc(arena.len()) {
            Ok(_all) => Ok(()),
            Err(full) => Err(format!("{}: packets or buffers were lost: {full}", device.name)),
        }
    }
}

fn new_shelf(shelves: &mut Vec<Arc<Shelf>>) -> Arc<Shelf> {
    let shelf = Arc::new(Shelf::default());
    shelves.push(Arc::clone(&shelf));
    shelf
}
