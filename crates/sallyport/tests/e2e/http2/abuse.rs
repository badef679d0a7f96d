//! Frames that are right one by one and meant to wear a server out: what they cost is bounded, and
//! others are served meanwhile.

use std::time::Duration;

use sallyport_testkit::frames::{Next, fields, flag, kind, settings};
use sallyport_testkit::http::get;
use sallyport_testkit::{Echo, Scripted, eventually};

use super::{CALM, Client, END, OPEN, document, patient, plain, request};
use crate::lab::{Doors, soon};

/// Memory of the gateway now, kB.
fn resident(gateway: &Doors) -> usize {
    let path = format!("/proc/{}/statm", gateway.program.pid());
    let text = std::fs::read_to_string(path).unwrap();
    text.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4
}

/// Whether the connection was ended, and by which code if it said one.
fn ended(client: &mut Client) -> Option<Option<u32>> {
    let mut code = None;
    loop {
        match client.next() {
            Next::Frame(frame) if frame.kind == kind::GOAWAY => code = frame.code(),
            Next::Frame(_) => {}
            Next::Closed => return Some(code),
            Next::Silent => return None,
        }
    }
}

fn serves(gateway: &Doors) {
    let answer = get(format!("http://127.0.0.1:{}/", gateway.plain))
        .send()
        .unwrap();
    assert_eq!(answer.status, 200);
}

#[test]
fn floods_of_frames_end_their_connection() {
    let echo = Echo::start();
    let gateway = Doors::start(&document(&echo), "nginx_main_worker_processes = 1");
    serves(&gateway);
    let before = resident(&gateway);
    let flood = |name: &str, frames: &mut dyn FnMut(&mut Client, u32)| {
        let mut client = plain(gateway.plain);
        client.shake_hands().unwrap();
        for n in 0..20_000 {
            frames(&mut client, n);
        }
        let ended = ended(&mut client);
        serves(&gateway);
        println!("{name}: {ended:?}");
        ended
    };
    // CVE-2023-44487: requests that are taken back at once
    let reset = flood("rapid reset", &mut |client, n| {
        client.send(kind::HEADERS, END, 2 * n + 1, request());
        client.send(kind::RST_STREAM, 0, 2 * n + 1, 8u32.to_be_bytes());
    });
    assert_eq!(reset, Some(Some(CALM)), "rapid reset");
    assert!(
        echo.count() < 5_000,
        "{} of 20,000 reached the upstream",
        echo.count()
    );
    // CVE-2024-27316: a block that never ends
    let endless = flood("CONTINUATION", &mut |client, n| match n {
        0 => client.send(kind::HEADERS, flag::END_STREAM, 1, request()),
        _ => client.send(
            kind::CONTINUATION,
            0,
            1,
            fields(&[("x-a", &"a".repeat(1000))]),
        ),
    });
    assert!(endless.is_some(), "endless block");
    let empty = flood("empty CONTINUATION", &mut |client, n| match n {
        0 => client.send(kind::HEADERS, flag::END_STREAM, 1, request()),
        _ => client.send(kind::CONTINUATION, 0, 1, []),
    });
    assert!(empty.is_some(), "endless empty block");
    // streams that the client makes fail (CVE-2025-8671)
    let made = flood("made resets", &mut |client, n| {
        client.send(kind::HEADERS, OPEN, 2 * n + 1, request());
        client.send(kind::WINDOW_UPDATE, 0, 2 * n + 1, 0u32.to_be_bytes());
    });
    assert!(made.is_some(), "made resets");
    let after = resident(&gateway);
    assert!(after < before + 64 * 1024, "{before} kB, then {after} kB");
}

/// Answers that nobody reads are not piled up: the connection is not read further.
#[test]
fn who_reads_no_answers_is_not_answered_without_end() {
    let echo = Echo::start();
    let gateway = Doors::start(&document(&echo), "nginx_main_worker_processes = 1");
    serves(&gateway);
    let before = resident(&gateway);
    for frame in ["ping", "settings"] {
        let mut client = patient(gateway.plain, Duration::from_millis(300));
        client.shake_hands().unwrap();
        // until the sockets are full, or for 64 MB
        for _ in 0..2_000 {
            let many: Vec<u8> = match frame {
                "ping" => [0, 0, 8, kind::PING, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8].repeat(1000),
                _ => [
                    &[0, 0, 6, kind::SETTINGS, 0, 0, 0, 0, 0][..],
                    &settings(&[(4, 65_535)]),
                ]
                .concat()
                .repeat(1000),
            };
            if !client.try_bytes(&many) {
                break;
            }
        }
        serves(&gateway);
        let after = resident(&gateway);
        assert!(
            after < before + 32 * 1024,
            "{frame}: {before} kB, then {after} kB"
        );
    }
}

/// A client that opens windows of nothing and asks for much: what waits for it is bounded.
#[test]
fn windows_of_nothing_hold_little() {
    let upstream = Scripted::start(|peer| {
        peer.request()?;
        let body = vec![b'a'; 8 << 20];
        peer.write(
            format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes(),
        )?;
        peer.write(&body)
    });
    let document = format!(
        "_format_version: '3.0'\nservices:\n- {{url: '{}', routes: [{{paths: [/]}}]}}\n",
        upstream.url()
    );
    let more = "nginx_main_worker_processes = 1\nnginx_http_send_timeout = 2s";
    let gateway = Doors::start(&document, more);
    let before = resident(&gateway);
    let mut client = plain(gateway.plain);
    client.shake_hands().unwrap();
    client.send(kind::SETTINGS, 0, 0, settings(&[(4, 0)]));
    for n in 0..100 {
        client.send(kind::HEADERS, END, 2 * n + 1, request());
    }
    eventually("all are asked for", soon(), || {
        upstream.connections() == 100
    });
    let during = resident(&gateway);
    assert!(
        during < before + 64 * 1024,
        "{before} kB, then {during} kB for 800 MB"
    );
    eventually("the upstreams are free", soon(), || upstream.open() == 0);
    // whoever comes back finds the responses cut off, and the connection good for others
    client.send(kind::SETTINGS, 0, 0, settings(&[(4, 1 << 20)]));
    let reset = super::until(&mut client, kind::RST_STREAM, 0).unwrap();
    assert!(reset.stream < 200);
    client.send(kind::PING, 0, 0, *b"are you!");
    super::until(&mut client, kind::PING, flag::ACK).unwrap();
}
