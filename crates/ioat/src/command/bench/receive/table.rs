//! The figures as tables for people.

use ioat::{
    bench::receive::{Results, Row, ScenePlacement},
    measure::Samples,
};

use crate::command::bench::ENOUGH_ROUNDS;

pub(super) fn print(results: &Results) {
    let Results {
        rounds,
        bytes,
        copybreak,
        turns,
        preempted_turns,
        round_trip_ns,
        generator_timeouts,
        placements,
        rows,
    } = results;
    println!(
        "{rounds} rounds in turns; medians, with the least and the greatest. Streams of {bytes} \
         bytes, or of 2^20 reads.\nCopybreak: {copybreak}.{}",
        if *rounds < ENOUGH_ROUNDS { " So few rounds prove little." } else { "" },
    );
    if *preempted_turns > 0 {
        println!(
            "In {preempted_turns} of {turns} turns the receiver lost its CPU to another program: what \
             that took of caches and time is in the figures."
        );
    }
    if let Some(round_trip_ns) = round_trip_ns {
        let ns = round_trip_ns.spread().show(0);
        println!("A cache line goes to the engine's CPU and back in {ns} ns.");
    }
    if *generator_timeouts > 0 {
        println!("The generator had to send again {generator_timeouts} times.");
    }
    for placement in placements {
        let scene = placement.scene;
        let of_scene = rows.iter().filter(|row| row.scene == scene).collect::<Vec<_>>();
        for rows in of_scene.chunk_by(|left, right| left.point.program == right.point.program) {
            print_rows(rows, placement);
        }
    }
    println!(
        "\ncpu: the receiving thread copies by itself. null: nothing is copied, which is the limit.\n\
         A thread (software) or a model of a device says nothing about a real engine's speed."
    );
}

fn print_rows(rows: &[&Row], placement: &ScenePlacement) {
    let ScenePlacement { scene, cpus } = placement;
    println!(
        "\nOver {scene}; {}. CPUs: receiver {}, engine {}, sender {}.\n",
        rows[0].point.program,
        cpu(cpus.receiver),
        cpu(cpus.engine),
        cpu(cpus.sender),
    );
    println!(
        "{:>8}  {:<14} {:<8} {:>28} {:>6} {:>6} {:>13} {:>20} {:>6} {:>9}",
        "read",
        "engine",
        "kind",
        "receiver's CPU s/GB",
        "/cpu",
        "/null",
        "engine's s/GB",
        "GB/s",
        "/cpu",
        "by engine",
    );
    rows.iter().for_each(|row| print_row(row));
}

/// A CPU's number, or a dash.
fn cpu(number: Option<usize>) -> String {
    number.map_or_else(|| "-".into(), |number| number.to_string())
}

fn print_row(row: &Row) {
    let Row {
        point,
        engine,
        kind,
        figures,
        receiver_over_cpu,
        receiver_over_null,
        throughput_over_cpu,
        verified,
        ..
    } = row;
    let ratio = |samples: &Samples| format!("{:.2}", samples.median());
    println!(
        "{:>8}  {engine:<14} {kind:<8} {:>28} {:>6} {:>6} {:>13.4} {:>20} {:>6} {:>8.1}%{}",
        point.read_size,
        figures.receiver_cpu_s_per_gb.spread().show(4),
        ratio(receiver_over_cpu),
        receiver_over_null.as_ref().map_or_else(|| "-".into(), ratio),
        figures.engine_cpu_s_per_gb.median(),
        figures.gb_per_s.spread().show(2),
        ratio(throughput_over_cpu),
        100.0 * figures.by_engine.median(),
        if *verified { "" } else { "  copies nothing" },
    );
}
