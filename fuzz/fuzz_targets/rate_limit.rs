//! The limitd protocol; what was read is written and read the same, however it was cut.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sallyport_wire::rate_limit::frame::{REQUEST_BYTES_MAX, RESPONSE_BYTES_MAX};
use sallyport_wire::rate_limit::{Frame, Request, Response, Windows, split};

fuzz_target!(|bytes: &[u8]| {
    let mut rest = bytes;
    while let Ok(Some(Frame { body, bytes })) = split(rest, REQUEST_BYTES_MAX) {
        assert_eq!(split(&rest[..bytes - 1], REQUEST_BYTES_MAX), Ok(None));
        message(body);
        rest = &rest[bytes..];
    }
    message(bytes);
});

fn message(body: &[u8]) {
    let mut out = Vec::new();
    if let Ok(request) = Request::decode(body) {
        request.encode(&mut out);
        let frame = split(&out, usize::MAX).expect("what we write").expect("whole");
        assert_eq!(Request::decode(frame.body), Ok(request));
        if let Ok(windows) = Windows::decode(request.windows) {
            let mut out = Vec::new();
            windows.encode(&mut out);
            assert_eq!(Windows::decode(&out), Ok(windows));
        }
    }
    out.clear();
    if let Ok(response) = Response::decode(body) {
        response.encode(&mut out);
        let frame = split(&out, RESPONSE_BYTES_MAX).expect("what we write").expect("whole");
        assert_eq!(Response::decode(frame.body), Ok(response));
    }
}
