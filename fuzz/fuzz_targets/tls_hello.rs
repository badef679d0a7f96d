//! The server name in the first message of TLS: a whole message is whole however it is cut.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sallyport_gateway::fuzzing::{Hello, tls_hello};

fuzz_target!(|bytes: &[u8]| {
    let read = tls_hello(bytes);
    let more = [bytes, &b"more"[..]].concat();
    match read {
        // what is said once is not unsaid
        Hello::Whole(name) => assert_eq!(tls_hello(&more), Hello::Whole(name)),
        Hello::Foreign => assert_eq!(tls_hello(&more), Hello::Foreign),
        Hello::Incomplete => {}
    }
});
