//! Quantities, durations and CIDRs.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| km_fuzz::quantities(data));
