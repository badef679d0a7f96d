//! Changes of several entities, past versions, comparison and restoring.

use std::collections::BTreeMap;

use sallyport_model::Kind;
use sallyport_store::{
    Applied, ListQuery, OnDelete, Put, Snapshot, Store, StoreError, Tags, Write,
};
use serde_json::Value;
use uuid::Uuid;

use super::{actor, control_plane, named, refers, service, tagged, taken};

fn route(id: Uuid, name: &str, service: Uuid) -> Put {
    let put = named(Kind::Route, id, name);
    refers(put, "service", Kind::Service, service, OnDelete::Restrict)
}

/// By kind and id, as the order of past versions is another one.
fn sorted(snapshot: Snapshot) -> BTreeMap<(Kind, String), Value> {
    let mut all = BTreeMap::new();
    for (kind, list) in snapshot.entities {
        for body in list {
            all.insert((kind, body["id"].as_str().unwrap().to_owned()), body);
        }
    }
    all
}

pub(crate) async fn several_writes_are_one_revision_or_none(store: Store) {
    let cp = control_plane(&store, "a").await;
    let (one, two) = (Uuid::new_v4(), Uuid::new_v4());
    let writes = vec![
        Write::Put(named(Kind::Service, one, "one")),
        Write::Put(route(two, "two", one)),
    ];
    let applied = store.apply(cp, &actor(), Some(0), writes.clone()).await;
    let expected = Applied {
        count: 2,
        revision: 1,
    };
    assert_eq!(applied, Ok(expected));
    let log = store.changes(cp, 0, 10).await.unwrap();
    assert!(log.iter().all(|change| change.revision == 1) && log.len() == 2);
    // The same again is no change.
    let again = store.apply(cp, &actor(), Some(1), writes).await.unwrap();
    assert_eq!((again.count, again.revision), (0, 1));

    let before = store.snapshot(cp).await.unwrap();
    let good = || Write::Put(named(Kind::Service, Uuid::new_v4(), "good"));
    let check = async |bad: Write, expected: StoreError| {
        let refused = store.apply(cp, &actor(), None, vec![good(), bad]).await;
        assert_eq!(refused, Err(expected));
        assert_eq!(store.snapshot(cp).await.unwrap(), before);
    };
    let put = named(Kind::Service, Uuid::new_v4(), "one");
    check(Write::Put(put), taken("name", "one")).await;
    let nowhere = Uuid::new_v4();
    let missing = StoreError::ForeignMissing {
        field: "service".to_owned(),
        kind: Kind::Service,
        id: nowhere,
    };
    check(Write::Put(route(Uuid::new_v4(), "x", nowhere)), missing).await;
    check(Write::Delete(Kind::Route, nowhere), StoreError::NotFound).await;
    let held = StoreError::StillReferenced {
        by: Kind::Route,
        id: two,
    };
    check(Write::Delete(Kind::Service, one), held).await;
    let twice = vec![
        good(),
        Write::Delete(Kind::Route, two),
        Write::Delete(Kind::Route, two),
    ];
    let refused = store.apply(cp, &actor(), None, twice).await;
    let expected = StoreError::WrittenTwice {
        kind: Kind::Route,
        id: two,
    };
    assert_eq!(refused, Err(expected));
}

pub(crate) async fn a_batch_may_be_in_any_order(store: Store) {
    let cp = control_plane(&store, "a").await;
    let (old, new) = (service(&store, cp, "old").await, Uuid::new_v4());
    let moved = Uuid::new_v4();
    store
        .put(cp, &actor(), route(moved, "r", old))
        .await
        .unwrap();
    // The route goes to a service that comes later, which has the name of the one that goes.
    let writes = vec![
        Write::Put(route(moved, "r", new)),
        Write::Delete(Kind::Service, old),
        Write::Put(named(Kind::Service, new, "old")),
    ];
    let applied = store.apply(cp, &actor(), None, writes).await.unwrap();
    assert_eq!((applied.count, applied.revision), (3, 3));
    let found = store.find(cp, Kind::Service, "name", "old").await.unwrap();
    assert_eq!(found.unwrap()["id"], new.to_string());
    let held = store.delete(cp, &actor(), Kind::Service, new).await;
    assert!(matches!(held, Err(StoreError::StillReferenced { .. })));

    // Two that swap their names.
    let other = service(&store, cp, "other").await;
    let swap = vec![
        Write::Put(named(Kind::Service, new, "other")),
        Write::Put(named(Kind::Service, other, "old")),
    ];
    store.apply(cp, &actor(), None, swap).await.unwrap();
    let found = store.find(cp, Kind::Service, "name", "old").await.unwrap();
    assert_eq!(found.unwrap()["id"], other.to_string());
}

/// Makes a history of every kind of change; the state after each revision, the first one empty.
async fn history(store: &Store, cp: Uuid) -> Vec<Snapshot> {
    let mut states = vec![store.snapshot(cp).await.unwrap()];
    let (a, b, r) = (Uuid::new_v4(), Uuid::new_v4(), Uuid::new_v4());
    let (key, alice) = (Uuid::new_v4(), Uuid::new_v4());
    let owned = refers(
        tagged(named(Kind::Plugin, key, "key-auth"), &["x"]),
        "consumer",
        Kind::Consumer,
        alice,
        OnDelete::Cascade,
    );
    let steps = [
        Write::Put(tagged(named(Kind::Service, a, "a"), &["x", "y"])),
        Write::Put(named(Kind::Service, b, "b")),
        Write::Put(route(r, "r", a)),
        Write::Put(route(r, "r", b)),
        Write::Put(named(Kind::Service, a, "renamed")),
        Write::Delete(Kind::Service, a),
        Write::Put(named(Kind::Consumer, alice, "alice")),
        Write::Put(owned),
        Write::Delete(Kind::Consumer, alice),
        Write::Put(named(Kind::Service, a, "a")),
        Write::Delete(Kind::Route, r),
    ];
    for step in steps {
        match step {
            Write::Put(put) => drop(store.put(cp, &actor(), put).await.unwrap()),
            Write::Delete(kind, id) => {
                store.delete(cp, &actor(), kind, id).await.unwrap();
            }
        }
        states.push(store.snapshot(cp).await.unwrap());
    }
    states
}

pub(crate) async fn every_past_version_is_what_it_was(store: Store) {
    let cp = control_plane(&store, "a").await;
    let states = history(&store, cp).await;
    for (revision, state) in states.iter().enumerate() {
        let revision = revision as u64;
        let past = store.at(cp, revision);
        let read = past.snapshot().await.unwrap();
        assert_eq!(read.revision, revision);
        assert_eq!(sorted(read), sorted(state.clone()), "revision {revision}");
        for (kind, list) in &state.entities {
            let query = |size, offset| ListQuery {
                size,
                offset,
                tags: Tags::Ignore,
                parent: None,
                contains: None,
            };
            let mut paged = Vec::new();
            let mut offset = None;
            loop {
                let page = past.list(*kind, query(1, offset)).await.unwrap();
                paged.extend(page.items);
                offset = page.next_offset;
                if offset.is_none() {
                    break;
                }
            }
            let whole = past.list(*kind, query(100, None)).await.unwrap().items;
            assert_eq!(paged, whole);
            assert_eq!(whole.len(), list.len());
            for body in list {
                let id = Uuid::try_parse(body["id"].as_str().unwrap()).unwrap();
                let got = past.get(*kind, id).await.unwrap();
                assert_eq!(got.as_ref(), Some(body));
            }
        }
    }
    // What an index finds now is found in the past by the same question.
    let early = store.at(cp, 3);
    let found = early.find(Kind::Service, "name", "a").await.unwrap();
    let a = found.unwrap();
    assert_eq!(a["tags"], serde_json::json!(["x", "y"]));
    let renamed = early.find(Kind::Service, "name", "renamed").await;
    assert_eq!(renamed, Ok(None));
    let id = Uuid::try_parse(a["id"].as_str().unwrap()).unwrap();
    let count = async |revision, tags: Tags, parent| {
        let query = ListQuery {
            size: 10,
            offset: None,
            tags,
            parent,
            contains: None,
        };
        let kind = match &query.parent {
            Some(_) => Kind::Route,
            None => Kind::Service,
        };
        let page = store.at(cp, revision).list(kind, query).await;
        page.unwrap().items.len()
    };
    let tag = |text: &str| vec![text.to_owned()];
    assert_eq!(count(2, Tags::All(tag("x")), None).await, 1);
    assert_eq!(count(2, Tags::Any(tag("z")), None).await, 0);
    let parent = Some(("service".to_owned(), id));
    assert_eq!(count(3, Tags::Ignore, parent.clone()).await, 1);
    assert_eq!(count(4, Tags::Ignore, parent).await, 0);
    let newest = states.len() as u64 - 1;
    let revision = newest + 1;
    let refused = store.at(cp, revision).snapshot().await;
    assert_eq!(refused, Err(StoreError::NoRevision { revision, newest }));
}

pub(crate) async fn versions_are_listed_and_found_by_time(store: Store) {
    let cp = control_plane(&store, "a").await;
    let newest = history(&store, cp).await.len() as u64 - 1;
    let first = store.versions(cp, u64::MAX, 4).await.unwrap();
    let revisions: Vec<u64> = first.iter().map(|version| version.revision).collect();
    assert_eq!(revisions, [newest, newest - 1, newest - 2, newest - 3]);
    let rest = store.versions(cp, newest - 3, 100).await.unwrap();
    assert_eq!(rest.len() as u64, newest - 4);
    // The consumer took its plugin along.
    let cascade = first
        .iter()
        .chain(&rest)
        .find(|version| version.revision == 9);
    assert_eq!(cascade.unwrap().changes, 2);
    assert!(first.iter().all(|version| version.actor == "token:test"));
    let last = first[0].at_ms;
    assert_eq!(store.revision_at(cp, last).await, Ok(newest));
    assert_eq!(store.revision_at(cp, last + 1_000).await, Ok(newest));
    assert_eq!(store.revision_at(cp, 0).await, Ok(0));
    let unknown = Uuid::new_v4();
    let refused = store.versions(unknown, 1, 1).await;
    assert_eq!(refused, Err(StoreError::NoControlPlane(unknown)));
}

pub(crate) async fn a_restored_version_is_a_new_one(store: Store) {
    let cp = control_plane(&store, "a").await;
    let states = history(&store, cp).await;
    let mut newest = states.len() as u64 - 1;
    for (revision, state) in states.iter().enumerate().rev() {
        let revision = revision as u64;
        let differences = store.compare(cp, newest, revision).await.unwrap();
        let restored = store.restore(cp, &actor(), revision, Some(newest)).await;
        let restored = restored.unwrap();
        assert_eq!(restored.count, differences.len());
        newest += u64::from(restored.count > 0);
        assert_eq!(restored.revision, newest);
        let now = store.snapshot(cp).await.unwrap();
        assert_eq!(sorted(now), sorted(state.clone()), "revision {revision}");
        let same = store.compare(cp, newest, revision).await.unwrap();
        assert_eq!(same, []);
    }
    // Everything that was there between is there still.
    let past = store.at(cp, 3).snapshot().await.unwrap();
    assert_eq!(sorted(past), sorted(states[3].clone()));
    // And what came back is indexed as before.
    store.restore(cp, &actor(), 3, None).await.unwrap();
    let found = store.find(cp, Kind::Service, "name", "a").await.unwrap();
    let id = Uuid::try_parse(found.unwrap()["id"].as_str().unwrap()).unwrap();
    let held = store.delete(cp, &actor(), Kind::Service, id).await;
    assert!(matches!(held, Err(StoreError::StillReferenced { .. })));
    let clash = named(Kind::Service, Uuid::new_v4(), "b");
    let clash = store.put(cp, &actor(), clash).await;
    assert_eq!(clash, Err(taken("name", "b")));
}

pub(crate) async fn a_change_since_the_caller_looked_is_refused(store: Store) {
    let cp = control_plane(&store, "a").await;
    service(&store, cp, "one").await;
    service(&store, cp, "two").await;
    let moved = StoreError::Moved {
        expected: 1,
        found: 2,
    };
    let restored = store.restore(cp, &actor(), 0, Some(1)).await;
    assert_eq!(restored, Err(moved.clone()));
    let put = Write::Put(named(Kind::Service, Uuid::new_v4(), "three"));
    let applied = store.apply(cp, &actor(), Some(1), vec![put]).await;
    assert_eq!(applied, Err(moved));
    assert_eq!(store.revision(cp).await, Ok(2));
}
