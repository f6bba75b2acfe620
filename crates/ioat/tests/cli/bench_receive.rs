//! `ioat bench receive`. The figures are not judged: other programs run beside the tests.

use std::{fs, process::Command};

use serde_json::Value;

use crate::{DONE, MACHINE, USAGE, bench::is_spread, folder, has_fields, ioat, json, refuses};

/// As little as there can be: one super-frame, two rounds of it.
const QUICK: [&str; 6] = ["--rounds", "1", "--bytes", "1M", "--read-size", "1K,64K"];

fn bench(out: &str, more: &[&str]) -> Command {
    let mut command = ioat(&["bench", "receive", "--out", out]);
    command.args(QUICK).args(more);
    command
}

#[test]
fn json_has_every_figure_and_the_picture_is_written() {
    let out = folder("bench-receive-json");
    let engines = ["--engine", "threads", "--engine", "null", "--json"];
    let more = ["--mode", "blocking,nonblocking,posted", "--touch", "no,yes"];
    let document = json(bench(out.to_str().unwrap(), &engines).args(more));
    has_fields(
        &document,
        &[
            "rounds",
            "bytes",
            "copybreak",
            "placements",
            "turns",
            "preempted_turns",
            "round_trip_ns",
            "generator_timeouts",
            "rows",
            "picture",
        ],
    );
    let placements = document["placements"].as_array().unwrap();
    assert_eq!(placements.len(), 2);
    has_fields(&placements[0], &["link", "frame", "cpus"]);
    has_fields(&placements[0]["cpus"], &["sender", "receiver", "engine"]);
    assert_eq!(placements[0]["cpus"], placements[1]["cpus"], "the same CPUs for all frames");

    let engines = [("cpu", "cpu", true), ("threads", "software", true), ("null", "none", false)];
    let mut rows = document["rows"].as_array().unwrap().iter();
    let mut timed = 0;
    for frame in ["64K", "1448"] {
        let modes = ["blocking", "nonblocking", "posted"];
        for (mode, touch) in modes.into_iter().flat_map(|mode| [(mode, false), (mode, true)]) {
            for read_size in [1024, 65_536] {
                for (engine, kind, verified) in engines {
                    let row = rows.next().unwrap();
                    timed += 1;
                    check_row(row);
                    let scene = (&row["link"], &row["frame"], &row["mode"], &row["touch"]);
                    let expected = ("wire".into(), frame.into(), mode.into(), touch.into());
                    assert_eq!(scene, (&expected.0, &expected.1, &expected.2, &expected.3));
                    let who = (&row["read_size"], &row["engine"], &row["kind"], &row["verified"]);
                    let expected =
                        (read_size.into(), engine.into(), kind.into(), Value::from(verified));
                    assert_eq!(who, (&expected.0, &expected.1, &expected.2, &expected.3));
                    // The copybreak is 4096 bytes.
                    let offloaded = engine != "cpu" && read_size > 4096;
                    let by_engine = row["by_engine"]["median"].as_f64().unwrap();
                    // Of what a call waits for the CPU takes what the engine would be late with, and
                    // beside other tests that may be all.
                    let is_shared = mode != "posted" && engine == "threads";
                    assert!(offloaded || by_engine == 0.0, "{row}");
                    assert!(!offloaded || is_shared || by_engine > 0.0, "{row}");
                }
            }
        }
    }
    assert!(rows.next().is_none());
    assert_eq!(document["turns"], timed);

    let picture = out.join("bench-receive.svg");
    assert_eq!(document["picture"], picture.to_str().unwrap());
    let svg = fs::read_to_string(picture).unwrap();
    for words in ["cpu (cpu)", "threads (software)", "null (none)", "wire, frames of 1448"] {
        assert!(svg.contains(words), "{words}");
    }
}

#[track_caller]
fn check_row(row: &Value) {
    let figures = [
        "receiver_cpu_s_per_gb",
        "engine_cpu_s_per_gb",
        "sender_cpu_s_per_gb",
        "gb_per_s",
        "by_engine",
        "receiver_over_cpu",
        "receiver_over_null",
        "throughput_over_cpu",
    ];
    let names = ["link", "frame", "mode", "touch", "read_size", "engine", "kind", "verified"];
    has_fields(row, &[&names[..], &figures].concat());
    for figure in figures {
        is_spread(&row[figure]);
        assert_eq!(row[figure]["samples"].as_array().unwrap().len(), 1, "{row}");
    }
    for figure in ["receiver_cpu_s_per_gb", "gb_per_s"] {
        assert!(row[figure]["median"].as_f64().unwrap() > 0.0, "{row}");
    }
    let over = |engine: &str| row[format!("receiver_over_{engine}")]["median"].as_f64().unwrap();
    for engine in ["cpu", "null"] {
        assert!(row["engine"] != engine || over(engine) == 1.0, "{row}");
    }
}

#[test]
fn linux_sends_over_tap() {
    let out = folder("bench-receive-tap");
    let more = ["--link", "tap", "--engine", "ioat-model", "--json"];
    let document = json(&mut bench(out.to_str().unwrap(), &more));
    let rows = document["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 4);
    for row in rows {
        assert_eq!((&row["link"], &row["frame"]), (&"tap".into(), &"64K".into()));
        assert_eq!(row["verified"], true);
        assert_eq!(row["receiver_over_null"], Value::Null, "null did not take part");
        assert!(row["sender_cpu_s_per_gb"]["median"].as_f64().unwrap() > 0.0, "{row}");
    }
    let modelled = rows.iter().filter(|row| row["engine"] == "ioat-model:3.2");
    assert!(modelled.clone().count() == 2 && modelled.clone().all(|row| row["kind"] == "model"));
}

#[test]
fn the_table_has_a_part_for_each_kind_of_frames() {
    let out = folder("bench-receive-table");
    let output = bench(out.to_str().unwrap(), &["--engine", "null"]).output().unwrap();
    let table = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), DONE, "{table}");
    for words in [
        "Over wire, frames of 64K; blocking reads",
        "Over wire, frames of 1448; blocking reads",
        "receiver's CPU s/GB",
        "engine's s/GB",
        "copies nothing",
        "So few rounds prove little",
        "bench-receive.svg",
    ] {
        assert!(table.contains(words), "{words} is missing in {table}");
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    let bench = |more: &[&str]| {
        let mut command = ioat(&["bench", "receive"]);
        command.args(more);
        command
    };
    refuses(&mut bench(&["--engine", "dpdk"]), USAGE, &["unknown engine `dpdk`"]);
    let twice = ["--engine", "null", "--engine", "null"];
    refuses(&mut bench(&twice), USAGE, &["null is given twice"]);
    refuses(&mut bench(&["--link", "eth0"]), USAGE, &["wire or tap"]);
    refuses(&mut bench(&["--link", "wire,wire"]), USAGE, &["--link has wire twice"]);
    refuses(&mut bench(&["--frame", "9000"]), USAGE, &["64K or 1448"]);
    refuses(&mut bench(&["--frame", "64K,64K"]), USAGE, &["--frame has 64K twice"]);
    refuses(&mut bench(&["--mode", "async"]), USAGE, &["nonblocking or posted"]);
    refuses(&mut bench(&["--mode", "blocking,blocking"]), USAGE, &["--mode has blocking twice"]);
    refuses(&mut bench(&["--touch", "yes,yes"]), USAGE, &["--touch"]);
    refuses(&mut bench(&["--read-size", "0"]), USAGE, &["1 byte"]);
    refuses(&mut bench(&["--read-size", "64,64"]), USAGE, &["--read-size has 64 twice"]);
    refuses(&mut bench(&["--bytes", "0"]), USAGE, &["1 byte to 1T"]);
    refuses(&mut bench(&["--rounds", "0"]), USAGE, &["1 to 1000"]);
    refuses(&mut bench(&["--copybreak", "little"]), USAGE, &["4096, or `off`"]);
    refuses(&mut bench(&["--out", "/proc/nowhere"]), USAGE, &["/proc/nowhere", "--out"]);
}

#[test]
fn what_the_machine_lacks_is_named() {
    let out = folder("bench-receive-lacks");
    let mut command = bench(out.to_str().unwrap(), &["--engine", "ioat:0000:00:04.0"]);
    refuses(&mut command, MACHINE, &["0000:00:04.0"]);
}

#[test]
fn help_has_an_example() {
    let output = ioat(&["bench", "receive", "--help"]).output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), DONE);
    assert!(help.contains("Example: ioat bench receive"), "{help}");
}
