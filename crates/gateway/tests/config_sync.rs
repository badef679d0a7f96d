//! The data plane's end of the hybrid link against a control plane written by hand: real TLS and
//! sockets on loopback, every frame looked at.

#![allow(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

use std::sync::Arc;
use std::time::Duration;

use fastwebsockets::{Frame, OpCode, Payload, Role, WebSocket};
use sallyport_gateway::conf::{Conf, Material};
use sallyport_gateway::config_sync::link::Timings;
use sallyport_gateway::config_sync::{Applied, Apply, ApplyError, ClientSettings, LinkState, run};
use sallyport_runtime::certs::{Curve, LocalCa, PemPair, data_plane_pair};
use sallyport_runtime::tls::{ClientAuth, Identity, leaf_digest, server_config, trust_store};
use sallyport_runtime::{ListenOptions, listen};
use sallyport_wire::ConfigHash;
use sallyport_wire::config_sync::{
    BasicInfo, ErrorReport, OutletQuery, Reconfigure, gzip_json, ping_hash,
};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

const PLUGINS: &[&str] = &["rate-limiting", "key-auth"];
const NODE: &str = "7c4c3ed5-7a4c-4d3c-8f8f-1f0b0f7e2d11";

/// Nothing here takes long; this only turns a hang into a failure.
async fn soon<T>(work: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(60), work)
        .await
        .expect("this should not hang")
}

struct ControlPlane {
    listener: TcpListener,
    tls: TlsAcceptor,
}

impl ControlPlane {
    fn new(identity: &Identity, client_auth: ClientAuth) -> ControlPlane {
        let any = "127.0.0.1:0".parse().unwrap();
        let listener = listen("config_sync", any, "test", ListenOptions::default()).unwrap();
        let tls = server_config(identity, client_auth, &[]).unwrap();
        ControlPlane {
            listener,
            tls: TlsAcceptor::from(Arc::new(tls)),
        }
    }

    fn port(&self) -> u16 {
        self.listener.local_addr().unwrap().port()
    }

    /// The next connection, up to and including the request head.
    async fn request(&self) -> (TlsStream<TcpStream>, String) {
        soon(async {
            let (tcp, _) = self.listener.accept().await.unwrap();
            let mut stream = self.tls.accept(tcp).await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            (stream, String::from_utf8(head).unwrap())
        })
        .await
    }

    /// The next connection, upgraded, with the hello read.
    async fn accept(&self) -> (Session, BasicInfo) {
        self.accept_saying("").await
    }

    /// The same with a further header line in the answer.
    async fn accept_saying(&self, line: &str) -> (Session, BasicInfo) {
        let (mut stream, _) = self.request().await;
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Accept: unchecked\r\n{line}\r\n"
        );
        stream.write_all(answer.as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        let mut ws = WebSocket::after_handshake(stream, Role::Server);
        ws.set_auto_pong(false);
        ws.set_auto_close(false);
        let mut session = Session { ws };
        let (opcode, hello) = session.next().await.unwrap();
        assert_eq!(opcode, OpCode::Binary, "the hello is binary");
        (session, BasicInfo::decode(&hello).unwrap())
    }
}

struct Session {
    ws: WebSocket<TlsStream<TcpStream>>,
}

impl Session {
    /// The next frame, `None` at the end of the connection.
    async fn next(&mut self) -> Option<(OpCode, Vec<u8>)> {
        let frame = soon(self.ws.read_frame()).await.ok()?;
        assert!(frame.fin);
        Some((frame.opcode, frame.payload.to_vec()))
    }

    #[track_caller]
    fn expect_ping(&mut self, want: ConfigHash) -> impl Future<Output = ()> + use<'_> {
        let caller = std::panic::Location::caller();
        async move {
            let (opcode, payload) = self.next().await.expect("a frame");
            assert_eq!(opcode, OpCode::Ping, "at {caller}");
            assert_eq!(ping_hash(&payload), Ok(want), "at {caller}");
        }
    }

    async fn send(&mut self, frame: Frame<'static>) {
        self.ws.write_frame(frame).await.unwrap();
        self.ws.flush().await.unwrap();
    }

    async fn push(&mut self, payload: &Reconfigure) {
        self.send(Frame::binary(Payload::Owned(payload.encode())))
            .await;
    }
}

/// Passes each payload to the test, which decides.
struct Asked(mpsc::Sender<(Reconfigure, oneshot::Sender<Result<ConfigHash, ApplyError>>)>);

impl Apply for Asked {
    async fn apply(&self, payload: Reconfigure) -> Result<Applied, ApplyError> {
        let (answer, answered) = oneshot::channel();
        self.0.send((payload, answer)).await.unwrap();
        answered.await.unwrap().map(Applied::from)
    }
}

struct Node {
    asked: mpsc::Receiver<(Reconfigure, oneshot::Sender<Result<ConfigHash, ApplyError>>)>,
    state: watch::Receiver<LinkState>,
    stop: CancellationToken,
    running: JoinHandle<()>,
}

impl Node {
    fn start(settings: ClientSettings) -> Node {
        let (ask, asked) = mpsc::channel(1);
        let (state_in, state) = watch::channel(LinkState::Starting);
        let stop = CancellationToken::new();
        let client = run(settings, Arc::new(Asked(ask)), state_in, stop.clone());
        Node {
            asked,
            state,
            stop,
            running: tokio::spawn(client),
        }
    }

    async fn asked(&mut self) -> (Reconfigure, oneshot::Sender<Result<ConfigHash, ApplyError>>) {
        soon(self.asked.recv()).await.unwrap()
    }

    /// Takes the next payload, which has to be this one, and says that it is in force.
    async fn accepts(&mut self, want: &Reconfigure) {
        let (payload, answer) = self.asked().await;
        assert_eq!(payload, *want);
        answer.send(Ok(payload.hash())).unwrap();
    }

    /// Waits until the link is down for a reason with these words in it.
    async fn down_with(&mut self, words: &str) {
        let wanted = |state: &LinkState| matches!(state, LinkState::Down { reason } if reason.contains(words));
        let waited = timeout(Duration::from_secs(20), self.state.wait_for(wanted)).await;
        let state = waited.map(|state| state.unwrap().clone());
        assert!(
            state.is_ok(),
            "{words:?} expected, but {:?}",
            *self.state.borrow()
        );
    }

    async fn stop(self) {
        self.stop.cancel();
        soon(self.running).await.unwrap();
    }
}

fn identity(pair: &PemPair) -> Identity {
    Identity::from_pem(&pair.cert, &pair.key).unwrap()
}

/// Settings as `kong.conf` would give them, with pauses that suit a test.
fn settings(port: u16, pair: &PemPair, more: &[(&str, &str)]) -> ClientSettings {
    let address = format!("127.0.0.1:{port}");
    let mut environment = vec![
        ("KONG_ROLE", "data_plane"),
        ("KONG_DATABASE", "off"),
        // what this control plane speaks, so that no dial is spent on asking
        ("KONG_SALLYPORT_SYNC", "v1"),
        ("KONG_CLUSTER_CONTROL_PLANE", &address),
        ("KONG_CLUSTER_CERT", &pair.cert),
        ("KONG_CLUSTER_CERT_KEY", &pair.key),
    ];
    environment.extend(more);
    let environment = environment
        .into_iter()
        .map(|(k, v)| (k.to_owned(), v.to_owned()));
    let (conf, _) = Conf::load(None, environment, PLUGINS).unwrap();
    let material = Material::read(&conf).unwrap().cluster.unwrap();
    let node = NODE.parse().unwrap();
    let hash = ConfigHash::ZERO;
    let settings = ClientSettings::new(&conf, &material, node, "edge-1".to_owned(), hash).unwrap();
    let reconnect = Duration::ZERO..=Duration::from_millis(20);
    ClientSettings {
        timings: Timings {
            reconnect,
            ..Timings::default()
        },
        ..settings
    }
}

fn shared() -> (PemPair, ControlPlane) {
    let pair = data_plane_pair("kong_clustering", Curve::P384, 10).unwrap();
    let control_plane = ControlPlane::new(&identity(&pair), ClientAuth::Presented);
    (pair, control_plane)
}

fn payload(name: &str) -> Reconfigure {
    let service = json!({"id": NODE, "name": name, "host": "127.0.0.1", "port": 80});
    Reconfigure::new(
        json!({"_format_version": "3.0", "_transform": false, "services": [service]}),
        1.0,
    )
}

#[tokio::test]
async fn the_handshake_is_kongs() {
    let (pair, control_plane) = shared();
    let labels = [("KONG_CLUSTER_DP_LABELS", "zone:a")];
    let node = Node::start(settings(control_plane.port(), &pair, &labels));
    let (stream, head) = control_plane.request().await;
    let (_, tls) = stream.get_ref();
    assert_eq!(tls.server_name(), Some("kong_clustering"));
    assert_eq!(tls.alpn_protocol(), None);
    let shown = leaf_digest(&tls.peer_certificates().unwrap()[0]);
    assert_eq!(shown, identity(&pair).digest());

    let mut lines = head.lines();
    let first = lines.next().unwrap();
    let query = first
        .strip_prefix("GET /v1/outlet?")
        .unwrap()
        .strip_suffix(" HTTP/1.1")
        .unwrap();
    let want = OutletQuery {
        node_id: NODE.to_owned(),
        node_hostname: Some("edge-1".to_owned()),
        node_version: "3.9.1".to_owned(),
    };
    assert_eq!(OutletQuery::parse(query), Ok(want));
    let headers: Vec<_> = lines.map(str::to_ascii_lowercase).collect();
    for want in [
        &format!("host: 127.0.0.1:{}", control_plane.port()),
        "upgrade: websocket",
        "connection: upgrade",
        "sec-websocket-version: 13",
    ] {
        assert!(
            headers.iter().any(|line| line == want),
            "{want}: {headers:?}"
        );
    }
    for unwanted in ["sec-websocket-extensions", "sec-websocket-protocol"] {
        assert!(
            !headers.iter().any(|line| line.starts_with(unwanted)),
            "{headers:?}"
        );
    }
    drop(stream);

    let (mut session, hello) = control_plane.accept().await;
    let plugins: Vec<_> = hello
        .plugins
        .iter()
        .map(|plugin| format!("{} {}", plugin.name, plugin.version))
        .collect();
    assert_eq!(plugins, ["key-auth 3.9.1", "rate-limiting 3.9.1"]);
    assert_eq!(hello.process_conf["cluster_max_payload"], 16_777_216);
    assert_eq!(hello.labels["zone"], "a");
    session.expect_ping(ConfigHash::ZERO).await;
    node.stop().await;
    // without a code, which Kong's control plane would take for an error
    assert_eq!(session.next().await, Some((OpCode::Close, Vec::new())));
    assert_eq!(session.next().await, None);
}

#[tokio::test]
async fn configurations_are_applied_and_acknowledged_by_hash() {
    let (pair, control_plane) = shared();
    let mut node = Node::start(settings(control_plane.port(), &pair, &[]));
    let (mut session, _) = control_plane.accept().await;
    session.expect_ping(ConfigHash::ZERO).await;

    let first = payload("first");
    session.push(&first).await;
    node.accepts(&first).await;
    session.expect_ping(first.hash()).await;

    // The same again is acknowledged without being applied.
    session.push(&first).await;
    session.expect_ping(first.hash()).await;

    // No hash in the message: it is computed.
    let bare = Reconfigure {
        config_hash: None,
        hashes: None,
        ..payload("bare")
    };
    session.push(&bare).await;
    node.accepts(&bare).await;
    session.expect_ping(payload("bare").hash()).await;
    node.stop().await;
}

#[tokio::test]
async fn what_is_refused_is_told_to_a_control_plane_that_takes_it() {
    let (pair, control_plane) = shared();
    let mut node = Node::start(settings(control_plane.port(), &pair, &[]));
    let (mut session, _) = control_plane
        .accept_saying("Sallyport-Takes: error\r\n")
        .await;
    session.expect_ping(ConfigHash::ZERO).await;
    let bad = payload("bad");
    session.push(&bad).await;
    let (_, answer) = node.asked().await;
    answer
        .send(Err(ApplyError("routes[0].paths: no".to_owned())))
        .unwrap();
    let (opcode, frame) = session.next().await.unwrap();
    assert_eq!(opcode, OpCode::Binary);
    let report = ErrorReport::decode(&frame).unwrap();
    assert_eq!(
        report,
        ErrorReport::on_all(bad.hash(), "routes[0].paths: no")
    );
    // what cannot even be read has no hash
    session
        .send(Frame::binary(Payload::Owned(b"no gzip".to_vec())))
        .await;
    let (_, frame) = session.next().await.unwrap();
    let report = ErrorReport::decode(&frame).unwrap();
    assert_eq!(report.config_hash, ConfigHash::ZERO.as_str());
    assert!(report.message.contains("gzip"), "{report:?}");
    node.stop().await;
}

#[tokio::test]
async fn what_cannot_be_used_changes_nothing_and_is_not_answered() {
    let (pair, control_plane) = shared();
    let mut node = Node::start(settings(control_plane.port(), &pair, &[]));
    let (mut session, _) = control_plane.accept().await;
    session.expect_ping(ConfigHash::ZERO).await;
    let good = payload("good");
    session.push(&good).await;
    node.accepts(&good).await;
    session.expect_ping(good.hash()).await;

    session.push(&payload("refused")).await;
    let (_, answer) = node.asked().await;
    answer
        .send(Err(ApplyError("service \"refused\": no".to_owned())))
        .unwrap();
    session
        .send(Frame::new(
            true,
            OpCode::Ping,
            None,
            Payload::Owned(b"x".to_vec()),
        ))
        .await;
    session.send(Frame::pong(Payload::Owned(Vec::new()))).await;
    session
        .send(Frame::text(Payload::Owned(b"hello".to_vec())))
        .await;
    let junk = [
        b"not gzip".to_vec(),
        good.encode()[..30].to_vec(),
        gzip_json(&json!({"type": "other"})),
        gzip_json(&json!({"type": "reconfigure"})),
    ];
    for (junk, name) in junk.into_iter().zip(["a", "b", "c", "d"]) {
        session.send(Frame::binary(Payload::Owned(junk))).await;
        // Nothing was said about it: the next frame is about the next good one.
        let next = payload(name);
        session.push(&next).await;
        node.accepts(&next).await;
        session.expect_ping(next.hash()).await;
    }
    node.stop().await;
}

#[tokio::test]
async fn while_one_is_applied_only_the_newest_waits() {
    let (pair, control_plane) = shared();
    let mut node = Node::start(settings(control_plane.port(), &pair, &[]));
    let (mut session, _) = control_plane.accept().await;
    session.expect_ping(ConfigHash::ZERO).await;
    let [first, second, third] = ["1", "2", "3"].map(payload);
    session.push(&first).await;
    let (_, answer) = node.asked().await;
    session.push(&second).await;
    session.push(&third).await;
    // A close handshake would tell when both were read; instead the link goes down behind them.
    session.send(Frame::close(1001, b"restart")).await;
    node.down_with("restart").await;
    answer.send(Ok(first.hash())).unwrap();
    node.accepts(&third).await;
    let (mut session, _) = control_plane.accept().await;
    // Depending on who is first, the hash is in the first PING or in a second one.
    let mut seen = Vec::new();
    while !seen.contains(&third.hash()) {
        let (opcode, payload) = session.next().await.unwrap();
        assert_eq!(opcode, OpCode::Ping);
        seen.push(ping_hash(&payload).unwrap());
        assert!(!seen.contains(&second.hash()));
    }
    node.stop().await;
}

#[tokio::test]
async fn a_lost_link_is_opened_again_with_the_hash_in_force() {
    let (pair, control_plane) = shared();
    let mut node = Node::start(settings(control_plane.port(), &pair, &[]));
    let (mut session, _) = control_plane.accept().await;
    session.expect_ping(ConfigHash::ZERO).await;
    let config = payload("kept");
    session.push(&config).await;
    node.accepts(&config).await;
    session.expect_ping(config.hash()).await;

    session.send(Frame::close(1001, b"going away")).await;
    drop(session);
    node.down_with("code 1001: going away").await;
    let (mut session, _) = control_plane.accept().await;
    session.expect_ping(config.hash()).await;
    drop(session); // no close frame this time
    node.down_with("without a close frame").await;
    let (mut session, _) = control_plane.accept().await;
    session.expect_ping(config.hash()).await;
    soon(node.state.wait_for(|state| *state == LinkState::Up))
        .await
        .unwrap();
    node.stop().await;
}

#[tokio::test]
async fn fragments_and_oversized_frames_end_the_link() {
    let (pair, control_plane) = shared();
    let mut settings = settings(control_plane.port(), &pair, &[]);
    settings.payload_bytes_max = 1000;
    let mut node = Node::start(settings);
    let (mut session, _) = control_plane.accept().await;
    session
        .send(Frame::new(
            false,
            OpCode::Binary,
            None,
            Payload::Owned(vec![1]),
        ))
        .await;
    node.down_with("fragmented").await;
    let (mut session, _) = control_plane.accept().await;
    session
        .send(Frame::binary(Payload::Owned(vec![0; 1001])))
        .await;
    node.down_with("larger than cluster_max_payload (1000 bytes)")
        .await;
    let (mut session, _) = control_plane.accept().await;
    session.expect_ping(ConfigHash::ZERO).await;
    node.stop().await;
}

#[tokio::test]
async fn hostile_bytes_only_cost_the_connection() {
    let (pair, control_plane) = shared();
    let mut node = Node::start(settings(control_plane.port(), &pair, &[]));
    let mut dice = 1_u64;
    for round in 0..24_u8 {
        let (session, _) = control_plane.accept().await;
        let junk: Vec<u8> = (0..200)
            .map(|_| {
                dice = dice
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(round.into());
                dice.to_be_bytes()[0]
            })
            .collect();
        // Every second one begins like a frame, with each opcode in turn.
        let head = if round % 2 == 0 {
            vec![]
        } else {
            vec![0x80 | (round / 2), 126, 0, 99]
        };
        let mut stream = session.ws.into_inner();
        stream.write_all(&[head, junk].concat()).await.unwrap();
        stream.shutdown().await.unwrap();
        // It stays down until the next round accepts it.
        node.down_with("").await;
        let state = node.state.borrow().clone();
        assert!(!format!("{state:?}").contains("a bug"), "{state:?}");
    }
    let (mut session, _) = control_plane.accept().await;
    session.expect_ping(ConfigHash::ZERO).await;
    node.stop().await;
}

#[tokio::test]
async fn a_silent_control_plane_is_dropped() {
    let (pair, control_plane) = shared();
    let mut settings = settings(control_plane.port(), &pair, &[]);
    settings.timings.silence = Duration::from_millis(50);
    let mut node = Node::start(settings);
    let (_session, _) = control_plane.accept().await;
    node.down_with("silent").await;
    node.stop().await;
}

#[tokio::test]
async fn refusals_are_explained() {
    let (pair, control_plane) = shared();
    let mut node = Node::start(settings(control_plane.port(), &pair, &[]));
    let (mut stream, _) = control_plane.request().await;
    let answer = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 13\r\n\r\nno node_id\r\n.";
    stream.write_all(answer).await.unwrap();
    stream.flush().await.unwrap();
    node.down_with("answers 400 instead of opening the link: no node_id")
        .await;
    // Kong's way to refuse a certificate.
    let (stream, _) = control_plane.request().await;
    drop(stream);
    node.down_with("without an answer").await;
    let (mut stream, _) = control_plane.request().await;
    stream.write_all(b"SSH-2.0-OpenSSH\r\n\r\n").await.unwrap();
    stream.flush().await.unwrap();
    node.down_with("not HTTP").await;
    node.stop().await;

    let nobody = {
        let unused = ControlPlane::new(&identity(&pair), ClientAuth::Off);
        unused.port()
    };
    let mut node = Node::start(settings(nobody, &pair, &[]));
    node.down_with("nothing listens there").await;
    node.stop().await;
}

#[tokio::test]
async fn a_foreign_certificate_is_told_by_fingerprint() {
    let (pair, _) = shared();
    let (other, control_plane) = shared();
    let mut node = Node::start(settings(control_plane.port(), &pair, &[]));
    let (tcp, _) = soon(control_plane.listener.accept()).await.unwrap();
    assert!(soon(control_plane.tls.accept(tcp)).await.is_err());
    node.down_with(&identity(&other).digest().to_string()).await;
    node.stop().await;
}

#[tokio::test]
async fn pki_mode_checks_chain_and_name() {
    let ca = LocalCa::create("cluster ca", 10).unwrap();
    let server = identity(&ca.issue_server(&["cp.example"], 10).unwrap());
    let roots = Arc::new(trust_store(&[&ca.pem().cert]).unwrap());
    let control_plane = ControlPlane::new(&server, ClientAuth::IssuedBy(roots));
    let pair = ca.issue_client("dp-1", 10).unwrap();
    let pki = |name| {
        [
            ("KONG_CLUSTER_MTLS", "pki"),
            ("KONG_CLUSTER_CA_CERT", &*ca.pem().cert),
            ("KONG_LUA_SSL_TRUSTED_CERTIFICATE", &*ca.pem().cert),
            ("KONG_CLUSTER_SERVER_NAME", name),
        ]
    };
    let node = Node::start(settings(control_plane.port(), &pair, &pki("cp.example")));
    let (mut session, _) = control_plane.accept().await;
    session.expect_ping(ConfigHash::ZERO).await;
    node.stop().await;

    let mut node = Node::start(settings(control_plane.port(), &pair, &pki("other.example")));
    let (tcp, _) = soon(control_plane.listener.accept()).await.unwrap();
    assert!(soon(control_plane.tls.accept(tcp)).await.is_err());
    node.down_with("not valid for \"other.example\", but for")
        .await;
    node.stop().await;

    // The control plane's alert comes after the client's part of the handshake is over.
    let stranger = LocalCa::create("strange ca", 10)
        .unwrap()
        .issue_client("dp-2", 10)
        .unwrap();
    let mut node = Node::start(settings(
        control_plane.port(),
        &stranger,
        &pki("cp.example"),
    ));
    let (tcp, _) = soon(control_plane.listener.accept()).await.unwrap();
    assert!(soon(control_plane.tls.accept(tcp)).await.is_err());
    node.down_with("does not know the authority that issued our certificate")
        .await;
    node.stop().await;
}
