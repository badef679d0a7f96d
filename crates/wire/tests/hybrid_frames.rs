//! Frames of foreign data planes and control planes, written by hand from the documented formats of
//! Kong 3.9 and 3.10 and of koko: what their bytes mean to us, and that ours are theirs.

#![allow(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use sallyport_wire::config_hash::hashes;
use sallyport_wire::config_sync::delta::{
    Deltas, Hello, HelloAnswer, SyncVersion, asked_version, get_delta, notify,
};
use sallyport_wire::config_sync::rpc::{self, Message};
use sallyport_wire::config_sync::{BasicInfo, FromDataPlane, OutletQuery, Reconfigure, ping_hash};
use serde_json::{Value, json};

macro_rules! frame {
    ($name:literal) => {
        include_bytes!(concat!("hybrid_frames/", $name, ".json"))
    };
}

const BYTES_MAX: usize = 1 << 20;

#[track_caller]
fn value(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

/// The bytes that cross the wire: gzip (RFC 1952) of the text.
fn gzip(text: &[u8]) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
    gzip.write_all(text).unwrap();
    gzip.finish().unwrap()
}

/// One raw block of snappy, as Kong names `x-snappy-framed`.
fn snappy(text: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(text).unwrap()
}

#[track_caller]
fn message(text: &[u8]) -> Message {
    let mut messages = rpc::decode(&snappy(text), BYTES_MAX).unwrap();
    assert_eq!(messages.len(), 1);
    messages.remove(0).unwrap()
}

#[test]
fn a_data_plane_of_kong_introduces_itself() {
    // query arguments are not percent-encoded
    let query = "node_id=7c4c3ed5-7a4c-4d3c-8f8f-1f0b0f7e2d11&node_hostname=edge-1.example&\
                 node_version=3.9.1";
    let query = OutletQuery::parse(query).unwrap();
    assert_eq!(query.node_version, "3.9.1");
    assert_eq!(query.node_hostname.as_deref(), Some("edge-1.example"));
    let FromDataPlane::BasicInfo(info) = FromDataPlane::decode(frame!("basic_info")).unwrap()
    else {
        panic!("another type");
    };
    let plugins: Vec<_> = info
        .plugins
        .iter()
        .map(|it| (it.name.as_str(), it.version.as_str()))
        .collect();
    let expected = [
        ("acl", "3.9.1"),
        ("key-auth", "3.9.1"),
        ("my-own", "0.2.0-1"),
    ];
    assert_eq!(plugins, expected);
    assert_eq!(info.process_conf["cluster_max_payload"], 16_777_216);
    assert_eq!(info.labels["deployment"], "mumbai.1");
    // and ours is the same, but for what is in it
    let ours = value(&BasicInfo::clone(&info).encode());
    assert_eq!(ours, value(frame!("basic_info")));
    // the heartbeat: nothing but 32 characters
    assert!(ping_hash(b"e287bdd83a30b3c83c498e6e524f619b").is_ok());
    assert!(ping_hash(&[b'0'; 32]).unwrap().is_zero());
    assert!(ping_hash(b"").is_err() && ping_hash(&[b'0'; 33]).is_err());
}

#[test]
fn a_control_plane_of_kong_sends_a_configuration() {
    let read = Reconfigure::decode(&gzip(frame!("reconfigure")), BYTES_MAX).unwrap();
    // taken as it is named, never computed again
    assert_eq!(read.hash().as_str(), "e287bdd83a30b3c83c498e6e524f619b");
    assert_eq!(read.timestamp, Some(1_764_460_800.123));
    let table = &read.config_table;
    assert_eq!(table["_format_version"], "3.0");
    assert_eq!(table["routes"][0]["service"], table["services"][0]["id"]);
    assert_eq!(table["targets"][0]["created_at"], 1_764_460_000.123);
    assert!(table["services"][0]["path"].is_null());
    // ours has the same members
    let ours = Reconfigure::new(table.clone(), 1_764_460_800.123);
    let ours = ours.encode();
    let mut frame = flate2::read::GzDecoder::new(&ours[..]);
    let mut text = Vec::new();
    std::io::Read::read_to_end(&mut frame, &mut text).unwrap();
    let (ours, theirs) = (value(&text), value(frame!("reconfigure")));
    let members = |frame: &Value, at: &str| -> Vec<String> {
        let object = frame.pointer(at).and_then(Value::as_object).unwrap();
        let mut members: Vec<String> = object.keys().cloned().collect();
        members.sort();
        members
    };
    for at in ["", "/hashes", "/config_table"] {
        assert_eq!(members(&ours, at), members(&theirs, at), "{at}");
    }
    assert_eq!(ours["config_table"], theirs["config_table"]);
}

#[test]
fn koko_sends_neither_a_time_nor_hashes_of_parts() {
    let read = Reconfigure::decode(&gzip(frame!("reconfigure_koko")), BYTES_MAX).unwrap();
    assert_eq!((read.timestamp, read.hashes.is_none()), (None, true));
    // another function than Kong's, and nobody minds
    assert_eq!(read.hash().as_str(), "7d5f1c3b2a9e8f407d5f1c3b2a9e8f40");
    assert_ne!(read.hash(), hashes(&read.config_table).config);
    assert_eq!(read.config_table["_format_version"], "2.1");
}

#[test]
fn a_data_plane_in_konnect_mode_says_what_it_refused() {
    let FromDataPlane::Error(report) = FromDataPlane::decode(frame!("error")).unwrap() else {
        panic!("another type");
    };
    assert_eq!(report.name, "declarative configuration parse failure");
    assert_eq!(report.config_hash, "e287bdd83a30b3c83c498e6e524f619b");
    assert_eq!(value(&report.encode()), value(frame!("error")));
}

#[test]
fn hellos_of_protocol_v2_are_plain_json() {
    let (id, hello) = Hello::decode(frame!("hello")).unwrap();
    assert_eq!((id, hello.kong_version.as_str()), (1, "3.10.0"));
    assert_eq!(hello.rpc_capabilities, ["kong.sync.v2"]);
    assert_eq!(hello.kong_conf["cluster_rpc_sync"], true);
    assert_eq!(value(&hello.encode()), value(frame!("hello")));
    let answer = HelloAnswer::decode(frame!("hello_answer")).unwrap();
    assert!(answer.has("kong.sync.v2") && !answer.has("kong.debug.v1"));
    assert_eq!(value(&answer.encode(1)), value(frame!("hello_answer")));
}

#[test]
fn everything_after_the_hellos_is_a_block_of_snappy() {
    let Message::Call { id, method, params } = message(frame!("get_delta")) else {
        panic!("no call");
    };
    assert_eq!((id, method.as_str()), (0, "kong.sync.v2.get_delta"));
    assert_eq!(asked_version(&params), Ok(SyncVersion::NONE));
    let ours = get_delta(0, SyncVersion::NONE);
    assert_eq!(value(&ours.to_json()), value(frame!("get_delta")));

    let Message::Answer { id: 0, result } = message(frame!("get_delta_answer")) else {
        panic!("no answer");
    };
    let deltas = Deltas::from_raw(&result).unwrap();
    assert!(deltas.full);
    assert_eq!(deltas.version.as_str(), "v02_000000000000000000000000002a");
    let told: Vec<_> = deltas.list.iter().map(|it| it.table.as_str()).collect();
    assert_eq!(told, ["services", "routes"]);
    let route = deltas.list[1].entity.as_ref().unwrap();
    assert_eq!(route["service"], json!({"id": deltas.list[0].id}));

    let Message::Call { id: 7, method, .. } = message(frame!("notify_new_version")) else {
        panic!("no call");
    };
    assert_eq!(method, "kong.sync.v2.notify_new_version");
    let ours = value(&notify(7, SyncVersion::new(0, 43)).to_json());
    assert_eq!(ours, value(frame!("notify_new_version")));
    // a frame that is no block of snappy is refused, not believed
    assert!(rpc::decode(frame!("get_delta"), BYTES_MAX).is_err());
}
