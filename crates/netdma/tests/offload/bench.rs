//! Two stacks with a cable between them, and an engine that does as it is told: fails, stands still,
//! cannot be stopped.

use std::{
    collections::VecDeque,
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::BorrowedFd,
    sync::{Arc, Mutex},
    time::Duration,
};

use dmaengine::{
    Arena, Capabilities, ChannelInfo, Completion, Cookie, DmaChannel, Flags, Kind, Operation,
    PacketPool, Status, Stuck, SubmitError,
};
use netdma::{
    Conditions, Copybreak, CpuCause, Destination, Offload, ReceiveId, RecvFlags, Request, RxPacket,
    Verdict, WakeReason,
};
use netstack::{
    Checksum, Config, Instant, Ipv4Cidr, LinkCapabilities, MacAddress, RxMeta, SocketId, Stack,
    TcpConfig,
};

use crate::clock;

pub(crate) const RING: usize = 16;

/// What the engine does with a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Copies.
    Copy,
    /// Writes garbage over the target, then reports this.
    Fail(Status),
    /// Does nothing, until it is terminated.
    Hold,
}

/// What the test tells the engine, and sees of it.
#[derive(Debug)]
pub(crate) struct Script {
    pub(crate) order: Order,
    /// How many copies may still end.
    pub(crate) ends: u64,
    /// Whether `terminate_sync` succeeds.
    pub(crate) stops: bool,
    pub(crate) refuse: Option<SubmitError>,
    pub(crate) submitted: u64,
    pub(crate) doorbells: u64,
    /// Those of the last copy.
    pub(crate) flags: Flags,
}

/// A copy that was submitted.
pub(crate) struct Copy {
    source: *const u8,
    target: *mut u8,
    len: usize,
}

pub(crate) struct ScriptedChannel {
    info: ChannelInfo,
    pub(crate) script: Arc<Mutex<Script>>,
    next: Cookie,
    ring: VecDeque<(Cookie, Copy, bool)>,
    aborted: VecDeque<Cookie>,
}

impl std::fmt::Debug for ScriptedChannel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ScriptedChannel").finish_non_exhaustive()
    }
}

// SAFETY: the pointers in `ring` are used only in `poll`, by the thread that uses the channel.
unsafe impl Send for ScriptedChannel {}

// SAFETY: memory is touched in `poll` alone, before the operation's only report; what is refused or
// aborted is never touched.
unsafe impl DmaChannel for ScriptedChannel {
    fn info(&self) -> &ChannelInfo {
        &self.info
    }

    fn space(&self) -> usize {
        RING - self.ring.len()
    }

    unsafe fn submit(
        &mut self,
        operation: &Operation<'_>,
        flags: Flags,
    ) -> Result<Cookie, SubmitError> {
        let Operation::Memcpy { source, target, len } = *operation else {
            return Err(SubmitError::Unsupported { operation: operation.kind() });
        };
        let mut script = self.script.lock().unwrap();
        if let Some(error) = script.refuse {
            return Err(error);
        }
        if self.space() == 0 {
            return Err(SubmitError::RingFull);
        }
        script.submitted += 1;
        script.flags = flags;
        clock::on_submit();
        let cookie = self.next;
        self.next = cookie.next();
        self.ring.push_back((cookie, Copy { source, target, len }, false));
        Ok(cookie)
    }

    fn issue_pending(&mut self) {
        self.script.lock().unwrap().doorbells += 1;
        self.ring.iter_mut().for_each(|(_, _, issued)| *issued = true);
    }

    fn poll(&mut self, report: &mut dyn FnMut(Completion)) {
        for cookie in self.aborted.drain(..) {
            report(Completion::failed(cookie, Status::Aborted));
        }
        clock::on_poll();
        let mut script = self.script.lock().unwrap();
        let order = script.order;
        while order != Order::Hold
            && script.ends > 0
            && self.ring.front().is_some_and(|(_, _, issued)| *issued)
        {
            script.ends -= 1;
            let (cookie, Copy { source, target, len }, _) =
                self.ring.pop_front().expect("just seen");
            let completion = match order {
                Order::Copy => {
                    // SAFETY: by `submit`'s contract both are valid and disjoint.
                    unsafe { source.copy_to_nonoverlapping(target, len) };
                    Completion::success(cookie, len)
                }
                Order::Fail(status) => {
                    // SAFETY: by `submit`'s contract the target may be written.
                    unsafe { target.write_bytes(0xee, len) };
                    Completion::failed(cookie, status)
                }
                Order::Hold => unreachable!("the loop's condition"),
            };
            report(completion);
        }
    }

    fn arm(&mut self) -> bool {
        false
    }

    fn event(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn terminate_sync(&mut self, _: Duration) -> Result<(), Stuck> {
        let mut script = self.script.lock().unwrap();
        if !script.stops {
            return Err(Stuck);
        }
        script.refuse.take_if(|error| *error == SubmitError::ChannelDown);
        self.aborted.extend(self.ring.drain(..).map(|(cookie, _, _)| cookie));
        Ok(())
    }
}

/// Two stacks with a cable between them, and a connection; the second receives through the offload.
pub(crate) struct Bench {
    pub(crate) sender: Stack<RxPacket>,
    pub(crate) receiver: Stack<RxPacket>,
    pub(crate) client: SocketId,
    pub(crate) server: SocketId,
    pub(crate) pool: PacketPool,
    pub(crate) frame: Vec<u8>,
    pub(crate) now: Instant,
    pub(crate) offload: Offload,
    pub(crate) script: Arc<Mutex<Script>>,
}

fn stack(number: u8, mtu: usize, tcp: TcpConfig) -> Stack<RxPacket> {
    Stack::new(Config {
        mac: MacAddress([2, 0, 0, 0, 0, number]),
        address: Ipv4Cidr { address: Ipv4Addr::new(10, 0, 0, number), prefix_len: 24 },
        gateway: None,
        link: LinkCapabilities { mtu, ..LinkCapabilities::default() },
        tcp,
        seed: [number; 16],
    })
    .unwrap()
}

impl Bench {
    pub(crate) fn new(copybreak: Copybreak) -> Self {
        Self::with_receive_buffer(copybreak, TcpConfig::default().receive_buffer)
    }

    pub(crate) fn with_receive_buffer(copybreak: Copybreak, receive_buffer: usize) -> Self {
        Self::with_mtu(copybreak, receive_buffer, LinkCapabilities::default().mtu)
    }

    pub(crate) fn with_mtu(copybreak: Copybreak, receive_buffer: usize, mtu: usize) -> Self {
        Self::with_engine(copybreak, receive_buffer, mtu, Capabilities::MEMCPY)
    }

    pub(crate) fn with_engine(
        copybreak: Copybreak,
        receive_buffer: usize,
        mtu: usize,
        capabilities: Capabilities,
    ) -> Self {
        let script = Arc::new(Mutex::new(Script {
            order: Order::Copy,
            ends: u64::MAX,
            stops: true,
            refuse: None,
            submitted: 0,
            doorbells: 0,
            flags: Flags::empty(),
        }));
        let channel = ScriptedChannel {
            info: ChannelInfo {
                capabilities,
                ring_size: RING,
                ..ChannelInfo::new("scripted", Kind::Software)
            },
            script: script.clone(),
            next: Cookie::FIRST,
            ring: VecDeque::new(),
            aborted: VecDeque::new(),
        };
        let channel: Box<dyn DmaChannel> = Box::new(channel);
        let offload = Offload::new(Some(channel.into()), copybreak);
        let arena = Arena::new(16 << 20).unwrap();
        let pool = PacketPool::new(&arena, (mtu + 14).next_power_of_two(), 128).unwrap();
        let tcp = TcpConfig { receive_buffer, ..TcpConfig::default() };
        let (mut sender, mut receiver) = (stack(1, mtu, TcpConfig::default()), stack(2, mtu, tcp));
        let now = Instant::from_millis(1);
        let address = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 2), 9000);
        let listener = receiver.listen(address, 1).unwrap();
        let client = sender.connect(now, address).unwrap();
        let frame = vec![0; sender.max_frame_len()];
        let (mut sender, mut receiver, mut frame) = (sender, receiver, frame);
        let server = loop {
            cable(&mut sender, &mut receiver, &pool, &mut frame, now);
            cable(&mut receiver, &mut sender, &pool, &mut frame, now);
            if let Some((server, _)) = receiver.accept(listener) {
                break server;
            }
        };
        Self { sender, receiver, client, server, pool, frame, now, offload, script }
    }

    /// Sends `bytes`, and delivers until nothing moves.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        let Self { sender, receiver, client, pool, frame, now, .. } = self;
        assert_eq!(sender.send(*now, *client, bytes), Ok(bytes.len()));
        while cable(sender, receiver, pool, frame, *now)
            | cable(receiver, sender, pool, frame, *now)
        {}
    }

    /// Has the sender send `bytes`, which are delivered by [`deliver`](Self::deliver).
    pub(crate) fn queue(&mut self, bytes: &[u8]) {
        assert_eq!(self.sender.send(self.now, self.client, bytes), Ok(bytes.len()));
    }

    /// Delivers up to `frames` of what the sender has to send; returns how many there were.
    pub(crate) fn deliver(&mut self, frames: usize) -> usize {
        let Self { sender, receiver, pool, frame, now, .. } = self;
        (0..frames).take_while(|_| carry(sender, receiver, pool, frame, *now).is_some()).count()
    }

    /// Delivers what the receiver has to send; returns the window of each.
    pub(crate) fn answers(&mut self) -> Vec<usize> {
        let Self { sender, receiver, pool, frame, now, .. } = self;
        let window = |segment: &[u8]| usize::from(u16::from_be_bytes([segment[48], segment[49]]));
        std::iter::from_fn(|| {
            carry(receiver, sender, pool, frame, *now).map(|len| window(&frame[..len]))
        })
        .collect()
    }

    /// Returns whether somebody has something to look at.
    pub(crate) fn serve(&mut self) -> bool {
        self.offload.serve(&mut self.receiver, self.now, self.server)
    }

    pub(crate) fn post(&mut self, target: impl Into<Destination>, flags: RecvFlags) -> ReceiveId {
        let request = Request { flags, ..Request::default() };
        self.offload.post(self.server, target, request)
    }

    pub(crate) fn ended(&self, receive: ReceiveId) -> Option<WakeReason> {
        self.offload.progress(receive).expect("posted").ended
    }

    pub(crate) fn taken(&self, receive: ReceiveId) -> usize {
        self.offload.progress(receive).expect("posted").taken
    }

    /// What a call that may wait does next.
    pub(crate) fn check(&mut self, receive: ReceiveId) -> Verdict {
        let conditions = Conditions { may_wait: true, interrupted: false };
        self.offload.check(&mut self.receiver, receive, conditions)
    }

    pub(crate) fn reap(&mut self) {
        self.offload.reap(&mut self.receiver, self.now, |_| {});
    }

    pub(crate) fn charged(&self) -> usize {
        self.receiver.tcp_info(self.server).unwrap().receive_charged
    }
}

/// Carries all frames that `from` has to send; returns whether there were any.
fn cable(
    from: &mut Stack<RxPacket>,
    to: &mut Stack<RxPacket>,
    pool: &PacketPool,
    frame: &mut [u8],
    now: Instant,
) -> bool {
    std::iter::from_fn(|| carry(from, to, pool, frame, now)).count() > 0
}

/// Carries one frame; returns its length.
fn carry(
    from: &mut Stack<RxPacket>,
    to: &mut Stack<RxPacket>,
    pool: &PacketPool,
    frame: &mut [u8],
    now: Instant,
) -> Option<usize> {
    let meta = from.poll_transmit(now, frame)?;
    let mut slot = pool.take().expect("enough buffers");
    slot.as_mut()[..meta.len].copy_from_slice(&frame[..meta.len]);
    let meta_in = RxMeta { checksum: Checksum::Unverified };
    to.receive(now, RxPacket(slot.freeze(meta.len)), meta_in);
    Some(meta.len)
}

pub(crate) fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 31 + i / 251) as u8).collect()
}

pub(crate) fn cpu_bytes(bench: &Bench, cause: CpuCause) -> u64 {
    bench.offload.counters().bytes_by_cpu[cause as usize]
}
