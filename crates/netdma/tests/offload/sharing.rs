//! Calls that are shared by the engine and the CPU.

use std::{cell::Cell, time::Duration};

use dmaengine::{Status, lend};
use netdma::{Copybreak, CpuCause, Request, Waiting, WorkClock};

use crate::bench::{Bench, Order, cpu_bytes, pattern};

/// Time passes when somebody looks at the clock.
fn ticking() -> Duration {
    thread_local! {
        static NOW_US: Cell<u64> = const { Cell::new(0) };
    }
    NOW_US.set(NOW_US.get() + 1);
    Duration::from_micros(NOW_US.get())
}

/// A segment that can be cut in two.
const LEN: usize = 32 << 10;

fn bench() -> Bench {
    let mut bench = Bench::with_mtu(Copybreak::Bytes(0), 1 << 20, LEN + 100);
    bench.offload = bench.offload.timed_by(WorkClock::Running(ticking));
    bench.sender.set_nodelay(bench.now, bench.client, true);
    bench
}

/// One call that reads `LEN` bytes, in a buffer of its own: the engine holds its part until the CPU has
/// looked for its end so often.
fn call(bench: &mut Bench, waiting: Waiting, looks: u32) {
    let data = pattern(LEN);
    bench.send(&data);
    let mut buffer = vec![0; LEN];
    bench.script.lock().unwrap().order = Order::Hold;
    lend(&mut buffer, |target| {
        let request = Request { waiting, ..Request::default() };
        let receive = bench.offload.post(bench.server, target, request);
        bench.serve();
        bench.offload.settle_one(receive);
        for _ in 0..looks {
            bench.reap();
        }
        bench.script.lock().unwrap().order = Order::Copy;
        bench.reap();
        assert_eq!(bench.offload.withdraw(receive), Ok(LEN));
    });
    assert_eq!(buffer, data);
    assert_eq!((bench.charged(), bench.offload.bytes_in_flight()), (0, 0));
}

#[test]
fn what_a_call_waits_for_is_cut_in_two() {
    let mut bench = bench();
    for waiting in [Waiting::ForMore, Waiting::Never] {
        let before = cpu_bytes(&bench, CpuCause::Shared);
        for _ in 0..20 {
            call(&mut bench, waiting, 1);
        }
        let of_cpu = cpu_bytes(&bench, CpuCause::Shared) - before;
        let all = 20 * LEN as u64;
        assert!((all / 10..all * 9 / 10).contains(&of_cpu), "{waiting:?}: {of_cpu} of {all}");
    }
    let counters = bench.offload.counters();
    assert_eq!(counters.bytes_by_engine + counters.bytes_by_cpu_total(), 40 * LEN as u64);
    let script = bench.script.lock().unwrap();
    assert_eq!(script.doorbells, script.submitted, "one for each part: before the CPU begins");
}

#[test]
fn what_nobody_waits_for_is_the_engines() {
    let mut bench = bench();
    for _ in 0..20 {
        call(&mut bench, Waiting::Elsewhere, 3);
    }
    assert_eq!(bench.offload.counters().bytes_by_engine, 20 * LEN as u64);
}

#[test]
fn an_engine_that_is_never_late_gets_all() {
    let mut bench = bench();
    for _ in 0..20 {
        call(&mut bench, Waiting::ForMore, 0);
    }
    assert_eq!(bench.offload.counters().bytes_by_engine, 20 * LEN as u64);
}

#[test]
fn the_engines_part_of_a_segment_that_it_fails_is_done_again() {
    let mut bench = bench();
    for _ in 0..10 {
        call(&mut bench, Waiting::ForMore, 1);
    }
    let data = pattern(LEN);
    bench.send(&data);
    bench.script.lock().unwrap().order = Order::Fail(Status::WriteError);
    let mut buffer = vec![0; LEN];
    lend(&mut buffer, |target| {
        let request = Request { waiting: Waiting::ForMore, ..Request::default() };
        let receive = bench.offload.post(bench.server, target, request);
        bench.serve();
        bench.reap();
        assert_eq!(bench.offload.withdraw(receive), Ok(LEN));
    });
    assert_eq!(buffer, data, "the CPU's part and the one that was done again");
    let failed = cpu_bytes(&bench, CpuCause::Failed);
    assert!((1..LEN as u64).contains(&failed), "{failed}");
    assert_eq!(bench.charged(), 0);
}
