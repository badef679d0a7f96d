//! Requests that two parties could read in two ways, byte by byte: what the client is told, whether
//! the connection ends, and what reached the upstream.

use std::net::SocketAddr;

use sallyport_testkit::http::exchange;
use sallyport_testkit::{Scripted, eventually};

use crate::lab::{Alone, exchange_half, soon};

/// What must have happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    /// Refused with this status and closed; nothing reached the upstream.
    Refused(u16),
    /// Answered with this status after the head went on and before the body was whole; the
    /// upstream never had a whole request.
    Torn(u16),
    /// Closed without a word.
    Closed,
    /// One clean request reached the upstream, and the client was told so.
    Served,
    /// So did two of them.
    Twice,
    /// Answered with this status, as it is framed well; what follows was served.
    Skipped(u16),
}

use Then::{Closed, Refused, Served, Skipped, Torn, Twice};

/// Stands behind most probes, and must not be served where the first request is refused.
const SECOND: &str = "GET /second HTTP/1.1\r\nHost: x\r\n\r\n";

fn probes() -> Vec<(&'static str, Vec<u8>, Then)> {
    let mut all: Vec<(&'static str, Vec<u8>, Then)> = Vec::new();
    let mut raw = |name, bytes: Vec<u8>, then| all.push((name, bytes, then));
    let get =
        |lines: &str| format!("GET / HTTP/1.1\r\nHost: x\r\n{lines}\r\n{SECOND}").into_bytes();
    let post = |lines: &str, body: &str| {
        format!("POST / HTTP/1.1\r\nHost: x\r\n{lines}\r\n{body}{SECOND}").into_bytes()
    };
    let line = |line: &str| format!("{line}\r\nHost: x\r\n\r\n{SECOND}").into_bytes();
    let chunked = |body: &str| post("Transfer-Encoding: chunked\r\n", body);

    // two lengths, or a length that is none
    let both = "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n";
    raw("length and coding", post(both, "0\r\n\r\n"), Refused(400));
    let both = "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n";
    raw("coding and length", post(both, "0\r\n\r\n"), Refused(400));
    let both = "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n";
    raw(
        "coding and no length",
        post(both, "0\r\n\r\n"),
        Refused(400),
    );
    let two = "Content-Length: 1\r\nContent-Length: 1\r\n";
    raw("the same length twice", post(two, "a"), Refused(400));
    let two = "Content-Length: 1\r\nContent-Length: 2\r\n";
    raw("two lengths", post(two, "a"), Refused(400));
    for (name, length) in [
        ("length list", "1, 1"),
        ("length with a sign", "+1"),
        ("length below zero", "-1"),
        ("length in hexadecimal", "0x1"),
        ("length with a point", "1.0"),
        ("length with a space inside", "1 1"),
        ("no length", ""),
        ("length of 20 digits", "99999999999999999999"),
        ("length in quotes", "\"1\""),
    ] {
        raw(
            name,
            post(&format!("Content-Length: {length}\r\n"), "a"),
            Refused(400),
        );
    }
    raw(
        "length by an underscore",
        post("Content_Length: 1\r\n", "a"),
        Refused(400),
    );

    // codings
    for (name, coding, then) in [
        ("another coding", "gzip", Refused(501)),
        ("coding list", "gzip, chunked", Refused(501)),
        ("chunked twice in a line", "chunked, chunked", Refused(501)),
        ("chunked, then another", "chunked, identity", Refused(501)),
        ("identity", "identity", Refused(501)),
        ("nearly chunked", "xchunked", Refused(501)),
        ("chunked with a parameter", "chunked;q=1", Refused(501)),
        ("chunked in quotes", "\"chunked\"", Refused(501)),
        ("no coding", "", Refused(501)),
        ("vertical tab before chunked", "\x0bchunked", Refused(400)),
        ("NUL behind chunked", "chunked\0", Refused(400)),
        ("chunked in capitals", "CHUNKED", Twice),
        ("tab around chunked", "\tchunked\t", Twice),
    ] {
        raw(
            name,
            post(&format!("Transfer-Encoding: {coding}\r\n"), "0\r\n\r\n"),
            then,
        );
    }
    let two = "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n";
    raw("chunked in two lines", post(two, "0\r\n\r\n"), Refused(400));
    let two = "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n";
    raw("chunked and identity", post(two, "0\r\n\r\n"), Refused(501));
    let folded = "Transfer-Encoding:\r\n chunked\r\n";
    raw("folded coding", post(folded, "0\r\n\r\n"), Refused(400));
    let spaced = "Transfer-Encoding : chunked\r\n";
    raw(
        "space before the coding's colon",
        post(spaced, "0\r\n\r\n"),
        Refused(400),
    );
    raw(
        "coding by an underscore",
        post("Transfer_Encoding: chunked\r\n", "0\r\n\r\n"),
        Refused(400),
    );
    let old = b"POST / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_vec();
    raw("chunked in HTTP/1.0", old, Refused(400));

    // chunks
    raw("chunks", chunked("3\r\nabc\r\n0\r\n\r\n"), Twice);
    raw(
        "chunk extension",
        chunked("3;a=b;c\r\nabc\r\n0\r\n\r\n"),
        Twice,
    );
    for (name, body) in [
        (
            "line feed behind a chunk extension",
            "3;a\nabc\r\n0\r\n\r\n",
        ),
        ("line feed behind a chunk size", "3\nabc\r\n0\r\n\r\n"),
        (
            "carriage return in a chunk extension",
            "3;a\rb\r\nabc\r\n0\r\n\r\n",
        ),
        ("NUL in a chunk extension", "3;a\0\r\nabc\r\n0\r\n\r\n"),
        ("chunk longer than it says", "3\r\nabcd\r\n0\r\n\r\n"),
        ("line feed behind a chunk", "3\r\nabc\n0\r\n\r\n"),
        ("chunk size with a sign", "+3\r\nabc\r\n0\r\n\r\n"),
        ("chunk size with 0x", "0x3\r\nabc\r\n0\r\n\r\n"),
        ("chunk size with an underscore", "0_3\r\nabc\r\n0\r\n\r\n"),
        ("space behind a chunk size", "3 \r\nabc\r\n0\r\n\r\n"),
        ("space before a chunk size", " 3\r\nabc\r\n0\r\n\r\n"),
        ("no chunk size", ";a\r\nabc\r\n0\r\n\r\n"),
        (
            "chunk size above 60 bits",
            "fffffffffffffffff\r\nabc\r\n0\r\n\r\n",
        ),
        ("trailer without a colon", "0\r\nabc\r\n\r\n"),
        ("folded trailer", "0\r\nA: 1\r\n b\r\n\r\n"),
        ("line feed behind a trailer", "0\r\nA: 1\n\r\n"),
        ("line feed behind the last chunk", "0\n\n"),
    ] {
        raw(name, chunked(body), Refused(400));
    }
    let long = format!("3;{}\r\nabc\r\n0\r\n\r\n", "a".repeat(10_000));
    raw("chunk extension of 10 kB", chunked(&long), Refused(400));
    let long = format!("0\r\nA: {}\r\n\r\n", "a".repeat(10_000));
    raw("trailers of 10 kB", chunked(&long), Refused(400));
    // more than is held back before the upstream is asked
    let large = format!("20000\r\n{}\r\nx\r\n", "a".repeat(0x20000));
    raw("bad chunk behind 128 KiB", chunked(&large), Torn(400));

    // lines
    raw(
        "bare line feeds",
        format!("GET / HTTP/1.1\nHost: x\n\n{SECOND}").into(),
        Refused(400),
    );
    raw(
        "bare line feed in the head",
        get("A: 1\nB: 2\r\n"),
        Refused(400),
    );
    raw(
        "bare carriage return in a field",
        get("A: 1\rB: 2\r\n"),
        Refused(400),
    );
    raw("folded line", get("A: 1\r\n 2\r\n"), Refused(400));
    raw("folded by a tab", get("A: 1\r\n\t2\r\n"), Refused(400));
    let first = format!("GET / HTTP/1.1\r\n Host: x\r\nHost: x\r\n\r\n{SECOND}");
    raw("folded first field", first.into(), Refused(400));
    raw("NUL in a field", get("A: 1\x002\r\n"), Refused(400));
    raw(
        "control byte in a field",
        get("A: 1\x012\r\n"),
        Refused(400),
    );
    raw("DEL in a field", get("A: 1\x7f\r\n"), Refused(400));
    raw("NUL in a name", get("A\0: 1\r\n"), Refused(400));
    raw("space before a colon", get("A : 1\r\n"), Refused(400));
    raw("tab before a colon", get("A\t: 1\r\n"), Refused(400));
    raw("space in a name", get("A B: 1\r\n"), Refused(400));
    raw("field without a colon", get("A\r\n"), Refused(400));
    raw("field without a name", get(": 1\r\n"), Refused(400));
    raw("name in Unicode", get("\u{e4}: 1\r\n"), Refused(400));
    raw("name with a delimiter", get("A(b): 1\r\n"), Refused(400));

    // start lines
    raw("version 2.0", line("GET / HTTP/2.0"), Refused(400));
    raw("version 1.2", line("GET / HTTP/1.2"), Refused(400));
    raw(
        "version with a letter",
        line("GET / HTTP/1.x"),
        Refused(400),
    );
    raw(
        "version of two digits",
        line("GET / HTTP/1.10"),
        Refused(400),
    );
    raw(
        "version in small letters",
        line("GET / http/1.1"),
        Refused(400),
    );
    raw("no version", line("GET /"), Refused(400));
    raw("two spaces", line("GET  / HTTP/1.1"), Refused(400));
    raw("tab for a space", line("GET\t/ HTTP/1.1"), Refused(400));
    raw(
        "space behind the version",
        line("GET / HTTP/1.1 "),
        Refused(400),
    );
    raw(
        "space in the target",
        line("GET /a b HTTP/1.1"),
        Refused(400),
    );
    raw("NUL in the target", line("GET /a\0 HTTP/1.1"), Refused(400));
    raw(
        "control byte in the target",
        line("GET /a\x01 HTTP/1.1"),
        Refused(400),
    );
    raw(
        "target without a slash",
        line("GET a HTTP/1.1"),
        Refused(400),
    );
    raw("no target", line("GET HTTP/1.1"), Refused(400));
    raw("cut escape", line("GET /%a HTTP/1.1"), Skipped(400));
    raw(
        "escape of no digits",
        line("GET /%zz HTTP/1.1"),
        Skipped(400),
    );
    raw("escape of NUL", line("GET /%00 HTTP/1.1"), Skipped(400));
    raw(
        "method with a delimiter",
        line("G(ET / HTTP/1.1"),
        Refused(400),
    );
    raw("asterisk for GET", line("GET * HTTP/1.1"), Refused(400));
    raw(
        "space before the method",
        line(" GET / HTTP/1.1"),
        Refused(400),
    );
    raw(
        "empty lines before",
        format!("\r\n\r\n{SECOND}").into(),
        Served,
    );
    raw(
        "TLS hello",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n".to_vec(),
        Refused(400),
    );

    // hosts
    raw(
        "no host",
        format!("GET / HTTP/1.1\r\n\r\n{SECOND}").into(),
        Refused(400),
    );
    raw("two hosts", get("Host: y\r\n"), Refused(400));
    raw("the same host twice", get("Host: x\r\n"), Refused(400));
    let host = |host: &str| format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n{SECOND}").into_bytes();
    raw("empty host", host(""), Refused(400));
    raw("host with a path", host("x/y"), Refused(400));
    raw("host with a user", host("u@x"), Refused(400));
    raw("two hosts in a line", host("x,y"), Refused(400));
    raw("host with a space", host("x y"), Refused(400));
    let absolute = |target: &str| line(&format!("GET {target} HTTP/1.1"));
    raw("absolute target", absolute("http://x/a"), Twice);
    raw(
        "absolute target with the usual port",
        absolute("http://X:80/a"),
        Twice,
    );
    raw(
        "absolute target of another host",
        absolute("http://y/a"),
        Refused(400),
    );
    raw(
        "absolute target of another port",
        absolute("http://x:81/a"),
        Refused(400),
    );
    raw(
        "absolute target with a user",
        absolute("http://x@y/a"),
        Refused(400),
    );
    raw(
        "absolute target of another scheme",
        absolute("gopher://x/a"),
        Refused(400),
    );

    // other protocols
    raw("CONNECT", line("CONNECT x:443 HTTP/1.1"), Refused(405));
    let tunnel = format!("CONNECT x:443 HTTP/1.1\r\nHost: x:443\r\n\r\n{SECOND}");
    raw(
        "CONNECT with a request behind it",
        tunnel.into(),
        Refused(405),
    );
    let h2c = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n";
    raw("upgrade to h2c", get(h2c), Twice);
    let hidden = "Connection: Upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n";
    raw(
        "upgrade to h2c, settings not listed",
        get(hidden),
        Refused(400),
    );
    let bare = "Connection: Upgrade\r\nUpgrade: h2c\r\n";
    raw("upgrade to h2c without settings", get(bare), Refused(400));
    let unlisted = "Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n";
    raw("upgrade to h2c, not listed", get(unlisted), Refused(400));
    let two = "Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n";
    raw("upgrade to one of two", get(two), Refused(400));
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    raw("HTTP/2 where there is none", preface, Refused(400));
    raw(
        "another expectation",
        post("Expect: 200-ok\r\nContent-Length: 1\r\n", "a"),
        Refused(417),
    );
    let listed = "Connection: close, content-length, host\r\nContent-Length: 1\r\n";
    raw("length listed as hop-by-hop", post(listed, "a"), Served);

    // sizes
    raw(
        "start line of 100 kB",
        line(&format!("GET /{} HTTP/1.1", "a".repeat(100_000))),
        Refused(414),
    );
    raw(
        "field of 100 kB",
        get(&format!("A: {}\r\n", "a".repeat(100_000))),
        Refused(431),
    );
    let many: String = (0..65_000).map(|n| format!("a{n}: 1\r\n")).collect();
    raw("65,000 fields", get(&many), Refused(431));
    let many: String = (0..200).map(|n| format!("a{n}: 1\r\n")).collect();
    raw("200 fields", get(&many), Refused(431));
    raw("nothing", Vec::new(), Closed);
    raw(
        "half a head",
        b"GET / HTTP/1.1\r\nHost: x\r\nA".to_vec(),
        Closed,
    );
    raw(
        "half a body",
        post("Content-Length: 500\r\n", "a"),
        Refused(400),
    );
    all
}

#[test]
fn what_could_be_read_in_two_ways_is_not_passed_on() {
    let upstream = Scripted::recorder();
    let document = format!(
        "_format_version: '3.0'\nservices:\n- {{url: '{}', routes: [{{paths: [/]}}]}}\n",
        upstream.url()
    );
    let mut gateway = Alone::start(&document, "nginx_main_worker_processes = 1");
    let addr = SocketAddr::from(([127, 0, 0, 1], gateway.port));
    let mut wrong = Vec::new();
    let probes = probes();
    assert_eq!(probes.len(), 126, "the number in docs/conformance.md");
    for (name, bytes, then) in probes {
        // A connection that is kept would be waited for: the probe says that nothing follows.
        let answer = exchange_and_end(addr, name, &bytes);
        let mut received = upstream.take_received();
        if matches!(then, Torn(_)) {
            eventually("the upstream gets a part", soon(), || {
                received.extend(upstream.take_received());
                upstream.open() == 0 && !received.is_empty()
            });
        }
        let received = String::from_utf8_lossy(&received).into_owned();
        let statuses: Vec<&str> = answer
            .split("HTTP/1.1 ")
            .skip(1)
            .filter_map(|rest| rest.split(' ').next())
            .collect();
        // what the upstream saw: heads, each with its body where its framing says so
        let heads = received.matches(" HTTP/1.1\r\n").count();
        let clean = received.matches("\r\n\r\n").count() >= heads
            && !received.to_lowercase().contains("upgrade")
            && !received.to_lowercase().contains("http2-settings")
            && received.matches("host: 127.0.0.1:").count() == heads;
        let is = match then {
            Refused(status) => {
                statuses == [status.to_string()]
                    && answer.contains("connection: close\r\n")
                    && received.is_empty()
            }
            Torn(status) => {
                statuses == [status.to_string()] && heads == 1 && !received.ends_with("0\r\n\r\n")
            }
            Closed => answer.is_empty() && received.is_empty(),
            Served => statuses == ["200"] && heads == 1 && clean,
            Skipped(status) => statuses == [&*status.to_string(), "200"] && heads == 1 && clean,
            Twice => statuses == ["200", "200"] && heads == 2 && clean,
        };
        if !is {
            let shown: String = answer.chars().take(300).collect();
            let seen: String = received.chars().take(600).collect();
            wrong.push(format!(
                "{name}: not {then:?}\n  client: {shown:?}\n  upstream: {seen:?}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(gateway.program.is_running());
    assert!(!gateway.program.output().contains("panicked"));
}

/// Sends bytes, and reads until the gateway closes. Where it would wait for more, it is told that
/// nothing follows.
fn exchange_and_end(addr: SocketAddr, name: &str, bytes: &[u8]) -> String {
    let answer = match bytes.is_empty() || name.starts_with("half") {
        true => exchange_half(addr, bytes),
        false => {
            let mut all = bytes.to_vec();
            if all.ends_with(SECOND.as_bytes()) {
                all.truncate(all.len() - 2);
                all.extend_from_slice(b"Connection: close\r\n\r\n");
            }
            exchange(addr, &all, soon())
        }
    };
    String::from_utf8_lossy(&answer.unwrap_or_default()).into_owned()
}
