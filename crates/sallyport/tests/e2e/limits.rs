//! Clients that are slow on purpose: each wait has its limit, its answer and its line in the log.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use sallyport_testkit::{Deadline, Echo, Program, Scripted, eventually, foreign};

use crate::lab::{Doors, Handshake, soon};

/// Short enough to be waited for.
const SHORT: &str = "nginx_http_client_header_timeout = 300ms\n\
                     nginx_http_client_body_timeout = 300ms\n\
                     nginx_http_keepalive_timeout = 300ms\n\
                     nginx_http_send_timeout = 300ms\n\
                     nginx_http_keepalive_requests = 3\n\
                     nginx_main_worker_processes = 1";

fn document(upstream: &str) -> String {
    format!(
        "_format_version: '3.0'\nservices:\n- url: '{upstream}'\n  routes:\n  \
         - {{paths: [/held]}}\n  - {{paths: [/streamed], request_buffering: false}}\n"
    )
}

/// Sends this and waits for the gateway to close; what it said.
#[track_caller]
fn told(port: u16, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    stream.write_all(bytes).unwrap();
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        // it may reset what still has bytes of ours
        Err(error) if error.kind() != ErrorKind::ConnectionReset => {
            panic!("{error}: the connection stays open: {answer:?}")
        }
        _ => String::from_utf8_lossy(&answer).into_owned(),
    }
}

#[test]
fn slow_clients_are_cut_off() {
    let echo = Echo::start();
    let gateway = Doors::start(&document(&echo.url()), SHORT);
    let says = |line: &str| gateway.program.wait_for_line(line, soon());

    assert_eq!(told(gateway.plain, b"GET /held HTTP/1.1\r\nHost:"), "");
    says("a request head took too long");
    assert_eq!(told(gateway.plain, b""), "");
    for path in ["/held", "/streamed"] {
        let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nab");
        let answer = told(gateway.plain, head.as_bytes());
        assert!(answer.starts_with("HTTP/1.1 408 "), "{path}: {answer}");
        assert!(answer.contains("connection: close\r\n"), "{answer}");
    }
    says("the client stopped sending");
    assert_eq!(echo.count(), 0, "no whole request reached the upstream");
    // idle after a request: closed without a word
    let answer = told(gateway.plain, b"GET /held HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(
        answer.starts_with("HTTP/1.1 200 ") && answer.ends_with('}'),
        "{answer}"
    );
    // a connection serves only so many
    let answer = told(
        gateway.plain,
        "GET /held HTTP/1.1\r\nHost: x\r\n\r\n".repeat(4).as_bytes(),
    );
    assert_eq!(answer.matches("HTTP/1.1 200 ").count(), 3, "{answer}");
    assert_eq!(
        answer.matches("connection: close\r\n").count(),
        1,
        "{answer}"
    );
    // half of the preface, and the preface without its settings
    assert_eq!(told(gateway.plain, b"PRI * HTTP/2.0\r\n"), "");
    told(gateway.plain, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    says("it never spoke HTTP/2");
    // and with TLS: no handshake, and then nothing
    assert_eq!(told(gateway.tls, b"\x16\x03\x01"), "");
    let handshake = Handshake {
        port: gateway.tls,
        name: "localhost",
        ca: None,
        pair: None,
        alpn: &["h2"],
    };
    let mut stream = handshake.open().unwrap();
    let mut answer = Vec::new();
    // a close or a reset, but not silence
    let ended = stream.read_to_end(&mut answer);
    assert!(
        !matches!(&ended, Err(error) if error.kind() == ErrorKind::WouldBlock),
        "{ended:?}"
    );
}

/// A client that takes nothing of what it asked for: its upstream is not held up for good.
#[test]
fn who_takes_nothing_loses_its_upstream() {
    let upstream = Scripted::start(|peer| {
        peer.request()?;
        peer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        let chunk = [b"4000\r\n", &[b'a'; 0x4000][..], b"\r\n"].concat();
        loop {
            peer.write(&chunk)?;
        }
    });
    let gateway = Doors::start(&document(&upstream.url()), SHORT);
    let mut stream = TcpStream::connect(("127.0.0.1", gateway.plain)).unwrap();
    stream
        .write_all(b"GET /held HTTP/1.1\r\nHost: x\r\n\r\n")
        .unwrap();
    gateway
        .program
        .wait_for_line("the client took nothing", soon());
    eventually("the upstream is free", soon(), || upstream.open() == 0);

    let mut stream = TcpStream::connect(("127.0.0.1", gateway.plain)).unwrap();
    // SETTINGS with a window of nothing, and a GET of /held for the host x
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend_from_slice(b"\0\0\x06\x04\0\0\0\0\0\0\x04\0\0\0\0");
    bytes.extend_from_slice(b"\0\0\x0c\x01\x05\0\0\0\x01\x82\x86\x04\x05/held\x41\x01x");
    stream.write_all(&bytes).unwrap();
    eventually("the upstream is asked", soon(), || {
        upstream.connections() == 2
    });
    eventually("the upstream is free", soon(), || upstream.open() == 0);
}

/// The attacks of slowhttptest: slow heads, slow bodies and slow readers.
#[test]
fn slowhttptest_does_not_close_the_door() {
    let Some(program) = foreign("slowhttptest", "Debian package slowhttptest") else {
        return;
    };
    let echo = Echo::start();
    let gateway = Doors::start(
        &document(&echo.url()),
        "nginx_http_client_header_timeout = 2s\nnginx_http_client_body_timeout = 2s",
    );
    let url = format!("http://127.0.0.1:{}/held", gateway.plain);
    for mode in [
        &["-H"][..],
        &["-B"],
        &["-X", "-w", "1", "-y", "8", "-n", "1", "-z", "1", "-k", "1"],
    ] {
        let dir = tempfile::tempdir().unwrap();
        let done = Program::new(&program)
            .args(mode)
            .args([
                "-c", "100", "-r", "100", "-i", "1", "-l", "6", "-p", "3", "-u", &url,
            ])
            .dir(dir.path())
            .run(Deadline::secs(120));
        let said = format!("{}{}", done.stdout, done.stderr);
        assert!(said.contains("service available"), "{mode:?}: {said}");
        let last = said.rsplit("service available:").next().unwrap_or_default();
        assert!(last.contains("YES"), "{mode:?}: {last}");
    }
}
