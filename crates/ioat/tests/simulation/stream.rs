//! One stream, from its connection to its end, in virtual time.

use std::{
    net::SocketAddrV4,
    ops::AddAssign,
    time::{Duration, Instant as RealInstant},
};

use dmaengine::{Arena, lend};
use netdev::FaultStatistics;
use netdma::{Conditions, Offload, ReceiveId, Request, Verdict};
use netstack::{Event, Instant, SendError, SocketId};

use crate::network::{End, Random, address, pair};

pub(crate) const LONGEST_READ: usize = 96 * 1024;
const LONGEST_STREAM: u64 = 256 * 1024;
const PORT: u16 = 9000;

/// A stream that is not finished after so much virtual time has stalled. Losses of 10 % with the
/// timeouts' backoff cost some minutes.
const VIRTUAL_LIMIT: Duration = Duration::from_secs(3600);

/// Copies do not take virtual time, unless they take more than this of real time: then they hang,
/// and only the passing of time will end them. An engine that was merely not given a processor
/// meanwhile loses its copies to the CPU; the stream must bear that too.
const ENGINE_PATIENCE: Duration = Duration::from_millis(5);

/// What happened in a run, or in many.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) bytes: u64,
    pub(crate) network: FaultStatistics,
    pub(crate) retransmitted_segments: u64,
}

impl AddAssign for Outcome {
    fn add_assign(&mut self, other: Self) {
        let Self { bytes, network, retransmitted_segments } = self;
        *bytes += other.bytes;
        *retransmitted_segments += other.retransmitted_segments;
        add(network, other.network);
    }
}

fn add(sum: &mut FaultStatistics, more: FaultStatistics) {
    let FaultStatistics { lost, duplicated, corrupted, reordered, refused } = more;
    sum.lost += lost;
    sum.duplicated += duplicated;
    sum.corrupted += corrupted;
    sum.reordered += reordered;
    sum.refused += refused;
}

struct Simulation {
    sender: End,
    receiver: End,
    started: Instant,
    now: Instant,
    client: SocketId,
    server: Option<SocketId>,
    stream: Vec<u8>,
    sent: usize,
    closed: bool,
    random: Random,
}

/// Runs one seed: a stream of random length through `offload`, received into pieces of `buffer`.
/// Panics unless it arrives as it was sent. `now` moves on.
pub(crate) fn run(
    arena: &Arena,
    offload: &mut Offload,
    buffer: &mut [u8],
    now: &mut Instant,
    seed: u64,
) -> Outcome {
    let mut simulation = Simulation::new(arena, *now, seed);
    while simulation.server.is_none() {
        simulation.step(offload);
    }
    let mut received = 0;
    loop {
        // Sometimes the program is slow, and the queue fills.
        for _ in 0..simulation.random.below(8) {
            if simulation.has_received_all(received) {
                break;
            }
            simulation.step(offload);
        }
        let len = 1 + simulation.random.below(LONGEST_READ as u64) as usize;
        let got = simulation.receive(offload, &mut buffer[..len]);
        if got == 0 {
            break;
        }
        let expected = &simulation.stream[received..][..got];
        assert!(buffer[..got] == *expected, "seed {seed}: wrong bytes after {received}");
        received += got;
    }
    assert_eq!(received, simulation.stream.len(), "seed {seed}: the stream ended early");
    *now = simulation.now;
    let Simulation { sender, receiver, .. } = &simulation;
    let mut network = sender.faults();
    add(&mut network, receiver.faults());
    Outcome {
        bytes: received as u64,
        network,
        retransmitted_segments: sender.stack.statistics().tcp.retransmitted_segments,
    }
}

impl Simulation {
    fn new(arena: &Arena, now: Instant, seed: u64) -> Self {
        let mut random = Random(seed);
        let (mut sender, mut receiver) = pair(arena, seed, &mut random);
        let at = SocketAddrV4::new(address(2), PORT);
        receiver.stack.listen(at, 4).expect("a free port");
        let client = sender.stack.connect(now, at).expect("a route");
        let len = 1 + random.below(LONGEST_STREAM) as usize;
        let words = (0..len.div_ceil(8)).flat_map(|_| random.next().to_le_bytes());
        let stream = words.take(len).collect();
        Self {
            sender,
            receiver,
            started: now,
            now,
            client,
            server: None,
            stream,
            sent: 0,
            closed: false,
            random,
        }
    }

    /// Does what there is to do now, or lets time pass until there is something.
    fn step(&mut self, offload: &mut Offload) {
        if !self.work(offload) {
            self.pass_time(offload);
        }
    }

    /// Does what there is to do now. Returns whether there was anything.
    fn work(&mut self, offload: &mut Offload) -> bool {
        let now = self.now;
        let mut worked = self.sender.receive(now) | self.receiver.receive(now);
        worked |= self.sender.handle_timeout(now) | self.receiver.handle_timeout(now);
        while self.sender.stack.poll_event().is_some() {}
        while let Some(event) = self.receiver.stack.poll_event() {
            match event {
                Event::Acceptable(listener) => {
                    if let Some((server, _)) = self.receiver.stack.accept(listener) {
                        self.server = Some(server);
                    }
                }
                Event::Socket { id, .. } => {
                    if Some(id) == self.server {
                        offload.serve(&mut self.receiver.stack, now, id);
                    }
                }
            }
        }
        worked |= self.send();
        worked | self.sender.transmit(now) | self.receiver.transmit(now)
    }

    /// Lets time pass until something is due: a packet, a timer, or the engine's stall timeout.
    fn pass_time(&mut self, offload: &Offload) {
        let due = self.deadline().into_iter().chain(offload.poll_timeout()).min();
        let due = due.expect("something is due while the stream is not finished");
        assert!(due > self.now, "what is due at {due:?} was not done at {:?}", self.now);
        self.now = due;
        assert!(self.now - self.started < VIRTUAL_LIMIT, "the stream has stalled");
    }

    fn deadline(&self) -> Option<Instant> {
        [self.sender.deadline(), self.receiver.deadline()].into_iter().flatten().min()
    }

    fn send(&mut self) -> bool {
        let rest = &self.stream[self.sent..];
        if rest.is_empty() {
            let first = !self.closed;
            if first {
                self.sender.stack.shutdown(self.now, self.client).expect("the connection stands");
                self.closed = true;
            }
            return first;
        }
        let chunk = 1 + self.random.below(40_000) as usize;
        let chunk = &rest[..chunk.min(rest.len())];
        match self.sender.stack.send(self.now, self.client, chunk) {
            Ok(taken) => {
                self.sent += taken;
                true
            }
            Err(SendError::WouldBlock) => false,
            Err(error) => panic!("the sender's connection failed: {error}"),
        }
    }

    /// One receive call, as a program would make it. Returns the bytes received; 0 at the end.
    fn receive(&mut self, offload: &mut Offload, buffer: &mut [u8]) -> usize {
        const CONDITIONS: Conditions = Conditions { may_wait: true, interrupted: false };
        let server = self.server.expect("accepted");
        lend(buffer, |target| {
            let receive = offload.post(server, target, Request::default());
            offload.serve(&mut self.receiver.stack, self.now, server);
            offload.settle_one(receive);
            let taken = loop {
                match offload.check(&mut self.receiver.stack, receive, CONDITIONS) {
                    Verdict::Return(taken) => break taken,
                    Verdict::Fail(error) => panic!("the receiver's connection failed: {error}"),
                    Verdict::Copying => self.wait_for_copies(offload, receive),
                    Verdict::Wait => {
                        if !self.work(offload) {
                            offload.settle(|_| {});
                            let progress = offload.progress(receive).expect("posted");
                            if progress.ended.is_none() {
                                self.pass_time(offload);
                            }
                        }
                    }
                }
            };
            assert_eq!(offload.withdraw(receive), Ok(taken));
            taken
        })
    }

    fn wait_for_copies(&mut self, offload: &mut Offload, receive: ReceiveId) {
        let mut since = RealInstant::now();
        loop {
            offload.reap(&mut self.receiver.stack, self.now, |_| {});
            if offload.progress(receive).expect("posted").in_flight == 0 {
                return;
            }
            assert!(!offload.is_engine_lost(), "a reset ends everything that was ordered");
            // Packets go on arriving while the engine copies, now and then.
            if self.random.chance(4) && self.deadline().is_some_and(|due| due <= self.now) {
                self.work(offload);
            }
            if since.elapsed() >= ENGINE_PATIENCE {
                if !self.work(offload) {
                    self.pass_time(offload);
                }
                since = RealInstant::now();
            }
            std::thread::yield_now();
        }
    }

    /// Whether nothing but the end of the stream is left to read, so that nothing may be due.
    fn has_received_all(&self, received: usize) -> bool {
        let queued = self.server.map_or(0, |server| self.receiver.stack.receive_available(server));
        received + queued == self.stream.len()
    }
}
