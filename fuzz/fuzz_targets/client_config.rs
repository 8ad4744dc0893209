#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| cvmfs::fuzz::client_config(bytes));
