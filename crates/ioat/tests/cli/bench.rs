//! `ioat bench`. The figures are not judged: other programs run beside the tests.

use std::fs;

use serde_json::Value;

use crate::{DONE, MACHINE, USAGE, folder, has_fields, ioat, json, refuses};

/// As little as there can be.
const QUICK: [&str; 10] =
    ["--rounds", "1", "--pass", "1", "--size", "64,4K", "--batch", "1,4", "--depth", "8"];

/// `ioat bench dma`, quick, with its picture in this folder.
fn bench(out: &str, more: &[&str]) -> std::process::Command {
    let mut command = ioat(&["bench", "dma", "--out", out]);
    command.args(QUICK).args(more);
    command
}

#[track_caller]
pub(crate) fn is_spread(value: &Value) {
    has_fields(value, &["median", "least", "greatest", "samples"]);
    let number = |field: &str| value[field].as_f64().unwrap_or_else(|| panic!("{value}"));
    assert!(0.0 <= number("least") && number("least") <= number("median"), "{value}");
    assert!(number("median") <= number("greatest"), "{value}");
}

#[test]
fn json_has_every_figure_and_the_picture_is_written() {
    let out = folder("bench-json");
    let engines = ["--engine", "cpu", "--engine", "threads", "--engine", "null"];
    let mut command = bench(out.to_str().unwrap(), &engines);
    let document = json(command.args(["--interface", "queue,channel", "--json"]));
    has_fields(
        &document,
        &[
            "cpus",
            "rounds",
            "pass_ms",
            "depth",
            "pairs",
            "huge_pages",
            "round_trip_ns",
            "clock_ns",
            "dpdk",
            "left_out",
            "cost_passes",
            "preempted_passes",
            "rows",
            "break_even",
            "picture",
        ],
    );
    assert_eq!((&document["rounds"], &document["depth"]), (&1.into(), &8.into()));
    assert_eq!((&document["dpdk"], &document["left_out"]), (&Value::Null, &Value::Array(vec![])));
    is_spread(&document["round_trip_ns"]);

    let rows = document["rows"].as_array().unwrap();
    let expected = [
        ("memcpy", "cpu", "call", true),
        ("cpu", "cpu", "queue", true),
        ("cpu", "cpu", "channel", true),
        ("threads", "software", "queue", true),
        ("threads", "software", "channel", true),
        ("null", "none", "queue", false),
        ("null", "none", "channel", false),
    ];
    let points = [(64, 1), (4096, 1), (64, 4), (4096, 4)];
    assert_eq!(rows.len(), expected.len() * points.len());
    let mut rows = rows.iter();
    for (engine, kind, interface, verified) in expected {
        for (size, batch) in points {
            let row = rows.next().unwrap();
            has_fields(
                row,
                &[
                    "engine",
                    "kind",
                    "interface",
                    "size",
                    "batch",
                    "caller_ns",
                    "submit_ns",
                    "poll_ns",
                    "gb_per_s",
                    "mops",
                    "latency_ns",
                    "loaded_latency_ns",
                    "caller_over_memcpy",
                    "caller_over_dpdk",
                    "throughput_over_memcpy",
                    "throughput_over_dpdk",
                    "verified",
                ],
            );
            assert_eq!(
                (&row["engine"], &row["kind"], &row["interface"], &row["verified"]),
                (&engine.into(), &kind.into(), &interface.into(), &verified.into())
            );
            assert_eq!((&row["size"], &row["batch"]), (&size.into(), &batch.into()));
            for figure in ["caller_ns", "submit_ns", "poll_ns", "gb_per_s", "mops"] {
                is_spread(&row[figure]);
                assert_eq!(row[figure]["samples"].as_array().unwrap().len(), 1, "{row}");
            }
            for latency in ["latency_ns", "loaded_latency_ns"] {
                has_fields(&row[latency], &["p50", "p99", "p999"]);
                let of = |percentile: &str| row[latency][percentile]["median"].as_f64().unwrap();
                assert!(of("p50") <= of("p99") && of("p99") <= of("p999"), "{row}");
            }
            is_spread(&row["caller_over_memcpy"]);
            assert_eq!(row["caller_over_dpdk"], Value::Null);
            if engine == "memcpy" {
                assert_eq!(row["caller_over_memcpy"]["median"], 1.0);
            }
        }
    }
    for found in document["break_even"].as_array().unwrap() {
        has_fields(found, &["engine", "kind", "interface", "batch", "found", "bytes"]);
        let bytes = found["bytes"].as_f64().unwrap();
        assert!((64.0..=4096.0).contains(&bytes), "{found}");
    }
    assert_eq!(document["break_even"].as_array().unwrap().len(), 6 * 2);

    let picture = out.join("bench-dma.svg");
    assert_eq!(document["picture"], picture.to_str().unwrap());
    let svg = fs::read_to_string(picture).unwrap();
    for engine in ["memcpy (cpu)", "threads (software)", "null, bare channel (none)"] {
        assert!(svg.contains(engine), "{engine}");
    }
}

#[test]
fn the_table_names_each_engine_s_kind_and_the_break_even() {
    let out = folder("bench-table");
    let output = bench(out.to_str().unwrap(), &["--engine", "ioat-model"]).output().unwrap();
    let table = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), DONE, "{table}");
    for line in table.lines().filter(|line| line.contains("ioat-model:3.2")) {
        assert!(line.contains("model   "), "{line}");
    }
    for words in ["caller ns/copy", "GB/s", "p50/99/99.9", "batches of 4", "bench-dma.svg"] {
        assert!(table.contains(words), "{words} is missing in {table}");
    }
}

#[test]
fn dpdk_takes_part_where_it_is_installed_and_is_missed_aloud_elsewhere() {
    let out = folder("bench-dpdk");
    let document = json(&mut bench(out.to_str().unwrap(), &["--json"]));
    let rows = document["rows"].as_array().unwrap();
    let of_dpdk: Vec<_> = rows.iter().filter(|row| row["engine"] == "dpdk").collect();
    match document["left_out"].as_array().unwrap().as_slice() {
        [] => {
            assert!(document["dpdk"].as_str().unwrap().starts_with("DPDK "), "{document}");
            assert_eq!(of_dpdk.len(), 4);
            for row in of_dpdk {
                assert_eq!(
                    (&row["kind"], &row["interface"]),
                    (&"software".into(), &"dmadev".into())
                );
                assert_eq!(row["caller_over_dpdk"]["median"], 1.0);
                assert_eq!(row["verified"], true);
            }
            assert!(rows.iter().all(|row| row["caller_over_dpdk"].is_object()));
        }
        [missing] => {
            assert_eq!(missing["engine"], "dpdk");
            assert!(of_dpdk.is_empty());
        }
        more => panic!("{more:?}"),
    }
}

#[test]
fn without_dpdk_the_others_are_measured() {
    let out = folder("bench-no-dpdk");
    let mut command = bench(out.to_str().unwrap(), &["--json"]);
    // No compiler and no pkg-config.
    let output = command.env("PATH", &out).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), DONE, "{said}");
    assert!(said.contains("dpdk is left out") && said.contains("libdpdk-dev"), "{said}");
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["left_out"][0]["engine"], "dpdk");
    let engines: Vec<_> =
        document["rows"].as_array().unwrap().iter().map(|row| &row["engine"]).collect();
    for engine in ["memcpy", "cpu", "threads", "ioat-model:3.2"] {
        assert!(engines.contains(&&engine.into()), "{engine}");
    }
    // Who asks for it by name wants it.
    let mut command = bench(out.to_str().unwrap(), &["--engine", "dpdk"]);
    refuses(command.env("PATH", &out), MACHINE, &["apt-get install", "libdpdk-dev"]);
}

#[test]
fn what_makes_no_sense_is_refused() {
    let bench = |more: &[&str]| {
        let mut command = ioat(&["bench", "dma"]);
        command.args(more);
        command
    };
    let which = ioat(&["bench"]).output().unwrap();
    assert_eq!(which.status.code(), USAGE);
    assert!(String::from_utf8(which.stderr).unwrap().contains("dma"));
    refuses(&mut ioat(&["bench", "fly"]), USAGE, &["fly"]);
    refuses(&mut bench(&["--engine", "gpu"]), USAGE, &["unknown engine `gpu`"]);
    refuses(&mut bench(&["--engine", "cpu", "--engine", "cpu"]), USAGE, &["cpu is given twice"]);
    refuses(&mut bench(&["--size", "0"]), USAGE, &["1 byte"]);
    refuses(&mut bench(&["--size", "64,64"]), USAGE, &["--size has 64 twice"]);
    refuses(&mut bench(&["--size", ""]), USAGE, &["--size"]);
    refuses(&mut bench(&["--batch", "0"]), USAGE, &["1 to 1023"]);
    refuses(&mut bench(&["--batch", "4,4"]), USAGE, &["--batch has 4 twice"]);
    refuses(&mut bench(&["--batch", "129"]), USAGE, &["a batch of 129", "--depth 128"]);
    refuses(&mut bench(&["--depth", "1024"]), USAGE, &["1 to 1023"]);
    refuses(&mut bench(&["--depth", "300"]), USAGE, &["300 copies", "--pairs"]);
    refuses(&mut bench(&["--rounds", "0"]), USAGE, &["1 to 1000"]);
    refuses(&mut bench(&["--pass", "0"]), USAGE, &["--pass"]);
    refuses(&mut bench(&["--interface", "call"]), USAGE, &["`call`", "queue or channel"]);
    refuses(&mut bench(&["--interface", "queue,queue"]), USAGE, &["--interface has queue twice"]);
    refuses(&mut bench(&["--cpus", "0"]), USAGE, &["such as 0,1"]);
    refuses(&mut bench(&["--out", "/proc/nowhere"]), USAGE, &["/proc/nowhere", "--out"]);
}

#[test]
fn what_the_machine_lacks_is_named() {
    let out = folder("bench-lacks");
    let out = out.to_str().unwrap();
    let hardware = ["--engine", "ioat:0000:00:04.0"];
    refuses(&mut bench(out, &hardware), MACHINE, &["0000:00:04.0", "--engine ioat-model"]);
    refuses(&mut bench(out, &["--cpus", "0,1000"]), MACHINE, &["pinned", "--cpus"]);
}

#[test]
fn the_engine_that_copies_nothing_is_in_no_other_command() {
    for arguments in [&["dmatest"][..], &["recv", "--listen", "10.77.0.2:9000"]] {
        let mut command = ioat(arguments);
        refuses(command.args(["--engine", "null"]), USAGE, &["unknown engine `null`"]);
    }
}

#[test]
fn help_has_an_example() {
    for command in [&["bench"][..], &["bench", "dma"]] {
        let output = ioat(command).arg("--help").output().unwrap();
        let help = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), DONE);
        assert!(help.contains("Example: ioat bench dma"), "{help}");
    }
}
