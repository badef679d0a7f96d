//! What only PostgreSQL has: an address, a log-in, TLS, several hosts and other processes.

use sallyport_model::Kind;
use sallyport_runtime::certs::LocalCa;
use sallyport_store::{Heads, OpenError, Store};
use sallyport_testkit::{Postgres, PostgresSetup, free_port};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::suite::{actor, control_plane, named, service};

/// Connects, and expects an error with each of these words and without the password.
#[track_caller]
fn refused(outcome: Result<Store, OpenError>, words: &[&str]) {
    let error = outcome.unwrap_err().to_string();
    for word in words {
        assert!(error.contains(word), "{word:?} is missing: {error}");
    }
    assert!(!error.contains("a-secret"), "{error}");
}

#[tokio::test]
async fn what_is_wrong_with_an_address_is_said() {
    refused(Store::connect("store.sqlite").await, &["postgres://"]);
    let url = "postgres://me:a-secret@127.0.0.1/x?sslmode=verify-full&sslrootcert=/no/such/file";
    refused(Store::connect(url).await, &["sslrootcert", "/no/such/file"]);
    let nobody = free_port();
    let url = format!("postgres://me:a-secret@127.0.0.1:{nobody}/x");
    let words = ["cannot reach", "x at 127.0.0.1", "nothing listens"];
    refused(Store::connect(&url).await, &words);
    let url = "postgres://me:a-secret@%2Fno%2Fsuch/x";
    refused(Store::connect(url).await, &["/no/such/.s.PGSQL.5432"]);

    let Some(server) = Postgres::shared() else {
        return;
    };
    let url = server.url("postgres");
    let wrong = url.replace("a-secret-of-the-tests", "a-secret-that-is-wrong");
    let words = ["refuses the log-in", "password authentication failed"];
    refused(Store::connect(&wrong).await, &words);
    let without = url.replace(":a-secret-of-the-tests", "");
    let words = ["refuses the log-in", "password missing"];
    refused(Store::connect(&without).await, &words);
    let words = ["refuses the log-in", "no_such", "does not exist"];
    refused(Store::connect(&server.url("no_such")).await, &words);
    let tls = format!("{url}?sslmode=require");
    refused(Store::connect(&tls).await, &["cannot reach", "TLS"]);
}

#[tokio::test]
async fn a_newer_schema_is_refused() {
    let Some(server) = Postgres::shared() else {
        return;
    };
    let url = server.database();
    Store::connect(&url).await.unwrap().close().await;
    let name = url.rsplit('/').next().unwrap();
    server.psql(name, "UPDATE schema_version SET version = 4711");
    let words = [name, "schema version 4711, this build knows up to "];
    refused(Store::connect(&url).await, &words);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_that_start_together_make_the_schema_once() {
    let Some(server) = Postgres::shared() else {
        return;
    };
    let url = server.database();
    let mut starts = JoinSet::new();
    for _ in 0..6 {
        let url = url.clone();
        starts.spawn(async move { Store::connect(&url).await.unwrap() });
    }
    for store in starts.join_all().await {
        assert_eq!(store.control_planes().await.unwrap(), []);
        store.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_process_hears_what_the_others_write() {
    let Some(server) = Postgres::shared() else {
        return;
    };
    let url = server.database();
    let (here, there) = (
        Store::connect(&url).await.unwrap(),
        Store::connect(&url).await.unwrap(),
    );
    let mut heads = there.watch();
    let cp = control_plane(&here, "a").await;
    let at = |wanted: u64| move |heads: &Heads| heads.get(cp).is_some_and(|h| h.revision >= wanted);
    heads.wait_for(at(0)).await.unwrap();
    let mut seen = 0;
    for number in 1..=30 {
        service(&here, cp, &format!("s{number}")).await;
        let now = heads.borrow_and_update().get(cp).unwrap().revision;
        assert!(now >= seen, "a revision never goes back");
        seen = now;
    }
    heads.wait_for(at(30)).await.unwrap();
    assert_eq!(there.revision(cp).await, Ok(30));
    // Writers of two processes take turns.
    let mut writers = JoinSet::new();
    for (store, name) in [(here.clone(), "here"), (there.clone(), "there")] {
        writers.spawn(async move {
            for number in 0..20 {
                service(&store, cp, &format!("{name} {number}")).await;
            }
        });
    }
    writers.join_all().await;
    let log = here.changes(cp, 30, 100).await.unwrap();
    assert!(log.iter().map(|change| change.revision).eq(31..=70));
    // Of one name in both processes, one wins.
    for round in 0..10 {
        let put = || named(Kind::Service, Uuid::new_v4(), &format!("both {round}"));
        let author = actor();
        let (one, two) = tokio::join!(here.put(cp, &author, put()), there.put(cp, &author, put()));
        assert!(one.is_ok() != two.is_ok());
    }
    here.delete_control_plane(&actor(), cp).await.unwrap();
    heads
        .wait_for(|heads| heads.get(cp).is_none())
        .await
        .unwrap();
    here.close().await;
    there.close().await;
}

/// A commit whose notification never comes, while the connection that listens stays as it is: the
/// look at the table each second finds it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_notification_is_made_good() {
    let Some(server) = Postgres::shared() else {
        return;
    };
    let url = server.database();
    let name = url.rsplit('/').next().unwrap();
    let store = Store::connect(&url).await.unwrap();
    let cp = control_plane(&store, "a").await;
    let mut heads = store.watch();
    // The connection that does nothing but listen and look.
    let listener = format!(
        "SELECT string_agg(pid::text, ',' ORDER BY pid) FROM pg_stat_activity
         WHERE datname = '{name}' AND application_name = 'sallyport'"
    );
    let before = server.psql(name, &listener);
    for revision in 1..=3 {
        // As another process would write it, but without its NOTIFY.
        server.psql(name, "UPDATE cp_head SET revision = revision + 1");
        let there = |heads: &Heads| heads.get(cp).unwrap().revision == revision;
        let heard = heads.wait_for(there);
        let in_time = tokio::time::timeout(std::time::Duration::from_secs(60), heard).await;
        in_time.expect("the poll finds it").unwrap();
        assert_eq!(store.revision(cp).await, Ok(revision));
    }
    // So is that a control plane went.
    server.psql(name, "DELETE FROM control_plane");
    let gone = |heads: &Heads| heads.get(cp).is_none();
    heads.wait_for(gone).await.unwrap();
    for pid in before.split(',') {
        let after = server.psql(name, &listener);
        assert!(
            after.split(',').any(|it| it == pid),
            "no connection was lost"
        );
    }
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_tables_are_readable_by_people() {
    let Some(server) = Postgres::shared() else {
        return;
    };
    let url = server.database();
    let name = url.rsplit('/').next().unwrap();
    let store = Store::connect(&url).await.unwrap();
    let cp = control_plane(&store, "production").await;
    let id = service(&store, cp, "orders").await;
    let entities = "SELECT p.name, h.revision, e.kind, encode(e.id, 'hex')::uuid,
                    e.body::jsonb->>'name' FROM entity e JOIN control_plane p USING (cp)
                    JOIN cp_head h USING (cp)";
    let expected = format!("production|1|services|{id}|orders");
    assert_eq!(server.psql(name, entities), expected);
    let log = "SELECT revision, operation, actor, id, after::jsonb->>'name' FROM change_log
               WHERE kind = 'services'";
    let expected = format!("1|create|token:test|{id}|orders");
    assert_eq!(server.psql(name, log), expected);
    let unique = "SELECT kind, field, value FROM entity_unique";
    assert_eq!(server.psql(name, unique), "services|name|orders");
    store.close().await;
}

/// The two engines have the same tables with the same columns, keys and indexes.
#[tokio::test]
async fn both_engines_have_one_schema() {
    let Some(server) = Postgres::shared() else {
        return;
    };
    let url = server.database();
    let name = url.rsplit('/').next().unwrap();
    Store::connect(&url).await.unwrap().close().await;
    let columns = "SELECT table_name, column_name, data_type, is_nullable
                   FROM information_schema.columns
                   WHERE table_schema = 'public' AND table_name <> 'schema_version'
                   ORDER BY table_name, ordinal_position";
    let postgres = server.psql(name, columns);

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.sqlite");
    drop(Store::open(&path).unwrap());
    let conn = rusqlite::Connection::open(&path).unwrap();
    let read = |sql: &str| -> Vec<String> {
        let mut select = conn.prepare(sql).unwrap();
        let rows = select.query_map([], |row| row.get(0)).unwrap();
        rows.map(Result::unwrap).collect()
    };
    let sqlite = read(
        "SELECT m.name || '|' || c.name || '|' || CASE c.type WHEN 'INTEGER' THEN 'bigint'
         WHEN 'TEXT' THEN 'text' WHEN 'BLOB' THEN 'bytea' END || '|' ||
         CASE WHEN c.\"notnull\" OR c.pk THEN 'NO' ELSE 'YES' END
         FROM sqlite_master m JOIN pragma_table_info(m.name) c
         WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite_%' ORDER BY m.name, c.cid",
    );
    assert_eq!(postgres.lines().collect::<Vec<_>>(), sqlite);

    let indexes = "SELECT t.relname || '(' || string_agg(a.attname, ',' ORDER BY k.at) || ')' ||
                   CASE WHEN i.indisunique THEN ' unique' ELSE '' END AS shown
                   FROM pg_index i JOIN pg_class t ON t.oid = i.indrelid
                   JOIN pg_namespace n ON n.oid = t.relnamespace AND n.nspname = 'public'
                   CROSS JOIN unnest(i.indkey) WITH ORDINALITY AS k(att, at)
                   JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = k.att
                   GROUP BY i.indexrelid, t.relname, i.indisunique ORDER BY shown";
    let postgres = server.psql(name, indexes);
    let mut sqlite = read(
        "SELECT m.name || '(' || (SELECT group_concat(name, ',') FROM
         (SELECT name FROM pragma_index_info(i.name) ORDER BY seqno)) || ')' ||
         CASE WHEN i.\"unique\" THEN ' unique' ELSE '' END
         FROM sqlite_master m JOIN pragma_index_list(m.name) i WHERE m.type = 'table'",
    );
    // Integer keys of SQLite are the rows themselves and have no index.
    let keys = [
        "change_log(seq) unique",
        "cluster(one) unique",
        "cluster_step(seq) unique",
        "cluster_term(epoch) unique",
        "control_plane(cp) unique",
        "cp_head(cp) unique",
        "draft(cp) unique",
        "entity(eid) unique",
        "ip_addresses(one) unique",
        "ip_addresses_key(one) unique",
        "ip_addresses_version(seq) unique",
    ];
    sqlite.extend(keys.map(str::to_owned));
    sqlite.sort();
    let mut postgres: Vec<&str> = postgres.lines().collect();
    postgres.sort_unstable();
    assert_eq!(postgres, sqlite);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_host_that_takes_writes_is_used() {
    let setup = |conf: &[&str]| PostgresSetup {
        conf: conf.iter().map(|line| (*line).to_owned()).collect(),
        ..PostgresSetup::default()
    };
    let Some(reader) = Postgres::custom(setup(&["default_transaction_read_only = on"])) else {
        return;
    };
    let Some(writer) = Postgres::shared() else {
        return;
    };
    let url = writer.database();
    let nobody = free_port();
    let hosts = format!("127.0.0.1:{nobody},127.0.0.1:{}", reader.port());
    let (start, name) = url.rsplit_once('/').unwrap();
    let (user, own) = start.rsplit_once('@').unwrap();
    // Both ways mean the same with several hosts.
    for attributes in ["", "?target_session_attrs=read-write"] {
        let url = format!("{user}@{hosts},{own}/{name}{attributes}");
        let store = Store::connect(&url).await.unwrap();
        control_plane(&store, &format!("made {attributes}")).await;
        store.close().await;
    }
    let url = format!("{user}@{hosts}/postgres");
    let words = ["nothing listens", "is read-only"];
    refused(Store::connect(&url).await, &words);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_with_client_certificates() {
    let ca = LocalCa::create("database authority", 30).unwrap();
    let stranger = LocalCa::create("another authority", 30).unwrap();
    let server_pair = ca.issue_server(&["db.example", "localhost"], 30).unwrap();
    let client = ca.issue_client("sallyport", 30).unwrap();
    let stray = stranger.issue_client("sallyport", 30).unwrap();
    let setup = PostgresSetup {
        conf: [
            "ssl = on",
            "ssl_cert_file = 'server.crt'",
            "ssl_key_file = 'server.key'",
            "ssl_ca_file = 'ca.crt'",
        ]
        .map(str::to_owned)
        .into(),
        hba: vec![
            "hostssl certified all 127.0.0.1/32 cert".to_owned(),
            "hostnossl all all 127.0.0.1/32 reject".to_owned(),
        ],
        files: vec![
            ("server.crt", server_pair.cert),
            ("server.key", server_pair.key),
            ("ca.crt", ca.pem().cert.clone()),
        ],
        data: None,
    };
    let Some(server) = Postgres::custom(setup) else {
        return;
    };
    server.psql("postgres", "CREATE DATABASE certified");
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.display().to_string()
    };
    let authority = file("ca.crt", &ca.pem().cert);
    let other = file("other.crt", &stranger.pem().cert);
    let good = format!(
        "sslcert={}&sslkey={}",
        file("good.crt", &client.cert),
        file("good.key", &client.key)
    );
    let bad = format!(
        "sslcert={}&sslkey={}",
        file("bad.crt", &stray.cert),
        file("bad.key", &stray.key)
    );
    let password = server.database();
    let by_name = password.replace("127.0.0.1", "localhost");
    let works = async |url: String| {
        let store = Store::connect(&url).await.unwrap();
        store.control_planes().await.unwrap();
        let name = url.split('?').next().unwrap().rsplit('/').next().unwrap();
        let encrypted = server.psql(
            name,
            &format!(
                "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
                 WHERE datname = '{name}' AND application_name = 'sallyport'"
            ),
        );
        assert_eq!(encrypted, "t", "{url}");
        store.close().await;
    };
    works(password.clone()).await;
    works(format!("{password}?sslmode=require")).await;
    works(format!(
        "{password}?sslmode=verify-ca&sslrootcert={authority}"
    ))
    .await;
    works(format!(
        "{by_name}?sslmode=verify-full&sslrootcert={authority}"
    ))
    .await;
    let full = format!("{password}?sslmode=verify-full&sslrootcert={authority}");
    refused(Store::connect(&full).await, &["127.0.0.1"]);
    let strange = format!("{password}?sslmode=verify-ca&sslrootcert={other}");
    refused(Store::connect(&strange).await, &["cannot reach"]);
    let plain = format!("{password}?sslmode=disable");
    refused(Store::connect(&plain).await, &["refuses the log-in"]);

    let certified = server
        .url("certified")
        .replace(":a-secret-of-the-tests", "");
    let certified = certified.replace("127.0.0.1", "localhost");
    let trust = format!("sslmode=verify-full&sslrootcert={authority}");
    works(format!("{certified}?{trust}&{good}")).await;
    refused(
        Store::connect(&format!("{certified}?{trust}")).await,
        &["refuses the log-in"],
    );
    let stray = Store::connect(&format!("{certified}?{trust}&{bad}")).await;
    assert!(stray.is_err());
}

#[tokio::test]
async fn a_local_socket_needs_no_password() {
    let Some(server) = Postgres::shared() else {
        return;
    };
    let url = server.database();
    let name = url.rsplit('/').next().unwrap();
    let store = Store::connect(&server.local_url(name)).await.unwrap();
    control_plane(&store, "a").await;
    assert!(store.is_shared());
    store.close().await;
}
