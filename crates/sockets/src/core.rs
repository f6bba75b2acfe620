//! The state of a shard, and one turn of its work. No waiting happens here.

use std::{
    io,
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::Thread,
    time::Duration,
};

use netdev::Link;
use netdma::{Conditions, Destination, Offload, ReceiveId, Request, RxPacket, Verdict};
use netstack::{Event, Instant, ListenerId, Readiness, RxMeta, SocketId, TxMeta};
use parking_lot::Condvar;
use rustix::event::{EventfdFlags, eventfd};

pub(crate) use crate::tasks::TaskId;
use crate::{
    patience::Patience,
    pollers::{Pollers, flags_of},
    tasks::Tasks,
};

/// The most payload that one turn takes from the link before it acknowledges and looks around: four
/// super-frames. More would delay the ACK that lets the sender go on; less would send more of them.
const TURN_BYTES: usize = 256 * 1024;

/// Payload between two rounds of early copies in a turn: one super-frame, so that the engine starts
/// on it while the next is read from the link.
const SERVE_BYTES: usize = 64 * 1024;

/// The most frames taken from the link at once.
const MAX_FRAMES: usize = 32;

/// What a thread waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    Socket(SocketId),
    Listener(ListenerId),
    Poller(PollerId),
}

/// Names a poller. Ids are not used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct PollerId(pub(crate) u64);

/// A thread that waits while another one drives.
#[derive(Debug, Default)]
pub(crate) struct Waiter {
    pub(crate) condvar: Condvar,
    /// Set under the shard's lock, with the notification.
    pub(crate) woken: AtomicBool,
    /// The thread's next wait, or the one it is in, is to end.
    interrupted: AtomicBool,
}

impl Waiter {
    pub(crate) fn interrupt(&self) {
        // Release: what the caller did before is seen by the call that ends.
        self.interrupted.store(true, Ordering::Release);
    }

    /// Whether the thread was interrupted since it was last asked.
    pub(crate) fn take_interruption(&self) -> bool {
        // Relaxed first, as this is looked at before every wait. Acquire: pairs with `interrupt`.
        self.interrupted.load(Ordering::Relaxed) && self.interrupted.swap(false, Ordering::Acquire)
    }
}

/// Who drives the shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Driver {
    Nobody,
    /// A thread inside a call.
    Program,
    Background,
}

/// The driver, asleep in `poll(2)`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asleep {
    /// What it waits for itself; `None` for the background thread.
    pub(crate) key: Option<Key>,
    /// When it wakes by itself.
    pub(crate) until: Instant,
    /// Whether the end of the engine's copies wakes it.
    pub(crate) watches_engine: bool,
}

/// What wakes a driver out of `poll(2)`: one event for each role, because a new driver may be asleep
/// before the old one has seen that it is replaced.
#[derive(Debug)]
pub(crate) struct Kicks {
    pub(crate) program: OwnedFd,
    pub(crate) background: OwnedFd,
}

impl Kicks {
    pub(crate) fn new() -> io::Result<Self> {
        let event = || eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC);
        Ok(Self { program: event()?, background: event()? })
    }

    /// Wakes a driver of either role. What a signal handler may do.
    pub(crate) fn kick_all(&self) {
        Self::kick(&self.program);
        Self::kick(&self.background);
    }

    fn kick(fd: &OwnedFd) {
        // The counter is full only if it was never read: then the driver is awake already.
        let _full = rustix::io::write(fd, &1u64.to_ne_bytes());
    }
}

pub(crate) struct Core {
    pub(crate) stack: netstack::Stack<RxPacket>,
    pub(crate) offload: Offload,
    /// Whether the driver looks for the end of copies or sleeps.
    pub(crate) patience: Patience,
    pub(crate) driver: Driver,
    /// Set by the driver before it sleeps; taken by whoever kicks it.
    pub(crate) asleep: Option<Asleep>,
    pub(crate) kicks: Arc<Kicks>,
    /// The background thread, while it sleeps until it is told that nobody drives.
    pub(crate) sleeping_background: Option<Thread>,
    link: Box<dyn Link>,
    /// Why the link is gone, once it is.
    pub(crate) link_failure: Option<(io::ErrorKind, String)>,
    /// Where a frame is composed before it is sent.
    frame: Box<[u8]>,
    /// Frames taken at once, so that they hold about [`SERVE_BYTES`].
    frames_at_once: usize,
    pub(crate) waiting: Vec<(Key, Arc<Waiter>)>,
    pub(crate) pollers: Pollers,
    /// Sockets whose readers are to be woken, for the length of [`Core::wake_readers`].
    idle: Vec<SocketId>,
    tasks: Tasks,
}

impl Core {
    pub(crate) fn new(
        stack: netstack::Stack<RxPacket>,
        offload: Offload,
        link: Box<dyn Link>,
        kicks: Arc<Kicks>,
    ) -> Self {
        let frame = vec![0; stack.max_frame_len()].into_boxed_slice();
        Self {
            stack,
            offload,
            patience: Patience::default(),
            driver: Driver::Nobody,
            asleep: None,
            kicks,
            sleeping_background: None,
            link,
            link_failure: None,
            frame,
            frames_at_once: 1,
            waiting: Vec::new(),
            pollers: Pollers::default(),
            idle: Vec::new(),
            tasks: Tasks::default(),
        }
    }

    pub(crate) fn link(&self) -> &dyn Link {
        &*self.link
    }

    /// Whether to wait for the link's event: not once it is gone, and not while it has no receive
    /// buffers, which come back with the programs' reads.
    pub(crate) fn awaits_link(&self) -> bool {
        self.link_failure.is_none() && self.link.event().is_some()
    }

    /// Fails once the link is gone: nothing can be received or sent any more.
    pub(crate) fn check_link(&self) -> io::Result<()> {
        match &self.link_failure {
            None => Ok(()),
            Some((kind, message)) => Err(io::Error::new(*kind, message.clone())),
        }
    }

    /// One turn: packets in, early copies out, ended copies back, timers, packets out. Returns
    /// whether there was anything to do.
    pub(crate) fn turn(&mut self, now: Instant) -> bool {
        let mut worked = false;
        let mut bytes = 0;
        let mut at_hand = true;
        while bytes < TURN_BYTES {
            let received = self.receive_frames(now);
            if received.frames == 0 {
                at_hand = false;
                break;
            }
            worked = true;
            bytes += received.bytes;
            self.dispatch(now);
            self.reap(now);
        }
        if self.stack.poll_timeout().is_some_and(|deadline| deadline <= now) {
            self.stack.handle_timeout(now);
            worked = true;
        }
        worked |= self.reap(now);
        self.dispatch(now);
        if !at_hand {
            worked |= self.settle();
        }
        self.transmit(now);
        worked
    }

    /// Takes frames from the link into the stack.
    fn receive_frames(&mut self, now: Instant) -> Received {
        if self.link_failure.is_some() {
            return Received { frames: 0, bytes: 0 };
        }
        let Self { link, stack, frames_at_once, link_failure, .. } = self;
        let mut bytes = 0;
        let outcome = link.receive(now - Instant::ZERO, *frames_at_once, &mut |packet, info| {
            bytes += packet.as_ref().len();
            stack.receive(now, RxPacket(packet), rx_meta(info));
        });
        let frames = match outcome {
            Ok(frames) => frames,
            Err(error) => {
                *link_failure = Some((io::ErrorKind::NetworkDown, error.to_string()));
                self.pollers.on_event_for_all();
                self.wake_all();
                0
            }
        };
        if let Some(mean) = bytes.checked_div(frames) {
            self.frames_at_once = (SERVE_BYTES / mean.max(1)).clamp(1, MAX_FRAMES);
        }
        Received { frames, bytes }
    }

    /// Serves the receives whose sockets became readable or are over, then wakes who waits.
    fn dispatch(&mut self, now: Instant) {
        while let Some(event) = self.stack.poll_event() {
            let (key, wakes) = match event {
                Event::Acceptable(listener) => (Key::Listener(listener), true),
                Event::Socket { id, ready } => {
                    // What came for a reader that had better sleep on wakes nobody.
                    let served = self.offload.serve(&mut self.stack, now, id);
                    (Key::Socket(id), served || ready != Readiness::READABLE)
                }
            };
            if wakes {
                self.wake(key);
            }
            self.tell_pollers(key, flags_of(event));
        }
    }

    /// Collects ended copies and wakes the calls that waited for the last of theirs. Returns
    /// whether there is one.
    pub(crate) fn reap(&mut self, now: Instant) -> bool {
        let Self { offload, stack, idle, .. } = self;
        offload.reap(stack, now, |socket| idle.push(socket));
        self.wake_readers()
    }

    /// Nothing more is at hand: wakes the calls that have enough. Returns whether there is one.
    fn settle(&mut self) -> bool {
        let Self { offload, idle, .. } = self;
        offload.settle(|socket| idle.push(socket));
        self.wake_readers()
    }

    fn wake_readers(&mut self) -> bool {
        let any = !self.idle.is_empty();
        while let Some(socket) = self.idle.pop() {
            self.wake(Key::Socket(socket));
        }
        any
    }

    /// Sends what the stack has to say. Called at the end of a turn and after every call that
    /// may have given it something to say.
    pub(crate) fn transmit(&mut self, now: Instant) {
        let Self { link, stack, frame, .. } = self;
        while let Some(meta) = stack.poll_transmit(now, frame) {
            // A frame that the link cannot take is lost, as on any network; TCP sends it again.
            // The link counts it.
            let _lost = link.transmit(now - Instant::ZERO, &frame[..meta.len], tx_info(meta));
        }
    }

    /// When the next turn is due at the latest, if no event comes first.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        [
            self.stack.poll_timeout(),
            self.offload.poll_timeout(),
            self.link.poll_timeout().map(Instant::from),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Posts a receive and serves it from what is queued.
    pub(crate) fn post(
        &mut self,
        now: Instant,
        socket: SocketId,
        destination: impl Into<Destination>,
        request: Request,
    ) -> ReceiveId {
        let receive = self.offload.post(socket, destination, request);
        self.offload.serve(&mut self.stack, now, socket);
        self.offload.settle_one(receive);
        receive
    }

    /// What a receive call does next.
    pub(crate) fn check(&mut self, receive: ReceiveId, conditions: Conditions) -> Verdict {
        self.offload.check(&mut self.stack, receive, conditions)
    }

    /// What a call that looks at received bytes does next.
    pub(crate) fn peek(
        &mut self,
        socket: SocketId,
        buffer: &mut [u8],
        request: Request,
        conditions: Conditions,
    ) -> Verdict {
        self.offload.peek(&mut self.stack, socket, buffer, request, conditions)
    }

    /// The tasks that wait.
    pub(crate) const fn tasks(&mut self) -> &mut Tasks {
        &mut self.tasks
    }

    pub(crate) fn start_waiting(&mut self, key: Key, waiter: &Arc<Waiter>) {
        // Relaxed: written and read under the shard's lock.
        waiter.woken.store(false, Ordering::Relaxed);
        self.waiting.push((key, waiter.clone()));
    }

    pub(crate) fn stop_waiting(&mut self, waiter: &Arc<Waiter>) {
        self.waiting.retain(|(_, other)| !Arc::ptr_eq(other, waiter));
    }

    /// Wakes who waits for `key`, the driver included.
    pub(crate) fn wake(&mut self, key: Key) {
        notify_all(&self.waiting, key);
        self.tasks.wake(key);
        if self.asleep.is_some_and(|driver| driver.key == Some(key)) {
            self.kick_driver();
        }
    }

    /// Wakes the threads that were interrupted, but for the driver, which looks for itself.
    pub(crate) fn wake_interrupted(&self) {
        for (_, waiter) in &self.waiting {
            // Relaxed: the thread itself takes it.
            if waiter.interrupted.load(Ordering::Relaxed) {
                notify(waiter);
            }
        }
    }

    pub(crate) fn wake_all(&mut self) {
        for (_, waiter) in &self.waiting {
            notify(waiter);
        }
        self.tasks.wake_all();
        self.kick_driver();
    }

    /// Wakes one waiting thread, whoever it is, so that it drives; `false` if there is none. It may
    /// have been woken already and return without driving: then it promotes another one.
    pub(crate) fn promote(&self) -> bool {
        self.waiting.first().inspect(|(_, waiter)| notify(waiter)).is_some()
    }

    /// Wakes the driver if it is asleep, so that it looks at the state again.
    pub(crate) fn kick_driver(&mut self) {
        if self.asleep.take().is_some() {
            match self.driver {
                Driver::Program => Kicks::kick(&self.kicks.program),
                Driver::Background => Kicks::kick(&self.kicks.background),
                Driver::Nobody => {}
            }
        }
    }

    /// Wakes the driver if something is due before it wakes by itself.
    pub(crate) fn kick_driver_if_due(&mut self) {
        if let Some(Asleep { until, .. }) = self.asleep
            && self.deadline().is_some_and(|due| due < until)
        {
            self.kick_driver();
        }
    }

    /// Sees to it that the end of the copies in flight wakes the driver.
    pub(crate) fn have_driver_watch_engine(&mut self) {
        if self.asleep.is_some_and(|driver| !driver.watches_engine) {
            self.kick_driver();
        }
    }
}

struct Received {
    frames: usize,
    bytes: usize,
}

fn rx_meta(info: netdev::RxInfo) -> RxMeta {
    let checksum = match info.checksum {
        netdev::Checksum::Verified => netstack::Checksum::Verified,
        netdev::Checksum::Unverified => netstack::Checksum::Unverified,
    };
    RxMeta { checksum }
}

fn tx_info(meta: TxMeta) -> netdev::TxInfo {
    // A frame is shorter than 65,536 bytes plus its Ethernet header, and all of these point into
    // its headers or are a segment's size.
    let short = |value: usize| u16::try_from(value).unwrap_or(u16::MAX);
    netdev::TxInfo {
        checksum: meta.checksum.map(|partial| netdev::PartialChecksum {
            start: short(partial.start),
            offset: short(partial.offset),
        }),
        gso: meta.gso.map(|gso| netdev::Gso {
            size: short(gso.segment_size),
            header_len: short(gso.header_len),
        }),
    }
}

pub(crate) fn notify_all(waiting: &[(Key, Arc<Waiter>)], key: Key) {
    for (_, waiter) in waiting.iter().filter(|(other, _)| *other == key) {
        notify(waiter);
    }
}

fn notify(waiter: &Waiter) {
    // Relaxed: written and read under the shard's lock.
    if !waiter.woken.swap(true, Ordering::Relaxed) {
        waiter.condvar.notify_one();
    }
}

/// The longest that a driver sleeps with nothing due: long enough to cost nothing, short enough
/// that a defect in a deadline shows as slowness rather than as a hang.
pub(crate) const LONGEST_SLEEP: Duration = Duration::from_secs(10);
