//! Who gets in: `sallyport certs`, pinning, and everybody who is turned away without a word.

use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, SystemTime};

use sallyport_testkit::{eventually, foreign};
use serde_json::Value;
use tempfile::TempDir;

use crate::lab::{
    Control, Gateway, Handshake, Pair, after_reconnect, bytes_until_close, has_all, sallyport,
    soon, write,
};

/// A self-signed client certificate that is valid in this span, seconds from now.
fn valid(dir: &TempDir, from: i64, to: i64) -> Pair {
    let at = |secs: i64| {
        let span = Duration::from_secs(secs.unsigned_abs());
        let now = SystemTime::now();
        if secs < 0 { now - span } else { now + span }
    };
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.not_before = at(from).into();
    params.not_after = at(to).into();
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    let cert = params.self_signed(&key).unwrap();
    Pair::store(dir.path(), &cert.pem(), &key.serialize_pem())
}

#[test]
fn certs_makes_a_pair_and_keeps_the_key_to_itself() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("deep/er");
    let done = sallyport()
        .args(["certs", "--name", "edge-1", "--days", "30", "--out"])
        .arg(&out);
    let done = done.run(soon()).success();
    has_all(
        &done.stdout,
        &[
            "dp-client-certificates",
            "cluster_cert =",
            "cluster_cert_key =",
        ],
    );
    let key = out.join("cluster.key");
    assert_eq!(
        std::fs::metadata(&key).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let key = std::fs::read_to_string(&key).unwrap();
    assert!(key.starts_with("-----BEGIN PRIVATE KEY-----"));
    let secret = key.lines().nth(1).unwrap();
    assert!(!done.stdout.contains(secret) && !done.stderr.contains(secret));
    let cert = std::fs::read_to_string(out.join("cluster.crt")).unwrap();
    assert!(cert.starts_with("-----BEGIN CERTIFICATE-----"));

    let again = sallyport().args(["certs", "--out"]).arg(&out).run(soon());
    assert_eq!(again.status.code(), Some(1));
    has_all(&again.stderr, &["cluster.crt is there already", "--out"]);
    assert_eq!(
        std::fs::read_to_string(out.join("cluster.key")).unwrap(),
        key,
        "nothing is lost"
    );
    let days = sallyport().args(["certs", "--days", "0"]).run(soon());
    has_all(&days.stderr, &["--days"]);
}

/// The printed command, with the control plane's own address, id and token put in.
#[test]
fn the_printed_pin_command_works() {
    let Some(_) = foreign("jq", "Debian package jq") else {
        return;
    };
    let Some(_) = foreign("curl", "Debian package curl") else {
        return;
    };
    let control = Control::start();
    let dir = tempfile::tempdir().unwrap();
    let done = sallyport()
        .args(["certs", "--out"])
        .arg(dir.path())
        .run(soon())
        .success();
    let command: Vec<&str> = done
        .stdout
        .lines()
        .skip_while(|line| !line.contains("jq"))
        .take(3)
        .collect();
    let command = command
        .join("\n")
        .replace("CONTROL_PLANE", &format!("127.0.0.1:{}", control.port))
        .replace("/ID/", &format!("/{}/", control.id))
        .replace(
            "--cacert ca.crt",
            &format!("--cacert {}", control.ca().display()),
        );
    let token = std::fs::read_to_string(control.home().join("token")).unwrap();
    let answer = sallyport_testkit::Program::new("sh")
        .args(["-c", &command])
        .env("TOKEN", token.trim())
        .dir(dir.path())
        .run(soon())
        .success();
    let pinned: Value = serde_json::from_str(&answer.stdout).unwrap();
    let pair = Pair {
        cert: dir.path().join("cluster.crt"),
        key: dir.path().join("cluster.key"),
    };
    assert_eq!(
        pinned["item"]["cert"].as_str().map(str::trim),
        Some(pair.cert().trim())
    );
    let gateway = Gateway::start_with(&control, dir, &pair);
    gateway
        .program
        .wait_for_line("control plane connected", soon());
}

/// Connects as a data plane does and returns what came back: bytes after the handshake.
#[track_caller]
fn knock(control: &Control, name: &str, pair: Option<&Pair>) -> Vec<u8> {
    let ca = control.ca();
    let handshake = Handshake {
        port: control.port,
        name,
        ca: Some(&ca),
        pair,
        alpn: &[],
    };
    // With TLS 1.3 a client may be through its handshake before it learns that it is refused.
    let Ok(mut stream) = handshake.open() else {
        return Vec::new();
    };
    let request = "GET /v1/outlet?node_id=7c4c3ed5-7a4c-4d3c-8f8f-1f0b0f7e2d11&node_version=3.9.1 \
                   HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";
    // It may be closed already, which is the point.
    _ = std::io::Write::write_all(&mut stream, request.as_bytes());
    bytes_until_close(&mut stream)
}

/// Nobody in, nothing said; the control plane's log says why.
#[track_caller]
fn turned_away(control: &Control, name: &str, pair: Option<&Pair>, reason: &str) {
    let before = control.program.lines();
    let said = knock(control, name, pair);
    assert!(
        said.is_empty(),
        "the door spoke: {:?}",
        String::from_utf8_lossy(&said)
    );
    control
        .program
        .wait_for_line_after(before, &format!("data plane refused.*{reason}"), soon());
}

#[test]
fn whoever_has_no_pinned_certificate_gets_no_byte() {
    let control = Control::start();
    let door = Control::node_name(&control.prefix);
    let dir = || tempfile::tempdir().unwrap();

    turned_away(&control, &door, None, "certificate");

    let (foreign, expired, early, elsewhere) = (dir(), dir(), dir(), dir());
    let stranger = Pair::make(foreign.path());
    turned_away(&control, &door, Some(&stranger), "not pinned");

    let expired = valid(&expired, -2 * 86_400, -3600);
    control.pin(&expired.cert());
    turned_away(&control, &door, Some(&expired), "expired");

    let early = valid(&early, 3600, 86_400);
    control.pin(&early.cert());
    turned_away(&control, &door, Some(&early), "not valid yet");

    let other = control.another("other");
    let elsewhere = Pair::make(elsewhere.path());
    control.pin_to(&other, &elsewhere.cert());
    turned_away(&control, &door, Some(&elsewhere), "not pinned.*other");
    let other_door = Control::node_name(&control.prefix_of(&other));
    let said = std::thread::scope(|scope| {
        // Its own control plane lets it in and keeps the link open.
        let ca = control.ca();
        let (port, pair) = (control.port, Some(&elsewhere));
        let thread = scope.spawn(move || {
            let handshake = Handshake {
                port,
                name: &other_door,
                ca: Some(&ca),
                pair,
                alpn: &[],
            };
            let mut stream = handshake.open().unwrap();
            let request = "GET /v1/outlet?node_id=7c4c3ed5-7a4c-4d3c-8f8f-1f0b0f7e2d11&\
                           node_hostname=h&node_version=3.9.1 HTTP/1.1\r\nHost: x\r\n\
                           Upgrade: websocket\r\nConnection: Upgrade\r\n\
                           Sec-WebSocket-Version: 13\r\n\
                           Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";
            std::io::Write::write_all(&mut stream, request.as_bytes()).unwrap();
            let mut answer = [0; 12];
            std::io::Read::read_exact(&mut stream, &mut answer).unwrap();
            answer
        });
        thread.join().unwrap()
    });
    assert_eq!(&said, b"HTTP/1.1 101");

    let nobody = Control::node_name("0000000000");
    turned_away(&control, &nobody, Some(&stranger), "no control plane");
    let other_geo = format!("{}.eu.cp0.sallyport.localhost", control.prefix);
    let ca = control.ca();
    let handshake = Handshake {
        port: control.port,
        name: &other_geo,
        ca: Some(&ca),
        pair: Some(&stranger),
        alpn: &[],
    };
    assert!(
        handshake.open().is_err(),
        "the certificate does not have names of another geo"
    );
    assert!(!control.program.output().contains("panicked"));
}

#[test]
fn a_pin_lets_a_waiting_gateway_in_and_its_end_cuts_it_off() {
    let control = Control::start();
    control.route_to("first", control.port);
    let dir = tempfile::tempdir().unwrap();
    let pair = Pair::make(dir.path());
    let gateway = Gateway::start_with(&control, dir, &pair);
    gateway
        .program
        .wait_for_line("does not accept this node's cluster_cert", soon());
    assert_eq!(
        gateway.ask_status("/status/ready").status,
        503,
        "nothing to serve yet"
    );
    let id = control.pin(&pair.cert());
    gateway
        .program
        .wait_for_line("control plane connected", after_reconnect());
    eventually("it is ready", soon(), || {
        gateway.ask_status("/status/ready").status == 200
    });

    let path = format!(
        "/v2/control-planes/{}/dp-client-certificates/{id}",
        control.id
    );
    assert_eq!(control.api("DELETE", &path, &Value::Null).status, 204);
    gateway
        .program
        .wait_for_line("closed the link.*not accepted", soon());
    assert_eq!(
        gateway.ask_status("/status/ready").status,
        200,
        "it serves what it has"
    );
}

#[test]
fn both_sides_say_in_their_logs_that_a_certificate_ends_soon() {
    let control = Control::start();
    for conf in ["", "sallyport_sync = v1"] {
        let dir = tempfile::tempdir().unwrap();
        let pair = valid(&dir, -3600, 5 * 86_400 + 3600);
        control.pin(&pair.cert());
        let before = control.program.lines();
        let mut gateway = Gateway::start_set(&control, dir, &pair, conf);
        gateway
            .program
            .wait_for_line("cluster_cert expires soon.*days(=|: )5", soon());
        control.program.wait_for_line_after(
            before,
            "the certificate of a data plane expires soon.*days(=|: )5",
            soon(),
        );
        // a new one, and no word of it
        let fresh = tempfile::tempdir().unwrap();
        let fresh = Pair::make(fresh.path());
        write(&pair.cert, fresh.cert());
        write(&pair.key, fresh.key());
        let before = gateway.program.lines();
        gateway.program.signal("HUP");
        gateway
            .program
            .wait_for_line_after(before, "reloaded", soon());
        let said = gateway.program.output();
        assert_eq!(said.matches("cluster_cert expires soon").count(), 1);
    }
}
