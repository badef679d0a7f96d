//! What was acknowledged is there after `kill -9`, and a full disk costs nothing but the writes
//! that it refuses.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};

use sallyport_model::Kind;
use sallyport_store::{StorageFailure, Store, StoreError};
use sallyport_testkit::{Deadline, Postgres, PostgresSetup, Program, SmallDisk, eventually};
use uuid::Uuid;

use crate::suite::{actor, control_plane, named};

/// How often a writer is killed.
const ROUNDS: u32 = 30;
/// Tells the test process that it is the writer, and where to write.
const INNER: &str = "STORE_TEST_WRITES_TO";

async fn open(place: &str) -> Store {
    if place.starts_with("postgres://") {
        Store::connect(place).await.unwrap()
    } else {
        Store::open(Path::new(place)).unwrap()
    }
}

async fn default_cp(store: &Store) -> Uuid {
    match store.control_planes().await.unwrap().first() {
        Some(cp) => cp.id,
        None => control_plane(store, "default").await,
    }
}

/// Writes entity after entity until it is killed, two at a time; tells each acknowledgement.
async fn write_until_killed(place: &str) {
    let store = open(place).await;
    let cp = default_cp(&store).await;
    let mut writers = tokio::task::JoinSet::new();
    for _ in 0..2 {
        let store = store.clone();
        writers.spawn(async move {
            loop {
                let id = Uuid::new_v4();
                let put = named(Kind::Service, id, &id.to_string());
                let stored = store.put(cp, &actor(), put).await.unwrap();
                let mut out = std::io::stdout().lock();
                writeln!(out, "acknowledged {id} {}", stored.revision).unwrap();
                out.flush().unwrap();
            }
        });
    }
    writers.join_all().await;
}

/// Starts this test program as a writer.
fn writer(test: &str, place: &str) -> Program {
    Program::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(INNER, place)
        .start()
}

/// The ids and revisions that a writer said are written; its last line may be cut.
fn acknowledged(output: &str) -> Vec<(Uuid, u64)> {
    let read = |line: &str| {
        let rest = line.split_once("acknowledged ")?.1;
        let (id, revision) = rest.split_once(' ')?;
        Some((Uuid::try_parse(id).ok()?, revision.trim().parse().ok()?))
    };
    let whole = output.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().filter_map(read).collect()
}

/// Kills writers and looks each time whether everything that they told is there.
async fn kill_writers(test: &str, place: &str) {
    let mut all: BTreeSet<Uuid> = BTreeSet::new();
    let mut newest = 0;
    for round in 0..ROUNDS {
        let mut writer = writer(test, place);
        // Another number each time, so that the kill meets other moments of the engine.
        let lines = 3 + (round as usize * 7) % 41;
        eventually("the writer writes", Deadline::secs(60), || {
            assert!(writer.is_running(), "{}", writer.output());
            acknowledged(&writer.output()).len() >= lines
        });
        writer.kill9();
        let told = acknowledged(&writer.output());
        let store = open(place).await;
        let cp = default_cp(&store).await;
        let snapshot = store.snapshot(cp).await.unwrap();
        let there: BTreeSet<Uuid> = snapshot.entities[&Kind::Service]
            .iter()
            .map(|body| Uuid::try_parse(body["id"].as_str().unwrap()).unwrap())
            .collect();
        newest = told
            .iter()
            .map(|(_, revision)| *revision)
            .fold(newest, u64::max);
        all.extend(told.into_iter().map(|(id, _)| id));
        let lost: Vec<&Uuid> = all.difference(&there).collect();
        assert!(lost.is_empty(), "round {round} lost {lost:?}");
        assert!(snapshot.revision >= newest);
        assert_eq!(
            snapshot.revision,
            there.len() as u64,
            "nothing half written"
        );
        let log = store.changes(cp, 0, usize::MAX).await.unwrap();
        assert_eq!(log.len(), there.len());
        store.close().await;
    }
    assert!(all.len() >= ROUNDS as usize * 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_process_loses_nothing_on_sqlite() {
    if let Ok(place) = std::env::var(INNER) {
        return write_until_killed(&place).await;
    }
    let directory = tempfile::tempdir().unwrap();
    let path: PathBuf = directory.path().join("store.sqlite");
    let test = "crash::a_killed_process_loses_nothing_on_sqlite";
    kill_writers(test, path.to_str().unwrap()).await;
    let conn = rusqlite::Connection::open(&path).unwrap();
    let check: String = conn
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .unwrap();
    assert_eq!(check, "ok");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_process_loses_nothing_on_postgres() {
    if let Ok(place) = std::env::var(INNER) {
        return write_until_killed(&place).await;
    }
    let Some(server) = Postgres::shared() else {
        return;
    };
    let test = "crash::a_killed_process_loses_nothing_on_postgres";
    kill_writers(test, &server.database()).await;
}

/// The other end killed: writes fail, then go on without a restart of ours, and nothing that was
/// acknowledged is missing. What failed may be there or not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_loses_nothing_and_is_found_again() {
    let Some(mut server) = Postgres::custom(PostgresSetup::default()) else {
        return;
    };
    let url = server.database();
    let store = Store::connect(&url).await.unwrap();
    let cp = default_cp(&store).await;
    let mut heads = store.watch();
    let mut acknowledged = BTreeSet::new();
    let mut unknown = BTreeSet::new();
    for _ in 0..3 {
        let own = store.clone();
        let writing = tokio::spawn(async move {
            let mut done = Vec::new();
            loop {
                let id = Uuid::new_v4();
                let put = named(Kind::Service, id, &id.to_string());
                match own.put(cp, &actor(), put).await {
                    Ok(_) => done.push(id),
                    Err(error) => return (done, id, error),
                }
            }
        });
        let begun = heads.borrow().get(cp).unwrap().revision;
        let more = |heads: &sallyport_store::Heads| heads.get(cp).unwrap().revision > begun + 20;
        heads.wait_for(more).await.unwrap();
        server.kill9();
        let (done, last, error) = writing.await.unwrap();
        assert!(
            matches!(&error, StoreError::Storage(StorageFailure::Unavailable(_))),
            "{error:?}"
        );
        acknowledged.extend(done);
        unknown.insert(last);
        let refused = store.snapshot(cp).await.unwrap_err().to_string();
        assert!(refused.contains("not available"), "{refused}");
        server.start_again();
        // The unknown one is sent again, which is always right.
        let put = named(Kind::Service, last, &last.to_string());
        let stored = store.put(cp, &actor(), put).await.unwrap();
        assert_eq!(stored.body["id"], last.to_string());
    }
    let snapshot = store.snapshot(cp).await.unwrap();
    let there: BTreeSet<Uuid> = snapshot.entities[&Kind::Service]
        .iter()
        .map(|body| Uuid::try_parse(body["id"].as_str().unwrap()).unwrap())
        .collect();
    assert!(there.eq(&acknowledged.union(&unknown).copied().collect()));
    // The connection that listens is made again as well.
    let other = Store::connect(&url).await.unwrap();
    crate::suite::service(&other, cp, "from another process").await;
    let newest = snapshot.revision + 1;
    let heard = |heads: &sallyport_store::Heads| heads.get(cp).unwrap().revision == newest;
    heads.wait_for(heard).await.unwrap();
    store.close().await;
    other.close().await;
}

/// Fills the disk, and expects refused writes, working reads, and writes again afterwards.
async fn full_and_free_again(store: &Store, disk: &SmallDisk, spare: usize) {
    let cp = default_cp(store).await;
    let body = "x".repeat(20_000);
    let mut acknowledged = Vec::new();
    let put = |id: Uuid| {
        let mut put = named(Kind::Service, id, &id.to_string());
        put.body["path"] = body.clone().into();
        put
    };
    for _ in 0..5 {
        let id = Uuid::new_v4();
        store.put(cp, &actor(), put(id)).await.unwrap();
        acknowledged.push(id);
    }
    disk.fill(spare);
    let mut refused = 0;
    for _ in 0..400 {
        let id = Uuid::new_v4();
        match store.put(cp, &actor(), put(id)).await {
            Ok(_) => acknowledged.push(id),
            Err(error) => {
                assert_eq!(error, StoreError::Storage(StorageFailure::Full));
                refused += 1;
                if refused == 5 {
                    break;
                }
            }
        }
    }
    assert_eq!(refused, 5, "the disk never got full");
    let all = store.snapshot(cp).await.unwrap();
    assert_eq!(all.entities[&Kind::Service].len(), acknowledged.len());
    assert_eq!(all.revision, acknowledged.len() as u64);
    disk.free();
    for _ in 0..5 {
        let id = Uuid::new_v4();
        store.put(cp, &actor(), put(id)).await.unwrap();
        acknowledged.push(id);
    }
    for id in acknowledged {
        let found = store.get(cp, Kind::Service, id).await.unwrap();
        assert_eq!(found.unwrap()["path"], body.as_str());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_writes_only_on_sqlite() {
    let Some(disk) = SmallDisk::of_megabytes(16) else {
        return;
    };
    let path = disk.path().join("store.sqlite");
    let store = Store::open(&path).unwrap();
    full_and_free_again(&store, &disk, 300_000).await;
    store.close().await;
    let store = Store::open(&path).unwrap();
    let cp = default_cp(&store).await;
    assert!(store.revision(cp).await.unwrap() >= 10);
    store.close().await;
}

/// The tables on the small disk, the server's log elsewhere: when PostgreSQL cannot write its log
/// it ends itself, which `docs/database.md` says how to avoid.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_writes_only_on_postgres() {
    let Some(disk) = SmallDisk::of_megabytes(96) else {
        return;
    };
    let setup = PostgresSetup {
        data: Some(disk.path().join("data")),
        ..PostgresSetup::default()
    };
    let Some(server) = Postgres::custom(setup) else {
        return;
    };
    let store = Store::connect(&server.database()).await.unwrap();
    full_and_free_again(&store, &disk, 600_000).await;
    store.close().await;
}
