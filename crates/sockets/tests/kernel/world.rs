//! Where scripts run: on the kernel's sockets and on ours.

use std::{
    io,
    net::{Ipv4Addr, Shutdown, SocketAddrV4, TcpListener as StdListener, TcpStream as StdStream},
    os::fd::AsRawFd,
    sync::Arc,
    time::{Duration, Instant},
};

use dmaengine::{Arena, DmaDevice, Registry};
use netdev::{BufferCounts, Wire, WireConfig};
use netdma::Copybreak;
use netstack::Ipv4Cidr;
use sockets::{Config, RecvFlags, SendFlags, Stack, TcpListener, TcpStream};

#[path = "../pair/failing.rs"]
mod failing;

/// How long anything here may take before it counts as hanging.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) trait World {
    type Connection: Connection;

    fn connect(&self) -> Self::Connection;
}

/// A socket and its peer. Errors are error numbers.
pub(crate) trait Connection: Sync {
    fn peer_send(&self, bytes: &[u8], urgent: bool) -> Result<usize, i32>;
    fn peer_shutdown(&self) -> Result<usize, i32>;
    fn peer_reset(&self);
    fn recv(&self, buffer: &mut [u8], flags: RecvFlags) -> Result<usize, i32>;
    fn send(&self, bytes: &[u8]) -> Result<usize, i32>;
    fn at_mark(&self) -> bool;
    fn available(&self) -> usize;
    fn poll(&self) -> u32;
    /// 0 if there is none.
    fn take_error(&self) -> i32;
    fn set_inline(&self, inline: bool);
    fn set_low_water(&self, bytes: usize);
    fn set_read_timeout(&self, timeout: Option<Duration>);
    fn shutdown(&self, write: bool) -> Result<usize, i32>;
    /// Waits until everything under way has arrived.
    fn settle(&self);
}

fn errno(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or_else(|| panic!("an error without a number: {error}"))
}

fn shut_down(result: io::Result<()>) -> Result<usize, i32> {
    result.map(|()| 0).map_err(|error| errno(&error))
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < PATIENCE, "in vain: waited until {what}");
        std::thread::yield_now();
    }
}

pub(crate) struct Kernel {
    listener: StdListener,
}

impl Kernel {
    pub(crate) fn new() -> Self {
        Self { listener: StdListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap() }
    }
}

impl World for Kernel {
    type Connection = KernelConnection;

    fn connect(&self) -> KernelConnection {
        let peer = StdStream::connect(self.listener.local_addr().unwrap()).unwrap();
        let stream = self.listener.accept().unwrap().0;
        peer.set_nodelay(true).unwrap();
        // No TIME-WAIT: ports would run out.
        for socket in [&peer, &stream] {
            let linger = libc::linger { l_onoff: 1, l_linger: 0 };
            set_option(socket, libc::SOL_SOCKET, libc::SO_LINGER, &linger);
        }
        KernelConnection {
            peer: std::sync::Mutex::new(Some(peer)),
            stream,
            expected: std::sync::Mutex::default(),
        }
    }
}

pub(crate) struct KernelConnection {
    peer: std::sync::Mutex<Option<StdStream>>,
    pub(crate) stream: StdStream,
    expected: std::sync::Mutex<Expected>,
}

/// What is to arrive.
#[derive(Default)]
struct Expected {
    bytes: u64,
    end: bool,
    reset: bool,
    our_end: bool,
}

fn set_option<T>(socket: &StdStream, level: i32, name: i32, value: &T) {
    let len = size_of::<T>() as libc::socklen_t;
    // SAFETY: the option is as long as it says.
    let result = unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const *value).cast(), len)
    };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
}

fn option<T: Copy>(socket: &StdStream, level: i32, name: i32, mut value: T) -> T {
    let mut len = size_of::<T>() as libc::socklen_t;
    // SAFETY: the option is as long as it says. Numbers only: any bytes are one.
    let result = unsafe {
        libc::getsockopt(socket.as_raw_fd(), level, name, (&raw mut value).cast(), &raw mut len)
    };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
    value
}

fn check(result: isize) -> Result<usize, i32> {
    usize::try_from(result).map_err(|_| errno(&io::Error::last_os_error()))
}

/// The state and the bytes received, out of `TCP_INFO`.
fn tcp_info(socket: &StdStream) -> (u8, u64) {
    /// `tcpi_bytes_received`, in bytes from the start of the structure.
    const BYTES_RECEIVED: usize = 128;
    let info = option(socket, libc::IPPROTO_TCP, libc::TCP_INFO, [0_u8; 256]);
    let bytes = info[BYTES_RECEIVED..BYTES_RECEIVED + 8].try_into().unwrap();
    (info[0], u64::from_ne_bytes(bytes))
}

impl Connection for KernelConnection {
    fn peer_send(&self, bytes: &[u8], urgent: bool) -> Result<usize, i32> {
        let peer = self.peer.lock().unwrap();
        let fd = peer.as_ref().unwrap().as_raw_fd();
        let flags = libc::MSG_NOSIGNAL | if urgent { libc::MSG_OOB } else { 0 };
        // SAFETY: the bytes are there.
        let sent = check(unsafe { libc::send(fd, bytes.as_ptr().cast(), bytes.len(), flags) })?;
        self.expected.lock().unwrap().bytes += sent as u64;
        Ok(sent)
    }

    fn peer_shutdown(&self) -> Result<usize, i32> {
        shut_down(self.peer.lock().unwrap().as_ref().unwrap().shutdown(Shutdown::Write))?;
        self.expected.lock().unwrap().end = true;
        Ok(0)
    }

    fn peer_reset(&self) {
        let mut expected = self.expected.lock().unwrap();
        // After both ends there is nothing to reset.
        expected.reset = !(expected.end && expected.our_end);
        self.peer.lock().unwrap().take();
    }

    fn recv(&self, buffer: &mut [u8], flags: RecvFlags) -> Result<usize, i32> {
        let (pointer, len) = (buffer.as_mut_ptr().cast(), buffer.len());
        let flags = flags.bits().cast_signed();
        // SAFETY: the buffer is there.
        check(unsafe { libc::recv(self.stream.as_raw_fd(), pointer, len, flags) })
    }

    fn send(&self, bytes: &[u8]) -> Result<usize, i32> {
        let (pointer, len) = (bytes.as_ptr().cast(), bytes.len());
        // SAFETY: the bytes are there.
        check(unsafe { libc::send(self.stream.as_raw_fd(), pointer, len, libc::MSG_NOSIGNAL) })
    }

    fn at_mark(&self) -> bool {
        const SIOCATMARK: libc::Ioctl = 0x8905;
        let mut at_mark: libc::c_int = 0;
        // SAFETY: SIOCATMARK writes an int.
        let result = unsafe { libc::ioctl(self.stream.as_raw_fd(), SIOCATMARK, &raw mut at_mark) };
        assert_eq!(result, 0);
        at_mark == 1
    }

    fn available(&self) -> usize {
        let mut bytes: libc::c_int = 0;
        // SAFETY: FIONREAD writes an int.
        let result =
            unsafe { libc::ioctl(self.stream.as_raw_fd(), libc::FIONREAD, &raw mut bytes) };
        assert_eq!(result, 0);
        bytes.try_into().unwrap()
    }

    fn poll(&self) -> u32 {
        let events = libc::POLLIN | libc::POLLPRI | libc::POLLOUT | libc::POLLRDHUP;
        let mut fd = libc::pollfd { fd: self.stream.as_raw_fd(), events, revents: 0 };
        // SAFETY: one structure.
        unsafe { libc::poll(&raw mut fd, 1, 0) };
        fd.revents.cast_unsigned().into()
    }

    fn take_error(&self) -> i32 {
        self.stream.take_error().unwrap().map_or(0, |error| errno(&error))
    }

    fn set_inline(&self, inline: bool) {
        let inline = libc::c_int::from(inline);
        set_option(&self.stream, libc::SOL_SOCKET, libc::SO_OOBINLINE, &inline);
    }

    fn set_low_water(&self, bytes: usize) {
        let bytes = bytes as libc::c_int;
        set_option(&self.stream, libc::SOL_SOCKET, libc::SO_RCVLOWAT, &bytes);
    }

    fn set_read_timeout(&self, timeout: Option<Duration>) {
        self.stream.set_read_timeout(timeout).unwrap();
    }

    fn shutdown(&self, write: bool) -> Result<usize, i32> {
        let how = if write { Shutdown::Write } else { Shutdown::Read };
        self.expected.lock().unwrap().our_end |= write;
        shut_down(self.stream.shutdown(how))
    }

    fn settle(&self) {
        const FIN_WAIT_1: u8 = 4;
        const CLOSE: u8 = 7;
        const LAST_ACK: u8 = 9;
        const CLOSING: u8 = 11;
        const ESTABLISHED: u8 = 1;
        let expected = self.expected.lock().unwrap();
        until("the kernel's packets have arrived", || {
            let (state, bytes) = tcp_info(&self.stream);
            let ended = !expected.end || !matches!(state, ESTABLISHED | FIN_WAIT_1 | 5);
            let reset = !expected.reset || state == CLOSE;
            let closing = expected.end && expected.our_end;
            let both = !closing || !matches!(state, LAST_ACK | CLOSING);
            // Who shut down both directions resets a peer that sends.
            (state == CLOSE || bytes >= expected.bytes) && ended && reset && both
        });
    }
}

/// Ours: two stacks with a wire between them.
pub(crate) struct Ours {
    client: Stack,
    server: Stack,
    listener: TcpListener,
}

const SERVER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 2), 7);

impl Ours {
    /// One for which the CPU copies, and one with an engine that fails at random.
    pub(crate) fn all() -> [Self; 2] {
        [None, Some(failing::device(2))].map(Self::new)
    }

    fn new(device: Option<Arc<dyn DmaDevice>>) -> Self {
        let wire = WireConfig {
            buffers: BufferCounts { small: 2048, large: 32 },
            ..WireConfig::default()
        };
        let arena = Arena::new(2 * wire.arena_len()).unwrap();
        let (a, b) = Wire::pair(&arena, &wire).unwrap();
        let config = |host| {
            let address = Ipv4Addr::new(10, 0, 0, host);
            let network = Ipv4Cidr { address, prefix_len: 24 };
            Config { copybreak: Copybreak::Bytes(0), ..Config::new(network) }
        };
        let engine = device.map(|device| {
            device.map(&arena).unwrap();
            let registry = Registry::new();
            registry.register(device);
            registry.request("dma0chan0").unwrap()
        });
        let client = Stack::start(Box::new(a), None, &config(1)).unwrap();
        let server = Stack::start(Box::new(b), engine, &config(2)).unwrap();
        let listener = TcpListener::bind(&server, SERVER).unwrap();
        listener.set_nonblocking(true).unwrap();
        Self { client, server, listener }
    }
}

impl World for Ours {
    type Connection = OurConnection;

    fn connect(&self) -> OurConnection {
        let peer = TcpStream::connect_nonblocking(&self.client, SERVER).unwrap();
        peer.set_nodelay(true).unwrap();
        let mut stream = None;
        until("the connection is accepted", || {
            let _ = peer.poll();
            stream = self.listener.accept().ok().map(|(stream, _)| stream);
            stream.is_some()
        });
        peer.set_nonblocking(false).unwrap();
        OurConnection {
            stacks: [self.client.clone(), self.server.clone()],
            peer: std::sync::Mutex::new(Some(peer)),
            stream: Some(stream.unwrap()),
        }
    }
}

pub(crate) struct OurConnection {
    stacks: [Stack; 2],
    peer: std::sync::Mutex<Option<TcpStream>>,
    stream: Option<TcpStream>,
}

impl OurConnection {
    pub(crate) fn stream(&self) -> &TcpStream {
        self.stream.as_ref().expect("open until it is dropped")
    }
}

impl Drop for OurConnection {
    fn drop(&mut self) {
        // No TIME-WAIT: ports would run out.
        let _unlocked = self.stream.take().map(TcpStream::abort);
        let _gone = self.peer.get_mut().unwrap().take().map(TcpStream::abort);
    }
}

/// Whether nothing is held back: on a busy machine acknowledgments may come so late that TCP thinks
/// its packets lost, and slows down.
fn is_sent(stream: &TcpStream) -> bool {
    let info = stream.tcp_info().unwrap();
    info.bytes_in_flight >= info.send_queue
}

impl Connection for OurConnection {
    fn peer_send(&self, bytes: &[u8], urgent: bool) -> Result<usize, i32> {
        let flags = if urgent { SendFlags::OOB } else { SendFlags::empty() };
        let peer = self.peer.lock().unwrap();
        peer.as_ref().unwrap().send(bytes, flags).map_err(|error| errno(&error))
    }

    fn peer_shutdown(&self) -> Result<usize, i32> {
        shut_down(self.peer.lock().unwrap().as_ref().unwrap().shutdown(Shutdown::Write))
    }

    fn peer_reset(&self) {
        self.peer.lock().unwrap().take().unwrap().abort();
    }

    fn recv(&self, buffer: &mut [u8], flags: RecvFlags) -> Result<usize, i32> {
        self.stream().recv(buffer, flags).map_err(|error| errno(&error))
    }

    fn send(&self, bytes: &[u8]) -> Result<usize, i32> {
        self.stream().send(bytes, SendFlags::empty()).map_err(|error| errno(&error))
    }

    fn at_mark(&self) -> bool {
        self.stream().at_mark()
    }

    fn available(&self) -> usize {
        self.stream().available()
    }

    fn poll(&self) -> u32 {
        self.stream().poll().bits()
    }

    fn take_error(&self) -> i32 {
        self.stream().take_error().unwrap().map_or(0, |error| errno(&error))
    }

    fn set_inline(&self, inline: bool) {
        self.stream().set_out_of_band_inline(inline);
    }

    fn set_low_water(&self, bytes: usize) {
        self.stream().set_rcvlowat(bytes);
    }

    fn set_read_timeout(&self, timeout: Option<Duration>) {
        self.stream().set_read_timeout(timeout).unwrap();
    }

    fn shutdown(&self, write: bool) -> Result<usize, i32> {
        let how = if write { Shutdown::Write } else { Shutdown::Read };
        shut_down(self.stream().shutdown(how))
    }

    fn settle(&self) {
        until("our packets have arrived", || {
            // Calls see to what has arrived.
            let _ = self.stream().poll();
            if let Some(peer) = &*self.peer.lock().unwrap() {
                let _ = peer.poll();
            }
            let [client, server] = self.stacks.each_ref().map(|stack| stack.statistics().protocols);
            is_sent(self.stream())
                && self.peer.lock().unwrap().as_ref().is_none_or(is_sent)
                && client.frames_sent == server.frames_received
                && server.frames_sent == client.frames_received
        });
    }
}
