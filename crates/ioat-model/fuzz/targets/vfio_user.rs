//! Any client of the vfio-user server.

#![no_main]

#[path = "../vfio_user/mod.rs"]
mod conversation;

libfuzzer_sys::fuzz_target!(|input: &[u8]| conversation::run(input));
