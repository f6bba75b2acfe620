//! scratch
use dmaengine::*;
use std::time::Duration;
fn tsc() -> u64 {
    // SAFETY: x86-64
    unsafe { core::arch::x86_64::_rdtsc() }
}
fn pin() {
    std::thread::sleep(Duration::from_millis(5));
    let me = rustix::thread::gettid();
    for e in std::fs::read_dir("/proc/self/task").unwrap() {
        let t = rustix::process::Pid::from_raw(
            e.unwrap().file_name().to_str().unwrap().parse().unwrap(),
        )
        .unwrap();
        let mut c = rustix::thread::CpuSet::new();
        c.set(if t == me { 0 } else { 1 });
        let _ = rustix::thread::sched_setaffinity(Some(t), &c);
        let p = libc::sched_param { sched_priority: 1 };
        // SAFETY: bench
        unsafe { libc::sched_setscheduler(t.as_raw_nonzero().get(), libc::SCHED_FIFO, &p) };
    }
}
fn main() {
    let start = (std::time::Instant::now(), tsc());
    std::thread::sleep(Duration::from_millis(50));
    let hz = (tsc() - start.1) as f64 / start.0.elapsed().as_secs_f64();
    let ov = (0..10000)
        .map(|_| {
            let a = tsc();
            tsc() - a
        })
        .min()
        .unwrap();
    let engine = std::env::args().nth(1).unwrap_or("threads".into());
    let area = 16 << 20;
    let src = vec![1u8; area];
    let mut dst = vec![2u8; area];
    for len in [64usize, 1448, 4096, 65536] {
        for batch in [1u64, 32] {
            let slots = (area / len).min(512);
            let depth = slots.min(256) as u64;
            let mut chan = if engine == "cpu" {
                CpuDevice::new(1).request_channel(0).unwrap()
            } else {
                ThreadsDevice::new(1).request_channel(0).unwrap()
            };
            pin();
            let mut samples = vec![];
            for _ in 0..21 {
                let total: u64 = match len {
                    65536 => 4000,
                    4096 => 50000,
                    _ => 200000,
                };
                let total = total - total % batch;
                let (mut cs, mut cp, mut sub, mut done, mut at) = (0, 0, 0, 0, 0);
                let t0 = tsc();
                while done < total {
                    if sub < total && sub - done + batch <= depth {
                        let a = tsc();
                        for _ in 0..batch {
                            let op = Operation::Memcpy {
                                source: src[at * len..].as_ptr(),
                                target: dst[at * len..].as_mut_ptr(),
                                len,
                            };
                            // SAFETY: bench
                            unsafe {
                                chan.submit(&op, Flags::empty()).unwrap();
                            }
                            at += 1;
                            if at == slots {
                                at = 0
                            }
                        }
                        chan.issue_pending();
                        cs += tsc() - a - ov;
                        sub += batch;
                    }
                    let before = done;
                    let a = tsc();
                    chan.poll(&mut |_| done += 1);
                    let e = tsc() - a - ov;
                    if before != done {
                        cp += e;
                    }
                }
                let t = (tsc() - t0) as f64 / hz;
                samples.push((
                    cs as f64 / hz * 1e9 / total as f64,
                    cp as f64 / hz * 1e9 / total as f64,
                    total as f64 * len as f64 / t / 1e9,
                ));
            }
            let med = |f: fn(&(f64, f64, f64)) -> f64| {
                let mut v: Vec<f64> = samples.iter().map(f).collect();
                v.sort_by(f64::total_cmp);
                v[5]
            };
            let (s, p, t) = (med(|x| x.0), med(|x| x.1), -med(|x| -x.2));
            println!(
                "{engine:8} {len:6} B batch {batch:2}: submit {s:7.1} poll {p:7.1} sum {:7.1} ns/op  {t:6.2} GB/s {:7.3} Mops",
                s + p,
                t * 1e3 / len as f64
            );
        }
    }
}
