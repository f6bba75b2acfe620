//! Runs a script with one engine, or without.

use std::{
    fmt,
    time::{Duration, Instant as RealInstant},
};

use dmaengine::{Arena, DmaBuf, Loan, PacketPool};
use netdma::{Conditions, Destination, Offload, ReceiveId, RecvError, RecvFlags, Request, Verdict};
use netstack::{Instant, PollFlags, SendError, UrgentError};

use crate::{
    Cable, Step,
    script::{Buffer, Frames, JUMBO_MTU, Script},
};

/// Copies do not take virtual time, unless they take more than this of real time and are looked at
/// as often: then only the passing of time will end them.
const ENGINE_PATIENCE: Duration = Duration::from_micros(300);
const LOOKS: u32 = 1000;

/// What is in a buffer before a call. It is never sent.
const UNTOUCHED: u8 = 0xee;

const ETHERNET_HEADER: usize = 14;

const WAITS: Conditions = Conditions { may_wait: true, interrupted: false };
const EXPIRED: Conditions = Conditions { may_wait: false, interrupted: false };
const INTERRUPTED: Conditions = Conditions { may_wait: true, interrupted: true };

/// What a step gave.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Observed {
    Nothing,
    Sent(Result<usize, SendError>),
    Frames(usize),
    /// What a call returned, and its whole buffer.
    Returned(usize, Bytes),
    Failed(RecvError),
    Waits,
    Urgent(Result<Option<u8>, UrgentError>),
    Error(Option<netstack::ConnectionError>),
    Look {
        flags: PollFlags,
        at_mark: bool,
        until_mark: usize,
        available: usize,
    },
}

/// The contents of a buffer. What was sent counts up, so the ends and a sum tell them apart well enough
/// for a message.
#[derive(PartialEq, Eq)]
pub(crate) struct Bytes(Vec<u8>);

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(bytes) = self;
        let sum: u64 = bytes.iter().map(|&byte| u64::from(byte)).sum();
        write!(f, "{} bytes, {:?} to {:?}, sum {sum}", bytes.len(), bytes.first(), bytes.last())
    }
}

/// A receive call under way.
struct Call {
    id: ReceiveId,
    memory: Memory,
}

enum Memory {
    Arena(Loan<DmaBuf>),
    Heap(Loan<Vec<u8>>),
    Nowhere,
}

impl Memory {
    fn into_bytes(self) -> Vec<u8> {
        match self {
            Self::Arena(loan) => loan.into_inner().expect("no copy is in flight").to_vec(),
            Self::Heap(loan) => loan.into_inner().expect("no copy is in flight"),
            Self::Nowhere => Vec::new(),
        }
    }
}

/// What scripts run in. Its clock goes on from script to script: the engine's rests must not end in
/// another's past.
pub(crate) struct World {
    arena: Arena,
    /// For frames of Ethernet, and for jumbo ones.
    pools: [PacketPool; 2],
    now: Instant,
}

impl World {
    pub(crate) fn new(arena: Arena) -> Self {
        let pools = [(2048, 1024), (ETHERNET_HEADER + JUMBO_MTU, 128)];
        let pools = pools.map(|(len, count)| PacketPool::new(&arena, len, count).expect("room"));
        Self { arena, pools, now: Instant::from_millis(1) }
    }

    pub(crate) fn run(&mut self, offload: &mut Offload, script: &Script) -> Vec<Observed> {
        // An engine that rests after a failure comes back.
        self.now += Duration::from_secs(1);
        let [ethernet, jumbo] = &self.pools;
        let pool = if script.frames == Frames::Jumbo { jumbo } else { ethernet }.clone();
        let cable = Cable::new(&pool, self.now, script.frames);
        let mut run = Run { world: self, pool, offload, cable, calls: Vec::new(), sent: 0 };
        let mut observed: Vec<_> = script.steps.iter().map(|&step| run.step(step)).collect();
        // Every call returns.
        while !run.calls.is_empty() {
            observed.push(run.check(0, EXPIRED));
        }
        run.end();
        observed
    }
}

struct Patience {
    since: RealInstant,
    looks: u32,
}

impl Patience {
    fn new() -> Self {
        Self { since: RealInstant::now(), looks: 0 }
    }

    fn is_over(&mut self) -> bool {
        self.looks += 1;
        self.looks > LOOKS && self.since.elapsed() > ENGINE_PATIENCE
    }
}

struct Run<'a> {
    world: &'a mut World,
    pool: PacketPool,
    offload: &'a mut Offload,
    cable: Cable,
    calls: Vec<Call>,
    sent: u32,
}

impl Run<'_> {
    fn step(&mut self, step: Step) -> Observed {
        let now = self.world.now;
        match step {
            Step::Send { len, urgent } => {
                let first = self.sent;
                let bytes: Vec<u8> = (0..len as u32).map(|i| ((first + i) % 200) as u8).collect();
                let Cable { sender, client, .. } = &mut self.cable;
                let sent = match urgent {
                    true => sender.send_urgent(now, *client, &bytes),
                    false => sender.send(now, *client, &bytes),
                };
                self.sent += sent.unwrap_or(0) as u32;
                return Observed::Sent(sent);
            }
            Step::PeerShutdown => {
                let _gone = self.cable.sender.shutdown(now, self.cable.client);
            }
            Step::PeerReset => self.cable.sender.abort(now, self.cable.client),
            Step::Deliver(frames) => {
                let frames = self.cable.deliver(&self.pool, now, frames);
                self.dispatch();
                self.cable.answer(&self.pool, now);
                return Observed::Frames(frames);
            }
            Step::Settle => self.offload.settle(|_| {}),
            Step::Begin { len, flags, low_water, copybreak, waiting, buffer } => {
                self.begin(len, Request { flags, low_water, copybreak, waiting }, buffer);
            }
            Step::Check(call) => return self.check(call, WAITS),
            Step::Expire(call) => return self.check(call, EXPIRED),
            Step::Interrupt(call) => return self.check(call, INTERRUPTED),
            Step::Peek { len, flags } => return self.peek(len, flags),
            Step::Urgent { peek } => {
                let Cable { receiver, server, .. } = &mut self.cable;
                return Observed::Urgent(receiver.receive_urgent(*server, peek));
            }
            Step::ShutdownRead => {
                let _gone = self.cable.receiver.shutdown_receive(self.cable.server);
            }
            Step::Inline(inline) => {
                self.cable.receiver.set_urgent_inline(self.cable.server, inline);
            }
            Step::Error => {
                return Observed::Error(self.cable.receiver.take_error(self.cable.server));
            }
            Step::Reap => self.offload.reap(&mut self.cable.receiver, now, |_| {}),
            Step::Look => {
                let Cable { receiver, server, .. } = &mut self.cable;
                return Observed::Look {
                    flags: receiver.poll(*server),
                    at_mark: receiver.is_at_mark(*server),
                    until_mark: receiver.bytes_to_mark(*server),
                    available: receiver.receive_available(*server),
                };
            }
        }
        Observed::Nothing
    }

    /// Serves what waits, as whoever drives a stack does after each batch.
    fn dispatch(&mut self) {
        let Cable { sender, receiver, server, .. } = &mut self.cable;
        while sender.poll_event().is_some() {}
        while receiver.poll_event().is_some() {}
        self.offload.serve(receiver, self.world.now, *server);
    }

    fn begin(&mut self, len: usize, request: Request, buffer: Buffer) {
        let (memory, destination): (_, Destination) = match buffer {
            Buffer::Arena => {
                let mut buffer = self.world.arena.alloc(len).unwrap_or_default();
                buffer.fill(UNTOUCHED);
                let (loan, target) = Loan::new(buffer);
                (Memory::Arena(loan), target.into())
            }
            Buffer::Heap => {
                let (loan, target) = Loan::new(vec![UNTOUCHED; len]);
                (Memory::Heap(loan), target.into())
            }
            Buffer::Nowhere => (Memory::Nowhere, Destination::Nowhere(len)),
        };
        let id = self.offload.post(self.cable.server, destination, request);
        self.calls.push(Call { id, memory });
        self.offload.serve(&mut self.cable.receiver, self.world.now, self.cable.server);
        self.offload.settle_one(id);
    }

    fn check(&mut self, call: usize, conditions: Conditions) -> Observed {
        if self.calls.is_empty() {
            return Observed::Nothing;
        }
        let at = call % self.calls.len();
        let id = self.calls[at].id;
        let mut patience = Patience::new();
        let verdict = loop {
            match self.offload.check(&mut self.cable.receiver, id, conditions) {
                Verdict::Copying => self.wait_for_engine(&mut patience),
                verdict => break verdict,
            }
        };
        if verdict == Verdict::Wait {
            return Observed::Waits;
        }
        let taken = self.offload.withdraw(id).expect("no copy is in flight");
        let mut bytes = self.calls.remove(at).memory.into_bytes();
        match verdict {
            Verdict::Return(len) => {
                assert_eq!(len, taken);
                // Behind what was returned, an engine that failed may have left anything: nothing.
                assert!(bytes.iter().skip(len).all(|byte| *byte == UNTOUCHED));
                bytes.truncate(len);
                Observed::Returned(len, Bytes(bytes))
            }
            Verdict::Fail(error) => Observed::Failed(error),
            Verdict::Copying | Verdict::Wait => unreachable!("see above"),
        }
    }

    /// Lets the engine go on. If it stands still, only time will end its copies.
    fn wait_for_engine(&mut self, patience: &mut Patience) {
        assert!(!self.offload.is_engine_lost(), "a reset ends everything that was ordered");
        if patience.is_over()
            && let Some(due) = self.offload.poll_timeout()
        {
            self.world.now = self.world.now.max(due);
            *patience = Patience::new();
        }
        self.offload.reap(&mut self.cable.receiver, self.world.now, |_| {});
        std::thread::yield_now();
    }

    fn peek(&mut self, len: usize, flags: RecvFlags) -> Observed {
        let mut buffer = vec![UNTOUCHED; len];
        let request = Request { flags, ..Request::default() };
        let Cable { receiver, server, .. } = &mut self.cable;
        match self.offload.peek(receiver, *server, &mut buffer, request, EXPIRED) {
            Verdict::Return(len) => Observed::Returned(len, Bytes(buffer)),
            Verdict::Fail(error) => Observed::Failed(error),
            Verdict::Copying | Verdict::Wait => Observed::Waits,
        }
    }

    /// Both ends go, and the memory is all back.
    fn end(mut self) {
        let now = self.world.now;
        self.cable.receiver.abort(now, self.cable.server);
        let mut patience = Patience::new();
        while self.offload.poll_timeout().is_some() {
            self.wait_for_engine(&mut patience);
        }
        drop(self.cable);
        // Nobody has a packet any more, but for those that a reset engine gave up.
        let pool = &self.pool;
        assert_eq!(pool.available(), pool.capacity(), "packets were lost");
    }
}
