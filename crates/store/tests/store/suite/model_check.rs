//! Random operations against the store and against a plain map that says what must come out.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use sallyport_model::Kind;
use sallyport_store::{OnDelete, Store};
use uuid::Uuid;

use super::{actor, control_plane, named, refers};

#[derive(Clone, Debug)]
enum Operation {
    /// Service `id` gets the name.
    PutService(u8, u8),
    /// Route `id` gets the name and the service.
    PutRoute(u8, u8, u8),
    DeleteService(u8),
    DeleteRoute(u8),
}

fn operation() -> impl Strategy<Value = Operation> {
    let small = 0..5u8;
    prop_oneof![
        (small.clone(), small.clone()).prop_map(|(id, name)| Operation::PutService(id, name)),
        (small.clone(), small.clone(), small.clone())
            .prop_map(|(id, name, service)| Operation::PutRoute(id, name, service)),
        small.clone().prop_map(Operation::DeleteService),
        small.prop_map(Operation::DeleteRoute),
    ]
}

/// What must be in the store: services by id, routes by id with their service.
#[derive(Default)]
struct Expected {
    services: BTreeMap<u8, u8>,
    routes: BTreeMap<u8, (u8, u8)>,
    revision: u64,
}

impl Expected {
    /// Whether the operation must succeed; applies it if so.
    fn apply(&mut self, operation: &Operation) -> bool {
        let (ok, changed) = match *operation {
            Operation::PutService(id, name) => {
                let free = self
                    .services
                    .iter()
                    .all(|(other, taken)| *other == id || *taken != name);
                (free, free && self.services.insert(id, name) != Some(name))
            }
            Operation::PutRoute(id, name, service) => {
                let free = self
                    .routes
                    .iter()
                    .all(|(other, (taken, _))| *other == id || *taken != name);
                let ok = free && self.services.contains_key(&service);
                (
                    ok,
                    ok && self.routes.insert(id, (name, service)) != Some((name, service)),
                )
            }
            Operation::DeleteService(id) => {
                let held = self.routes.values().any(|(_, service)| *service == id);
                let ok = !held && self.services.remove(&id).is_some();
                (ok, ok)
            }
            Operation::DeleteRoute(id) => {
                let ok = self.routes.remove(&id).is_some();
                (ok, ok)
            }
        };
        self.revision += u64::from(changed);
        ok
    }
}

fn uuid(number: u8) -> Uuid {
    Uuid::from_u128(u128::from(number) + 1)
}

pub(crate) async fn random_operations_agree_with_a_map(store: Store) {
    let mut runner = TestRunner::default();
    for round in 0..12 {
        let operations = proptest::collection::vec(operation(), 1..40);
        let operations = operations.new_tree(&mut runner).unwrap().current();
        let cp = control_plane(&store, &format!("round {round}")).await;
        let mut expected = Expected::default();
        for (at, operation) in operations.iter().enumerate() {
            let ok = match *operation {
                Operation::PutService(id, name) => {
                    let put = named(Kind::Service, uuid(id), &format!("n{name}"));
                    store.put(cp, &actor(), put).await.is_ok()
                }
                Operation::PutRoute(id, name, service) => {
                    let put = named(Kind::Route, uuid(id), &format!("n{name}"));
                    let (kind, restrict) = (Kind::Service, OnDelete::Restrict);
                    let put = refers(put, "service", kind, uuid(service), restrict);
                    store.put(cp, &actor(), put).await.is_ok()
                }
                Operation::DeleteService(id) => store
                    .delete(cp, &actor(), Kind::Service, uuid(id))
                    .await
                    .is_ok(),
                Operation::DeleteRoute(id) => store
                    .delete(cp, &actor(), Kind::Route, uuid(id))
                    .await
                    .is_ok(),
            };
            assert_eq!(ok, expected.apply(operation), "step {at} of {operations:?}");
        }
        let snapshot = store.snapshot(cp).await.unwrap();
        assert_eq!(snapshot.revision, expected.revision, "{operations:?}");
        let count = |kind| snapshot.entities.get(&kind).map_or(0, Vec::len);
        assert_eq!(
            count(Kind::Service),
            expected.services.len(),
            "{operations:?}"
        );
        assert_eq!(count(Kind::Route), expected.routes.len(), "{operations:?}");
        for (id, (name, service)) in &expected.routes {
            let route = store
                .get(cp, Kind::Route, uuid(*id))
                .await
                .unwrap()
                .unwrap();
            assert_eq!(route["name"], format!("n{name}"));
            assert_eq!(route["service"]["id"], uuid(*service).to_string());
        }
    }
}
