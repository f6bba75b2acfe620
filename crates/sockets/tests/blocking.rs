//! Blocking sockets: two stacks with a wire between them, each driven by the threads that call it.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddrV4},
    thread,
    time::{Duration, Instant},
};

use sockets::{TcpListener, TcpStream};

use self::pair::{SERVER, check_faults, connect, connected, pair, pattern};

mod pair;

/// Whether the engine fails.
#[allow(dead_code, reason = "as a part of `failing` it goes by the one there")]
const FAILS: bool = false;

#[test]
fn a_large_stream_arrives_in_order_and_then_ends() {
    let (mut client, mut server) = connected();
    let data = pattern(20 << 20, 1);
    let sent = data.clone();
    let sending = thread::spawn(move || {
        client.write_all(&sent).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        // The other direction still works.
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        answer
    });
    let mut received = Vec::new();
    server.read_to_end(&mut received).unwrap();
    assert!(received == data, "{} bytes of {}", received.len(), data.len());
    check_faults(server.stack());
    server.write_all(b"thank you").unwrap();
    drop(server);
    assert_eq!(sending.join().unwrap(), "thank you");
}

#[test]
fn many_connections_at_once_keep_their_bytes_apart() {
    const CONNECTIONS: u8 = 16;
    const LEN: usize = 300_000;
    let (client, server) = pair();
    let listener = TcpListener::bind(&server, SERVER).unwrap();
    let serving = thread::spawn(move || {
        let handlers: Vec<_> = (0..CONNECTIONS)
            .map(|_| {
                let (stream, _) = listener.accept().unwrap();
                thread::spawn(move || {
                    let copied = io::copy(&mut &stream, &mut &stream).unwrap();
                    stream.shutdown(Shutdown::Write).unwrap();
                    copied
                })
            })
            .collect();
        handlers.into_iter().map(|handler| handler.join().unwrap()).sum::<u64>()
    });
    let clients: Vec<_> = (0..CONNECTIONS)
        .map(|seed| {
            let client = client.clone();
            thread::spawn(move || {
                let stream = TcpStream::connect(&client, SERVER).unwrap();
                let data = pattern(LEN, seed);
                thread::scope(|scope| {
                    scope.spawn(|| {
                        (&stream).write_all(&data).unwrap();
                        stream.shutdown(Shutdown::Write).unwrap();
                    });
                    let mut echoed = Vec::new();
                    (&stream).read_to_end(&mut echoed).unwrap();
                    assert!(echoed == data, "connection {seed}");
                });
            })
        })
        .collect();
    for client in clients {
        client.join().unwrap();
    }
    assert_eq!(serving.join().unwrap(), u64::from(CONNECTIONS) * LEN as u64);
}

#[test]
fn somebody_drives_after_several_calls_end_at_once() {
    const ROUNDS: usize = 30;
    let (client, server) = pair();
    let listener = TcpListener::bind(&server, SERVER).unwrap();
    let accepting = thread::spawn(move || {
        let accept = || listener.accept().unwrap().0;
        [accept(), accept(), accept(), accept()]
    });
    let connect = |_| TcpStream::connect(&client, SERVER).unwrap();
    let clients = [0; 4].map(connect);
    let servers = accepting.join().unwrap();
    for round in 0..ROUNDS {
        thread::scope(|scope| {
            for mut server in &servers {
                scope.spawn(move || server.read_exact(&mut [0]).unwrap());
            }
            // One of them drives and the others wait, until the background thread has gone to
            // sleep. There is no event for that.
            thread::sleep(Duration::from_millis(15));
            for mut client in &clients {
                client.write_all(&[1]).unwrap();
            }
        });
        // No call is left on the server's side: its background thread must acknowledge.
        let mut client = &clients[0];
        client.write_all(&[2]).unwrap();
        let started = Instant::now();
        while client.tcp_info().unwrap().send_queue > 0 {
            assert!(started.elapsed() < Duration::from_secs(5), "round {round}: nobody drives");
            thread::yield_now();
        }
        (&servers[0]).read_exact(&mut [0]).unwrap();
    }
}

#[test]
fn a_read_times_out_and_the_stream_goes_on() {
    let (mut client, mut server) = connected();
    server.set_read_timeout(Some(Duration::from_millis(30))).unwrap();
    let started = Instant::now();
    let mut buffer = [0; 100];
    let error = server.read(&mut buffer).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    assert!(started.elapsed() >= Duration::from_millis(30), "it waited as long as it was told");
    client.write_all(b"late").unwrap();
    server.set_read_timeout(None).unwrap();
    assert_eq!(server.read(&mut buffer).unwrap(), 4);
    assert_eq!(&buffer[..4], b"late");
    assert_eq!(
        server.set_read_timeout(Some(Duration::ZERO)).unwrap_err().kind(),
        ErrorKind::InvalidInput
    );
}

#[test]
fn a_write_to_a_reader_that_sleeps_times_out_and_nothing_is_lost() {
    let (client, mut server) = connected();
    client.set_write_timeout(Some(Duration::from_millis(50))).unwrap();
    let data = pattern(64 << 20, 3);
    let mut written = 0;
    let error = loop {
        match (&client).write(&data[written..]) {
            Ok(len) => written += len,
            Err(error) => break error,
        }
        assert!(written < data.len(), "buffers are bounded");
    };
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    client.shutdown(Shutdown::Write).unwrap();
    let mut received = Vec::new();
    server.read_to_end(&mut received).unwrap();
    assert!(received == data[..written]);
}

#[test]
fn nobody_listens_there() {
    let (client, _server) = pair();
    let error = TcpStream::connect(&client, SERVER).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn a_port_has_one_listener() {
    let (_client, server) = pair();
    let first = TcpListener::bind(&server, SERVER).unwrap();
    assert_eq!(TcpListener::bind(&server, SERVER).unwrap_err().kind(), ErrorKind::AddrInUse);
    drop(first);
    TcpListener::bind(&server, SERVER).unwrap();
    let elsewhere = SocketAddrV4::new(Ipv4Addr::new(10, 9, 9, 9), SERVER.port());
    assert_eq!(
        TcpListener::bind(&server, elsewhere).unwrap_err().kind(),
        ErrorKind::AddrNotAvailable
    );
}

#[test]
fn a_peer_that_closes_with_unread_data_resets() {
    let (mut client, mut server) = connected();
    client.write_all(b"nobody reads this").unwrap();
    // One byte, so that the rest has certainly arrived.
    server.read_exact(&mut [0]).unwrap();
    drop(server);
    let error = loop {
        match client.read(&mut [0; 10]) {
            Ok(0) => panic!("the end of the stream hides the loss"),
            Ok(_) => panic!("nothing was sent"),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert!(client.write_all(b"x").is_err());
}

/// A wake-up that is lost shows as this timeout's error.
const LOST: Duration = Duration::from_secs(5);

#[test]
fn shutting_down_reading_wakes_a_reader() {
    // Whether the reader is not yet in its call, drives, or is asleep: it comes back with the end.
    let (client, server) = pair();
    let listener = TcpListener::bind(&server, SERVER).unwrap();
    for _ in 0..100 {
        let (_client, server) = connect(&client, &listener);
        server.set_read_timeout(Some(LOST)).unwrap();
        thread::scope(|scope| {
            let reading = scope.spawn(|| (&server).read(&mut [0; 10]).unwrap());
            thread::yield_now();
            server.shutdown(Shutdown::Read).unwrap();
            assert_eq!(reading.join().unwrap(), 0);
        });
    }
}

#[test]
fn shutting_down_writing_wakes_a_writer() {
    let (client, _server) = connected();
    // Nobody reads: fill all buffers, so that the next write waits for room.
    client.set_write_timeout(Some(Duration::from_millis(20))).unwrap();
    let chunk = vec![0; 1 << 20];
    while (&client).write(&chunk).is_ok() {}
    client.set_write_timeout(Some(LOST)).unwrap();
    thread::scope(|scope| {
        let writing = scope.spawn(|| (&client).write(&chunk).unwrap_err());
        thread::yield_now();
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(writing.join().unwrap().kind(), ErrorKind::BrokenPipe);
    });
}

#[test]
fn written_data_is_delivered_after_every_handle_is_gone() {
    let (client, server) = pair();
    let listener = TcpListener::bind(&server, SERVER).unwrap();
    let data = pattern(1 << 20, 9);
    let sent = data.clone();
    let sending = thread::spawn(move || {
        let mut stream = TcpStream::connect(&client, SERVER).unwrap();
        stream.write_all(&sent).unwrap();
        // Stream and stack are dropped here.
    });
    let (mut stream, _) = listener.accept().unwrap();
    let mut received = Vec::new();
    stream.read_to_end(&mut received).unwrap();
    assert!(received == data);
    sending.join().unwrap();
}

#[test]
fn empty_reads_and_writes_do_nothing() {
    let (mut client, mut server) = connected();
    assert_eq!(client.write(&[]).unwrap(), 0);
    assert_eq!(server.read(&mut []).unwrap(), 0);
}
