//! Two stacks with a wire between them.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    sync::Arc,
    thread,
};

use dmaengine::{Arena, DmaDevice, Registry, ThreadsDevice};
use netdev::{BufferCounts, Wire, WireConfig};
use netdma::Copybreak;
use netstack::Ipv4Cidr;
use sockets::{Config, Stack, TcpListener, TcpStream};

mod failing;

const PORT: u16 = 7;
pub(crate) const SERVER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 2), PORT);

fn config(host: u8) -> Config {
    let mut config =
        Config::new(Ipv4Cidr { address: Ipv4Addr::new(10, 0, 0, host), prefix_len: 24 });
    config.copybreak = Copybreak::Bytes(0);
    config
}

/// What the server copies with: a thread, which fails if the program says so.
fn device() -> Arc<dyn DmaDevice> {
    match crate::FAILS {
        true => failing::device(1),
        false => Arc::new(ThreadsDevice::new(1)),
    }
}

/// To be asked after a long stream: an engine that is to fail has failed.
pub(crate) fn check_faults(server: &Stack) {
    let counters = server.statistics().offload;
    assert!(!crate::FAILS || counters.copies_repeated > 0, "nothing has failed: {counters:?}");
}

/// A client's and a server's stack.
pub(crate) fn pair() -> (Stack, Stack) {
    let (client, server, _arena) = pair_with_arena();
    (client, server)
}

/// As [`pair`], with some room in an arena that the server's engine can reach.
pub(crate) fn pair_with_arena() -> (Stack, Stack, Arena) {
    let buffers = BufferCounts { small: 2048, large: 128 };
    pair_on(device(), &WireConfig { buffers, ..WireConfig::default() })
}

/// As [`pair_with_arena`], with this wire, and this device for the server.
pub(crate) fn pair_on(device: Arc<dyn DmaDevice>, wire: &WireConfig) -> (Stack, Stack, Arena) {
    let arena = Arena::new(2 * wire.arena_len() + (4 << 20)).unwrap();
    let (a, b) = Wire::pair(&arena, wire).unwrap();
    device.map(&arena).unwrap();
    let registry = Registry::new();
    registry.register(device);
    let engine = registry.request("dma0chan0").unwrap();
    let client = Stack::start(Box::new(a), None, &config(1)).unwrap();
    let server = Stack::start(Box::new(b), Some(engine), &config(2)).unwrap();
    (client, server, arena)
}

pub(crate) fn connected() -> (TcpStream, TcpStream) {
    let (client, server) = pair();
    connect(&client, &TcpListener::bind(&server, SERVER).unwrap())
}

pub(crate) fn connect(client: &Stack, listener: &TcpListener) -> (TcpStream, TcpStream) {
    thread::scope(|scope| {
        let accepting = scope.spawn(|| listener.accept().unwrap().0);
        let client = TcpStream::connect(client, SERVER).unwrap();
        (client, accepting.join().unwrap())
    })
}

pub(crate) fn pattern(len: usize, seed: u8) -> Vec<u8> {
    (0..len).map(|i| (i * 7 + i / 253) as u8 ^ seed).collect()
}
