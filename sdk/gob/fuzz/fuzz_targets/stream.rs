#![no_main]

#[allow(dead_code, reason = "each target uses a part of it")]
#[path = "../src/body.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    body::stream(bytes);
});
