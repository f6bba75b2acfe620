//! The fuzz target's corpus, replayed.

#[path = "../fuzz/harness/mod.rs"]
mod harness;

use std::{fs, path::Path};

#[test]
fn every_input_of_the_corpus_holds() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/model");
    let mut count = 0;
    for entry in fs::read_dir(&folder).expect("the corpus is in the repository") {
        let path = entry.expect("a file").path();
        let bytes = fs::read(&path).expect("readable");
        // The name stands in the output of a test that fails.
        println!("{}", path.display());
        harness::run(&bytes);
        count += 1;
    }
    assert!(count >= 50, "only {count} inputs");
}
