//! Receives whose costs are measured.

use std::time::Duration;

use dmaengine::lend;
use netdma::{Copybreak, RecvFlags, Request, WorkClock};

use crate::{
    bench::{Bench, Order, pattern},
    clock::{self, Costs},
};

/// A segment, and what each receive asks for.
pub(crate) const LEN: usize = 8 << 10;

pub(crate) fn bench(copybreak: Copybreak, costs: Costs) -> Bench {
    clock::set(costs);
    // The headers of a full segment: there are timestamps.
    let mut bench = Bench::with_mtu(copybreak, 1 << 20, LEN + 52);
    bench.offload = bench.offload.timed_by(WorkClock::Running(clock::now));
    bench.sender.set_nodelay(bench.now, bench.client, true);
    bench
}

pub(crate) fn micros(cpu: u64, submit: u64, poll: u64) -> Costs {
    let [cpu, submit, poll] = [cpu, submit, poll].map(Duration::from_micros);
    Costs { cpu, submit, poll }
}

#[test]
fn a_doorbell_that_waits_is_rung_before_a_measured_receive_of_the_cpu() {
    let mut bench = bench(Copybreak::Auto, micros(10, 100, 0));
    let data = pattern(2 * LEN);
    let mut buffer = vec![0; 2 * LEN];
    let (front, back) = buffer.split_at_mut(LEN);
    for round in 0..100 {
        bench.send(&data);
        lend(front, |front| {
            lend(back, |back| {
                let request =
                    Request { copybreak: Some(Copybreak::Bytes(0)), ..Request::default() };
                let of_engine = bench.offload.post(bench.server, front, request);
                let measured = bench.post(back, RecvFlags::empty());
                let rung = bench.script.lock().unwrap().doorbells;
                bench.serve();
                assert!(bench.script.lock().unwrap().doorbells > rung, "{round}");
                bench.reap();
                assert_eq!(bench.offload.withdraw(of_engine), Ok(LEN), "{round}");
                assert_eq!(bench.offload.withdraw(measured), Ok(LEN));
            });
        });
    }
    assert_eq!(buffer, data);
    let rows: Vec<_> = bench.offload.policy().collect();
    let is_known = rows.iter().any(|row| row.cpu_ns_per_kib.is_some());
    assert!(is_known, "the CPU had some that were measured: {rows:?}");
}

#[test]
fn copies_from_before_their_receive_was_measured_are_not_taken_for_measured_ones() {
    /// Decisions until receives by the engine are measured, in the first trial of a class.
    const FIRST: usize = 40;
    let mut bench = bench(Copybreak::Auto, micros(10, 10, 10));
    let data = pattern(LEN);
    // Each buffer is used once, and so is cold.
    let mut buffers = vec![0; (FIRST + 2) * LEN];
    let (used, fresh) = buffers.split_at_mut(FIRST * LEN);
    for buffer in used.chunks_mut(LEN) {
        bench.send(&data);
        lend(buffer, |target| {
            let receive = bench.post(target, RecvFlags::empty());
            bench.serve();
            bench.reap();
            assert_eq!(bench.offload.withdraw(receive), Ok(LEN));
        });
    }
    let (first, second) = fresh.split_at_mut(LEN);
    bench.script.lock().unwrap().order = Order::Hold;
    lend(first, |first| {
        lend(second, |second| {
            bench.offload.set_copybreak(Copybreak::Bytes(0));
            let changed = bench.post(first, RecvFlags::WAITALL);
            bench.send(&data[..LEN / 2]);
            bench.serve();
            bench.offload.set_copybreak(Copybreak::Auto);
            bench.send(&data[LEN / 2..]);
            bench.serve();
            let measured = bench.post(second, RecvFlags::empty());
            bench.send(&data);
            bench.serve();
            {
                let mut script = bench.script.lock().unwrap();
                script.order = Order::Copy;
                script.ends = 2;
            }
            bench.reap();
            assert_eq!(bench.offload.withdraw(changed), Ok(LEN));
            bench.script.lock().unwrap().ends = u64::MAX;
            let looks = clock::looks();
            bench.reap();
            assert_eq!(bench.offload.withdraw(measured), Ok(LEN));
            assert_eq!(clock::looks() - looks, 2, "the end of its copy is measured");
        });
    });
    assert!(fresh.chunks(LEN).all(|buffer| buffer == data));
}
