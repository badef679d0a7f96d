//! A gateway whose control plane, written by hand, publishes changes that do not lead to the hash it
//! names: nothing of them is served, everything is asked for, and the counter says so.

use std::io::{Read, Write};

use sallyport_testkit::http::get;
use sallyport_testkit::{Echo, eventually, free_ports};
use sallyport_wire::ConfigHash;
use sallyport_wire::config_sync::delta::{
    Delta, Deltas, GET_DELTA, Hello, HelloAnswer, OWN, REPORT, Report, SYNC, SyncVersion,
    asked_version,
};
use sallyport_wire::config_sync::digest::{EntityDigest, SetDigest};
use sallyport_wire::config_sync::rpc::{ENCODING, Message, decode};
use serde_json::json;

use crate::hybrid_frames::{BINARY, Fake, Link, frame, shared_conf};
use crate::lab::{Pair, sallyport, soon, write};

/// The payload of the next frame of this kind; others are passed over.
#[track_caller]
fn hear(link: &mut Link) -> Vec<u8> {
    loop {
        let mut head = [0; 2];
        link.read_exact(&mut head).unwrap();
        let mut more = vec![0; [0, 2, 8][(head[1] & 0x7f).saturating_sub(125) as usize]];
        link.read_exact(&mut more).unwrap();
        let length = match more.is_empty() {
            true => usize::from(head[1] & 0x7f),
            false => more
                .iter()
                .fold(0, |sum, byte| sum << 8 | usize::from(*byte)),
        };
        let mut rest = vec![0; 4 + length];
        link.read_exact(&mut rest).unwrap();
        let (mask, payload) = rest.split_at(4);
        if head[0] == BINARY {
            let payload = payload.iter().zip(mask.iter().cycle());
            return payload.map(|(byte, mask)| byte ^ mask).collect();
        }
    }
}

#[track_caller]
fn say(link: &mut Link, payload: &[u8]) {
    link.write_all(&frame(BINARY, payload, false)).unwrap();
    link.flush().unwrap();
}

/// Reads until everything or changes are asked for; the call, and since when.
#[track_caller]
fn asked(link: &mut Link) -> (u64, SyncVersion) {
    loop {
        for message in decode(&hear(link), 1 << 20).unwrap() {
            if let Message::Call { id, method, params } = message.unwrap()
                && method == GET_DELTA
            {
                return (id, asked_version(&params).unwrap());
            }
        }
    }
}

/// Reads until the gateway says that it runs this version; the hash it has.
#[track_caller]
fn reported(link: &mut Link, version: SyncVersion) -> ConfigHash {
    loop {
        for message in decode(&hear(link), 1 << 20).unwrap() {
            if let Message::Notification { method, params } = message.unwrap()
                && method == REPORT
            {
                let report = Report::from_params(&params).unwrap();
                assert_eq!(report.refused, []);
                if report.version == version {
                    return report.config_hash;
                }
            }
        }
    }
}

/// A service and a route to it, both of this number, the route at `/name`.
fn route(number: u8, name: &str, port: u16) -> [Delta; 2] {
    let id = |kind: u8| format!("7c4c3ed5-7a4c-4d3c-8f8f-1f0b0f7e{kind:02}{number:02}");
    let service = json!({"id": id(1), "name": name, "host": "127.0.0.1", "port": port,
        "protocol": "http"});
    let route = json!({"id": id(2), "name": name, "paths": [format!("/{name}")],
        "service": {"id": id(1)}, "protocols": ["http", "https"]});
    [("services", service), ("routes", route)].map(|(table, entity)| Delta {
        table: table.to_owned(),
        id: entity["id"].as_str().unwrap().to_owned(),
        entity: Some(entity),
    })
}

fn hash(list: &[Delta]) -> ConfigHash {
    let mut digest = SetDigest::default();
    for Delta { table, entity, .. } in list {
        let text = entity.as_ref().unwrap().to_string();
        digest.add(table, EntityDigest::of(table, &text));
    }
    digest.hash()
}

#[test]
fn changes_with_another_hash_are_not_served_and_everything_is_asked_for() {
    let echo = Echo::start();
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::new(&Pair::make_shared(dir.path()));
    let [port, status] = free_ports();
    let status_listen = format!("127.0.0.1:{status}");
    let conf = shared_conf(dir.path(), &fake, port, &status_listen);
    write(&dir.path().join("kong.conf"), conf);
    let gateway = sallyport()
        .args(["gateway", "-c", "kong.conf"])
        .dir(dir.path())
        .start();
    let answer = |path: &str| get(format!("http://127.0.0.1:{port}{path}")).send();
    let code = |path: &str| answer(path).map_or(0, |answer| answer.status);
    let told = |path: &str| get(format!("http://{status_listen}{path}")).send().unwrap();
    let resyncs = || {
        let text = told("/metrics").text();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("sallyport_config_sync_resyncs_total "));
        line.unwrap().to_owned()
    };

    let (mut link, request) = fake.request();
    assert!(
        request.starts_with("GET /v2/outlet HTTP/1.1\r\n"),
        "{request}"
    );
    let upgrade = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n\
                   Upgrade: websocket\r\nSec-WebSocket-Accept: unchecked\r\n\
                   Sec-WebSocket-Protocol: kong.meta.v1\r\n\r\n";
    link.write_all(upgrade.as_bytes()).unwrap();
    link.flush().unwrap();
    let (id, _) = Hello::decode(&hear(&mut link)).unwrap();
    let hello = HelloAnswer {
        rpc_capabilities: vec![SYNC.to_owned(), OWN.to_owned()],
        rpc_frame_encoding: ENCODING.to_owned(),
    };
    say(&mut link, &hello.encode(id));

    // what is right is served
    let version = |revision| SyncVersion::new(7, revision);
    let everything = |version, list: &[Delta]| Deltas {
        full: true,
        from: None,
        version,
        hash: Some(hash(list)),
        list: list.to_vec(),
    };
    let first = route(1, "first", echo.port()).to_vec();
    let reply = |link: &mut Link, id, deltas: &Deltas| {
        let result = deltas.to_raw();
        say(link, &Message::Answer { id, result }.encode());
    };
    let (id, since) = asked(&mut link);
    assert_eq!(since, SyncVersion::NONE);
    reply(&mut link, id, &everything(version(1), &first));
    assert_eq!(reported(&mut link, version(1)), hash(&first));
    assert_eq!((code("/first"), code("/second")), (200, 404));
    assert_eq!(resyncs(), "0");
    let before = told("/status").json()["configuration_hash"].clone();

    // a change that leads elsewhere than it says: as if another one had been lost
    let second = route(2, "second", echo.port()).to_vec();
    let both = [first, second.clone()].concat();
    let changes = Deltas {
        full: false,
        from: Some(version(1)),
        version: version(2),
        hash: Some(hash(&second)),
        list: second,
    };
    say(&mut link, &changes.push());
    let (id, since) = asked(&mut link);
    assert_eq!(since, SyncVersion::NONE, "everything is asked for");
    assert_eq!(resyncs(), "1");
    assert_eq!(told("/status").json()["configuration_hash"], before);
    assert_eq!((code("/first"), code("/second")), (200, 404));
    gateway.wait_for_line("what runs would not be what was published", soon());

    reply(&mut link, id, &everything(version(2), &both));
    assert_eq!(reported(&mut link, version(2)), hash(&both));
    eventually("what was published is served", soon(), || {
        (code("/first"), code("/second")) == (200, 200)
    });
    assert_eq!(resyncs(), "1");
    assert_ne!(told("/status").json()["configuration_hash"], before);
    let log = gateway.output();
    assert!(!log.contains("panicked"), "{log}");
}
