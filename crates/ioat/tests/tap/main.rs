//! Our stack against the kernel's TCP, over TAP, in both directions and with every engine.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddrV4, TcpListener as KernelListener, TcpStream as KernelStream},
    process::ExitCode,
};

use dmaengine::DmaBuf;
use ioat::{
    engine::EngineName,
    host::{Host, HostConfig},
    host_side,
    lab::Pattern,
};
use netdma::Copybreak;
use netstack::Ipv4Cidr;
use sockets::{TcpListener, TcpStream};

use crate::{
    engines::{CPU, ENGINES, Engine, MODEL},
    namespace::{run, tests},
    waiting::PATIENCE,
};

mod endings;
mod engines;
mod faults;
#[path = "../namespace/mod.rs"]
mod namespace;
mod network;
mod streams;
#[path = "../waiting/mod.rs"]
mod waiting;

fn main() -> ExitCode {
    run(tests![
        streams::the_kernel_sends_and_we_receive_every_byte,
        streams::we_send_and_the_kernel_receives_every_byte,
        streams::small_writes_are_echoed,
        streams::many_connections_at_once_keep_their_bytes_apart,
        streams::memory_that_the_engine_cannot_reach_is_filled_by_the_cpu,
        streams::a_peer_that_does_not_read_is_probed_and_gets_every_byte,
        endings::each_direction_ends_by_itself,
        endings::a_reset_comes_after_the_data_before_it,
        endings::a_peer_that_vanishes_lets_calls_time_out,
        endings::a_link_that_is_deleted_ends_all_calls,
        endings::nobody_listens_at_the_kernels_end,
        endings::nobody_listens_at_our_end,
        network::echo_requests_are_answered,
        network::udp_is_refused,
        faults::an_engine_that_fails_under_a_stream_comes_back,
    ])
}

const OURS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
const KERNELS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const PORT: u16 = 9000;
const INTERFACE: &str = "ioat0";

/// Bytes of a stream that is meant to be long.
const LONG: u64 = 100_000_003;
/// Bytes of a read or write that is meant to be large.
const PIECE: usize = 256 << 10;

fn host_config(engine: EngineName) -> HostConfig {
    let mut config = HostConfig::new(INTERFACE, Ipv4Cidr { address: OURS, prefix_len: 24 }, engine);
    // The engine is to copy, whether it pays or not.
    config.sockets.copybreak = Copybreak::LINUX;
    config
}

/// A stack of ours, with the kernel at the other end of its link.
fn host(engine: Engine) -> Host {
    configured(Host::with_device(&host_config(engine.name()), engine.open()).unwrap())
}

fn configured(host: Host) -> Host {
    let kernels =
        host_side::configure(host.interface(), Ipv4Cidr { address: OURS, prefix_len: 24 });
    assert_eq!(kernels.unwrap(), KERNELS);
    host
}

/// A connection that the kernel opened: our end and the kernel's.
fn connected(host: &Host) -> (TcpStream, KernelStream) {
    let listener = TcpListener::bind(host.stack(), SocketAddrV4::new(OURS, PORT)).unwrap();
    let kernels = kernel_connects(listener.local_addr());
    (accept(&listener), kernels)
}

fn kernel_connects(to: SocketAddrV4) -> KernelStream {
    let stream = KernelStream::connect_timeout(&to.into(), PATIENCE).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn accept(listener: &TcpListener) -> TcpStream {
    let (stream, _) = listener.accept_timeout(PATIENCE).unwrap();
    with_patience(stream)
}

fn we_connect(host: &Host, to: &KernelListener) -> TcpStream {
    let to = SocketAddrV4::new(KERNELS, to.local_addr().unwrap().port());
    with_patience(TcpStream::connect(host.stack(), to).unwrap())
}

fn with_patience(stream: TcpStream) -> TcpStream {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn buffer(host: &Host) -> DmaBuf {
    host.buffer(PIECE).unwrap()
}

/// Writes the first `len` bytes of the pattern.
fn send(stream: &mut impl Write, pattern: Pattern, len: u64) -> io::Result<()> {
    let mut piece = vec![0; PIECE];
    let mut sent = 0;
    while sent < len {
        let piece = &mut piece[..PIECE.min((len - sent) as usize)];
        pattern.fill(sent, piece);
        stream.write_all(piece)?;
        sent += piece.len() as u64;
    }
    Ok(())
}

/// Reads a stream to its end and checks every byte. Returns its length.
fn check(stream: &mut impl Read, buffer: &mut [u8], pattern: Pattern) -> io::Result<u64> {
    let mut received = 0;
    loop {
        let len = stream.read(buffer)?;
        if len == 0 {
            return Ok(received);
        }
        assert_eq!(pattern.first_wrong(received, &buffer[..len]), None, "a wrong byte");
        received += len as u64;
    }
}
