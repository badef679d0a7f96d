//! How connections begin, and the states of streams: sections 3 to 5 of RFC 9113.

use sallyport_testkit::frames::{PREFACE, flag, kind, settings};

use super::frames::{dummies, update};
use super::{
    CANCEL, CLOSED, COMPRESSION, Case, END, OPEN, PROTOCOL, REFUSED, SIZE, Then, case, post,
    request, until, until_over,
};

const NO_DATA: [u8; 8] = [0; 8];

/// RFC 9113 section 3 to 5.
#[allow(clippy::too_many_lines, reason = "a table")]
pub(super) fn cases() -> Vec<Case> {
    vec![
        Case {
            id: "http2/3.5/1",
            does: "a preface",
            shaken: false,
            then: Then::Frame(kind::SETTINGS, None),
            run: |c| {
                c.bytes(PREFACE);
                c.send(kind::SETTINGS, 0, 0, settings(&[(4, 65_535)]));
                Ok(())
            },
        },
        Case {
            id: "http2/3.5/2",
            does: "a preface that is none",
            shaken: false,
            then: Then::Connection(&[PROTOCOL]),
            run: |c| {
                c.bytes(b"INVALID CONNECTION PREFACE\r\n\r\n");
                Ok(())
            },
        },
        case(
            "http2/4.1/1",
            "a frame of unknown type",
            Then::Pong(NO_DATA),
            |c| {
                c.send(0x16, 0, 0, NO_DATA);
                c.send(kind::PING, 0, 0, NO_DATA);
                Ok(())
            },
        ),
        case(
            "http2/4.1/2",
            "a flag that means nothing",
            Then::Frame(kind::PING, None),
            |c| {
                c.send(kind::PING, 0x16, 0, NO_DATA);
                Ok(())
            },
        ),
        case(
            "http2/4.1/3",
            "the reserved bit",
            Then::Frame(kind::PING, None),
            |c| {
                c.send(kind::PING, 0x16, 1 << 31, NO_DATA);
                Ok(())
            },
        ),
        case("http2/4.2/1", "DATA of 2^14 bytes", Then::Answer(1), |c| {
            c.send(kind::HEADERS, OPEN, 1, post(&[]));
            c.send(kind::DATA, flag::END_STREAM, 1, vec![b'x'; 1 << 14]);
            Ok(())
        }),
        case(
            "http2/4.2/2",
            "DATA larger than allowed",
            Then::Stream(&[SIZE]),
            |c| {
                let most = c.setting(5).unwrap_or(1 << 14) as usize;
                c.send(kind::HEADERS, OPEN, 1, post(&[]));
                c.send(kind::DATA, flag::END_STREAM, 1, vec![b'x'; most + 1]);
                Ok(())
            },
        ),
        case(
            "http2/4.2/3",
            "HEADERS larger than allowed",
            Then::Connection(&[SIZE]),
            |c| {
                let most = c.setting(5).unwrap_or(1 << 14) as usize;
                let block = [request(), dummies(most / 4096 + 1)].concat();
                c.send(kind::HEADERS, END, 1, block);
                Ok(())
            },
        ),
        case(
            "http2/4.3/1",
            "a block that is none",
            Then::Connection(&[COMPRESSION]),
            |c| {
                c.send(kind::HEADERS, END, 1, *b"\x40");
                Ok(())
            },
        ),
        case(
            "http2/4.3/2",
            "PRIORITY within a block",
            Then::Connection(&[PROTOCOL]),
            |c| {
                c.send(kind::HEADERS, flag::END_STREAM, 1, request());
                c.send(kind::PRIORITY, 0, 1, *b"\0\0\0\0\xff");
                c.send(kind::CONTINUATION, OPEN, 1, dummies(1));
                Ok(())
            },
        ),
        case(
            "http2/4.3/3",
            "other HEADERS within a block",
            Then::Connection(&[PROTOCOL]),
            |c| {
                c.send(kind::HEADERS, flag::END_STREAM, 1, request());
                c.send(kind::HEADERS, END, 3, request());
                c.send(kind::CONTINUATION, OPEN, 1, dummies(1));
                Ok(())
            },
        ),
        case(
            "http2/5.1/1",
            "idle: DATA",
            Then::Stream(&[PROTOCOL, CLOSED]),
            |c| {
                c.send(kind::DATA, flag::END_STREAM, 1, *b"test");
                Ok(())
            },
        ),
        case(
            "http2/5.1/2",
            "idle: RST_STREAM",
            Then::Connection(&[PROTOCOL]),
            |c| {
                c.send(kind::RST_STREAM, 0, 1, update(CANCEL));
                Ok(())
            },
        ),
        case(
            "http2/5.1/3",
            "idle: WINDOW_UPDATE",
            Then::Connection(&[PROTOCOL]),
            |c| {
                c.send(kind::WINDOW_UPDATE, 0, 1, update(100));
                Ok(())
            },
        ),
        case(
            "http2/5.1/4",
            "idle: CONTINUATION",
            Then::Connection(&[PROTOCOL]),
            |c| {
                c.send(kind::CONTINUATION, OPEN, 1, request());
                Ok(())
            },
        ),
        case(
            "http2/5.1/5",
            "half-closed: DATA",
            Then::Stream(&[CLOSED]),
            |c| {
                c.send(kind::HEADERS, END, 1, request());
                c.send(kind::DATA, flag::END_STREAM, 1, *b"test");
                Ok(())
            },
        ),
        case(
            "http2/5.1/6",
            "half-closed: HEADERS",
            Then::Stream(&[CLOSED]),
            |c| {
                c.send(kind::HEADERS, END, 1, request());
                c.send(kind::HEADERS, END, 1, request());
                Ok(())
            },
        ),
        case(
            "http2/5.1/7",
            "half-closed: CONTINUATION",
            Then::Stream(&[CLOSED, PROTOCOL]),
            |c| {
                c.send(kind::HEADERS, END, 1, request());
                c.send(kind::CONTINUATION, OPEN, 1, request());
                Ok(())
            },
        ),
        case("http2/5.1/8", "reset: DATA", Then::Stream(&[CLOSED]), |c| {
            c.send(kind::HEADERS, OPEN, 1, request());
            c.send(kind::RST_STREAM, 0, 1, update(CANCEL));
            c.send(kind::DATA, flag::END_STREAM, 1, *b"test");
            Ok(())
        }),
        case(
            "http2/5.1/9",
            "reset: HEADERS",
            Then::Stream(&[CLOSED]),
            |c| {
                c.send(kind::HEADERS, OPEN, 1, request());
                c.send(kind::RST_STREAM, 0, 1, update(CANCEL));
                c.send(kind::HEADERS, END, 1, request());
                Ok(())
            },
        ),
        case(
            "http2/5.1/10",
            "reset: CONTINUATION",
            Then::Stream(&[CLOSED, PROTOCOL]),
            |c| {
                c.send(kind::HEADERS, OPEN, 1, request());
                c.send(kind::RST_STREAM, 0, 1, update(CANCEL));
                c.send(kind::CONTINUATION, OPEN, 1, dummies(1));
                Ok(())
            },
        ),
        case(
            "http2/5.1/11",
            "closed: DATA",
            Then::Stream(&[CLOSED]),
            |c| {
                c.send(kind::HEADERS, END, 1, request());
                until_over(c, 1)?;
                c.send(kind::DATA, flag::END_STREAM, 1, *b"test");
                Ok(())
            },
        ),
        case(
            "http2/5.1/12",
            "closed: HEADERS",
            Then::Connection(&[CLOSED]),
            |c| {
                c.send(kind::HEADERS, END, 1, request());
                until_over(c, 1)?;
                c.send(kind::HEADERS, END, 1, request());
                Ok(())
            },
        ),
        case(
            "http2/5.1/13",
            "closed: CONTINUATION",
            Then::Connection(&[CLOSED, PROTOCOL]),
            |c| {
                c.send(kind::HEADERS, END, 1, request());
                until_over(c, 1)?;
                c.send(kind::CONTINUATION, OPEN, 1, dummies(1));
                Ok(())
            },
        ),
        case(
            "http2/5.1.1/1",
            "a stream of even number",
            Then::Connection(&[PROTOCOL]),
            |c| {
                c.send(kind::HEADERS, END, 2, request());
                Ok(())
            },
        ),
        case(
            "http2/5.1.1/2",
            "a stream of smaller number",
            Then::Connection(&[PROTOCOL]),
            |c| {
                c.send(kind::HEADERS, END, 5, request());
                c.send(kind::HEADERS, END, 3, request());
                Ok(())
            },
        ),
        case(
            "http2/5.1.2/1",
            "more streams than allowed",
            Then::Stream(&[PROTOCOL, REFUSED]),
            |c| {
                let most = c.setting(3).ok_or("no limit is announced")?;
                c.send(kind::SETTINGS, 0, 0, settings(&[(4, 0)]));
                until(c, kind::SETTINGS, flag::ACK)?;
                for n in 0..=most {
                    c.send(kind::HEADERS, END, 2 * n + 1, request());
                }
                Ok(())
            },
        ),
        case(
            "http2/5.4.1/1",
            "a bad PING ends the connection",
            Then::Closed,
            |c| {
                c.send(kind::PING, 0, 3, NO_DATA);
                Ok(())
            },
        ),
        case(
            "http2/5.4.1/2",
            "and a GOAWAY says why",
            Then::GoAway(PROTOCOL),
            |c| {
                c.send(kind::PING, 0, 3, NO_DATA);
                Ok(())
            },
        ),
        case(
            "http2/5.5/1",
            "an extension's frame",
            Then::Pong(NO_DATA),
            |c| {
                c.send(0x16, 0, 0, NO_DATA);
                c.send(kind::PING, 0, 0, NO_DATA);
                Ok(())
            },
        ),
        case(
            "http2/5.5/2",
            "an extension's frame within a block",
            Then::Connection(&[PROTOCOL]),
            |c| {
                c.send(kind::HEADERS, flag::END_STREAM, 1, request());
                c.send(0x16, 0, 0, NO_DATA);
                Ok(())
            },
        ),
    ]
}
