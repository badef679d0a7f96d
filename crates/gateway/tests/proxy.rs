//! The proxy path on real sockets: framing, retries, timeouts, connections kept and closed.

#![allow(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

#[path = "proxy/flavors.rs"]
mod flavors;
#[path = "proxy/one_reading.rs"]
mod one_reading;
#[path = "proxy/websocket.rs"]
mod websocket;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread::JoinHandle;
use std::time::Duration;

use sallyport_gateway::Gateway;
use sallyport_gateway::conf::{Conf, Material};
use sallyport_testkit::{Deadline, Echo, eventually, free_port, http};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

/// A gateway in this process, with one service behind `/`.
struct Running {
    runtime: Runtime,
    gateway: Option<Gateway>,
    address: SocketAddr,
}

impl Running {
    fn start(upstream: SocketAddr, service: Value, conf: &str) -> Running {
        let mut service_fields = json!({
            "name": "s", "host": upstream.ip().to_string(), "port": upstream.port(),
            "routes": [{"name": "r", "paths": ["/"], "strip_path": false}],
        });
        for (name, value) in service.as_object().unwrap() {
            service_fields[name] = value.clone();
        }
        Running::declared(
            &json!({"_format_version": "3.0", "services": [service_fields]}),
            conf,
        )
    }

    fn declared(declared: &Value, conf: &str) -> Running {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let prefix = std::env::temp_dir();
        let text = format!(
            "database = off\nprefix = {}\nproxy_listen = 127.0.0.1:0\nstatus_listen = off\n\
             admin_listen = off\nproxy_access_log = off\nnginx_main_worker_processes = 1\n{conf}\n",
            prefix.display()
        );
        let environment = [(
            "KONG_DECLARATIVE_CONFIG_STRING".to_owned(),
            declared.to_string(),
        )];
        let installed: Vec<_> = sallyport_plugins::ALL.iter().map(|p| p.name()).collect();
        let (conf, _) = Conf::load(Some(&text), environment, &installed).unwrap();
        let material = Material::read(&conf).unwrap();
        let gateway = runtime.block_on(Gateway::start(conf, material)).unwrap();
        let address = gateway.proxy_addresses()[0];
        Running {
            runtime,
            gateway: Some(gateway),
            address,
        }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn get(&self, path: &str) -> http::Response {
        http::get(self.url(path)).send().unwrap()
    }

    /// What comes back for these bytes until the connection closes or `deadline`.
    fn raw(&self, bytes: &str) -> String {
        let answer = http::exchange(self.address, bytes.as_bytes(), Deadline::secs(20)).unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }

    fn stop(&mut self) {
        if let Some(gateway) = self.gateway.take() {
            self.runtime.block_on(gateway.stop());
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
    }
}

/// An upstream that plays a script: for each connection, one answer for each request head.
fn scripted(connections: Vec<Vec<&'static str>>) -> (SocketAddr, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let thread = std::thread::spawn(move || {
        let mut seen = Vec::new();
        for answers in connections {
            let (mut stream, _) = listener.accept().unwrap();
            stream
                .set_read_timeout(Some(Duration::from_secs(20)))
                .unwrap();
            for answer in answers {
                seen.push(read_head(&mut stream));
                stream.write_all(answer.as_bytes()).unwrap();
            }
        }
        seen
    });
    (address, thread)
}

fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => break,
        }
    }
    String::from_utf8_lossy(&head).into_owned()
}

#[test]
fn requests_and_responses_carry_their_marks() {
    let echo = Echo::start();
    let gateway = Running::start(echo.addr(), json!({}), "");
    let answer = http::request("POST", gateway.url("/a/b?x=1"))
        .header("X-Forwarded-For", "1.1.1.1")
        .header("X-Forwarded-Proto", "https")
        .header("Connection", "X-Secret")
        .header("X-Secret", "1")
        .body("hello")
        .send()
        .unwrap();
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("via"), Some("1.1 kong/3.9.1"));
    for name in [
        "x-kong-upstream-latency",
        "x-kong-proxy-latency",
        "x-kong-request-id",
    ] {
        assert!(answer.header(name).is_some(), "{name}");
    }
    let seen = answer.json();
    assert_eq!(
        (seen["method"].as_str(), seen["path"].as_str()),
        (Some("POST"), Some("/a/b?x=1"))
    );
    assert_eq!(seen["body"], "hello");
    let headers = &seen["headers"];
    assert_eq!(headers["x-forwarded-for"], json!(["1.1.1.1, 127.0.0.1"]));
    assert_eq!(
        headers["x-forwarded-proto"],
        json!(["http"]),
        "an untrusted client's is replaced"
    );
    assert_eq!(headers["host"], json!([echo.addr().to_string()]));
    assert!(headers["x-secret"].is_null(), "listed in Connection");
    assert_eq!(
        headers["x-kong-request-id"][0],
        answer.header("x-kong-request-id").unwrap()
    );
}

#[test]
fn a_trusted_proxy_is_believed() {
    let echo = Echo::start();
    let conf =
        "trusted_ips = 127.0.0.0/8\nreal_ip_header = X-Forwarded-For\nreal_ip_recursive = on";
    let gateway = Running::start(echo.addr(), json!({}), conf);
    let seen = http::get(gateway.url("/"))
        .header("X-Forwarded-For", "9.9.9.9, 8.8.8.8, 127.0.0.7")
        .header("X-Forwarded-Proto", "https")
        .send()
        .unwrap()
        .json();
    assert_eq!(seen["headers"]["x-real-ip"], json!(["8.8.8.8"]));
    assert_eq!(seen["headers"]["x-forwarded-proto"], json!(["https"]));
    assert_eq!(
        seen["headers"]["x-forwarded-for"],
        json!(["9.9.9.9, 8.8.8.8, 127.0.0.7, 127.0.0.1"])
    );
}

#[test]
fn upstream_connections_are_kept_and_checked_before_use() {
    let echo = Echo::start();
    let gateway = Running::start(echo.addr(), json!({}), "");
    for _ in 0..5 {
        assert_eq!(gateway.get("/").status, 200);
    }
    assert_eq!((echo.count(), echo.connections()), (5, 1));
    echo.close_connections();
    assert_eq!(
        gateway.get("/").status,
        200,
        "a connection that was closed is not used"
    );
}

#[test]
fn several_requests_on_one_client_connection() {
    let echo = Echo::start();
    let gateway = Running::start(echo.addr(), json!({}), "");
    let answers = gateway.raw(
        "GET /1 HTTP/1.1\r\nHost: x\r\n\r\n\
         POST /2 HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc\
         POST /3 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nde\r\n0\r\n\r\n\
         HEAD /4 HTTP/1.1\r\nHost: x\r\n\r\n\
         GET /5 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    );
    assert_eq!(
        answers.matches("HTTP/1.1 200 OK\r\n").count(),
        5,
        "{answers}"
    );
    for part in ["\"/1\"", "\"abc\"", "\"de\"", "\"/5\"", "connection: close"] {
        assert!(answers.contains(part), "{part} is not in {answers}");
    }
    assert!(
        !answers.contains("\"/4\""),
        "the answer to HEAD has no body"
    );
}

#[test]
fn what_is_not_strict_http_is_refused_and_the_connection_closed() {
    let echo = Echo::start();
    let gateway = Running::start(echo.addr(), json!({}), "");
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n";
    for (bad, status) in [
        (
            "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n",
            400,
        ),
        (
            "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\n",
            400,
        ),
        ("GET / HTTP/1.1\r\nHost: x\r\nA: 1\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: x\r\nA: 1\r\n b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\n\r\n", 400),
        (
            "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n",
            501,
        ),
        ("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", 405),
        ("rubbish\r\n\r\n", 400),
    ] {
        let answer = gateway.raw(&format!("{bad}{smuggled}"));
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{bad:?} got {answer}"
        );
        assert_eq!(
            answer.matches("HTTP/1.1 ").count(),
            1,
            "{bad:?} got {answer}"
        );
    }
    let long = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(100_000));
    assert!(gateway.raw(&long).starts_with("HTTP/1.1 414 "));
    let wide = format!(
        "GET / HTTP/1.1\r\nHost: x\r\nA: {}\r\n\r\n",
        "a".repeat(100_000)
    );
    assert!(gateway.raw(&wide).starts_with("HTTP/1.1 431 "));
    assert_eq!(echo.count(), 0, "nothing of it reached the upstream");
}

#[test]
fn a_client_that_asks_is_told_to_continue() {
    let echo = Echo::start();
    let gateway = Running::start(echo.addr(), json!({}), "");
    let mut stream = TcpStream::connect(gateway.address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let head = "POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    assert_eq!(read_head(&mut stream), "HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"ok").unwrap();
    assert!(read_head(&mut stream).starts_with("HTTP/1.1 200 "));
    assert_eq!(echo.last().unwrap().body, b"ok");
}

#[test]
fn bodies_of_every_framing_pass_through() {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=1\r\nde\r\n0\r\nT: 1\r\n\r\n";
    let until_close = "HTTP/1.1 200 OK\r\n\r\nabcde";
    let early_hints = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabcde";
    let (address, upstream) = scripted(vec![
        vec![chunked, chunked],
        vec![until_close],
        vec![early_hints],
    ]);
    let gateway = Running::start(address, json!({}), "");
    let first = gateway.get("/");
    assert_eq!(
        (first.text().as_str(), first.header("transfer-encoding")),
        ("abcde", Some("chunked"))
    );
    let old = gateway.raw("GET / HTTP/1.0\r\n\r\n");
    assert!(
        old.ends_with("\r\n\r\nabcde") && !old.contains("chunked"),
        "{old}"
    );
    assert_eq!(gateway.get("/").text(), "abcde");
    assert_eq!(gateway.get("/").text(), "abcde");
    upstream.join().unwrap();
}

#[test]
fn large_bodies_pass_both_ways() {
    let echo = Echo::start();
    let gateway = Running::start(echo.addr(), json!({}), "");
    let body = "0123456789abcdef".repeat(128 * 1024);
    let answer = http::request("POST", gateway.url("/"))
        .body(body.clone())
        .send()
        .unwrap();
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json()["body"], body);
}

#[test]
fn a_body_over_the_limit_is_refused() {
    let echo = Echo::start();
    let gateway = Running::start(
        echo.addr(),
        json!({}),
        "nginx_http_client_max_body_size = 10",
    );
    let told = http::request("POST", gateway.url("/"))
        .body("x".repeat(11))
        .send()
        .unwrap();
    assert_eq!(told.status, 413);
    let chunks = "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n\
                  8\r\n12345678\r\n8\r\n12345678\r\n0\r\n\r\n";
    assert!(gateway.raw(chunks).starts_with("HTTP/1.1 413 "));
    let fits = http::request("POST", gateway.url("/"))
        .body("x".repeat(10))
        .send()
        .unwrap();
    assert_eq!(fits.status, 200);
}

#[test]
fn failed_tries_are_repeated_only_where_nothing_can_happen_twice() {
    let ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let (address, upstream) = scripted(vec![vec![""], vec![""], vec![ok]]);
    let gateway = Running::start(address, json!({"retries": 2}), "");
    assert_eq!(gateway.get("/").text(), "ok", "a GET is sent again");
    upstream.join().unwrap();

    let (address, upstream) = scripted(vec![vec![""]]);
    let gateway = Running::start(address, json!({"retries": 5}), "");
    let post = http::request("POST", gateway.url("/"))
        .body("pay")
        .send()
        .unwrap();
    assert_eq!(post.status, 502);
    assert_eq!(
        upstream.join().unwrap().len(),
        1,
        "a POST is not sent again"
    );
}

#[test]
fn upstreams_that_fail_have_their_status() {
    let nobody = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let refused = Running::start(nobody, json!({"retries": 1}), "").get("/");
    assert_eq!(refused.status, 502);
    assert!(
        refused
            .text()
            .starts_with("An invalid response was received from the upstream server\n")
    );

    for garbage in [
        "SSH-2.0-OpenSSH\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
    ] {
        let (address, upstream) = scripted(vec![vec![garbage]]);
        let gateway = Running::start(address, json!({"retries": 0}), "");
        assert_eq!(gateway.get("/").status, 502, "{garbage:?}");
        upstream.join().unwrap();
    }

    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let service = json!({"retries": 0, "read_timeout": 200});
    let gateway = Running::start(silent.local_addr().unwrap(), service, "");
    assert_eq!(gateway.get("/").status, 504);

    let service = json!({"retries": 0, "host": "no-such-host.invalid"});
    let unknown = Running::start(nobody, service, "").get("/");
    assert_eq!(unknown.status, 503);
    assert_eq!(unknown.json()["message"], "name resolution failed");
}

#[test]
fn a_response_that_breaks_off_does_not_look_whole() {
    let half = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc";
    let half_chunk = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab";
    let (address, upstream) = scripted(vec![vec![half], vec![half_chunk]]);
    let gateway = Running::start(address, json!({"retries": 0}), "");
    let answer = gateway.raw("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(
        answer.contains("content-length: 10") && answer.ends_with("abc"),
        "{answer}"
    );
    let answer = gateway.raw("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(!answer.ends_with("0\r\n\r\n"), "{answer}");
    upstream.join().unwrap();
}

#[test]
fn an_answer_before_the_whole_request_is_passed_on() {
    let refused = "HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno";
    let (address, upstream) = scripted(vec![vec![refused]]);
    let gateway = Running::start(address, json!({"retries": 0}), "");
    let mut stream = TcpStream::connect(gateway.address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let head = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nabc";
    stream.write_all(head.as_bytes()).unwrap();
    let answer = read_head(&mut stream);
    assert!(
        answer.starts_with("HTTP/1.1 401 ") && answer.contains("connection: close"),
        "{answer}"
    );
    upstream.join().unwrap();
}

#[test]
fn targets_share_requests_by_weight() {
    let (a, b) = (Echo::start(), Echo::start());
    let declared = json!({
        "_format_version": "3.0",
        "services": [{"name": "s", "host": "pool", "routes": [{"name": "r", "paths": ["/"]}]}],
        "upstreams": [{"name": "pool", "targets": [
            {"target": a.addr().to_string(), "weight": 20},
            {"target": b.addr().to_string(), "weight": 10},
        ]}],
    });
    let gateway = Running::declared(&declared, "");
    for _ in 0..30 {
        assert_eq!(gateway.get("/").status, 200);
    }
    assert_eq!((a.count(), b.count()), (20, 10));
}

#[test]
fn an_upstream_without_targets_has_no_peer() {
    let declared = json!({
        "_format_version": "3.0",
        "services": [{"name": "s", "host": "pool", "routes": [{"name": "r", "paths": ["/"]}]}],
        "upstreams": [{"name": "pool"}],
    });
    let answer = Running::declared(&declared, "").get("/");
    assert_eq!(answer.status, 503);
    assert_eq!(
        answer.json()["message"],
        "failure to get a peer from the ring-balancer"
    );
}

#[test]
fn routes_for_tls_send_plain_requests_away() {
    let route = |status: u16| {
        json!({"_format_version": "3.0", "services": [{"name": "s", "host": "127.0.0.1",
            "routes": [{"name": "r", "paths": ["/"], "protocols": ["https"],
                        "https_redirect_status_code": status}]}]})
    };
    let upgrade = Running::declared(&route(426), "").get("/x");
    assert_eq!(upgrade.status, 426);
    assert_eq!(upgrade.header("upgrade"), Some("TLS/1.2, HTTP/1.1"));
    assert_eq!(upgrade.json()["message"], "Please use HTTPS protocol");
    let moved = Running::declared(&route(308), "").get("/x?a=1");
    assert_eq!(
        (moved.status, moved.header("location")),
        (308, Some("https://127.0.0.1/x?a=1"))
    );
}

#[test]
fn stopping_lets_a_request_finish_and_drops_idle_connections() {
    let echo = Echo::start();
    let mut gateway = Running::start(echo.addr(), json!({}), "");
    let mut idle = TcpStream::connect(gateway.address).unwrap();
    idle.set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    idle.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        .unwrap();
    assert!(read_head(&mut idle).starts_with("HTTP/1.1 200 "));
    echo.delay(Duration::from_millis(300));
    let url = gateway.url("/slow");
    let before = echo.count();
    let slow = std::thread::spawn(move || http::get(url).send().unwrap());
    eventually("the slow request is under way", Deadline::secs(10), || {
        echo.count() > before
    });
    let address = gateway.address;
    gateway.stop();
    let answer = slow.join().unwrap();
    assert_eq!(answer.status, 200);
    assert!(
        TcpStream::connect(address).is_err(),
        "nobody listens any more"
    );
    let mut rest = Vec::new();
    idle.read_to_end(&mut rest).ok();
}

#[test]
fn a_port_that_is_taken_is_named_with_its_setting() {
    let echo = Echo::start();
    let gateway = Running::start(echo.addr(), json!({}), "");
    let text = format!(
        "database = off\nprefix = /tmp\nproxy_listen = {} reuseport\nstatus_listen = off\nadmin_listen = off\nproxy_access_log = off\n",
        gateway.address
    );
    let (conf, _) = Conf::load(Some(&text), [], &[]).unwrap();
    let material = Material::read(&conf).unwrap();
    let started = gateway.runtime.block_on(Gateway::start(conf, material));
    let error = started.err().unwrap().to_string();
    for part in [
        gateway.address.to_string().as_str(),
        "in use",
        "proxy_listen",
    ] {
        assert!(error.contains(part), "{part} is not in {error}");
    }
}

/// A gateway whose one service is reached by this route.
fn routed(echo: &Echo, route: Value) -> Running {
    let mut fields = json!({"name": "r", "strip_path": true});
    for (name, value) in route.as_object().unwrap() {
        fields[name] = value.clone();
    }
    Running::start(echo.addr(), json!({"routes": [fields]}), "")
}

#[test]
fn an_empty_body_has_a_length_if_the_client_said_so() {
    let echo = Echo::start();
    let gateway = Running::start(echo.addr(), json!({}), "");
    let length = |line: &str| {
        gateway.raw(&format!(
            "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{line}\r\n"
        ));
        echo.last()
            .unwrap()
            .headers
            .get("content-length")
            .map(str::to_owned)
    };
    assert_eq!(length("Content-Length: 0\r\n").as_deref(), Some("0"));
    assert_eq!(length(""), None);
}

#[test]
fn answers_without_a_body_keep_the_upstream_connection() {
    let none = "HTTP/1.1 204 No Content\r\n\r\n";
    let unchanged = "HTTP/1.1 304 Not Modified\r\n\r\n";
    let (address, upstream) = scripted(vec![vec![none, unchanged, none]]);
    let service = json!({"retries": 0, "read_timeout": 2000});
    let gateway = Running::start(address, service, "");
    for status in [204, 304, 204] {
        assert_eq!(gateway.get("/").status, status);
    }
    assert_eq!(upstream.join().unwrap().len(), 3);

    // one that says it has a body may send it, so nothing else is read behind it
    let strange = "HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\n";
    let (address, upstream) = scripted(vec![vec![strange], vec![none]]);
    let gateway = Running::start(address, json!({"retries": 0}), "");
    let first = gateway.get("/");
    assert_eq!((first.status, first.header("content-length")), (204, None));
    assert_eq!(gateway.get("/").status, 204);
    upstream.join().unwrap();
}

#[test]
fn what_nobody_can_read_is_not_asked_for_twice() {
    let ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let (address, upstream) = scripted(vec![vec!["SSH-2.0-OpenSSH\r\n\r\n"], vec![ok]]);
    let gateway = Running::start(address, json!({"retries": 5}), "");
    assert_eq!(gateway.get("/").status, 502);
    assert_eq!(gateway.get("/").status, 200, "the next request");
    upstream.join().unwrap();
}

#[test]
fn trailers_that_are_not_passed_on_are_not_announced() {
    let answer =
        "HTTP/1.1 200 OK\r\nTrailer: T\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nT: 1\r\n\r\n";
    let (address, upstream) = scripted(vec![vec![answer]]);
    let gateway = Running::start(address, json!({}), "");
    assert_eq!(gateway.get("/").header("trailer"), None);
    upstream.join().unwrap();
}

#[test]
fn an_own_answer_to_a_body_that_is_here_keeps_the_connection() {
    let echo = Echo::start();
    let gateway = routed(&echo, json!({"paths": ["/known"]}));
    let answers = gateway.raw(
        "POST /1 HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc\
         POST /2 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nde\r\n0\r\n\r\n\
         GET /known HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    );
    assert_eq!(answers.matches("HTTP/1.1 404 ").count(), 2, "{answers}");
    assert_eq!(answers.matches("HTTP/1.1 200 ").count(), 1, "{answers}");
}

#[test]
fn a_kept_connection_that_ends_is_no_failed_try() {
    let ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let (address, upstream) = scripted(vec![vec![ok, ""], vec![ok]]);
    let gateway = Running::start(address, json!({"retries": 0}), "");
    assert_eq!(gateway.get("/").text(), "ok");
    assert_eq!(gateway.get("/").text(), "ok", "on a new connection");
    upstream.join().unwrap();
}

#[test]
fn a_head_may_come_byte_by_byte() {
    let echo = Echo::start();
    let gateway = Running::start(echo.addr(), json!({}), "");
    let mut stream = TcpStream::connect(gateway.address).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    for byte in b"\r\n\r\nPOST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nb" {
        stream.write_all(&[*byte]).unwrap();
    }
    assert!(read_head(&mut stream).starts_with("HTTP/1.1 200 "));
    assert_eq!(echo.last().unwrap().body, b"b");
}

#[test]
fn what_is_disabled_is_not_served() {
    let echo = Echo::start();
    let off = Running::start(echo.addr(), json!({"enabled": false}), "").get("/");
    assert_eq!(off.status, 404, "the routes of a disabled service are gone");
    let plugins = json!([{"name": "key-auth", "enabled": false}]);
    let open = Running::start(echo.addr(), json!({"plugins": plugins}), "").get("/");
    assert_eq!(open.status, 200, "a disabled plugin does not run");
}
