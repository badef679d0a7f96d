//! Requests that go on as WebSocket: what is agreed to, what is refused, what ends it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::json;

use crate::{Running, read_head, scripted};

const ASK: &str = "GET /chat HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, Upgrade\r\n\
                   Upgrade: WebSocket\r\nSec-WebSocket-Key: k\r\n\r\n";
const AGREED: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
                      Upgrade: websocket\r\nSec-WebSocket-Accept: a\r\n\r\n";

/// An upstream that agrees, says `hello` with the same bytes, and then sends back what comes.
fn echo() -> (SocketAddr, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let thread = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let head = read_head(&mut stream);
        stream
            .write_all(format!("{AGREED}hello").as_bytes())
            .unwrap();
        let mut buffer = [0; 1024];
        loop {
            match stream.read(&mut buffer) {
                Ok(0) | Err(_) => return head,
                Ok(length) => stream.write_all(&buffer[..length]).unwrap(),
            }
        }
    });
    (address, thread)
}

fn client(gateway: &Running, ask: &str) -> TcpStream {
    let mut stream = TcpStream::connect(gateway.address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    stream.write_all(ask.as_bytes()).unwrap();
    stream
}

#[track_caller]
fn expect(stream: &mut TcpStream, text: &str) {
    let mut bytes = vec![0; text.len()];
    stream.read_exact(&mut bytes).unwrap();
    assert_eq!(String::from_utf8_lossy(&bytes), text);
}

#[test]
fn bytes_pass_both_ways_from_the_first() {
    let (address, upstream) = echo();
    let gateway = Running::start(address, json!({}), "");
    let mut stream = client(&gateway, &format!("{ASK}early"));
    let head = read_head(&mut stream);
    assert!(
        head.starts_with("HTTP/1.1 101 Switching Protocols\r\n"),
        "{head}"
    );
    for line in [
        "connection: Upgrade\r\n",
        "upgrade: websocket\r\n",
        "Sec-WebSocket-Accept: a\r\n",
    ] {
        assert_eq!(head.matches(line).count(), 1, "{line} in {head}");
    }
    expect(&mut stream, "helloearly");
    stream.write_all(b"more").unwrap();
    expect(&mut stream, "more");
    drop(stream);
    let asked = upstream.join().unwrap();
    for line in [
        "connection: Upgrade\r\n",
        "upgrade: websocket\r\n",
        "Sec-WebSocket-Key: k\r\n",
    ] {
        assert_eq!(asked.matches(line).count(), 1, "{line} in {asked}");
    }
    assert!(!asked.contains("keep-alive"), "{asked}");
}

#[test]
fn a_refusal_is_an_ordinary_answer() {
    let no = "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno";
    let (address, upstream) = scripted(vec![vec![no, no]]);
    let gateway = Running::start(address, json!({}), "");
    let mut stream = client(&gateway, ASK);
    for again in [true, false] {
        assert!(read_head(&mut stream).starts_with("HTTP/1.1 403"));
        expect(&mut stream, "no");
        if again {
            stream.write_all(ASK.as_bytes()).unwrap();
        }
    }
    drop(stream);
    drop(gateway);
    upstream.join().unwrap();
}

/// Whatever else an upgrade could lead to passes no plugin. (Offers of HTTP/2 in clear: `http1/h2c.rs`.)
#[test]
fn nothing_but_websocket_is_asked_of_an_upstream() {
    for (ask, why) in [
        (
            ASK.replace("WebSocket\r\nSec", "irc/6.9\r\nSec"),
            "another protocol",
        ),
        (
            ASK.replace("WebSocket\r\nSec", "websocket, irc/6.9\r\nSec"),
            "two protocols",
        ),
        (
            ASK.replace("keep-alive, Upgrade", "keep-alive"),
            "no Connection",
        ),
        (ASK.replace("HTTP/1.1", "HTTP/1.0"), "an old version"),
        (
            ASK.replace("Sec-", "Content-Length: 1\r\nSec-") + "x",
            "a body",
        ),
    ] {
        let (address, upstream) = scripted(vec![vec![AGREED]]);
        let gateway = Running::start(address, json!({"retries": 0}), "");
        let head = read_head(&mut client(&gateway, &ask));
        assert!(head.starts_with("HTTP/1.1 502"), "{why}: {head}");
        let seen = upstream.join().unwrap().concat().to_ascii_lowercase();
        assert!(!seen.contains("upgrade"), "{why}: {seen}");
    }
}

#[test]
fn a_silent_tunnel_ends() {
    let (address, upstream) = echo();
    let gateway = Running::start(address, json!({"read_timeout": 200}), "");
    let mut stream = client(&gateway, ASK);
    read_head(&mut stream);
    let mut rest = String::new();
    stream.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "hello");
    upstream.join().unwrap();
}
