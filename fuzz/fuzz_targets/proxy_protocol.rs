//! Headers of the PROXY protocol: however they are cut, and nothing behind them is taken.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sallyport_wire::proxy_protocol::{HEADER_BYTES_MAX, parse};

fuzz_target!(|bytes: &[u8]| {
    let Ok(Some((header, length))) = parse(bytes) else {
        return;
    };
    assert!(length <= bytes.len() && length <= HEADER_BYTES_MAX);
    assert_eq!(parse(&bytes[..length]), Ok(Some((header, length))));
    for cut in 0..length {
        assert_eq!(parse(&bytes[..cut]), Ok(None));
    }
});
