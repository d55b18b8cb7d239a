//! Mesos' framing.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| km_fuzz::recordio(data));
