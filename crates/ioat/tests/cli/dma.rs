//! `ioat devices` and `ioat dmatest`.

use crate::{DONE, FAILED, MACHINE, Running, USAGE, has_fields, ioat, json, refuses};

/// The engines that every machine has, and their kinds.
const ENGINES: [(&str, &str); 3] =
    [("cpu", "cpu"), ("threads", "software"), ("ioat-model", "model")];

#[test]
fn devices_are_listed() {
    let rows = json(&mut ioat(&["devices", "--json"]));
    let rows = rows.as_array().unwrap();
    assert_eq!(rows.len(), ENGINES.len());
    for (row, (engine, kind)) in rows.iter().zip(ENGINES) {
        has_fields(
            row,
            &[
                "name",
                "engine",
                "kind",
                "version",
                "caps",
                "in_use",
                "memcpy_count",
                "bytes_transferred",
                "usable",
                "reasons",
                "function",
            ],
        );
        assert_eq!((&row["engine"], &row["kind"]), (&engine.into(), &kind.into()));
        assert!(row["name"].as_str().unwrap().starts_with("dma"), "{row}");
        assert!(row["caps"].as_array().unwrap().contains(&"copy".into()), "{row}");
        assert_eq!((&row["in_use"], &row["memcpy_count"]), (&false.into(), &0.into()));
        assert_eq!((&row["usable"], &row["function"]), (&true.into(), &().into()));
    }
    assert_eq!(rows[2]["version"], "3.2");
    let table = ioat(&["devices"]).output().unwrap();
    assert_eq!(table.status.code(), DONE);
    let table = String::from_utf8(table.stdout).unwrap();
    for (engine, _) in ENGINES {
        assert!(table.contains(engine), "{table}");
    }
}

/// Runs `ioat dmatest --json` with these options; its rows.
#[track_caller]
fn dmatest(options: &[&str]) -> Vec<serde_json::Value> {
    let document = json(ioat(&["dmatest", "--json"]).args(options));
    has_fields(&document, &["summary"]);
    let summary = document["summary"].as_array().unwrap();
    for row in summary {
        has_fields(row, &["channel", "tests", "failures", "iops", "kbps"]);
        assert_eq!(row["failures"], 0, "{row}");
        assert!(row["iops"].as_u64() > Some(0), "{row}");
    }
    summary.clone()
}

/// What an engine says that it can do.
fn capabilities(engine: &str) -> Vec<String> {
    let rows = json(&mut ioat(&["devices", "--json"]));
    let row = rows.as_array().unwrap().iter().find(|row| row["engine"] == engine).unwrap();
    row["caps"].as_array().unwrap().iter().map(|cap| cap.as_str().unwrap().to_owned()).collect()
}

#[test]
fn every_engine_passes_dmatest() {
    for (engine, _) in ENGINES {
        let capabilities = capabilities(engine);
        for (op, capability) in
            [("memcpy", "copy"), ("memset", "fill"), ("xor", "xor"), ("pq", "pq")]
        {
            let options = ["--engine", engine, "--iterations", "2000", "--op", op];
            if capabilities.contains(&capability.to_owned()) {
                let rows = dmatest(&options);
                assert_eq!((rows.len(), &rows[0]["tests"]), (1, &2000.into()));
            } else {
                // What it can do, and who can do more.
                let words = [&format!("cannot do {op}"), "--op memcpy", "--engine threads"];
                refuses(ioat(&["dmatest"]).args(options), MACHINE, &words);
            }
        }
    }
    for engine in ["cpu", "threads"] {
        let capabilities = capabilities(engine);
        assert!(["xor", "pq"].iter().all(|cap| capabilities.contains(&(*cap).to_owned())));
    }
}

#[test]
fn every_version_of_the_model_passes_dmatest() {
    for version in ["1.2", "2.0", "3.0", "3.2", "3.3", "3.4"] {
        let engine = format!("ioat-model:{version}");
        let rows = dmatest(&["--engine", &engine, "--iterations", "500"]);
        assert_eq!(rows[0]["tests"], 500, "{version}");
    }
    for op in ["xor", "pq"] {
        let rows = dmatest(&["--engine", "ioat-model:3.3", "--iterations", "500", "--op", op]);
        assert_eq!(rows[0]["tests"], 500, "{op}");
    }
    let words = ["no version `3.1`", "3.3"];
    refuses(&mut ioat(&["dmatest", "--engine", "ioat-model:3.1"]), USAGE, &words);
}

#[test]
fn dmatest_takes_linuxs_parameters() {
    let common = ["--engine", "threads", "--iterations", "50", "--threads-per-chan", "3"];
    for options in [
        &["--polled", "--timeout", "10000"][..],
        &["--norandom"],
        &["--transfer-size", "4K", "--alignment", "6"],
        &["--test-buf-size", "1M", "--noverify", "--seed", "7"],
        &["--op", "xor", "--xor-sources", "16"],
        &["--op", "pq", "--pq-sources", "1"],
    ] {
        let rows = dmatest(&[&common[..], options].concat());
        assert_eq!(rows[0]["tests"], 150, "{options:?}");
    }
}

#[test]
fn dmatest_takes_the_channels_asked_for() {
    let tested = |options: &[&str]| {
        let engines = ["--engine", "cpu", "--engine", "threads:3", "--iterations", "10"];
        let rows = dmatest(&[&engines[..], options].concat());
        rows.iter().map(|row| row["channel"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(tested(&[]), ["dma0chan0", "dma1chan0", "dma1chan1", "dma1chan2"]);
    assert_eq!(tested(&["--max-channels", "2"]), ["dma0chan0", "dma1chan0"]);
    assert_eq!(tested(&["--device", "dma1"]), ["dma1chan0", "dma1chan1", "dma1chan2"]);
    assert_eq!(tested(&["--device", "cpu"]), ["dma0chan0"]);
    assert_eq!(tested(&["--device", "threads", "--max-channels", "1"]), ["dma1chan0"]);
    let two = ["--channel", "dma1chan2", "--channel", "dma0chan0"];
    assert_eq!(tested(&two), ["dma0chan0", "dma1chan2"]);
}

#[test]
fn dmatest_names_what_makes_no_sense() {
    let refused = |options: &[&str], words: &[&str]| {
        refuses(ioat(&["dmatest", "--engine", "threads"]).args(options), USAGE, words);
    };
    refused(&["--channel", "dma0chan1"], &["no channel dma0chan1", "dma0chan0"]);
    refused(&["--device", "dma1"], &["dma0chan0", "--device"]);
    refused(&["--device", "dma0", "--channel", "chan"], &["no channel chan"]);
    refused(&["--transfer-size", "64K"], &["65536", "16384"]);
    refused(&["--alignment", "13"], &["--alignment"]);
    refused(&["--alignment", "12", "--test-buf-size", "1K"], &["2^12", "buffer size"]);
    refused(&["--op", "xor", "--xor-sources", "17"], &["17 sources", "1 to 16"]);
    refused(&["--op", "pq", "--pq-sources", "0"], &["--pq-sources"]);
    refused(&["--timeout", "0"], &["--timeout"]);
    refused(&["--threads-per-chan", "0"], &["--threads-per-chan"]);
}

#[test]
fn dmatest_speaks_as_linux_does() {
    let options = ["--engine", "cpu", "--iterations", "3", "--norandom", "--verbose"];
    let output = ioat(&["dmatest"]).args(options).output().unwrap();
    assert_eq!(output.status.code(), DONE);
    let said = String::from_utf8(output.stderr).unwrap();
    let lines: Vec<&str> = said.lines().collect();
    let passed = |test| {
        let result =
            format!("result #{test}: 'test passed' with src_off=0x0 dst_off=0x0 len=0x4000");
        format!("dmatest: dma0chan0-copy0: {result}")
    };
    assert_eq!(lines[0], "dmatest: Added 1 threads using dma0chan0");
    assert_eq!(lines[1..], [passed(1), passed(2), passed(3)]);
    let summary = String::from_utf8(output.stdout).unwrap();
    assert!(
        summary.starts_with("dmatest: dma0chan0-copy0: summary 3 tests, 0 failures "),
        "{summary}"
    );
}

#[test]
fn dmatest_shows_and_counts_faults() {
    let options = ["--engine", "threads", "--norandom", "--iterations", "20", "--timeout", "100"];
    let plan = "fail@2:write-error,lose@5,halt@9:read-error,full@14";
    let output = ioat(&["dmatest", "--json", "--faults", plan]).args(options).output().unwrap();
    assert_eq!(output.status.code(), FAILED);
    let said = String::from_utf8(output.stderr).unwrap();
    let lines: Vec<&str> = said.lines().collect();
    let failed = |test, cause: &str, detail: &str| {
        let place = "src_off=0x0 dst_off=0x0 len=0x4000";
        format!("dmatest: dma0chan0-copy0: result #{test}: '{cause}' with {place}{detail}")
    };
    assert_eq!(lines[0], failed(2, "completion error status", " (write error at the target)"));
    assert_eq!(lines[1], failed(5, "test timed out", ""));
    assert_eq!(lines[2], failed(9, "completion error status", " (read error at the source)"));
    // Brought back for the next test. What is refused is no operation of the plan's.
    assert!(lines[3].starts_with(&failed(10, "submit error", " (the channel is down")), "{said}");
    assert!(lines[4].starts_with(&failed(15, "submit error", " (the ring is full")), "{said}");
    assert_eq!(lines[5..], ["ioat: tests failed (dma0chan0: 5): see above"]);
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let row = &document["summary"][0];
    assert_eq!((&row["tests"], &row["failures"]), (&20.into(), &5.into()));

    // Each channel has its faults, and one that does not stop is given up.
    let plan = ["--faults", "lose@1,stuck=1", "--engine", "cpu"];
    let words = ["(dma0chan0: 1, and the channel does not stop; dma1chan0: 1, and the channel"];
    refuses(ioat(&["dmatest"]).args(options).args(plan), FAILED, &words);
    refuses(ioat(&["dmatest", "--faults", "fail@2"]).args(options), USAGE, &["--faults", "fail@2"]);
}

#[test]
fn a_dmatest_without_end_ends_at_ctrl_c_with_its_summary() {
    let options = ["--engine", "cpu", "--iterations", "0", "--verbose", "--json"];
    let mut running = Running::start(ioat(&["dmatest"]).args(options));
    running.wait_for("dmatest: dma0chan0-copy0: result #1: ");
    running.interrupt();
    let output = running.finish();
    assert_eq!(output.status.code(), DONE);
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(document["summary"][0]["tests"].as_u64() > Some(0), "{document}");
}
