//! What it costs the thread that uses a channel that another reads its statistics without a pause.
//!
//! `cargo bench -p dmaengine --bench statistics`. Windows in which it is read and in which it is not take
//! turns; the medians are printed, in nanoseconds of an operation. A program reads them once a second, so
//! that of the difference a millionth remains.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use dmaengine::{CpuDevice, Queue, Registry};

const LEN: usize = 64;
const BATCH: usize = 32;
const WINDOW: Duration = Duration::from_millis(20);
const WINDOWS: usize = 50;

type Copies = Queue<Vec<u8>, Vec<u8>, ()>;

fn main() {
    let registry = Arc::new(Registry::new());
    registry.register(Arc::new(CpuDevice::new(1)));
    let mut queue = Copies::new(registry.request("dma0chan0").expect("a new device's channel"));
    let (is_read, is_over) = (AtomicBool::new(false), AtomicBool::new(false));
    let reads = AtomicU64::new(0);
    // Relaxed throughout: flags and a count, which order nothing else.
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                if is_read.load(Ordering::Relaxed) {
                    let listed = registry.list();
                    assert_eq!(listed.len(), 1);
                    reads.fetch_add(1, Ordering::Relaxed);
                } else {
                    // Busy in both kinds of windows, so that the processors' clocks are alike.
                    std::hint::spin_loop();
                }
            }
        });
        let mut times = [Vec::new(), Vec::new()];
        for _ in 0..WINDOWS {
            for (read, times) in [false, true].into_iter().zip(&mut times) {
                is_read.store(read, Ordering::Relaxed);
                times.push(window(&mut queue));
            }
        }
        is_over.store(true, Ordering::Relaxed);
        let [unread, read] = times.map(|mut times| {
            times.sort_by(f64::total_cmp);
            times[times.len() / 2]
        });
        let reads = reads.load(Ordering::Relaxed) as f64 / (WINDOW * WINDOWS as u32).as_secs_f64();
        println!("copies of {LEN} bytes through `cpu`, in batches of {BATCH}, ns each:");
        println!(
            "{unread:.1} if nobody reads the statistics, {read:.1} with {reads:.0} reads a second"
        );
    });
}

/// Copies for some time; nanoseconds of an operation.
fn window(queue: &mut Copies) -> f64 {
    let mut buffers: Vec<_> = (0..BATCH).map(|_| (vec![7; LEN], vec![0; LEN])).collect();
    let (start, mut operations) = (Instant::now(), 0);
    while start.elapsed() < WINDOW {
        for (source, target) in buffers.drain(..) {
            assert!(queue.copy(source, target, ()).is_ok(), "there is room");
        }
        queue.issue_pending();
        queue.poll(|done| buffers.push((done.source, done.target)));
        assert_eq!(buffers.len(), BATCH, "`cpu` is through at the doorbell");
        operations += BATCH;
    }
    start.elapsed().as_nanos() as f64 / operations as f64
}
