//! Receives that are posted ahead of the data.

use std::{
    io::{ErrorKind, Read, Write},
    net::Shutdown,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    thread,
    time::{Duration, Instant},
};

use netdma::CpuCause;
use sockets::{ReceiveRing, RecvFlags, TcpListener, TcpStream};

use self::pair::{SERVER, check_faults, connect, connected, pair, pair_with_arena, pattern};

mod pair;

/// Whether the engine fails.
#[allow(dead_code, reason = "as a part of `failing` it goes by the one there")]
const FAILS: bool = false;

/// A wake-up that is lost shows as this timeout.
const LOST: Option<Duration> = Some(Duration::from_secs(10));

/// Runs a future on this thread, which sleeps while it waits.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    let started = Instant::now();
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park_timeout(Duration::from_secs(10)),
        }
        assert!(started.elapsed() < Duration::from_secs(10), "a wake-up was lost");
    }
}

/// Sends a megabyte and the end.
fn send(mut stream: TcpStream, data: &[u8]) {
    stream.write_all(data).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    // Until the other end is through.
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
}

#[test]
fn buffers_come_back_filled_in_order() {
    let (client, server, arena) = pair_with_arena();
    let (client, stream) = connect(&client, &TcpListener::bind(&server, SERVER).unwrap());
    let data = pattern(3 << 20, 1);
    thread::scope(|scope| {
        scope.spawn(|| send(client, &data));
        // Of many lengths, and an empty one among them.
        let mut ring = ReceiveRing::new(&stream);
        for len in [1, 100_000, 0, 5000, 64 << 10, 17] {
            ring.post(arena.alloc(len).unwrap_or_default());
        }
        assert_eq!(ring.len(), 6);
        let mut received = Vec::new();
        loop {
            let done = ring.wait(LOST).unwrap().expect("six are outstanding");
            let len = done.result.unwrap();
            received.extend_from_slice(&done.buffer[..len]);
            if len == 0 && !done.buffer.is_empty() {
                break;
            }
            ring.post(done.buffer);
        }
        assert!(received == data, "{} bytes", received.len());
        // The others find the end as well.
        while let Some(done) = ring.wait(LOST).unwrap() {
            assert_eq!(done.result.unwrap(), 0);
        }
        assert!(ring.is_empty());
        drop(ring);
        drop(stream);
    });
    check_faults(&server);
    // By the engine, or by the CPU in its place.
    let counters = server.statistics().offload;
    let [failed, resting] =
        [CpuCause::Failed, CpuCause::Resting].map(|cause| counters.bytes_by_cpu[cause as usize]);
    assert!(counters.bytes_by_engine > 0, "{counters:?}");
    assert!(counters.bytes_by_engine + failed + resting > 1 << 20, "{counters:?}");
}

#[test]
fn waitall_fills_every_buffer_whatever_the_packets() {
    let (mut client, stream) = connected();
    let mut ring = ReceiveRing::new(&stream);
    for _ in 0..3 {
        ring.post_with(vec![0; 10], RecvFlags::WAITALL);
    }
    for piece in pattern(25, 7).chunks(4) {
        client.write_all(piece).unwrap();
    }
    let mut next = || ring.wait(LOST).unwrap().expect("outstanding");
    for at in [0, 10] {
        let done = next();
        assert_eq!((done.result.unwrap(), &done.buffer[..]), (10, &pattern(25, 7)[at..at + 10]));
    }
    client.shutdown(Shutdown::Write).unwrap();
    let done = next();
    assert_eq!((done.result.unwrap(), &done.buffer[..5]), (5, &pattern(25, 7)[20..]));
}

#[test]
fn cancelled_buffers_come_back_with_what_they_have() {
    let (mut client, mut stream) = connected();
    let mut ring = ReceiveRing::new(&stream);
    for _ in 0..2 {
        ring.post_with(vec![0; 10], RecvFlags::WAITALL);
    }
    client.write_all(b"abc").unwrap();
    // The end of a wait is no end of the receive, also when it has bytes.
    let taken = || {
        let counters = stream.stack().statistics().offload;
        counters.bytes_by_engine + counters.bytes_by_cpu_total()
    };
    let mut has_bytes = false;
    while !has_bytes {
        has_bytes = taken() == 3;
        let early = ring.wait(Some(Duration::from_millis(20))).unwrap_err();
        assert_eq!(early.kind(), ErrorKind::WouldBlock);
    }
    ring.cancel();
    let first = ring.try_recv().unwrap().expect("cancelled");
    assert_eq!((first.result.unwrap(), &first.buffer[..3]), (3, &b"abc"[..]));
    let second = ring.try_recv().unwrap().expect("cancelled");
    assert_eq!(second.result.unwrap_err().raw_os_error(), Some(125), "ECANCELED");
    assert_eq!(second.buffer.len(), 10);
    assert!(ring.try_recv().unwrap().is_none());
    // The stream goes on.
    client.write_all(b"def").unwrap();
    assert_eq!(stream.read(&mut [0; 10]).unwrap(), 3);
}

#[test]
fn a_stream_that_is_closed_gives_the_buffers_back() {
    let (_client, stream) = connected();
    let mut ring = ReceiveRing::new(&stream);
    ring.post(vec![0; 10]);
    thread::scope(|scope| {
        let waiting = scope.spawn(|| ring.wait(LOST));
        thread::yield_now();
        drop(stream);
        let done = waiting.join().unwrap().unwrap().expect("outstanding");
        assert_eq!(done.result.unwrap_err().kind(), ErrorKind::NotConnected);
    });
    ring.post(vec![0; 10]);
    let done = ring.wait(LOST).unwrap().expect("outstanding");
    assert_eq!(done.result.unwrap_err().kind(), ErrorKind::NotConnected);
}

#[test]
fn a_reset_is_told_once_after_the_bytes() {
    let (mut client, mut stream) = connected();
    let mut ring = ReceiveRing::new(&stream);
    stream.write_all(b"unread").unwrap();
    client.write_all(b"abc").unwrap();
    // The peer has them before it closes.
    while client.available() < 6 {}
    ring.post(vec![0; 10]);
    let done = ring.wait(LOST).unwrap().expect("outstanding");
    assert_eq!(done.result.unwrap(), 3);
    for _ in 0..3 {
        ring.post(vec![0; 10]);
    }
    drop(client);
    let mut next = || ring.wait(LOST).unwrap().expect("outstanding").result;
    assert_eq!(next().unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!([next().unwrap(), next().unwrap()], [0, 0]);
}

#[test]
fn a_receive_call_gets_what_comes_after_the_posted_buffers() {
    let (mut client, stream) = connected();
    let mut ring = ReceiveRing::new(&stream);
    ring.post_with(vec![0; 4], RecvFlags::WAITALL);
    assert_eq!(
        stream.recv(&mut [0; 4], RecvFlags::DONTWAIT).unwrap_err().kind(),
        ErrorKind::WouldBlock
    );
    thread::scope(|scope| {
        let reading = scope.spawn(|| {
            let mut buffer = [0; 4];
            (&stream).read_exact(&mut buffer).unwrap();
            buffer
        });
        thread::yield_now();
        client.write_all(b"abcdefgh").unwrap();
        assert_eq!(&ring.wait(LOST).unwrap().expect("outstanding").buffer[..], b"abcd");
        assert_eq!(&reading.join().unwrap(), b"efgh");
    });
}

#[test]
fn tasks_are_woken_while_no_thread_is_in_a_call() {
    const STREAMS: usize = 4;
    let (client, server) = pair();
    let listener = TcpListener::bind(&server, SERVER).unwrap();
    let data = pattern(1 << 20, 3);
    thread::scope(|scope| {
        let rings: Vec<_> = (0..STREAMS)
            .map(|_| {
                let (client, stream) = connect(&client, &listener);
                scope.spawn(|| send(client, &data));
                let mut ring = ReceiveRing::new(&stream);
                (0..4).for_each(|_| ring.post(vec![0; 32 << 10]));
                (stream, ring)
            })
            .collect();
        let receive = |(stream, mut ring): (TcpStream, ReceiveRing<Vec<u8>>)| async move {
            let mut received = Vec::new();
            while let Some(done) = ring.recv().await.unwrap() {
                match done.result.unwrap() {
                    0 => break,
                    len => received.extend_from_slice(&done.buffer[..len]),
                }
                ring.post(done.buffer);
            }
            drop(stream);
            received
        };
        // All of them in one task.
        let mut futures: Vec<Pin<Box<dyn Future<Output = Vec<u8>>>>> = Vec::new();
        for ring in rings {
            futures.push(Box::pin(receive(ring)));
        }
        block_on(std::future::poll_fn(|context| {
            futures.retain_mut(|future| match future.as_mut().poll(context) {
                Poll::Ready(received) => {
                    assert!(received == data);
                    false
                }
                Poll::Pending => true,
            });
            if futures.is_empty() { Poll::Ready(()) } else { Poll::Pending }
        }));
    });
}

#[test]
fn a_future_that_is_dropped_loses_nothing() {
    let (mut client, stream) = connected();
    let mut ring = ReceiveRing::new(&stream);
    ring.post_with(vec![0; 6], RecvFlags::WAITALL);
    client.write_all(b"abc").unwrap();
    for _ in 0..3 {
        let mut next = pin!(ring.recv());
        assert!(next.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    }
    client.write_all(b"def").unwrap();
    let done = block_on(ring.recv()).unwrap().expect("outstanding");
    assert_eq!(&done.buffer[..], b"abcdef");
    assert!(block_on(ring.recv()).unwrap().is_none());
}

#[test]
fn a_task_may_take_the_last_handle_with_it() {
    /// Holds what waits; when it is woken, it is gone.
    struct Task(std::sync::Mutex<Option<Box<dyn Send>>>);
    impl Wake for Task {
        fn wake(self: Arc<Self>) {
            drop(self.0.lock().unwrap().take());
        }
    }
    let (mut client, stream) = connected();
    let mut ring = ReceiveRing::new(&stream);
    ring.post(vec![0; 10]);
    let task = Arc::new(Task(std::sync::Mutex::default()));
    let waker = Waker::from(Arc::clone(&task));
    assert!(ring.poll_recv(&Context::from_waker(&waker)).is_pending());
    // The server's stack lives in these alone.
    *task.0.lock().unwrap() = Some(Box::new((ring, stream)));
    client.write_all(b"bytes that nobody will read").unwrap();
    // Its end closes the connection, which had unread bytes.
    assert!(client.read(&mut [0]).is_err());
    assert!(task.0.lock().unwrap().is_none());
}

#[test]
fn a_ring_may_go_while_copies_run() {
    let (client, server) = pair();
    let listener = TcpListener::bind(&server, SERVER).unwrap();
    let data = pattern(1 << 20, 5);
    for _ in 0..20 {
        let (client, mut stream) = connect(&client, &listener);
        thread::scope(|scope| {
            scope.spawn(|| send(client, &data));
            let mut ring = ReceiveRing::new(&stream);
            (0..4).for_each(|_| ring.post(vec![0; 64 << 10]));
            // What is in its buffers goes with it.
            ring.wait(LOST).unwrap().expect("outstanding").result.unwrap();
            drop(ring);
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).unwrap();
            assert!(data.ends_with(&rest), "{} bytes", rest.len());
            drop(stream);
        });
    }
}
