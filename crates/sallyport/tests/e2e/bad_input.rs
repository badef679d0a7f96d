//! What strangers and tired people send: a clear answer that names the thing, and nothing else
//! happens.

use std::io::Write;
use std::net::{SocketAddr, TcpListener};

use sallyport_testkit::http::{exchange, get, request};
use sallyport_testkit::{Echo, free_port};
use serde_json::{Value, json};

use crate::lab::{Alone, Control, Handshake, bytes_until_close, has_all, sallyport, soon};

#[test]
fn the_api_refuses_bad_entities_by_name_and_stores_nothing() {
    let control = Control::start();
    control.put("services/orders", &json!({"host": "orders.example"}));
    let check = |path: &str, body: Value, status: u16, parts: &[&str]| {
        let answer = control.core("POST", path, &body);
        assert_eq!(answer.status, status, "{path} {body}: {}", answer.text());
        let shown = answer.json();
        assert!(
            shown["message"].is_string() && shown["code"].is_number(),
            "{shown}"
        );
        has_all(&answer.text(), parts);
    };
    check(
        "plugins",
        json!({"name": "no-such-plugin"}),
        400,
        &["no-such-plugin"],
    );
    check(
        "plugins",
        json!({"name": "key-auth", "config": {"x": 1}}),
        400,
        &["config", "x"],
    );
    check(
        "services",
        json!({"host": "h", "colour": "red"}),
        400,
        &["colour", "unknown field"],
    );
    check(
        "services",
        json!({"host": "h", "port": "eighty"}),
        400,
        &["port", "integer"],
    );
    check(
        "services",
        json!({"host": "h", "port": 70_000}),
        400,
        &["port", "65535"],
    );
    check("services", json!({"name": "x"}), 400, &["host"]);
    check(
        "services",
        json!({"name": "orders", "host": "h"}),
        400,
        &["name", "unique", "orders"],
    );
    let nowhere = "7c4c3ed5-7a4c-4d3c-8f8f-1f0b0f7e2d11";
    check(
        "routes",
        json!({"paths": ["/x"], "service": {"id": nowhere}}),
        400,
        &["service", nowhere],
    );
    check("routes", json!({"paths": ["~/("]}), 400, &["paths"]);
    check(
        "routes",
        json!({"service": {"name": "orders"}}),
        400,
        &["paths"],
    );
    check(
        "upstreams/nowhere/targets",
        json!({"target": "t:1"}),
        404,
        &[],
    );
    // several at once are all told
    let both = json!({"host": "h", "port": 70_000, "retries": "many"});
    check("services", both, 400, &["port", "retries"]);

    for (kind, left) in [
        ("services", 1),
        ("routes", 0),
        ("plugins", 0),
        ("upstreams", 0),
    ] {
        let list = control.core("GET", kind, &Value::Null).json();
        assert_eq!(list["data"].as_array().unwrap().len(), left, "{kind}");
    }
    let refused = control.core("DELETE", "services/nowhere", &Value::Null);
    assert!(matches!(refused.status, 204 | 404), "{}", refused.status);
}

#[test]
fn the_api_bounds_bodies_and_wants_json_and_a_token() {
    let mut control = Control::start();
    let token = std::fs::read_to_string(control.home().join("token")).unwrap();
    let ca = control.ca();
    let port = control.port;
    let path = format!("/v2/control-planes/{}/core-entities/services", control.id);
    let send = |token: &str, body: Vec<u8>| {
        let handshake = Handshake {
            port,
            name: "localhost",
            ca: Some(&ca),
            pair: None,
            alpn: &["http/1.1"],
        };
        request("POST", format!("https://127.0.0.1:{port}{path}"))
            .header("Authorization", format!("Bearer {token}"))
            .header("Content-Type", "application/json")
            .body(body)
            .send_over(&mut handshake.open().unwrap())
    };
    let send = |token: &str, body: &[u8]| send(token, body.to_vec()).unwrap();
    let token = token.trim();
    let good = br#"{"host": "h"}"#;
    assert_eq!(send("kpat_guessed", good).status, 401);
    assert_eq!(send("", good).status, 401);
    for broken in [
        &b"{\"host\": "[..],
        b"[]",
        b"null",
        b"",
        b"\xff\xfe",
        b"host=h",
    ] {
        let answer = send(token, broken);
        assert_eq!(answer.status, 400, "{broken:?}: {}", answer.text());
    }
    let deep = "[".repeat(200_000);
    assert_eq!(send(token, deep.as_bytes()).status, 400);
    assert_eq!(send(token, good).status, 201);

    // Too large: by its announcement, without the body being sent.
    let handshake = Handshake {
        port,
        name: "localhost",
        ca: Some(&ca),
        pair: None,
        alpn: &["http/1.1"],
    };
    let mut stream = handshake.open().unwrap();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\
         Content-Length: 99999999999\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    let answer = String::from_utf8(bytes_until_close(&mut stream)).unwrap();
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    has_all(&answer, &["larger than"]);

    // Too large without one: as much as is sent.
    let mut stream = handshake.open().unwrap();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\
         Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    let chunk = format!("10000\r\n{}\r\n", " ".repeat(0x10000));
    // It stops reading once it has seen too much.
    for _ in 0..200 {
        if stream.write_all(chunk.as_bytes()).is_err() {
            break;
        }
    }
    let answer = String::from_utf8(bytes_until_close(&mut stream)).unwrap();
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 413 "),
        "{answer}"
    );

    assert!(control.program.is_running());
    assert_eq!(send(token, br#"{"host": "h2"}"#).status, 201);
}

#[test]
fn a_gateway_bounds_bodies() {
    let echo = Echo::start();
    let document = format!(
        "_format_version: '3.0'\nservices:\n- {{name: e, url: '{}', routes: [{{paths: [/]}}]}}\n",
        echo.url()
    );
    let gateway = Alone::start(&document, "nginx_http_client_max_body_size = 1k");
    let post = |bytes: usize| {
        let url = format!("http://127.0.0.1:{}/", gateway.port);
        request("POST", url)
            .header("Accept", "application/json")
            .body(vec![b'x'; bytes])
            .send()
            .unwrap()
    };
    assert_eq!(post(1024).status, 200);
    let refused = post(1025);
    assert_eq!(refused.status, 413);
    assert_eq!(refused.json()["message"], "Payload too large");
    assert_eq!(echo.count(), 1);
}

#[test]
fn a_gateway_answers_rubbish_with_400_and_goes_on() {
    let echo = Echo::start();
    let document = format!(
        "_format_version: '3.0'\nservices:\n- {{name: e, url: '{}', routes: [{{paths: [/]}}]}}\n",
        echo.url()
    );
    let mut gateway = Alone::start(&document, "");
    let addr = SocketAddr::from(([127, 0, 0, 1], gateway.port));
    let check = |bytes: &[u8], status: &str| {
        let answer = exchange(addr, bytes, soon()).unwrap();
        let answer = String::from_utf8_lossy(&answer);
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(100)]);
        assert_eq!(
            answer.split(' ').nth(1),
            Some(status),
            "{shown:?}: {answer}"
        );
        assert_eq!(
            answer.matches("HTTP/1.1 ").count(),
            1,
            "{shown:?}: {answer}"
        );
    };
    check(b"\0\x01\x02\x03\r\n\r\n", "400");
    check(
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        "400",
    );
    check(b"GET / HTTP/9.9\r\nHost: x\r\n\r\n", "400");
    check(b"GET / HTTP/1.1\r\n\r\n", "400");
    check(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "400");
    check(b"GET / HTTP/1.1\r\nHost : x\r\n\r\n", "400");
    check(b"GET / HTTP/1.1\nHost: x\n\n", "400");
    check(b"GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n", "400");
    check(b"GET / HTTP/1.1\r\nHost: x\r\nA: b\0c\r\n\r\n", "400");
    // whatever two parties could read in two ways; a second request in it must not be served
    let smuggled = "GET /second HTTP/1.1\r\nHost: x\r\n\r\n";
    for framing in [
        "Content-Length: -5",
        "Content-Length: +5",
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: 5, 6",
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
    ] {
        let bytes = format!("POST / HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n0\r\n\r\n{smuggled}");
        check(bytes.as_bytes(), "400");
    }
    for coding in ["xchunked", "gzip, chunked", "chunked, identity"] {
        let head = format!("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: {coding}\r\n\r\n");
        let answer = exchange(addr, format!("{head}0\r\n\r\n").as_bytes(), soon()).unwrap();
        let answer = String::from_utf8_lossy(&answer);
        let status = answer.split(' ').nth(1).unwrap_or_default();
        assert!(["400", "501"].contains(&status), "{coding}: {answer}");
    }
    let long = "a".repeat(200_000);
    check(
        format!("GET /{long} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes(),
        "414",
    );
    check(
        format!("GET / HTTP/1.1\r\nHost: x\r\nA: {long}\r\n\r\n").as_bytes(),
        "431",
    );
    assert_eq!(echo.count(), 0, "none of it reached the upstream");

    assert_eq!(get(format!("http://{addr}/")).send().unwrap().status, 200);
    assert!(gateway.program.is_running());
    assert!(
        !gateway.program.output().contains("panicked"),
        "{}",
        gateway.program.output()
    );
}

#[test]
fn arguments_that_make_no_sense_are_named() {
    let check = |args: &[&str], parts: &[&str]| {
        let done = sallyport().args(args).run(soon());
        assert!(!done.status.success(), "{done:?}");
        has_all(&done.stderr, parts);
        assert!(!done.stderr.contains("panicked"), "{}", done.stderr);
    };
    check(
        &["control", "--listen", "nonsense"],
        &["--listen", "nonsense"],
    );
    check(
        &["control", "--listen", "127.0.0.1:99999"],
        &["--listen", "127.0.0.1:99999"],
    );
    check(
        &["control", "--listen", "127.0.0.1:0", "--geo", "zz"],
        &["zz", "geo"],
    );
    let public = [
        "control",
        "--listen",
        "127.0.0.1:0",
        "--listen-plain",
        "0.0.0.0:0",
    ];
    check(&public, &["0.0.0.0", "loopback"]);
    check(
        &[
            "control",
            "--listen",
            "127.0.0.1:0",
            "--data",
            "/dev/null/x",
        ],
        &["/dev/null/x"],
    );
    check(
        &["quickstart", "--proxy-port", "http"],
        &["--proxy-port", "http"],
    );
    check(
        &["quickstart", "--data", "/dev/null/x", "--echo-port", "0"],
        &["/dev/null/x"],
    );
    check(&["gatway"], &["gatway", "gateway"]);
    check(&[], &["quickstart", "gateway"]);
}

#[test]
fn a_control_planes_port_in_use_is_named_with_its_setting() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let free = free_port();
    for (flag, other) in [
        ("--listen", "--listen-plain"),
        ("--listen-plain", "--listen"),
    ] {
        let done = sallyport()
            .args(["control", flag, &format!("127.0.0.1:{port}")])
            .args([other, &format!("127.0.0.1:{free}")])
            .run(soon());
        assert_eq!(done.status.code(), Some(1), "{done:?}");
        let setting = format!("setting: {flag}\n");
        has_all(
            &done.stderr,
            &[&format!("port {port} is already in use"), &setting],
        );
    }
}

#[test]
fn a_control_plane_whose_files_are_damaged_says_which() {
    let dir = tempfile::tempdir().unwrap();
    let start = || {
        let port = free_port();
        sallyport()
            .args([
                "control",
                "--data",
                "state",
                "--listen",
                &format!("127.0.0.1:{port}"),
            ])
            .dir(dir.path())
    };
    let mut first = start().start();
    first.wait_for_line("ready", soon());
    // the same state twice at once
    let second = start().run(soon());
    assert_eq!(second.status.code(), Some(1), "{second:?}");
    has_all(&second.stderr, &["store.sqlite"]);
    first.terminate();
    first.wait(soon());

    let state = dir.path().join("state");
    let key = std::fs::read(state.join("ca.key")).unwrap();
    std::fs::remove_file(state.join("ca.key")).unwrap();
    let done = start().run(soon());
    assert_eq!(done.status.code(), Some(1), "{done:?}");
    has_all(&done.stderr, &["ca.crt is there", "ca.key", "restore it"]);
    std::fs::write(state.join("ca.key"), key).unwrap();

    std::fs::write(
        state.join("store.sqlite"),
        "this is no database, and long enough to be one",
    )
    .unwrap();
    let done = start().run(soon());
    assert_eq!(done.status.code(), Some(1), "{done:?}");
    has_all(&done.stderr, &["store.sqlite"]);
    assert!(!done.stderr.contains("panicked"), "{}", done.stderr);
}

/// As after a crash between the two files of the authority: see `home::pair`.
#[test]
fn a_first_start_that_was_cut_short_is_finished_by_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let start = || {
        let port = free_port();
        let mut program = sallyport()
            .args(["control", "--data", "state", "--listen"])
            .arg(format!("127.0.0.1:{port}"))
            .dir(dir.path())
            .start();
        program.wait_for_line("ready", soon());
        program.interrupt();
        assert_eq!(program.wait(soon()).code(), Some(0));
    };
    start();
    let made = std::fs::read(state.join("ca.crt")).unwrap();
    std::fs::rename(state.join("ca.crt"), state.join("ca.crt.pending")).unwrap();
    start();
    assert_eq!(std::fs::read(state.join("ca.crt")).unwrap(), made);
    assert!(!state.join("ca.crt.pending").exists());
}
