//! Dumps: what is taken from one engine is the same in the other, and nothing wrong is taken in.

use std::collections::BTreeMap;
use std::path::Path;

use sallyport_model::Kind;
use sallyport_store::dump::{
    ColumnKind, Database, DumpError, Loaded, Piece, Table, dump, load, snapshot_file,
};
use sallyport_store::{
    IpAddressesKey, NewCertificate, NewOrganization, NewToken, NodeSeen, OnDelete, OpenError,
    Store, SyncStatus,
};
use sallyport_testkit::Postgres;
use uuid::Uuid;

use crate::suite::{actor, control_plane, named, refers, service, tagged};

/// A dump as it was taken.
#[derive(Clone, Debug, Default, PartialEq)]
struct Taken {
    version: i64,
    tables: Vec<(Table, Vec<u8>)>,
}

impl Taken {
    fn from(database: &Database) -> Taken {
        let mut taken = Taken::default();
        let mut counted = 0;
        dump(database, &mut |piece| {
            match piece {
                Piece::Schema(version) => taken.version = version,
                Piece::Table(table) => taken.tables.push((table.clone(), Vec::new())),
                Piece::Rows { lines, rows } => {
                    counted += rows;
                    taken.tables.last_mut().unwrap().1.extend_from_slice(lines);
                }
            }
            Ok(())
        })
        .unwrap();
        let lines = |(_, lines): &(Table, Vec<u8>)| lines.iter().filter(|it| **it == b'\n').count();
        assert_eq!(
            counted,
            taken.tables.iter().map(lines).sum::<usize>() as u64
        );
        taken
    }

    fn pieces(&self) -> impl Iterator<Item = Loaded> + use<> {
        let tables = self.tables.clone().into_iter();
        tables.flat_map(|(table, lines)| [Loaded::Table(table), Loaded::Rows(lines)])
    }

    fn load(&self, into: &Database) -> Result<(), DumpError> {
        let mut pieces = self.pieces();
        load(into, self.version, &mut || Ok(pieces.next()))
    }

    fn table(&mut self, name: &str) -> &mut (Table, Vec<u8>) {
        let found = self.tables.iter_mut().find(|(table, _)| table.name == name);
        found.unwrap()
    }

    fn rows(&self) -> BTreeMap<&str, usize> {
        let tables = self.tables.iter();
        tables
            .map(|(table, lines)| {
                let rows = lines.iter().filter(|byte| **byte == b'\n').count();
                (table.name.as_str(), rows)
            })
            .collect()
    }
}

fn file(directory: &Path, name: &str) -> Database {
    Database::File(directory.join(name))
}

/// Something of everything.
async fn fill(store: &Store) -> Uuid {
    let gone = control_plane(store, "gone").await;
    service(store, gone, "also-gone").await;
    let cp = control_plane(store, "kept \"quoted\"").await;
    let parent = service(store, cp, "back\\slash\ttab\nline ü 🦀").await;
    for at in 0..50 {
        let mut put = named(Kind::Route, Uuid::new_v4(), &format!("route-{at}"));
        put = tagged(put, &["a", "\\N"]);
        let put = refers(put, "service", Kind::Service, parent, OnDelete::Cascade);
        store.put(cp, &actor(), put).await.unwrap();
    }
    store.delete_control_plane(&actor(), gone).await.unwrap();
    let new = NewOrganization {
        name: "Org".to_owned(),
        owner_email: "owner@localhost".to_owned(),
        owner_full_name: "Owner".to_owned(),
    };
    let organization = store.ensure_organization(&actor(), new).await.unwrap();
    let token = NewToken {
        name: "token".to_owned(),
        digest: [7; 32],
        owner: organization.owner.id,
        expires_at_ms: None,
    };
    store.create_token(&actor(), token).await.unwrap();
    let certificate = NewCertificate {
        pem: "-----BEGIN".to_owned(),
        digest: [255; 32],
        title: String::new(),
    };
    store
        .pin_certificate(cp, &actor(), certificate)
        .await
        .unwrap();
    let seen = NodeSeen {
        control_plane: cp,
        id: Uuid::new_v4(),
        hostname: "node".to_owned(),
        version: "1".to_owned(),
        ip: "::1".to_owned(),
        labels: BTreeMap::new(),
        at: 1,
        config_hash: "0".repeat(32),
        sync_status: SyncStatus::ALL[0],
        sync_detail: String::new(),
        cert_expires_at: 2,
        revision: 3,
        refused: Vec::new(),
    };
    store.record_nodes(vec![seen]).await.unwrap();
    let list = serde_json::json!({"a": "list"});
    let contributed = store.contribute_ip_addresses("control", list.clone());
    contributed.await.unwrap();
    let published = store.publish_ip_addresses(1, vec![list.clone()], vec![list], 9);
    assert!(published.await.unwrap());
    let key = IpAddressesKey {
        public_key: "-----BEGIN".to_owned(),
        sealed: vec![0, 255],
    };
    store.keep_ip_addresses_key(key).await.unwrap();
    cp
}

/// Writes go on where the dump was taken.
async fn goes_on(store: &Store, cp: Uuid) {
    let before = store.snapshot(cp).await.unwrap();
    service(store, cp, "after").await;
    let after = store.snapshot(cp).await.unwrap();
    assert_eq!(after.revision, before.revision + 1);
    control_plane(store, "new one").await;
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_is_dumped_while_it_is_written_and_loaded_again() {
    let directory = tempfile::tempdir().unwrap();
    let from = directory.path().join("store.sqlite");
    let store = Store::open(&from).unwrap();
    let cp = fill(&store).await;
    let database = Database::File(from);
    let writing = store.clone();
    let writer = tokio::spawn(async move {
        for at in 0..200 {
            service(&writing, cp, &format!("meanwhile-{at}")).await;
        }
    });
    let taken = blocking(move || Taken::from(&database)).await;
    writer.await.unwrap();
    let rows = taken.rows();
    assert_eq!(rows["control_plane"], 1);
    assert!(
        rows["entity"] >= 51 && rows["entity"] == rows["entity_unique"],
        "{rows:?}"
    );
    assert_eq!(
        (rows["access_token"], rows["dp_certificate"], rows["node"]),
        (1, 1, 1)
    );
    assert_eq!(
        (
            rows["ip_addresses"],
            rows["ip_addresses_version"],
            rows["ip_addresses_key"]
        ),
        (1, 1, 1)
    );

    let path = directory.path().join("again.sqlite");
    let again = Database::File(path.clone());
    let taken_again = blocking(move || {
        taken.load(&again).unwrap();
        (Taken::from(&again), taken)
    })
    .await;
    assert_eq!(taken_again.0, taken_again.1);
    let again = Store::open(&path).unwrap();
    assert!(again.bearer([7; 32]).await.unwrap().is_some());
    goes_on(&again, cp).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dump_is_the_same_on_both_engines() {
    let Some(server) = Postgres::shared() else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let dir = directory.path().to_owned();
    let (first, second) = (server.database(), server.database());
    let origin = first.clone();

    let store = Store::connect(&first).await.unwrap();
    let cp = fill(&store).await;
    store.close().await;
    let url = second.clone();
    let back = blocking(move || {
        let taken = Taken::from(&Database::Url(first));
        let sqlite = file(&dir, "store.sqlite");
        taken.load(&sqlite).unwrap();
        assert_eq!(Taken::from(&sqlite), taken);
        let back = Database::Url(url);
        taken.load(&back).unwrap();
        assert_eq!(Taken::from(&back), taken);
        let full = taken.load(&back).unwrap_err();
        assert!(matches!(full, DumpError::NotEmpty(_)), "{full}");
        taken
    })
    .await;
    assert_eq!(back.rows()["entity"], 51);
    // Keys, references and indexes are those of a database that was never loaded.
    let made = |url: &str| {
        let name = url.rsplit('/').next().unwrap();
        let constraints = "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid)
            FROM pg_constraint WHERE connamespace = 'public'::regnamespace ORDER BY 1, 2";
        let indexes = "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1";
        [constraints, indexes].map(|sql| server.psql(name, sql))
    };
    let loaded = made(&second);
    assert!(
        loaded[0].contains("entity_pkey") && loaded[1].contains("entity_order"),
        "{loaded:?}"
    );
    assert_eq!(loaded, made(&origin));
    let indexes = |path: &Path| {
        let conn = rusqlite::Connection::open(path).unwrap();
        let sql = "SELECT group_concat(coalesce(sql, name), char(10))
            FROM (SELECT * FROM sqlite_schema WHERE type = 'index' ORDER BY name)";
        conn.query_row(sql, [], |row| row.get::<_, String>(0))
            .unwrap()
    };
    let fresh = directory.path().join("fresh.sqlite");
    drop(Store::open(&fresh).unwrap());
    let loaded = indexes(&directory.path().join("store.sqlite"));
    assert!(loaded.contains("entity_order"), "{loaded}");
    assert_eq!(loaded, indexes(&fresh));
    let store = Store::open(&directory.path().join("store.sqlite")).unwrap();
    goes_on(&store, cp).await;
    let store = Store::connect(&second).await.unwrap();
    goes_on(&store, cp).await;
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_engines_have_the_same_tables() {
    let Some(server) = Postgres::shared() else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.sqlite");
    drop(Store::open(&path).unwrap());
    let url = server.database();
    Store::connect(&url).await.unwrap().close().await;
    let (sqlite, postgres) = blocking(move || {
        let sqlite = Taken::from(&Database::File(path));
        (sqlite, Taken::from(&Database::Url(url)))
    })
    .await;
    assert_eq!(sqlite, postgres);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_is_not_taken_in() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&directory.path().join("store.sqlite")).unwrap();
    fill(&store).await;
    store.close().await;
    let path = directory.path().to_owned();
    let url = Postgres::shared().map(|server| server.database());
    blocking(move || all_wrong(&path, url.map(Database::Url))).await;
}

fn all_wrong(directory: &Path, postgres: Option<Database>) {
    let right = Taken::from(&file(directory, "store.sqlite"));
    let number = std::cell::Cell::new(0);
    let refused = |taken: &Taken, words: &str| {
        number.set(number.get() + 1);
        let sqlite = file(directory, &format!("wrong-{}.sqlite", number.get()));
        for into in [Some(&sqlite), postgres.as_ref()].into_iter().flatten() {
            let error = taken.load(into).unwrap_err().to_string();
            assert!(
                error.contains(words),
                "{into:?}: {words:?} is missing: {error}"
            );
        }
    };
    let newer = Taken {
        version: 4711,
        ..right.clone()
    };
    refused(&newer, "schema version 4711, this build knows up to");
    let mut unknown = right.clone();
    unknown.table("node").0.name = "no\"de".to_owned();
    refused(&unknown, "no table \"no\\\"de\"");
    let mut columns = right.clone();
    columns.table("node").0.columns[1].name = "other".to_owned();
    refused(&columns, "columns of table \"node\"");
    let mut kinds = right.clone();
    kinds.table("node").0.columns[0].kind = ColumnKind::Text;
    refused(&kinds, "columns of table \"node\"");
    let mut short = right.clone();
    short.table("node").1.splice(0..0, *b"[1]\n");
    refused(&short, "a row is damaged: it has 1 values");
    let mut dangling = right.clone();
    dangling.table("control_plane").1.clear();
    let dangles = if postgres.is_some() {
        ""
    } else {
        "refers to one"
    };
    refused(&dangling, dangles);
    let mut twice = right.clone();
    let again = twice.table("node").1.clone();
    twice.table("node").1.extend_from_slice(&again);
    refused(&twice, "the database failed");

    if let Some(postgres) = &postgres {
        // what gives the pieces is not sure of them: nothing stays
        let mut pieces = right.pieces();
        let mut next = || match pieces.next() {
            None => Err("the end is missing".into()),
            some => Ok(some),
        };
        let error = load(postgres, right.version, &mut next).unwrap_err();
        assert_eq!(error.to_string(), "the end is missing");
        right.load(postgres).unwrap();
        assert_eq!(Taken::from(postgres), right);
    }
    let missing = dump(&file(directory, "missing.sqlite"), &mut |_| Ok(())).unwrap_err();
    assert!(
        matches!(missing, DumpError::Open(OpenError::Io { .. })),
        "{missing}"
    );
    assert!(!directory.join("missing.sqlite").exists());
    let into = file(directory, "store.sqlite");
    assert!(matches!(right.load(&into), Err(DumpError::NotEmpty(_))));
}

#[test]
fn a_file_of_sqlite_is_copied_as_it_is_at_one_moment() {
    let directory = tempfile::tempdir().unwrap();
    let (from, to) = (
        directory.path().join("a.sqlite"),
        directory.path().join("b.sqlite"),
    );
    let store = Store::open(&from).unwrap();
    snapshot_file(&from, &to).unwrap();
    assert!(snapshot_file(&from, &to).is_err(), "nothing is overwritten");
    drop(store);
    drop(Store::open(&to).unwrap());
    std::fs::write(&from, "no database at all, and a little more").unwrap();
    assert!(snapshot_file(&from, &directory.path().join("c.sqlite")).is_err());
}
