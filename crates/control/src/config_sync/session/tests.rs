//! The rules of time, on a clock that stands still between events.

use std::sync::Arc;

use fastwebsockets::Role;
use sallyport_store::{ControlPlane, Store};
use sallyport_wire::config_sync::BasicInfo;
use sallyport_wire::config_sync::delta::{Hello, HelloAnswer, OWN, SYNC};
use sallyport_wire::config_sync::edits::{KNOWS, KNOWS_GROUPS};
use sallyport_wire::config_sync::rpc::ENCODING;
use tokio::io::DuplexStream;
use tokio::task::JoinHandle;
use uuid::Uuid;

/// One that gets configurations as they are.
fn hello() -> BasicInfo {
    let knows = (KNOWS.to_owned(), serde_json::json!([KNOWS_GROUPS]));
    BasicInfo {
        process_conf: [knows].into_iter().collect(),
        ..BasicInfo::default()
    }
}

use super::super::payload::Payload;
use super::super::publishers::Outputs;
use super::super::rpc;
use super::*;

/// A link over a pipe of `room` bytes, and the data plane's end of it.
struct Bench {
    node: WebSocket<DuplexStream>,
    link: JoinHandle<End>,
    outputs: Outputs,
    stop: CancellationToken,
    began: Instant,
    _directory: tempfile::TempDir,
}

impl Bench {
    fn new(room: usize) -> Bench {
        Bench::of(room, false)
    }

    /// On protocol v2, or on v1.
    fn of(room: usize, changes: bool) -> Bench {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("store.sqlite")).unwrap();
        let (links, mut subscriptions, mut inbox) = Links::new(store.clone());
        let outputs = Outputs::default();
        let (near, far) = tokio::io::duplex(room);
        let guest = Guest {
            control_plane: ControlPlane {
                id: Uuid::from_u128(1),
                name: "default".to_owned(),
                description: String::new(),
                labels: BTreeMap::new(),
                prefix: "0123456789".to_owned(),
                cluster_type: Default::default(),
                auth_type: Default::default(),
                cloud_gateway: false,
                proxy_urls: Vec::new(),
                created_at_ms: 0,
                updated_at_ms: 0,
            },
            digest: [0; 32],
            chain: Vec::new(),
            cert_expires_at: i64::MAX,
            ip: [127, 0, 0, 1].into(),
        };
        let caller = Caller {
            node_id: Uuid::from_u128(2),
            hostname: "gw".to_owned(),
            version: "3.10.0".to_owned(),
        };
        let stop = CancellationToken::new();
        let (sender, own) = (outputs.clone(), stop.clone());
        let link = tokio::spawn(async move {
            let socket = WebSocket::after_handshake(near, Role::Server);
            let run = async {
                match changes {
                    true => rpc::run(&links, guest, socket, own).await.1,
                    false => run(&links, guest, caller, socket, own).await,
                }
            };
            // Stands in for the publisher and the recorder of contacts.
            let around = async {
                loop {
                    tokio::select! {
                        Some(wish) = subscriptions.recv() => wish.grant(&store, &sender),
                        Some(_) = inbox.recv() => {}
                    }
                }
            };
            tokio::select! {
                end = run => end,
                () = around => unreachable!("it never ends"),
            }
        });
        let mut node = WebSocket::after_handshake(far, Role::Client);
        node.set_auto_pong(false);
        node.set_auto_close(false);
        Bench {
            node,
            link,
            outputs,
            stop,
            began: Instant::now(),
            _directory: directory,
        }
    }

    async fn send(&mut self, opcode: OpCode, payload: &[u8]) {
        let frame = Frame::new(true, opcode, None, Bytes::Owned(payload.to_vec()));
        self.node.write_frame(frame).await.unwrap();
    }

    async fn hello(&mut self) {
        self.send(OpCode::Binary, &hello().encode()).await;
    }

    fn publish(&self, hash: &str, bytes: usize) {
        let payload = Payload::of_bytes(1, hash.parse().unwrap(), vec![7; bytes].into());
        self.outputs.payloads.send_replace(Some(Arc::new(payload)));
    }

    /// How the link ended, and the whole seconds that took.
    async fn end(self) -> (String, u64) {
        let end = self.link.await.unwrap().to_string();
        (end, self.began.elapsed().as_secs())
    }
}

#[tokio::test(start_paused = true)]
async fn a_hello_has_five_seconds() {
    let (end, secs) = Bench::new(1024).end().await;
    assert!(end.contains("no basic_info within 5 s"), "{end}");
    assert_eq!(secs, 5);
}

#[tokio::test(start_paused = true)]
async fn silence_ends_a_link_and_each_ping_prolongs_it() {
    let mut bench = Bench::new(1024);
    bench.hello().await;
    let (end, secs) = bench.end().await;
    assert_eq!((end.as_str(), secs), ("nothing heard for 45 s", 45));

    let mut bench = Bench::new(1024);
    bench.hello().await;
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_secs(30)).await;
        bench.send(OpCode::Ping, ConfigHash::ZERO.as_bytes()).await;
        let pong = bench.node.read_frame().await.unwrap();
        assert!(pong.opcode == OpCode::Pong && pong.payload.is_empty());
    }
    let (end, secs) = bench.end().await;
    assert_eq!((end.as_str(), secs), ("nothing heard for 45 s", 345));
}

#[tokio::test(start_paused = true)]
async fn a_data_plane_that_takes_nothing_is_let_go() {
    let mut bench = Bench::new(1024);
    bench.hello().await;
    bench.publish(&"a".repeat(32), 1 << 20);
    let (end, secs) = bench.end().await;
    assert_eq!(
        (end.as_str(), secs),
        ("a frame was not taken within 45 s", 45)
    );
}

#[tokio::test(start_paused = true)]
async fn the_same_configuration_is_sent_once() {
    let mut bench = Bench::new(1 << 16);
    bench.hello().await;
    bench.publish(&"a".repeat(32), 10);
    assert_eq!(bench.node.read_frame().await.unwrap().payload.len(), 10);
    bench.publish(&"a".repeat(32), 11);
    bench.send(OpCode::Ping, ConfigHash::ZERO.as_bytes()).await;
    assert!(bench.node.read_frame().await.unwrap().opcode == OpCode::Pong);
    bench.publish(&"b".repeat(32), 12);
    assert_eq!(bench.node.read_frame().await.unwrap().payload.len(), 12);
    bench.stop.cancel();
    let (end, secs) = bench.end().await;
    assert_eq!(
        (end.as_str(), secs),
        ("the control plane stops serving it", 0)
    );
}

#[tokio::test(start_paused = true)]
async fn a_link_that_is_busy_gets_only_the_newest_of_a_burst() {
    let mut bench = Bench::new(1 << 10);
    bench.hello().await;
    // more than the pipe holds: it is being written until somebody reads
    bench.publish(&"a".repeat(32), 1 << 16);
    tokio::time::sleep(Duration::from_secs(1)).await;
    for number in 0..40_usize {
        bench.publish(&format!("{number:032}"), 100 + number);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(
        bench.node.read_frame().await.unwrap().payload.len(),
        1 << 16
    );
    assert_eq!(bench.node.read_frame().await.unwrap().payload.len(), 139);
    bench.send(OpCode::Ping, ConfigHash::ZERO.as_bytes()).await;
    assert!(bench.node.read_frame().await.unwrap().opcode == OpCode::Pong);
    bench.stop.cancel();
    bench.end().await;
}

/// What costs as much as the whole configuration is made for data planes on protocol v1 only.
#[tokio::test(start_paused = true)]
async fn for_who_takes_changes_no_whole_configuration_is_made() {
    let names = |all: &[&str]| all.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
    for (capabilities, version) in [(names(&[SYNC, OWN]), "3.9.1"), (names(&[SYNC]), "3.10.0")] {
        let mut bench = Bench::of(1 << 16, true);
        let hello = Hello {
            rpc_capabilities: capabilities.clone(),
            rpc_frame_encodings: names(&[ENCODING]),
            kong_version: version.to_owned(),
            kong_node_id: Uuid::from_u128(2).to_string(),
            ..Hello::default()
        };
        bench.send(OpCode::Binary, &hello.encode()).await;
        let answer = bench.node.read_frame().await.unwrap();
        let answer = HelloAnswer::decode(&answer.payload).unwrap();
        assert_eq!(answer.rpc_capabilities, capabilities);
        bench.send(OpCode::Ping, &[]).await;
        assert!(bench.node.read_frame().await.unwrap().opcode == OpCode::Pong);
        assert_eq!(bench.outputs.published.receiver_count(), 1);
        assert_eq!(bench.outputs.payloads.receiver_count(), 0);
        bench.stop.cancel();
        bench.end().await;
    }
    let mut bench = Bench::new(1 << 16);
    bench.hello().await;
    bench.send(OpCode::Ping, ConfigHash::ZERO.as_bytes()).await;
    bench.node.read_frame().await.unwrap();
    assert_eq!(bench.outputs.payloads.receiver_count(), 1);
    bench.stop.cancel();
    bench.end().await;
}

#[test]
fn versions_that_are_served() {
    for (version, ok) in [
        ("3.10.0", true),
        ("3.10.9", true),
        ("3.9.1", true),
        ("3.7.0", true),
        ("3.6.1", true),
        ("3.0.0", true),
        ("3.11.0", false),
        ("2.8.5", false),
        ("4.0.0", false),
        ("", false),
        ("x.y.z", false),
    ] {
        assert_eq!(served(version).is_ok(), ok, "{version}");
    }
}
