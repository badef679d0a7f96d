//! Several writers at once, callers who go away, and writes that are sent again.

use std::collections::BTreeSet;

use sallyport_model::Kind;
use sallyport_store::{IfExists, ListQuery, NewControlPlane, Store, StoreError, Tags};
use serde_json::json;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::{actor, control_plane, named, service, tagged, taken};

const WRITERS: usize = 12;

pub(crate) async fn of_many_writers_of_one_name_exactly_one_wins(store: Store) {
    let cp = control_plane(&store, "a").await;
    for round in 0..6 {
        let mut writers = JoinSet::new();
        for _ in 0..WRITERS {
            let store = store.clone();
            let put = named(Kind::Service, Uuid::new_v4(), &format!("orders {round}"));
            writers.spawn(async move { store.put(cp, &actor(), put).await });
        }
        let outcomes = writers.join_all().await;
        let won = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        assert_eq!(won, 1);
        for lost in outcomes.into_iter().filter_map(Result::err) {
            assert_eq!(lost, taken("name", &format!("orders {round}")));
        }
    }
    let all = store.snapshot(cp).await.unwrap();
    assert_eq!(all.entities[&Kind::Service].len(), 6);
    assert_eq!(all.revision, 6);

    let mut writers = JoinSet::new();
    for _ in 0..WRITERS {
        let store = store.clone();
        let name = "the same".to_owned();
        let new = NewControlPlane {
            name,
            ..NewControlPlane::default()
        };
        writers.spawn(async move { store.create_control_plane(&actor(), new).await });
    }
    let outcomes = writers.join_all().await;
    let won = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    assert_eq!(won, 1);
    for lost in outcomes.into_iter().filter_map(Result::err) {
        assert_eq!(lost, taken("name", "the same"));
    }
}

pub(crate) async fn revisions_are_given_out_without_gaps_or_doubles(store: Store) {
    let cp = control_plane(&store, "a").await;
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let store = store.clone();
        writers.spawn(async move {
            let mut given = Vec::new();
            for number in 0..10 {
                let put = named(Kind::Service, Uuid::new_v4(), &format!("{writer}/{number}"));
                given.push(store.put(cp, &actor(), put).await.unwrap().revision);
            }
            given
        });
    }
    let given: Vec<Vec<u64>> = writers.join_all().await;
    for own in &given {
        assert!(
            own.is_sorted(),
            "later writes have later revisions: {own:?}"
        );
    }
    let given: BTreeSet<u64> = given.into_iter().flatten().collect();
    let all = 10 * WRITERS as u64;
    assert!(given.into_iter().eq(1..=all));
    assert_eq!(store.watch().borrow().get(cp).unwrap().revision, all);
    let log = store.changes(cp, 0, 1_000).await.unwrap();
    assert!(log.iter().map(|change| change.revision).eq(1..=all));
}

/// Writers at once, whose writes are committed together where an engine does that: each has its own
/// outcome, and sees what it wrote when it is answered.
pub(crate) async fn writes_that_wait_together_are_each_their_own(store: Store) {
    let cp = control_plane(&store, "a").await;
    let kept = service(&store, cp, "kept").await;
    let mut writers = JoinSet::new();
    for writer in 0..24_u32 {
        let store = store.clone();
        writers.spawn(async move {
            let mut given = Vec::new();
            for number in 0..5 {
                let id = Uuid::new_v4();
                let mut put = named(Kind::Service, id, &format!("{writer}/{number}"));
                match writer % 6 {
                    0..3 => {
                        let stored = store.put(cp, &actor(), put.clone()).await.unwrap();
                        assert!(stored.created && stored.changed);
                        let seen = store.get(cp, Kind::Service, id).await.unwrap();
                        assert_eq!(seen, Some(put.body));
                        given.push(stored.revision);
                    }
                    3 => {
                        put = named(Kind::Service, id, "kept");
                        let refused = store.put(cp, &actor(), put).await.unwrap_err();
                        assert_eq!(refused, taken("name", "kept"));
                    }
                    4 => {
                        // refused by the engine after the first rows are written
                        put.tags = vec!["a\0b".to_owned()];
                        let refused = store.put(cp, &actor(), put).await.unwrap_err();
                        assert_eq!(refused, StoreError::NulCharacter);
                    }
                    _ => {
                        let refused = store.delete(cp, &actor(), Kind::Service, id).await;
                        assert_eq!(refused, Err(StoreError::NotFound));
                    }
                }
            }
            given
        });
    }
    let given: Vec<Vec<u64>> = writers.join_all().await;
    assert!(given.iter().all(|own| own.is_sorted()));
    let given: BTreeSet<u64> = given.into_iter().flatten().collect();
    assert!(given.into_iter().eq(2..=61));
    let all = store.snapshot(cp).await.unwrap();
    assert_eq!((all.revision, all.entities[&Kind::Service].len()), (61, 61));
    let log = store.changes(cp, 0, 1_000).await.unwrap();
    assert!(log.iter().map(|change| change.revision).eq(1..=61));
    assert!(store.get(cp, Kind::Service, kept).await.unwrap().is_some());
}

pub(crate) async fn a_write_goes_on_when_its_caller_is_gone(store: Store) {
    let cp = control_plane(&store, "a").await;
    let mut heads = store.watch();
    for number in 1..=20_u64 {
        let put = named(Kind::Service, Uuid::new_v4(), &format!("s{number}"));
        let author = actor();
        {
            let write = std::pin::pin!(store.put(cp, &author, put));
            // Polled once, so that it is handed in, and then dropped.
            let none = std::task::Waker::noop();
            let mut context = std::task::Context::from_waker(none);
            _ = write.poll(&mut context);
        }
        let there = |heads: &sallyport_store::Heads| heads.get(cp).unwrap().revision >= number;
        heads.wait_for(there).await.unwrap();
    }
    let all = store.snapshot(cp).await.unwrap();
    assert_eq!(all.entities[&Kind::Service].len(), 20);
}

pub(crate) async fn a_replayed_write_changes_nothing(store: Store) {
    let cp = control_plane(&store, "a").await;
    let id = Uuid::new_v4();
    let put = tagged(named(Kind::Service, id, "orders"), &["shop"]);
    let first = store.put(cp, &actor(), put.clone()).await.unwrap();
    let mut replays = JoinSet::new();
    for _ in 0..WRITERS {
        let (store, put) = (store.clone(), put.clone());
        replays.spawn(async move { store.put(cp, &actor(), put).await.unwrap() });
    }
    for replay in replays.join_all().await {
        assert!(!replay.created && !replay.changed);
        assert_eq!((replay.body, replay.revision), (first.body.clone(), 1));
    }
    let mut refused = put;
    refused.if_exists = IfExists::Refuse;
    let again = store.put(cp, &actor(), refused).await.unwrap_err();
    assert_eq!(again, taken("id", &id.to_string()));
    store.delete(cp, &actor(), Kind::Service, id).await.unwrap();
    let again = store.delete(cp, &actor(), Kind::Service, id).await;
    assert_eq!(again, Err(StoreError::NotFound));
    assert_eq!(store.changes(cp, 0, 10).await.unwrap().len(), 2);
}

pub(crate) async fn values_of_any_length_are_unique(store: Store) {
    let cp = control_plane(&store, "a").await;
    let long = "é".repeat(40_000);
    let (one, other) = (format!("{long}1"), format!("{long}2"));
    for name in [&one, &other] {
        let put = tagged(named(Kind::Service, Uuid::new_v4(), name), &[name.as_str()]);
        store.put(cp, &actor(), put).await.unwrap();
    }
    let put = named(Kind::Service, Uuid::new_v4(), &one);
    let clash = store.put(cp, &actor(), put).await.unwrap_err();
    assert_eq!(clash, taken("name", &one));
    let found = store.find(cp, Kind::Service, "name", &other).await.unwrap();
    assert_eq!(found.unwrap()["name"], other.as_str());
    let query = ListQuery {
        size: 10,
        offset: None,
        tags: Tags::All(vec![one.clone(), one.clone()]),
        parent: None,
        contains: None,
    };
    let page = store.list(cp, Kind::Service, query).await.unwrap();
    assert_eq!(page.items.len(), 1);
    assert_eq!(page.items[0]["name"], one.as_str());
}

pub(crate) async fn a_nul_character_is_refused(store: Store) {
    let cp = control_plane(&store, "a").await;
    let put = named(Kind::Service, Uuid::new_v4(), "a\0b");
    let refused = store.put(cp, &actor(), put).await.unwrap_err();
    assert_eq!(refused, StoreError::NulCharacter);
    let refused = store.find(cp, Kind::Service, "name", "a\0b").await;
    assert_eq!(refused, Err(StoreError::NulCharacter));
    // Where it is not looked for it is a character like any other.
    let mut put = named(Kind::Service, Uuid::new_v4(), "ab");
    put.body["path"] = json!("/\0");
    let stored = store.put(cp, &actor(), put.clone()).await.unwrap();
    assert_eq!(stored.body, put.body);
    assert_eq!(store.revision(cp).await.unwrap(), 1);
    service(&store, cp, "still writable").await;
}
