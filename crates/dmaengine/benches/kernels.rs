//! The software engines' kernels beside what they are to beat: GB/s of source bytes, medians of
//! rounds in which all take turns.
//!
//! `cargo bench -p dmaengine --bench kernels [SOURCE TARGET]`, with the distance of source and target
//! from the begin of a page, in bytes; without, some that differ in what they cost.

use std::{hint::black_box, ptr::NonNull, time::Instant};

use dmaengine::{
    CpuDevice, DmaChannel, DmaDevice, Flags, InternetSum, Operation, copy_and_checksum, copy_bytes,
};

/// On each side: what fits an L2 cache, what fits an L3 cache, and what fits none, in bytes.
const AREAS: [(&str, usize); 3] = [("L2", 256 << 10), ("L3", 6 << 20), ("DRAM", 96 << 20)];
const LENGTHS: [usize; 7] = [64, 256, 1448, 4 << 10, 16 << 10, 64 << 10, 1 << 20];
const ROUNDS: usize = 7;
/// Moved by each kernel in a round.
const ROUND_BYTES: usize = 4 << 20;
/// For areas without pages in common.
const PAGE: usize = 4096;

/// One side of the copies.
struct Area {
    bytes: Vec<u8>,
    start: usize,
    len: usize,
}

impl Area {
    fn new(len: usize, offset: usize) -> Self {
        let bytes = vec![0x5a; len + 2 * PAGE];
        let start = bytes.as_ptr().align_offset(PAGE) + offset;
        Self { bytes, start, len }
    }

    /// The `number`th piece of `len` bytes, over and over.
    fn piece(&mut self, number: usize, len: usize) -> &mut [u8] {
        let stride = len.next_multiple_of(64);
        let start = self.start + number % (self.len / stride) * stride;
        &mut self.bytes[start..start + len]
    }
}

type Kernel<'a> = (&'a str, Box<dyn FnMut(&[u8], &mut [u8]) + 'a>);

/// A channel that executes one operation at a time, in this thread.
struct Cpu(Box<dyn DmaChannel>);

impl Cpu {
    fn new() -> Self {
        Self(CpuDevice::new(1).request_channel(0).expect("a new device has free channels"))
    }

    /// # Safety
    ///
    /// The operation's memory is valid and the caller's.
    unsafe fn execute(&mut self, operation: &Operation<'_>, flags: Flags) {
        // SAFETY: by contract, and it has ended when this returns.
        unsafe { self.0.submit(operation, flags) }.expect("a valid operation");
        self.0.issue_pending();
        self.0.poll(&mut |completion| assert!(completion.status.is_done()));
    }
}

#[cfg(target_arch = "x86_64")]
fn rep_movsb(source: &[u8], target: &mut [u8]) {
    // SAFETY: both have the length of the shorter.
    unsafe {
        std::arch::asm!(
            "rep movsb",
            inout("rsi") source.as_ptr() => _,
            inout("rdi") target.as_mut_ptr() => _,
            inout("rcx") source.len().min(target.len()) => _,
            options(nostack, preserves_flags),
        );
    }
}

/// As the engines' copy, with registers of twice the width, if the processor has some and it pays.
#[cfg(target_arch = "x86_64")]
fn avx512(source: &[u8], target: &mut [u8]) {
    use std::arch::x86_64::{_mm512_loadu_si512, _mm512_storeu_si512};

    const WIDTH: usize = 64;
    const STEP: usize = 2 * WIDTH;

    #[target_feature(enable = "avx512f")]
    unsafe fn copy(source: *const u8, target: *mut u8, len: usize) {
        // SAFETY: the first bytes; steps that end before `len`, aligned at the target; the last bytes.
        unsafe {
            let line = |from: usize, to: usize| {
                _mm512_storeu_si512(
                    target.add(to).cast(),
                    _mm512_loadu_si512(source.add(from).cast()),
                );
            };
            line(0, 0);
            let mut offset = WIDTH - target.addr() % WIDTH;
            while offset + STEP <= len {
                let [one, other] =
                    [0, WIDTH].map(|part| _mm512_loadu_si512(source.add(offset + part).cast()));
                _mm512_storeu_si512(target.add(offset).cast(), one);
                _mm512_storeu_si512(target.add(offset + WIDTH).cast(), other);
                offset += STEP;
            }
            line(len - STEP, len - STEP);
            line(len - WIDTH, len - WIDTH);
        }
    }

    let len = source.len().min(target.len());
    if len >= 2 * STEP && is_x86_feature_detected!("avx512f") {
        // SAFETY: both have `len` bytes, which is enough; the processor has the instructions.
        unsafe { copy(source.as_ptr(), target.as_mut_ptr(), len) };
    } else {
        target.copy_from_slice(source);
    }
}

fn copies(offsets: (usize, usize)) {
    let mut cpu = Cpu::new();
    let mut kernels: Vec<Kernel<'_>> = vec![
        ("memcpy", Box::new(|source, target| target.copy_from_slice(source))),
        ("copy", Box::new(copy_bytes)),
        (
            "streaming",
            Box::new(|source, target| {
                let (source, target, len) =
                    (source.as_ptr(), target.as_mut_ptr(), target.len().min(source.len()));
                let copy = Operation::Memcpy { source, target, len };
                // SAFETY: two references; the channel is through with them when this returns.
                unsafe { cpu.execute(&copy, Flags::TO_MEMORY) };
            }),
        ),
        #[cfg(target_arch = "x86_64")]
        ("rep movsb", Box::new(rep_movsb)),
        #[cfg(target_arch = "x86_64")]
        ("AVX-512", Box::new(avx512)),
        (
            "memcpy,sum",
            Box::new(|source, target| {
                target.copy_from_slice(source);
                black_box(InternetSum::of(target));
            }),
        ),
        (
            "fused",
            Box::new(|source, target| {
                black_box(copy_and_checksum(source, target));
            }),
        ),
    ];
    println!("copies, source {} and target {} bytes into a page", offsets.0, offsets.1);
    print!("{:>9} {:>5}", "bytes", "in");
    kernels.iter().for_each(|(name, _)| print!(" {name:>10}"));
    println!();
    for (place, size) in AREAS {
        let (mut from, mut to) = (Area::new(size, offsets.0), Area::new(size, offsets.1));
        for len in LENGTHS.into_iter().filter(|&len| len * 4 <= size) {
            let rates = rates(&mut kernels, len, |number, kernel| {
                kernel(from.piece(number, len), to.piece(number, len));
            });
            println!("{len:>9} {place:>5}{rates}");
        }
    }
}

/// The median speed of each kernel, which `each` runs on the piece of some number.
fn rates<K>(kernels: &mut [(&str, K)], len: usize, mut each: impl FnMut(usize, &mut K)) -> String {
    let count = ROUND_BYTES.div_ceil(len);
    let mut times = vec![Vec::new(); kernels.len()];
    // Each goes on where the one before ended, not on what that has left in the caches.
    let mut numbers = 0..;
    for _ in 0..ROUNDS {
        for ((_, kernel), times) in kernels.iter_mut().zip(&mut times) {
            let start = Instant::now();
            for number in numbers.by_ref().take(count) {
                each(number, kernel);
            }
            times.push(start.elapsed().as_secs_f64());
        }
    }
    let rate = |mut times: Vec<f64>| {
        times.sort_by(f64::total_cmp);
        format!(" {:>10.1}", (count * len) as f64 / times[ROUNDS / 2] / 1e9)
    };
    times.into_iter().map(rate).collect()
}

/// Exclusive or and P and Q of eight sources, with memory in the L2 cache.
fn parity() {
    const SOURCES: usize = 8;
    const LEN: usize = 16 << 10;
    let sources = vec![vec![0x5a_u8; LEN]; SOURCES];
    let pointers: Vec<_> = sources.iter().map(|source| source.as_ptr()).collect();
    let coefficients: Vec<u8> = (0..SOURCES as u8).map(|index| 1 << index).collect();
    let (mut p, mut q) = (vec![0_u8; LEN], vec![0_u8; LEN]);
    let (p, q) = (NonNull::new(p.as_mut_ptr()), NonNull::new(q.as_mut_ptr()));
    let (sources, coefficients, len) = (&pointers[..], &coefficients[..], LEN);
    let target = p.expect("not null").as_ptr();
    let mut operations = [
        ("xor", Operation::Xor { sources, target, len }),
        ("pq", Operation::Pq { sources, coefficients, p, q, len }),
        ("pq_val", Operation::PqVal { sources, coefficients, p, q, len }),
    ];
    let mut cpu = Cpu::new();
    println!("parity of {SOURCES} sources of {LEN} bytes (GB/s of all sources)");
    operations.iter().for_each(|(name, _)| print!(" {name:>10}"));
    println!();
    let rates = rates(&mut operations, SOURCES * LEN, |_, operation| {
        // SAFETY: the vectors above, which nobody else uses until the end.
        unsafe { cpu.execute(operation, Flags::empty()) };
    });
    println!("{rates}");
}

fn main() {
    // Cargo adds `--bench`.
    let numbers: Vec<usize> = std::env::args().filter_map(|arg| arg.parse().ok()).collect();
    match numbers[..] {
        [source, target] if source < PAGE && target < PAGE => copies((source, target)),
        // Both aligned; payload behind headers; and what `rep movsb` of Zen 3 and Zen 4 is bad at, a
        // target less than a line further into its page than the source.
        _ => [(0, 0), (54, 0), (0, 7)].into_iter().for_each(copies),
    }
    parity();
}
