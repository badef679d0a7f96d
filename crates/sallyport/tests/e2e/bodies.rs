//! Bodies on their way: trailers, `100 Continue`, interim responses, buffering, and clients that
//! leave.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sallyport_testkit::frames::{Frames, fields, flag, kind};
use sallyport_testkit::http::{get, request};
use sallyport_testkit::{Echo, Program, Scripted, eventually, foreign};

use crate::lab::{Alone, Doors, has_all, soon};

fn document(upstream: &str) -> String {
    format!(
        "_format_version: '3.0'\nservices:\n- url: '{upstream}'\n  routes:\n  \
         - {{paths: [/held], request_buffering: true}}\n  \
         - {{paths: [/streamed], request_buffering: false}}\n"
    )
}

fn alone(upstream: &str) -> Alone {
    Alone::start(&document(upstream), "nginx_main_worker_processes = 1")
}

/// A connection to the gateway on which a test says what it wants.
struct Client(TcpStream);

impl Client {
    fn new(port: u16) -> Client {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        Client(stream)
    }

    fn say(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).unwrap();
    }

    /// Reads until this has come; returns everything up to it.
    #[track_caller]
    fn until(&mut self, end: &str) -> String {
        let mut all = Vec::new();
        let mut byte = [0];
        while !all.ends_with(end.as_bytes()) {
            match self.0.read(&mut byte) {
                Ok(1) => all.push(byte[0]),
                other => panic!("{other:?} after {:?}", String::from_utf8_lossy(&all)),
            }
        }
        String::from_utf8(all).unwrap()
    }
}

#[test]
fn trailers_pass_both_ways() {
    let upstream = Scripted::start(|peer| {
        loop {
            peer.request()?;
            peer.write(
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n\
                  2\r\nok\r\n0\r\nX-Sum: 7\r\nContent-Length: 9\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n",
            )?;
        }
    });
    let gateway = Doors::start(
        &document(&upstream.url()),
        "nginx_main_worker_processes = 1",
    );
    let mut client = Client::new(gateway.plain);
    for path in ["/held", "/streamed"] {
        client.say(&format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\n\r\n\
             3\r\nabc\r\n0\r\nX-Digest: 1\r\nX-Consumer-Username: root\r\nHost: y\r\n\r\n"
        ));
        let head = client.until("\r\n\r\n");
        has_all(&head, &["HTTP/1.1 200 OK", "Trailer: X-Sum"]);
        let body = client.until("0\r\nx-sum: 7\r\n\r\n");
        assert!(body.starts_with("2\r\nok\r\n"), "{body}");
        let received = String::from_utf8(upstream.take_received()).unwrap();
        assert!(
            received.ends_with("3\r\nabc\r\n0\r\nx-digest: 1\r\n\r\n"),
            "{received}"
        );
    }
    // nobody who did not ask for trailers gets any
    client.say("GET /held HTTP/1.1\r\nHost: x\r\n\r\n");
    let head = client.until("\r\n\r\n").to_lowercase();
    assert!(!head.contains("trailer:"), "{head}");
    client.until("2\r\nok\r\n0\r\n\r\n");

    // from HTTP/2 too
    upstream.take_received();
    let stream = TcpStream::connect(("127.0.0.1", gateway.plain)).unwrap();
    let mut client = Frames::new(stream);
    client.shake_hands().unwrap();
    let head = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/streamed"),
        (":authority", "x"),
    ];
    client.send(kind::HEADERS, flag::END_HEADERS, 1, fields(&head));
    client.send(kind::DATA, 0, 1, *b"abc");
    let trailers = fields(&[("x-digest", "2"), ("x-consumer-username", "root")]);
    let end = flag::END_HEADERS | flag::END_STREAM;
    client.send(kind::HEADERS, end, 1, trailers);
    let mut received = Vec::new();
    eventually("the upstream has the trailers", soon(), || {
        received.extend(upstream.take_received());
        received.ends_with(b"0\r\nx-digest: 2\r\n\r\n")
    });

    let Some(curl) = foreign("curl", "Debian package curl") else {
        return;
    };
    let url = format!("http://127.0.0.1:{}/held", gateway.plain);
    let done = Program::new(&curl)
        .args(["-sS", "-i", "--http2-prior-knowledge", &url])
        .run(soon())
        .success();
    has_all(
        &done.stdout,
        &["HTTP/2 200", "trailer: X-Sum", "ok", "x-sum: 7"],
    );
    assert!(!done.stdout.contains("6.6.6.6"), "{}", done.stdout);
}

#[test]
fn a_body_is_asked_for_when_it_is_wanted() {
    let echo = Echo::start();
    let gateway = alone(&echo.url());
    let mut client = Client::new(gateway.port);
    let expect = |path: &str| {
        format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n"
        )
    };
    for path in ["/held", "/streamed"] {
        client.say(&expect(path));
        assert_eq!(client.until("\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
        client.say("abc");
        has_all(&client.until("\r\n\r\n"), &["HTTP/1.1 200"]);
        client.until("}");
        client.until("}");
        assert_eq!(echo.last().unwrap().body, b"abc");
        assert_eq!(echo.last().unwrap().headers.get("expect"), None);
        client = Client::new(gateway.port);
    }
    // whoever is refused is not asked
    client.say(&expect("/nowhere"));
    has_all(
        &client.until("\r\n\r\n"),
        &["HTTP/1.1 404", "connection: close"],
    );
    // a client that does not wait is not told
    let mut client = Client::new(gateway.port);
    client.say(&(expect("/held") + "abc"));
    assert!(client.until("\r\n\r\n").starts_with("HTTP/1.1 200"));
}

#[test]
fn interim_responses_are_kept_from_the_client() {
    let upstream = Scripted::start(|peer| {
        loop {
            peer.request()?;
            peer.write(
                b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n",
            )?;
            peer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
        }
    });
    let gateway = alone(&upstream.url());
    for _ in 0..3 {
        let mut client = Client::new(gateway.port);
        client.say("GET /held HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let mut all = String::new();
        client.0.read_to_string(&mut all).unwrap();
        assert!(
            all.starts_with("HTTP/1.1 200 OK\r\n") && all.ends_with("\r\n\r\nok"),
            "{all}"
        );
        assert_eq!(all.matches("HTTP/1.1 ").count(), 1, "{all}");
    }
    assert_eq!(upstream.connections(), 1, "the connection is good for more");
}

/// With buffering an upstream gets a small body when all of it is here, without it as it comes.
#[test]
fn buffering_decides_when_the_upstream_is_asked() {
    let echo = Echo::start();
    let gateway = alone(&echo.url());
    let begin = |path: &str| {
        let mut client = Client::new(gateway.port);
        client.say(&format!(
            "PUT {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n"
        ));
        client
    };
    let mut held = begin("/held");
    let mut streamed = begin("/streamed");
    eventually("the streamed one is at the upstream", soon(), || {
        echo.connections() == 1
    });
    streamed.say("1\r\nc\r\n0\r\n\r\n");
    has_all(&streamed.until("\r\n\r\n"), &["HTTP/1.1 200"]);
    let last = echo.last().unwrap();
    assert_eq!(last.headers.get("transfer-encoding"), Some("chunked"));
    held.say("1\r\nc\r\n0\r\n\r\n");
    has_all(&held.until("\r\n\r\n"), &["HTTP/1.1 200"]);
    let last = echo.last().unwrap();
    assert_eq!(
        (last.headers.get("content-length"), &last.body[..]),
        (Some("3"), &b"abc"[..])
    );

    // and whether it can be sent again
    let url = |path: &str| format!("http://127.0.0.1:{}{path}", gateway.port);
    let send = |method: &str, path: &str| {
        echo.close_connections();
        echo.close_next(1);
        let body = request(method, url(path)).body("abc");
        body.send().unwrap().status
    };
    assert_eq!(send("PUT", "/held"), 200);
    assert_eq!(echo.last().unwrap().body, b"abc");
    assert_eq!(send("PUT", "/streamed"), 502);
    assert_eq!(
        send("POST", "/held"),
        502,
        "Kong does not send it twice either"
    );
}

#[test]
fn a_client_that_leaves_frees_its_upstream() {
    let left = Arc::new(AtomicUsize::new(0));
    let counted = left.clone();
    let upstream = Scripted::start(move |peer| {
        let head = peer.head()?;
        if head.windows(8).any(|at| at == b"/ticking") {
            peer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")?;
        }
        peer.closed()?; // thinks for as long as somebody listens
        counted.fetch_add(1, Ordering::SeqCst);
        Ok(())
    });
    let log = "proxy_access_log = access.log\nnginx_main_worker_processes = 1";
    let gateway = Doors::start(&document(&upstream.url()), log);
    let mut expected = 0;
    let mut is_left = |what: &str| {
        expected += 1;
        eventually(what, soon(), || left.load(Ordering::SeqCst) == expected);
    };
    for path in ["/held", "/streamed"] {
        let mut client = Client::new(gateway.plain);
        client.say(&format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"));
        eventually("the upstream is asked", soon(), || upstream.open() == 1);
        drop(client);
        is_left("a client that waits for a head");
    }
    let mut client = Client::new(gateway.plain);
    client.say("GET /held/ticking HTTP/1.1\r\nHost: x\r\n\r\n");
    client.until("a\r\n");
    drop(client);
    is_left("a client that waits for more of a body");
    let mut client = Client::new(gateway.plain);
    client.say("POST /streamed HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc");
    eventually("the upstream is asked", soon(), || upstream.open() == 1);
    drop(client);
    is_left("a client in the middle of its body");
    eventually("the log has them", soon(), || {
        let log = std::fs::read_to_string(gateway.dir.path().join("access.log"));
        let log = log.unwrap_or_default();
        log.matches(" HTTP/1.1\" 499 ").count() == 2 && log.matches("\" 200 ").count() == 1
    });

    if let Some(curl) = foreign("curl", "Debian package curl") {
        let url = format!("http://127.0.0.1:{}/held", gateway.plain);
        let args = ["-sS", "--http2-prior-knowledge", &url];
        let mut client = Program::new(&curl).args(args).start();
        eventually("the upstream is asked", soon(), || upstream.open() == 1);
        client.kill9();
        is_left("a client that spoke HTTP/2");
    }
    eventually("nothing is left open", soon(), || upstream.open() == 0);
}

/// Requests that come in one go are answered in their order, also when the first ones wait.
#[test]
fn pipelined_requests_wait_for_each_other() {
    let echo = Echo::start();
    let gateway = alone(&echo.url());
    let seen = Arc::new(Mutex::new(Vec::new()));
    let mut client = Client::new(gateway.port);
    echo.delay(Duration::from_millis(20));
    let many: String = (0..50)
        .map(|n| format!("GET /held/{n} HTTP/1.1\r\nHost: x\r\n\r\n"))
        .collect();
    client.say(&many);
    for _ in 0..50 {
        let head = client.until("\r\n\r\n");
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "));
        let mut body = vec![0; length.unwrap().trim().parse().unwrap()];
        client.0.read_exact(&mut body).unwrap();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        seen.lock()
            .unwrap()
            .push(body["path"].as_str().unwrap().to_owned());
    }
    let expected: Vec<String> = (0..50).map(|n| format!("/{n}")).collect();
    assert_eq!(*seen.lock().unwrap(), expected);
    assert_eq!(
        get(format!("http://127.0.0.1:{}/held", gateway.port))
            .send()
            .unwrap()
            .status,
        200
    );
}
