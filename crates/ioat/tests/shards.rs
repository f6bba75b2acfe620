//! Two shards at once, with the channels of one device: each has its stacks, its lock and its
//! connections, and order within a connection is its own.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddrV4},
    sync::Arc,
    thread,
};

use dmaengine::{Arena, DmaDevice, Registry, RequestError};
use ioat::{
    engine::{EngineName, model},
    lab::Pattern,
};
use ioat_model::{Faults, in_process};
use netdev::{Wire, WireConfig};
use netdma::{Copybreak, CpuCause};
use netstack::Ipv4Cidr;
use sockets::{Config, Stack, TcpListener, TcpStream};

const CONNECTIONS: u64 = 4;
const BYTES: u64 = 5_000_003;
const READ: usize = 64 << 10;
const RECEIVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

struct Shard {
    sender: Stack,
    receiver: Stack,
    arena: Arena,
}

impl Shard {
    fn new(registry: &Registry, device: &dyn DmaDevice, channel: usize) -> Self {
        let wire = WireConfig::default();
        let arena = Arena::new(2 * wire.arena_len() + (4 << 20)).unwrap();
        device.map(&arena).unwrap();
        let (a, b) = Wire::pair(&arena, &wire).unwrap();
        let engine = registry.request(&format!("dma0chan{channel}")).unwrap();
        let config = |host| {
            let address = Ipv4Addr::new(10, 0, 0, host);
            let network = Ipv4Cidr { address, prefix_len: 24 };
            Config { copybreak: Copybreak::Bytes(0), ..Config::new(network) }
        };
        let sender = Stack::start(Box::new(a), None, &config(1)).unwrap();
        let receiver = Stack::start(Box::new(b), Some(engine), &config(2)).unwrap();
        Self { sender, receiver, arena }
    }

    /// Streams over all connections at once. Every byte is checked.
    fn run(&self, shard: u64) {
        thread::scope(|scope| {
            for number in 0..CONNECTIONS {
                // The same addresses and ports in both shards, and other bytes.
                let pattern = Pattern::new(shard << 32 | number);
                let at = SocketAddrV4::new(RECEIVER, 7000 + number as u16);
                let listener = TcpListener::bind(&self.receiver, at).unwrap();
                scope.spawn(move || {
                    let (mut stream, _) = listener.accept().unwrap();
                    let mut buffer = self.arena.alloc(READ).unwrap();
                    let mut received = 0;
                    loop {
                        let len = stream.read(&mut buffer).unwrap();
                        if len == 0 {
                            break;
                        }
                        assert_eq!(pattern.first_wrong(received, &buffer[..len]), None);
                        received += len as u64;
                    }
                    assert_eq!(received, BYTES);
                });
                scope.spawn(move || {
                    let mut stream = TcpStream::connect(&self.sender, at).unwrap();
                    let mut data = vec![0; BYTES as usize];
                    pattern.fill(0, &mut data);
                    stream.write_all(&data).unwrap();
                    stream.shutdown(Shutdown::Write).unwrap();
                });
            }
        });
    }
}

/// Opens both shards, and runs them at the same time, some times.
fn run(device: Arc<dyn DmaDevice>, rounds: u64) -> [Shard; 2] {
    let registry = Registry::new();
    registry.register(Arc::clone(&device));
    let shards = [0, 1].map(|channel| Shard::new(&registry, &*device, channel));
    let taken = registry.request("dma0chan1").unwrap_err();
    assert!(taken.to_string().contains(&RequestError::InUse.to_string()), "{taken}");
    for round in 0..rounds {
        thread::scope(|scope| {
            for (shard, number) in shards.iter().zip(0..) {
                scope.spawn(move || shard.run(2 * round + number));
            }
        });
    }
    for shard in &shards {
        let counters = shard.receiver.statistics().offload;
        let all = counters.bytes_by_engine + counters.bytes_by_cpu_total();
        assert_eq!(all, rounds * CONNECTIONS * BYTES, "{counters:?}");
        assert!(counters.bytes_by_engine > 0, "{counters:?}");
    }
    shards
}

#[test]
fn two_shards_have_a_channel_of_one_device_each() {
    run(EngineName::Threads(2).open().unwrap(), 2);
    let mut config = in_process::Config::default();
    config.model.channels = 2;
    run(model::open(config, ioatdma::Options::default()).unwrap(), 2);
}

#[test]
fn a_channel_that_fails_leaves_the_other_shard_alone() {
    // After the driver's self test of each channel, again and again.
    let faults = [
        "hang@chan0.100,halt@chan0.200,error@chan0.300:read-data,lose-completion@chan0.400",
        "error@chan0.1/200:write-data",
    ];
    for faults in faults {
        let mut config = in_process::Config::default();
        config.model.channels = 2;
        config.model.faults = faults.parse::<Faults>().unwrap();
        let [first, second] = run(model::open(config, ioatdma::Options::default()).unwrap(), 3);
        let [first, second] = [first, second].map(|shard| shard.receiver.statistics().offload);
        assert!(first.copies_repeated > 0, "{faults}: {first:?}");
        assert!(first.bytes_by_cpu[CpuCause::Failed as usize] > 0, "{faults}: {first:?}");
        // On a busy machine the device may be late for 200 ms.
        let is_late = second.engine_resets > 0;
        assert!(second.copies_repeated == 0 || is_late, "{faults}: {second:?}");
    }
}
