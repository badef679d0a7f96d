//! Port 8071 against raw bytes: good, lost, bad and too many.

use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::time::Duration;

use sallyport_testkit::{eventually, free_port};
use serde_json::Value;

use super::pulled;
use crate::lab::{Control, Handshake, Pair, bytes_until_close, soon};

fn settings(port: u16, more: &str) -> String {
    format!("[receive]\nlisten = \"127.0.0.1:{port}\"\n{more}")
}

fn message(number: u32, text: &str) -> String {
    format!("<110>1 2026-01-02T03:04:05Z host app 7 - [meta sequenceId=\"{number}\"] {text}")
}

/// Waits for this many received records; returns them.
#[track_caller]
fn wait_for(control: &Control, count: usize) -> Vec<Value> {
    let mut got = Vec::new();
    eventually("the records are in the log", soon(), || {
        got = pulled(control, "&filter[type]=received");
        got.len() >= count
    });
    assert_eq!(got.len(), count, "{got:?}");
    got
}

/// Waits for a record of the log about itself with this text.
#[track_caller]
fn wait_for_own(control: &Control, name: &str, part: &str) -> Value {
    let mut found = None;
    eventually(&format!("{name} with {part:?}"), soon(), || {
        let own = pulled(control, "&filter[type]=audit_log");
        found = own.into_iter().find(|it| {
            it["name"] == name && it["message"].as_str().is_some_and(|it| it.contains(part))
        });
        found.is_some()
    });
    found.unwrap()
}

#[test]
fn streams_and_datagrams_become_records_and_loss_is_visible() {
    let port = free_port();
    let control = Control::start_with_audit_log(&settings(port, ""));
    let mut tcp = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let one = message(1, "over tcp");
    write!(tcp, "{} {one}", one.len()).unwrap();
    writeln!(tcp, "{}", message(2, "by line")).unwrap();
    tcp.write_all(b"CEF:0|Vendor|Product|1|1|bare|5|src=192.0.2.1\n")
        .unwrap();
    let got = wait_for(&control, 3);
    assert_eq!(got[0]["message"], "over tcp");
    assert_eq!(got[0]["device_data"], "[meta sequenceId=\"1\"]");
    assert_eq!(got[0]["transport"], "tcp");
    assert_eq!(got[0]["client_ip"], "127.0.0.1");
    assert_eq!(got[1]["message"], "by line");
    assert!(
        got[2]["message"]
            .as_str()
            .unwrap()
            .starts_with("CEF:0|Vendor")
    );

    let mut tls = Handshake {
        port,
        name: "localhost",
        ca: Some(&control.ca()),
        pair: None,
        alpn: &[],
    }
    .open()
    .unwrap();
    write!(tls, "{} {one}", one.len()).unwrap();
    tls.flush().unwrap();
    assert_eq!(wait_for(&control, 4)[3]["transport"], "tls");

    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    udp.connect(("127.0.0.1", port)).unwrap();
    for number in [1, 2, 5, 6] {
        udp.send(message(number, "datagram").as_bytes()).unwrap();
    }
    udp.send(b"").unwrap();
    assert_eq!(wait_for(&control, 8)[7]["transport"], "udp");
    let gap = wait_for_own(&control, "Log.Gap", "sequenceId 3 to 4");
    assert!(
        gap["message"]
            .as_str()
            .unwrap()
            .starts_with("2 datagrams of \"host\""),
        "{gap}"
    );
}

#[test]
fn bad_bytes_are_counted_and_hurt_nobody() {
    let port = free_port();
    let control = Control::start_with_audit_log(&settings(port, "message_bytes_max = 1000"));
    let connect = || {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        stream
    };
    // streams that cannot be followed any further are closed
    for bytes in [
        &b"1001 x"[..],
        b"99999999999999 x",
        b"12x34 ",
        &[b'<'; 2_000],
        b"\x16\x03garbage",
    ] {
        let mut stream = connect();
        stream.write_all(bytes).unwrap();
        // a TLS alert may come first
        bytes_until_close(&mut stream);
    }
    // bad messages between good ones are not
    let mut stream = connect();
    stream
        .write_all(b"\xff\xfe\n<999>1 x\n<13>Oct 11 22:14:15 host su: old\n")
        .unwrap();
    writeln!(stream, "{}", message(1, "still here")).unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    udp.connect(("127.0.0.1", port)).unwrap();
    for bytes in [&b"\0\0"[..], b"<13>1", &[b'<'; 1_500], &[0xff; 60_000]] {
        udp.send(bytes).unwrap();
    }
    udp.send(message(1, "and here").as_bytes()).unwrap();
    wait_for(&control, 2);
    for part in [
        "a message longer than receive.message_bytes_max",
        "a datagram longer than receive.message_bytes_max",
        "not framed as RFC 6587",
        "a TLS handshake that failed",
        "does not begin with <PRIORITY>",
        "not of version 1",
    ] {
        wait_for_own(&control, "Log.Refused", part);
    }
}

#[test]
fn strangers_and_crowds_are_kept_out() {
    let port = free_port();
    let dir = tempfile::tempdir().unwrap();
    let trusted = Pair::make(dir.path());
    let more = format!(
        "allow = [\"192.0.2.0/24\"]\nconnections_per_address_max = 2\nclient_ca = \"{}\"\n",
        trusted.cert.display()
    );
    let control = Control::start_with_audit_log(&settings(port, &more));
    let plain = |text: &str| {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        _ = writeln!(stream, "{text}");
        stream
    };
    bytes_until_close(&mut plain(&message(1, "no certificate")));
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    udp.send_to(message(1, "not allowed").as_bytes(), ("127.0.0.1", port))
        .unwrap();
    let stranger = tempfile::tempdir().unwrap();
    let stranger = Pair::make(stranger.path());
    for pair in [None, Some(&stranger)] {
        let opened = Handshake {
            port,
            name: "localhost",
            ca: Some(&control.ca()),
            pair,
            alpn: &[],
        };
        // in TLS 1.3 the refusal comes after the client's handshake
        if let Ok(mut stream) = opened.open() {
            bytes_until_close(&mut stream);
        }
    }
    let idle: Vec<TcpStream> = (0..2)
        .map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap())
        .collect();
    let mut third = TcpStream::connect(("127.0.0.1", port)).unwrap();
    third
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    assert_eq!(third.read(&mut [0; 1]).unwrap_or(0), 0);
    for part in [
        "without the certificate",
        "an address that receive.allow lacks",
        "a TLS handshake that failed",
        "connections_per_address_max",
    ] {
        wait_for_own(&control, "Log.Refused", part);
    }
    assert!(pulled(&control, "&filter[type]=received").is_empty());
    drop(idle);
}
