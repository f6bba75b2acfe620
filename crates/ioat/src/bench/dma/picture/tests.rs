use super::*;
use crate::bench::{
    Cpus,
    dma::{BreakEven, BreakEvenRow, Interface, LatencyNs},
};
use crate::measure::Samples;

fn samples(values: &[f64]) -> Samples {
    let mut samples = Samples::default();
    values.iter().for_each(|value| samples.push(*value));
    samples
}

fn row(engine: &str, kind: &'static str, interface: Interface, size: usize, batch: usize) -> Row {
    Row {
        engine: engine.into(),
        kind,
        interface,
        size,
        batch,
        figures: Figures {
            caller_ns: samples(&[80.0, 100.0, 90.0]),
            gb_per_s: samples(&[1.0, 2.0, 1.5]),
            latency_ns: LatencyNs {
                p50: samples(&[300.0, 100.0, 200.0]),
                p99: samples(&[4000.0, 6000.0, 5000.0]),
                p999: samples(&[9000.0]),
            },
            ..Figures::default()
        },
        caller_over_memcpy: Samples::default(),
        caller_over_dpdk: None,
        throughput_over_memcpy: Samples::default(),
        throughput_over_dpdk: None,
        verified: true,
    }
}

fn results(rows: Vec<Row>) -> Results {
    Results {
        cpus: Cpus { caller: 0, engine: 1 },
        rounds: 3,
        pass_ms: 10.0,
        depth: 128,
        pairs: 256,
        huge_pages: false,
        round_trip_ns: samples(&[100.0]),
        clock_ns: 17.0,
        dpdk: None,
        left_out: Vec::new(),
        cost_passes: 12,
        preempted_passes: 0,
        rows,
        break_even: vec![BreakEvenRow {
            engine: "threads".into(),
            kind: "software",
            interface: Interface::Channel,
            batch: 32,
            size: BreakEven::At { bytes: 1234.4 },
        }],
    }
}

#[test]
fn every_engine_is_named_with_its_kind_and_its_break_even_is_marked() {
    let mut rows = Vec::new();
    for batch in [1, 32] {
        for size in [64, 4096] {
            rows.push(row("memcpy", "cpu", Interface::Call, size, batch));
        }
        for interface in [Interface::Queue, Interface::Channel] {
            for size in [64, 4096] {
                rows.push(row("threads", "software", interface, size, batch));
            }
        }
    }
    let svg = draw(&results(rows)).unwrap();
    assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"), "{svg}");
    let times = |words: &str| svg.matches(words).count();
    // In one panel of each batch.
    for engine in ["memcpy (cpu)", "threads (software)", "threads, bare channel (software)"] {
        assert_eq!(times(engine), 2, "{engine}: {svg}");
    }
    for panel in ["What the caller pays", "Throughput", "Latency"] {
        assert_eq!((times(&format!("{panel}, batches of 1\n")), times(panel)), (1, 2), "{svg}");
    }
    assert_eq!(times("break-even 1234 B"), 1, "{svg}");
}

#[test]
fn latency_reaches_from_p50_to_p99() {
    let row = row("threads", "software", Interface::Queue, 64, 1);
    let Spread { median, least, greatest, .. } = latency(&row.figures);
    assert_eq!((median, least, greatest), (200.0, 200.0, 5000.0));
    let results = results(vec![row]);
    let panel = panel(&results, 1, &QUANTITIES[2]);
    let [line] = &panel.lines[..] else { panic!("one engine") };
    assert_eq!(line.points.len(), 1);
    assert_eq!((line.points[0].1.median, line.points[0].1.greatest), (200.0, 5000.0));
}

#[test]
fn one_point_is_enough_and_none_is_an_error() {
    draw(&results(vec![row("memcpy", "cpu", Interface::Call, 64, 1)])).unwrap();
    assert!(draw(&results(Vec::new())).is_err());
}
