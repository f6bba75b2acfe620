//! `ioat soak`, for some seconds of the hour that it is meant for.

use crate::{has_fields, ioat, json};

#[test]
fn nothing_is_lost_whatever_the_engines_do() {
    let report = json(&mut ioat(&["soak", "--seconds", "12", "--json"]));
    has_fields(&report, &["seconds", "wrong_bytes", "engines", "children", "memory", "failure"]);
    assert_eq!((&report["wrong_bytes"], &report["failure"]), (&0.into(), &().into()));
    assert!(report["children"].as_u64() > Some(0), "{report}");
    has_fields(&report["memory"], &["anonymous_bytes", "growth_bytes", "limit_bytes"]);
    let engines = report["engines"].as_array().unwrap();
    let kinds: Vec<_> = engines.iter().map(|engine| engine["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["software", "model"]);
    for engine in engines {
        let fields = ["engine", "kind", "shards", "connections", "faults", "offload"];
        has_fields(engine, &fields);
        assert_eq!((&engine["shards"], &engine["connections"]), (&2.into(), &16.into()));
        let faults = engine["faults"].as_object().unwrap().values();
        assert!(faults.map(|count| count.as_u64().unwrap()).sum::<u64>() > 10, "{engine}");
        let sum = |figure: &str| -> u64 {
            let shards = engine["offload"].as_array().unwrap().iter();
            shards.map(|shard| shard[figure].as_u64().unwrap()).sum()
        };
        for figure in
            ["bytes_by_engine", "bytes_by_cpu", "copies_repeated", "early_copies", "engine_resets"]
        {
            assert!(sum(figure) > 0, "{figure}: {engine}");
        }
    }
}

#[test]
fn engines_without_faults_fail_nothing() {
    let report =
        json(&mut ioat(&["soak", "--seconds", "2", "--fault-ms", "0", "--fork-ms", "0", "--json"]));
    assert_eq!((&report["wrong_bytes"], &report["children"]), (&0.into(), &0.into()));
    for engine in report["engines"].as_array().unwrap() {
        assert!(engine["faults"].as_object().unwrap().is_empty());
        for shard in engine["offload"].as_array().unwrap() {
            let time_outs = shard["engine_resets"].as_u64().unwrap();
            let failed = &shard["bytes_by_cpu_by_cause"]["engine failed"];
            // On a busy machine an engine may be late for 200 ms.
            assert!(time_outs > 0 || *failed == 0, "{engine}");
        }
    }
}
