//! Data planes on a real TLS socket: who gets in, what they get, what the store knows after.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![allow(dead_code, reason = "the support module serves several tests")]

mod support;

use std::time::Duration;

use fastwebsockets::{Frame, OpCode, Payload, WebSocket};
use http::{HeaderMap, Method};
use http_body_util::Empty;
use hyper::Request;
use hyper::body::Bytes;
use hyper::upgrade::Upgraded;
use hyper_util::rt::{TokioExecutor, TokioIo};
use sallyport_runtime::certs::{Curve, data_plane_pair};
use sallyport_runtime::tls::{self, Identity};
use sallyport_store::{NewCertificate, NewControlPlane, Node};
use sallyport_wire::config_sync::delta::Refused;
use sallyport_wire::config_sync::{BasicInfo, ErrorReport, PluginVersion, Reconfigure};
use serde_json::{Value, json};
use support::{BASE, GEO, Lab};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use uuid::Uuid;

const NODE: &str = "11111111-1111-4111-8111-111111111111";
const ZEROS: &str = "00000000000000000000000000000000";
/// Only reached when something is broken.
const PATIENCE: Duration = Duration::from_secs(30);

type Socket = WebSocket<TokioIo<Upgraded>>;

/// A fresh certificate, pinned to the default control plane through the API.
async fn pinned(lab: &Lab) -> (Identity, String) {
    pinned_for(lab, 60).await
}

/// The same with one that is good for so many days.
async fn pinned_for(lab: &Lab, days: u32) -> (Identity, String) {
    let pair = data_plane_pair("gateway", Curve::P256, days).unwrap();
    let path = format!("/v2/control-planes/{}/dp-client-certificates", lab.cp());
    let answer = lab
        .api(
            Method::POST,
            &path,
            json!({"cert": pair.cert, "title": "gw"}),
        )
        .await;
    assert_eq!(answer.status, 201, "{answer:?}");
    let id = answer.body["item"]["id"].as_str().unwrap().to_owned();
    (Identity::from_pem(&pair.cert, &pair.key).unwrap(), id)
}

fn host(lab: &Lab, kind: &str) -> String {
    format!("{}.{GEO}.{kind}.{BASE}", lab.first.control_plane.prefix)
}

async fn dial(
    lab: &Lab,
    identity: &Identity,
    host: &str,
) -> tokio_rustls::client::TlsStream<TcpStream> {
    let stream = TcpStream::connect(lab.running.local_addr).await.unwrap();
    tls::client::connect(lab.tls(Some(identity)), host, stream)
        .await
        .unwrap()
}

async fn open(lab: &Lab, identity: &Identity, host: &str, path: &str) -> Socket {
    let (socket, answer) = upgraded(lab, identity, (host, path), None).await;
    // what a data plane of ours looks for before it reports what it refused
    let takes = answer.get("sallyport-takes");
    let expected = path.starts_with("/v1/outlet").then_some("error");
    assert_eq!(takes.and_then(|it| it.to_str().ok()), expected);
    socket
}

async fn upgraded(
    lab: &Lab,
    identity: &Identity,
    (host, path): (&str, &str),
    protocols: Option<&str>,
) -> (Socket, HeaderMap) {
    let stream = dial(lab, identity, host).await;
    let mut request = Request::get(path)
        .header("host", format!("{host}:443"))
        .header("upgrade", "websocket")
        .header("connection", "upgrade")
        .header("sec-websocket-version", "13")
        .header(
            "sec-websocket-key",
            fastwebsockets::handshake::generate_key(),
        );
    if let Some(protocols) = protocols {
        request = request.header("sec-websocket-protocol", protocols);
    }
    let request = request.body(Empty::<Bytes>::new()).unwrap();
    let opened = fastwebsockets::handshake::client(&TokioExecutor::new(), request, stream).await;
    let (mut socket, answer) = opened.unwrap();
    socket.set_auto_pong(false);
    socket.set_auto_close(false);
    (socket, answer.headers().clone())
}

async fn outlet(lab: &Lab, identity: &Identity, version: &str) -> Socket {
    let path = format!("/v1/outlet?node_id={NODE}&node_hostname=gw-1&node_version={version}");
    open(lab, identity, &host(lab, "cp0"), &path).await
}

async fn hello(socket: &mut Socket, plugins: &[&str]) {
    let plugins = plugins
        .iter()
        .map(|name| PluginVersion {
            name: (*name).to_owned(),
            version: "3.10.0".to_owned(),
        })
        .collect();
    let info = BasicInfo {
        plugins,
        ..BasicInfo::default()
    };
    send(socket, OpCode::Binary, &info.encode()).await;
}

async fn send(socket: &mut Socket, opcode: OpCode, payload: &[u8]) {
    let frame = Frame::new(true, opcode, None, Payload::Owned(payload.to_vec()));
    socket.write_frame(frame).await.unwrap();
}

async fn receive(socket: &mut Socket) -> (OpCode, Vec<u8>) {
    let frame = tokio::time::timeout(PATIENCE, socket.read_frame())
        .await
        .unwrap()
        .unwrap();
    assert!(frame.fin, "a frame must not be fragmented");
    (frame.opcode, frame.payload.to_vec())
}

async fn configuration(socket: &mut Socket) -> Reconfigure {
    let (opcode, payload) = receive(socket).await;
    assert!(opcode == OpCode::Binary, "{opcode:?} {payload:?}");
    Reconfigure::decode(&payload, 1 << 24).unwrap()
}

/// Reads until the close frame; its code.
async fn closed(socket: &mut Socket) -> u16 {
    loop {
        let (opcode, payload) = receive(socket).await;
        if opcode == OpCode::Close {
            return u16::from_be_bytes(*payload.first_chunk().unwrap());
        }
    }
}

/// The stored node once it satisfies `wanted`.
async fn node(lab: &Lab, wanted: impl Fn(&Node) -> bool) -> Node {
    let look = async {
        loop {
            let nodes = lab.store.nodes(lab.first.control_plane.id).await.unwrap();
            if let Some(node) = nodes.into_iter().find(&wanted) {
                return node;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, look).await.unwrap()
}

fn names(configuration: &Reconfigure, table: &str) -> Vec<String> {
    let rows = configuration.config_table[table].as_array();
    rows.into_iter()
        .flatten()
        .map(|row| row["name"].as_str().unwrap().to_owned())
        .collect()
}

async fn service(lab: &Lab, name: &str) {
    let body = json!({"host": "upstream.test"});
    let answer = lab
        .core(Method::PUT, &format!("services/{name}"), body)
        .await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[tokio::test]
async fn a_pinned_data_plane_gets_each_change_and_is_listed() {
    let lab = Lab::start().await;
    service(&lab, "orders").await;
    let (identity, _) = pinned(&lab).await;
    let mut socket = outlet(&lab, &identity, "3.9.1").await;
    hello(&mut socket, &["key-auth", "rate-limiting"]).await;
    let first = configuration(&mut socket).await;
    assert_eq!(names(&first, "services"), ["orders"]);
    let hash = first.config_hash.unwrap();
    assert_eq!(first.hashes.unwrap().config, hash);
    assert_eq!(node(&lab, |_| true).await.seen.config_hash, ZEROS);

    send(&mut socket, OpCode::Ping, hash.as_bytes()).await;
    assert_eq!(receive(&mut socket).await, (OpCode::Pong, Vec::new()));
    let seen = node(&lab, |node| node.seen.config_hash == hash.as_str())
        .await
        .seen;
    assert_eq!(
        (seen.hostname.as_str(), seen.version.as_str()),
        ("gw-1", "3.9.1")
    );
    assert_eq!(seen.sync_status.as_str(), "normal");
    assert!(seen.cert_expires_at > seen.at);

    // Equal to what is there: no revision, so the next frame is the next real change.
    service(&lab, "orders").await;
    service(&lab, "users").await;
    let second = configuration(&mut socket).await;
    assert_eq!(names(&second, "services"), ["orders", "users"]);
    assert_ne!(second.config_hash, first.config_hash);

    let path = format!("/v2/control-planes/{}", lab.cp());
    let expected = lab
        .api(
            Method::GET,
            &format!("{path}/expected-config-hash"),
            Value::Null,
        )
        .await;
    assert_eq!(expected.body["expected_hash"], second.hash().as_str());
    let listed = lab
        .api(Method::GET, &format!("{path}/nodes"), Value::Null)
        .await;
    assert_eq!(listed.body["page"]["total_count"], 1);
    assert_eq!(listed.body["items"][0]["id"], NODE);
    let one = lab
        .api(Method::GET, &format!("{path}/nodes/{NODE}"), Value::Null)
        .await;
    assert_eq!(one.body["item"]["config_hash"], hash.as_str());
    let state = &one.body["item"]["compatibility_status"]["state"];
    assert_eq!(state, "COMPATIBILITY_STATE_FULLY_COMPATIBLE");

    // In Konnect mode a data plane tells why it refused; that must not end the link.
    let report = ErrorReport {
        name: "declarative configuration parse failure".to_owned(),
        message: "no such field".to_owned(),
        ..ErrorReport::default()
    };
    send(&mut socket, OpCode::Binary, &report.encode()).await;
    send(&mut socket, OpCode::Ping, hash.as_bytes()).await;
    assert_eq!(receive(&mut socket).await.0, OpCode::Pong);
    let told = node(&lab, |node| !node.seen.sync_detail.is_empty())
        .await
        .seen;
    assert_eq!(
        told.sync_detail,
        "declarative configuration parse failure: no such field"
    );
    assert_eq!(told.sync_status.as_str(), "entities_refused");
    let issue = async || {
        let path = format!("{path}/nodes/{NODE}");
        let one = lab.api(Method::GET, &path, Value::Null).await;
        one.body["item"]["compatibility_status"]["issues"][0].clone()
    };
    let shown = issue().await;
    assert_eq!(shown["code"], "entity_refused", "{shown}");
    assert_eq!(shown["description"], told.sync_detail);
    // what runs is the newest: it is over
    send(&mut socket, OpCode::Ping, second.hash().as_bytes()).await;
    node(&lab, |node| node.seen.sync_status.as_str() == "normal").await;
    assert_eq!(issue().await, Value::Null);

    // one that names the entities, and runs the rest under a hash of its own
    let refused = Refused {
        entity_type: "services".to_owned(),
        entity_id: NODE.to_owned(),
        field: "host".to_owned(),
        message: "no such host".to_owned(),
        kept: true,
        ..Refused::default()
    };
    let report = ErrorReport::on_entities(second.hash(), &[refused]);
    send(&mut socket, OpCode::Binary, &report.encode()).await;
    let rest = "d".repeat(32);
    send(&mut socket, OpCode::Ping, rest.as_bytes()).await;
    let seen = node(&lab, |node| node.seen.config_hash == rest).await.seen;
    assert_eq!(seen.sync_status.as_str(), "entities_refused");
    assert_eq!(seen.refused.len(), 1);
    assert!(
        seen.revision > 0,
        "the version of which it runs a part: {seen:?}"
    );
    let shown = issue().await;
    assert_eq!(shown["affected_resources"][0]["type"], "services");
    assert_eq!(shown["description"], "host: no such host");
    lab.stop().await;
}

#[tokio::test]
async fn strangers_get_no_byte_of_an_answer() {
    let lab = Lab::start().await;
    let host_name = host(&lab, "cp0");
    let stranger = data_plane_pair("stranger", Curve::P256, 30).unwrap();
    let elsewhere = data_plane_pair("elsewhere", Curve::P256, 30).unwrap();
    let actor = sallyport_store::Actor("test".to_owned());
    let new = NewControlPlane {
        name: "other".to_owned(),
        ..NewControlPlane::default()
    };
    let other = lab.store.create_control_plane(&actor, new).await.unwrap();
    let identity = Identity::from_pem(&elsewhere.cert, &elsewhere.key).unwrap();
    let new = NewCertificate {
        pem: elsewhere.cert.clone(),
        digest: identity.digest().0,
        title: String::new(),
    };
    lab.store
        .pin_certificate(other.id, &actor, new)
        .await
        .unwrap();
    let (trusted, _) = pinned(&lab).await;
    let stranger = Identity::from_pem(&stranger.cert, &stranger.key).unwrap();
    let nowhere = format!("ffffffffff.{GEO}.cp0.{BASE}");
    for (who, host_name) in [
        (&stranger, &host_name),
        (&identity, &host_name),
        (&trusted, &nowhere),
    ] {
        let mut stream = dial(&lab, who, host_name).await;
        // Writing may fail already, reading must: in any case nothing comes back.
        let request = format!("GET /v1/outlet HTTP/1.1\r\nhost: {host_name}\r\n\r\n");
        let _ = stream.write_all(request.as_bytes()).await;
        let mut answer = Vec::new();
        let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer))
            .await
            .unwrap();
        assert!(
            answer.is_empty(),
            "{read:?} {:?}",
            String::from_utf8_lossy(&answer)
        );
    }
    lab.stop().await;
}

#[tokio::test]
async fn without_a_certificate_there_is_no_handshake() {
    let lab = Lab::start().await;
    let stream = TcpStream::connect(lab.running.local_addr).await.unwrap();
    let handshake = tls::client::connect(lab.tls(None), &host(&lab, "cp0"), stream).await;
    // With TLS 1.3 the client learns of it at its first read.
    if let Ok(mut stream) = handshake {
        let mut answer = Vec::new();
        let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer))
            .await
            .unwrap();
        assert!(read.is_err() && answer.is_empty(), "{read:?} {answer:?}");
    }
    lab.stop().await;
}

#[tokio::test]
async fn bad_requests_are_answered_with_the_reason() {
    let lab = Lab::start().await;
    let (identity, _) = pinned(&lab).await;
    let upgrade = "upgrade: websocket\r\nconnection: upgrade\r\n\
                   sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let good = format!("/v1/outlet?node_id={NODE}&node_version=3.9.0");
    for (path, headers, status, part) in [
        ("/v1/outlet", upgrade, 400, "node_id"),
        (
            "/v1/outlet?node_id=x&node_version=3.9.0",
            upgrade,
            400,
            "no UUID",
        ),
        (
            &*format!("/v1/outlet?node_id={NODE}"),
            upgrade,
            400,
            "node_version",
        ),
        (&good, "", 400, "upgrade"),
        ("/v1/analytics/reqlog", upgrade, 404, "/v1/outlet"),
        ("/v2/control-planes", upgrade, 404, "/v1/outlet"),
    ] {
        let host_name = host(&lab, "cp0");
        let mut stream = dial(&lab, &identity, &host_name).await;
        let request = format!("GET {path} HTTP/1.1\r\nhost: {host_name}\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = vec![0; 4096];
        let length = tokio::time::timeout(PATIENCE, stream.read(&mut answer))
            .await
            .unwrap();
        let answer = String::from_utf8_lossy(&answer[..length.unwrap()]).into_owned();
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{path}: {answer}"
        );
        assert!(answer.contains(part), "{path}: {answer}");
    }
    lab.stop().await;
}

#[tokio::test]
async fn a_broken_protocol_ends_the_link() {
    let lab = Lab::start().await;
    let (identity, _) = pinned(&lab).await;
    let check = async |greet: bool, opcode: OpCode, payload: &[u8]| {
        let mut socket = outlet(&lab, &identity, "3.9.1").await;
        if greet {
            hello(&mut socket, &[]).await;
            configuration(&mut socket).await;
        }
        send(&mut socket, opcode, payload).await;
        assert_eq!(closed(&mut socket).await, 1002);
    };
    check(false, OpCode::Ping, ZEROS.as_bytes()).await;
    check(false, OpCode::Text, b"{}").await;
    check(false, OpCode::Binary, b"not JSON").await;
    check(false, OpCode::Binary, br#"{"type":"error","error":{}}"#).await;
    check(false, OpCode::Binary, br#"{"type":"basic_info"}"#).await;
    check(true, OpCode::Ping, b"too short").await;
    check(true, OpCode::Text, b"{}").await;
    check(true, OpCode::Binary, &[0x1f, 0x8b, 0xff]).await;
    // Here the frame is not read to its end, so the close may be overtaken by a reset.
    let mut socket = outlet(&lab, &identity, "3.9.1").await;
    hello(&mut socket, &[]).await;
    configuration(&mut socket).await;
    let long = vec![b' '; 16 * 1024 * 1024 + 1];
    let frame = Frame::new(true, OpCode::Binary, None, Payload::Owned(long));
    let written = socket.write_frame(frame).await;
    let read = tokio::time::timeout(PATIENCE, socket.read_frame()).await;
    let ended = written.is_err() || !matches!(read, Ok(Ok(frame)) if frame.opcode != OpCode::Close);
    assert!(ended);
    lab.stop().await;
}

#[tokio::test]
async fn an_unserved_version_is_told_and_noted() {
    let lab = Lab::start().await;
    let (identity, _) = pinned(&lab).await;
    for version in ["3.11.0", "2.8.5", "nonsense"] {
        let mut socket = outlet(&lab, &identity, version).await;
        hello(&mut socket, &[]).await;
        assert_eq!(closed(&mut socket).await, 1008);
        let seen = node(&lab, |node| node.seen.version == version).await.seen;
        assert_eq!(seen.sync_status.as_str(), "kong_version_incompatible");
        assert!(!seen.sync_detail.is_empty());
    }
    lab.stop().await;
}

#[tokio::test]
async fn a_configuration_is_withheld_while_a_plugin_is_missing() {
    let lab = Lab::start().await;
    let (identity, _) = pinned(&lab).await;
    let made = lab
        .core(Method::POST, "plugins", json!({"name": "key-auth"}))
        .await;
    assert_eq!(made.status, 201, "{made:?}");
    let mut socket = outlet(&lab, &identity, "3.9.1").await;
    hello(&mut socket, &["rate-limiting"]).await;
    let withheld = |node: &Node| node.seen.sync_status.as_str() == "plugin_set_incompatible";
    let seen = node(&lab, withheld).await.seen;
    assert!(
        seen.sync_detail.contains("key-auth"),
        "{}",
        seen.sync_detail
    );
    send(&mut socket, OpCode::Ping, ZEROS.as_bytes()).await;
    assert_eq!(receive(&mut socket).await.0, OpCode::Pong);

    let path = format!("plugins/{}", made.body["id"].as_str().unwrap());
    assert_eq!(
        lab.core(Method::DELETE, &path, Value::Null).await.status,
        204
    );
    configuration(&mut socket).await;
    node(&lab, |node| node.seen.sync_status.as_str() == "normal").await;
    lab.stop().await;
}

#[tokio::test]
async fn a_link_ends_with_its_pin() {
    let lab = Lab::start().await;
    let (identity, pin) = pinned(&lab).await;
    let mut socket = outlet(&lab, &identity, "3.9.1").await;
    hello(&mut socket, &[]).await;
    configuration(&mut socket).await;
    let path = format!("/v2/control-planes/{}/dp-client-certificates", lab.cp());
    // Another pin must not disturb.
    let (_, _) = pinned(&lab).await;
    let answer = lab
        .api(Method::DELETE, &format!("{path}/{pin}"), Value::Null)
        .await;
    assert_eq!(answer.status, 204);
    assert_eq!(closed(&mut socket).await, 1008);
    lab.stop().await;
}

#[tokio::test]
async fn a_certificate_that_ends_soon_is_told_and_who_is_silent_for_long_is_forgotten() {
    let mut lab = Lab::start().await;
    let (identity, _) = pinned_for(&lab, 10).await;
    let mut socket = outlet(&lab, &identity, "3.9.1").await;
    hello(&mut socket, &[]).await;
    configuration(&mut socket).await;
    let live = node(&lab, |_| true).await;
    let path = format!("/v2/control-planes/{}/nodes", lab.cp());
    let listed = lab.api(Method::GET, &path, Value::Null).await;
    let issue = &listed.body["items"][0]["compatibility_status"]["issues"][0];
    assert_eq!(issue["code"], "certificate_expires_soon", "{listed:?}");
    assert_eq!(issue["severity"], "warning");
    let days = issue["description"].as_str().unwrap();
    assert!(
        days.contains("10 days") || days.contains("9 days"),
        "{days}"
    );

    let mut silent = live.seen.clone();
    (silent.id, silent.at) = (Uuid::from_u128(5), silent.at - 61);
    lab.store.record_nodes(vec![silent]).await.unwrap();
    drop(socket);
    lab.settings.node_purge_delay = Duration::from_secs(60);
    let lab = lab.restart().await;
    let forgotten = async {
        while lab.store.all_nodes().await.unwrap().len() > 1 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, forgotten).await.unwrap();
    assert_eq!(
        lab.store.all_nodes().await.unwrap()[0].seen.id,
        live.seen.id
    );
    lab.stop().await;
}

#[tokio::test]
async fn links_end_with_their_control_plane_and_with_the_role() {
    let lab = Lab::start().await;
    let (identity, _) = pinned(&lab).await;
    let mut socket = outlet(&lab, &identity, "3.9.1").await;
    hello(&mut socket, &[]).await;
    configuration(&mut socket).await;
    let actor = sallyport_store::Actor("test".to_owned());
    let id: Uuid = lab.first.control_plane.id;
    lab.store.delete_control_plane(&actor, id).await.unwrap();
    assert_eq!(closed(&mut socket).await, 1001);
    lab.stop().await;

    let lab = Lab::start().await;
    let (identity, _) = pinned(&lab).await;
    let mut socket = outlet(&lab, &identity, "3.9.1").await;
    hello(&mut socket, &[]).await;
    configuration(&mut socket).await;
    let (code, ()) = tokio::join!(closed(&mut socket), lab.stop());
    assert_eq!(code, 1001);
}

#[tokio::test]
async fn telemetry_is_taken_from_the_same_guests() {
    let lab = Lab::start().await;
    let (identity, _) = pinned(&lab).await;
    for path in ["/v1/analytics/reqlog", "/v1/ingest"] {
        let path = format!("{path}?node_id={NODE}&node_version=3.9.1");
        let mut socket = open(&lab, &identity, &host(&lab, "tp0"), &path).await;
        send(&mut socket, OpCode::Binary, b"a batch").await;
        send(&mut socket, OpCode::Ping, b"").await;
        assert_eq!(receive(&mut socket).await, (OpCode::Pong, Vec::new()));
    }
    lab.stop().await;
}

#[path = "config_sync/burst.rs"]
mod burst;
#[path = "config_sync/groups.rs"]
mod groups;
#[path = "config_sync/rpc.rs"]
mod rpc;
