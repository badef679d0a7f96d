//! Control planes, certificates and nodes.

use std::collections::BTreeMap;

use sallyport_model::Kind;
use sallyport_store::{
    AuthType, ControlPlaneUpdate, NewCertificate, NewControlPlane, NodeSeen, ProxyUrl, Store,
    StoreError, SyncStatus,
};
use uuid::Uuid;

use super::{actor, control_plane, service, taken};

pub(crate) async fn a_control_plane_is_made_found_changed_and_removed(store: Store) {
    let new = NewControlPlane {
        name: "default".to_owned(),
        description: "the first".to_owned(),
        labels: BTreeMap::from([("env".to_owned(), "test".to_owned())]),
        proxy_urls: vec![ProxyUrl {
            host: "a.example".to_owned(),
            port: 443,
            protocol: "https".to_owned(),
        }],
        ..NewControlPlane::default()
    };
    let made = store.create_control_plane(&actor(), new).await.unwrap();
    assert_eq!(store.control_plane(made.id).await.unwrap(), made);
    assert_eq!(
        store.control_planes().await.unwrap(),
        std::slice::from_ref(&made)
    );
    let upper = made.prefix.to_ascii_uppercase();
    assert_eq!(
        store.control_plane_by_prefix(&upper).await.unwrap(),
        Some(made.clone())
    );
    assert_eq!(
        store.control_plane_by_prefix("0000000000").await.unwrap(),
        None
    );

    let trust = store.watch().borrow().get(made.id).unwrap().trust;
    let update = ControlPlaneUpdate {
        name: Some("renamed".to_owned()),
        auth_type: Some(AuthType::PkiClientCerts),
        ..ControlPlaneUpdate::default()
    };
    let changed = store
        .update_control_plane(&actor(), made.id, update)
        .await
        .unwrap();
    assert_eq!(changed.name, "renamed");
    assert_eq!(
        (&changed.labels, &changed.prefix),
        (&made.labels, &made.prefix)
    );
    assert_eq!(store.control_plane(made.id).await.unwrap(), changed);
    assert_eq!(
        store.watch().borrow().get(made.id).unwrap().trust,
        trust + 1
    );

    store.delete_control_plane(&actor(), made.id).await.unwrap();
    let gone = StoreError::NoControlPlane(made.id);
    assert_eq!(store.control_plane(made.id).await.unwrap_err(), gone);
    assert_eq!(store.revision(made.id).await.unwrap_err(), gone);
    assert_eq!(
        store
            .delete_control_plane(&actor(), made.id)
            .await
            .unwrap_err(),
        gone
    );
    assert_eq!(store.watch().borrow().get(made.id), None);
}

pub(crate) async fn names_are_unique_and_prefixes_are_ten_digits(store: Store) {
    let first = control_plane(&store, "a").await;
    let second = control_plane(&store, "b").await;
    let again = NewControlPlane {
        name: "a".to_owned(),
        ..NewControlPlane::default()
    };
    assert_eq!(
        store
            .create_control_plane(&actor(), again)
            .await
            .unwrap_err(),
        taken("name", "a")
    );
    let clash = ControlPlaneUpdate {
        name: Some("a".to_owned()),
        ..ControlPlaneUpdate::default()
    };
    assert_eq!(
        store
            .update_control_plane(&actor(), second, clash.clone())
            .await
            .unwrap_err(),
        taken("name", "a")
    );
    store
        .update_control_plane(&actor(), first, clash)
        .await
        .unwrap();
    let all = store.control_planes().await.unwrap();
    assert_eq!(all.len(), 2);
    for cp in &all {
        let digit = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
        assert!(
            cp.prefix.len() == 10 && cp.prefix.chars().all(digit),
            "{}",
            cp.prefix
        );
    }
    assert_ne!(all[0].prefix, all[1].prefix);
}

pub(crate) async fn a_removed_control_plane_takes_everything_but_its_log_along(store: Store) {
    let cp = control_plane(&store, "a").await;
    let parent = service(&store, cp, "orders").await;
    let route = super::named(Kind::Route, Uuid::new_v4(), "r");
    let restrict = sallyport_store::OnDelete::Restrict;
    let route = super::refers(route, "service", Kind::Service, parent, restrict);
    store.put(cp, &actor(), route).await.unwrap();
    let digest = [7; 32];
    let new = NewCertificate {
        pem: "PEM".to_owned(),
        digest,
        title: String::new(),
    };
    store.pin_certificate(cp, &actor(), new).await.unwrap();
    store
        .record_nodes(vec![seen(cp, Uuid::new_v4(), 1)])
        .await
        .unwrap();

    store.delete_control_plane(&actor(), cp).await.unwrap();
    assert_eq!(store.certificates_by_digest(digest).await.unwrap(), []);
    let log = store.changes(cp, 0, 100).await.unwrap();
    let told: Vec<&str> = log.iter().map(|change| change.operation.as_str()).collect();
    assert_eq!(told, ["create", "create", "create", "delete"]);
    // A contact that arrives late must not bring rows of a lost control plane back.
    store
        .record_nodes(vec![seen(cp, Uuid::new_v4(), 2)])
        .await
        .unwrap();
    let again = control_plane(&store, "a").await;
    assert_eq!(store.snapshot(again).await.unwrap().entities.len(), 0);
}

pub(crate) async fn certificates_are_pinned_once_per_control_plane(store: Store) {
    let (a, b) = (
        control_plane(&store, "a").await,
        control_plane(&store, "b").await,
    );
    let new = |title: &str| NewCertificate {
        pem: "PEM".to_owned(),
        digest: [1; 32],
        title: title.to_owned(),
    };
    let trust = store.watch().borrow().get(a).unwrap().trust;
    let first = store
        .pin_certificate(a, &actor(), new("one"))
        .await
        .unwrap();
    assert_eq!(store.watch().borrow().get(a).unwrap().trust, trust + 1);
    let again = store
        .pin_certificate(a, &actor(), new("two"))
        .await
        .unwrap_err();
    assert_eq!(again, taken("cert", &first.id.to_string()));
    let other = store
        .pin_certificate(b, &actor(), new("three"))
        .await
        .unwrap();
    assert_eq!(
        store.certificates(a).await.unwrap(),
        std::slice::from_ref(&first)
    );
    let mut found = store.certificates_by_digest([1; 32]).await.unwrap();
    found.sort_by_key(|certificate| certificate.title.clone());
    assert_eq!(found, [first.clone(), other.clone()]);
    assert_eq!(
        store
            .unpin_certificate(a, &actor(), other.id)
            .await
            .unwrap_err(),
        StoreError::NotFound
    );
    store
        .unpin_certificate(a, &actor(), first.id)
        .await
        .unwrap();
    assert_eq!(
        store.certificates_by_digest([1; 32]).await.unwrap(),
        [other]
    );
    assert_eq!(store.watch().borrow().get(a).unwrap().trust, trust + 2);
}

fn seen(cp: Uuid, id: Uuid, at: i64) -> NodeSeen {
    NodeSeen {
        control_plane: cp,
        id,
        hostname: "gw".to_owned(),
        version: "3.10.0".to_owned(),
        ip: "127.0.0.1".to_owned(),
        labels: BTreeMap::from([("zone".to_owned(), "a".to_owned())]),
        at,
        config_hash: format!("{at:032}"),
        sync_status: SyncStatus::Normal,
        sync_detail: String::new(),
        cert_expires_at: 99,
        revision: at.unsigned_abs(),
        refused: vec![serde_json::json!({"entity_type": "routes", "message": "no"})],
    }
}

pub(crate) async fn nodes_keep_their_first_and_their_last_contact(store: Store) {
    let cp = control_plane(&store, "a").await;
    let id = Uuid::new_v4();
    store
        .record_nodes(vec![seen(cp, id, 10), seen(cp, id, 11)])
        .await
        .unwrap();
    store.record_nodes(vec![seen(cp, id, 12)]).await.unwrap();
    let nodes = store.nodes(cp).await.unwrap();
    assert_eq!(nodes.len(), 1);
    assert_eq!(
        (nodes[0].created_at, &nodes[0].seen),
        (11, &seen(cp, id, 12))
    );
    let other = control_plane(&store, "b").await;
    let elsewhere = seen(other, Uuid::new_v4(), 20);
    store.record_nodes(vec![elsewhere.clone()]).await.unwrap();
    let mut all = store.all_nodes().await.unwrap();
    all.sort_by_key(|node| node.seen.at);
    let all: Vec<&NodeSeen> = all.iter().map(|node| &node.seen).collect();
    assert_eq!(all, [&seen(cp, id, 12), &elsewhere]);
    store
        .record_nodes(vec![seen(cp, Uuid::new_v4(), 5)])
        .await
        .unwrap();
    assert_eq!(
        store.purge_nodes(12).await.unwrap(),
        1,
        "the silent one goes"
    );
    assert_eq!(store.nodes(cp).await.unwrap().len(), 1);
    store.delete_node(cp, id).await.unwrap();
    assert_eq!(
        store.delete_node(cp, id).await.unwrap_err(),
        StoreError::NotFound
    );
    assert_eq!(store.nodes(cp).await.unwrap(), []);
}
