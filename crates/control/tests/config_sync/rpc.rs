//! Protocol v2, frame by frame.

use sallyport_wire::config_sync::delta::{
    Deltas, GET_DELTA, Hello, HelloAnswer, NOTIFY, NOTIFY_ERROR, OWN, PUSH, Refused, Report, SYNC,
    SyncVersion, get_delta,
};
use sallyport_wire::config_sync::kong_deltas::WORKSPACE;
use sallyport_wire::config_sync::rpc::{ENCODING, Message, compress, decode, raw};
use tokio::task::JoinSet;

use super::*;

async fn outlet(lab: &Lab, identity: &Identity) -> Socket {
    outlet_at(lab, identity, &host(lab, "cp0")).await
}

pub(super) async fn outlet_at(lab: &Lab, identity: &Identity, host: &str) -> Socket {
    let protocols = Some("other, kong.meta.v1");
    let (socket, answer) = upgraded(lab, identity, (host, "/v2/outlet"), protocols).await;
    assert_eq!(answer["sec-websocket-protocol"], "kong.meta.v1");
    socket
}

/// Says hello; what the control plane can.
pub(super) async fn greet(socket: &mut Socket, node: u128, capabilities: &[&str]) -> HelloAnswer {
    greet_as(socket, node, capabilities, "3.10.0").await
}

async fn greet_as(
    socket: &mut Socket,
    node: u128,
    capabilities: &[&str],
    version: &str,
) -> HelloAnswer {
    let settings = serde_json::Map::new();
    greet_with(socket, node, capabilities, (version, settings)).await
}

/// The same with these settings shown.
pub(super) async fn greet_with(
    socket: &mut Socket,
    node: u128,
    capabilities: &[&str],
    (version, kong_conf): (&str, serde_json::Map<String, Value>),
) -> HelloAnswer {
    let hello = Hello {
        rpc_capabilities: capabilities.iter().map(|it| (*it).to_owned()).collect(),
        rpc_frame_encodings: vec![ENCODING.to_owned()],
        kong_version: version.to_owned(),
        kong_hostname: "gw".to_owned(),
        kong_node_id: Uuid::from_u128(node).to_string(),
        kong_conf,
        ..Hello::default()
    };
    send(socket, OpCode::Binary, &hello.encode()).await;
    let (opcode, frame) = receive(socket).await;
    assert!(opcode == OpCode::Binary, "{opcode:?}");
    HelloAnswer::decode(&frame).unwrap()
}

pub(super) async fn say(socket: &mut Socket, message: &Message) {
    send(socket, OpCode::Binary, &message.encode()).await;
}

pub(super) async fn hear(socket: &mut Socket) -> Message {
    let (opcode, frame) = receive(socket).await;
    assert!(opcode == OpCode::Binary, "{opcode:?}");
    decode(&frame, 1 << 24).unwrap().remove(0).unwrap()
}

pub(super) async fn ask(socket: &mut Socket, version: SyncVersion) -> Deltas {
    say(socket, &get_delta(0, version)).await;
    match hear(socket).await {
        Message::Answer { id: 0, result } => Deltas::from_raw(&result).unwrap(),
        other => panic!("{other:?}"),
    }
}

async fn pushed(socket: &mut Socket) -> Deltas {
    match hear(socket).await {
        Message::Notification { method, params } if method == PUSH => {
            Deltas::from_params(&params).unwrap()
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn everything_comes_once_and_then_changes_only() {
    let lab = Lab::start().await;
    service(&lab, "orders").await;
    let (identity, _) = pinned(&lab).await;
    let mut socket = outlet(&lab, &identity).await;
    let answer = greet(&mut socket, 1, &[SYNC, OWN]).await;
    assert!(answer.has(SYNC) && answer.has(OWN));
    let all = ask(&mut socket, SyncVersion::NONE).await;
    assert!(all.full);
    assert_eq!(all.list.len(), 1);
    // asked again from there, nothing is new
    let nothing = ask(&mut socket, all.version).await;
    assert_eq!((nothing.full, nothing.list.len()), (false, 0));
    assert_eq!((nothing.version, nothing.hash), (all.version, all.hash));

    service(&lab, "users").await;
    let change = pushed(&mut socket).await;
    assert_eq!(change.from, Some(all.version));
    let names: Vec<_> = change
        .list
        .iter()
        .map(|it| &it.entity.as_ref().unwrap()["name"])
        .collect();
    assert_eq!(names, ["users"]);
    // who was away gets the same by asking; another control plane's version gets everything
    let missed = ask(&mut socket, all.version).await;
    assert_eq!((missed.full, &missed.list), (false, &change.list));
    assert_eq!(missed.hash, change.hash);
    assert!(ask(&mut socket, SyncVersion::new(7, 1)).await.full);

    let refused = Refused {
        entity_type: "services".to_owned(),
        entity_id: change.list[0].id.clone(),
        field: "host".to_owned(),
        message: "no".to_owned(),
        ..Refused::default()
    };
    let report = Report {
        version: change.version,
        config_hash: change.hash.unwrap(),
        refused: vec![refused],
    };
    say(&mut socket, &report.to_message()).await;
    let seen = node(&lab, |node| !node.seen.refused.is_empty()).await.seen;
    assert_eq!(seen.sync_status.as_str(), "entities_refused");
    assert!(
        seen.sync_detail.contains(".host: no"),
        "{}",
        seen.sync_detail
    );
    assert_eq!(seen.config_hash, change.hash.unwrap().as_str());
    lab.stop().await;
}

/// What a link says that its data plane has left already comes after what the next one said.
#[tokio::test]
async fn what_arrives_late_over_an_older_link_changes_nothing() {
    let lab = Lab::start().await;
    service(&lab, "orders").await;
    let (identity, _) = pinned(&lab).await;
    let report = |deltas: &Deltas| Report {
        version: deltas.version,
        config_hash: deltas.hash.unwrap(),
        refused: Vec::new(),
    };
    let mut old = outlet(&lab, &identity).await;
    greet(&mut old, 1, &[SYNC, OWN]).await;
    let first = ask(&mut old, SyncVersion::NONE).await;
    say(&mut old, &report(&first).to_message()).await;
    service(&lab, "users").await;
    // so that the next one asks when the publisher has it already
    pushed(&mut old).await;
    let mut new = outlet(&lab, &identity).await;
    greet(&mut new, 1, &[SYNC, OWN]).await;
    let second = ask(&mut new, first.version).await;
    say(&mut new, &report(&second).to_message()).await;
    let hash = second.hash.unwrap().to_string();
    node(&lab, |node| node.seen.config_hash == hash).await;
    // late, and answered after it, so it was heard
    say(&mut old, &report(&first).to_message()).await;
    ask(&mut old, first.version).await;
    ask(&mut new, second.version).await;
    let nodes = lab.store.nodes(lab.first.control_plane.id).await.unwrap();
    assert_eq!(nodes.len(), 1);
    assert_eq!(nodes[0].seen.config_hash, hash);
    // the older one ends last: the node is the newer one's still
    drop(old);
    service(&lab, "carts").await;
    let third = pushed(&mut new).await;
    say(&mut new, &report(&third).to_message()).await;
    let hash = third.hash.unwrap().to_string();
    node(&lab, |node| node.seen.config_hash == hash).await;
    lab.stop().await;
}

/// What a data plane of Kong 3.10 does, frame by frame.
#[tokio::test]
async fn kongs_data_plane_is_told_what_is_new_and_asks_for_it() {
    let lab = Lab::start().await;
    service(&lab, "orders").await;
    let (identity, _) = pinned(&lab).await;
    let mut socket = outlet(&lab, &identity).await;
    let hello = Hello {
        rpc_capabilities: vec![SYNC.to_owned()],
        rpc_frame_encodings: vec![ENCODING.to_owned()],
        kong_version: "3.10.0".to_owned(),
        kong_node_id: NODE.to_owned(),
        kong_conf: [("cluster_dp_labels".to_owned(), json!(["zone:a"]))]
            .into_iter()
            .collect(),
        ..Hello::default()
    };
    send(&mut socket, OpCode::Binary, &hello.encode()).await;
    let answer = HelloAnswer::decode(&receive(&mut socket).await.1).unwrap();
    assert_eq!(answer.rpc_capabilities, [SYNC]);

    // it is told of the version before it gets it, so that it says when it has it
    say(&mut socket, &get_delta(0, SyncVersion::NONE)).await;
    let (notice, first) = told(&mut socket).await;
    assert_eq!(notice, 1);
    let all = result(&mut socket, 0).await;
    assert_eq!(all["full_sync"], true);
    let types: Vec<&str> = all["deltas"]
        .as_array()
        .unwrap()
        .iter()
        .map(|delta| {
            assert_eq!(delta["version"], first.as_str());
            assert_eq!(delta["ws_id"], WORKSPACE);
            delta["type"].as_str().unwrap()
        })
        .collect();
    assert_eq!(types, ["workspaces", "services"]);
    let workspace = json!({"id": WORKSPACE, "name": "default"});
    assert_eq!(all["deltas"][0]["entity"], workspace);
    assert_eq!(all["deltas"][1]["entity"]["ws_id"], WORKSPACE);
    let runs = |version: SyncVersion| Message::Notification {
        method: GET_DELTA.to_owned(),
        params: raw(&json!([{"default": {"version": version}}])),
    };
    say(&mut socket, &runs(first)).await;
    let seen = node(&lab, |node| node.seen.revision > 0).await.seen;
    assert_eq!(seen.sync_status.as_str(), "normal");
    assert!(seen.config_hash != ZEROS && !seen.config_hash.starts_with("v02_"));
    assert_eq!(seen.labels["zone"], "a");
    // asked again half a minute later, nothing is new
    say(&mut socket, &get_delta(1, first)).await;
    let nothing = result(&mut socket, 1).await;
    assert_eq!(nothing, json!({"deltas": [], "full_sync": false}));

    // something new, and something that Kong does not know
    service(&lab, "users").await;
    let (notice, second) = told(&mut socket).await;
    assert_eq!(notice, 2);
    say(&mut socket, &get_delta(2, first)).await;
    let changes = result(&mut socket, 2).await;
    assert_eq!(changes["full_sync"], false);
    assert_eq!(changes["deltas"].as_array().unwrap().len(), 1);
    assert_eq!(changes["deltas"][0]["entity"]["name"], "users");
    let group = json!({"name": "gold"});
    let answer = lab.core(Method::POST, "consumer_groups", group).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    let (_, third) = told(&mut socket).await;
    say(&mut socket, &get_delta(3, second)).await;
    let carrier = result(&mut socket, 3).await;
    assert_eq!(carrier["deltas"].as_array().unwrap().len(), 1);
    assert_eq!(carrier["deltas"][0]["entity"], workspace);
    assert_eq!(carrier["deltas"][0]["version"], third.as_str());
    let answer = lab
        .core(Method::DELETE, "services/users", Value::Null)
        .await;
    assert_eq!(answer.status, 204, "{answer:?}");
    let (_, fourth) = told(&mut socket).await;
    say(&mut socket, &get_delta(4, third)).await;
    let gone = result(&mut socket, 4).await;
    let id = &changes["deltas"][0]["entity"]["id"];
    let expected = json!([{"type": "services", "version": fourth, "ws_id": WORKSPACE,
        "entity": null, "pk": {"id": id}}]);
    assert_eq!(gone["deltas"], expected);

    // it cannot take that; then it can
    let error = json!({"version": "v02_deltas_have_no_latest_version_field", "error": {
        "name": "sync deltas parse failure", "code": 21, "fields": {},
        "message": "sync deltas is invalid: {}",
        "source": "kong.clustering.services.sync.validate.validate_deltas",
        "flattened_errors": [{"entity_type": "route", "entity_id": NODE, "errors": [
            {"type": "field", "field": "paths.1", "message": "should start with: /"}]}],
    }});
    let seen = refused(&lab, &mut socket, error).await;
    assert!(
        seen.sync_detail.contains(".paths.1: should start with: /"),
        "{}",
        seen.sync_detail
    );
    say(&mut socket, &runs(fourth)).await;
    let seen = node(&lab, |node| !refusing(node)).await.seen;
    assert_eq!(seen.refused[0]["entity_type"], "consumer_groups");
    send(&mut socket, OpCode::Ping, b"").await;
    assert_eq!(receive(&mut socket).await.0, OpCode::Pong);
    lab.stop().await;
}

fn refusing(node: &Node) -> bool {
    node.seen.sync_status.as_str() == "entities_refused"
}

/// Says as a data plane of Kong that it cannot take a version; how it is shown then.
async fn refused(lab: &Lab, socket: &mut Socket, error: Value) -> sallyport_store::NodeSeen {
    let refusal = Message::Notification {
        method: NOTIFY_ERROR.to_owned(),
        params: raw(&json!([error])),
    };
    say(socket, &refusal).await;
    node(lab, refusing).await.seen
}

/// What such a data plane refused stays refused until it runs the newest version, and who has that
/// version is told nothing.
#[tokio::test]
async fn kongs_refusals_stay_until_it_runs_what_is_newest() {
    let lab = Lab::start().await;
    service(&lab, "orders").await;
    let (identity, _) = pinned(&lab).await;
    let mut socket = outlet(&lab, &identity).await;
    greet_as(&mut socket, 5, &[SYNC], "3.10.0").await;
    say(&mut socket, &get_delta(0, SyncVersion::NONE)).await;
    let (_, first) = told(&mut socket).await;
    result(&mut socket, 0).await;
    say(&mut socket, &get_delta(1, first)).await;
    result(&mut socket, 1).await;
    let runs_first = node(&lab, |node| node.seen.revision > 0)
        .await
        .seen
        .config_hash;
    service(&lab, "users").await;
    let (_, second) = told(&mut socket).await;
    say(&mut socket, &get_delta(2, first)).await;
    result(&mut socket, 2).await;

    // it says no more than that it will not have it
    let error = json!({"version": second, "error": {"name": "sync error", "message": "no room"}});
    let seen = refused(&lab, &mut socket, error).await;
    assert!(
        seen.sync_detail.contains("sync error: no room"),
        "{}",
        seen.sync_detail
    );
    assert_eq!(seen.config_hash, runs_first);

    // half a minute later it asks again, from where it is; that does not mend it
    let mut call = 3;
    let later = loop {
        say(&mut socket, &get_delta(call, first)).await;
        result(&mut socket, call).await;
        call += 1;
        let newest = node(&lab, |_| true).await;
        if newest.seen.at > seen.at {
            break newest;
        }
        assert!(call < 1_000, "it is not heard of any more");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert!(refusing(&later), "{later:?}");

    say(&mut socket, &get_delta(call, second)).await;
    result(&mut socket, call).await;
    let seen = node(&lab, |node| !refusing(node)).await.seen;
    assert_ne!(seen.config_hash, runs_first);
    drop(socket);

    // one that comes back with it gets its answer, and no notice of what it has
    let mut socket = outlet(&lab, &identity).await;
    greet_as(&mut socket, 5, &[SYNC], "3.10.0").await;
    say(&mut socket, &get_delta(0, second)).await;
    let nothing = result(&mut socket, 0).await;
    assert_eq!(nothing, json!({"deltas": [], "full_sync": false}));
    lab.stop().await;
}

/// The next message is a notification; its id and the version.
async fn told(socket: &mut Socket) -> (u64, SyncVersion) {
    match hear(socket).await {
        Message::Call { id, method, params } if method == NOTIFY => {
            let params: Value = serde_json::from_str(params.get()).unwrap();
            let version = params[0]["default"]["new_version"].as_str().unwrap();
            let result = raw(&true);
            say(socket, &Message::Answer { id, result }).await;
            (id, version.parse().unwrap())
        }
        other => panic!("{other:?}"),
    }
}

/// The next message answers this call; what it says of the only namespace.
async fn result(socket: &mut Socket, call: u64) -> Value {
    match hear(socket).await {
        Message::Answer { id, result } if id == call => {
            let result: Value = serde_json::from_str(result.get()).unwrap();
            result["default"].clone()
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn older_ones_are_told_to_take_protocol_v1_and_rubbish_gets_a_code() {
    let lab = Lab::start().await;
    let (identity, _) = pinned(&lab).await;
    let mut socket = outlet(&lab, &identity).await;
    let answer = greet_as(&mut socket, 1, &[SYNC], "3.9.1").await;
    assert_eq!(answer.rpc_capabilities, [""; 0]);
    let codes = [
        (
            &b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"kong.sync.v2.get_delta\",\"params\":[]}"
                [..],
            -32601,
        ),
        (b"[{}]", -32600),
    ];
    for (text, code) in codes {
        send(&mut socket, OpCode::Binary, &compress(text)).await;
        match hear(&mut socket).await {
            Message::Failure { code: told, .. } => assert_eq!(told, code),
            other => panic!("{other:?}"),
        }
    }
    send(&mut socket, OpCode::Ping, b"").await;
    assert_eq!(receive(&mut socket).await.0, OpCode::Pong);
    send(&mut socket, OpCode::Binary, b"\xff\xff\xff\xff\xff").await;
    assert_eq!(closed(&mut socket).await, 1002);
    lab.stop().await;
}

/// Both ends of their connections are in this process; the benchmark has more.
const GATEWAYS: u128 = 1_000;

#[tokio::test]
async fn gateways_that_come_back_at_once_are_all_served() {
    let files = sallyport_runtime::open_files::raise();
    assert!(
        files > Some(2_500),
        "this system lets a process open {files:?} files only"
    );
    let lab = Lab::start().await;
    service(&lab, "orders").await;
    let (identity, _) = pinned(&lab).await;
    let mut first = outlet(&lab, &identity).await;
    greet(&mut first, 0, &[SYNC, OWN]).await;
    let known = ask(&mut first, SyncVersion::NONE).await;
    drop(first);
    let lab = std::sync::Arc::new(lab.restart().await);
    let mut gateways = JoinSet::new();
    for node in 1..=GATEWAYS {
        let (lab, identity, version) = (lab.clone(), identity.clone(), known.version);
        gateways.spawn(async move {
            let mut socket = outlet(&lab, &identity).await;
            greet(&mut socket, node, &[SYNC, OWN]).await;
            let nothing = ask(&mut socket, version).await;
            assert!(!nothing.full && nothing.list.is_empty());
            let report = Report {
                version,
                config_hash: nothing.hash.unwrap(),
                refused: Vec::new(),
            };
            say(&mut socket, &report.to_message()).await;
            socket
        });
    }
    let mut sockets = Vec::new();
    while let Some(socket) = gateways.join_next().await {
        sockets.push(socket.unwrap());
    }
    let wanted = |nodes: &[Node]| {
        let live = |node: &&Node| node.seen.sync_status.as_str() == "normal";
        nodes.iter().filter(live).count() == GATEWAYS as usize
    };
    let all_known = async {
        while !wanted(&lab.store.nodes(lab.first.control_plane.id).await.unwrap()) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, all_known).await.unwrap();
    service(&lab, "users").await;
    for socket in &mut sockets {
        assert_eq!(pushed(socket).await.list.len(), 1);
    }
    drop(sockets);
    std::sync::Arc::into_inner(lab).unwrap().stop().await;
}
