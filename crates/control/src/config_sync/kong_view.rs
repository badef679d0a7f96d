//! A configuration as Kong's own data planes get it on protocol v2: what their schemas know, and
//! what is other than in an earlier revision.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use sallyport_model::Kind;
use sallyport_model::config_table::with_objects;
use sallyport_model::schema;
use sallyport_wire::config_sync::delta::{Delta, Deltas, SyncVersion};
use sallyport_wire::config_sync::digest::EntityDigest;
use sallyport_wire::config_sync::kong_deltas;
use serde_json::Value;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::payload::Payload;
use super::state::plane;

/// Revisions that changes may start from.
const KEPT_MAX: usize = 8;
/// Results that are kept for who asks the same.
const RESULTS_MAX: usize = 2;

/// List and id.
type Key = (Kind, String);

/// What is remembered of an entity that was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Sent {
    digest: EntityDigest,
    /// What no other of its kind may have.
    unique: Vec<(&'static str, String)>,
}

/// Everything that was sent.
type Index = HashMap<Key, Sent>;

/// One revision.
#[derive(Debug)]
pub(super) struct KongView {
    revision: u64,
    entities: Vec<(Key, Value)>,
    index: Arc<Index>,
}

impl KongView {
    /// Of a `config_table` without what those data planes do not know.
    pub(super) fn of(revision: u64, table: &Value) -> KongView {
        let mut entities = Vec::new();
        let mut index = HashMap::new();
        for kind in Kind::ALL {
            let list = table[kind.table()].as_array();
            for flat in list.into_iter().flatten() {
                let entity = with_objects(kind, flat.clone());
                let key = (kind, entity["id"].as_str().unwrap_or_default().to_owned());
                let sent = Sent {
                    digest: EntityDigest::of(kind.table(), &entity.to_string()),
                    unique: schema::index(kind, &entity).unique,
                };
                index.insert(key.clone(), sent);
                entities.push((key, entity));
            }
        }
        KongView {
            revision,
            entities,
            index: Arc::new(index),
        }
    }

    fn deltas(&self, cp: Uuid, from: Option<(u64, &Index)>) -> Deltas {
        let delta = |(kind, id): &Key, entity: Option<&Value>| Delta {
            table: kind.table().to_owned(),
            id: id.clone(),
            entity: entity.cloned(),
        };
        let (full, list) = match from {
            Some((_, before)) if !self.exchanges(before) => {
                let changed = self.entities.iter().filter(|(key, _)| {
                    before.get(key).map(|it| it.digest) != self.index.get(key).map(|it| it.digest)
                });
                let gone = before.keys().filter(|key| !self.index.contains_key(key));
                let there = changed.map(|(key, entity)| delta(key, Some(entity)));
                (
                    false,
                    gone.map(|key| delta(key, None)).chain(there).collect(),
                )
            }
            _ => {
                let all = self.entities.iter();
                (
                    true,
                    all.map(|(key, entity)| delta(key, Some(entity))).collect(),
                )
            }
        };
        let version = |revision| SyncVersion::new(plane(cp), revision);
        Deltas {
            full,
            from: from
                .filter(|_| !full)
                .map(|(revision, _)| version(revision)),
            version: version(self.revision),
            hash: None,
            list,
        }
    }

    /// Whether an entity has a name now that another, which stays, had before. A data plane that
    /// takes one after the other would end with neither, so it gets everything.
    fn exchanges(&self, before: &Index) -> bool {
        let moved = self.index.iter().filter_map(|(key, now)| {
            let then = before.get(key)?;
            (then.unique != now.unique).then_some((key, then, now))
        });
        let moved: Vec<_> = moved.collect();
        let left: HashSet<_> = moved
            .iter()
            .flat_map(|((kind, _), then, now)| {
                let left = then.unique.iter().filter(|name| !now.unique.contains(name));
                left.map(move |name| (*kind, name))
            })
            .collect();
        let created = self
            .index
            .iter()
            .filter(|(key, _)| !before.contains_key(*key));
        let taken = moved
            .iter()
            .map(|(key, _, now)| (*key, *now))
            .chain(created);
        let mut names =
            taken.flat_map(|((kind, _), now)| now.unique.iter().map(move |it| (*kind, it)));
        names.any(|name| left.contains(&name))
    }
}

/// By which class; from which revision, if it is from any, to which.
type Asked = (usize, Option<u64>, u64);

/// The results that data planes of one control plane ask for.
pub(super) struct KongResults {
    cp: Uuid,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    /// What there was in earlier revisions, oldest first.
    indices: VecDeque<((usize, u64), Arc<Index>)>,
    /// What leads from one revision to another, newest last.
    results: VecDeque<(Asked, Arc<RawValue>)>,
}

impl KongResults {
    pub(super) fn new(cp: Uuid) -> KongResults {
        KongResults {
            cp,
            kept: Mutex::default(),
        }
    }

    /// What leads from a revision to a payload, for a class of data planes. Takes time in proportion to the configuration when
    /// the first asks; not for an async thread.
    pub(super) fn get(&self, class: usize, from: Option<u64>, payload: &Payload) -> Arc<RawValue> {
        let asked = (class, from, payload.revision);
        let before = {
            let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((_, result)) = kept.results.iter().find(|(known, _)| *known == asked) {
                return result.clone();
            }
            let known = kept.indices.iter();
            let mut known =
                known.filter(|((of, revision), _)| *of == class && Some(*revision) == from);
            known.next().cloned()
        };
        let view = payload.kong_view(class);
        let before = before
            .as_ref()
            .map(|((_, revision), index)| (*revision, &**index));
        let deltas = match from == Some(payload.revision) {
            true => view.deltas(self.cp, Some((payload.revision, &view.index))),
            false => view.deltas(self.cp, before),
        };
        let result: Arc<RawValue> = kong_deltas::result(&deltas).into();
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept
            .indices
            .iter()
            .all(|(known, _)| *known != (class, payload.revision))
        {
            kept.indices
                .push_back(((class, payload.revision), view.index.clone()));
            if kept.indices.len() > KEPT_MAX {
                kept.indices.pop_front();
            }
        }
        kept.results.push_back((asked, result.clone()));
        if kept.results.len() > RESULTS_MAX {
            kept.results.pop_front();
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn id(n: u128) -> String {
        Uuid::from_u128(n).to_string()
    }

    fn view(revision: u64, services: &[(u128, &str)], routes: &[(u128, &str, u128)]) -> KongView {
        let service = |&(n, name): &(u128, &str)| json!({"id": id(n), "name": name, "host": "h"});
        let route = |&(n, name, at): &(u128, &str, u128)| json!({"id": id(n), "name": name, "paths": ["/"], "service": id(at)});
        let services: Vec<_> = services.iter().map(service).collect();
        let routes: Vec<_> = routes.iter().map(route).collect();
        KongView::of(
            revision,
            &json!({"_format_version": "3.0", "services": services, "routes": routes}),
        )
    }

    /// Whether everything is told, and ids of what is, with whether it is there.
    fn told(before: &KongView, now: &KongView) -> (bool, Vec<(String, bool)>) {
        let from = Some((before.revision, &*before.index));
        let deltas = now.deltas(Uuid::nil(), from);
        assert_eq!(deltas.from.is_none(), deltas.full);
        assert_eq!(deltas.version.revision(0), Some(now.revision));
        let one = |delta: &Delta| (delta.id.clone(), delta.entity.is_some());
        let mut list: Vec<_> = deltas.list.iter().map(one).collect();
        list.sort();
        (deltas.full, list)
    }

    #[test]
    fn what_is_other_than_before_is_told_with_references_as_objects() {
        let before = view(3, &[(1, "a"), (2, "b")], &[(7, "r", 1)]);
        let now = view(5, &[(1, "a"), (3, "c")], &[(7, "r", 3)]);
        let expected = vec![(id(2), false), (id(3), true), (id(7), true)];
        assert_eq!(told(&before, &now), (false, expected));
        assert_eq!(told(&now, &now), (false, vec![]));
        let all = now.deltas(Uuid::nil(), None);
        assert!(all.full && all.list.len() == 3);
        let route = all.list.iter().find(|it| it.table == "routes").unwrap();
        assert_eq!(
            route.entity.as_ref().unwrap()["service"],
            json!({"id": id(3)})
        );
    }

    #[test]
    fn where_a_name_goes_from_one_to_another_everything_is_told() {
        let before = view(3, &[(1, "a"), (2, "b")], &[]);
        for (services, full) in [
            (&[(1, "b"), (2, "a")][..], true),
            (&[(1, "c"), (2, "a")], true),
            (&[(1, "c"), (2, "b"), (3, "a")], true),
            (&[(1, "c"), (2, "d")], false),
            // whose name goes with it leaves it to the next
            (&[(2, "b"), (3, "a")], false),
        ] {
            let now = view(4, services, &[]);
            assert_eq!(told(&before, &now).0, full, "{services:?}");
        }
    }

    fn payload(revision: u64) -> Payload {
        let service = json!({"id": id(1), "name": format!("s{revision}"), "host": "h"});
        let snapshot = sallyport_store::Snapshot {
            revision,
            entities: [(Kind::Service, vec![service])].into_iter().collect(),
        };
        Payload::build(snapshot, 0)
    }

    #[test]
    fn changes_start_from_what_was_sent_to_the_same_class_lately() {
        let results = KongResults::new(Uuid::nil());
        let is_whole = |class: usize, from: Option<u64>, payload: &Payload| {
            let result = results.get(class, from, payload);
            let result: Value = serde_json::from_str(result.get()).unwrap();
            result["default"]["full_sync"].as_bool().unwrap()
        };
        assert!(is_whole(0, None, &payload(1)));
        let second = payload(2);
        assert!(!is_whole(0, Some(1), &second));
        // what another class has, which may have been told other things, is no place to start from
        assert!(is_whole(1, Some(1), &second));
        assert!(is_whole(0, Some(99), &second));
        for revision in 3..=8 {
            assert!(!is_whole(0, Some(revision - 1), &payload(revision)));
        }
        // eight are known still, of all classes together, and no more
        let newest = payload(9);
        assert!(!is_whole(0, Some(2), &newest));
        assert!(is_whole(0, Some(1), &newest));
        let kept = results.kept.lock().unwrap();
        assert_eq!(kept.indices.len(), KEPT_MAX);
        assert_eq!(kept.results.len(), RESULTS_MAX);
    }
}
