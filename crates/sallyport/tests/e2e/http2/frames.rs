//! What each type of frame may say: sections 6 and 7 of RFC 9113.

use sallyport_testkit::frames::{fields, flag, head, kind, settings};

use super::{
    CANCEL, CLOSED, Case, END, FLOW, OPEN, PROTOCOL, SIZE, Then, case, post, request, until,
};

const NO_DATA: [u8; 8] = [0; 8];
const HELLO: [u8; 8] = *b"hello!!!";

pub(super) fn dummies(count: usize) -> Vec<u8> {
    let value = "x".repeat(4096);
    let names: Vec<String> = (0..count).map(|n| format!("x-dummy{n}")).collect();
    let all: Vec<(&str, &str)> = names.iter().map(|name| (&**name, &*value)).collect();
    fields(&all)
}

pub(super) fn update(by: u32) -> [u8; 4] {
    by.to_be_bytes()
}

/// RFC 9113 section 6 and 7.
#[allow(clippy::too_many_lines, reason = "a table")]
pub(super) fn cases() -> Vec<Case> {
    vec![
        case(
            "http2/6.1/1",
            "DATA on stream 0",
            Then::Connection(&[PROTOCOL]),
            |c| {
                c.send(kind::DATA, flag::END_STREAM, 0, *b"test");
                Ok(())
            },
        ),
        case(
            "http2/6.1/2",
            "DATA on a half-closed stream",
            Then::Stream(&[CLOSED]),
            |c| {
                c.send(kind::HEADERS, END, 1, request());
                c.send(kind::DATA, flag::END_STREAM, 1, *b"test");
                Ok(())
            },
        ),
        case(
            "http2/6.1/3",
            "DATA with too much padding",
            Then::Connection(&[PROTOCOL]),
            |c| {
                c.send(kind::HEADERS, OPEN, 1, post(&[("content-length", "4")]));
                c.send(kind::DATA, flag::END_STREAM | flag::PADDED, 1, *b"\x06Test");
                Ok(())
            },
        ),
        case(
            "http2/6.2/1",
            "PRIORITY behind HEADERS that go on",
            Then::Connection(&[PROTOCOL]),
            |c| {
                c.send(kind::HEADERS, 0, 1, request());
                c.send(kind::PRIORITY, 0, 1, *b"\0\0\0\0\xff");
                c.send(kind::CONTINUATION, OPEN, 1, dummies(1));
                Ok(())
            },
        ),
        case(
            "http2/6.2/2",
            "other HEADERS behind HEADERS that go on",
            Then::Connection(&[PROTOCOL]),
            |c| {
                c.send(kind::HEADERS, 0, 1, request());
                c.send(kind::HEADERS, END, 3, request());
                c.send(kind::CONTINUATION, OPEN, 1, dummies(1));
                Ok(())
            },
        ),
        case(
            "http2/6.2/3",
            "HEADERS on stream 0",
            Then::Connection(&[PROTOCOL]),
            |c| {
                c.send(kind::HEADERS, END, 0, request());
                Ok(())
            },
        ),
        case(
            "http2/6.2/4",
            "HEADERS with too much padding",
            Then::Stream(&[PROTOCOL]),
            |c| {
                let block = request();
                let payload = [&[block.len() as u8 + 2][..], &block].concat();
                c.send(kind::HEADERS, END | flag::PADDED, 1, payload);
                Ok(())
            },
        ),
        case(
            "http2/6.3/1",
            "PRIORITY on stream 0",
            Then::Connection(&[PROTOCOL]),
            |c| {
                c.send(kind::PRIORITY, 0, 0, *b"\0\0\0\0\xff");
                Ok(())
            },
        ),
        case(
            "http2/6.3/2",
            "PRIORITY of 4 bytes",
            Then::Stream(&[SIZE]),
            |c| {
                c.send(kind::HEADERS, OPEN, 1, request());
                c.send(kind::PRIORITY, 0, 1, *b"\x80\0\0\x01");
                Ok(())
            },
        ),
        case(
            "http2/6.4/1",
            "RST_STREAM on stream 0",
            Then::Connection(&[PROTOCOL]),
            |c| {
                c.send(kind::RST_STREAM, 0, 0, update(CANCEL));
                Ok(())
            },
        ),
        case(
            "http2/6.4/2",
            "RST_STREAM on an idle stream",
            Then::Connection(&[PROTOCOL]),
            |c| {
                c.send(kind::RST_STREAM, 0, 1, update(CANCEL));
                Ok(())
            },
        ),
        case(
            "http2/6.4/3",
            "RST_STREAM of 3 bytes",
            Then::Stream(&[SIZE]),
            |c| {
                c.send(kind::HEADERS, OPEN, 1, request());
                c.send(kind::RST_STREAM, 0, 1, *b"\0\0\0");
                Ok(())
            },
        ),
        case(
            "http2/6.5/1",
            "SETTINGS with ACK that say something",
            Then::Connection(&[SIZE]),
            |c| {
                c.send(kind::SETTINGS, flag::ACK, 0, *b"\0");
                Ok(())
            },
        ),
        case(
            "http2/6.5/2",
            "SETTINGS on a stream",
            Then::Connection(&[PROTOCOL]),
            |c| {
                c.send(kind::SETTINGS, 0, 1, settings(&[(3, 100)]));
                Ok(())
            },
        ),
        case(
            "http2/6.5/3",
            "SETTINGS of 3 bytes",
            Then::Stream(&[PROTOCOL, SIZE]),
            |c| {
                c.send(kind::SETTINGS, 0, 0, *b"\0\x03\0");
                Ok(())
            },
        ),
        case(
            "http2/6.5.2/1",
            "ENABLE_PUSH of 2",
            Then::Connection(&[PROTOCOL]),
            |c| {
                c.send(kind::SETTINGS, 0, 0, settings(&[(2, 2)]));
                Ok(())
            },
        ),
        case(
            "http2/6.5.2/2",
            "INITIAL_WINDOW_SIZE of 2^31",
            Then::Connection(&[FLOW]),
            |c| {
                c.send(kind::SETTINGS, 0, 0, settings(&[(4, 1 << 31)]));
                Ok(())
            },
        ),
        case(
            "http2/6.5.2/3",
            "MAX_FRAME_SIZE below 2^14",
            Then::Connection(&[PROTOCOL]),
            |c| {
                c.send(kind::SETTINGS, 0, 0, settings(&[(5, (1 << 14) - 1)]));
                Ok(())
            },
        ),
        case(
            "http2/6.5.2/4",
            "MAX_FRAME_SIZE of 2^24",
            Then::Connection(&[PROTOCOL]),
            |c| {
                c.send(kind::SETTINGS, 0, 0, settings(&[(5, 1 << 24)]));
                Ok(())
            },
        ),
        case(
            "http2/6.5.2/5",
            "an unknown setting",
            Then::Pong(NO_DATA),
            |c| {
                c.send(kind::SETTINGS, 0, 0, settings(&[(0xff, 1)]));
                c.send(kind::PING, 0, 0, NO_DATA);
                Ok(())
            },
        ),
        case(
            "http2/6.5.3/1",
            "the last of two window sizes counts",
            Then::Frame(kind::DATA, Some(1)),
            |c| {
                c.send(kind::SETTINGS, 0, 0, settings(&[(4, 100), (4, 1)]));
                until(c, kind::SETTINGS, flag::ACK)?;
                c.send(kind::HEADERS, END, 1, request());
                Ok(())
            },
        ),
        case(
            "http2/6.5.3/2",
            "SETTINGS are acknowledged",
            Then::SettingsAck,
            |c| {
                c.send(kind::SETTINGS, 0, 0, settings(&[(2, 0)]));
                Ok(())
            },
        ),
        case("http2/6.7/1", "a PING", Then::Pong(HELLO), |c| {
            c.send(kind::PING, 0, 0, HELLO);
            Ok(())
        }),
        case(
            "http2/6.7/2",
            "a PING with ACK has no answer",
            Then::Pong(HELLO),
            |c| {
                c.send(kind::PING, flag::ACK, 0, *b"no reply");
                c.send(kind::PING, 0, 0, HELLO);
                Ok(())
            },
        ),
        case(
            "http2/6.7/3",
            "a PING on a stream",
            Then::Connection(&[PROTOCOL]),
            |c| {
                c.send(kind::PING, 0, 1, NO_DATA);
                Ok(())
            },
        ),
        case(
            "http2/6.7/4",
            "a PING of 6 bytes",
            Then::Connection(&[SIZE]),
            |c| {
                c.send(kind::PING, 0, 0, [0; 6]);
                Ok(())
            },
        ),
        case(
            "http2/6.8/1",
            "GOAWAY on a stream",
            Then::Connection(&[PROTOCOL]),
            |c| {
                c.send(kind::GOAWAY, 0, 1, NO_DATA);
                Ok(())
            },
        ),
        case(
            "http2/6.9/1",
            "WINDOW_UPDATE by 0",
            Then::Connection(&[PROTOCOL]),
            |c| {
                c.send(kind::WINDOW_UPDATE, 0, 0, update(0));
                Ok(())
            },
        ),
        case(
            "http2/6.9/2",
            "WINDOW_UPDATE by 0 on a stream",
            Then::Stream(&[PROTOCOL]),
            |c| {
                c.send(kind::HEADERS, OPEN, 1, request());
                c.send(kind::WINDOW_UPDATE, 0, 1, update(0));
                Ok(())
            },
        ),
        case(
            "http2/6.9/3",
            "WINDOW_UPDATE of 3 bytes",
            Then::Connection(&[SIZE]),
            |c| {
                c.send(kind::WINDOW_UPDATE, 0, 0, *b"\0\0\x01");
                Ok(())
            },
        ),
        case(
            "http2/6.9.1/1",
            "a window of 1 byte",
            Then::Frame(kind::DATA, Some(1)),
            |c| {
                c.send(kind::SETTINGS, 0, 0, settings(&[(4, 1)]));
                until(c, kind::SETTINGS, flag::ACK)?;
                c.send(kind::HEADERS, END, 1, request());
                Ok(())
            },
        ),
        case(
            "http2/6.9.1/2",
            "a connection's window above 2^31-1",
            Then::GoAway(FLOW),
            |c| {
                c.send(kind::WINDOW_UPDATE, 0, 0, update(i32::MAX as u32));
                c.send(kind::WINDOW_UPDATE, 0, 0, update(i32::MAX as u32));
                Ok(())
            },
        ),
        case(
            "http2/6.9.1/3",
            "a stream's window above 2^31-1",
            Then::Reset(FLOW),
            |c| {
                c.send(kind::HEADERS, OPEN, 1, request());
                c.send(kind::WINDOW_UPDATE, 0, 1, update(i32::MAX as u32));
                c.send(kind::WINDOW_UPDATE, 0, 1, update(i32::MAX as u32));
                Ok(())
            },
        ),
        case(
            "http2/6.9.2/1",
            "a window that grows later",
            Then::Frame(kind::DATA, Some(1)),
            |c| {
                c.send(kind::SETTINGS, 0, 0, settings(&[(4, 0)]));
                until(c, kind::SETTINGS, flag::ACK)?;
                c.send(kind::HEADERS, END, 1, request());
                c.send(kind::SETTINGS, 0, 0, settings(&[(4, 1)]));
                Ok(())
            },
        ),
        case(
            "http2/6.9.2/2",
            "a window below 0",
            Then::Frame(kind::DATA, Some(1)),
            |c| {
                c.send(kind::SETTINGS, 0, 0, settings(&[(4, 3)]));
                until(c, kind::SETTINGS, flag::ACK)?;
                c.send(kind::HEADERS, END, 1, request());
                until(c, kind::DATA, 0)?;
                c.send(kind::SETTINGS, 0, 0, settings(&[(4, 2)]));
                until(c, kind::SETTINGS, flag::ACK)?;
                c.send(kind::WINDOW_UPDATE, 0, 1, update(2));
                Ok(())
            },
        ),
        case(
            "http2/6.9.2/3",
            "a window of 2^31",
            Then::Connection(&[FLOW]),
            |c| {
                c.bytes(&head(6, kind::SETTINGS, 0, 0));
                c.bytes(b"\0\x04\x80\0\0\0");
                Ok(())
            },
        ),
        case(
            "http2/6.10/1",
            "two CONTINUATION frames",
            Then::Answer(1),
            |c| {
                c.send(kind::HEADERS, flag::END_STREAM, 1, request());
                c.send(kind::CONTINUATION, 0, 1, dummies(1));
                c.send(kind::CONTINUATION, OPEN, 1, dummies(1));
                Ok(())
            },
        ),
        case(
            "http2/6.10/2",
            "CONTINUATION, then DATA",
            Then::Connection(&[PROTOCOL]),
            |c| {
                c.send(kind::HEADERS, 0, 1, request());
                c.send(kind::CONTINUATION, 0, 1, dummies(1));
                c.send(kind::DATA, flag::END_STREAM, 1, *b"test");
                Ok(())
            },
        ),
        case(
            "http2/6.10/3",
            "CONTINUATION on stream 0",
            Then::Connection(&[PROTOCOL]),
            |c| {
                c.send(kind::HEADERS, flag::END_STREAM, 1, request());
                c.send(kind::CONTINUATION, OPEN, 0, dummies(1));
                Ok(())
            },
        ),
        case(
            "http2/6.10/4",
            "CONTINUATION behind the end of HEADERS",
            Then::Connection(&[PROTOCOL]),
            |c| {
                c.send(kind::HEADERS, END, 1, request());
                c.send(kind::CONTINUATION, OPEN, 1, dummies(1));
                Ok(())
            },
        ),
        case(
            "http2/6.10/5",
            "CONTINUATION behind its own end",
            Then::Connection(&[PROTOCOL]),
            |c| {
                c.send(kind::HEADERS, flag::END_STREAM, 1, request());
                c.send(kind::CONTINUATION, OPEN, 1, dummies(1));
                c.send(kind::CONTINUATION, OPEN, 1, dummies(1));
                Ok(())
            },
        ),
        case(
            "http2/6.10/6",
            "CONTINUATION behind DATA",
            Then::Connection(&[PROTOCOL]),
            |c| {
                c.send(kind::HEADERS, OPEN, 1, request());
                c.send(kind::DATA, flag::END_STREAM, 1, *b"test");
                c.send(kind::CONTINUATION, 0, 1, dummies(1));
                c.send(kind::CONTINUATION, OPEN, 1, dummies(1));
                Ok(())
            },
        ),
        case(
            "http2/7/1",
            "GOAWAY of an unknown code",
            Then::PongOrClosed(HELLO),
            |c| {
                c.send(kind::GOAWAY, 0, 0, *b"\0\0\0\0\0\0\0\xff");
                c.send(kind::PING, 0, 0, HELLO);
                Ok(())
            },
        ),
        case(
            "http2/7/2",
            "RST_STREAM of an unknown code",
            Then::PongOrClosed(NO_DATA),
            |c| {
                c.send(kind::HEADERS, OPEN, 1, request());
                c.send(kind::RST_STREAM, 0, 1, update(0xff));
                c.send(kind::PING, 0, 0, NO_DATA);
                Ok(())
            },
        ),
    ]
}
