//! Sockets that never wait, and the poller that waits for many of them.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::Shutdown,
    os::fd::AsFd,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use rustix::event::{PollFd, PollFlags as FdFlags, Timespec, poll};
use sockets::{PollEvents, PollFlags, Poller, TcpListener, TcpStream, Trigger};

use self::pair::{SERVER, check_faults, connect, connected, pair, pattern};

mod pair;

/// Whether the engine fails.
#[allow(dead_code, reason = "as a part of `failing` it goes by the one there")]
const FAILS: bool = false;

const IN: PollFlags = PollFlags::IN;
const OUT: PollFlags = PollFlags::OUT;

/// A wake-up that is lost shows as this timeout.
const LOST: Duration = Duration::from_secs(10);

fn tokens(poller: &Poller, timeout: Duration) -> Vec<usize> {
    let mut events = PollEvents::with_capacity(16);
    poller.wait(&mut events, Some(timeout)).unwrap();
    let mut tokens: Vec<_> = events.iter().map(|event| event.token).collect();
    tokens.sort_unstable();
    tokens
}

/// Calls `body` until it no longer fails with `WouldBlock`.
fn until_ready<T>(mut body: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let started = Instant::now();
    loop {
        match body() {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                assert!(started.elapsed() < LOST, "never ready");
            }
            result => return result,
        }
    }
}

#[test]
fn nothing_waits() {
    let (client, server) = pair();
    let listener = TcpListener::bind(&server, SERVER).unwrap();
    listener.set_nonblocking(true).unwrap();
    assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
    let client = TcpStream::connect_nonblocking(&client, SERVER).unwrap();
    // No thread is in a call that waits: calls alone move the packets.
    let server = until_ready(|| listener.accept()).unwrap().0;
    server.set_nonblocking(true).unwrap();
    assert_eq!((&server).read(&mut [0; 10]).unwrap_err().raw_os_error(), Some(11), "EAGAIN");
    until_ready(|| (&client).write(b"hello")).unwrap();
    let mut buffer = [0; 10];
    assert_eq!(until_ready(|| (&server).read(&mut buffer)).unwrap(), 5);
    assert_eq!(&buffer[..5], b"hello");

    // Until all buffers are full: the peer's grows emptier as long as packets are under way.
    let chunk = vec![0; 1 << 20];
    let fill = || loop {
        if let Err(error) = (&client).write(&chunk) {
            break error.kind();
        }
    };
    assert_eq!(fill(), ErrorKind::WouldBlock);
    client.set_nonblocking(false).unwrap();
    client.set_write_timeout(Some(Duration::from_millis(10))).unwrap();
    assert_eq!(fill(), ErrorKind::WouldBlock);
}

#[test]
fn a_refused_connection_is_writable_and_says_why() {
    let (client, _server) = pair();
    let poller = Poller::new(&client);
    let stream = TcpStream::connect_nonblocking(&client, SERVER).unwrap();
    poller.add(&stream, 1, OUT, Trigger::Level).unwrap();
    assert_eq!(tokens(&poller, LOST), [1]);
    assert!(stream.poll().contains(PollFlags::ERR | PollFlags::HUP));
    let error = stream.take_error().unwrap().expect("it failed");
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    assert!(stream.take_error().unwrap().is_none(), "it is told once");
    assert_eq!((&stream).read(&mut [0; 10]).unwrap(), 0);
}

#[test]
fn a_poller_serves_many_streams() {
    const STREAMS: usize = 16;
    const LEN: usize = 200_000;
    let (client, server) = pair();
    let listener = TcpListener::bind(&server, SERVER).unwrap();
    listener.set_nonblocking(true).unwrap();
    let clients = thread::spawn(move || {
        let senders: Vec<_> = (0..STREAMS)
            .map(|number| {
                let client = client.clone();
                thread::spawn(move || {
                    let mut stream = TcpStream::connect(&client, SERVER).unwrap();
                    stream.write_all(&[number as u8]).unwrap();
                    stream.write_all(&pattern(LEN, number as u8)).unwrap();
                    stream.shutdown(Shutdown::Write).unwrap();
                    let mut answer = Vec::new();
                    stream.read_to_end(&mut answer).unwrap();
                    assert_eq!(answer, b"thank you");
                })
            })
            .collect();
        for sender in senders {
            sender.join().unwrap();
        }
    });
    let poller = Poller::new(&server);
    poller.add(&listener, usize::MAX, IN, Trigger::Level).unwrap();
    let mut events = PollEvents::with_capacity(4);
    let mut streams: Vec<(TcpStream, Vec<u8>)> = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    let mut finished = 0;
    while finished < STREAMS {
        poller.wait(&mut events, Some(LOST)).unwrap();
        assert!(!events.is_empty(), "a wake-up was lost");
        for event in &events {
            let Some((stream, received)) = streams.get_mut(event.token) else {
                let stream = listener.accept().unwrap().0;
                stream.set_nonblocking(true).unwrap();
                // Some by level, some by edge.
                let token = streams.len();
                let trigger = [Trigger::Level, Trigger::Edge][token % 2];
                poller.add(&stream, token, IN, trigger).unwrap();
                streams.push((stream, Vec::new()));
                continue;
            };
            loop {
                match (&*stream).read(&mut buffer) {
                    Ok(0) => {
                        assert_eq!(received[1..], pattern(LEN, received[0]));
                        (&*stream).write_all(b"thank you").unwrap();
                        stream.shutdown(Shutdown::Write).unwrap();
                        poller.remove(stream).unwrap();
                        finished += 1;
                        break;
                    }
                    Ok(len) => received.extend_from_slice(&buffer[..len]),
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::WouldBlock);
                        break;
                    }
                }
            }
        }
    }
    drop(streams);
    clients.join().unwrap();
    check_faults(&server);
}

#[test]
fn registrations_are_checked() {
    let (client, server) = pair();
    let listener = TcpListener::bind(&server, SERVER).unwrap();
    let poller = Poller::new(&server);
    poller.add(&listener, 0, IN, Trigger::Level).unwrap();
    let again = poller.add(&listener, 0, IN, Trigger::Level).unwrap_err();
    assert_eq!(again.kind(), ErrorKind::AlreadyExists);
    let stranger = Poller::new(&client).add(&listener, 0, IN, Trigger::Level).unwrap_err();
    assert_eq!(stranger.kind(), ErrorKind::InvalidInput);
    poller.remove(&listener).unwrap();
    assert_eq!(poller.remove(&listener).unwrap_err().kind(), ErrorKind::NotFound);
    let gone = poller.modify(&listener, 0, IN, Trigger::Level).unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::NotFound);
}

#[test]
fn a_wait_ends_by_timeout_and_by_notification() {
    let (_client, server) = pair();
    let poller = Poller::new(&server);
    let started = Instant::now();
    assert_eq!(tokens(&poller, Duration::from_millis(20)), [0; 0]);
    assert!(started.elapsed() >= Duration::from_millis(20));
    poller.notify();
    assert_eq!(tokens(&poller, LOST), [0; 0]);
    thread::scope(|scope| {
        let waiting = scope.spawn(|| tokens(&poller, LOST));
        thread::yield_now();
        poller.notify();
        assert_eq!(waiting.join().unwrap(), [0; 0]);
    });
    assert!(started.elapsed() < LOST, "a notification was lost");
}

#[test]
fn one_thread_drives_in_a_read_while_another_waits_in_a_poller() {
    let (client, server) = pair();
    let listener = TcpListener::bind(&server, SERVER).unwrap();
    let (mut first_client, first) = connect(&client, &listener);
    let (mut second_client, second) = connect(&client, &listener);
    let poller = Poller::new(&server);
    poller.add(&second, 2, IN, Trigger::Level).unwrap();
    for _ in 0..50 {
        thread::scope(|scope| {
            let reading = scope.spawn(|| (&first).read_exact(&mut [0]).unwrap());
            let waiting = scope.spawn(|| tokens(&poller, LOST));
            thread::yield_now();
            second_client.write_all(b"x").unwrap();
            assert_eq!(waiting.join().unwrap(), [2]);
            first_client.write_all(b"x").unwrap();
            reading.join().unwrap();
        });
        (&second).read_exact(&mut [0]).unwrap();
    }
}

#[test]
fn the_event_is_readable_while_there_is_something_to_tell() {
    let (mut client, server) = connected();
    let poller = Poller::new(server.stack());
    server.set_nonblocking(true).unwrap();
    poller.add(&server, 5, IN, Trigger::Level).unwrap();
    let event = poller.event().unwrap();
    let wait = |timeout: i64| {
        let mut fds = [PollFd::new(&event, FdFlags::IN)];
        let timeout = Timespec { tv_sec: timeout, tv_nsec: 0 };
        poll(&mut fds, Some(&timeout)).unwrap() == 1
    };
    // What was just added may be ready.
    assert!(wait(0));
    assert_eq!(tokens(&poller, Duration::ZERO), [0; 0]);
    assert!(!wait(0));
    for _ in 0..20 {
        // No thread is in a call of the server's: its background thread drives.
        client.write_all(b"hello").unwrap();
        assert!(wait(10), "the event was lost");
        assert_eq!(tokens(&poller, Duration::ZERO), [5]);
        assert!(wait(0), "it is a level");
        assert_eq!((&server).read(&mut [0; 10]).unwrap(), 5);
        assert_eq!(tokens(&poller, Duration::ZERO), [0; 0]);
        assert!(!wait(0));
    }
    poller.notify();
    assert!(wait(0) && poller.event().unwrap().as_fd().try_clone_to_owned().is_ok());
}

#[test]
fn interruptions_end_calls_that_wait() {
    let (client, server) = pair();
    let listener = TcpListener::bind(&server, SERVER).unwrap();
    let (mut writer, stream) = connect(&client, &listener);
    let poller = Poller::new(&server);
    stream.set_read_timeout(Some(LOST)).unwrap();
    let (tell, told) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..40 {
                tell.send(server.interrupter()).unwrap();
                let error = match round % 4 {
                    0 => (&stream).read(&mut [0; 10]).map(drop).unwrap_err(),
                    1 => listener.accept().map(drop).unwrap_err(),
                    2 => poller.wait(&mut PollEvents::with_capacity(1), None).unwrap_err(),
                    // Beside a thread that drives.
                    _ => thread::scope(|scope| {
                        scope.spawn(|| (&stream).read_exact(&mut [0]).unwrap());
                        let error = listener.accept().map(drop).unwrap_err();
                        writer.write_all(b"x").unwrap();
                        error
                    }),
                };
                assert_eq!(error.raw_os_error(), Some(4), "EINTR");
            }
            drop(tell);
        });
        for interrupter in &told {
            thread::yield_now();
            interrupter.interrupt();
        }
    });
    // What is there is read, interrupted or not.
    writer.write_all(b"there").unwrap();
    while !stream.poll().contains(IN) {}
    server.interrupter().interrupt();
    assert_eq!((&stream).read(&mut [0; 10]).unwrap(), 5);
    assert_eq!((&stream).read(&mut [0; 10]).unwrap_err().kind(), ErrorKind::Interrupted);
}

#[test]
fn dropped_sockets_are_not_watched() {
    let (mut client, server) = connected();
    let poller = Poller::new(server.stack());
    poller.add(&server, 1, IN, Trigger::Level).unwrap();
    client.write_all(b"x").unwrap();
    assert_eq!(tokens(&poller, LOST), [1]);
    drop(server);
    assert_eq!(tokens(&poller, Duration::ZERO), [0; 0]);
}
