//! `ioat devices` and `ioat dmatest`.

use crate::{DONE, MACHINE, has_fields, ioat, json, refuses};

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
            ],
        );
        assert_eq!((&row["engine"], &row["kind"]), (&engine.into(), &kind.into()));
        assert!(row["name"].as_str().unwrap().starts_with("dma"), "{row}");
        assert!(row["caps"].as_array().unwrap().contains(&"copy".into()), "{row}");
        assert_eq!((&row["in_use"], &row["memcpy_count"]), (&false.into(), &0.into()));
    }
    assert_eq!(rows[2]["version"], "3.2");
    let table = ioat(&["devices"]).output().unwrap();
    assert_eq!(table.status.code(), DONE);
    let table = String::from_utf8(table.stdout).unwrap();
    for (engine, _) in ENGINES {
        assert!(table.contains(engine), "{table}");
    }
}

#[test]
fn every_engine_passes_dmatest() {
    for (engine, _) in ENGINES {
        for op in ["memcpy", "memset"] {
            let document = json(&mut ioat(&[
                "dmatest",
                "--engine",
                engine,
                "--iterations",
                "2000",
                "--op",
                op,
                "--json",
            ]));
            has_fields(&document, &["summary"]);
            let summary = document["summary"].as_array().unwrap();
            assert_eq!(summary.len(), 1, "{document}");
            has_fields(&summary[0], &["channel", "tests", "failures", "iops", "kbps"]);
            assert_eq!((&summary[0]["tests"], &summary[0]["failures"]), (&2000.into(), &0.into()));
            assert!(summary[0]["iops"].as_u64() > Some(0), "{document}");
        }
    }
}

#[test]
fn operations_that_no_engine_has_are_refused() {
    for op in ["xor", "pq"] {
        let mut command = ioat(&["dmatest", "--engine", "ioat-model", "--op", op]);
        refuses(&mut command, MACHINE, &["memcpy"]);
    }
}
