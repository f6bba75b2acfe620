use super::*;
use crate::{
    bench::receive::{FrameKind, LinkKind, Point, Program, Scene},
    lab::Mode,
};

fn samples(values: &[f64]) -> Samples {
    let mut samples = Samples::default();
    values.iter().for_each(|value| samples.push(*value));
    samples
}

fn row(engine: &str, link: LinkKind, touch: bool, read_size: usize) -> Row {
    let ones = samples(&[1.0, 1.0, 1.0]);
    Row {
        scene: Scene { link, frame: FrameKind::Super },
        point: Point { program: Program { mode: Mode::Blocking, touch }, read_size },
        engine: engine.into(),
        kind: "software",
        figures: Figures {
            receiver_cpu_s_per_gb: samples(&[0.1, 0.2, 0.15]),
            gb_per_s: samples(&[5.0, 4.0, 6.0]),
            ..Figures::default()
        },
        receiver_over_cpu: ones.clone(),
        receiver_over_null: None,
        throughput_over_cpu: ones,
        verified: true,
    }
}

fn results(rows: Vec<Row>) -> Results {
    Results {
        rounds: 3,
        bytes: 1 << 20,
        copybreak: "off".into(),
        placements: Vec::new(),
        turns: 6,
        preempted_turns: 0,
        round_trip_ns: None,
        generator_timeouts: 0,
        rows,
    }
}

#[test]
fn each_scene_and_program_has_its_panels_and_each_engine_its_name() {
    let mut rows = Vec::new();
    for (link, touch) in [(LinkKind::Wire, false), (LinkKind::Wire, true), (LinkKind::Tap, false)] {
        for engine in ["threads", "threads:2"] {
            rows.push(row(engine, link, touch, 4096));
            rows.push(row(engine, link, touch, 65_536));
        }
    }
    let svg = draw(&results(rows)).unwrap();
    assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"), "{svg}");
    let times = |words: &str| svg.matches(words).count();
    assert_eq!((times("threads (software)"), times("threads:2 (software)")), (3, 3), "{svg}");
    for panel in ["What the receiving thread pays", "Throughput"] {
        assert_eq!(times(panel), 3, "{svg}");
        for which in ["wire, frames of 64K; blocking reads", "tap, frames of 64K; blocking reads"] {
            assert!(times(&format!("{panel}: {which}")) > 0, "{which}: {svg}");
        }
    }
    assert_eq!(times("every byte looked at"), 2, "{svg}");
}

#[test]
fn nothing_is_an_error() {
    assert!(draw(&results(Vec::new())).is_err());
}
