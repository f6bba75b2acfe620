//! A long test of everything at once: streams of random lengths into programs that read in every way,
//! with an engine that fails every now and then, in a process that forks.
//!
//! # Model
//!
//! ```text
//!   for each channel of each engine, up to two: a shard
//!   ┌──────────────────────────────────────────────────────────────────────────────┐
//!   │  senders ── stack ── wire ── stack ── engine ── readers that block           │
//!   │  (a thread                           (faults    one that waits with a Poller │
//!   │  for each)                          to order)   rings of posted buffers      │
//!   └──────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! Each connection carries one stream after the other. A stream tells its seed and its length, so
//! that its reader can check every byte ([`Pattern`]). The frames of an engine's first shard are
//! super-frames, those of its second one have 1448 bytes.
//!
//! Faults are ordered by time: the next copy is late, fails, halts the engine, hangs, finds the ring
//! full, or the engine vanishes and comes back. A device model halts, hangs and loses completions,
//! doorbells and interrupts besides, at its registers.
//!
//! Children are forked while copies run. A child has what readers received last, a copy on write.
//! It checks it, again and again, while its parent receives into the same buffers; that both are
//! right is what killed `NET_DMA`.
//!
//! # Rounds
//!
//! The time is divided into rounds. At the end of each the faults stop; the engines must copy again,
//! by themselves. Then every connection stands still, in the middle of a stream, each reader in a
//! call that waits. At that moment
//!
//! - nothing may be charged to a socket or be with an engine;
//! - every thread must be *quiet*: asleep, and without any processor time in some window of 200 ms.
//!   A thread that spins has none, on a machine however slow; one that sleeps has one soon;
//! - the process's anonymous memory (heap and stacks; arenas are files, and do not grow) is
//!   measured, after the allocator has given back what it can. The first half of the rounds warms
//!   up: tables and queues become as large as they need to be. In the second half it may grow by
//!   [`GROWTH_LIMIT_BYTES`] at most.
//!
//! In the end all is closed: every arena must be free as a whole, which it is not while a packet or a
//! buffer is out, and the process must have as many threads and files as before.

mod child;
mod control;
mod fork;
mod incoming;
mod orders;
mod process;
mod random;
mod readers;
mod report;
mod senders;
mod shard;

use std::{
    io,
    num::NonZeroUsize,
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use dmaengine::{ArenaError, LookupError, MapError};
use netdev::WireError;
use sockets::StartError;

pub use self::report::{EngineReport, MemoryReport, SoakReport};
use self::{control::Control, fork::Forks, orders::Device, process::Census, shard::Shard};
use crate::engine::{self, EngineName};
#[cfg(doc)]
use crate::lab::Pattern;

/// By so much the anonymous memory may grow in the second half of the rounds. Rings and queues have
/// their memory from the start, but the system gives it at the first use, which may be late: some
/// megabytes. In an hour that is 2 KB a second, or 1 byte for some hundred copies.
pub const GROWTH_LIMIT_BYTES: u64 = 4 << 20;

/// A round takes so long, if that gives no fewer and no more rounds than these.
const ROUND: Duration = Duration::from_secs(4);
const FEWEST_ROUNDS: u32 = 4;
const MOST_ROUNDS: u32 = 10;

/// Between two looks at how things go.
const TICK: Duration = Duration::from_millis(100);

/// After so many looks without a byte received, or without whatever is waited for, a run has stalled.
/// Looks are counted, not seconds: a process that is stopped for a while has not stalled.
const STALLED_TICKS: u32 = 600;

/// What an engine must copy to show that it is back.
const RECOVERED_BYTES: u64 = 1 << 20;

/// How to soak.
#[derive(Clone, Debug)]
pub struct SoakConfig {
    /// The engines, all at the same time.
    pub engines: Vec<EngineName>,
    /// How long, besides the ends of the rounds.
    pub duration: Duration,
    /// Connections of each engine.
    pub connections: NonZeroUsize,
    /// From one fault of an engine to the next; `None`: no faults.
    pub fault_interval: Option<Duration>,
    /// From one child to the next; `None`: no children.
    pub fork_interval: Option<Duration>,
    /// Where random choices begin.
    pub seed: u64,
}

/// Why there is nothing to report.
#[derive(Debug, thiserror::Error)]
pub enum SoakError {
    /// The engine.
    #[error(transparent)]
    Engine(#[from] engine::OpenError),
    /// The engine's channel.
    #[error(transparent)]
    Channel(#[from] LookupError),
    /// Memory for packets and buffers.
    #[error(transparent)]
    Memory(#[from] ArenaError),
    /// The engine cannot reach the memory.
    #[error(transparent)]
    Map(#[from] MapError),
    /// The link.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The stacks.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The system does not tell about this process, or has no more threads.
    #[error("{0} (a soak needs /proc, with smaps_rollup and schedstat, and some 100 threads)")]
    System(#[from] io::Error),
}

/// Soaks. `progress` is told the time that has passed, and the bytes received, now and then.
///
/// The report says whether it passed. It looks at the whole process, so nothing else should run in
/// it. If something went wrong, what was started is not stopped: the process had better end.
///
/// # Errors
///
/// See [`SoakError`].
pub fn run(
    config: &SoakConfig,
    mut progress: impl FnMut(Duration, u64),
) -> Result<SoakReport, SoakError> {
    let before = Census::take()?;
    let control = Arc::new(Control::default());
    let mut soak = Soak::start(config, &control)?;
    let outcome = soak.run_rounds(config, &mut progress);
    let mut report = soak.report();
    report.failure = outcome.and_then(|()| soak.end(&before)).err();
    Ok(report)
}

struct Soak {
    control: Arc<Control>,
    started: Instant,
    devices: Vec<Arc<Device>>,
    shards: Vec<Shard>,
    forks: Arc<Forks>,
    threads: Vec<JoinHandle<()>>,
    memory: Vec<u64>,
}

impl Soak {
    fn start(config: &SoakConfig, control: &Arc<Control>) -> Result<Self, SoakError> {
        let mut soak = Self {
            control: Arc::clone(control),
            started: Instant::now(),
            devices: Vec::new(),
            shards: Vec::new(),
            forks: Arc::default(),
            threads: Vec::new(),
            memory: Vec::new(),
        };
        for engine in &config.engines {
            let device = Arc::new(Device::open(engine)?);
            soak.shards.extend(Shard::open_all(&device, config.connections)?);
            soak.devices.push(device);
        }
        let mut seeds = random::Random::new(config.seed);
        for shard in &soak.shards {
            let shelves = shard.start(control, &mut seeds, &mut soak.threads)?;
            soak.forks.shelves(shelves);
        }
        if let Some(interval) = config.fault_interval {
            for device in soak.devices.clone() {
                let (control, random) = (Arc::clone(control), seeds.fork());
                soak.spawn("soak-faults", move || device.order_faults(&control, interval, random))?;
            }
        }
        if let Some(interval) = config.fork_interval {
            let (forks, control) = (Arc::clone(&soak.forks), Arc::clone(control));
            soak.spawn("soak-fork", move || forks.run(&control, interval))?;
        }
        Ok(soak)
    }

    fn spawn(&mut self, name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
        self.threads.push(self.control.spawn(name, body)?);
        Ok(())
    }

    /// Fails with what went wrong first.
    fn run_rounds(
        &mut self,
        config: &SoakConfig,
        progress: &mut impl FnMut(Duration, u64),
    ) -> Result<(), String> {
        let rounds = config.duration.as_secs() / ROUND.as_secs();
        let rounds = u32::try_from(rounds).unwrap_or(u32::MAX).clamp(FEWEST_ROUNDS, MOST_ROUNDS);
        for round in 1..=rounds {
            let is_last = round == rounds;
            self.control.resume();
            let started = Instant::now();
            let is_over = || started.elapsed() >= config.duration / rounds;
            self.until("the round is over", progress, |_| is_over())?;

            self.control.recover();
            let copied = |soak: &Self| -> Vec<u64> {
                soak.shards.iter().map(|shard| shard.offload().bytes_by_engine).collect()
            };
            let before = copied(self);
            self.until("all engines copy again", progress, |soak| {
                let now = copied(soak);
                let is_back = |(now, before): (&u64, &u64)| now - before >= RECOVERED_BYTES;
                now.iter().zip(&before).all(is_back)
            })?;

            self.control.settle(is_last);
            let connections: usize = self.shards.iter().map(Shard::connections).sum();
            self.until("all streams stand still", progress, |soak| {
                soak.control.settled() == connections
            })?;
            for shard in &self.shards {
                self.until("the charges are given back", progress, |_| shard.is_idle())?;
            }
            process::wait_until_quiet()?;
            self.memory.push(process::anonymous_bytes().map_err(|error| error.to_string())?);
        }
        self.control.end();
        Ok(())
    }

    /// Looks again and again until `condition` holds, and bytes come meanwhile.
    fn until(
        &self,
        what: &str,
        progress: &mut impl FnMut(Duration, u64),
        condition: impl Fn(&Self) -> bool,
    ) -> Result<(), String> {
        let mut received = 0;
        let mut ticks = 0;
        loop {
            self.control.check()?;
            if condition(self) {
                return Ok(());
            }
            let now = self.control.received();
            ticks = if now == received { ticks + 1 } else { 0 };
            received = now;
            if ticks > STALLED_TICKS {
                return Err(format!("in vain: waited until {what}; no byte came meanwhile"));
            }
            progress(self.started.elapsed(), now);
            thread::sleep(TICK);
        }
    }

    fn report(&self) -> SoakReport {
        let engines = self.devices.iter().map(|device| {
            let shards = self.shards.iter().filter(|shard| shard.is_of(device));
            EngineReport::new(device, shards)
        });
        SoakReport {
            seconds: self.started.elapsed().as_secs_f64(),
            wrong_bytes: self.control.wrong_bytes(),
            engines: engines.collect(),
            children: self.forks.children(),
            memory: MemoryReport::new(&self.memory),
            failure: None,
        }
    }

    /// Closes all, and looks what is left.
    fn end(self, before: &Census) -> Result<(), String> {
        let Self { control, devices, shards, forks, threads, memory, .. } = self;
        MemoryReport::new(&memory).check()?;
        for thread in threads {
            thread.join().map_err(|_| "a thread panicked: see above".to_owned())?;
        }
        control.check()?;
        forks.check()?;
        drop((forks, control));
        for shard in shards {
            shard.close()?;
        }
        drop(devices);
        before.check_that_nothing_is_left()
    }
}
