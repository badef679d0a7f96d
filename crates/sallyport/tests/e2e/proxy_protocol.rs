//! The PROXY protocol on listeners for requests and for streams.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::Duration;

use sallyport_testkit::{Echo, Program, eventually, foreign, free_port, free_ports};
use serde_json::{Value, json};

use crate::lab::{Alone, bytes_until_close, soon};

const TRUSTING: &str = "trusted_ips = 127.0.0.0/8\nreal_ip_header = proxy_protocol\n";

fn document(echo: &Echo) -> String {
    let document = json!({
        "_format_version": "3.0",
        "services": [{"name": "s", "url": echo.url(), "routes": [{"name": "r", "paths": ["/"]}]}],
    });
    document.to_string()
}

fn gateway(echo: &Echo, port: u16, more: &str) -> Alone {
    let more = format!("{more}proxy_listen = 127.0.0.1:{port} proxy_protocol");
    Alone::start(&document(echo), &more)
}

/// What comes back for these bytes.
fn send(port: u16, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    stream.write_all(bytes).unwrap();
    String::from_utf8_lossy(&bytes_until_close(&mut stream)).into_owned()
}

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

/// The echo's view of a request behind this header.
fn seen(port: u16, header: &[u8]) -> Value {
    let answer = send(port, &[header, REQUEST].concat());
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .unwrap_or_else(|| panic!("{answer:?}"));
    assert!(head.starts_with("HTTP/1.1 200"), "{answer}");
    // the body may be chunked
    let start = body.find('{').unwrap();
    let end = body.rfind('}').unwrap();
    serde_json::from_str(&body[start..=end]).unwrap()
}

fn version_2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = (rest.len() as u16).to_be_bytes();
    [
        &b"\r\n\r\n\0\r\nQUIT\n"[..],
        &[command, family],
        &length,
        rest,
    ]
    .concat()
}

#[test]
fn the_address_in_the_header_counts_if_its_sender_is_trusted() {
    let echo = Echo::start();
    let port = free_port();
    let trusting = gateway(&echo, port, TRUSTING);
    let line = b"PROXY TCP4 203.0.113.9 198.51.100.7 56324 443\r\n";
    let six = [
        &[0x20, 1, 0xd, 0xb8][..],
        &[0; 11],
        &[1],
        &[0; 16],
        &[1, 0, 2, 0],
    ]
    .concat();
    for (header, expected) in [
        (line.to_vec(), "203.0.113.9"),
        (
            version_2(0x21, 0x11, &[192, 0, 2, 1, 10, 0, 0, 1, 1, 2, 3, 4]),
            "192.0.2.1",
        ),
        (version_2(0x21, 0x21, &six), "2001:db8::1"),
        // for itself, as health checks connect
        (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1"),
        (version_2(0x20, 0, &[]), "127.0.0.1"),
    ] {
        let seen = seen(port, &header);
        for name in ["x-real-ip", "x-forwarded-for"] {
            assert_eq!(seen["headers"][name][0], expected, "{name}: {seen:#}");
        }
    }
    drop(trusting);
    let port = free_port();
    let _other = gateway(&echo, port, "real_ip_header = proxy_protocol\n");
    let seen = seen(port, line);
    assert_eq!(
        seen["headers"]["x-real-ip"][0], "127.0.0.1",
        "nobody trusts it"
    );
}

#[test]
fn whatever_is_no_header_is_closed_with_a_reason() {
    let echo = Echo::start();
    let port = free_port();
    let gateway = gateway(&echo, port, TRUSTING);
    let long = [&b"PROXY UNKNOWN "[..], &[b'x'; 200], b"\r\n"].concat();
    for (bytes, reason) in [
        (
            REQUEST.to_vec(),
            "does not begin with a PROXY protocol header",
        ),
        (
            b"PROXY TCP4 1.2.3 4 5 6\r\n".to_vec(),
            "an address cannot be read",
        ),
        (
            b"PROXY TCP4 1.2.3.4 1.2.3.4 5 6\n".to_vec(),
            "without a carriage return",
        ),
        (long, "longer than 107 bytes"),
        (
            version_2(0x21, 0x11, &[0; 8]),
            "too short for the addresses",
        ),
        (version_2(0x21, 0x11, &[0; 5000]), "longer than 4096 bytes"),
        (version_2(0x31, 0x11, &[0; 12]), "the version is not 2"),
        (version_2(0x25, 0x11, &[0; 12]), "neither LOCAL nor PROXY"),
    ] {
        let before = gateway.program.lines();
        assert_eq!(send(port, &bytes), "", "{reason}");
        let line = format!("connection closed.*{reason}");
        gateway.program.wait_for_line_after(before, &line, soon());
    }
    let before = gateway.program.lines();
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.write_all(b"PROXY TCP4 1.2").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(bytes_until_close(&mut stream), b"");
    let line = "connection closed.*ended before its PROXY protocol header did";
    gateway.program.wait_for_line_after(before, line, soon());
    assert_eq!(echo.count(), 0);
    // in pieces it is as good as at once
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    for byte in b"PROXY TCP4 203.0.113.9 198.51.100.7 56324 443\r\n" {
        stream.write_all(&[*byte]).unwrap();
    }
    stream.write_all(REQUEST).unwrap();
    let answer = bytes_until_close(&mut stream);
    assert!(answer.starts_with(b"HTTP/1.1 200"));
}

#[test]
fn curl_and_haproxy_send_headers_that_are_understood() {
    let echo = Echo::start();
    let [port, secure, front_1, front_2] = free_ports();
    let more = format!(
        "{TRUSTING}proxy_listen = 127.0.0.1:{port} proxy_protocol, \
         127.0.0.1:{secure} ssl http2 proxy_protocol"
    );
    let _gateway = Alone::start(&document(&echo), &more);
    if foreign("curl", "Debian package curl").is_some() {
        let curl = |options: &str| {
            let line = format!("curl -sk --max-time 20 --haproxy-protocol {options}");
            let done = Program::new("sh").args(["-c", &line]).run(soon()).success();
            let seen: Value = serde_json::from_str(&done.stdout).unwrap();
            seen["headers"]["x-real-ip"][0].clone()
        };
        let from = "--interface 127.0.0.2";
        assert_eq!(
            curl(&format!("{from} http://127.0.0.1:{port}/")),
            "127.0.0.2"
        );
        assert_eq!(
            curl(&format!("{from} --http2 https://127.0.0.1:{secure}/")),
            "127.0.0.2"
        );
        let known = "--http2-prior-knowledge";
        assert_eq!(
            curl(&format!("{from} {known} http://127.0.0.1:{port}/")),
            "127.0.0.2"
        );
    }
    if foreign("haproxy", "Debian package haproxy").is_none() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let conf = format!(
        "defaults\n mode tcp\n timeout connect 10s\n timeout client 20s\n timeout server 20s\n\
         listen one\n bind 127.0.0.1:{front_1}\n server s 127.0.0.1:{port} send-proxy\n\
         listen two\n bind 127.0.0.1:{front_2}\n server s 127.0.0.1:{port} send-proxy-v2 \
         proxy-v2-options unique-id\n unique-id-format %[uuid()]\n"
    );
    crate::lab::write(&dir.path().join("haproxy.cfg"), conf);
    let _haproxy = Program::new("haproxy")
        .args(["-db", "-f", "haproxy.cfg"])
        .dir(dir.path())
        .start();
    for front in [front_1, front_2] {
        eventually("haproxy listens", soon(), || {
            TcpStream::connect(("127.0.0.1", front)).is_ok()
        });
        let line = format!("curl -s --max-time 20 --interface 127.0.0.3 http://127.0.0.1:{front}/");
        let done = Program::new("sh").args(["-c", &line]).run(soon()).success();
        let seen: Value = serde_json::from_str(&done.stdout).unwrap();
        assert_eq!(seen["headers"]["x-real-ip"][0], "127.0.0.3");
    }
}

#[test]
fn streams_take_the_header_off_and_route_by_it() {
    let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = upstream.local_addr().unwrap().port();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = upstream.accept() {
            let mut said = Vec::new();
            _ = stream.read_to_end(&mut said);
            _ = stream.write_all(&[b"got ", &said[..]].concat());
        }
    });
    let port = free_port();
    let document = json!({
        "_format_version": "3.0",
        "services": [{"name": "s", "protocol": "tcp", "host": "127.0.0.1", "port": to,
                      "routes": [{"name": "r", "protocols": ["tcp"],
                                  "sources": [{"ip": "203.0.113.0/24"}]}]}],
    });
    let dir = tempfile::tempdir().unwrap();
    let more = format!("trusted_ips = 127.0.0.1\nstream_listen = 127.0.0.1:{port} proxy_protocol");
    let program = Alone::launch(dir.path(), &document.to_string(), 0, &more).start();
    program.wait_for_line("gateway started", soon());
    let say = |bytes: &[u8]| {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        stream.write_all(bytes).unwrap();
        _ = stream.shutdown(Shutdown::Write);
        String::from_utf8_lossy(&bytes_until_close(&mut stream)).into_owned()
    };
    assert_eq!(
        say(b"PROXY TCP4 203.0.113.9 198.51.100.7 1 2\r\nhello"),
        "got hello"
    );
    assert_eq!(say(b"PROXY TCP4 192.0.2.1 198.51.100.7 1 2\r\nhello"), "");
    assert_eq!(say(b"hello"), "");
    program.wait_for_line("connection closed.*does not begin with a PROXY", soon());
    eventually("the client's own address is logged", soon(), || {
        let log = std::fs::read_to_string(dir.path().join("logs/access.log")).unwrap_or_default();
        log.lines()
            .any(|line| line.starts_with("203.0.113.9 [") && line.contains("] TCP 200 9 5 "))
            && log
                .lines()
                .any(|line| line.starts_with("192.0.2.1 [") && line.contains("] TCP 500 "))
    });
}
