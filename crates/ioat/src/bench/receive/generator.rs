//! A link whose far end is a TCP sender without cost.

mod frames;
mod headers;
mod sender;

use std::{
    collections::VecDeque,
    net::SocketAddrV4,
    os::fd::BorrowedFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use dmaengine::{Arena, ArenaFull, PacketBuf, PacketPool};
use netdev::{Checksum, Link, LinkInfo, ReceiveError, RxInfo, Statistics, TransmitError, TxInfo};

use self::{
    frames::{Content, Frames},
    headers::{ACK, CONTROL_FRAME_MAX, FIN, Heard, PSH, RST, SYN, Tcp, write_arp_reply},
    sender::{Next, RETRANSMISSION_TIMEOUT, Sender},
};
pub use self::{
    frames::{FrameKind, ParseFrameError},
    headers::Station,
};

/// Frames without payload that can be under way: a handshake and an answer or two.
const CONTROL_FRAMES: usize = 16;

/// The first sequence number: some megabytes before the numbers wrap, so that they do in each stream.
const FIRST_SEQ: u32 = u32::MAX - (3 << 20);

/// The ports that connections come from, one after the other.
const PORTS: std::ops::Range<u16> = 40_000..60_000;

/// The longest frame with an Ethernet header that IPv4 can have, in bytes.
const SUPER_FRAME_MAX: usize = 14 + u16::MAX as usize;

/// One end of a link in memory, for a stack; at the other end there is not a second stack but what
/// the stack sees of one: a host that answers ARP, opens connections and fills the receiver's window
/// as soon as it opens, with frames that a link vouches for.
///
/// It has no thread and takes no time of its own: frames are prepared, and only what must change in
/// their headers is written, some frames ahead. They are handed out in the order of a ring that is
/// larger than the last-level cache, so that payload is as cold as in memory that a network card has
/// written; and in an arena, as a link's receive buffers are. A frame whose handles are not all
/// dropped is not written.
///
/// Nothing is lost on the way, but a receiver may drop what it has no room for: without an
/// acknowledgment for 200 ms it goes back and sends again, and probes a closed window.
#[derive(Debug)]
pub struct Generator {
    info: LinkInfo,
    statistics: Statistics,
    here: Station,
    there: Station,
    frames: Frames,
    control_pool: PacketPool,
    controls: VecDeque<Control>,
    state: State,
    next_port: u16,
    shared: Arc<Mutex<Shared>>,
}

/// Frames without payload that are to be sent.
#[derive(Clone, Copy, Debug)]
enum Control {
    ArpReply,
    Segment(Tcp),
}

#[derive(Debug)]
enum State {
    Idle,
    SynSent { order: Order, port: u16, due: Duration },
    Open(Connection),
}

/// An established connection.
#[derive(Debug)]
struct Connection {
    sender: Sender,
    port: u16,
    to_port: u16,
    /// The next byte of the other end, which sends nothing but its FIN.
    ack: u32,
    /// The shift of the windows that it offers.
    scale: u8,
    /// Its clock, as its last segment had it.
    echo: u32,
}

/// What to send.
#[derive(Clone, Copy, Debug)]
struct Order {
    to_port: u16,
    frames: u64,
}

/// What generator and handle have in common.
#[derive(Debug)]
struct Shared {
    /// Not begun.
    order: Option<Order>,
    /// Of the stream that was begun last.
    content: Content,
    timeouts: u64,
}

/// Tells a [`Generator`] what to send, and what it has sent.
#[derive(Clone, Debug)]
pub struct GeneratorHandle {
    shared: Arc<Mutex<Shared>>,
    frame_len: usize,
}

impl Generator {
    /// The arena memory that it takes, in bytes.
    #[must_use]
    pub fn arena_len(kind: FrameKind) -> usize {
        let pages = 2 * 4096;
        Frames::arena_len(kind, Frames::count(kind))
            + CONTROL_FRAMES * CONTROL_FRAME_MAX.next_multiple_of(64)
            + pages
    }

    /// A host `here` that sends to a stack `there` in frames of this kind, with the frames in `arena`.
    ///
    /// # Errors
    ///
    /// [`ArenaFull`] if it has no room for [`arena_len`](Self::arena_len) bytes.
    pub fn open(
        arena: &Arena,
        kind: FrameKind,
        here: Station,
        there: Station,
    ) -> Result<(Self, GeneratorHandle), ArenaFull> {
        let frames = Frames::new(arena, kind, Frames::count(kind), here, there)?;
        let shared = Shared { order: None, content: frames.content(), timeouts: 0 };
        let shared = Arc::new(Mutex::new(shared));
        let handle = GeneratorHandle { shared: Arc::clone(&shared), frame_len: kind.payload() };
        let generator = Self {
            info: LinkInfo {
                name: "generator".into(),
                mac: there.mac,
                mtu: 1500,
                checksum_offload: true,
                tso_max: Some(SUPER_FRAME_MAX),
                receive_memory: frames.memory(),
            },
            statistics: Statistics::default(),
            here,
            there,
            frames,
            control_pool: PacketPool::new(arena, CONTROL_FRAME_MAX, CONTROL_FRAMES)?,
            controls: VecDeque::with_capacity(CONTROL_FRAMES),
            state: State::Idle,
            next_port: PORTS.start,
            shared,
        };
        Ok((generator, handle))
    }

    /// Sends what is next, if anything is.
    fn next_frame(&mut self, now: Duration) -> Option<PacketBuf> {
        if let Some(control) = self.controls.pop_front() {
            return self.control(control);
        }
        match &mut self.state {
            State::Idle => {
                let mut shared = lock(&self.shared);
                let order = shared.order.take()?;
                self.frames.begin(order.frames);
                shared.content = self.frames.content();
                drop(shared);
                let port = self.next_port;
                self.next_port = if port + 1 == PORTS.end { PORTS.start } else { port + 1 };
                self.syn(now, order, port)
            }
            State::SynSent { order, port, due } => {
                if now < *due {
                    return None;
                }
                let (order, port) = (*order, *port);
                lock(&self.shared).timeouts += 1;
                self.syn(now, order, port)
            }
            State::Open(_) => self.data(now),
        }
    }

    fn syn(&mut self, now: Duration, order: Order, port: u16) -> Option<PacketBuf> {
        self.state = State::SynSent { order, port, due: now + RETRANSMISSION_TIMEOUT };
        self.control(Control::Segment(Tcp {
            source_port: port,
            destination_port: order.to_port,
            seq: FIRST_SEQ,
            ack: 0,
            flags: SYN,
            timestamps: (clock(now), 0),
        }))
    }

    fn data(&mut self, now: Duration) -> Option<PacketBuf> {
        let State::Open(connection) = &mut self.state else { return None };
        connection.sender.on_time(now);
        let next = connection.sender.next()?;
        let packet = match next {
            Next::Frame(frame) => {
                let connection = &*connection;
                let header = |frame| {
                    let push = if connection.sender.is_last(frame) { PSH } else { 0 };
                    connection.tcp(now, connection.sender.seq_of(frame), ACK | push)
                };
                self.frames.get(frame, header)?
            }
            Next::Fin => {
                let tcp = connection.tcp(now, connection.sender.seq_of_fin(), FIN | ACK);
                self.control(Control::Segment(tcp))?
            }
        };
        if let State::Open(connection) = &mut self.state {
            connection.sender.sent();
        }
        Some(packet)
    }

    /// A frame without payload; `None`, and it is lost, if there are too many.
    fn control(&self, control: Control) -> Option<PacketBuf> {
        let mut slot = self.control_pool.take()?;
        let frame = slot.as_mut();
        let len = match control {
            Control::ArpReply => write_arp_reply(frame, self.here, self.there),
            Control::Segment(tcp) => tcp.write(frame, self.here, self.there, 0),
        };
        Some(slot.freeze(len))
    }

    fn queue(&mut self, control: Control) {
        if self.controls.len() < CONTROL_FRAMES {
            self.controls.push_back(control);
        }
    }

    /// What the stack says.
    fn hear(&mut self, now: Duration, heard: Heard) {
        match heard {
            Heard::WhoHas(address) if address == self.here.address => {
                self.queue(Control::ArpReply);
            }
            Heard::WhoHas(_) => {}
            Heard::Segment { tcp, window, scale } => self.on_segment(now, tcp, window, scale),
        }
    }

    fn on_segment(&mut self, now: Duration, tcp: Tcp, window: u16, scale: Option<u8>) {
        if tcp.flags & RST != 0 {
            self.state = State::Idle;
            return;
        }
        // SYN and FIN take a sequence number each, and are acknowledged whatever has become of their
        // connection.
        if tcp.flags & (SYN | FIN) != 0 {
            self.queue(Control::Segment(Tcp {
                source_port: tcp.destination_port,
                destination_port: tcp.source_port,
                seq: tcp.ack,
                ack: tcp.seq.wrapping_add(1),
                flags: ACK,
                timestamps: (clock(now), tcp.timestamps.0),
            }));
        }
        match &mut self.state {
            State::SynSent { order, port, .. }
                if *port == tcp.destination_port
                    && tcp.flags & SYN != 0
                    && tcp.ack == FIRST_SEQ.wrapping_add(1) =>
            {
                // The window of a SYN is not scaled.
                let window = window.into();
                let len = self.frames.kind().payload();
                let sender = Sender::new(now, tcp.ack, len, order.frames, window);
                self.state = State::Open(Connection {
                    sender,
                    port: *port,
                    to_port: order.to_port,
                    ack: tcp.seq.wrapping_add(1),
                    scale: scale.unwrap_or(0),
                    echo: tcp.timestamps.0,
                });
            }
            State::Open(connection)
                if connection.port == tcp.destination_port && tcp.flags & (ACK | SYN) == ACK =>
            {
                connection.echo = tcp.timestamps.0;
                connection.sender.on_ack(now, tcp.ack, u64::from(window) << connection.scale);
                if connection.sender.is_done() {
                    self.end();
                }
            }
            _ => {}
        }
    }

    /// The stream has arrived.
    fn end(&mut self) {
        let ended = std::mem::replace(&mut self.state, State::Idle);
        if let State::Open(Connection { sender, .. }) = ended {
            lock(&self.shared).timeouts += sender.timeouts();
        }
    }
}

impl Connection {
    const fn tcp(&self, now: Duration, seq: u32, flags: u8) -> Tcp {
        Tcp {
            source_port: self.port,
            destination_port: self.to_port,
            seq,
            ack: self.ack,
            flags,
            timestamps: (clock(now), self.echo),
        }
    }
}

impl Link for Generator {
    fn info(&self) -> &LinkInfo {
        &self.info
    }

    fn statistics(&self) -> &Statistics {
        &self.statistics
    }

    fn receive(
        &mut self,
        now: Duration,
        max: usize,
        each: &mut dyn FnMut(PacketBuf, RxInfo),
    ) -> Result<usize, ReceiveError> {
        let mut received = 0;
        while received < max
            && let Some(frame) = self.next_frame(now)
        {
            received += 1;
            self.statistics.rx_frames += 1;
            self.statistics.rx_bytes += frame.len() as u64;
            each(frame, RxInfo { checksum: Checksum::Verified });
        }
        Ok(received)
    }

    fn transmit(&mut self, now: Duration, frame: &[u8], _: TxInfo) -> Result<(), TransmitError> {
        self.statistics.tx_frames += 1;
        self.statistics.tx_bytes += frame.len() as u64;
        if let Some(heard) = Heard::parse(frame) {
            self.hear(now, heard);
        }
        Ok(())
    }

    /// There is none: what makes a frame ready is what the stack transmits, and the handle's order,
    /// which is seen by the next turn.
    fn event(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn poll_timeout(&self) -> Option<Duration> {
        const NOW: Duration = Duration::ZERO;
        if !self.controls.is_empty() {
            return Some(NOW);
        }
        match &self.state {
            State::Idle => lock(&self.shared).order.map(|_| NOW),
            State::SynSent { due, .. } => Some(*due),
            State::Open(Connection { sender, .. }) => {
                if sender.next().is_some() {
                    Some(NOW)
                } else {
                    sender.deadline()
                }
            }
        }
    }
}

impl GeneratorHandle {
    /// Has it connect to the stack's port and send at least `bytes`, in whole frames; how many that
    /// are. It begins with the stack's next turn.
    pub fn start(&self, to: SocketAddrV4, bytes: u64) -> u64 {
        let frame_len = self.frame_len as u64;
        let frames = bytes.div_ceil(frame_len);
        lock(&self.shared).order = Some(Order { to_port: to.port(), frames });
        frames * frame_len
    }

    /// The offset in the stream that was begun last of the first of `bytes`, which start at `offset`,
    /// that is wrong.
    #[must_use]
    pub fn first_wrong(&self, offset: u64, bytes: &[u8]) -> Option<u64> {
        let content = lock(&self.shared).content;
        content.first_wrong(offset, bytes)
    }

    /// How often an acknowledgment did not come in time, in streams that have ended.
    #[must_use]
    pub fn timeouts(&self) -> u64 {
        lock(&self.shared).timeouts
    }
}

/// Nothing that can panic runs while it is locked.
fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The sender's clock for timestamps, in milliseconds as Linux's.
const fn clock(now: Duration) -> u32 {
    now.as_millis() as u32
}

#[cfg(test)]
mod tests;
