//! Data gets through, whole and in order.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddrV4, TcpListener as KernelListener},
    thread,
};

use ioat::engine::EngineName;
use ioat::lab::{Pattern, Receiver, StackReceiver, Transfer};
use netdma::CpuCause;
use sockets::TcpListener;

use crate::{
    CPU, ENGINES, KERNELS, LONG, MODEL, OURS, PIECE, PORT, accept, buffer, check, connected, host,
    kernel_connects, send, waiting::until, we_connect,
};

pub(crate) fn the_kernel_sends_and_we_receive_every_byte() {
    for engine in ENGINES {
        let host = host(engine);
        let mut buffer = buffer(&host);
        let receiver = StackReceiver::listen(host, OURS).unwrap();
        let transfer = Transfer { bytes: LONG, checked: true, sender_cpu: None };
        let (measured, sent) = transfer.run(&receiver, &mut buffer, |_| {}).unwrap();
        assert_eq!((measured.bytes, sent.bytes), (LONG, LONG));
        let copied = receiver.copied().unwrap();
        assert_eq!(copied.by_engine + copied.by_cpu, LONG, "each byte is copied once");
        // How much is the engine's depends on how fast it is at the moment.
        let offloads = engine.name() != EngineName::Cpu;
        assert_eq!(copied.by_engine > 0, offloads, "{}: {copied:?}", engine.name());
        engine.check_faults(&receiver.counters().unwrap());
    }
}

pub(crate) fn we_send_and_the_kernel_receives_every_byte() {
    let pattern = Pattern::new(1);
    for engine in ENGINES {
        let host = host(engine);
        let listener = KernelListener::bind((KERNELS, 0)).unwrap();
        let mut ours = we_connect(&host, &listener);
        let receiving = thread::spawn(move || {
            let (mut kernels, _) = listener.accept().unwrap();
            let received = check(&mut kernels, &mut vec![0; PIECE], pattern);
            kernels.write_all(b"thanks").unwrap();
            received.unwrap()
        });
        send(&mut ours, pattern, LONG).unwrap();
        ours.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        ours.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "thanks");
        assert_eq!(receiving.join().unwrap(), LONG);
    }
}

pub(crate) fn small_writes_are_echoed() {
    const WRITES: u64 = 20_000;
    let pattern = Pattern::new(2);
    for engine in ENGINES {
        let host = host(engine);
        let (mut ours, kernels) = connected(&host);
        kernels.set_nodelay(true).unwrap();
        ours.set_nodelay(true).unwrap();
        let mut reader = kernels.try_clone().unwrap();
        let reading = thread::spawn(move || check(&mut reader, &mut [0; 4000], pattern).unwrap());
        let writing = thread::spawn(move || {
            let mut sent = 0;
            let mut piece = [0; 100];
            for write in 0..WRITES {
                // 1 to 97 bytes: no multiple of anything.
                let piece = &mut piece[..1 + (write * 31 % 97) as usize];
                pattern.fill(sent, piece);
                (&kernels).write_all(piece).unwrap();
                sent += piece.len() as u64;
            }
            kernels.shutdown(Shutdown::Write).unwrap();
            sent
        });
        let mut buffer = host.buffer(1000).unwrap();
        loop {
            let len = ours.read(&mut buffer).unwrap();
            if len == 0 {
                break;
            }
            ours.write_all(&buffer[..len]).unwrap();
        }
        drop(ours);
        assert_eq!(reading.join().unwrap(), writing.join().unwrap());
    }
}

pub(crate) fn many_connections_at_once_keep_their_bytes_apart() {
    const CONNECTIONS: u64 = 32;
    const BYTES: u64 = 1_000_003;
    for engine in ENGINES {
        let host = host(engine);
        let listener = TcpListener::bind(host.stack(), SocketAddrV4::new(OURS, PORT)).unwrap();
        // Each connection says first who it is, and gets the same pattern back.
        let kernel = |number: u64| {
            let mut stream = kernel_connects(listener.local_addr());
            stream.write_all(&[number as u8]).unwrap();
            let mut writer = stream.try_clone().unwrap();
            let writing = thread::spawn(move || {
                send(&mut writer, Pattern::new(number), BYTES).unwrap();
                writer.shutdown(Shutdown::Write).unwrap();
            });
            let received = check(&mut stream, &mut vec![0; 50_000], Pattern::new(!number));
            writing.join().unwrap();
            assert_eq!(received.unwrap(), BYTES);
        };
        let ours = || {
            let mut stream = accept(&listener);
            let mut buffer = host.buffer(64 << 10).unwrap();
            stream.read_exact(&mut buffer[..1]).unwrap();
            let number = u64::from(buffer[0]);
            thread::scope(|scope| {
                let mut writer = &stream;
                scope.spawn(move || {
                    send(&mut writer, Pattern::new(!number), BYTES).unwrap();
                    writer.shutdown(Shutdown::Write).unwrap();
                });
                let received = check(&mut &stream, &mut buffer, Pattern::new(number));
                assert_eq!(received.unwrap(), BYTES);
            });
        };
        thread::scope(|scope| {
            for number in 0..CONNECTIONS {
                scope.spawn(ours);
                scope.spawn(move || kernel(number));
            }
        });
        engine.check_faults(&host.stack().statistics().offload);
    }
}

pub(crate) fn memory_that_the_engine_cannot_reach_is_filled_by_the_cpu() {
    const BYTES: u64 = 10_000_001;
    let pattern = Pattern::new(3);
    let host = host(MODEL);
    let (mut ours, mut kernels) = connected(&host);
    let sending = thread::spawn(move || send(&mut kernels, pattern, BYTES).unwrap());
    let mut outside = vec![0; PIECE];
    assert_eq!(check(&mut ours, &mut outside, pattern).unwrap(), BYTES);
    sending.join().unwrap();
    let counters = host.stack().statistics().offload;
    assert_eq!(counters.bytes_by_cpu[CpuCause::Unreachable as usize], BYTES, "{counters:?}");
    assert_eq!(counters.bytes_by_engine, 0);
}

pub(crate) fn a_peer_that_does_not_read_is_probed_and_gets_every_byte() {
    const BYTES: u64 = 3_000_001;
    let pattern = Pattern::new(4);
    let host = host(CPU);
    let listener = KernelListener::bind((KERNELS, 0)).unwrap();
    // What the listener has, the connection inherits.
    rustix::net::sockopt::set_socket_recv_buffer_size(&listener, 8 << 10).unwrap();
    let mut ours = we_connect(&host, &listener);
    let (mut kernels, _) = listener.accept().unwrap();
    let sending = thread::spawn(move || {
        send(&mut ours, pattern, BYTES).unwrap();
        ours
    });
    let probes = || host.stack().statistics().protocols.tcp.window_probes;
    until("the closed window is probed", || probes() >= 2);
    let received = thread::spawn(move || check(&mut kernels, &mut vec![0; PIECE], pattern));
    drop(sending.join().unwrap());
    assert_eq!(received.join().unwrap().unwrap(), BYTES);
}
