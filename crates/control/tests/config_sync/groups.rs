//! Groups on protocol v2: who was away gets what the members changed.

use std::collections::BTreeMap;

use sallyport_wire::config_sync::delta::{Deltas, GET_DELTA, OWN, SYNC, SyncVersion, get_delta};
use sallyport_wire::config_sync::rpc::Message;

use super::rpc::{ask, greet, hear, outlet_at, say};
use super::*;

/// A group, its members, and a certificate that is pinned to it.
struct Group {
    id: String,
    members: Vec<String>,
    host: String,
    identity: Identity,
}

impl Group {
    async fn of(lab: &Lab, names: &[&str]) -> Group {
        let made = async |body: Value| {
            let answer = lab.api(Method::POST, "/v2/control-planes", body).await;
            assert_eq!(answer.status, 201, "{answer:?}");
            answer.body
        };
        let group =
            made(json!({"name": "all", "cluster_type": "CLUSTER_TYPE_CONTROL_PLANE_GROUP"})).await;
        let id = group["id"].as_str().unwrap().to_owned();
        let mut members = Vec::new();
        for name in names {
            let member = made(json!({"name": name})).await;
            members.push(member["id"].as_str().unwrap().to_owned());
        }
        let pair = data_plane_pair("gateway", Curve::P256, 60).unwrap();
        let path = format!("/v2/control-planes/{id}/dp-client-certificates");
        let body = json!({"cert": pair.cert, "title": "gw"});
        let answer = lab.api(Method::POST, &path, body).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        let stored = lab.store.control_plane(id.parse().unwrap()).await.unwrap();
        let host = format!("{}.{GEO}.cp0.{BASE}", stored.prefix);
        Group {
            id,
            members,
            host,
            identity: Identity::from_pem(&pair.cert, &pair.key).unwrap(),
        }
    }

    /// These members and no others.
    async fn has(&self, lab: &Lab, members: &[&str]) {
        let path = format!("/v2/control-planes/{}/group-memberships", self.id);
        let all: Vec<Value> = members.iter().map(|id| json!({"id": id})).collect();
        let answer = lab.api(Method::PUT, &path, json!({"members": all})).await;
        assert_eq!(answer.status, 204, "{answer:?}");
    }

    /// Asks over a link of its own, at the newest version of the group.
    async fn asked(&self, lab: &Lab, from: SyncVersion) -> Deltas {
        let newest = lab.store.revision(self.id.parse().unwrap()).await.unwrap();
        let asked = async {
            loop {
                let mut socket = outlet_at(lab, &self.identity, &self.host).await;
                greet(&mut socket, 1, &[SYNC, OWN]).await;
                let deltas = ask(&mut socket, from).await;
                // the publisher sees it soon
                if revision(deltas.version) == newest {
                    return deltas;
                }
            }
        };
        tokio::time::timeout(PATIENCE, asked).await.unwrap()
    }
}

fn revision(version: SyncVersion) -> u64 {
    u64::from_str_radix(&version.as_str()[16..], 16).unwrap()
}

async fn write(lab: &Lab, member: &str, method: Method, path: &str, body: Value) {
    let path = format!("/v2/control-planes/{member}/core-entities/{path}");
    let answer = lab.api(method, &path, body).await;
    assert!((200..300).contains(&answer.status), "{answer:?}");
}

/// What a gateway has, by list and id, after it took an answer.
type Held = BTreeMap<(String, String), Value>;

fn taken(mut held: Held, deltas: &Deltas) -> Held {
    if deltas.full {
        held.clear();
    }
    for delta in &deltas.list {
        let key = (delta.table.clone(), delta.id.clone());
        match &delta.entity {
            Some(entity) => held.insert(key, entity.clone()),
            None => held.remove(&key),
        };
    }
    held
}

#[tokio::test]
async fn who_was_away_gets_the_changes_of_members_or_everything() {
    let lab = Lab::start().await;
    let group = Group::of(&lab, &["blue", "green", "red"]).await;
    let [blue, green, red] = [0, 1, 2].map(|at| group.members[at].as_str());
    group.has(&lab, &[blue, green]).await;
    let host = |name: &str| json!({"host": name});
    for member in [blue, green, red] {
        for n in 0..20 {
            let path = format!("services/{}-{n}", &member[..8]);
            write(&lab, member, Method::PUT, &path, host("upstream.test")).await;
        }
    }
    let all = group.asked(&lab, SyncVersion::NONE).await;
    assert!(all.full && all.list.len() == 40);
    let held = taken(Held::new(), &all);

    // away for several changes in two members
    let (first, second) = (
        format!("services/{}-3", &blue[..8]),
        format!("services/{}-4", &green[..8]),
    );
    write(&lab, blue, Method::PUT, &first, host("one.test")).await;
    write(&lab, green, Method::PUT, &second, host("two.test")).await;
    write(&lab, blue, Method::PUT, &first, host("three.test")).await;
    write(&lab, green, Method::DELETE, &second, Value::Null).await;
    write(&lab, blue, Method::PUT, "consumers/anna", json!({})).await;
    let lab = lab.restart().await;
    let changes = group.asked(&lab, all.version).await;
    assert!(!changes.full);
    assert_eq!(changes.list.len(), 3, "each once: {changes:?}");
    let whole = group.asked(&lab, SyncVersion::NONE).await;
    assert!(whole.full);
    let held = taken(held, &changes);
    assert_eq!(held, taken(Held::new(), &whole));
    assert_eq!((changes.hash, changes.version), (whole.hash, whole.version));
    // and from the version in between, nothing
    let nothing = group.asked(&lab, whole.version).await;
    assert_eq!((nothing.full, nothing.list.len()), (false, 0));

    // a data plane of Kong gets the same
    let mut kong = outlet_at(&lab, &group.identity, &group.host).await;
    greet(&mut kong, 2, &[SYNC]).await;
    for (from, full, deltas) in [
        (all.version, false, 3),
        (SyncVersion::NONE, true, whole.list.len() + 1),
    ] {
        say(&mut kong, &get_delta(7, from)).await;
        let told = loop {
            match hear(&mut kong).await {
                Message::Answer { result, .. } => break result,
                Message::Call { method, .. } => assert_ne!(method, GET_DELTA),
                other => panic!("{other:?}"),
            }
        };
        let told: Value = serde_json::from_str(told.get()).unwrap();
        let told = &told["default"];
        assert_eq!(told["full_sync"], full);
        assert_eq!(told["deltas"].as_array().unwrap().len(), deltas);
    }

    // a member came, one left, one was deleted: of that the logs of the members do not tell
    let before = whole.version;
    group.has(&lab, &[blue, green, red]).await;
    let joined = group.asked(&lab, before).await;
    assert!(joined.full);
    write(&lab, red, Method::PUT, "consumers/bob", json!({})).await;
    assert!(group.asked(&lab, before).await.full);
    let changes = group.asked(&lab, joined.version).await;
    assert_eq!((changes.full, changes.list.len()), (false, 1));
    group.has(&lab, &[green, red]).await;
    let left = group.asked(&lab, changes.version).await;
    assert!(left.full && left.list.len() < joined.list.len());
    let path = format!("/v2/control-planes/{green}");
    let answer = lab.api(Method::DELETE, &path, Value::Null).await;
    assert_eq!(answer.status, 204, "{answer:?}");
    let deleted = group.asked(&lab, left.version).await;
    assert!(deleted.full && deleted.list.len() == 21, "{deleted:?}");

    // a group that leaves something out depends on all that its members have
    group.has(&lab, &[blue, red]).await;
    let before = group.asked(&lab, SyncVersion::NONE).await.version;
    write(&lab, red, Method::PUT, "consumers/anna", json!({})).await;
    assert!(group.asked(&lab, before).await.full);
    // and so does the way from a version that left something out
    let before = group.asked(&lab, SyncVersion::NONE).await.version;
    write(&lab, red, Method::DELETE, "consumers/anna", Value::Null).await;
    let whole = group.asked(&lab, before).await;
    assert!(whole.full);
    write(&lab, red, Method::PUT, "consumers/carl", json!({})).await;
    let changes = group.asked(&lab, whole.version).await;
    assert_eq!((changes.full, changes.list.len()), (false, 1));
    lab.stop().await;
}
