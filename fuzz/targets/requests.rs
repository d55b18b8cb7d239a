//! Whole requests: paths, parameters, continue tokens, headers, bodies.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| km_fuzz::requests::serve(data));
