//! The time of large copies: by the CPU, by a copy thread, and shared by both.
//!
//! `cargo bench -p dmaengine --bench split [KIB ...]`, with lengths in KiB. The three take turns; the
//! medians are printed, what sharing saves of the CPU's time, and what it has learned. Each has buffers
//! of its own, which are in the caches where it left them.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use dmaengine::{
    Arena, CpuDevice, DmaBuf, DmaDevice, DmaSlice, Layered, Queue, Split, ThreadsDevice, Wait,
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
    let engines: [Arc<dyn DmaDevice>; 3] =
        [Arc::new(CpuDevice::new(1)), threads(), Arc::new(Layered::new(threads(), split.clone()))];
    let mut queues =
        engines.each_ref().map(|engine| Copies::new(engine.request_channel(0).expect("free")));

    println!("{:>9} {:>9} {:>9} {:>9} {:>7}", "KiB", "cpu us", "threads", "split", "saved");
    for len in lengths {
        let buffer = |()| arena.alloc(len).expect("room");
        let mut buffers = [(); 3].map(|()| Some([(); 2].map(buffer)));
        let mut times = [(); 3].map(|()| Vec::new());
        for _ in 0..(ALL / len).clamp(ROUNDS.0, ROUNDS.1) {
            for ((queue, buffers), times) in queues.iter_mut().zip(&mut buffers).zip(&mut times) {
                let start = Instant::now();
                *buffers = buffers.take().map(|buffers| copy(queue, buffers));
                times.push(start.elapsed());
            }
        }
        let [cpu, threads, split] = times.map(|mut times| {
            times.sort_unstable();
            times[times.len() / 2].as_secs_f64() * 1e6
        });
        let saved = 100.0 * (1.0 - split / cpu);
        println!("{:>9} {cpu:>9.1} {threads:>9.1} {split:>9.1} {saved:>6.1}%", len >> 10);
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

/// Copies one buffer to the other, and gives them back.
fn copy(queue: &mut Copies, [source, target]: [DmaBuf; 2]) -> [DmaBuf; 2] {
    let len = source.len();
    queue.copy(source.slice(0..len), target.slice(0..len), ()).expect("room, and no overlap");
    let mut back = None;
    queue
        .wait_with(Wait::Spin, TIMEOUT, |done| {
            back = Some([done.source, done.target].map(DmaSlice::into_inner));
        })
        .expect("the engines are alive");
    back.expect("one copy was submitted")
}
