//! Broken frames on the hybrid link, from either side: who sends them loses, nobody else.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::{ServerConnection, StreamOwned};
use sallyport_runtime::tls::{ClientAuth, Identity, server_config};
use sallyport_testkit::{Echo, eventually};
use sallyport_wire::config_sync::{Reconfigure, gzip_json};
use serde_json::{Value, json};

use crate::lab::{
    Control, Gateway, Handshake, Pair, TlsStream, after_reconnect, bytes_until_close, sallyport,
    soon, write,
};

const UPGRADE: &str = "GET /v1/outlet?node_id=7c4c3ed5-7a4c-4d3c-8f8f-1f0b0f7e2d11&\
    node_hostname=stranger&node_version=3.9.1 HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";
pub(crate) const BINARY: u8 = 0x82;
const PING: u8 = 0x89;

/// A WebSocket frame; a client's has a mask, here of zeros.
pub(crate) fn frame(first: u8, payload: &[u8], masked: bool) -> Vec<u8> {
    let mask = if masked { 0x80 } else { 0 };
    let mut bytes = vec![first];
    match u16::try_from(payload.len()) {
        Ok(short) if short < 126 => bytes.push(mask | short.to_le_bytes()[0]),
        Ok(medium) => {
            bytes.push(mask | 126);
            bytes.extend(medium.to_be_bytes());
        }
        Err(_) => {
            bytes.push(mask | 127);
            bytes.extend((payload.len() as u64).to_be_bytes());
        }
    }
    if masked {
        bytes.extend([0; 4]);
    }
    bytes.extend(payload);
    bytes
}

fn hello() -> Vec<u8> {
    let hello = json!({"type": "basic_info", "plugins": [
        {"name": "key-auth", "version": "3.9.1"}, {"name": "rate-limiting", "version": "3.9.1"},
    ], "process_conf": {}, "labels": {}});
    frame(BINARY, hello.to_string().as_bytes(), true)
}

/// Reads up to the end of a response head or request head.
fn head(stream: &mut impl Read) -> String {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|count| count == 1) {
        bytes.push(byte[0]);
    }
    String::from_utf8(bytes).unwrap()
}

struct Stranger {
    control: Control,
    pair: Pair,
    _dir: tempfile::TempDir,
}

impl Stranger {
    #[track_caller]
    fn connect(&self) -> TlsStream {
        let ca = self.control.ca();
        let name = Control::node_name(&self.control.prefix);
        let handshake = Handshake {
            port: self.control.port,
            name: &name,
            ca: Some(&ca),
            pair: Some(&self.pair),
            alpn: &[],
        };
        handshake.open().unwrap()
    }

    #[track_caller]
    fn upgraded(&self) -> TlsStream {
        let mut stream = self.connect();
        stream.write_all(UPGRADE.as_bytes()).unwrap();
        let head = head(&mut stream);
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        stream
    }

    /// Sends this on an open link; the control plane has to end it.
    #[track_caller]
    fn is_cut_off(&self, bytes: &[&[u8]]) {
        let mut stream = self.upgraded();
        for bytes in bytes {
            // It may be closed in the middle of this.
            _ = stream.write_all(bytes);
        }
        bytes_until_close(&mut stream);
    }
}

#[test]
fn a_data_plane_that_talks_rubbish_disturbs_nobody() {
    let echo = Echo::start();
    let control = Control::start();
    let gateway = Gateway::start(&control);
    let dir = tempfile::tempdir().unwrap();
    let pair = Pair::make(dir.path());
    control.pin(&pair.cert());
    let mut stranger = Stranger {
        control,
        pair,
        _dir: dir,
    };

    // before there is a link
    let noise: Vec<u8> = (0..4096_u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    for bytes in [
        &noise[..],
        b"\r\n\r\n\r\n",
        b"GET /v1/outlet HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /v1/outlet?node_id=not-an-id HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\
          Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
          Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
        b"POST /v2/control-planes HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}",
    ] {
        let mut stream = stranger.connect();
        stream.write_all(bytes).unwrap();
        let said = head(&mut stream);
        assert!(
            !said.starts_with("HTTP/1.1 101") && !said.starts_with("HTTP/1.1 2"),
            "{said}"
        );
    }
    let mut half = stranger.connect();
    half.write_all(&UPGRADE.as_bytes()[..50]).unwrap();
    drop(half);

    // in place of the hello
    stranger.is_cut_off(&[&frame(BINARY, b"{\"type\": \"basic_info\"", true)]);
    stranger.is_cut_off(&[&frame(BINARY, &noise, true)]);
    stranger.is_cut_off(&[&frame(BINARY, b"[1,2,3]", true)]);
    stranger.is_cut_off(&[&frame(BINARY, b"{\"type\":\"other\"}", true)]);
    stranger.is_cut_off(&[&frame(PING, &[b'0'; 32], true)]);
    stranger.is_cut_off(&[&frame(0x81, b"text", true)]);
    stranger.is_cut_off(&[&frame(0x02, b"a first piece", true)]);
    stranger.is_cut_off(&[&noise]);
    stranger.is_cut_off(&[&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]]);
    let petabytes = [BINARY, 0xff, 0, 4, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4];
    stranger.is_cut_off(&[&petabytes]);
    // cut short, and gone
    let mut cut = stranger.upgraded();
    cut.write_all(&hello()[..20]).unwrap();
    drop(cut);

    // after a good hello
    stranger.is_cut_off(&[&hello(), &frame(PING, b"no hash", true)]);
    stranger.is_cut_off(&[&hello(), &noise]);
    let mut cut = stranger.upgraded();
    cut.write_all(&hello()).unwrap();
    cut.write_all(&frame(PING, &[b'0'; 32], true)[..9]).unwrap();
    drop(cut);

    // the other gateway never noticed, and changes still reach it
    stranger.control.route_to("fresh", echo.port());
    gateway.wait_for("/fresh", 200, soon());
    assert_eq!(
        gateway
            .program
            .output()
            .matches("control plane connected")
            .count(),
        1
    );
    assert!(stranger.control.program.is_running());
    let log = stranger.control.program.output();
    assert!(!log.contains("panicked"), "{log}");
    assert!(
        log.contains("broke the protocol"),
        "the log says who did what:\n{log}"
    );
}

#[test]
fn rubbish_on_the_control_planes_port_disturbs_nobody() {
    let echo = Echo::start();
    let mut control = Control::start();
    let gateway = Gateway::start(&control);
    for bytes in [
        &b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..],
        b"\x16\x03\x01\xff\xff",
        b"\0\0\0\0",
        b"",
    ] {
        let mut stream = TcpStream::connect(("127.0.0.1", control.port)).unwrap();
        stream.write_all(bytes).unwrap();
    }
    control.route_to("fresh", echo.port());
    gateway.wait_for("/fresh", 200, soon());
    assert!(control.program.is_running());
    assert!(!control.program.output().contains("panicked"));
}

/// A control plane written by hand.
pub(crate) struct Fake {
    listener: TcpListener,
    config: Arc<rustls::ServerConfig>,
}

pub(crate) type Link = StreamOwned<ServerConnection, TcpStream>;

impl Fake {
    pub(crate) fn new(pair: &Pair) -> Fake {
        let identity = Identity::from_pem(&pair.cert(), &pair.key()).unwrap();
        let config = server_config(&identity, ClientAuth::Presented, &[]).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        Fake {
            listener,
            config: Arc::new(config),
        }
    }

    /// The next link. As Kong's it speaks protocol v1 only, which a gateway finds out by asking.
    #[track_caller]
    fn accept(&self) -> Link {
        let (mut link, request) = self.request();
        let (mut link, request) = match request.starts_with("GET /v2/outlet HTTP/1.1\r\n") {
            false => (link, request),
            true => {
                let answer = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";
                link.write_all(answer.as_bytes()).unwrap();
                link.flush().unwrap();
                self.request()
            }
        };
        assert!(request.starts_with("GET /v1/outlet?node_id="), "{request}");
        let answer = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n\
                      Upgrade: websocket\r\nSec-WebSocket-Accept: unchecked\r\n\r\n";
        link.write_all(answer.as_bytes()).unwrap();
        link.flush().unwrap();
        link
    }

    /// The next connection, with the head of its request read.
    #[track_caller]
    pub(crate) fn request(&self) -> (Link, String) {
        let mut accepted = None;
        eventually("the gateway dials", after_reconnect(), || {
            accepted = self.listener.accept().ok();
            accepted.is_some()
        });
        let (tcp, _) = accepted.unwrap();
        tcp.set_nonblocking(false).unwrap();
        tcp.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let connection = ServerConnection::new(Arc::clone(&self.config)).unwrap();
        let mut link = StreamOwned::new(connection, tcp);
        let request = head(&mut link);
        (link, request)
    }
}

/// `kong.conf` of a gateway that follows it, with that certificate in `dir`.
pub(crate) fn shared_conf(dir: &Path, fake: &Fake, port: u16, status: &str) -> String {
    format!(
        "role = data_plane\ndatabase = off\nprefix = {dir}/prefix\n\
         proxy_listen = 127.0.0.1:{port}\nstatus_listen = {status}\nadmin_listen = off\n\
         log_level = info\ncluster_control_plane = 127.0.0.1:{control}\n\
         cluster_cert = {dir}/cluster.crt\ncluster_cert_key = {dir}/cluster.key\n",
        dir = dir.display(),
        control = fake.listener.local_addr().unwrap().port(),
    )
}

fn payload(name: &str, port: u16) -> Value {
    let service = "7c4c3ed5-7a4c-4d3c-8f8f-1f0b0f7e2d11";
    json!({
        "_format_version": "3.0",
        "_transform": false,
        "services": [{"id": service, "name": name, "host": "127.0.0.1", "port": port,
                      "protocol": "http"}],
        "routes": [{"id": "0e3a6a3c-93d7-4e3d-a3a4-2f7b0d1c5a11", "name": name,
                    "paths": [format!("/{name}")], "service": {"id": service},
                    "protocols": ["http", "https"]}],
    })
}

#[test]
fn a_control_plane_that_talks_rubbish_does_not_stop_a_gateway() {
    let echo = Echo::start();
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::new(&Pair::make_shared(dir.path()));
    let port = sallyport_testkit::free_port();
    let conf = shared_conf(dir.path(), &fake, port, "off");
    write(&dir.path().join("kong.conf"), conf);
    let start = || {
        sallyport()
            .args(["gateway", "-c", "kong.conf"])
            .dir(dir.path())
            .start()
    };
    let mut gateway = start();
    let status = |path: &str| {
        let answer = sallyport_testkit::http::get(format!("http://127.0.0.1:{port}{path}")).send();
        answer.map_or(0, |answer| answer.status)
    };

    let mut link = fake.accept();
    let good = Reconfigure::new(payload("good", echo.port()), 1.0).encode();
    link.write_all(&frame(BINARY, &good, false)).unwrap();
    eventually("the good configuration is served", soon(), || {
        status("/good") == 200
    });

    // whole frames with nothing usable in them: the link stays, the configuration too
    let bad: [Vec<u8>; 3] = [
        b"not gzip".to_vec(),
        good[..good.len() / 2].to_vec(),
        gzip_json(&json!([1, 2, 3])),
    ];
    for bytes in bad {
        let before = gateway.lines();
        link.write_all(&frame(BINARY, &bytes, false)).unwrap();
        let line = gateway
            .wait_for_line_after(before, "cannot be read", soon())
            .line;
        assert!(line.contains("the previous one stays in force"), "{line}");
        assert_eq!(status("/good"), 200);
    }

    // one bad object in a good configuration: it alone is refused, and keeps what it was
    let mut unknown = payload("good", echo.port());
    unknown["plugins"] =
        json!([{"id": "7c4c3ed5-7a4c-4d3c-8f8f-1f0b0f7e2d12", "name": "no-such-plugin"}]);
    let unknown = Reconfigure::new(unknown, 2.0).encode();
    let mut dangling = payload("good", echo.port());
    let nowhere = json!({"id": "0e3a6a3c-93d7-4e3d-a3a4-2f7b0d1c5a12", "paths": ["/nowhere"],
        "service": {"id": "7c4c3ed5-7a4c-4d3c-8f8f-1f0b0f7e2d99"}});
    dangling["routes"].as_array_mut().unwrap().push(nowhere);
    let mut wrong = payload("good", echo.port());
    wrong["services"][0]["port"] = json!("eighty");
    for (table, told) in [
        (dangling, "entity refused.*invalid reference"),
        (wrong, "entity refused.*port.*kept: true"),
    ] {
        let before = gateway.lines();
        let frame = frame(BINARY, &Reconfigure::new(table, 2.0).encode(), false);
        link.write_all(&frame).unwrap();
        let line = gateway.wait_for_line_after(before, told, soon()).line;
        assert!(line.contains("the others are in force"), "{line}");
        assert_eq!(status("/good"), 200, "{line}");
    }
    // nobody knows what an unknown plugin would have guarded; a restart does not open it
    let before = gateway.lines();
    link.write_all(&frame(BINARY, &unknown, false)).unwrap();
    gateway.wait_for_line_after(
        before,
        "entity refused.*no-such-plugin.*closed: true",
        soon(),
    );
    eventually("it is closed", soon(), || status("/good") == 503);
    gateway.kill9();
    drop(link);
    gateway = start();
    eventually("it listens", soon(), || status("/good") != 0);
    assert_eq!(status("/good"), 503);
    let mut link = fake.accept();
    link.write_all(&frame(BINARY, &good, false)).unwrap();
    eventually("it is open again", soon(), || status("/good") == 200);
    let next = Reconfigure::new(payload("next", echo.port()), 5.0).encode();
    link.write_all(&frame(BINARY, &next, false)).unwrap();
    eventually("the same link still works", soon(), || {
        status("/next") == 200
    });

    // a frame that ends in the middle: the link is lost, traffic is not, and it dials again
    let last = frame(BINARY, &good, false);
    link.write_all(&last[..last.len() / 2]).unwrap();
    link.conn.send_close_notify();
    _ = link.flush();
    drop(link);
    assert_eq!(status("/next"), 200);
    let mut link = fake.accept();
    assert_eq!(status("/next"), 200);
    link.write_all(&last).unwrap();
    eventually("the new link works", soon(), || status("/good") == 200);
    assert!(
        !gateway.output().contains("panicked"),
        "{}",
        gateway.output()
    );
}
