//! Entities, their indexes, pages and the change log.

use std::collections::BTreeSet;

use sallyport_model::Kind;
use sallyport_store::{Deleted, IfExists, ListQuery, OnDelete, Put, Store, StoreError, Tags};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{actor, control_plane, named, refers, service, tagged, taken};

pub(crate) async fn a_put_is_read_back_by_id_and_by_unique_field(store: Store) {
    let cp = control_plane(&store, "a").await;
    let id = Uuid::new_v4();
    let stored = store
        .put(cp, &actor(), named(Kind::Service, id, "orders"))
        .await
        .unwrap();
    assert!(stored.created && stored.changed);
    assert_eq!(stored.revision, 1);
    let body = Some(stored.body);
    assert_eq!(store.get(cp, Kind::Service, id).await.unwrap(), body);
    assert_eq!(
        store
            .find(cp, Kind::Service, "name", "orders")
            .await
            .unwrap(),
        body
    );
    assert_eq!(
        store
            .find(cp, Kind::Service, "name", "Orders")
            .await
            .unwrap(),
        None
    );
    assert_eq!(
        store.find(cp, Kind::Route, "name", "orders").await.unwrap(),
        None
    );
    assert_eq!(store.get(cp, Kind::Route, id).await.unwrap(), None);
    let nowhere = Uuid::new_v4();
    assert_eq!(
        store.get(nowhere, Kind::Service, id).await.unwrap_err(),
        StoreError::NoControlPlane(nowhere)
    );
}

pub(crate) async fn a_replaced_entity_keeps_its_creation_and_loses_old_indexes(store: Store) {
    let cp = control_plane(&store, "a").await;
    let id = service(&store, cp, "old").await;
    let mut put = named(Kind::Service, id, "new");
    put.body["created_at"] = json!(5);
    put.body["updated_at"] = json!(5);
    let stored = store.put(cp, &actor(), put).await.unwrap();
    assert!(!stored.created && stored.changed);
    assert_eq!(
        (&stored.body["created_at"], &stored.body["updated_at"]),
        (&json!(1), &json!(5))
    );
    assert_eq!(
        store.find(cp, Kind::Service, "name", "old").await.unwrap(),
        None
    );
    service(&store, cp, "old").await;
}

pub(crate) async fn a_put_that_changes_nothing_writes_nothing(store: Store) {
    let cp = control_plane(&store, "a").await;
    let id = service(&store, cp, "orders").await;
    let mut put = named(Kind::Service, id, "orders");
    put.body["created_at"] = json!(7);
    put.body["updated_at"] = json!(7);
    let stored = store.put(cp, &actor(), put).await.unwrap();
    assert!(!stored.created && !stored.changed);
    assert_eq!(
        (stored.revision, &stored.body["updated_at"]),
        (1, &json!(1))
    );
    assert_eq!(store.changes(cp, 0, 10).await.unwrap().len(), 1);
}

pub(crate) async fn a_taken_value_is_refused_and_nothing_is_left_behind(store: Store) {
    let cp = control_plane(&store, "a").await;
    let id = service(&store, cp, "orders").await;
    let other = Uuid::new_v4();
    let clash = store
        .put(cp, &actor(), named(Kind::Service, other, "orders"))
        .await
        .unwrap_err();
    assert_eq!(clash, taken("name", "orders"));
    assert_eq!(store.get(cp, Kind::Service, other).await.unwrap(), None);
    let again = Put {
        if_exists: IfExists::Refuse,
        ..named(Kind::Service, id, "fresh")
    };
    let clash = store.put(cp, &actor(), again).await.unwrap_err();
    assert_eq!(clash, taken("id", &id.to_string()));
    // The same name on another kind is no clash.
    store
        .put(cp, &actor(), named(Kind::Route, other, "orders"))
        .await
        .unwrap();
    assert_eq!(store.revision(cp).await.unwrap(), 2);
}

pub(crate) async fn a_dangling_reference_is_refused(store: Store) {
    let cp = control_plane(&store, "a").await;
    let missing = Uuid::new_v4();
    let route = named(Kind::Route, Uuid::new_v4(), "r");
    let route = refers(route, "service", Kind::Service, missing, OnDelete::Restrict);
    let refused = store.put(cp, &actor(), route).await.unwrap_err();
    let field = "service".to_owned();
    assert_eq!(
        refused,
        StoreError::ForeignMissing {
            field,
            kind: Kind::Service,
            id: missing
        }
    );
    assert_eq!(store.revision(cp).await.unwrap(), 0);
}

pub(crate) async fn deletion_restricts_and_cascades(store: Store) {
    let cp = control_plane(&store, "a").await;
    let parent = service(&store, cp, "orders").await;
    let (route, plugin) = (Uuid::new_v4(), Uuid::new_v4());
    let put = named(Kind::Route, route, "r");
    let put = refers(put, "service", Kind::Service, parent, OnDelete::Restrict);
    store.put(cp, &actor(), put).await.unwrap();
    let put = named(Kind::Plugin, plugin, "p");
    let put = refers(put, "route", Kind::Route, route, OnDelete::Cascade);
    store.put(cp, &actor(), put).await.unwrap();

    let held = store
        .delete(cp, &actor(), Kind::Service, parent)
        .await
        .unwrap_err();
    assert_eq!(
        held,
        StoreError::StillReferenced {
            by: Kind::Route,
            id: route
        }
    );
    let gone = store
        .delete(cp, &actor(), Kind::Route, route)
        .await
        .unwrap();
    assert_eq!(
        gone,
        Deleted {
            count: 2,
            revision: 4
        }
    );
    assert_eq!(store.get(cp, Kind::Plugin, plugin).await.unwrap(), None);
    let again = store
        .delete(cp, &actor(), Kind::Route, route)
        .await
        .unwrap_err();
    assert_eq!(again, StoreError::NotFound);
    let gone = store
        .delete(cp, &actor(), Kind::Service, parent)
        .await
        .unwrap();
    assert_eq!(gone.count, 1);
    assert_eq!(store.snapshot(cp).await.unwrap().entities.len(), 0);
    let log = store.changes(cp, 3, 10).await.unwrap();
    let told: Vec<(u64, &str)> = log.iter().map(|c| (c.revision, c.kind.as_str())).collect();
    assert_eq!(told, [(4, "plugins"), (4, "routes"), (5, "services")]);
}

pub(crate) async fn a_restricting_entity_that_cascades_itself_does_not_hold(store: Store) {
    let cp = control_plane(&store, "a").await;
    let parent = service(&store, cp, "orders").await;
    let route = Uuid::new_v4();
    let put = named(Kind::Route, route, "r");
    let put = refers(put, "service", Kind::Service, parent, OnDelete::Cascade);
    store.put(cp, &actor(), put).await.unwrap();
    let put = named(Kind::Plugin, Uuid::new_v4(), "p");
    let put = refers(put, "route", Kind::Route, route, OnDelete::Cascade);
    let put = refers(put, "service", Kind::Service, parent, OnDelete::Restrict);
    store.put(cp, &actor(), put).await.unwrap();
    let gone = store
        .delete(cp, &actor(), Kind::Service, parent)
        .await
        .unwrap();
    assert_eq!(gone.count, 3);
}

pub(crate) async fn control_planes_do_not_see_each_other(store: Store) {
    let (a, b) = (
        control_plane(&store, "a").await,
        control_plane(&store, "b").await,
    );
    let id = service(&store, a, "orders").await;
    store
        .put(b, &actor(), named(Kind::Service, id, "orders"))
        .await
        .unwrap();
    store.delete(a, &actor(), Kind::Service, id).await.unwrap();
    assert!(store.get(b, Kind::Service, id).await.unwrap().is_some());
    let route = named(Kind::Route, Uuid::new_v4(), "r");
    let route = refers(route, "service", Kind::Service, id, OnDelete::Restrict);
    assert!(store.put(a, &actor(), route).await.is_err());
    let listed = store.list(a, Kind::Service, query(10)).await.unwrap();
    assert_eq!(listed.items, Vec::<Value>::new());
    assert_eq!(
        (
            store.revision(a).await.unwrap(),
            store.revision(b).await.unwrap()
        ),
        (2, 1)
    );
}

fn query(size: usize) -> ListQuery {
    ListQuery {
        size,
        offset: None,
        tags: Tags::Ignore,
        parent: None,
        contains: None,
    }
}

pub(crate) async fn pages_cover_everything_once(store: Store) {
    let cp = control_plane(&store, "a").await;
    let mut wanted = BTreeSet::new();
    for number in 0..23 {
        wanted.insert(service(&store, cp, &format!("s{number}")).await.to_string());
    }
    for size in [1, 7, 22, 23, 24] {
        let mut found = BTreeSet::new();
        let mut pages = 0;
        let mut at = query(size);
        loop {
            let page = store.list(cp, Kind::Service, at.clone()).await.unwrap();
            assert!(page.items.len() <= size);
            for item in page.items {
                assert!(
                    found.insert(item["id"].as_str().unwrap().to_owned()),
                    "seen twice"
                );
            }
            pages += 1;
            match page.next_offset {
                Some(offset) => at.offset = Some(offset),
                None => break,
            }
        }
        assert_eq!(found, wanted);
        assert_eq!(pages, 23usize.div_ceil(size));
    }
    for bad in [
        "",
        "x",
        "zz",
        &"f".repeat(48),
        &"é".repeat(24),
        &"0".repeat(47),
    ] {
        let at = ListQuery {
            offset: Some(bad.to_owned()),
            ..query(5)
        };
        let refused = store.list(cp, Kind::Service, at).await.unwrap_err();
        assert_eq!(refused, StoreError::BadOffset, "{bad:?}");
    }
}

pub(crate) async fn lists_filter_by_a_part_of_a_unique_field(store: Store) {
    let cp = control_plane(&store, "default").await;
    for name in ["Orders_1", "orders-2", "users", "100%", "wow!"] {
        service(&store, cp, name).await;
    }
    for (part, expected) in [
        ("ORDERS", &["Orders_1", "orders-2"][..]),
        ("_", &["Orders_1"]),
        ("%", &["100%"]),
        ("!", &["wow!"]),
        ("s", &["Orders_1", "orders-2", "users"]),
        ("none", &[]),
    ] {
        let query = ListQuery {
            contains: Some(("name".to_owned(), part.to_owned())),
            ..query(10)
        };
        let mut found = store
            .list(cp, Kind::Service, query.clone())
            .await
            .unwrap()
            .items;
        let revision = store.revision(cp).await.unwrap();
        let past = store
            .at(cp, revision)
            .list(Kind::Service, query)
            .await
            .unwrap();
        assert_eq!(past.items.len(), found.len(), "{part}");
        found.sort_by_key(|body| body["name"].as_str().map(str::to_owned));
        let names: Vec<&str> = found.iter().filter_map(|it| it["name"].as_str()).collect();
        assert_eq!(names, expected, "{part}");
    }
}

pub(crate) async fn lists_filter_by_tags_and_parent(store: Store) {
    let cp = control_plane(&store, "a").await;
    let parents = [
        service(&store, cp, "s0").await,
        service(&store, cp, "s1").await,
    ];
    let tags: [&[&str]; 4] = [&["x", "y"], &["x"], &["y", "z"], &[]];
    for (number, tags) in tags.iter().enumerate() {
        let put = named(Kind::Route, Uuid::new_v4(), &format!("r{number}"));
        let put = tagged(put, tags);
        let parent = parents[number % 2];
        let put = refers(put, "service", Kind::Service, parent, OnDelete::Restrict);
        store.put(cp, &actor(), put).await.unwrap();
    }
    let names = async |tags: Tags, parent: Option<Uuid>| {
        let parent = parent.map(|id| ("service".to_owned(), id));
        let page = store
            .list(
                cp,
                Kind::Route,
                ListQuery {
                    tags,
                    parent,
                    ..query(10)
                },
            )
            .await;
        let items = page.unwrap().items;
        items
            .iter()
            .map(|item| item["name"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let words = |tags: &[&str]| tags.iter().map(|tag| (*tag).to_owned()).collect::<Vec<_>>();
    assert_eq!(names(Tags::All(words(&["x"])), None).await, ["r0", "r1"]);
    assert_eq!(names(Tags::All(words(&["x", "y"])), None).await, ["r0"]);
    assert_eq!(
        names(Tags::Any(words(&["x", "z"])), None).await,
        ["r0", "r1", "r2"]
    );
    assert_eq!(
        names(Tags::Any(words(&["none"])), None).await,
        Vec::<String>::new()
    );
    assert_eq!(names(Tags::Ignore, Some(parents[0])).await, ["r0", "r2"]);
    assert_eq!(
        names(Tags::All(words(&["y"])), Some(parents[0])).await,
        ["r0", "r2"]
    );
    assert_eq!(
        names(Tags::Ignore, Some(Uuid::new_v4())).await,
        Vec::<String>::new()
    );
}

pub(crate) async fn the_change_log_tells_before_and_after(store: Store) {
    let cp = control_plane(&store, "a").await;
    let id = service(&store, cp, "one").await;
    store
        .put(cp, &actor(), named(Kind::Service, id, "two"))
        .await
        .unwrap();
    store.delete(cp, &actor(), Kind::Service, id).await.unwrap();
    let log = store.changes(cp, 0, 10).await.unwrap();
    let name = |value: &Option<Value>| {
        value
            .as_ref()
            .map(|v| v["name"].as_str().unwrap().to_owned())
    };
    let told: Vec<_> = log
        .iter()
        .map(|c| {
            (
                c.revision,
                c.operation.as_str(),
                name(&c.before),
                name(&c.after),
            )
        })
        .collect();
    let (one, two) = (Some("one".to_owned()), Some("two".to_owned()));
    assert_eq!(
        told,
        [
            (1, "create", None, one.clone()),
            (2, "update", one, two.clone()),
            (3, "delete", two, None)
        ]
    );
    assert!(
        log.iter()
            .all(|c| c.actor == "token:test" && c.id == id.to_string() && c.at_ms > 0)
    );
    assert_eq!(store.changes(cp, 1, 1).await.unwrap(), log[1..2]);
}

pub(crate) async fn watchers_hear_of_each_head(store: Store) {
    let mut watch = store.watch();
    let cp = control_plane(&store, "a").await;
    watch.changed().await.unwrap();
    assert_eq!(watch.borrow_and_update().get(cp).unwrap().revision, 0);
    let id = service(&store, cp, "one").await;
    watch.changed().await.unwrap();
    assert_eq!(watch.borrow_and_update().get(cp).unwrap().revision, 1);
    store
        .put(cp, &actor(), named(Kind::Service, id, "one"))
        .await
        .unwrap();
    assert!(!watch.has_changed().unwrap(), "nothing was written");
}

pub(crate) async fn a_snapshot_is_one_revision_under_concurrent_writes(store: Store) {
    let cp = control_plane(&store, "a").await;
    let writer = store.clone();
    let writes = tokio::spawn(async move {
        for number in 0..60 {
            service(&writer, cp, &format!("s{number}")).await;
        }
    });
    loop {
        let snapshot = store.snapshot(cp).await.unwrap();
        let count = snapshot.entities.get(&Kind::Service).map_or(0, Vec::len);
        assert_eq!(snapshot.revision, count as u64);
        if count == 60 {
            break;
        }
    }
    writes.await.unwrap();
}
