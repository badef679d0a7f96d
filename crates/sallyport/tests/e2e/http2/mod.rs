//! HTTP/2 by RFC 9113 and RFC 7541, frame by frame, on the plain listener and on the one with TLS.
//!
//! What is tried, and what is right, is what h2spec 2.6 looks at; its numbers are kept, so that
//! tables compare. The tables are in [`generic`], [`streams`], [`frames`], [`messages`] and [`hpack`].

mod abuse;
mod frames;
mod generic;
mod hpack;
mod messages;
mod streams;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use sallyport_testkit::frames::{Frame, Frames, Next, flag, kind};
use sallyport_testkit::{Echo, frames as wire};

use crate::lab::{Doors, Handshake};

/// Codes of RFC 9113 section 7.
const PROTOCOL: u32 = 1;
const FLOW: u32 = 3;
const CLOSED: u32 = 5;
const SIZE: u32 = 6;
const REFUSED: u32 = 7;
const CANCEL: u32 = 8;
const COMPRESSION: u32 = 9;
const CALM: u32 = 11;

/// A connection as cases use it.
type Client = Frames<Box<dyn Stream>>;

trait Stream: Read + Write {}
impl<S: Read + Write> Stream for S {}

/// What has to happen.
#[derive(Clone, Debug)]
enum Then {
    /// A PING with ACK and this payload.
    Pong([u8; 8]),
    /// That, or the connection is closed.
    PongOrClosed([u8; 8]),
    /// A response's HEADERS on this stream.
    Answer(u32),
    /// A frame of this type, of this length if there is one.
    Frame(u8, Option<usize>),
    /// A SETTINGS with ACK.
    SettingsAck,
    /// A connection error of one of these codes, or a close.
    Connection(&'static [u32]),
    /// A stream or connection error of one of these codes, or a close.
    Stream(&'static [u32]),
    /// A GOAWAY with exactly this code.
    GoAway(u32),
    /// A RST_STREAM with exactly this code.
    Reset(u32),
    /// A close.
    Closed,
}

/// One case: its number at h2spec, what it does, and what has to follow.
struct Case {
    id: &'static str,
    does: &'static str,
    run: fn(&mut Client) -> Result<(), String>,
    then: Then,
    /// Whether hands are shaken first.
    shaken: bool,
}

fn case(
    id: &'static str,
    does: &'static str,
    then: Then,
    run: fn(&mut Client) -> Result<(), String>,
) -> Case {
    Case {
        id,
        does,
        run,
        then,
        shaken: true,
    }
}

/// The request of most cases.
const REQUEST: [(&str, &str); 4] = [
    (":method", "GET"),
    (":scheme", "http"),
    (":path", "/"),
    (":authority", "localhost"),
];

fn request() -> Vec<u8> {
    wire::fields(&REQUEST)
}

/// A POST with these fields more.
fn post(more: &[(&str, &str)]) -> Vec<u8> {
    let mut all = REQUEST.to_vec();
    all[0].1 = "POST";
    all.extend_from_slice(more);
    wire::fields(&all)
}

/// A GET with these fields more.
fn get(more: &[(&str, &str)]) -> Vec<u8> {
    let mut all = REQUEST.to_vec();
    all.extend_from_slice(more);
    wire::fields(&all)
}

const END: u8 = flag::END_STREAM | flag::END_HEADERS;
const OPEN: u8 = flag::END_HEADERS;

/// Waits until a stream is over.
fn until_over(client: &mut Client, stream: u32) -> Result<(), String> {
    loop {
        match client.next() {
            Next::Frame(frame) if frame.stream == stream => {
                let ends =
                    matches!(frame.kind, kind::DATA | kind::HEADERS) && frame.has(flag::END_STREAM);
                if ends || frame.kind == kind::RST_STREAM {
                    return Ok(());
                }
            }
            Next::Frame(_) => {}
            other => return Err(format!("{other:?} before the stream was over")),
        }
    }
}

/// Waits for the first frame of a type.
fn until(client: &mut Client, kind: u8, flags: u8) -> Result<Frame, String> {
    loop {
        match client.next() {
            Next::Frame(frame) if frame.kind == kind && frame.flags & flags == flags => {
                return Ok(frame);
            }
            Next::Frame(_) => {}
            other => return Err(format!("{other:?} before a frame of type {kind}")),
        }
    }
}

/// Reads until what has to happen did.
fn judge(client: &mut Client, then: &Then) -> Result<(), String> {
    let mut seen = Vec::new();
    loop {
        let next = client.next();
        let ends = !matches!(next, Next::Frame(_));
        let is = match (&next, then) {
            (Next::Frame(frame), Then::Pong(data) | Then::PongOrClosed(data)) => {
                if frame.kind == kind::PING && frame.payload != data {
                    return Err(format!("another PING: {frame:?}"));
                }
                frame.kind == kind::PING && frame.has(flag::ACK)
            }
            (Next::Frame(frame), Then::Answer(stream)) => {
                frame.kind == kind::HEADERS && frame.stream == *stream
            }
            (Next::Frame(frame), Then::Frame(kind, length)) => {
                frame.kind == *kind && length.is_none_or(|length| frame.payload.len() == length)
            }
            (Next::Frame(frame), Then::SettingsAck) => {
                frame.kind == kind::SETTINGS && frame.has(flag::ACK)
            }
            (Next::Frame(frame), Then::Connection(codes)) => {
                frame.kind == kind::GOAWAY && codes.contains(&frame.code().unwrap_or(u32::MAX))
            }
            (Next::Frame(frame), Then::Stream(codes)) => {
                let code = frame.code();
                code.is_some_and(|code| codes.contains(&code))
            }
            (Next::Frame(frame), Then::GoAway(code)) => {
                frame.kind == kind::GOAWAY && frame.code() == Some(*code)
            }
            (Next::Frame(frame), Then::Reset(code)) => {
                frame.kind == kind::RST_STREAM && frame.code() == Some(*code)
            }
            (Next::Frame(_), Then::Closed) => false,
            (
                Next::Closed,
                Then::PongOrClosed(_) | Then::Connection(_) | Then::Stream(_) | Then::Closed,
            ) => true,
            _ => false,
        };
        if is {
            return Ok(());
        }
        let shown = match next {
            Next::Frame(frame) => format!(
                "type {} flags {:#x} stream {} {:?} {} bytes",
                frame.kind,
                frame.flags,
                frame.stream,
                frame.code(),
                frame.payload.len()
            ),
            other => format!("{other:?}"),
        };
        seen.push(shown);
        if ends {
            return Err(format!("not {then:?}, but {}", seen.join(", ")));
        }
    }
}

/// How long a case waits for what has to follow.
const PATIENCE: Duration = Duration::from_secs(5);

fn plain(port: u16) -> Client {
    patient(port, PATIENCE)
}

/// A connection whose every read and write may take this long.
fn patient(port: u16, patience: Duration) -> Client {
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(patience)).unwrap();
    stream.set_write_timeout(Some(patience)).unwrap();
    Frames::new(Box::new(stream))
}

fn secure(port: u16) -> Client {
    let handshake = Handshake {
        port,
        name: "localhost",
        ca: None,
        pair: None,
        alpn: &["h2"],
    };
    let stream = handshake.open().unwrap();
    stream.sock.set_nodelay(true).unwrap();
    stream.sock.set_read_timeout(Some(PATIENCE)).unwrap();
    Frames::new(Box::new(stream))
}

fn document(echo: &Echo) -> String {
    format!(
        "_format_version: '3.0'\nservices:\n- {{url: '{}', routes: [{{paths: [/]}}]}}\n",
        echo.url()
    )
}

/// Cases that do not hold: h2 passes over pseudo-fields among trailers instead of refusing them.
/// They reach nobody.
const LENIENT: [&str; 1] = ["http2/8.1.2.1/3"];

#[test]
fn every_case_of_the_tables_holds_on_both_listeners() {
    let echo = Echo::start();
    let mut gateway = Doors::start(&document(&echo), "nginx_main_worker_processes = 1");
    let cases: Vec<Case> = [
        generic::cases(),
        streams::cases(),
        frames::cases(),
        messages::cases(),
        hpack::cases(),
    ]
    .into_iter()
    .flatten()
    .collect();
    assert_eq!(cases.len(), 147, "as many as h2spec has in its strict mode");
    let mut wrong = Vec::new();
    for (door, connect) in [("plain", plain as fn(u16) -> Client), ("TLS", secure)] {
        for case in &cases {
            let port = if door == "TLS" {
                gateway.tls
            } else {
                gateway.plain
            };
            let mut client = connect(port);
            let shaken = match case.shaken {
                true => client.shake_hands().map_err(|error| error.to_string()),
                false => Ok(()),
            };
            let judged = shaken
                .and_then(|()| (case.run)(&mut client))
                .and_then(|()| judge(&mut client, &case.then));
            if LENIENT.contains(&case.id) {
                if judged.is_ok() {
                    wrong.push(format!(
                        "{door} {} is right by now: take it off the list",
                        case.id
                    ));
                }
            } else if let Err(reason) = judged {
                wrong.push(format!("{door} {} {}: {reason}", case.id, case.does));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(gateway.program.is_running());
    assert!(!gateway.program.output().contains("panicked"));
}
