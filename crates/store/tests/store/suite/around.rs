//! Changes with what is around them.

use std::collections::BTreeSet;

use sallyport_model::Kind;
use sallyport_store::{Around, ClusterType, Members, NewControlPlane, Put, Store};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{actor, control_plane};

fn id(n: u128) -> Uuid {
    Uuid::from_u128(n)
}

async fn put(store: &Store, cp: Uuid, kind: Kind, n: u128, body: Value) {
    let mut body = body;
    body["id"] = json!(id(n));
    let put = Put::of(kind, id(n), body);
    store.put(cp, &actor(), put).await.unwrap();
}

fn refers(field: &str, n: u128) -> Value {
    json!({"name": "key-auth", field: {"id": id(n)}})
}

/// Services 1 and 2, with routes 11 and 12; plugins 21 of service 1, 22 of route 11, 23 of route 12
/// and service 1; consumer 31 of nobody.
async fn fill(store: &Store, cp: Uuid) {
    for n in [1, 2] {
        let name = format!("s{n}");
        put(store, cp, Kind::Service, n, json!({"name": name})).await;
        let route = json!({"name": name, "service": {"id": id(n)}});
        put(store, cp, Kind::Route, 10 + n, route).await;
    }
    put(store, cp, Kind::Plugin, 21, refers("service", 1)).await;
    put(store, cp, Kind::Plugin, 22, refers("route", 11)).await;
    let mut both = refers("route", 12);
    both["service"] = json!({"id": id(1)});
    put(store, cp, Kind::Plugin, 23, both).await;
    put(store, cp, Kind::Consumer, 31, json!({"username": "u"})).await;
}

fn others(around: &Around) -> BTreeSet<u128> {
    let ids = around.others.iter().map(|(_, body)| &body["id"]);
    let ids: Vec<u128> = ids
        .map(|id| id.as_str().unwrap().parse::<Uuid>().unwrap().as_u128())
        .collect();
    let each: BTreeSet<u128> = ids.iter().copied().collect();
    assert_eq!(ids.len(), each.len(), "each once");
    each
}

/// Where everything is in one control plane, and where it is in a member of a group beside another.
pub(crate) async fn what_is_around_a_change_is_read_with_it(store: Store) {
    let alone = control_plane(&store, "alone").await;
    let (member, other) = (
        control_plane(&store, "member").await,
        control_plane(&store, "other").await,
    );
    let new = NewControlPlane {
        name: "all".to_owned(),
        cluster_type: ClusterType::ControlPlaneGroup,
        ..NewControlPlane::default()
    };
    let group = store.create_control_plane(&actor(), new).await.unwrap().id;
    let all = Members::Replace(vec![member, other]);
    store.change_group(&actor(), group, all).await.unwrap();
    for n in 100..110 {
        put(
            &store,
            other,
            Kind::Service,
            n,
            json!({"name": format!("s{n}")}),
        )
        .await;
    }
    for (cp, served) in [(alone, alone), (member, group)] {
        fill(&store, cp).await;
        let first = store.revision(served).await.unwrap();
        let s1 = |enabled: bool| json!({"name": "s1", "enabled": enabled});
        let r1 = |name: &str| json!({"name": name, "service": {"id": id(1)}});
        let steps: [(Kind, u128, Value, &[u128]); 7] = [
            (Kind::Consumer, 31, json!({"username": "v"}), &[]),
            // what it belongs to
            (Kind::Route, 11, r1("new"), &[1]),
            (
                Kind::Plugin,
                22,
                json!({"name": "acl", "route": {"id": id(11)}}),
                &[1, 11],
            ),
            // what is served or not with it, and what that belongs to
            (Kind::Service, 1, s1(false), &[2, 11, 12, 21, 22, 23]),
            (Kind::Service, 1, s1(true), &[2, 11, 12, 21, 22, 23]),
            (Kind::Service, 2, json!({"name": "s2", "host": "h"}), &[]),
            (
                Kind::Route,
                12,
                json!({"name": "s2", "service": {"id": id(2)}, "expression": "a"}),
                &[1, 2, 23],
            ),
        ];
        let mut before = first;
        for (kind, n, body, expected) in steps {
            put(&store, cp, kind, n, body).await;
            let found = store.changes_around(served, before, 100).await.unwrap();
            let found = found.unwrap();
            assert_eq!(others(&found), expected.iter().copied().collect(), "{n}");
            assert_eq!((found.changes.len(), found.revision), (1, before + 1));
            before += 1;
        }
        // a change that was undone counts for who starts in between
        let found = store.changes_around(served, first, 100).await.unwrap();
        let found = found.unwrap();
        assert_eq!(others(&found), BTreeSet::from([21, 23]));
        assert_eq!(found.changes.len(), 7);
        // where there is nothing new, too much, or nothing known
        let found = store.changes_around(served, before, 100).await.unwrap();
        let nothing = found.unwrap();
        assert_eq!((nothing.changes.len(), nothing.others.len()), (0, 0));
        for (after, limit) in [(before + 1, 100), (first, 7)] {
            let found = store.changes_around(served, after, limit).await.unwrap();
            assert_eq!(found, None, "{after} {limit}");
        }
        put(&store, cp, Kind::Service, 1, s1(false)).await;
        let found = store.changes_around(served, before, 5).await.unwrap();
        assert_eq!(found, None, "as many others");
    }
}
