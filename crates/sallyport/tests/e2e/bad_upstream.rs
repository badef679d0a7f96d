//! Upstreams that misbehave: each way has its status, its line in the log with whose fault it was,
//! and leaves nothing behind.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use sallyport_testkit::frames::{Frames, Next, fields, flag, kind};
use sallyport_testkit::http::{get, request};
use sallyport_testkit::{
    Deadline, Dns, DnsAnswer, DnsRecord, Echo, Peer, Scripted, eventually, free_port,
};

use crate::lab::{Alone, Doors, has_all, soon};

fn document(url: &str) -> String {
    format!(
        "_format_version: '3.0'\nservices:\n- url: '{url}'\n  retries: 1\n  read_timeout: 400\n  \
         write_timeout: 400\n  connect_timeout: 400\n  routes: [{{paths: [/], preserve_host: true}}]\n"
    )
}

/// Descriptors that the gateway has open.
fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .count()
}

fn answer(text: &'static str) -> impl Fn(&mut Peer) -> io::Result<()> {
    move |peer| {
        peer.head()?;
        peer.write(text.as_bytes())?;
        peer.closed()
    }
}

/// Runs a request against an upstream of this script; the status, what the log must say, and
/// that nothing stays open.
#[track_caller]
fn check(
    name: &str,
    script: impl Fn(&mut Peer) -> io::Result<()> + Send + Sync + 'static,
    status: u16,
    reason: &str,
) {
    let upstream = Scripted::start(script);
    let gateway = Alone::start(
        &document(&upstream.url()),
        "nginx_main_worker_processes = 1",
    );
    let before = descriptors(gateway.program.pid());
    let got = gateway
        .get("/")
        .send()
        .unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(got.status, status, "{name}: {}", got.text());
    assert!(
        got.text().contains("request_id: "),
        "{name}: {}",
        got.text()
    );
    let line = gateway.program.wait_for_line("request failed", soon());
    has_all(&line.line, &["fault: upstream", reason, "request_id: "]);
    eventually("nothing is left open", soon(), || {
        upstream.open() == 0 && descriptors(gateway.program.pid()) <= before
    });
}

#[test]
fn heads_that_are_none() {
    // or resets, as there may be a request in its socket by then
    check("closes at once", |_| Ok(()), 502, "the upstream");
    check(
        "closes after the request",
        |peer| peer.head().map(|_| ()),
        502,
        "closed",
    );
    check(
        "resets",
        |peer| peer.until(b"GET").and_then(|_| peer.reset()),
        502,
        "upstream's connection",
    );
    check(
        "garbage",
        answer("\x01\x02\x03\r\n\r\n"),
        502,
        "not HTTP/1.1",
    );
    check(
        "another protocol",
        answer("SSH-2.0-OpenSSH_9.2\r\n"),
        502,
        "not HTTP/1.1",
    );
    check("HTTP/0.9", answer("<html></html>\r\n"), 502, "not HTTP/1.1");
    check(
        "HTTP/2",
        answer("\0\0\x06\x04\0\0\0\0\0\0\x03\0\0\0\x64"),
        502,
        "not HTTP/1.1",
    );
    check(
        "two lengths",
        answer("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"),
        502,
        "not HTTP/1.1",
    );
    check(
        "a length that is none",
        answer("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"),
        502,
        "not HTTP/1.1",
    );
    check(
        "a coding that is none",
        answer("HTTP/1.1 200 OK\r\nTransfer-Encoding: x\r\n\r\n"),
        502,
        "not HTTP/1.1",
    );
    check(
        "a space before a colon",
        answer("HTTP/1.1 200 OK\r\nA : 1\r\n\r\n"),
        502,
        "not HTTP/1.1",
    );
    check(
        "another protocol unasked",
        answer("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n"),
        502,
        "not HTTP/1.1",
    );
    check(
        "10 MB of fields",
        |peer| {
            peer.head()?;
            peer.write(b"HTTP/1.1 200 OK\r\n")?;
            let line = format!("A: {}\r\n", "a".repeat(1000));
            (0..10_000).try_for_each(|_| peer.write(line.as_bytes()))
        },
        502,
        "not HTTP/1.1",
    );
    check(
        "a line without an end",
        |peer| {
            peer.head()?;
            peer.write(b"HTTP/1.1 200 ")?;
            (0..10_000).try_for_each(|_| peer.write(&[b'a'; 1000]))
        },
        502,
        "not HTTP/1.1",
    );
    check(
        "interim responses without an end",
        |peer| {
            peer.head()?;
            loop {
                peer.write(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")?;
            }
        },
        502,
        "not HTTP/1.1",
    );
}

#[test]
fn silence() {
    check(
        "says nothing",
        |peer| peer.closed(),
        504,
        "the upstream is silent",
    );
    check(
        "half a head",
        answer("HTTP/1.1 200 OK\r\nA:"),
        504,
        "the upstream is silent",
    );
    check(
        "interim responses and then nothing",
        answer("HTTP/1.1 100 Continue\r\n\r\n"),
        504,
        "the upstream is silent",
    );
    // and one that nobody listens for
    let gateway = Alone::start(&document(&format!("http://127.0.0.1:{}", free_port())), "");
    assert_eq!(gateway.get("/").send().unwrap().status, 502);
    let line = gateway.program.wait_for_line("request failed", soon());
    has_all(&line.line, &["fault: upstream", "could not connect"]);
}

/// Once the head is on its way there is no other status: the client sees that the body is cut.
#[test]
fn bodies_that_break_off() {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n";
    let bad =
        |text: &str| -> &'static str { Box::leak(format!("{chunked}{text}").into_boxed_str()) };
    let exact = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc";
    for (name, text, closes, reason) in [
        ("a length", exact, true, "closed"),
        ("chunks", bad(""), true, "closed"),
        ("within a chunk", bad("9\r\nabc"), true, "closed"),
        ("a bad chunk size", bad("x\r\n"), false, "not HTTP/1.1"),
        (
            "a chunk that is too long",
            bad("1\r\nabc\r\n"),
            false,
            "not HTTP/1.1",
        ),
        (
            "trailers that are none",
            bad("0\r\nabc\r\n\r\n"),
            false,
            "not HTTP/1.1",
        ),
        ("silence within a length", exact, false, "silent"),
        ("silence between chunks", bad(""), false, "silent"),
    ] {
        let upstream = Scripted::start(move |peer| {
            peer.head()?;
            peer.write(text.as_bytes())?;
            if closes { Ok(()) } else { peer.closed() }
        });
        let gateway = Doors::start(
            &document(&upstream.url()),
            "nginx_main_worker_processes = 1",
        );
        let mut stream = TcpStream::connect(("127.0.0.1", gateway.plain)).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        stream
            .write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            .unwrap();
        let mut all = String::new();
        stream.read_to_string(&mut all).unwrap();
        assert!(all.starts_with("HTTP/1.1 200 OK\r\n"), "{name}: {all}");
        assert!(
            !all.ends_with("\r\n0\r\n\r\n"),
            "{name}: it looks whole: {all}"
        );
        let line = gateway
            .program
            .wait_for_line("a response broke off", soon());
        has_all(&line.line, &["fault: upstream", reason]);
        // over HTTP/2 that is a reset of the stream
        let mut client = Frames::new(TcpStream::connect(("127.0.0.1", gateway.plain)).unwrap());
        client.shake_hands().unwrap();
        let head = [
            (":method", "GET"),
            (":scheme", "http"),
            (":path", "/"),
            (":authority", "x"),
        ];
        let end = flag::END_HEADERS | flag::END_STREAM;
        client.send(kind::HEADERS, end, 1, fields(&head));
        loop {
            match client.next() {
                Next::Frame(frame) if frame.kind == kind::RST_STREAM => break,
                Next::Frame(frame) => assert!(
                    !matches!(frame.kind, kind::DATA | kind::HEADERS)
                        || !frame.has(flag::END_STREAM),
                    "{name}: it looks whole"
                ),
                other => panic!("{name}: {other:?}"),
            }
        }
        eventually("nothing is left open", soon(), || upstream.open() == 0);
    }
}

/// What an upstream sends beside its responses is never taken for one.
#[test]
fn strays_reach_nobody() {
    let upstream = Scripted::start(|peer| {
        loop {
            let head = peer.head()?;
            let stray = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nstray";
            let text = if head.starts_with(b"GET /two") {
                format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok{stray}")
            } else if head.starts_with(b"HEAD") {
                format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{stray}",
                    stray.len()
                )
            } else if head.starts_with(b"GET /none") {
                format!(
                    "HTTP/1.1 204 No Content\r\nContent-Length: {}\r\n\r\n{stray}",
                    stray.len()
                )
            } else if head.starts_with(b"GET /same") {
                format!("HTTP/1.1 304 Not Modified\r\n\r\n{stray}")
            } else {
                "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nmine".to_owned()
            };
            peer.write(text.as_bytes())?;
        }
    });
    let gateway = Alone::start(
        &document(&upstream.url()),
        "nginx_main_worker_processes = 1",
    );
    let url = |path: &str| format!("http://127.0.0.1:{}{path}", gateway.port);
    for (method, path, status) in [
        ("GET", "/two", 200),
        ("HEAD", "/", 200),
        ("GET", "/none", 204),
        ("GET", "/same", 304),
    ] {
        assert_eq!(
            request(method, url(path)).send().unwrap().status,
            status,
            "{method} {path}"
        );
        for _ in 0..3 {
            assert_eq!(
                get(url("/mine")).send().unwrap().text(),
                "mine",
                "after {method} {path}"
            );
        }
    }
}

#[test]
fn names_that_fail_come_back() {
    let echo = Echo::start();
    let dns = Dns::start();
    let name = "flaps.test";
    let document = format!(
        "_format_version: '3.0'\nservices:\n- {{host: {name}, port: {}, routes: [{{paths: [/]}}]}}\n",
        echo.port()
    );
    let more = format!(
        "dns_resolver = {}\ndns_order = A\ndns_hostsfile = /dev/null\ndns_error_ttl = 0.05\ndns_not_found_ttl = 0.05\n\
         nginx_main_worker_processes = 1",
        dns.addr()
    );
    let gateway = Alone::start(&document, &more);
    let all = |answer: DnsAnswer| dns.set(name, "A", answer);
    for (what, answer) in [
        ("no such name", DnsAnswer::NxDomain),
        ("nothing", DnsAnswer::Empty),
        ("failed", DnsAnswer::ServFail),
        ("refused", DnsAnswer::Refused),
        ("garbage", DnsAnswer::Garbage),
    ] {
        all(answer);
        let got = gateway
            .get("/")
            .timeout(Duration::from_secs(60))
            .send()
            .unwrap();
        assert_eq!(got.status, 503, "{what}: {}", got.text());
        assert_eq!(got.json()["message"], "name resolution failed", "{what}");
    }
    has_all(
        &gateway.program.wait_for_line("request failed", soon()).line,
        &["fault: upstream"],
    );
    all(DnsAnswer::Records(vec![DnsRecord::ip(0, "127.0.0.1")]));
    eventually("the name is found", Deadline::secs(60), || {
        gateway.get("/").send().unwrap().status == 200
    });
    // what was known goes on being used
    all(DnsAnswer::ServFail);
    for _ in 0..5 {
        assert_eq!(gateway.get("/").send().unwrap().status, 200);
    }
}

/// Patterns that would keep a backtracking engine busy for ever take their time in the length of
/// the path; those too large to compile are refused by name.
#[test]
fn regular_expressions_do_not_explode() {
    let echo = Echo::start();
    let document = |path: &str| {
        format!(
            "_format_version: '3.0'\nservices:\n- {{url: '{}', routes: [{{name: boom, paths: ['{path}']}}]}}\n",
            echo.url()
        )
    };
    let gateway = Alone::start(&document("~/(a+)+$"), "");
    let path = format!("/{}!", "a".repeat(8_000));
    assert_eq!(gateway.get(&path).send().unwrap().status, 404);
    assert_eq!(gateway.get("/aaa").send().unwrap().status, 200);
    let dir = tempfile::tempdir().unwrap();
    let done = Alone::launch(
        dir.path(),
        &document("~/((x{1000}){1000}){1000}"),
        free_port(),
        "",
    )
    .run(soon());
    assert_eq!(done.status.code(), Some(1), "{done:?}");
    has_all(&done.stderr, &["boom"]);
}
