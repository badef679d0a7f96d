//! Backups from outside: made, proven, restored, and refused where something is wrong.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::{SignedDuration, Timestamp};
use sallyport_appliance::backup::{
    self, BackupError, Keep, KeyError, NewKey, Opener, Schedule, Seal, Settings, Sources, Target,
};
use sallyport_store::dump::Database;
use sallyport_store::{Actor, NewControlPlane, Store};
use sallyport_testkit::{Deadline, Postgres, eventually};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// A data directory with something in it, and a key.
struct Lab {
    dir: tempfile::TempDir,
    sources: Sources,
    seal: Seal,
}

impl Lab {
    async fn new() -> Lab {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let store = Store::open(&data.join("store.sqlite")).unwrap();
        for name in ["one", "two"] {
            control_plane(&store, name).await;
        }
        store.close().await;
        let other = rusqlite_file(&data.join("audit.db"));
        assert!(other > 0);
        fs::create_dir_all(data.join("deep/er")).unwrap();
        fs::write(data.join("deep/er/ca.key"), "a key").unwrap();
        fs::write(data.join("node.key"), "who I am").unwrap();
        fs::write(data.join("half.new"), "of a write under way").unwrap();
        fs::write(data.join("x.lock"), "").unwrap();
        fs::write(data.join("empty"), "").unwrap();
        let settings = dir.path().join("audit.toml");
        fs::write(&settings, "[receive]").unwrap();
        let key = NewKey::generate(Timestamp::UNIX_EPOCH);
        fs::write(dir.path().join("key"), &key.file).unwrap();
        Lab {
            sources: Sources {
                database: Database::File(data.join("store.sqlite")),
                data,
                database_file: "store.sqlite".into(),
                settings: vec![settings],
                identity: vec!["node.key".into()],
                node: "node1".to_owned(),
            },
            seal: Seal::new(&[key.recipient], None).unwrap(),
            dir,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn opener(&self) -> Opener {
        Opener::new(Some(&self.path("key")), None).unwrap()
    }

    fn backup(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        backup::create(&self.sources, &self.seal, &path, Timestamp::now()).unwrap();
        path
    }

    fn verify(&self, path: &Path) -> Result<backup::Verified, BackupError> {
        backup::verify(path, &self.opener(), self.dir.path(), |_| Ok(()))
    }

    #[track_caller]
    fn refused(&self, path: &Path, words: &str) {
        let error = self.verify(path).unwrap_err().to_string();
        assert!(error.contains(words), "{words:?} is missing: {error}");
        let target = target(&self.path("refused"));
        let error = backup::restore(path, &self.opener(), &target)
            .unwrap_err()
            .to_string();
        assert!(error.contains(words), "{words:?} is missing: {error}");
        assert!(!target.data.exists());
        let staging = self.path(".refused.restoring");
        assert!(!staging.exists());
    }

    /// What is in the directory but does not end on its own.
    fn left_over(&self) -> Vec<String> {
        let names = fs::read_dir(self.dir.path()).unwrap();
        let names = names.map(|it| it.unwrap().file_name().into_string().unwrap());
        names
            .filter(|name| name.contains("partial") || name.contains("sallyport-verify"))
            .collect()
    }
}

/// A small database of SQLite that is no store.
fn rusqlite_file(path: &Path) -> u64 {
    // A store is one as well, and needs no other crate here.
    drop(Store::open(path).unwrap());
    fs::metadata(path).unwrap().len()
}

async fn control_plane(store: &Store, name: &str) {
    let new = NewControlPlane {
        name: name.to_owned(),
        ..NewControlPlane::default()
    };
    let actor = Actor("test".to_owned());
    store.create_control_plane(&actor, new).await.unwrap();
}

async fn names(store: &Store) -> Vec<String> {
    let all = store.control_planes().await.unwrap();
    let mut names: Vec<String> = all.into_iter().map(|cp| cp.name).collect();
    names.sort();
    names
}

fn target(data: &Path) -> Target {
    Target {
        data: data.to_owned(),
        database: None,
        identity: true,
    }
}

#[tokio::test]
async fn everything_comes_back() {
    let lab = Lab::new().await;
    let path = lab.backup("b.tar.gz.age");
    let verified = lab.verify(&path).unwrap();
    let names_of = |files: &[backup::Counted]| -> Vec<String> {
        files.iter().map(|file| file.name.clone()).collect()
    };
    assert_eq!(
        names_of(&verified.manifest.files),
        [
            "data/audit.db",
            "data/deep/er/ca.key",
            "data/empty",
            "identity/node.key",
            "settings/0-audit.toml"
        ]
    );
    assert_eq!(verified.header.node, "node1");
    assert_eq!(verified.header.engine, "sqlite");
    let planes = verified
        .manifest
        .tables
        .iter()
        .find(|it| it.name == "control_plane");
    assert_eq!(planes.unwrap().count, 2);

    let to = target(&lab.path("new/data"));
    let restored = backup::restore(&path, &lab.opener(), &to).unwrap();
    assert_eq!(restored.manifest, verified.manifest);
    let read = |name: &str| fs::read_to_string(to.data.join(name)).unwrap();
    assert_eq!(read("deep/er/ca.key"), "a key");
    assert_eq!(read("node.key"), "who I am");
    assert_eq!(read("restored-settings/0-audit.toml"), "[receive]");
    drop(Store::open(&to.data.join("audit.db")).unwrap());
    let store = Store::open(&to.data.join("store.sqlite")).unwrap();
    assert_eq!(names(&store).await, ["one", "two"]);
    store.close().await;

    let again = backup::restore(&path, &lab.opener(), &to).unwrap_err();
    assert!(matches!(again, BackupError::NotEmpty(_)), "{again}");
    let other = Target {
        identity: false,
        ..target(&lab.path("other"))
    };
    fs::create_dir(&other.data).unwrap();
    backup::restore(&path, &lab.opener(), &other).unwrap();
    assert!(!other.data.join("node.key").exists());
    assert_eq!(lab.left_over(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_of_one_engine_is_restored_to_the_other() {
    let Some(server) = Postgres::shared() else {
        return;
    };
    let lab = Lab::new().await;
    let (first, second) = (server.database(), server.database());
    let moved = tokio::task::spawn_blocking(move || {
        let path = lab.backup("b");
        let to = Target {
            database: Some(first.clone()),
            ..target(&lab.path("on-postgres"))
        };
        backup::restore(&path, &lab.opener(), &to).unwrap();
        assert!(!to.data.join("store.sqlite").exists());
        let sources = Sources {
            database: Database::Url(first),
            data: to.data,
            ..lab.sources.clone()
        };
        let back = lab.path("back");
        let created = backup::create(&sources, &lab.seal, &back, Timestamp::now()).unwrap();
        let verified = lab.verify(&back).unwrap();
        assert_eq!(verified.header.engine, "postgresql");
        assert_eq!(verified.manifest.tables, created.manifest.tables);

        // a backup that is cut leaves the database empty, and the next attempt succeeds
        let to = Target {
            database: Some(second.clone()),
            ..target(&lab.path("again"))
        };
        let whole = fs::read(&back).unwrap();
        fs::write(lab.path("cut"), &whole[..whole.len() - 1]).unwrap();
        let cut = backup::restore(&lab.path("cut"), &lab.opener(), &to).unwrap_err();
        assert!(cut.to_string().contains("is damaged"), "{cut}");
        backup::restore(&back, &lab.opener(), &to).unwrap();
        let other = Target {
            data: lab.path("full"),
            ..to
        };
        let full = backup::restore(&back, &lab.opener(), &other).unwrap_err();
        assert!(full.to_string().contains("is not empty"), "{full}");
        second
    })
    .await
    .unwrap();
    let store = Store::connect(&moved).await.unwrap();
    assert_eq!(names(&store).await, ["one", "two"]);
    control_plane(&store, "three").await;
    store.close().await;
}

#[tokio::test]
async fn a_wrong_key_is_said() {
    let lab = Lab::new().await;
    let path = lab.backup("b");
    let other = NewKey::generate(Timestamp::UNIX_EPOCH);
    fs::write(lab.path("other"), &other.file).unwrap();
    fs::write(lab.path("pass"), "correct horse battery\nignored").unwrap();
    fs::write(lab.path("wrong"), "incorrect horse battery").unwrap();
    let try_with = |keys: Option<&str>, pass: Option<&str>, path: &Path| {
        let keys = keys.map(|name| lab.path(name));
        let pass = pass.map(|name| lab.path(name));
        let opener = Opener::new(keys.as_deref(), pass.as_deref())?;
        backup::verify(path, &opener, lab.dir.path(), |_| Ok(())).map(|_| ())
    };
    let key_error = |outcome: Result<(), BackupError>| match outcome.unwrap_err() {
        BackupError::Key(error) => error,
        other => panic!("{other}"),
    };
    let wrong = key_error(try_with(Some("other"), None, &path));
    assert!(matches!(wrong, KeyError::WrongKey), "{wrong}");
    let wants = key_error(try_with(None, Some("pass"), &path));
    assert!(matches!(wants, KeyError::WantsKey), "{wants}");
    let empty = key_error(try_with(Some("data/empty"), None, &path));
    assert!(matches!(empty, KeyError::File { .. }), "{empty}");

    let sealed = lab.path("sealed");
    let seal = Seal::new(&[], Some(&lab.path("pass"))).unwrap();
    backup::create(&lab.sources, &seal, &sealed, Timestamp::now()).unwrap();
    try_with(None, Some("pass"), &sealed).unwrap();
    let wrong = key_error(try_with(None, Some("wrong"), &sealed));
    assert!(matches!(wrong, KeyError::WrongPassphrase), "{wrong}");
    let wants = key_error(try_with(Some("key"), None, &sealed));
    assert!(matches!(wants, KeyError::WantsPassphrase), "{wants}");

    let both = Seal::new(&[other.recipient], Some(&lab.path("pass"))).unwrap_err();
    assert!(matches!(both, KeyError::Both));
    let none = Seal::new(&["ssh-ed25519 AAAA".to_owned()], None).unwrap_err();
    assert!(none.to_string().contains("no recipient"), "{none}");
}

#[tokio::test]
async fn a_backup_that_is_cut_or_changed_is_refused() {
    let lab = Lab::new().await;
    let path = lab.backup("b");
    let whole = fs::read(&path).unwrap();
    let bad = lab.path("bad");
    fs::write(&bad, "no backup").unwrap();
    lab.refused(&bad, "this is no backup");
    fs::write(&bad, "").unwrap();
    lab.refused(&bad, "this is no backup");
    for cut in [100, 250, whole.len() / 2, whole.len() - 17, whole.len() - 1] {
        fs::write(&bad, &whole[..cut]).unwrap();
        lab.refused(&bad, "");
    }
    // in the middle and at the end, where age's own head is past
    for at in [whole.len() / 4, whole.len() / 2, whole.len() - 1] {
        let mut edited = whole.clone();
        edited[at] ^= 1;
        fs::write(&bad, &edited).unwrap();
        lab.refused(&bad, "cut short or was changed");
    }
    let mut longer = whole;
    longer.push(0);
    fs::write(&bad, &longer).unwrap();
    lab.refused(&bad, "is damaged");
    lab.verify(&path).unwrap();
    assert_eq!(lab.left_over(), [""; 0]);
}

/// Seals an archive of these entries: anyone who knows the recipient can.
fn crafted(lab: &Lab, entries: &[(&str, &[u8])]) -> PathBuf {
    let key = fs::read_to_string(lab.path("key")).unwrap();
    let recipient = key
        .lines()
        .find_map(|line| line.strip_prefix("# public key: "));
    let recipient: age::x25519::Recipient = recipient.unwrap().parse().unwrap();
    let path = lab.path("crafted");
    let recipients = [&recipient as &dyn age::Recipient];
    let encryptor = age::Encryptor::with_recipients(recipients.into_iter()).unwrap();
    let sealed = encryptor
        .wrap_output(fs::File::create(&path).unwrap())
        .unwrap();
    let mut gz = GzEncoder::new(sealed, Compression::fast());
    for (name, text) in entries {
        // by hand: the crate does not write such names
        let mut header = tar::Header::new_ustar();
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_mode(0o777);
        header.set_size(text.len() as u64);
        header.set_entry_type(tar::EntryType::Regular);
        header.set_cksum();
        gz.write_all(header.as_bytes()).unwrap();
        gz.write_all(text).unwrap();
        gz.write_all(&vec![0; text.len().next_multiple_of(512) - text.len()])
            .unwrap();
    }
    gz.write_all(&[0; 1024]).unwrap();
    gz.finish().unwrap().finish().unwrap();
    path
}

const HEADER: (&str, &[u8]) = (
    "sallyport-backup.json",
    br#"{"format":1,"made_by":"0","made_at":"t","node":"n","engine":"sqlite","schema_version":1}"#,
);
const END: (&str, &[u8]) = (
    "manifest.json",
    br#"{"tables":[],"files":[],"settings":[]}"#,
);

#[tokio::test]
async fn an_archive_that_is_not_ours_does_no_harm() {
    let lab = Lab::new().await;
    let refused = |entries: &[(&str, &[u8])], words: &str| {
        let path = crafted(&lab, entries);
        lab.refused(&path, words);
    };
    refused(&[], "it is empty");
    refused(&[END], "is not its first entry");
    refused(&[("sallyport-backup.json", b"{}"), END], "missing field");
    let newer = br#"{"format":2,"made_by":"9.9.9"}"#;
    refused(
        &[("sallyport-backup.json", newer), END],
        "made by version 9.9.9",
    );
    let schema = String::from_utf8(HEADER.1.to_vec())
        .unwrap()
        .replace(":1}", ":999}");
    refused(&[(HEADER.0, schema.as_bytes()), END], "schema version 999");
    refused(&[HEADER], "manifest.json is missing");
    for name in [
        "data/../../escaped",
        "/etc/escaped",
        "data/./../x",
        "..",
        "other/x",
        "x",
    ] {
        refused(&[HEADER, (name, b"x"), END], "damaged");
    }
    refused(
        &[HEADER, ("data/x", b"1"), ("data/x", b"2"), END],
        "is in it twice",
    );
    refused(
        &[HEADER, ("data/x", b"1"), END],
        "data/x was not written with it",
    );
    refused(&[HEADER, END, ("data/x", b"1")], "comes after its end");
    refused(
        &[HEADER, ("database/node/000001.jsonl", b"[]\n"), END],
        "is not in its table",
    );
    let table = br#"{"name":"evil\" ; DROP","columns":[]}"#;
    refused(
        &[HEADER, ("database/evil\" ; DROP/table.json", table), END],
        "no table",
    );
    let missing =
        br#"{"tables":[],"files":[{"name":"data/x","count":1,"sha256":""}],"settings":[]}"#;
    refused(
        &[HEADER, ("manifest.json", missing)],
        "data/x is not as it was written",
    );
    assert!(!lab.path("escaped").exists());
    // and one that is right, though made by hand, is taken
    let path = crafted(&lab, &[HEADER, END]);
    lab.verify(&path).unwrap();
}

#[tokio::test]
async fn old_ones_go_and_what_was_interrupted_goes() {
    let lab = Lab::new().await;
    let directory = lab.path("backups");
    let keep = Keep {
        last: 2,
        daily: 0,
        weekly: 0,
        monthly: 0,
    };
    fs::create_dir(&directory).unwrap();
    let stale = ".sallyport-20260101T000000Z-node1.tar.gz.age.partial";
    fs::write(directory.join(stale), "half").unwrap();
    fs::write(directory.join("not-ours.tar.gz.age"), "stays").unwrap();
    let other = Sources {
        node: "node2".to_owned(),
        ..lab.sources.clone()
    };
    let start: Timestamp = "2026-01-31T00:00:00Z".parse().unwrap();
    backup::in_directory(&other, &lab.seal, &directory, &keep, start).unwrap();
    for hour in 1..=4 {
        let now = start + SignedDuration::from_hours(hour);
        let (created, gone) =
            backup::in_directory(&lab.sources, &lab.seal, &directory, &keep, now).unwrap();
        assert!(created.path.exists());
        assert_eq!(gone.len(), usize::from(hour > 2), "{hour}: {gone:?}");
    }
    assert!(!directory.join(stale).exists());
    assert!(directory.join("not-ours.tar.gz.age").exists());
    let left = backup::list(&directory).unwrap();
    let left: Vec<(String, String)> = left
        .into_iter()
        .map(|it| (it.made_at.to_string(), it.node))
        .collect();
    let wanted = [
        ("2026-01-31T00:00:00Z", "node2"),
        ("2026-01-31T03:00:00Z", "node1"),
        ("2026-01-31T04:00:00Z", "node1"),
    ];
    let wanted: Vec<(String, String)> = wanted
        .into_iter()
        .map(|(a, b)| (a.to_owned(), b.to_owned()))
        .collect();
    assert_eq!(left, wanted);
    // a source that cannot be read leaves nothing half written
    let broken = Sources {
        settings: vec![lab.path("missing")],
        ..lab.sources.clone()
    };
    let later = start + SignedDuration::from_hours(9);
    let error = backup::in_directory(&broken, &lab.seal, &directory, &keep, later).unwrap_err();
    assert!(error.to_string().contains("missing"), "{error}");
    assert_eq!(backup::list(&directory).unwrap().len(), 3);
    let partial = fs::read_dir(&directory)
        .unwrap()
        .map(|it| it.unwrap().file_name());
    assert!(
        !partial
            .into_iter()
            .any(|it| it.to_string_lossy().ends_with(".partial"))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_service_makes_the_one_that_is_due_and_no_more() {
    let lab = Lab::new().await;
    let settings = Settings {
        to: lab.path("backups"),
        schedule: "every 24h".parse::<Schedule>().unwrap(),
        seal: lab.seal.clone(),
        keep: Keep::default(),
        include: vec![lab.path("key")],
    };
    for _ in 0..2 {
        let (status, seen) = watch::channel(backup::service::Status::default());
        let stop = CancellationToken::new();
        let run = backup::service::run(lab.sources.clone(), settings.clone(), status, stop.clone());
        let running = tokio::spawn(run);
        eventually("a backup is there", Deadline::secs(60), || {
            let seen = seen.borrow();
            seen.last.is_some() && !seen.running
        });
        stop.cancel();
        running.await.unwrap();
        assert_eq!(seen.borrow().failure, None);
        let all = backup::list(&settings.to).unwrap();
        assert_eq!(all.len(), 1);
        let manifest = lab.verify(&all[0].path).unwrap().manifest;
        assert_eq!(manifest.settings.len(), 2);
    }
}
