//! Watch events, as a client reads them.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| km_fuzz::watch(data));
