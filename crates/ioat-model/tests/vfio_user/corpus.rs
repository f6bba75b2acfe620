//! The fuzz target's corpus, replayed.

use std::{fs, path::Path};

#[path = "../../fuzz/vfio_user/mod.rs"]
mod conversation;

#[test]
fn every_conversation_of_the_corpus_leaves_a_server() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/vfio_user");
    let mut count = 0;
    for entry in fs::read_dir(&folder).expect("the corpus is in the repository") {
        let path = entry.expect("a file").path();
        let bytes = fs::read(&path).expect("readable");
        // The name stands in the output of a test that fails.
        println!("{}", path.display());
        conversation::run(&bytes);
        count += 1;
    }
    assert!(count >= 50, "only {count} inputs");
}
