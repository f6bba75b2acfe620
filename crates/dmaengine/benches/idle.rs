//! What it costs that the copy threads sleep, and what it would cost if they did not: the latency of
//! one copy after a pause, and the processor time that the thread takes meanwhile.
//!
//! `cargo bench -p dmaengine --bench idle [LIMIT ...]`, with limits of the spinning in microseconds.
//! For each, copies of 4 KiB follow each other at some distance, through the bare channel. Between
//! two of them the caller keeps its processor, so that nothing but the copy thread has to wake, on
//! another processor. The limits take turns; quantiles of all copies are printed.

use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use dmaengine::{DmaChannel, DmaDevice, Flags, Operation, Status, ThreadsDevice, ThreadsOptions};

const LIMITS_US: [u64; 4] = [0, 50, 200, 1000];
const PAUSES: [Duration; 6] = [
    Duration::from_micros(10),
    Duration::from_micros(30),
    Duration::from_micros(100),
    Duration::from_micros(300),
    Duration::from_millis(1),
    Duration::from_millis(10),
];
const LEN: usize = 4096;
const ROUNDS: usize = 5;
/// How long a limit's turn at a pause lasts.
const TURN: Duration = Duration::from_millis(60);
/// How long nothing is to do.
const IDLE: Duration = Duration::from_millis(500);

/// A channel, with what was measured of it at one pause.
struct Contestant {
    limit: Duration,
    device: ThreadsDevice,
    channel: Box<dyn DmaChannel>,
    latencies: Vec<Duration>,
    busy: Duration,
    time: Duration,
}

impl Contestant {
    fn new(limit_us: u64) -> Self {
        let limit = Duration::from_micros(limit_us);
        let device =
            ThreadsDevice::with_options(ThreadsOptions { spin: limit, ..Default::default() });
        let channel = device.request_channel(0).expect("a new device has free channels");
        let (latencies, busy, time) = (Vec::new(), Duration::ZERO, Duration::ZERO);
        Self { limit, device, channel, latencies, busy, time }
    }

    fn cpu_time(&self) -> Duration {
        self.device.cpu_time().expect("it has a thread")
    }

    /// Copies `source` to `target` after each `pause`, for a turn.
    fn turn(&mut self, pause: Duration, source: &[u8], target: &mut [u8]) {
        // The first copies teach the thread what to expect.
        for _ in 0..8 {
            self.copy(pause, source, target);
        }
        let (start, busy) = (Instant::now(), self.cpu_time());
        while start.elapsed() < TURN {
            let latency = self.copy(pause, source, target);
            self.latencies.push(latency);
        }
        self.time += start.elapsed();
        self.busy += self.cpu_time() - busy;
    }

    fn copy(&mut self, pause: Duration, source: &[u8], target: &mut [u8]) -> Duration {
        let last = Instant::now();
        while last.elapsed() < pause {
            std::hint::spin_loop();
        }
        let (source, target, len) = (source.as_ptr(), target.as_mut_ptr(), target.len());
        let start = Instant::now();
        // SAFETY: two references; the copy has ended when this returns.
        unsafe { self.channel.submit(&Operation::Memcpy { source, target, len }, Flags::empty()) }
            .expect("there is room");
        self.channel.issue_pending();
        let mut ended = false;
        while !ended {
            self.channel.poll(&mut |completion| {
                assert_eq!(completion.status, Status::Success);
                ended = true;
            });
        }
        start.elapsed()
    }

    /// Prints a line, and forgets what was measured.
    fn report(&mut self, pause: Duration) {
        self.latencies.sort_unstable();
        let quantile = |part: usize| {
            let latency = self.latencies[(self.latencies.len() - 1) * part / 100];
            format!("{:.1}", latency.as_secs_f64() * 1e6)
        };
        let busy = 100.0 * self.busy.as_secs_f64() / self.time.as_secs_f64();
        println!(
            "{:>9} {:>9} {:>9} {:>9} {:>9} {busy:>9.1}",
            format!("{pause:?}"),
            format!("{:?}", self.limit),
            quantile(50),
            quantile(90),
            quantile(99),
        );
        (self.busy, self.time) = (Duration::ZERO, Duration::ZERO);
        self.latencies.clear();
    }
}

/// The first two processors that this thread may run on.
fn two_cpus() -> [CpuSet; 2] {
    let allowed = sched_getaffinity(None).expect("the affinity of this thread");
    let mut cpus = (0..CpuSet::MAX_CPU).filter(|&cpu| allowed.is_set(cpu)).map(|cpu| {
        let mut one = CpuSet::new();
        one.set(cpu);
        one
    });
    [(); 2].map(|()| cpus.next().expect("two processors"))
}

fn main() {
    // Cargo adds `--bench`.
    let mut limits: Vec<u64> = std::env::args().filter_map(|arg| arg.parse().ok()).collect();
    if limits.is_empty() {
        limits = LIMITS_US.to_vec();
    }
    let [own, other] = two_cpus();
    // Threads run where the one that made them does.
    sched_setaffinity(None, &other).expect("one that this thread may run on");
    let mut contestants: Vec<_> = limits.into_iter().map(Contestant::new).collect();
    sched_setaffinity(None, &own).expect("one that this thread may run on");
    let (source, mut target) = (vec![1; LEN], vec![0; LEN]);
    println!("a copy of {LEN} bytes after each pause; latency in us, the thread's time in %");
    println!("{:>9} {:>9} {:>9} {:>9} {:>9} {:>9}", "pause", "limit", "p50", "p90", "p99", "busy");
    for pause in PAUSES {
        for _ in 0..ROUNDS {
            for contestant in &mut contestants {
                contestant.turn(pause, &source, &mut target);
            }
        }
        contestants.iter_mut().for_each(|contestant| contestant.report(pause));
    }
    let before: Vec<_> = contestants.iter().map(Contestant::cpu_time).collect();
    std::thread::sleep(IDLE);
    for (contestant, before) in contestants.iter().zip(before) {
        let busy = contestant.cpu_time() - before;
        println!("without work for {IDLE:?}, limit {:?}: {busy:?}", contestant.limit);
    }
}
