//! Which changes are taken, and which are not.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use sallyport_model::RouterFlavor;
use sallyport_wire::ConfigHash;
use sallyport_wire::config_sync::delta::{Delta, Deltas, SyncVersion};
use serde_json::json;
use uuid::Uuid;

use super::apply::Applier;
use super::restored::StartSource;
use super::source::Source;
use crate::config_sync::{Apply, Synced};
use crate::configuration::Configuration;
use crate::enabled::Enabled;
use crate::last_known_good::LastKnownGood;
use crate::proxy::testing;

const PLANE: u64 = 7;

fn at(revision: u64) -> SyncVersion {
    SyncVersion::new(PLANE, revision)
}

fn route(n: u128, path: &str) -> Delta {
    let id = Uuid::from_u128(0x4000_8000_0000_0000_0000 + n).to_string();
    let entity = json!({"id": id, "name": format!("r{n}"), "paths": [path]});
    Delta {
        table: "routes".to_owned(),
        id,
        entity: Some(entity),
    }
}

fn everything(revision: u64, list: Vec<Delta>) -> Deltas {
    let mut there = Source::default();
    there.take(at(revision), &list, &[]);
    Deltas {
        full: true,
        from: None,
        version: at(revision),
        hash: Some(there.published_hash()),
        list,
    }
}

fn changes(from: Option<u64>, to: u64, hash: Option<ConfigHash>, list: Vec<Delta>) -> Deltas {
    Deltas {
        full: false,
        from: from.map(at),
        version: at(to),
        hash,
        list,
    }
}

struct Lab {
    applier: Arc<Applier>,
    directory: tempfile::TempDir,
}

impl Lab {
    fn new() -> Lab {
        let directory = tempfile::tempdir().unwrap();
        let conf = crate::conf::Conf::load(Some("database = off"), [], &[]);
        let (conf, _) = conf.unwrap();
        let configuration = Configuration::empty(RouterFlavor::TraditionalCompatible);
        let shared = testing::shared(&conf, configuration);
        let files = LastKnownGood::new(directory.path());
        let source = StartSource::default();
        let applier = Applier::new(&shared, files, Enabled::new(&conf), source);
        Lab {
            applier: Arc::new(applier),
            directory,
        }
    }

    async fn done(&self, deltas: Deltas) {
        let version = deltas.version;
        match self.applier.sync(deltas).await {
            Synced::Done(report) => assert_eq!(report.version, version),
            Synced::InForce { version: now, .. } => assert_eq!(now, version),
            other => panic!("{other:?}"),
        }
    }

    /// The versions that a start would go through.
    fn kept(&self) -> Vec<SyncVersion> {
        let loaded = LastKnownGood::new(self.directory.path()).load();
        let loaded = loaded.unwrap().unwrap();
        let changes = loaded.changes.into_iter().map(|it| it.deltas.version);
        loaded.saved.version.into_iter().chain(changes).collect()
    }

    fn hash(&self) -> ConfigHash {
        self.applier.shared.configuration().hash
    }

    fn resyncs(&self) -> u64 {
        self.applier.stats.resyncs.load(Ordering::Relaxed)
    }
}

#[tokio::test]
async fn changes_lead_on_and_never_back() {
    let lab = Lab::new();
    let now = everything(9, vec![route(1, "/new")]);
    let hash = now.hash;
    lab.done(now).await;
    // whoever sends them: these do not say where they start from
    for (list, told) in [
        (vec![route(1, "/old")], None),
        (
            vec![route(1, "/old")],
            everything(8, vec![route(1, "/old")]).hash,
        ),
        (Vec::new(), None),
    ] {
        let back = lab.applier.sync(changes(None, 8, told, list)).await;
        assert!(matches!(back, Synced::Diverged), "{back:?}");
        assert_eq!(Some(lab.hash()), hash);
    }
    // of another start
    let elsewhere = changes(Some(8), 10, None, vec![route(1, "/old")]);
    let elsewhere = lab.applier.sync(elsewhere).await;
    assert!(matches!(elsewhere, Synced::Elsewhere), "{elsewhere:?}");
    assert_eq!(Some(lab.hash()), hash);
    lab.done(changes(Some(9), 10, None, vec![route(1, "/newer")]))
        .await;
    assert_eq!(lab.resyncs(), 0);
}

#[tokio::test]
async fn all_of_an_earlier_version_is_what_a_restored_control_plane_has() {
    let lab = Lab::new();
    lab.done(everything(9, vec![route(1, "/new")])).await;
    let restored = everything(5, vec![route(1, "/old"), route(2, "/other")]);
    let hash = restored.hash;
    lab.done(restored).await;
    assert_eq!(Some(lab.hash()), hash);
    lab.done(changes(Some(5), 6, None, vec![route(2, "/next")]))
        .await;
}

#[tokio::test]
async fn what_would_not_be_what_was_published_is_not_taken_and_counted() {
    let lab = Lab::new();
    let now = everything(1, vec![route(1, "/a")]);
    let (hash, other) = (now.hash, everything(2, vec![route(1, "/else")]).hash);
    lab.done(now).await;
    for list in [vec![route(1, "/b")], vec![route(2, "/b")]] {
        let wrong = lab.applier.sync(changes(Some(1), 2, other, list)).await;
        assert!(matches!(wrong, Synced::Diverged), "{wrong:?}");
        assert_eq!(Some(lab.hash()), hash);
    }
    assert_eq!(lab.resyncs(), 2);
    let right = everything(2, vec![route(1, "/b")]);
    let hash = right.hash;
    lab.done(right).await;
    assert_eq!(Some(lab.hash()), hash);
}

#[tokio::test]
async fn changes_of_a_burst_go_to_the_disk_together() {
    let lab = Lab::new();
    lab.done(everything(1, vec![route(1, "/a")])).await;
    let mut settles = Vec::new();
    for to in 2..5 {
        let change = changes(Some(to - 1), to, None, vec![route(1, &format!("/{to}"))]);
        match lab.applier.sync(change).await {
            Synced::InForce { settles: it, .. } => settles.push(it),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(settles, [true, false, false], "one sees to all of them");
    assert_eq!(lab.kept(), [at(1)]);
    let report = lab.applier.settle().await.unwrap();
    assert_eq!((report.version, report.config_hash), (at(4), lab.hash()));
    assert_eq!(lab.kept(), [1, 2, 3, 4].map(at));
    assert_eq!(lab.applier.settle().await, None);

    // who takes longer keeps what waits, and tells of it
    let change = changes(Some(4), 5, None, vec![route(1, "/5")]);
    assert!(matches!(
        lab.applier.sync(change).await,
        Synced::InForce { settles: true, .. }
    ));
    let many = (2..40).map(|n| route(n, "/many")).collect();
    let many = lab.applier.sync(changes(Some(5), 6, None, many)).await;
    assert!(matches!(many, Synced::Done(report) if report.version == at(6)));
    assert_eq!(lab.kept(), [1, 2, 3, 4, 5, 6].map(at));
    assert_eq!(lab.applier.settle().await, None);

    // and so does who stores everything
    lab.done(changes(Some(6), 7, None, vec![route(1, "/7")]))
        .await;
    lab.done(everything(8, vec![route(1, "/8")])).await;
    assert_eq!(lab.kept()[0], at(8));
    assert_eq!(lab.applier.settle().await, None);
}

#[tokio::test]
async fn what_waits_for_the_disk_has_a_bound() {
    let lab = Lab::new();
    lab.done(everything(1, vec![route(1, "/a")])).await;
    let mut version = 1;
    let full = loop {
        let (from, path) = (Some(version), format!("/{version}"));
        version += 1;
        assert!(version < 1_000, "it waits for ever");
        let change = changes(from, version, None, vec![route(1, &path)]);
        match lab.applier.sync(change).await {
            Synced::InForce { .. } => {}
            other => break other,
        }
    };
    assert!(matches!(full, Synced::Done(report) if report.version == at(version)));
    assert_eq!(lab.kept(), (1..=version).map(at).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_slow_disk_holds_up_no_change() {
    let lab = Lab::new();
    lab.done(everything(1, vec![route(1, "/a")])).await;
    let disk = lab.applier.disk();
    for to in 2..4 {
        let list = vec![route(1, &format!("/{to}"))];
        let mut change = changes(Some(to - 1), to, None, list);
        assert!(lab.applier.quick(&mut change).is_some(), "{to}");
    }
    assert_eq!(lab.kept(), [at(1)]);
    drop(disk);
    assert_eq!(lab.applier.settle().await.unwrap().version, at(3));
    assert_eq!(lab.kept(), [1, 2, 3].map(at));
}

#[tokio::test]
async fn whatever_is_told_is_on_the_disk() {
    let lab = Lab::new();
    lab.done(everything(1, vec![route(1, "/a")])).await;
    lab.done(changes(Some(1), 2, None, vec![route(1, "/2")]))
        .await;
    assert_eq!(lab.kept(), [at(1)]);
    // nothing but a version, and what is not taken: both name what is in force
    let nothing = lab.applier.sync(changes(Some(2), 3, None, vec![])).await;
    assert!(matches!(nothing, Synced::Done(report) if report.version == at(3)));
    assert_eq!(lab.kept(), [1, 2, 3].map(at));
    let again = lab.applier.sync(changes(Some(3), 3, None, vec![])).await;
    assert!(matches!(again, Synced::Done(report) if report.version == at(3)));
    lab.done(changes(Some(3), 4, None, vec![route(1, "/4")]))
        .await;
    let back = changes(None, 3, None, vec![route(1, "/back")]);
    assert!(matches!(lab.applier.sync(back).await, Synced::Diverged));
    // each record starts from where the one before led, so that a start goes through all
    assert_eq!(lab.kept(), [1, 2, 3, 4].map(at));
    // which is still to be told
    assert_eq!(lab.applier.settle().await.unwrap().version, at(4));
}
