//! What the types refuse: each file in `refused/` is a program that would touch memory under DMA, or
//! free it, and the compiler's words about it. If one of them compiled, the test would fail.
//!
//! The words are those of the toolchain in `Cargo.toml` (`rust-version`). `TRYBUILD=overwrite` writes
//! them anew.

#[test]
fn programs_that_touch_memory_under_dma_do_not_compile() {
    trybuild::TestCases::new().compile_fail("tests/refused/*.rs");
}
