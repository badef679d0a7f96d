//! A chunked body is the same however it is cut. The first byte says where.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sallyport_gateway::fuzzing::{End, chunked, trailers};

fuzz_target!(|bytes: &[u8]| {
    let Some((&cut, bytes)) = bytes.split_first() else {
        return;
    };
    let whole = chunked([bytes]);
    let single = chunked(bytes.chunks(1));
    let parts = chunked(bytes.chunks(usize::from(cut).max(1)));
    let (head, tail) = bytes.split_at(usize::from(cut).min(bytes.len()));
    for other in [single, parts, chunked([head, tail])] {
        assert_eq!((&other.0, other.1), (&whole.0, whole.1));
        if whole.1 == End::Over {
            assert_eq!(other.2, whole.2, "what follows");
        }
    }
    if whole.1 != End::Over {
        return;
    }
    assert!(bytes.ends_with(&whole.2));
    // the body alone, without what follows, is whole; with a byte less it is not
    let body = &bytes[..bytes.len() - whole.2.len()];
    assert_eq!(chunked([body]), (whole.0.clone(), End::Over, Vec::new()));
    assert_eq!(chunked([&body[..body.len() - 1]]).1, End::More);
    // trailers that go on are read as the same ones
    let written = trailers(body).expect("a whole body has an end");
    assert_eq!(trailers(&written), Some(written.clone()));
});
