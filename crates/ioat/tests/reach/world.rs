//! Two stacks with a wire between them, of which one has an engine, and the streams of a test.

use std::{
    io::Write,
    net::{Ipv4Addr, SocketAddrV4},
    sync::Arc,
    thread,
    time::Duration,
};

use dmaengine::{Arena, DmaDevice, FaultPlan, Faults, Layered, Registry};
use ioat::{engine::EngineName, lab::Pattern};
use netdev::{BufferCounts, Wire, WireConfig};
use netdma::{Copybreak, Counters};
use netstack::Ipv4Cidr;
use sockets::{Config, Stack, TcpListener, TcpStream};

use crate::HEAP;

/// Longer than anything that is waited for.
pub(crate) const LONG: Duration = Duration::from_secs(60);

const SERVER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 2), 7);

/// The engines that a test is done with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Engine {
    /// None: the CPU copies.
    Cpu,
    Threads,
    Model,
    /// Copy threads, and copies that end late and out of order, or fail; targets are garbage before.
    Late,
    /// The same of the driver on the model.
    LateModel,
}

impl Engine {
    pub(crate) const ALL: [Self; 5] =
        [Self::Cpu, Self::Threads, Self::Model, Self::Late, Self::LateModel];

    fn open(self) -> Option<Arc<dyn DmaDevice>> {
        let model = EngineName::Model(ioat_model::Version::default());
        let open = |name: EngineName| name.open().expect("a thread");
        let late = |device| -> Arc<dyn DmaDevice> {
            let plan: Result<FaultPlan, _> =
                "delay@1/2:3ms,delay@1/5:5ops,fail@1/40:write-error,full@1/9,reorder,poison"
                    .parse();
            Arc::new(Layered::new(device, Faults::new(plan.expect("a plan"))))
        };
        match self {
            Self::Cpu => None,
            Self::Threads => Some(open(EngineName::Threads(1))),
            Self::Model => Some(open(model)),
            Self::Late => Some(late(open(EngineName::Threads(1)))),
            Self::LateModel => Some(late(open(model))),
        }
    }
}

/// A client's stack and a server's, with the engine.
pub(crate) struct World {
    client: Stack,
    pub(crate) server: Stack,
    listener: TcpListener,
}

impl World {
    pub(crate) fn new(engine: Engine) -> Self {
        let wire = WireConfig {
            buffers: BufferCounts { small: 2048, large: 128 },
            ..WireConfig::default()
        };
        let arena = Arena::new(2 * wire.arena_len() + 4096).expect("memory");
        let (a, b) = Wire::pair(&arena, &wire).expect("room");
        let channel = engine.open().map(|device| {
            device.map(&arena).expect("room");
            // This is what a program does for its ordinary buffers.
            device.map(&HEAP.arena().expect("memory")).expect("room");
            let registry = Registry::new();
            registry.register(device);
            registry.request("dma0chan0").expect("free")
        });
        let config = |host| {
            let address = Ipv4Cidr { address: Ipv4Addr::new(10, 0, 0, host), prefix_len: 24 };
            Config { copybreak: Copybreak::Bytes(0), ..Config::new(address) }
        };
        let client = Stack::start(Box::new(a), None, &config(1)).expect("a thread");
        let server = Stack::start(Box::new(b), channel, &config(2)).expect("a thread");
        let listener = TcpListener::bind(&server, SERVER).expect("free");
        Self { client, server, listener }
    }

    /// A connection: the client's end and the server's.
    pub(crate) fn connect(&self) -> (TcpStream, TcpStream) {
        thread::scope(|scope| {
            let accepting = scope.spawn(|| self.listener.accept().expect("a client").0);
            let client = TcpStream::connect(&self.client, SERVER).expect("a server");
            let server = accepting.join().expect("no panic");
            server.set_read_timeout(Some(LONG)).expect("not zero");
            (client, server)
        })
    }

    pub(crate) fn counters(&self) -> Counters {
        self.server.statistics().offload
    }
}

/// Sends the first `len` bytes of `pattern`, in pieces of many lengths.
pub(crate) fn send(stream: &TcpStream, pattern: Pattern, len: u64) {
    let mut piece = vec![0; 100_000];
    let mut offset = 0;
    while offset < len {
        let now = (1 + offset % 99_991).min(len - offset);
        let piece = &mut piece[..now as usize];
        pattern.fill(offset, piece);
        let mut stream = stream;
        stream.write_all(piece).expect("the receiver takes it");
        offset += now;
    }
}
