//! Requests that are malformed: section 8 of RFC 9113.

use sallyport_testkit::frames::{fields, flag, kind};

use super::{Case, END, OPEN, PROTOCOL, REQUEST, Then, case, get, post, request};

/// The request with one of its pseudo-fields changed, or left out.
fn with(at: usize, value: Option<&str>) -> Vec<u8> {
    let mut all = REQUEST.to_vec();
    match value {
        Some(value) => all[at].1 = value,
        None => _ = all.remove(at),
    }
    fields(&all)
}

/// A refused request: a stream error, as every one of these must be.
macro_rules! refused {
    ($id:literal, $does:literal, $block:expr) => {
        case($id, $does, Then::Stream(&[PROTOCOL]), |c| {
            c.send(kind::HEADERS, END, 1, $block);
            Ok(())
        })
    };
}

pub(super) fn cases() -> Vec<Case> {
    vec![
        case(
            "http2/8.1/1",
            "HEADERS again that do not end it",
            Then::Stream(&[PROTOCOL]),
            |c| {
                c.send(kind::HEADERS, OPEN, 1, post(&[]));
                c.send(kind::DATA, 0, 1, *b"test");
                c.send(kind::HEADERS, OPEN, 1, fields(&[("x-test", "ok")]));
                Ok(())
            },
        ),
        refused!(
            "http2/8.1.2/1",
            "a name in capitals",
            get(&[("X-TEST", "ok")])
        ),
        refused!(
            "http2/8.1.2.1/1",
            "an unknown pseudo-field",
            get(&[(":test", "ok")])
        ),
        refused!(
            "http2/8.1.2.1/2",
            "a pseudo-field of responses",
            get(&[(":status", "200")])
        ),
        case(
            "http2/8.1.2.1/3",
            "a pseudo-field among trailers",
            Then::Stream(&[PROTOCOL]),
            |c| {
                c.send(kind::HEADERS, OPEN, 1, post(&[]));
                c.send(kind::DATA, 0, 1, *b"test");
                c.send(kind::HEADERS, END, 1, fields(&[(":method", "200")]));
                Ok(())
            },
        ),
        refused!(
            "http2/8.1.2.1/4",
            "a pseudo-field behind another field",
            [fields(&[("x-test", "ok")]), request()].concat()
        ),
        refused!(
            "http2/8.1.2.2/1",
            "Connection",
            get(&[("connection", "keep-alive")])
        ),
        refused!(
            "http2/8.1.2.2/2",
            "TE other than trailers",
            get(&[("trailers", "test"), ("te", "trailers, deflate")])
        ),
        refused!("http2/8.1.2.3/1", "an empty path", with(2, Some(""))),
        refused!("http2/8.1.2.3/2", "no method", with(0, None)),
        refused!("http2/8.1.2.3/3", "no scheme", with(1, None)),
        refused!("http2/8.1.2.3/4", "no path", with(2, None)),
        refused!("http2/8.1.2.3/5", "two methods", get(&[(":method", "GET")])),
        refused!(
            "http2/8.1.2.3/6",
            "two schemes",
            get(&[(":scheme", "http")])
        ),
        refused!("http2/8.1.2.3/7", "two paths", get(&[(":path", "/")])),
        case(
            "http2/8.1.2.6/1",
            "a length that is not that of DATA",
            Then::Stream(&[PROTOCOL]),
            |c| {
                c.send(kind::HEADERS, OPEN, 1, post(&[("content-length", "1")]));
                c.send(kind::DATA, flag::END_STREAM, 1, *b"test");
                Ok(())
            },
        ),
        case(
            "http2/8.1.2.6/2",
            "a length that is not that of all DATA",
            Then::Stream(&[PROTOCOL]),
            |c| {
                c.send(kind::HEADERS, OPEN, 1, post(&[("content-length", "1")]));
                c.send(kind::DATA, 0, 1, *b"test");
                c.send(kind::DATA, flag::END_STREAM, 1, *b"test");
                Ok(())
            },
        ),
        case(
            "http2/8.2/1",
            "a PUSH_PROMISE of a client",
            Then::Connection(&[PROTOCOL]),
            |c| {
                let payload = [&3u32.to_be_bytes()[..], &request()].concat();
                c.send(kind::PUSH_PROMISE, flag::END_HEADERS, 1, payload);
                Ok(())
            },
        ),
    ]
}
