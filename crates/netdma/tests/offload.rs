//! The offload against an engine that does as it is told: fails, stands still, cannot be stopped.

use std::{
    collections::VecDeque,
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::BorrowedFd,
    sync::{Arc, Mutex},
    time::Duration,
};

use dmaengine::{
    Arena, Capabilities, ChannelInfo, Completion, Cookie, DmaChannel, Flags, Kind, Operation,
    PacketPool, Status, Stuck, SubmitError, lend,
};
use netdma::{Busy, Copybreak, CpuCause, Offload, ReceiveId, RxPacket};
use netstack::{
    Checksum, Config, Instant, Ipv4Cidr, LinkCapabilities, MacAddress, RxMeta, SocketId, Stack,
    TcpConfig,
};

const RING: usize = 16;

/// What the engine does with a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    /// Copies.
    Copy,
    /// Writes garbage over the target, then reports this.
    Fail(Status),
    /// Does nothing, until it is terminated.
    Hold,
}

/// What the test tells the engine, and sees of it.
#[derive(Debug)]
struct Script {
    order: Order,
    /// Whether `terminate_sync` succeeds.
    stops: bool,
    refuse: Option<SubmitError>,
    submitted: u64,
    doorbells: u64,
}

/// A copy that was submitted.
struct Copy {
    source: *const u8,
    target: *mut u8,
    len: usize,
}

struct ScriptedChannel {
    info: ChannelInfo,
    script: Arc<Mutex<Script>>,
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
        _: Flags,
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
        let order = self.script.lock().unwrap().order;
        while order != Order::Hold && self.ring.front().is_some_and(|(_, _, issued)| *issued) {
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
struct Bench {
    sender: Stack<RxPacket>,
    receiver: Stack<RxPacket>,
    client: SocketId,
    server: SocketId,
    pool: PacketPool,
    frame: Vec<u8>,
    now: Instant,
    offload: Offload,
    script: Arc<Mutex<Script>>,
}

fn stack(number: u8) -> Stack<RxPacket> {
    Stack::new(Config {
        mac: MacAddress([2, 0, 0, 0, 0, number]),
        address: Ipv4Cidr { address: Ipv4Addr::new(10, 0, 0, number), prefix_len: 24 },
        gateway: None,
        link: LinkCapabilities::default(),
        tcp: TcpConfig::default(),
        seed: [number; 16],
    })
    .unwrap()
}

impl Bench {
    fn new(copybreak: Copybreak) -> Self {
        let script = Arc::new(Mutex::new(Script {
            order: Order::Copy,
            stops: true,
            refuse: None,
            submitted: 0,
            doorbells: 0,
        }));
        let channel = ScriptedChannel {
            info: ChannelInfo {
                capabilities: Capabilities::MEMCPY,
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
        let arena = Arena::new(4 << 20).unwrap();
        let pool = PacketPool::new(&arena, 2048, 1024).unwrap();
        let (mut sender, mut receiver) = (stack(1), stack(2));
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
    fn send(&mut self, bytes: &[u8]) {
        let Self { sender, receiver, client, pool, frame, now, .. } = self;
        assert_eq!(sender.send(*now, *client, bytes), Ok(bytes.len()));
        while cable(sender, receiver, pool, frame, *now)
            | cable(receiver, sender, pool, frame, *now)
        {}
    }

    fn serve(&mut self, receive: ReceiveId) {
        self.offload.serve(&mut self.receiver, self.now, receive);
    }

    fn reap(&mut self) {
        self.offload.reap(&mut self.receiver, self.now, |_| {});
    }

    fn charged(&self) -> usize {
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
    let mut any = false;
    while let Some(meta) = from.poll_transmit(now, frame) {
        any = true;
        let mut slot = pool.take().expect("enough buffers");
        slot.as_mut()[..meta.len].copy_from_slice(&frame[..meta.len]);
        let meta_in = RxMeta { checksum: Checksum::Unverified };
        to.receive(now, RxPacket(slot.freeze(meta.len)), meta_in);
    }
    any
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 31 + i / 251) as u8).collect()
}

fn cpu_bytes(bench: &Bench, cause: CpuCause) -> u64 {
    bench.offload.counters().bytes_by_cpu[cause as usize]
}

#[test]
fn the_engine_copies_and_one_doorbell_starts_a_batch() {
    let mut bench = Bench::new(Copybreak::Bytes(0));
    let data = pattern(10_000);
    bench.send(&data);
    let charged = bench.charged();
    assert!(charged >= data.len());
    let mut buffer = vec![0; 20_000];
    lend(&mut buffer, |target| {
        let receive = bench.offload.post(bench.server, target);
        bench.serve(receive);
        let progress = bench.offload.progress(receive).unwrap();
        assert_eq!(progress.taken, data.len());
        assert!(progress.in_flight >= 7, "one copy a segment");
        assert_eq!(progress.room, 10_000);
        assert_eq!(bench.offload.bytes_in_flight(), data.len());
        assert_eq!(bench.script.lock().unwrap().doorbells, 1);
        // The segments are on the async wait queue, and charged.
        assert_eq!(bench.charged(), charged);
        assert_eq!(bench.offload.withdraw(receive), Err(Busy));
        bench.reap();
        assert_eq!((bench.charged(), bench.offload.bytes_in_flight()), (0, 0));
        assert_eq!(bench.offload.withdraw(receive), Ok(data.len()));
        assert_eq!(bench.offload.progress(receive), None, "the id is dead");
    });
    assert_eq!(buffer[..data.len()], data);
    assert_eq!(bench.offload.counters().bytes_by_engine, data.len() as u64);
    assert_eq!(bench.offload.counters().bytes_by_cpu_total(), 0);
}

#[test]
fn reads_up_to_the_copybreak_are_the_cpus() {
    let mut bench = Bench::new(Copybreak::Bytes(4096));
    let data = pattern(8192);
    bench.send(&data);
    let mut buffer = vec![0; 8192];
    let (small, large) = buffer.split_at_mut(4095);
    lend(small, |target| {
        let receive = bench.offload.post(bench.server, target);
        bench.serve(receive);
        assert_eq!(bench.offload.withdraw(receive), Ok(4095));
    });
    assert_eq!(cpu_bytes(&bench, CpuCause::Copybreak), 4095);
    lend(large, |target| {
        let receive = bench.offload.post(bench.server, target);
        bench.serve(receive);
        bench.reap();
        assert_eq!(bench.offload.withdraw(receive), Ok(4097));
    });
    assert_eq!(bench.offload.counters().bytes_by_engine, 4097);
    assert_eq!(buffer, data);
}

#[test]
fn what_the_engine_fails_is_repeated_and_the_engine_rests_and_returns() {
    for status in [Status::WriteError, Status::ReadError, Status::BadAddress, Status::DeviceLost] {
        let mut bench = Bench::new(Copybreak::Bytes(0));
        let data = pattern(40_000);
        let mut buffer = vec![0; data.len()];
        for (round, piece) in buffer.chunks_mut(10_000).enumerate() {
            bench.send(&data[round * 10_000..][..10_000]);
            bench.script.lock().unwrap().order =
                if round == 0 { Order::Fail(status) } else { Order::Copy };
            lend(piece, |target| {
                let receive = bench.offload.post(bench.server, target);
                bench.serve(receive);
                bench.reap();
                assert_eq!(bench.offload.withdraw(receive), Ok(10_000));
            });
            assert_eq!(bench.charged(), 0);
            if round == 1 {
                assert_eq!(cpu_bytes(&bench, CpuCause::Resting), 10_000, "it rests");
                bench.now += Duration::from_secs(2);
            } else if round == 2 {
                assert_eq!(bench.offload.counters().copies_by_engine, 1, "the probe");
            }
        }
        assert_eq!(buffer, data, "{status}");
        assert_eq!(cpu_bytes(&bench, CpuCause::Failed), 10_000);
        let engine = bench.offload.counters().bytes_by_engine;
        assert!(engine > 10_000, "it came back: {engine}");
        assert_eq!(engine + cpu_bytes(&bench, CpuCause::Resting), 30_000);
    }
}

#[test]
fn an_engine_that_stands_still_is_reset_and_its_copies_repeated() {
    let mut bench = Bench::new(Copybreak::Bytes(0));
    let data = pattern(10_000);
    bench.send(&data);
    bench.script.lock().unwrap().order = Order::Hold;
    let mut buffer = vec![0; data.len()];
    lend(&mut buffer, |target| {
        let receive = bench.offload.post(bench.server, target);
        bench.serve(receive);
        bench.reap();
        assert!(bench.offload.progress(receive).unwrap().in_flight > 0);
        let due = bench.offload.poll_timeout().expect("something is in flight");
        assert!(due > bench.now);
        bench.now = due;
        bench.reap();
        assert_eq!(bench.offload.bytes_in_flight(), 0, "what failed as well");
        assert_eq!(bench.offload.withdraw(receive), Ok(data.len()));
    });
    assert_eq!(buffer, data);
    assert_eq!(bench.offload.counters().engine_resets, 1);
    assert_eq!(cpu_bytes(&bench, CpuCause::Failed), data.len() as u64);
    assert_eq!(bench.offload.poll_timeout(), None);
}

#[test]
fn an_engine_that_cannot_be_stopped_keeps_its_memory_until_it_can() {
    let mut bench = Bench::new(Copybreak::Bytes(0));
    let data = pattern(5_000);
    bench.send(&data);
    {
        let mut script = bench.script.lock().unwrap();
        script.order = Order::Hold;
        script.stops = false;
    }
    let mut buffer = vec![0; data.len()];
    lend(&mut buffer, |target| {
        let receive = bench.offload.post(bench.server, target);
        bench.serve(receive);
        while !bench.offload.is_engine_lost() {
            bench.now = bench.offload.poll_timeout().expect("still in flight");
            bench.reap();
            assert_eq!(bench.offload.withdraw(receive), Err(Busy));
        }
        // It comes to its senses.
        bench.script.lock().unwrap().stops = true;
        bench.now = bench.offload.poll_timeout().unwrap();
        bench.reap();
        assert!(!bench.offload.is_engine_lost());
        assert_eq!(bench.offload.withdraw(receive), Ok(data.len()));
    });
    assert_eq!(buffer, data);
}

#[test]
fn an_engine_that_is_down_is_reset_and_returns() {
    let mut bench = Bench::new(Copybreak::Bytes(0));
    let data = pattern(30_000);
    bench.script.lock().unwrap().refuse = Some(SubmitError::ChannelDown);
    let mut buffer = vec![0; data.len()];
    for (round, piece) in buffer.chunks_mut(10_000).enumerate() {
        bench.send(&data[round * 10_000..][..10_000]);
        lend(piece, |target| {
            let receive = bench.offload.post(bench.server, target);
            bench.serve(receive);
            bench.reap();
            assert_eq!(bench.offload.withdraw(receive), Ok(10_000));
        });
        // Longer than the first rest.
        bench.now += Duration::from_secs(1);
    }
    assert_eq!(buffer, data);
    assert_eq!(bench.offload.counters().engine_resets, 1);
    assert!(bench.offload.counters().bytes_by_engine > 10_000, "it came back");
}

#[test]
fn what_the_engine_refuses_is_the_cpus_and_counted_by_cause() {
    for (error, cause) in [
        (SubmitError::Unreachable { address: 1 }, CpuCause::Unreachable),
        (SubmitError::RingFull, CpuCause::RingFull),
        (SubmitError::TooLong { len: 1000, max: 1 }, CpuCause::Unsupported),
        (SubmitError::ChannelDown, CpuCause::Failed),
    ] {
        let mut bench = Bench::new(Copybreak::Bytes(0));
        let data = pattern(1_000);
        bench.send(&data);
        bench.script.lock().unwrap().refuse = Some(error);
        let mut buffer = vec![0; data.len()];
        lend(&mut buffer, |target| {
            let receive = bench.offload.post(bench.server, target);
            bench.serve(receive);
            assert!(bench.offload.poll_timeout().is_some(), "it waits to be reaped");
            bench.reap();
            assert_eq!(bench.offload.withdraw(receive), Ok(data.len()));
        });
        assert_eq!(buffer, data);
        assert_eq!(cpu_bytes(&bench, cause), data.len() as u64, "{error}");
        assert_eq!(bench.script.lock().unwrap().doorbells, 0);
    }
}

#[test]
fn a_full_ring_sends_the_rest_to_the_cpu_and_all_parts_arrive() {
    let mut bench = Bench::new(Copybreak::Bytes(0));
    // More segments than the engine's ring has descriptors, and than the ring above it.
    let above = bench.offload.engine().unwrap().info().ring_size;
    assert!(above > RING);
    let data = pattern(1448 * (above + 8));
    for piece in data.chunks(10_000) {
        bench.send(piece);
    }
    let mut buffer = vec![0; data.len()];
    lend(&mut buffer, |target| {
        let receive = bench.offload.post(bench.server, target);
        bench.serve(receive);
        assert_eq!(bench.offload.progress(receive).unwrap().in_flight, above);
        assert_eq!(bench.script.lock().unwrap().submitted, RING as u64);
        bench.reap();
        assert_eq!(bench.offload.withdraw(receive), Ok(data.len()));
    });
    assert_eq!(buffer, data);
    assert_eq!(bench.offload.counters().copies_by_engine, RING as u64);
    assert!(cpu_bytes(&bench, CpuCause::RingFull) > 0);
}

#[test]
fn a_socket_that_dies_under_a_copy_gives_its_memory_back() {
    let mut bench = Bench::new(Copybreak::Bytes(0));
    let data = pattern(5_000);
    bench.send(&data);
    bench.script.lock().unwrap().order = Order::Hold;
    let mut buffer = vec![0; data.len()];
    lend(&mut buffer, |target| {
        let receive = bench.offload.post(bench.server, target);
        bench.serve(receive);
        bench.receiver.abort(bench.now, bench.server);
        assert!(bench.pool.available() < bench.pool.capacity(), "the engine holds segments");
        bench.script.lock().unwrap().order = Order::Copy;
        bench.reap();
        assert_eq!(bench.offload.withdraw(receive), Ok(data.len()));
    });
    assert_eq!(buffer, data);
    assert_eq!(bench.pool.available(), bench.pool.capacity());
}
