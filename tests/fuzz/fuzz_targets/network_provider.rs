//! See the table in `entries`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_entries::run("network_provider", data));
