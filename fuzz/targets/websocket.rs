//! The frames of a WebSocket's client.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| km_fuzz::websocket(data));
