//! What every endpoint must take.

use sallyport_testkit::frames::{flag, kind, settings};

use super::{Case, END, OPEN, PROTOCOL, Then, case, get, post, request, until_over};

const NO_DATA: [u8; 8] = [0; 8];
const HELLO: [u8; 8] = *b"hello!!!";
/// A PRIORITY of this weight less one, on this stream.
fn priority(depends_on: u32, exclusive: bool, weight: u8) -> Vec<u8> {
    let on = depends_on | if exclusive { 1 << 31 } else { 0 };
    [&on.to_be_bytes()[..], &[weight]].concat()
}

#[allow(clippy::too_many_lines, reason = "a table")]
pub(super) fn cases() -> Vec<Case> {
    let mut all = vec![
        Case {
            id: "generic/1/1",
            does: "a preface",
            shaken: false,
            then: Then::Frame(kind::SETTINGS, None),
            run: |c| {
                c.bytes(sallyport_testkit::frames::PREFACE);
                c.send(kind::SETTINGS, 0, 0, settings(&[(4, 65_535)]));
                Ok(())
            },
        },
        case(
            "generic/2/1",
            "PRIORITY on an idle stream",
            Then::Pong(NO_DATA),
            |c| {
                c.send(kind::PRIORITY, 0, 1, priority(0, false, 255));
                c.send(kind::PING, 0, 0, NO_DATA);
                Ok(())
            },
        ),
        case(
            "generic/2/2",
            "WINDOW_UPDATE on a half-closed stream",
            Then::Frame(kind::DATA, None),
            |c| {
                c.send(kind::SETTINGS, 0, 0, settings(&[(4, 0)]));
                c.send(kind::HEADERS, END, 1, request());
                c.send(kind::WINDOW_UPDATE, 0, 1, 1u32.to_be_bytes());
                Ok(())
            },
        ),
        case(
            "generic/2/3",
            "PRIORITY on a half-closed stream",
            Then::Frame(kind::DATA, None),
            |c| {
                c.send(kind::SETTINGS, 0, 0, settings(&[(4, 0)]));
                c.send(kind::HEADERS, END, 1, request());
                c.send(kind::PRIORITY, 0, 1, priority(0, false, 255));
                c.send(kind::WINDOW_UPDATE, 0, 1, 1u32.to_be_bytes());
                Ok(())
            },
        ),
        case(
            "generic/2/4",
            "RST_STREAM on a half-closed stream",
            Then::PongOrClosed(NO_DATA),
            |c| {
                c.send(kind::HEADERS, END, 1, request());
                c.send(kind::RST_STREAM, 0, 1, 8u32.to_be_bytes());
                c.send(kind::PING, 0, 0, NO_DATA);
                Ok(())
            },
        ),
        case(
            "generic/2/5",
            "PRIORITY on a closed stream",
            Then::Pong(NO_DATA),
            |c| {
                c.send(kind::HEADERS, END, 1, request());
                until_over(c, 1)?;
                c.send(kind::PRIORITY, 0, 1, priority(0, false, 255));
                c.send(kind::PING, 0, 0, NO_DATA);
                Ok(())
            },
        ),
        case("generic/3.1/1", "a DATA frame", Then::Answer(1), |c| {
            c.send(kind::HEADERS, OPEN, 1, post(&[]));
            c.send(kind::DATA, flag::END_STREAM, 1, *b"test");
            Ok(())
        }),
        case(
            "generic/3.1/2",
            "several DATA frames",
            Then::Answer(1),
            |c| {
                c.send(kind::HEADERS, OPEN, 1, post(&[]));
                c.send(kind::DATA, 0, 1, *b"test");
                c.send(kind::DATA, flag::END_STREAM, 1, *b"test");
                Ok(())
            },
        ),
        case(
            "generic/3.1/3",
            "a DATA frame with padding",
            Then::Answer(1),
            |c| {
                c.send(kind::HEADERS, OPEN, 1, post(&[]));
                c.send(
                    kind::DATA,
                    flag::END_STREAM | flag::PADDED,
                    1,
                    *b"\x05test\0\0\0\0\0",
                );
                Ok(())
            },
        ),
        case("generic/3.2/1", "a HEADERS frame", Then::Answer(1), |c| {
            c.send(kind::HEADERS, END, 1, request());
            Ok(())
        }),
        case(
            "generic/3.2/2",
            "a HEADERS frame with padding",
            Then::Answer(1),
            |c| {
                let payload = [&[8][..], &request(), &NO_DATA].concat();
                c.send(kind::HEADERS, END | flag::PADDED, 1, payload);
                Ok(())
            },
        ),
        case(
            "generic/3.2/3",
            "a HEADERS frame with priority",
            Then::Answer(1),
            |c| {
                let payload = [&priority(0, false, 255)[..], &request()].concat();
                c.send(kind::HEADERS, END | flag::PRIORITY, 1, payload);
                Ok(())
            },
        ),
        case(
            "generic/3.3/1",
            "PRIORITY of weight 1",
            Then::Answer(1),
            |c| {
                c.send(kind::PRIORITY, 0, 1, priority(0, false, 0));
                c.send(kind::HEADERS, END, 1, request());
                Ok(())
            },
        ),
        case(
            "generic/3.3/2",
            "PRIORITY of weight 256",
            Then::Answer(1),
            |c| {
                c.send(kind::PRIORITY, 0, 1, priority(0, false, 255));
                c.send(kind::HEADERS, END, 1, request());
                Ok(())
            },
        ),
        case(
            "generic/3.3/3",
            "PRIORITY with a dependency",
            Then::Answer(1),
            |c| {
                c.send(kind::PRIORITY, 0, 3, priority(1, false, 0));
                c.send(kind::HEADERS, END, 1, request());
                Ok(())
            },
        ),
        case(
            "generic/3.3/4",
            "exclusive PRIORITY",
            Then::Answer(1),
            |c| {
                c.send(kind::PRIORITY, 0, 1, priority(0, true, 0));
                c.send(kind::HEADERS, END, 1, request());
                Ok(())
            },
        ),
        case(
            "generic/3.3/5",
            "PRIORITY on a higher stream, then HEADERS",
            Then::Answer(1),
            |c| {
                c.send(kind::PRIORITY, 0, 3, priority(0, false, 255));
                c.send(kind::HEADERS, END, 1, request());
                Ok(())
            },
        ),
        case(
            "generic/3.4/1",
            "a RST_STREAM frame",
            Then::PongOrClosed(NO_DATA),
            |c| {
                c.send(kind::HEADERS, OPEN, 1, request());
                c.send(kind::RST_STREAM, 0, 1, 8u32.to_be_bytes());
                c.send(kind::PING, 0, 0, NO_DATA);
                Ok(())
            },
        ),
        case(
            "generic/3.5/1",
            "a SETTINGS frame",
            Then::SettingsAck,
            |c| {
                let all = [
                    (1, 4096),
                    (2, 1),
                    (3, 100),
                    (4, 65_535),
                    (5, 16_384),
                    (6, 100),
                ];
                c.send(kind::SETTINGS, 0, 0, settings(&all));
                Ok(())
            },
        ),
        case("generic/3.7/1", "a PING frame", Then::Pong(HELLO), |c| {
            c.send(kind::PING, 0, 0, HELLO);
            Ok(())
        }),
        case(
            "generic/3.8/1",
            "a GOAWAY frame",
            Then::PongOrClosed(HELLO),
            |c| {
                c.send(kind::GOAWAY, 0, 0, *b"\0\0\0\0\0\0\0\0bye");
                c.send(kind::PING, 0, 0, HELLO);
                Ok(())
            },
        ),
        case(
            "generic/3.9/1",
            "WINDOW_UPDATE of the connection",
            Then::Pong(NO_DATA),
            |c| {
                c.send(kind::WINDOW_UPDATE, 0, 0, 1u32.to_be_bytes());
                c.send(kind::PING, 0, 0, NO_DATA);
                Ok(())
            },
        ),
        case(
            "generic/3.9/2",
            "WINDOW_UPDATE of a stream",
            Then::Answer(1),
            |c| {
                c.send(kind::HEADERS, END, 1, request());
                c.send(kind::WINDOW_UPDATE, 0, 1, 1u32.to_be_bytes());
                Ok(())
            },
        ),
        case(
            "generic/3.10/1",
            "a CONTINUATION frame",
            Then::Answer(1),
            |c| {
                let block = request();
                c.send(kind::HEADERS, flag::END_STREAM, 1, &block[..5]);
                c.send(kind::CONTINUATION, OPEN, 1, &block[5..]);
                Ok(())
            },
        ),
        case(
            "generic/3.10/2",
            "several CONTINUATION frames",
            Then::Answer(1),
            |c| {
                let block = request();
                c.send(kind::HEADERS, flag::END_STREAM, 1, &block[..5]);
                c.send(kind::CONTINUATION, 0, 1, &block[5..10]);
                c.send(kind::CONTINUATION, OPEN, 1, &block[10..]);
                Ok(())
            },
        ),
        case("generic/4/1", "a GET request", Then::Answer(1), |c| {
            c.send(kind::HEADERS, END, 1, request());
            Ok(())
        }),
        case("generic/4/2", "a HEAD request", Then::Answer(1), |c| {
            let mut fields = super::REQUEST;
            fields[0].1 = "HEAD";
            c.send(
                kind::HEADERS,
                END,
                1,
                sallyport_testkit::frames::fields(&fields),
            );
            Ok(())
        }),
        case("generic/4/3", "a POST request", Then::Answer(1), |c| {
            c.send(kind::HEADERS, OPEN, 1, post(&[]));
            c.send(kind::DATA, flag::END_STREAM, 1, *b"test");
            Ok(())
        }),
        case(
            "generic/4/4",
            "a POST request with trailers",
            Then::Answer(1),
            |c| {
                c.send(kind::HEADERS, OPEN, 1, post(&[("trailer", "x-test")]));
                c.send(kind::DATA, 0, 1, *b"test");
                let trailers = sallyport_testkit::frames::fields(&[("x-test", "ok")]);
                c.send(kind::HEADERS, END, 1, trailers);
                Ok(())
            },
        ),
    ];
    // RFC 7541: what a block may have, the strings of its appendix C.4 among them
    macro_rules! block {
        ($id:literal, $does:literal, $bytes:expr) => {
            case($id, $does, Then::Answer(1), |c| {
                c.send(kind::HEADERS, END, 1, [&get(&[])[..], $bytes].concat());
                Ok(())
            })
        };
    }
    const KEY: &[u8] = b"\x88\x25\xa8\x49\xe9\x5b\xa9\x7d\x7f";
    const VALUE: &[u8] = b"\x89\x25\xa8\x49\xe9\x5b\xb8\xe8\xb4\xbf";
    all.extend([
        // user-agent of the static table (58) made an entry first, so that 62 is one
        block!("generic/5/1", "an indexed field", b"\x7a\x04test\xbe"),
        block!("generic/5/2", "with indexing, known name", b"\x7a\x04test"),
        block!(
            "generic/5/3",
            "with indexing, known name, Huffman",
            &[b"\x7a", VALUE].concat()
        ),
        block!(
            "generic/5/4",
            "with indexing, new name",
            b"\x40\x06x-test\x04test"
        ),
        block!(
            "generic/5/5",
            "with indexing, new name, Huffman",
            &[b"\x40", KEY, VALUE].concat()
        ),
        block!(
            "generic/5/6",
            "without indexing, known name",
            b"\x0f\x2b\x04test"
        ),
        block!(
            "generic/5/7",
            "without indexing, known name, Huffman",
            &[b"\x0f\x2b", VALUE].concat()
        ),
        block!(
            "generic/5/8",
            "without indexing, new name",
            b"\x00\x06x-test\x04test"
        ),
        block!(
            "generic/5/9",
            "without indexing, new name, Huffman",
            &[b"\x00", KEY, VALUE].concat()
        ),
        block!(
            "generic/5/10",
            "never indexed, known name",
            b"\x1f\x2b\x04test"
        ),
        block!(
            "generic/5/11",
            "never indexed, known name, Huffman",
            &[b"\x1f\x2b", VALUE].concat()
        ),
        block!(
            "generic/5/12",
            "never indexed, new name",
            b"\x10\x06x-test\x04test"
        ),
        block!(
            "generic/5/13",
            "never indexed, new name, Huffman",
            &[b"\x10", KEY, VALUE].concat()
        ),
        case(
            "generic/5/14",
            "an update of the table's size",
            Then::Answer(1),
            |c| {
                c.send(kind::HEADERS, END, 1, [b"\x20", &request()[..]].concat());
                Ok(())
            },
        ),
        case(
            "generic/5/15",
            "two updates of the table's size",
            Then::Answer(1),
            |c| {
                // 128, then 4096
                c.send(
                    kind::HEADERS,
                    END,
                    1,
                    [b"\x3f\x61\x3f\xe1\x1f", &request()[..]].concat(),
                );
                Ok(())
            },
        ),
        case(
            "http2/5.3.1/1",
            "HEADERS that depend on themselves",
            Then::Stream(&[PROTOCOL]),
            |c| {
                let payload = [&priority(1, false, 255)[..], &request()].concat();
                c.send(kind::HEADERS, END | flag::PRIORITY, 1, payload);
                Ok(())
            },
        ),
        case(
            "http2/5.3.1/2",
            "PRIORITY that depends on itself",
            Then::Stream(&[PROTOCOL]),
            |c| {
                c.send(kind::PRIORITY, 0, 2, priority(2, false, 255));
                Ok(())
            },
        ),
    ]);
    all
}
