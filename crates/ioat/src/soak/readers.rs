//! Who reads: in each of the ways in which a program can.

use std::{
    io::{self, ErrorKind},
    ops::{Deref, DerefMut},
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
    time::Duration,
};

use dmaengine::{DmaBuf, DmaTarget};
use sockets::{
    PollEvents, PollFlags, Poller, ReceiveRing, Received, RecvFlags, Stack, TcpListener, TcpStream,
    Trigger,
};

use super::{
    control::Control,
    fork::Shelf,
    incoming::{Incoming, Place},
    random::Random,
};

/// How long a read waits, where one has a timeout.
const READ_TIMEOUT: Duration = Duration::from_millis(5);

/// What is received into.
pub(super) trait Memory: DerefMut<Target = [u8]> {
    /// Puts the first `len` bytes, which are checked, where children look for them, and gives what to
    /// receive into next.
    fn shelve(self, shelf: &Shelf, place: Option<Place>, len: usize) -> Self;
}

impl Memory for Vec<u8> {
    fn shelve(self, shelf: &Shelf, place: Option<Place>, len: usize) -> Self {
        match place {
            Some(place) => shelf.exchange(place, len, self),
            None => self,
        }
    }
}

/// Children have no arenas.
impl Memory for DmaBuf {
    fn shelve(self, _: &Shelf, _: Option<Place>, _: usize) -> Self {
        self
    }
}

/// Either of both.
#[derive(Debug)]
pub(super) enum Buffer {
    Arena(DmaBuf),
    Heap(Vec<u8>),
}

impl Memory for Buffer {
    fn shelve(self, shelf: &Shelf, place: Option<Place>, len: usize) -> Self {
        match self {
            Self::Arena(buffer) => Self::Arena(buffer.shelve(shelf, place, len)),
            Self::Heap(buffer) => Self::Heap(buffer.shelve(shelf, place, len)),
        }
    }
}

impl Default for Buffer {
    fn default() -> Self {
        Self::Heap(Vec::new())
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Arena(buffer) => buffer,
            Self::Heap(buffer) => buffer,
        }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        match self {
            Self::Arena(buffer) => buffer,
            Self::Heap(buffer) => buffer,
        }
    }
}

fn call<T>(result: io::Result<T>) -> Result<T, String> {
    result.map_err(|error| format!("a reader's call failed: {error}"))
}

/// Waits in each call.
pub(super) fn block(
    listener: &TcpListener,
    mut buffer: Buffer,
    shelf: &Shelf,
    control: &Control,
    mut random: Random,
) -> Result<(), String> {
    let mut peeked = vec![0; 3000];
    loop {
        let stream = call(listener.accept())?.0;
        let has_timeout = random.chance(4);
        call(stream.set_read_timeout(has_timeout.then_some(READ_TIMEOUT)))?;
        let mut incoming = Incoming::default();
        let mut ahead = 0;
        loop {
            if incoming.holds() {
                // From here on it waits however long it takes.
                call(stream.set_read_timeout(None))?;
            }
            if ahead == 0 && random.chance(8) {
                match stream.peek(&mut peeked) {
                    Ok(len) => ahead = len,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                    Err(error) => return call(Err(error)),
                }
            }
            let mut len = random.length(17).min(buffer.len());
            let mut flags = RecvFlags::empty();
            if random.chance(4) && incoming.left() > 0 {
                // No more than comes: the stream may stand still.
                flags = RecvFlags::WAITALL;
                len = len.min(incoming.left());
            }
            let got = match stream.recv(&mut buffer[..len], flags) {
                Ok(0) => break,
                Ok(got) => got,
                Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                Err(error) => return call(Err(error)),
            };
            let both = got.min(ahead);
            if buffer[..both] != peeked[..both] {
                control.count_wrong(both);
                return Err("what was peeked at was not what was read".to_owned());
            }
            peeked.copy_within(both..ahead, 0);
            ahead -= both;
            let place = incoming.take(control, &buffer[..got])?;
            buffer = buffer.shelve(shelf, place, got);
        }
        if !incoming.end()? {
            return Ok(());
        }
    }
}

/// A stream that is read when it is ready.
struct Ready {
    stream: TcpStream,
    incoming: Incoming,
}

/// One thread waits with a poller for the streams of all listeners, and never in a call.
pub(super) fn poll(
    stack: &Stack,
    listeners: &[TcpListener],
    mut buffers: Vec<Buffer>,
    shelf: &Shelf,
    control: &Control,
    mut random: Random,
) -> Result<(), String> {
    let poller = Poller::new(stack);
    let count = listeners.len();
    for (token, listener) in listeners.iter().enumerate() {
        call(listener.set_nonblocking(true))?;
        call(poller.add(listener, token, PollFlags::IN, Trigger::Level))?;
    }
    let mut streams: Vec<Option<Ready>> = listeners.iter().map(|_| None).collect();
    let mut events = PollEvents::with_capacity(count);
    let mut left = count;
    while left > 0 {
        call(poller.wait(&mut events, None))?;
        for event in &events {
            let number = event.token % count;
            if event.token < count {
                let stream = match listeners[number].accept() {
                    Ok((stream, _)) => stream,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                    Err(error) => return call(Err(error)),
                };
                call(stream.set_nonblocking(true))?;
                let token = count + number;
                let trigger = random.of(&[Trigger::Level, Trigger::Edge]);
                call(poller.add(&stream, token, PollFlags::IN, trigger))?;
                streams[number] = Some(Ready { stream, incoming: Incoming::default() });
                continue;
            }
            // Events of a stream that has ended meanwhile are for nobody.
            let Some(ready) = &mut streams[number] else { continue };
            if read_ready(ready, &mut buffers[number], shelf, control, &mut random)? {
                let Some(Ready { incoming, .. }) = streams[number].take() else { continue };
                left -= usize::from(!incoming.end()?);
            }
        }
    }
    Ok(())
}

/// Reads until there is nothing, which an edge is told once. Returns whether the stream has ended.
fn read_ready(
    Ready { stream, incoming }: &mut Ready,
    buffer: &mut Buffer,
    shelf: &Shelf,
    control: &Control,
    random: &mut Random,
) -> Result<bool, String> {
    loop {
        let len = random.length(17).min(buffer.len());
        let got = match stream.recv(&mut buffer[..len], RecvFlags::empty()) {
            Ok(0) => return Ok(true),
            Ok(got) => got,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return call(Err(error)).map(|()| false),
        };
        let place = incoming.take(control, &buffer[..got])?;
        *buffer = std::mem::take(buffer).shelve(shelf, place, got);
    }
}

/// Posts buffers ahead, and waits for them: a thread, or a task.
pub(super) fn post<B: Memory + DmaTarget>(
    listener: &TcpListener,
    mut buffers: Vec<B>,
    is_task: bool,
    shelf: &Shelf,
    control: &Control,
) -> Result<(), String> {
    loop {
        let stream = call(listener.accept())?.0;
        let mut ring = ReceiveRing::new(&stream);
        let mut incoming = Incoming::default();
        buffers.drain(..).for_each(|buffer| ring.post(buffer));
        let mut has_ended = false;
        while let Some(Received { buffer, result }) = call(match is_task {
            true => block_on(ring.recv()),
            false => ring.wait(None),
        })? {
            let got = call(result)?;
            if has_ended && got > 0 {
                return Err("a stream went on after its end".to_owned());
            }
            has_ended |= got == 0;
            let place = incoming.take(control, &buffer[..got])?;
            let buffer = buffer.shelve(shelf, place, got);
            if has_ended {
                buffers.push(buffer);
            } else {
                ring.post(buffer);
            }
        }
        if !incoming.end()? {
            return Ok(());
        }
    }
}

/// Runs a future on this thread, which sleeps while it waits.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}
