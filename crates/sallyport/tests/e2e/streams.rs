//! TCP, TLS and UDP that is passed on: routes, plugins, balancing, ends of all kinds.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use sallyport_testkit::{Deadline, Program, eventually, foreign, free_port, free_ports};
use serde_json::{Value, json};

use crate::lab::{Alone, Handshake, bytes_until_close, has_all, sallyport, soon, write};

/// A TCP upstream that reads to the end of what it is sent, and then says it back after its name.
pub(crate) fn parrot(name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            std::thread::spawn(move || {
                let mut said = Vec::new();
                _ = stream.read_to_end(&mut said);
                _ = stream.write_all(format!("{name}: ").as_bytes());
                _ = stream.write_all(&said);
            });
        }
    });
    address
}

/// One that says each piece back as it comes.
fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            std::thread::spawn(move || {
                let mut piece = [0; 4096];
                while let Ok(length @ 1..) = stream.read(&mut piece) {
                    if stream.write_all(&piece[..length]).is_err() {
                        break;
                    }
                }
            });
        }
    });
    address
}

fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let limit = Some(Duration::from_secs(20));
    stream.set_read_timeout(limit).unwrap();
    stream.set_write_timeout(limit).unwrap();
    stream
}

/// Says something, ends, and reads to the end.
pub(crate) fn say(port: u16, text: &str) -> String {
    let mut stream = connect(port);
    stream.write_all(text.as_bytes()).unwrap();
    // who has no upstream resets at once
    if let Err(error) = stream.shutdown(Shutdown::Write) {
        assert_eq!(error.kind(), io::ErrorKind::NotConnected, "{error}");
    }
    String::from_utf8(bytes_until_close(&mut stream)).unwrap()
}

fn service(name: &str, to: SocketAddr, route: Value) -> Value {
    let mut route = route;
    route["name"] = json!(name);
    json!({"name": name, "protocol": "tcp", "host": "127.0.0.1", "port": to.port(),
           "routes": [route]})
}

fn document(services: &[Value]) -> Value {
    json!({"_format_version": "3.0", "services": services})
}

fn start(document: &Value, more: &str) -> Alone {
    Alone::start(&document.to_string(), more)
}

#[test]
fn tcp_finds_its_route_by_both_ends_and_is_logged() {
    let [one, two] = free_ports();
    let services = [
        service(
            "by-port",
            parrot("by-port"),
            json!({"protocols": ["tcp"], "destinations": [{"port": two}]}),
        ),
        service(
            "by-source",
            parrot("by-source"),
            json!({"protocols": ["tcp"], "sources": [{"ip": "127.0.0.0/8"}],
                   "destinations": [{"port": one}]}),
        ),
    ];
    let listen = format!("stream_listen = 127.0.0.1:{one}, 127.0.0.1:{two} so_keepalive=30m::10");
    let dir = tempfile::tempdir().unwrap();
    let launch = Alone::launch(dir.path(), &document(&services).to_string(), 0, &listen);
    let program = launch.start();
    program.wait_for_line("gateway started", soon());
    assert_eq!(say(one, "hello"), "by-source: hello");
    assert_eq!(say(two, "hello"), "by-port: hello");
    eventually("both sessions are logged", soon(), || {
        let log = std::fs::read_to_string(dir.path().join("logs/access.log")).unwrap_or_default();
        let line = |bytes: &str| {
            log.lines().any(|line| {
                line.starts_with("127.0.0.1 [") && line.contains(&format!("] TCP 200 {bytes} 5 0."))
            })
        };
        line("16") && line("14")
    });
}

#[test]
fn redis_talks_through_a_stream_in_both_directions() {
    let Some(_) = foreign("redis-server", "Debian package redis-server") else {
        return;
    };
    let [redis, plain, secure] = free_ports();
    let server = Program::new("redis-server")
        .args([
            "--port",
            &redis.to_string(),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
        ])
        .start();
    server.wait_for_line("Ready to accept connections", soon());
    let document = document(&[service(
        "redis",
        SocketAddr::from(([127, 0, 0, 1], redis)),
        json!({"protocols": ["tcp", "tls"], "destinations": [{"port": plain}, {"port": secure}]}),
    )]);
    let listen = format!("stream_listen = 127.0.0.1:{plain}, 127.0.0.1:{secure} ssl");
    let _gateway = start(&document, &listen);
    let cli = |options: &str, command: &str| {
        let line = format!("redis-cli {options} {command}");
        let done = Program::new("sh").args(["-c", &line]).run(soon()).success();
        done.stdout
    };
    assert_eq!(cli(&format!("-p {plain}"), "set key value").trim(), "OK");
    // TLS ends at the gateway, and a client that names no server is served all the same
    let secure = format!("--tls --insecure -p {secure}");
    assert_eq!(cli(&secure, "get key").trim(), "value");
}

#[test]
fn tls_is_ended_or_passed_through_by_its_name() {
    let Some(_) = foreign("openssl", "Debian package openssl") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let [upstream, port] = free_ports();
    let make = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout s.key \
                -out s.crt -days 30 -subj /CN=upstream.test";
    let made = Program::new("sh").args(["-c", make]).dir(dir.path());
    made.run(soon()).success();
    let serve = format!(
        "exec openssl s_server -accept 127.0.0.1:{upstream} -cert s.crt -key s.key -rev -quiet"
    );
    let _server = Program::new("sh")
        .args(["-c", &serve])
        .dir(dir.path())
        .start();
    eventually("s_server listens", soon(), || {
        TcpStream::connect(("127.0.0.1", upstream)).is_ok()
    });
    let to = SocketAddr::from(([127, 0, 0, 1], upstream));
    let mut again = service(
        "again",
        to,
        json!({"protocols": ["tls"], "snis": ["again.test"]}),
    );
    again["protocol"] = json!("tls");
    let document = document(&[
        service(
            "through",
            to,
            json!({"protocols": ["tls_passthrough"], "snis": ["through.test"]}),
        ),
        service(
            "ended",
            echo(),
            json!({"protocols": ["tls"], "snis": ["ended.test"]}),
        ),
        again,
    ]);
    let listen = format!("stream_listen = 127.0.0.1:{port} ssl");
    let gateway = start(&document, &listen);
    let client = |name: &str| {
        // it would end with its input, so that stays open
        let line = format!(
            "(echo hello; sleep 30) | timeout 30 openssl s_client -connect 127.0.0.1:{port} {name}"
        );
        Program::new("sh").args(["-c", &line]).start()
    };
    for (name, subject, answer) in [
        // the upstream's own certificate, and its word backwards
        ("-servername through.test", "CN = upstream.test", "olleh"),
        ("-servername ended.test", "CN = localhost", "^hello"),
        // ended here, and TLS again to the upstream
        ("-servername again.test", "CN = localhost", "olleh"),
    ] {
        let client = client(name);
        client.wait_for_line(answer, soon());
        has_all(&client.output(), &[subject]);
    }
    for (name, told) in [
        ("-servername nobody.test", "no Route matched"),
        ("-noservername", "no Route matched"),
    ] {
        let before = gateway.program.lines();
        let refused = client(name);
        let line = format!("stream closed.*client.*{told}");
        gateway.program.wait_for_line_after(before, &line, soon());
        refused.wait_for_line("no peer certificate available", soon());
    }
    let before = gateway.program.lines();
    assert_eq!(say(port, "GET / HTTP/1.1\r\n\r\n"), "");
    let line = "stream closed.*not the beginning of TLS";
    gateway.program.wait_for_line_after(before, line, soon());
}

#[test]
fn names_are_looked_up_over_udp() {
    let (Some(_), Some(_)) = (
        foreign("dnsmasq", "Debian package dnsmasq-base"),
        foreign("dig", "Debian package bind9-dnsutils"),
    ) else {
        return;
    };
    let [dns, port, nobody] = free_ports();
    let server = format!(
        "exec dnsmasq --no-daemon --no-hosts --no-resolv --listen-address=127.0.0.1 \
         --bind-interfaces --port={dns} --address=/a.test/192.0.2.7 --user=root"
    );
    let server = Program::new("sh").args(["-c", &server]).start();
    server.wait_for_line("started", soon());
    let document = json!({
        "_format_version": "3.0",
        // the first try is refused, the next one is not
        "upstreams": [{"name": "dns.test", "targets": [
            {"target": format!("127.0.0.1:{nobody}")}, {"target": format!("127.0.0.1:{dns}")}]}],
        "services": [{"name": "dns", "protocol": "udp", "host": "dns.test", "port": 1,
                      "routes": [{"name": "dns", "protocols": ["udp"],
                                  "destinations": [{"port": port}]}]}],
    });
    let _gateway = start(&document, &format!("stream_listen = 127.0.0.1:{port} udp"));
    for _ in 0..4 {
        let line = format!("dig +short +tries=1 +time=10 -p {port} @127.0.0.1 a.test");
        let done = Program::new("sh").args(["-c", &line]).run(soon()).success();
        assert_eq!(done.stdout.trim(), "192.0.2.7");
    }
}

/// A UDP upstream that says back what it is sent, after its name.
fn datagrams(name: &'static str) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut piece = [0; 65_535];
        while let Ok((length, from)) = socket.recv_from(&mut piece) {
            let said = [name.as_bytes(), b": ", &piece[..length]].concat();
            _ = socket.send_to(&said, from);
        }
    });
    address
}

#[test]
fn each_client_of_udp_has_a_session_of_its_own() {
    let port = free_port();
    let (one, two) = (datagrams("one"), datagrams("two"));
    let document = json!({
        "_format_version": "3.0",
        "upstreams": [{"name": "u.test", "targets": [
            {"target": one.to_string()}, {"target": two.to_string()}]}],
        "services": [{"name": "u", "protocol": "udp", "host": "u.test", "read_timeout": 1500,
                      "routes": [{"name": "u", "protocols": ["udp"],
                                  "destinations": [{"port": port}]}]}],
    });
    let dir = tempfile::tempdir().unwrap();
    let listen = format!("stream_listen = 127.0.0.1:{port} udp\nnginx_main_worker_processes = 2");
    let program = Alone::launch(dir.path(), &document.to_string(), 0, &listen).start();
    program.wait_for_line("gateway started", soon());
    let client = || {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(("127.0.0.1", port)).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        socket
    };
    let ask = |socket: &UdpSocket, text: &str| {
        socket.send(text.as_bytes()).unwrap();
        let mut answer = [0; 65_535];
        let length = socket.recv(&mut answer).unwrap();
        String::from_utf8_lossy(&answer[..length]).into_owned()
    };
    let mut seen = std::collections::BTreeSet::new();
    for n in 0..8 {
        let socket = client();
        let first = ask(&socket, "a");
        assert_eq!(ask(&socket, "a"), first, "client {n} stays where it is");
        seen.insert(first);
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), ["one: a", "two: a"]);
    let large = "x".repeat(60_000);
    assert!(ask(&client(), &large).ends_with(&large));
    // once a client has been silent for long enough its session is over
    eventually("the sessions are logged", soon(), || {
        let log = std::fs::read_to_string(dir.path().join("logs/access.log")).unwrap_or_default();
        log.matches("] UDP 200 12 2 ").count() == 8
    });
}

#[test]
fn a_stream_goes_to_another_target_when_one_is_gone() {
    let [port, nobody] = free_ports();
    let alive = parrot("alive");
    let two_targets = json!({
        "_format_version": "3.0",
        "upstreams": [{"name": "u.test",
            "healthchecks": {"passive": {"type": "tcp", "unhealthy": {"tcp_failures": 1}}},
            "targets": [{"target": format!("127.0.0.1:{nobody}")},
                        {"target": alive.to_string()}]}],
        "services": [{"name": "u", "protocol": "tcp", "host": "u.test",
                      "routes": [{"name": "u", "protocols": ["tcp"],
                                  "destinations": [{"port": port}]}]}],
    });
    let more = format!("stream_listen = 127.0.0.1:{port}\nnginx_main_worker_processes = 1");
    let gateway = start(&two_targets, &more);
    for _ in 0..4 {
        assert_eq!(say(port, "hello"), "alive: hello");
    }
    gateway.program.wait_for_line("target is unhealthy", soon());

    let port = free_port();
    let nowhere = SocketAddr::from(([127, 0, 0, 1], nobody));
    let route = json!({"protocols": ["tcp"], "destinations": [{"port": port}]});
    let lonely = document(&[service("lonely", nowhere, route)]);
    let gateway = start(&lonely, &format!("stream_listen = 127.0.0.1:{port}"));
    assert_eq!(say(port, "hello"), "");
    gateway
        .program
        .wait_for_line("stream closed.*upstream.*could not connect", soon());
}

#[test]
fn an_address_that_is_denied_is_disconnected() {
    let port = free_port();
    let to = parrot("open");
    let mut document = document(&[service(
        "s",
        to,
        json!({"protocols": ["tcp"], "destinations": [{"port": port}]}),
    )]);
    document["plugins"] = json!([
        {"name": "ip-restriction", "protocols": ["tcp"], "config": {"deny": ["127.0.0.0/8"]}},
    ]);
    let dir = tempfile::tempdir().unwrap();
    let listen = format!("stream_listen = 127.0.0.1:{port}");
    let mut program = Alone::launch(dir.path(), &document.to_string(), 0, &listen).start();
    program.wait_for_line("gateway started", soon());
    assert_eq!(say(port, "hello"), "");
    eventually("the refusal is logged", soon(), || {
        let log = std::fs::read_to_string(dir.path().join("logs/access.log")).unwrap_or_default();
        log.contains("] TCP 403 0 0 ")
    });
    // a plugin for requests alone is none of a stream's business
    document["plugins"][0]["protocols"] = json!(["http", "https"]);
    write(&dir.path().join("kong.yml"), document.to_string());
    program.signal("HUP");
    program.wait_for_line("reloaded", soon());
    assert_eq!(say(port, "hello"), "open: hello");
}

#[test]
fn log_plugins_tell_of_sessions_in_kongs_form() {
    let port = free_port();
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("sessions.log");
    let route = json!({"protocols": ["tcp"], "destinations": [{"port": port}]});
    let mut document = document(&[service("s", parrot("p"), route)]);
    document["plugins"] = json!([
        {"name": "file-log", "protocols": ["tcp"], "config": {"path": log}},
    ]);
    let _gateway = start(&document, &format!("stream_listen = 127.0.0.1:{port}"));
    assert_eq!(say(port, "hello"), "p: hello");
    let mut text = String::new();
    eventually("the session is told", soon(), || {
        text = std::fs::read_to_string(&log).unwrap_or_default();
        text.ends_with('\n')
    });
    let entry: Value = serde_json::from_str(text.trim()).unwrap();
    let session = json!({"received": 5, "sent": 8, "status": 200, "server_port": port});
    assert_eq!(entry["session"], session);
    assert_eq!(entry["upstream"], json!({"received": 8, "sent": 5}));
    assert_eq!(entry["service"]["name"], "s");
    assert_eq!(entry["tries"][0]["ip"], "127.0.0.1");
    assert_eq!(entry["client_ip"], "127.0.0.1");
    assert!(entry["latencies"]["session"].is_u64() && entry["request"].is_null());
}

#[test]
fn a_silent_half_open_client_is_let_go_after_the_read_timeout() {
    let port = free_port();
    let mut quick = service(
        "quick",
        echo(),
        json!({"protocols": ["tcp"], "destinations": [{"port": port}]}),
    );
    quick["read_timeout"] = json!(700);
    let _gateway = start(
        &document(&[quick]),
        &format!("stream_listen = 127.0.0.1:{port}"),
    );
    let mut client = connect(port);
    client.write_all(b"x").unwrap();
    let mut byte = [0];
    client.read_exact(&mut byte).unwrap();
    // and then neither a word nor an end
    assert_eq!(bytes_until_close(&mut client), b"");
}

#[test]
fn a_session_goes_on_through_reload_and_drain() {
    let port = free_port();
    let route = json!({"protocols": ["tcp"], "destinations": [{"port": port}]});
    let dir = tempfile::tempdir().unwrap();
    let text = |to| document(&[service("s", to, route.clone())]).to_string();
    let listen = format!("stream_listen = 127.0.0.1:{port}");
    let mut program = Alone::launch(dir.path(), &text(echo()), 0, &listen).start();
    program.wait_for_line("gateway started", soon());
    let mut client = connect(port);
    let mut says_back = |text: &[u8; 4]| {
        client.write_all(text).unwrap();
        let mut answer = [0; 4];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, text);
    };
    says_back(b"one.");
    write(&dir.path().join("kong.yml"), text(parrot("new")));
    program.signal("HUP");
    program.wait_for_line("reloaded", soon());
    assert_eq!(
        say(port, "hello"),
        "new: hello",
        "newcomers take the new way"
    );
    says_back(b"two.");
    program.terminate();
    program.wait_for_line("stopping", soon());
    eventually("the listener is closed", soon(), || {
        TcpStream::connect(("127.0.0.1", port)).is_err()
    });
    says_back(b"more");
    drop(client);
    assert!(program.wait(Deadline::secs(30)).success());
}

#[test]
fn check_names_what_is_wrong_with_streams() {
    let dir = tempfile::tempdir().unwrap();
    let check = |document: &Value, more: &str| {
        _ = Alone::launch(dir.path(), &document.to_string(), 8000, more);
        let checking = sallyport().args(["gateway", "--check", "-c", "kong.conf"]);
        checking.dir(dir.path()).run(soon())
    };
    let to = SocketAddr::from(([127, 0, 0, 1], 9));
    let good = document(&[service(
        "s",
        to,
        json!({"protocols": ["tcp"], "destinations": [{"port": 9000}]}),
    )]);
    check(&good, "stream_listen = 127.0.0.1:9000").success();
    for (line, part) in [
        (
            "stream_listen = 127.0.0.1:8000",
            "is the address of 127.0.0.1:8000 in proxy_listen",
        ),
        (
            "stream_listen = 127.0.0.1:9000 http2",
            "\"http2\" is not possible in stream_listen",
        ),
        (
            "stream_listen = 127.0.0.1:53 udp ssl",
            "\"udp\" cannot be combined with ssl",
        ),
        (
            "proxy_stream_access_log = a.log fancy",
            "no log format fancy; possible: basic",
        ),
    ] {
        let told = check(&good, line);
        assert!(!told.status.success());
        has_all(&told.stderr, &[part]);
    }
    let bad = document(&[service("s", to, json!({"protocols": ["tls_passthrough"]}))]);
    let told = check(&bad, "");
    has_all(
        &told.stderr,
        &["must set one of 'snis' when 'protocols' is 'tls_passthrough'"],
    );
    // for somebody who forgets the listener
    let gateway = start(&good, "");
    gateway.program.wait_for_line(
        "routes of streams are not served: stream_listen is off",
        soon(),
    );
}

#[test]
fn a_rustls_client_is_served_by_name_too() {
    let port = free_port();
    let to = parrot("ended");
    let document = document(&[service(
        "s",
        to,
        json!({"protocols": ["tls"], "snis": ["*.a.test"]}),
    )]);
    let _gateway = start(&document, &format!("stream_listen = 127.0.0.1:{port} ssl"));
    let handshake = Handshake {
        port,
        name: "x.a.test",
        ca: None,
        pair: None,
        alpn: &["anything"],
    };
    let mut stream = handshake.open().unwrap();
    stream.write_all(b"hello").unwrap();
    stream.conn.send_close_notify();
    stream.flush().unwrap();
    stream.sock.shutdown(Shutdown::Write).unwrap();
    assert_eq!(bytes_until_close(&mut stream), b"ended: hello");
}
