//! The figures as tables for people.

use ioat::{
    bench::dma::{BreakEven, BreakEvenRow, LatencyNs, Results, Row},
    measure::Samples,
};

use crate::command::bench::ENOUGH_ROUNDS;

pub(super) fn print(results: &Results) {
    let Results { cpus, rounds, pass_ms, depth, pairs, clock_ns, dpdk, rows, break_even, .. } =
        results;
    println!(
        "{rounds} rounds in turns; medians, with the least and the greatest. Passes of {pass_ms} ms, \
         at most {depth} copies in\nflight over {pairs} pairs of buffers; the caller on CPU {}, the \
         engine's thread on CPU {}.\nA cache line goes there and back in {} ns. Reading the clock \
         ({clock_ns:.1} ns) is not counted.{}",
        cpus.caller,
        cpus.engine,
        results.round_trip_ns.spread().show(0),
        if *rounds < ENOUGH_ROUNDS { " So few rounds prove little." } else { "" },
    );
    if results.preempted_passes > 0 {
        println!(
            "In {} of {} passes the caller lost its CPU to another program: what that took is in the figures.",
            results.preempted_passes, results.cost_passes
        );
    }
    let batches: Vec<usize> = unique(rows.iter().map(|row| row.batch));
    for batch in batches {
        println!("\nBatches of {batch}\n");
        println!(
            "{:>7}  {:<14} {:<8} {:<7} {:>28} {:>7} {:>7} {:>22} {:>7} {:>18} {:>18}",
            "bytes",
            "engine",
            "kind",
            "through",
            "caller ns/copy",
            "/memcpy",
            "/dpdk",
            "GB/s",
            "Mops",
            "latency p50/99/99.9",
            "at depth, µs",
        );
        let rows = || rows.iter().filter(|row| row.batch == batch);
        for size in unique(rows().map(|row| row.size)) {
            for row in rows().filter(|row| row.size == size) {
                print_row(row);
            }
        }
    }
    print_break_even(break_even);
    println!(
        "\nmemcpy: the caller copies by itself, without a queue. What is checked is outside of the \
         timed part.\nA thread (software) or a model of a device says nothing about a real \
         engine's speed.{}",
        dpdk.as_ref().map_or_else(String::new, |version| format!(
            "\ndpdk: dma_skeleton of {version}, its submitter measured in the same way."
        )),
    );
}

fn print_row(row: &Row) {
    let Row {
        engine, kind, interface, size, figures, caller_over_memcpy, caller_over_dpdk, ..
    } = row;
    println!(
        "{size:>7}  {engine:<14} {kind:<8} {:<7} {:>28} {:>7.2} {:>7} {:>22} {:>7.2} {:>18} {:>18}{}",
        interface.as_str(),
        figures.caller_ns.spread().show(1),
        caller_over_memcpy.median(),
        caller_over_dpdk
            .as_ref()
            .map_or_else(|| "-".to_owned(), |ratio| format!("{:.2}", ratio.median())),
        figures.gb_per_s.spread().show(2),
        figures.mops.median(),
        microseconds(&figures.latency_ns),
        microseconds(&figures.loaded_latency_ns),
        if row.verified { "" } else { "  copies nothing" },
    );
}

fn microseconds(LatencyNs { p50, p99, p999 }: &LatencyNs) -> String {
    let of = |ns: &Samples| ns.median() / 1e3;
    format!("{:.2}/{:.2}/{:.1}", of(p50), of(p99), of(p999))
}

fn print_break_even(rows: &[BreakEvenRow]) {
    println!("\nFrom this size on the caller pays less with the engine than by copying itself:\n");
    for BreakEvenRow { engine, kind, interface, batch, size } in rows {
        let size = match size {
            BreakEven::AtMost { bytes } => format!("{bytes} bytes or less, the least measured"),
            BreakEven::At { bytes } => format!("{bytes:.0} bytes"),
            BreakEven::Above { bytes } => format!("more than {bytes} bytes, the most measured"),
        };
        let interface = interface.as_str();
        println!("{engine:<14} {kind:<8} {interface:<7} batches of {batch:<5} {size}");
    }
}

/// Without repetitions, in the order of the first appearance.
fn unique(values: impl Iterator<Item = usize>) -> Vec<usize> {
    let mut unique = Vec::new();
    for value in values {
        if !unique.contains(&value) {
            unique.push(value);
        }
    }
    unique
}
