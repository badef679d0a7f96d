//! Answers of Redis servers.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sallyport_wire::redis::decode;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(Some((_, taken))) = decode(bytes) {
        assert!(taken <= bytes.len());
    }
});
