//! `ioat explain`. What the policy decides depends on the machine, and is not judged.

use serde_json::Value;

use crate::{DONE, has_fields, ioat, json};

const QUICK: [&str; 5] = ["explain", "--bytes", "16M", "--read-size", "1K,64K"];

#[test]
fn json_has_what_is_known_of_each_kind_of_receive() {
    let document = json(ioat(&QUICK).args(["--engine", "threads", "--frame", "1448", "--json"]));
    let fields = ["engine", "kind", "cpus", "frame", "classes", "break_even", "last_decisions"];
    has_fields(&document, &fields);
    let told = (&document["engine"], &document["kind"], &document["frame"]);
    assert_eq!(told, (&"threads".into(), &"software".into(), &"1448".into()));

    let classes = document["classes"].as_array().unwrap();
    for mode in ["blocking", "nonblocking", "posted"] {
        let of_mode = classes.iter().filter(|class| class["mode"] == mode).collect::<Vec<_>>();
        let receives: u64 = of_mode.iter().map(|class| class["receives"].as_u64().unwrap()).sum();
        assert!(receives >= 256, "{mode}: a receive for each 64 KiB");
        // Reads of 1 KiB are the CPU's without a question.
        assert!(of_mode.iter().all(|class| class["min_len"] == 65_536), "{of_mode:?}");
        let is_known = |of: &str| of_mode.iter().any(|class| class[of].as_f64() > Some(0.0));
        assert!(is_known("cpu_ns_per_kib") && is_known("engine_ns_per_kib"), "{of_mode:?}");
        // Posted buffers come again too late to tell.
        let is_looked_at = of_mode.iter().any(|class| class["reading_ns_per_kib"].is_f64());
        assert!(is_looked_at || mode == "posted", "{of_mode:?}");
    }
    let fields = [
        "min_len",
        "mode",
        "warm",
        "cpu_ns_per_kib",
        "engine_ns_per_kib",
        "reading_ns_per_kib",
        "by_engine",
        "reason",
        "receives",
    ];
    has_fields(&classes[0], &fields);

    let break_even = document["break_even"].as_array().unwrap();
    assert_eq!(break_even.len(), 3);
    for of_mode in break_even {
        has_fields(of_mode, &["mode", "bytes"]);
        assert!([Value::Null, 65_536.into()].contains(&of_mode["bytes"]), "{of_mode}");
    }
    let decisions = document["last_decisions"].as_array().unwrap();
    assert!(!decisions.is_empty());
    has_fields(&decisions[0], &["min_len", "mode", "warm", "by_engine", "reason"]);
    assert!(decisions.iter().all(|decision| decision["mode"] == "posted"), "it was the last");
}

#[test]
fn the_table_says_why() {
    let output =
        ioat(&QUICK).args(["--engine", "ioat-model", "--mode", "posted"]).output().unwrap();
    let table = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), DONE, "{table}");
    for words in [
        "`auto` has learned of ioat-model:3.2 (model)",
        "because",
        "From which length on the engine pays",
        "The last decisions",
        "says nothing about a real engine's speed",
    ] {
        assert!(table.contains(words), "{words}: {table}");
    }
}
