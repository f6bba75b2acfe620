//! The time of large copies: by the CPU, by a copy thread, and shared by both.
//!
//! `cargo bench -p dmaengine --bench split [KIB ...]`, with lengths in KiB. The three take turns; the
//! medians are printed, what sharing saves of the CPU's time, and what it has learned. Each has buffers
//! of its own, which are in the caches where it left them.
//!
//! The gap is how far the ends of the two parts of a shared copy lie apart, whichever was first: its
//! median, and that as a part of the copy's time. It says little where few copies are shared, to try a
//! side out. An end of the engine's while the CPU copies is seen when the CPU looks, once in 128 KiB.

use std::{
    os::fd::BorrowedFd,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use dmaengine::{
    Arena, ChannelInfo, Completion, Cookie, CpuDevice, DmaBuf, DmaChannel, DmaDevice, DmaSlice,
    Flags, Layer, Layered, Operation, Queue, Split, Stuck, SubmitError, ThreadsDevice, Wait,
};

const LENGTHS_KIB: [usize; 5] = [64, 256, 1 << 10, 4 << 10, 16 << 10];
/// Copied by each engine at each length, in bytes.
const ALL: usize = 512 << 20;
const ROUNDS: (usize, usize) = (51, 1001);
const TIMEOUT: Duration = Duration::from_secs(10);

type Copies = Queue<DmaSlice, DmaSlice, ()>;

fn main() {
    // Cargo adds `--bench`.
    let mut lengths: Vec<usize> = std::env::args().filter_map(|arg| arg.parse().ok()).collect();
    if lengths.is_empty() {
        lengths = LENGTHS_KIB.to_vec();
    }
    let lengths: Vec<_> = lengths.into_iter().map(|kib| kib << 10).collect();
    let longest = lengths.iter().copied().max().unwrap_or_default();
    let arena = Arena::new(6 * longest).expect("memory");
    let split = Split::new(64 << 10);
    let threads = || Arc::new(ThreadsDevice::new(1));
    let seen = Seen::default();
    let shared = Layered::new(Arc::new(Layered::new(threads(), seen.clone())), split.clone());
    let engines: [Arc<dyn DmaDevice>; 3] =
        [Arc::new(CpuDevice::new(1)), threads(), Arc::new(shared)];
    let mut queues =
        engines.each_ref().map(|engine| Copies::new(engine.request_channel(0).expect("free")));

    println!(
        "{:>9} {:>9} {:>9} {:>9} {:>7} {:>7} {:>9} {:>6}",
        "KiB", "cpu us", "threads", "split", "saved", "shared", "gap us", "gap"
    );
    for len in lengths {
        let buffer = |()| arena.alloc(len).expect("room");
        let mut buffers = [(); 3].map(|()| Some([(); 2].map(buffer)));
        let mut times = [(); 3].map(|()| Vec::new());
        let mut gaps = Vec::new();
        for _ in 0..(ALL / len).clamp(ROUNDS.0, ROUNDS.1) {
            for ((queue, buffers), times) in queues.iter_mut().zip(&mut buffers).zip(&mut times) {
                seen.forget();
                let start = Instant::now();
                let mut cpu_end = start;
                *buffers = buffers.take().map(|buffers| copy(queue, buffers, &mut cpu_end));
                times.push(start.elapsed());
                gaps.extend(seen.gap(len, cpu_end));
            }
        }
        let median = |mut times: Vec<Duration>| {
            times.sort_unstable();
            times.get(times.len() / 2).map_or(f64::NAN, |time| time.as_secs_f64() * 1e6)
        };
        let shared = 100.0 * gaps.len() as f64 / times[2].len() as f64;
        let ([cpu, threads, split], gap) = (times.map(median), median(gaps));
        let saved = 100.0 * (1.0 - split / cpu);
        println!(
            "{:>9} {cpu:>9.1} {threads:>9.1} {split:>9.1} {saved:>6.1}% {shared:>6.0}% {gap:>9.1} \
             {:>5.1}%",
            len >> 10,
            100.0 * gap / split
        );
    }
    for share in split.shares() {
        let gigabytes = |rate: Option<f64>| rate.unwrap_or(f64::NAN) / 1e9;
        println!(
            "{} KiB and more: {:.0} % by the engine at {:.1} GB/s, the rest by the CPU at {:.1} GB/s",
            share.min_len >> 10,
            100.0 * share.engine,
            gigabytes(share.engine_rate),
            gigabytes(share.cpu_rate),
        );
    }
}

/// Copies one buffer to the other, and gives them back. The doorbell returns at `cpu_end`: if the copy
/// is shared, the CPU has then done its part.
fn copy(queue: &mut Copies, [source, target]: [DmaBuf; 2], cpu_end: &mut Instant) -> [DmaBuf; 2] {
    let len = source.len();
    queue.copy(source.slice(0..len), target.slice(0..len), ()).expect("room, and no overlap");
    queue.issue_pending();
    *cpu_end = Instant::now();
    let mut back = None;
    queue
        .wait_with(Wait::Spin, TIMEOUT, |done| {
            back = Some([done.source, done.target].map(DmaSlice::into_inner));
        })
        .expect("the engines are alive");
    back.expect("one copy was submitted")
}

/// What was seen of the engine below [`Split`]: the length of its part of a copy, and when that ended.
#[derive(Clone, Debug, Default)]
struct Seen(Arc<Mutex<(usize, Option<Instant>)>>);

impl Seen {
    fn forget(&self) {
        *self.0.lock().expect("no panic") = (0, None);
    }

    /// Between the ends of both parts of a copy of `len` bytes, if it had two.
    fn gap(&self, len: usize, cpu_end: Instant) -> Option<Duration> {
        let (part, end) = *self.0.lock().expect("no panic");
        let end = end.filter(|_| part < len)?;
        Some(end.max(cpu_end) - end.min(cpu_end))
    }
}

impl Layer for Seen {
    fn info(&self, below: &ChannelInfo) -> ChannelInfo {
        below.clone()
    }

    fn wrap(&self, below: Box<dyn DmaChannel>) -> Box<dyn DmaChannel> {
        Box::new(SeenChannel { below, seen: self.clone() })
    }
}

#[derive(Debug)]
struct SeenChannel {
    below: Box<dyn DmaChannel>,
    seen: Seen,
}

// SAFETY: every promise is that of the channel below.
unsafe impl DmaChannel for SeenChannel {
    fn info(&self) -> &ChannelInfo {
        self.below.info()
    }

    fn space(&self) -> usize {
        self.below.space()
    }

    unsafe fn submit(
        &mut self,
        operation: &Operation<'_>,
        flags: Flags,
    ) -> Result<Cookie, SubmitError> {
        self.seen.0.lock().expect("no panic").0 = operation.len();
        // SAFETY: the caller's promise.
        unsafe { self.below.submit(operation, flags) }
    }

    fn issue_pending(&mut self) {
        self.below.issue_pending();
    }

    fn poll(&mut self, report: &mut dyn FnMut(Completion)) {
        let seen = &self.seen.0;
        self.below.poll(&mut |completion| {
            seen.lock().expect("no panic").1 = Some(Instant::now());
            report(completion);
        });
    }

    fn arm(&mut self) -> bool {
        self.below.arm()
    }

    fn event(&self) -> Option<BorrowedFd<'_>> {
        self.below.event()
    }

    fn terminate_sync(&mut self, timeout: Duration) -> Result<(), Stuck> {
        self.below.terminate_sync(timeout)
    }
}
