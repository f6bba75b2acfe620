//! `ioat demo`, as root and as anybody.

use std::process::Command;

use crate::{AS_NOBODY, DONE, has_fields, ioat, ioat_after, json, tun_with_mode};

const DEMO: [&str; 6] = ["demo", "--bytes", "8M", "--rounds", "1", "--json"];

#[track_caller]
fn shows(command: &mut Command) {
    let document = json(command);
    has_fields(&document, &["bytes", "cpus", "rounds", "read_size", "rows"]);
    let bytes = document["bytes"].as_u64().unwrap();
    assert_eq!(bytes, 8 << 20);
    let rows = document["rows"].as_array().unwrap();
    let expected =
        [("linux-veth", "cpu"), ("cpu", "cpu"), ("threads", "software"), ("ioat-model", "model")];
    assert_eq!(rows.len(), expected.len());
    for (row, (name, kind)) in rows.iter().zip(expected) {
        has_fields(
            row,
            &[
                "name",
                "kind",
                "gbps",
                "receiver_cpu_s_per_gb",
                "engine_cpu_s_per_gb",
                "sender_cpu_s_per_gb",
                "bytes_by_engine",
                "bytes_by_cpu",
                "bytes_by_cpu_by_cause",
                "verified",
            ],
        );
        assert_eq!((&row["name"], &row["kind"]), (&name.into(), &kind.into()));
        assert_eq!(row["verified"], true, "{row}");
        assert!(row["gbps"].as_f64() > Some(0.0), "{row}");
        assert!(row["receiver_cpu_s_per_gb"].as_f64() > Some(0.0), "{row}");
        let by = |who: &str| row[who].as_u64().unwrap();
        assert_eq!(by("bytes_by_engine") + by("bytes_by_cpu"), bytes, "{row}");
        let causes = row["bytes_by_cpu_by_cause"].as_object().unwrap().values();
        assert_eq!(causes.map(|bytes| bytes.as_u64().unwrap()).sum::<u64>(), by("bytes_by_cpu"));
        assert_eq!(row["bytes_by_cpu_by_cause"]["not reachable"], 0, "{row}");
        let offloads = kind != "cpu";
        assert_eq!(by("bytes_by_engine") > 0, offloads, "{row}");
        assert_eq!(row["engine_cpu_s_per_gb"].as_f64() > Some(0.0), offloads, "{row}");
    }
}

#[test]
fn root_is_shown_four_rows() {
    shows(&mut ioat(&DEMO));
}

#[test]
fn anybody_is_shown_four_rows() {
    let script = tun_with_mode("666") + AS_NOBODY;
    shows(&mut ioat_after(&script, &DEMO));
}

#[test]
fn the_table_names_kinds_and_ratios() {
    let output = ioat(&DEMO[..5]).output().unwrap();
    let table = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), DONE);
    for words in ["linux-veth", "ioat-model", "software", "times Linux's", "no hardware"] {
        assert!(table.contains(words), "{words}: {table}");
    }
}
