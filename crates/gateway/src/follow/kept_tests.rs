//! What a start finds of what was in force.

use std::sync::Arc;

use sallyport_model::RouterFlavor;
use sallyport_wire::config_sync::delta::{Delta, Deltas, SyncVersion};
use serde_json::{Value, json};
use uuid::Uuid;

use super::apply::Applier;
use super::restored::{Start, StartSource, restored};
use crate::balancer::Balancers;
use crate::conf::{Conf, Dns};
use crate::config_sync::{Apply, Synced};
use crate::configuration::Configuration;
use crate::enabled::Enabled;
use crate::last_known_good::LastKnownGood;
use crate::last_known_good::changes::records;
use crate::proxy::testing;

const FLAVOR: RouterFlavor = RouterFlavor::TraditionalCompatible;

fn at(revision: u64) -> SyncVersion {
    SyncVersion::new(7, revision)
}

fn delta(table: &str, n: u128, mut entity: Value) -> Delta {
    let id = Uuid::from_u128(0x4000_8000_0000_0000_0000 + n).to_string();
    entity["id"] = json!(id);
    let (table, entity) = (table.to_owned(), Some(entity));
    Delta { table, id, entity }
}

fn route(n: u128, path: &str) -> Delta {
    delta(
        "routes",
        n,
        json!({"name": format!("r{n}"), "paths": [path]}),
    )
}

/// Something that cannot be made much smaller.
fn bulk(seed: u64, bytes: usize) -> Delta {
    let mut state = seed;
    let letter = |_| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        char::from(
            b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"
                [(state >> 58) as usize],
        )
    };
    let text: String = (0..bytes).map(letter).collect();
    let config = json!({"status_code": 403, "body": text});
    let plugin = json!({"name": "request-termination", "enabled": false, "config": config});
    delta("plugins", 900, plugin)
}

struct Lab {
    applier: Arc<Applier>,
    conf: Conf,
    directory: tempfile::TempDir,
}

impl Lab {
    fn new() -> Lab {
        let directory = tempfile::tempdir().unwrap();
        let (conf, _) = Conf::load(Some("database = off"), [], &[]).unwrap();
        let shared = testing::shared(&conf, Configuration::empty(FLAVOR));
        let files = LastKnownGood::new(directory.path());
        let applier = Applier::new(&shared, files, Enabled::new(&conf), StartSource::default());
        Lab {
            applier: Arc::new(applier),
            conf,
            directory,
        }
    }

    async fn take(&self, from: Option<u64>, to: u64, mut list: Vec<Delta>) {
        if from.is_some() {
            // so many that they do not go into force before the disk has them
            list.extend((100..120).map(|n| route(n, &format!("/{n}/{to}"))));
        }
        let deltas = Deltas {
            full: from.is_none(),
            from: from.map(at),
            version: at(to),
            hash: None,
            list,
        };
        match self.applier.sync(deltas).await {
            Synced::Done(report) => assert_eq!(report.version, at(to)),
            other => panic!("{other:?}"),
        }
    }

    /// The version of a file, and those of the changes in its file of changes.
    fn versions(&self, name: &str) -> Vec<SyncVersion> {
        let bytes = std::fs::read(self.directory.path().join(name)).unwrap_or_default();
        records(&bytes)
            .0
            .into_iter()
            .map(|it| it.deltas.version)
            .collect()
    }

    fn stored(&self) -> SyncVersion {
        let loaded = LastKnownGood::new(self.directory.path()).load();
        loaded.unwrap().unwrap().saved.version.unwrap()
    }

    fn start(&self) -> Start {
        let loaded = LastKnownGood::new(self.directory.path()).load();
        let (empty, balancers) = (Configuration::empty(FLAVOR), Balancers::new(Dns::default()));
        let loaded = loaded.unwrap().unwrap();
        restored(loaded, &Enabled::new(&self.conf), (&empty, &balancers)).unwrap()
    }

    /// A start has what is in force.
    #[track_caller]
    fn survives(&self) {
        let start = self.start();
        assert_eq!(
            start.configuration.hash,
            self.applier.shared.configuration().hash
        );
    }
}

#[tokio::test]
async fn changes_are_folded_when_they_are_larger_than_what_they_start_from() {
    let lab = Lab::new();
    // with something that this build does not know
    let other = delta("future_things", 901, json!({"x": 1}));
    lab.take(None, 1, vec![route(1, "/a"), other]).await;
    for to in 2..=5 {
        assert_eq!(lab.stored(), at(1), "a megabyte is not folded");
        lab.take(Some(to - 1), to, vec![bulk(to, 300_000)]).await;
        lab.survives();
    }
    assert_eq!(lab.stored(), at(5));
    // what comes now goes to a file of its own, beside what it starts from
    lab.take(Some(5), 6, vec![route(1, "/b")]).await;
    assert_eq!(lab.versions("last_known_good.changes"), [at(6)]);
    let before = lab.versions("last_known_good.previous.changes");
    assert_eq!(before, [2, 3, 4, 5].map(at));
    lab.survives();

    // beside a large configuration more is let grow
    lab.take(None, 20, vec![bulk(20, 3_000_000)]).await;
    for to in 21..=25 {
        lab.take(Some(to - 1), to, vec![bulk(to, 300_000)]).await;
        assert_eq!(lab.stored(), at(20));
    }
    lab.survives();
}

#[tokio::test]
async fn what_was_refused_is_as_it_was_after_a_start() {
    let lab = Lab::new();
    lab.take(None, 1, vec![route(1, "/a"), route(2, "/b")])
        .await;
    lab.take(Some(1), 2, vec![route(1, "~/(")]).await;
    lab.survives();
    lab.take(Some(2), 3, vec![route(2, "/c")]).await;
    lab.survives();
    assert_eq!(lab.start().version(), at(3));
}

#[tokio::test]
async fn changes_of_another_time_are_no_changes() {
    let lab = Lab::new();
    lab.take(None, 1, vec![route(1, "/a")]).await;
    lab.take(Some(1), 2, vec![route(1, "/b")]).await;
    // everything anew; what led on from the one before stays beside that
    lab.take(None, 9, vec![route(1, "/c")]).await;
    assert_eq!(lab.versions("last_known_good.previous.changes"), [at(2)]);
    assert_eq!(lab.start().version(), at(9));
    lab.survives();
}
