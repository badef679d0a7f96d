//! Sessions of streams that end in every way.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use sallyport_testkit::{Deadline, eventually, free_port, free_ports};
use serde_json::{Value, json};

use super::{descriptors, stays_flat};
use crate::lab::{Doors, soon};
use crate::streams::{parrot, say};

/// An upstream that resets as soon as it is spoken to.
fn slammer() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut byte = [0];
            _ = stream.and_then(|mut stream| stream.read(&mut byte));
        }
    });
    port
}

/// A UDP upstream that says back what it gets.
fn echo() -> u16 {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let mut bytes = [0; 2048];
        while let Ok((length, from)) = socket.recv_from(&mut bytes) {
            _ = socket.send_to(&bytes[..length], from);
        }
    });
    port
}

#[test]
fn sessions_of_streams_leave_nothing() {
    let [good, dead, broken, tls, udp] = free_ports();
    let tcp = |port: u16, to: u16| -> Value {
        json!({"name": format!("s{port}"), "protocol": "tcp", "host": "127.0.0.1", "port": to,
               "retries": 1, "read_timeout": 20_000,
               "routes": [{"name": format!("r{port}"), "protocols": ["tcp"],
                           "destinations": [{"port": port}]}]})
    };
    let document = json!({"_format_version": "3.0", "services": [
        tcp(good, parrot("p").port()), tcp(dead, free_port()), tcp(broken, slammer()),
        {"name": "tls", "protocol": "tcp", "host": "127.0.0.1", "port": parrot("t").port(),
         "routes": [{"name": "tls", "protocols": ["tls"], "destinations": [{"port": tls}]}]},
        {"name": "udp", "protocol": "udp", "host": "127.0.0.1", "port": echo(),
         "read_timeout": 500,
         "routes": [{"name": "udp", "protocols": ["udp"], "destinations": [{"port": udp}]}]},
    ]});
    let listen = [
        good.to_string(),
        dead.to_string(),
        broken.to_string(),
        format!("{tls} ssl"),
        format!("{udp} udp"),
    ]
    .map(|it| format!("127.0.0.1:{it}"))
    .join(", ");
    let more = format!(
        "nginx_main_worker_processes = 1\nlog_level = crit\nproxy_access_log = off\n\
         proxy_stream_access_log = off\nstream_listen = {listen}"
    );
    let gateway = Doors::start_quiet(&document.to_string(), &more);
    // these are bound after the one that it was asked at
    for port in [good, dead, broken, tls] {
        eventually("a port for streams listens", soon(), || {
            TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
    }
    let idle = descriptors(&gateway.program);
    let connect = |port: u16| TcpStream::connect(("127.0.0.1", port)).unwrap();
    let large = "x".repeat(100_000);
    stays_flat(&gateway.program, || {
        assert_eq!(say(good, "hello"), "p: hello");
        assert_eq!(say(good, &large).len(), large.len() + 3);
        assert_eq!(say(dead, ""), "");
        assert_eq!(say(broken, "x"), "");
        // clients that leave: at once, within what they say, without an end
        drop(connect(good));
        connect(good).write_all(b"half").unwrap();
        // what is no TLS, and what is not all of it
        for part in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\x16\x03\x01\x02\x00\x01"] {
            connect(tls).write_all(part).unwrap();
        }
        // a session of its own for each client
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client
            .set_read_timeout(Some(Duration::from_millis(500)))
            .unwrap();
        let mut answer = [0; 16];
        eventually("the datagram comes back", soon(), || {
            client.send_to(b"ping", ("127.0.0.1", udp)).unwrap();
            matches!(client.recv(&mut answer), Ok(4))
        });
    });
    eventually("no session stays open", Deadline::secs(60), || {
        descriptors(&gateway.program) <= idle + 4
    });
}
