//! The remote command line; what was read is written and read the same, however it was cut.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sallyport_wire::appliance_cli::{Kind, REQUEST_BYTES_MAX, Request, split, write};

fuzz_target!(|bytes: &[u8]| {
    let mut rest = bytes;
    while let Ok(Some(frame)) = split(rest, REQUEST_BYTES_MAX) {
        assert_eq!(split(&rest[..frame.bytes - 1], REQUEST_BYTES_MAX), Ok(None));
        let mut out = Vec::new();
        write(frame.kind, frame.payload, &mut out);
        assert_eq!(out, rest[..frame.bytes]);
        request(frame.payload);
        rest = &rest[frame.bytes..];
    }
    request(bytes);
});

fn request(payload: &[u8]) {
    let Ok(request) = Request::decode(payload) else {
        return;
    };
    let text = serde_json::to_vec(&request).expect("what was read can be written");
    let mut out = Vec::new();
    write(Kind::Request, &text, &mut out);
    assert_eq!(Request::decode(&text), Ok(request));
}
