//! How connections end, and how they do not begin.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, SocketAddrV4, TcpListener as KernelListener, TcpStream as KernelStream},
    thread,
    time::{Duration, Instant},
};

use ioat::{lab::Pattern, netlink::Netlink};
use rustix::net::sockopt::set_socket_linger;
use sockets::TcpStream;

use crate::{
    CPU, ENGINES, INTERFACE, KERNELS, OURS, PIECE, PORT, buffer, check, connected, host, send,
    waiting::{PATIENCE, until},
};

pub(crate) fn each_direction_ends_by_itself() {
    const BYTES: u64 = 1_000_001;
    let (there, back) = (Pattern::new(5), Pattern::new(6));
    for engine in ENGINES {
        let host = host(engine);
        let mut buffer = buffer(&host);

        // The kernel ends first and still receives.
        let (mut ours, mut kernels) = connected(&host);
        let kernel = thread::spawn(move || {
            send(&mut kernels, there, BYTES).unwrap();
            kernels.shutdown(Shutdown::Write).unwrap();
            check(&mut kernels, &mut vec![0; PIECE], back).unwrap()
        });
        assert_eq!(check(&mut ours, &mut buffer, there).unwrap(), BYTES);
        assert_eq!(ours.read(&mut buffer).unwrap(), 0, "the end stays");
        send(&mut ours, back, BYTES).unwrap();
        drop(ours);
        assert_eq!(kernel.join().unwrap(), BYTES);

        // We end first and still receive.
        let (mut ours, mut kernels) = connected(&host);
        let kernel = thread::spawn(move || {
            let received = check(&mut kernels, &mut vec![0; PIECE], back).unwrap();
            send(&mut kernels, there, BYTES).unwrap();
            received
        });
        send(&mut ours, back, BYTES).unwrap();
        ours.shutdown(Shutdown::Write).unwrap();
        assert_eq!(ours.write(b"more").unwrap_err().kind(), ErrorKind::BrokenPipe);
        assert_eq!(check(&mut ours, &mut buffer, there).unwrap(), BYTES);
        assert_eq!(kernel.join().unwrap(), BYTES);
    }
}

pub(crate) fn a_reset_comes_after_the_data_before_it() {
    const BYTES: u64 = 100_000;
    let pattern = Pattern::new(7);
    for engine in ENGINES {
        let host = host(engine);
        let (mut ours, mut kernels) = connected(&host);
        send(&mut kernels, pattern, BYTES).unwrap();
        let queued = || ours.tcp_info().map_or(0, |info| info.receive_queue);
        until("all data has come", || queued() == BYTES as usize);
        // No lingering at all: the kernel resets the connection.
        set_socket_linger(&kernels, Some(Duration::ZERO)).unwrap();
        drop(kernels);
        let resets = || host.stack().statistics().protocols.tcp.resets_received;
        until("the reset has come", || resets() == 1);

        let mut buffer = buffer(&host);
        let mut received = 0;
        let error = loop {
            match ours.read(&mut buffer[..30_000]) {
                Ok(0) => panic!("a reset is no end of the stream"),
                Ok(len) => {
                    assert_eq!(pattern.first_wrong(received, &buffer[..len]), None);
                    received += len as u64;
                }
                Err(error) => break error,
            }
        };
        assert_eq!((received, error.kind()), (BYTES, ErrorKind::ConnectionReset));
        assert!(ours.write(b"more").is_err());
    }
}

pub(crate) fn a_peer_that_vanishes_lets_calls_time_out() {
    const TIMEOUT: Duration = Duration::from_millis(200);
    let pattern = Pattern::new(8);
    let host = host(CPU);
    let (mut ours, mut kernels) = connected(&host);
    let mut netlink = Netlink::open().unwrap();
    let link = netlink.link(INTERFACE).unwrap().index;
    netlink.set_down(link).unwrap();

    ours.set_read_timeout(Some(TIMEOUT)).unwrap();
    let started = Instant::now();
    let error = ours.read(&mut [0; 100]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    assert!(started.elapsed() >= TIMEOUT, "it waits as long as it was told");

    ours.set_write_timeout(Some(TIMEOUT)).unwrap();
    let mut sent = 0;
    let mut piece = vec![0; PIECE];
    let error = loop {
        pattern.fill(sent, &mut piece);
        match ours.write(&piece) {
            Ok(len) => sent += len as u64,
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}");
    assert!(sent > 0, "the send buffer takes something first");

    // It comes back, and nothing was lost.
    netlink.set_up(link).unwrap();
    let kernel = thread::spawn(move || check(&mut kernels, &mut vec![0; PIECE], pattern).unwrap());
    drop(ours);
    assert_eq!(kernel.join().unwrap(), sent);
}

pub(crate) fn a_link_that_is_deleted_ends_all_calls() {
    for engine in ENGINES {
        let host = host(engine);
        let (mut ours, kernels) = connected(&host);
        let mut buffer = buffer(&host);
        let reading = thread::spawn(move || ours.read(&mut buffer).unwrap_err().kind());
        let mut netlink = Netlink::open().unwrap();
        let link = netlink.link(INTERFACE).unwrap().index;
        netlink.delete(link).unwrap();
        assert_eq!(reading.join().unwrap(), ErrorKind::NetworkDown);
        let again = TcpStream::connect(host.stack(), SocketAddrV4::new(KERNELS, 1));
        assert_eq!(again.unwrap_err().kind(), ErrorKind::NetworkDown);
        drop(kernels);
    }
}

pub(crate) fn nobody_listens_at_the_kernels_end() {
    let host = host(CPU);
    let port = KernelListener::bind((KERNELS, 0)).unwrap().local_addr().unwrap().port();
    let refused = TcpStream::connect(host.stack(), SocketAddrV4::new(KERNELS, port));
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

pub(crate) fn nobody_listens_at_our_end() {
    let host = host(CPU);
    let to = SocketAddrV4::new(OURS, PORT);
    let refused = KernelStream::connect_timeout(&to.into(), PATIENCE).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    assert_eq!(host.stack().statistics().protocols.tcp.resets_sent, 1);
}
