//! Request bodies in JSON.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| km_fuzz::body("application/json", data));
