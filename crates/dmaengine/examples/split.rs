//! The wall time of large copies: by the CPU, by a copy thread, and shared by both.
//!
//! ```sh
//! cargo run --release -p dmaengine --example split
//! ```
//!
//! The three take turns; the medians are printed, and what the shared one has learned. It needs two
//! processors with nothing else to do (or `chrt -r 10` before the command).

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use dmaengine::{
    Arena, CpuDevice, DmaBuf, DmaDevice, DmaSlice, Layered, Queue, Split, ThreadsDevice,
};

const LENGTHS: [usize; 4] = [256 << 10, 1 << 20, 4 << 20, 16 << 20];
/// In a turn: a thread that has nothing more to do is asleep before long.
const COPIES: usize = 32;
const TIMEOUT: Duration = Duration::from_secs(10);

type CopyQueue = Queue<DmaSlice, DmaSlice, ()>;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let split = Split::default();
    let threads = || Arc::new(ThreadsDevice::new(1));
    let engines: [(&str, Arc<dyn DmaDevice>); 3] = [
        ("cpu", Arc::new(CpuDevice::new(1))),
        ("threads", threads()),
        ("split", Arc::new(Layered::new(threads(), split.clone()))),
    ];
    let arena = Arena::new(128 << 20)?;
    let mut queues = Vec::new();
    for (_, engine) in &engines {
        queues.push(CopyQueue::new(engine.request_channel(0)?));
    }
    println!("{:>8}  {:>10}  {:>10}  {:>10}", "bytes", "cpu us", "threads us", "split us");
    for len in LENGTHS {
        // Buffers of their own: the caches of one's processor are not to be filled for another.
        let mut buffers = Vec::new();
        for _ in &queues {
            buffers.push([arena.alloc(len)?, arena.alloc(len)?]);
        }
        let turns = ((16 << 20) / len).clamp(3, 11);
        let mut samples = [(); 3].map(|()| Vec::new());
        for _ in 0..turns {
            for ((queue, buffers), samples) in queues.iter_mut().zip(&mut buffers).zip(&mut samples)
            {
                for _ in 0..COPIES {
                    let mine = std::mem::take(buffers);
                    let start = Instant::now();
                    *buffers = copy(queue, mine)?;
                    samples.push(start.elapsed());
                }
            }
        }
        let [cpu, threads, split] = samples.map(|mut samples| {
            samples.sort_unstable();
            samples[samples.len() / 2].as_secs_f64() * 1e6
        });
        println!("{len:>8}  {cpu:>10.1}  {threads:>10.1}  {split:>10.1}");
    }
    for share in split.shares() {
        let gigabytes = |rate: Option<f64>| rate.unwrap_or(f64::NAN) / 1e9;
        println!(
            "{:>8} bytes: {:.0} % by the engine at {:.1} GB/s, the rest by the CPU at {:.1} GB/s",
            share.min_len,
            100.0 * share.engine,
            gigabytes(share.engine_rate),
            gigabytes(share.cpu_rate),
        );
    }
    Ok(())
}

/// Copies one buffer to the other, and gives them back.
fn copy(
    queue: &mut CopyQueue,
    [source, target]: [DmaBuf; 2],
) -> Result<[DmaBuf; 2], Box<dyn std::error::Error>> {
    let len = source.len();
    queue.copy(source.slice(0..len), target.slice(0..len), ()).map_err(|refused| refused.error)?;
    let mut back = None;
    queue.wait(TIMEOUT, |done| {
        back = Some([done.source.into_inner(), done.target.into_inner()]);
    })?;
    back.ok_or_else(|| "the copy was not reported".into())
}
