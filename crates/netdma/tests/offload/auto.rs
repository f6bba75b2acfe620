//! Copybreak `auto`: who costs less gets the receives, whatever it is that costs.

use std::{cell::Cell, time::Duration};

use dmaengine::lend;
use netdma::{Copybreak, CpuCause, PolicyRow, RecvFlags};

use crate::{
    bench::{Bench, cpu_bytes, pattern},
    clock::{self, Costs},
    measured::{LEN, bench, micros},
};

/// Receives until it is known what they cost, and as many in which that shows.
const COUNT: u64 = 1000;

/// One receive into `buffer`. If the engine has a part, to wait for it costs so much.
fn receive(bench: &mut Bench, buffer: &mut [u8], wait: Duration) {
    let data = pattern(LEN);
    bench.send(&data);
    lend(buffer, |target| {
        let receive = bench.post(target, RecvFlags::empty());
        bench.serve();
        if bench.offload.bytes_in_flight() > 0 {
            bench.offload.add_wait(wait);
        }
        bench.reap();
        assert_eq!(bench.offload.withdraw(receive), Ok(LEN));
    });
    assert!(buffer == data);
}

/// How much of a stream each side copies in the end, in bytes: the engine, and the CPU since the
/// engine costs more.
fn shares(costs: Costs, wait: Duration) -> (u64, u64) {
    shares_of(bench(Copybreak::Auto, costs), wait)
}

/// The same, on this bench.
fn shares_of(mut bench: Bench, wait: Duration) -> (u64, u64) {
    let mut buffer = vec![0; LEN];
    let copied = |bench: &Bench| {
        (bench.offload.counters().bytes_by_engine, cpu_bytes(bench, CpuCause::Policy))
    };
    (0..COUNT).for_each(|_| receive(&mut bench, &mut buffer, wait));
    let before = copied(&bench);
    (0..COUNT).for_each(|_| receive(&mut bench, &mut buffer, wait));
    let after = copied(&bench);
    let (engine, cpu) = (after.0 - before.0, after.1 - before.1);
    assert_eq!(engine + cpu, COUNT * LEN as u64);
    (engine, cpu)
}

const NO_TIME: Duration = Duration::ZERO;

#[test]
fn an_engine_that_costs_less_has_all_but_the_trials() {
    let (engine, cpu) = shares(micros(100, 10, 10), NO_TIME);
    assert!(engine > 9 * cpu, "{engine}, {cpu} by the CPU");
}

#[test]
fn one_whose_submission_costs_more_has_only_trials() {
    let (engine, cpu) = shares(micros(100, 1000, 10), NO_TIME);
    assert!(cpu > 9 * engine, "{cpu}, {engine} by the engine");
}

#[test]
fn nor_has_one_whose_completions_cost_more_to_collect() {
    let (engine, cpu) = shares(micros(100, 10, 1000), NO_TIME);
    assert!(cpu > 9 * engine, "{cpu}, {engine} by the engine");
}

#[test]
fn nor_one_that_costs_more_to_wait_for() {
    let (engine, cpu) = shares(micros(100, 10, 10), Duration::from_millis(1));
    assert!(cpu > 9 * engine, "{cpu}, {engine} by the engine");
}

/// As if each KiB that a reader looks at cost it 30 µs, whoever has looked at it before.
fn slow_reads(lines: &[u8]) -> Duration {
    Duration::from_micros(30 * lines.len() as u64 / 1024)
}

thread_local! {
    /// The pages that lines were looked at in.
    static PAGES: Cell<[u64; 2]> = Cell::default();
}

/// The same, but only for what the engine has just written: later it is in the reader's cache.
fn slow_first_reads(lines: &[u8]) -> Duration {
    let is_odd = lines.as_ptr().addr() / 4096 % 2 == 1;
    let mut pages = PAGES.get();
    pages[usize::from(is_odd)] += 1;
    PAGES.set(pages);
    if is_odd { Duration::ZERO } else { slow_reads(lines) }
}

#[test]
fn nor_one_whose_reader_pays_for_looking_at_what_it_wrote() {
    let mut bench = bench(Copybreak::Auto, micros(100, 10, 10));
    bench.offload = bench.offload.reading_by(slow_first_reads);
    let (engine, cpu) = shares_of(bench, NO_TIME);
    assert!(cpu > 9 * engine, "{cpu}, {engine} by the engine");
    assert!(PAGES.get().iter().all(|looks| *looks > 0), "{:?}", PAGES.get());
}

#[test]
fn a_reader_that_does_not_look_pays_nothing() {
    let mut bench = bench(Copybreak::Auto, micros(100, 10, 10));
    bench.offload = bench.offload.reading_by(slow_reads);
    let (engine, cpu) = shares_of(bench, NO_TIME);
    assert!(engine > 9 * cpu, "{engine}, {cpu} by the CPU");
}

#[test]
fn warm_and_cold_buffers_are_decided_on_by_themselves() {
    /// More than a cache holds.
    const COLD: usize = 1 << 20;
    let (cheap, dear) = (micros(10, 100, 0), micros(1000, 100, 0));
    let mut bench = bench(Copybreak::Auto, cheap);
    let mut warm = vec![0; LEN];
    let mut cold = vec![0; COLD];
    for _ in 0..10 {
        for buffer in cold.chunks_mut(LEN) {
            clock::set(cheap);
            receive(&mut bench, &mut warm, NO_TIME);
            // The CPU finds none of these lines in its cache.
            clock::set(dear);
            receive(&mut bench, buffer, NO_TIME);
        }
    }
    let rows: Vec<_> = bench.offload.policy().collect();
    let row = |is_warm| {
        let is_it = |row: &&PolicyRow| row.class.is_warm == is_warm;
        rows.iter().find(is_it).unwrap_or_else(|| panic!("{is_warm}: {rows:?}"))
    };
    // But for a few that others have taken the place of where it is remembered.
    assert!(row(true).receives > 1000 && row(false).receives > 1000, "{rows:?}");
    assert!(!row(true).by_engine && row(false).by_engine, "{rows:?}");
}
