//! `sallyport backup` on a running control plane; age's own program opens what it writes.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sallyport_testkit::{Finished, Postgres, Program, eventually, foreign};
use serde_json::json;

use crate::lab::{Control, has_all, sallyport, soon, write};

/// The directory of a test, with a key in it.
struct Lab {
    temp: tempfile::TempDir,
    recipient: String,
}

impl Lab {
    #[track_caller]
    fn new() -> Lab {
        let temp = tempfile::tempdir().unwrap();
        let made = backup(temp.path(), &["key", "--out", "backup.key"]).success();
        let recipient = made.stdout.lines().next().unwrap().to_owned();
        assert!(recipient.starts_with("age1"), "{recipient}");
        Lab { temp, recipient }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    #[track_caller]
    fn run(&self, args: &[&str]) -> Finished {
        backup(self.temp.path(), args)
    }

    #[track_caller]
    fn create(&self, control: &Control, out: &str) -> Finished {
        let data = control.home();
        let data = data.to_str().unwrap();
        self.run(&[
            "create",
            "--data",
            data,
            "--out",
            out,
            "--recipient",
            &self.recipient,
        ])
    }

    /// Starts a control plane in a directory of the test.
    #[track_caller]
    fn control(&self, name: &str) -> Control {
        fs::create_dir_all(self.path(name)).unwrap();
        Control::start_in(&self.path(name))
    }

    /// Restores to a directory and starts a control plane there.
    #[track_caller]
    fn restored(&self, file: &str, name: &str) -> Control {
        let data = self.path(name).join("control");
        let data = data.to_str().unwrap();
        let args = ["restore", file, "--data", data, "--identity", "backup.key"];
        has_all(
            &self.run(&args).success().stdout,
            &["restored", "entities", name],
        );
        self.control(name)
    }
}

#[track_caller]
fn backup(dir: &Path, args: &[&str]) -> Finished {
    sallyport().arg("backup").args(args).dir(dir).run(soon())
}

fn service(at: usize) -> (String, serde_json::Value) {
    let body = json!({"host": "up.example", "tags": ["größe"], "retries": at});
    (format!("services/s-{at}"), body)
}

#[test]
fn a_running_control_plane_is_backed_up_proven_and_restored() {
    let lab = Lab::new();
    let control = lab.control("first");
    for at in 0..20 {
        let (path, body) = service(at);
        control.put(&path, &body);
    }
    let id = control.id.clone();
    std::thread::scope(|scope| {
        // it is written to meanwhile
        let writer = scope.spawn(|| {
            for at in 20..120 {
                let (path, body) = service(at);
                control.put(&path, &body);
            }
        });
        let made = lab.create(&control, "b.age").success();
        has_all(&made.stdout, &["b.age: ", "rows", "files", "KiB"]);
        writer.join().unwrap();
    });
    let verified = lab
        .run(&["verify", "b.age", "--identity", "backup.key"])
        .success();
    has_all(
        &verified.stdout,
        &["can be restored", "made at 20", "version"],
    );
    let token = control.token().to_owned();
    drop(control);

    let again = lab.restored("b.age", "second");
    assert_eq!(again.id, id);
    assert_eq!(again.token(), token, "the token is the old one");
    for at in 0..20 {
        let (path, body) = service(at);
        let there = again.core("GET", &path, &serde_json::Value::Null);
        assert_eq!(there.json()["tags"], body["tags"], "{}", there.text());
    }
    let revision = |control: &Control| {
        let path = format!("/v2/control-planes/{}/versions", control.id);
        let all = control.api("GET", &path, &serde_json::Value::Null).json();
        all["data"][0]["version"].as_u64().unwrap_or_default()
    };
    let before = revision(&again);
    assert!(before >= 20, "{before}");
    let (path, body) = service(500);
    again.put(&path, &body);
    assert_eq!(revision(&again), before + 1);
    let home = again.home();
    let audit = ["audit", "verify", "--data", home.to_str().unwrap()];
    has_all(
        &sallyport().args(audit).run(soon()).success().stdout,
        &["is intact"],
    );
}

#[test]
fn ages_own_program_opens_a_backup() {
    let Some(age) = foreign("age", "Debian package age") else {
        return;
    };
    let lab = Lab::new();
    let control = lab.control("first");
    let (path, body) = service(1);
    control.put(&path, &body);
    lab.create(&control, "b.age").success();
    let args = ["--decrypt", "-i", "backup.key", "-o", "b.tar.gz", "b.age"];
    Program::new(&age)
        .args(args)
        .dir(lab.temp.path())
        .run(soon())
        .success();
    let untar = ["--extract", "--gzip", "--file", "b.tar.gz"];
    Program::new("tar")
        .args(untar)
        .dir(lab.temp.path())
        .run(soon())
        .success();
    let read = |name: &str| fs::read_to_string(lab.path(name)).unwrap();
    has_all(
        &read("database/entity/000001.jsonl"),
        &["up.example", "größe"],
    );
    has_all(
        &read("manifest.json"),
        &["data/ca.key", "data/audit.db", "sha256"],
    );
    assert_eq!(read("data/token").trim(), control.token());

    // and what age encrypts anew for its own key is restored here
    let Some(keygen) = foreign("age-keygen", "Debian package age") else {
        return;
    };
    let made = Program::new(keygen)
        .args(["-o", "own.key"])
        .dir(lab.temp.path())
        .run(soon());
    let text = format!("{}{}", made.success().stderr, read("own.key"));
    let recipient = text
        .split_whitespace()
        .find(|word| word.starts_with("age1"))
        .unwrap();
    let args = ["--encrypt", "-r", recipient, "-o", "own.age", "b.tar.gz"];
    Program::new(&age)
        .args(args)
        .dir(lab.temp.path())
        .run(soon())
        .success();
    lab.run(&["verify", "own.age", "--identity", "own.key"])
        .success();
}

#[test]
fn what_is_wrong_is_said_with_the_way_out() {
    let lab = Lab::new();
    let refused = |args: &[&str], words: &[&str]| {
        let done = lab.run(args);
        assert!(!done.status.success(), "{args:?}: {}", done.stdout);
        has_all(&done.stderr, words);
    };
    refused(&["key", "--out", "backup.key"], &["backup.key"]);
    let to = ["create", "--data", "nowhere", "--out", "b.age"];
    refused(&to, &["for whom", "recipients"]);
    let with = [&to[..], &["--recipient", "age1xyz"]].concat();
    refused(
        &with,
        &["\"age1xyz\" is no recipient", "sallyport backup key"],
    );
    let with = [&to[..], &["--recipient", &lab.recipient]].concat();
    refused(&with, &["nowhere", "--data names it"]);
    let without = ["create", "--data", "nowhere", "--recipient", &lab.recipient];
    refused(&without, &["--to", "--out"]);
    write(&lab.path("b.age"), "no backup");
    refused(&["verify", "b.age"], &["--identity FILE"]);
    refused(
        &["verify", "b.age", "--identity", "backup.key"],
        &["this is no backup"],
    );
    refused(
        &["verify", "missing", "--identity", "backup.key"],
        &["missing", "No such file"],
    );
    fs::create_dir(lab.path("empty")).unwrap();
    let listed = lab.run(&["list", "empty"]).success();
    has_all(&listed.stdout, &["no backups"]);
    refused(&["list", "nowhere"], &["nowhere"]);
}

#[test]
fn a_killed_backup_leaves_no_half_file_under_its_name() {
    let lab = Lab::new();
    let mut control = lab.control("first");
    for at in 0..50 {
        let (path, body) = service(at);
        control.put(&path, &body);
    }
    let home = control.home();
    control.kill9();
    let mut whole = 0;
    for round in 0..12_u64 {
        let args = [
            "backup",
            "create",
            "--to",
            "backups",
            "--recipient",
            &lab.recipient,
        ];
        let launch = sallyport()
            .args(args)
            .args(["--data", home.to_str().unwrap()]);
        let mut program = launch.dir(lab.temp.path()).start();
        std::thread::sleep(Duration::from_millis(round * round * 4));
        program.kill9();
        let there = fs::read_dir(lab.path("backups"))
            .into_iter()
            .flatten()
            .flatten();
        let names = there.map(|it| it.file_name().into_string().unwrap());
        for name in names.filter(|name| name.starts_with("sallyport-")) {
            let path = format!("backups/{name}");
            lab.run(&["verify", &path, "--identity", "backup.key"])
                .success();
            fs::remove_file(lab.path(&path)).unwrap();
            whole += 1;
        }
    }
    // the next one clears away what was left, and succeeds
    let args = ["create", "--to", "backups", "--recipient", &lab.recipient];
    let args = [&args[..], &["--data", home.to_str().unwrap()]].concat();
    lab.run(&args).success();
    let left = fs::read_dir(lab.path("backups")).unwrap().flatten();
    let left: Vec<String> = left
        .map(|it| it.file_name().into_string().unwrap())
        .collect();
    assert!(
        !left.iter().any(|name| name.ends_with(".partial")),
        "{left:?} after {whole}"
    );
}

#[test]
fn backups_are_made_on_a_schedule_and_listed() {
    let lab = Lab::new();
    let settings = format!(
        "[backup]\nto = \"backups\"\nschedule = \"0 3 * * *\"\nrecipients = [\"{}\"]\n",
        lab.recipient
    );
    write(&lab.path("backup.toml"), settings.replace("0 3", "0 33"));
    let control = || {
        let args = [
            "control",
            "--listen",
            "127.0.0.1:0",
            "--backup",
            "backup.toml",
        ];
        sallyport()
            .args(args)
            .args(["--data", "data"])
            .dir(lab.temp.path())
    };
    let refused = control().run(soon());
    assert!(!refused.status.success());
    has_all(
        &refused.stderr,
        &["backup.toml", "is no schedule", "every 6h"],
    );
    write(&lab.path("backup.toml"), settings);
    let mut running = control().start();
    running.wait_for_line("backup made", soon());
    running.terminate();
    running.wait(soon());
    let listed = lab.run(&["list", "backups"]).success();
    assert_eq!(listed.stdout.lines().count(), 2, "{}", listed.stdout);
    has_all(&listed.stdout, &["MADE AT", "sallyport-20", ".tar.gz.age"]);
    let name = listed.stdout.split_whitespace().last().unwrap().to_owned();
    let data = lab.path("again");
    let file = format!("backups/{name}");
    let args = [
        "restore",
        &file,
        "--data",
        data.to_str().unwrap(),
        "--identity",
        "backup.key",
    ];
    let restored = lab.run(&args).success();
    has_all(&restored.stdout, &["settings are in", "backup.toml was"]);
    assert!(data.join("restored-settings/0-backup.toml").exists());
}

#[test]
fn a_backup_moves_a_control_plane_to_postgresql() {
    let Some(server) = Postgres::shared() else {
        return;
    };
    let lab = Lab::new();
    let control = lab.control("first");
    let (path, body) = service(1);
    control.put(&path, &body);
    let id = control.id.clone();
    lab.create(&control, "b.age").success();
    drop(control);
    let url = server.database();
    let data = lab.path("moved");
    let args = [
        "restore",
        "b.age",
        "--data",
        data.to_str().unwrap(),
        "--identity",
        "backup.key",
    ];
    let args = [&args[..], &["--database", &url]].concat();
    lab.run(&args).success();
    let launch = sallyport()
        .args([
            "control",
            "--listen",
            "127.0.0.1:0",
            "--data",
            data.to_str().unwrap(),
        ])
        .env("SALLYPORT_DATABASE", &url);
    let running = launch.start();
    running.wait_for_line(&format!("ready control_plane={id}"), soon());
    let name = url.rsplit('/').next().unwrap();
    eventually("the service is in the database", soon(), || {
        let found = server.psql(
            name,
            "SELECT count(*) FROM entity WHERE body LIKE '%up.example%'",
        );
        found.trim() == "1"
    });
}
