//! Trace headers of clients: whatever they are, what goes upstream is well formed and read the
//! same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sallyport_plugins::fuzzing::trace_headers;

fuzz_target!(|input: &[u8]| {
    let sent = trace_headers(input);
    let w3c = sent
        .iter()
        .find_map(|line| line.strip_prefix("traceparent: "))
        .expect("one always goes out");
    assert_eq!(w3c.len(), 55, "{w3c}");
    assert!(
        w3c.bytes()
            .all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
    );
    // an upstream that is such a gateway passes on the same trace
    let again = trace_headers(format!("traceparent: {w3c}").as_bytes());
    let second = again
        .iter()
        .find_map(|line| line.strip_prefix("traceparent: "))
        .expect("one always goes out");
    if !w3c.starts_with("00-00000000000000000000000000000000") {
        assert_eq!(w3c, second);
    }
});
