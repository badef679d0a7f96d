//! Port 10121: commands that a node takes from keys it knows, and from nobody else.

use std::fs;
use std::path::PathBuf;

use sallyport_testkit::http::request;
use sallyport_testkit::{Finished, Launch, Program, eventually, foreign, free_port};
use serde_json::Value;

use crate::lab::{has_all, sallyport, soon, write};

/// A control plane that takes commands, and an administrator with a key.
struct Lab {
    temp: tempfile::TempDir,
    node: Program,
    /// `127.0.0.1:PORT`.
    target: String,
    fingerprint: String,
    plain: u16,
}

impl Lab {
    #[track_caller]
    fn new() -> Lab {
        Lab::run_by(tempfile::tempdir().unwrap(), sallyport())
    }

    /// One whose node is started by this command, to which the arguments are added.
    #[track_caller]
    fn run_by(temp: tempfile::TempDir, command: Launch) -> Lab {
        let recipient = sallyport()
            .args(["backup", "key", "--out", "backup.key"])
            .dir(temp.path())
            .run(soon())
            .success();
        let recipient = recipient.stdout.lines().next().unwrap().to_owned();
        // It is not due for a while: the test asks for its own.
        let settings = format!(
            "[backup]\nto = \"scheduled\"\nschedule = \"every 8000h\"\nrecipients = [\"{recipient}\"]\n\
             # admin_password = hunter2\n"
        );
        write(&temp.path().join("backup.toml"), settings);
        let plain = free_port();
        let args = ["control", "--data", "data", "--listen", "127.0.0.1:0"];
        let node = command
            .args(args)
            .args(["--listen-plain", &format!("127.0.0.1:{plain}")])
            .args(["--cli-listen", "127.0.0.1:0", "--backup", "backup.toml"])
            .dir(temp.path())
            .start();
        let started = r"command line started address=(\S+) fingerprint=([0-9a-f]{64})";
        let started = node.wait_for_line(started, soon());
        node.wait_for_line("backup made", soon());
        let lab = Lab {
            temp,
            node,
            target: started.groups[0].clone(),
            fingerprint: started.groups[1].clone(),
            plain,
        };
        let made = lab
            .run(&["keys", "create", "--name", "ann@laptop"])
            .success();
        has_all(&made.stdout, &["sallyport-cli-key ", " ann@laptop"]);
        lab
    }

    fn path(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    /// Runs the executable with the administrator's keys.
    #[track_caller]
    fn run(&self, args: &[&str]) -> Finished {
        let launch = sallyport()
            .args(args)
            .env("SALLYPORT_KEYS", self.path("keys"));
        launch.dir(self.temp.path()).run(soon())
    }

    /// Lets the administrator's key in.
    #[track_caller]
    fn allow(&self) {
        let public = self.run(&["keys", "show"]).success().stdout;
        let args = ["keys", "allow", public.trim(), "--data", "data"];
        has_all(
            &self.run(&args).success().stdout,
            &["ann@laptop may give commands"],
        );
    }

    /// Gives a command to the node, which is known from then on.
    #[track_caller]
    fn give(&self, command: &[&str]) -> Finished {
        let target = ["--target", &self.target, "--accept-new"];
        self.run(&[&target, command].concat())
    }

    #[track_caller]
    fn json(&self, command: &[&str]) -> Value {
        let target = ["--target", &self.target, "--accept-new", "--output", "json"];
        let done = self.run(&[&target, command].concat());
        serde_json::from_str(&done.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}{}", done.stdout, done.stderr))
    }

    #[track_caller]
    fn refused(&self, command: &[&str], words: &[&str]) {
        let done = self.give(command);
        assert!(!done.status.success(), "{command:?}: {}", done.stdout);
        has_all(&done.stderr, words);
    }

    /// Every record of the audit log.
    #[track_caller]
    fn audit(&self) -> String {
        let args = ["audit", "export", "--data", "data"];
        self.run(&args).success().stdout
    }
}

#[test]
fn a_key_gives_commands_once_it_is_allowed_and_until_it_is_revoked() {
    let lab = Lab::new();
    lab.refused(
        &["ping"],
        &[
            "does not know your key",
            "sallyport keys allow",
            "unknown_key",
        ],
    );
    lab.allow();
    let pong = lab.give(&["ping"]).success();
    assert_eq!(pong.stdout.trim(), "PONG");
    let pong = lab.json(&["ping"]);
    assert_eq!(
        pong,
        serde_json::json!({"message": "PONG", "arguments": {}})
    );
    let list = lab.give(&[]).success().stdout;
    has_all(
        &list,
        &[
            "ping",
            "status",
            "nslookup <host>",
            "test-port <host> <port>",
            "backup-retrieve",
            "re-ip",
        ],
    );
    let listed = lab
        .run(&["keys", "allowed", "--data", "data"])
        .success()
        .stdout;
    has_all(&listed, &["ann@laptop", &lab.fingerprint]);

    let status = lab.json(&["status"]);
    assert_eq!(status["arguments"]["role"], "control");
    assert_eq!(status["arguments"]["database"]["engine"], "sqlite");
    has_all(
        &lab.give(&["status"]).success().stdout,
        &["running", "uptime_s", "database.engine"],
    );
    has_all(
        &lab.give(&["logs", "50"]).success().stdout,
        &["control plane started"],
    );
    let found = lab.json(&["nslookup", "localhost"]);
    assert!(
        found["arguments"]["addresses"]
            .to_string()
            .contains("127.0.0.1"),
        "{found}"
    );

    lab.refused(
        &["pin"],
        &["has no command \"pin\"", "did you mean \"ping\"?", "status"],
    );
    lab.refused(
        &["test-port", "x"],
        &["port is missing", "test-port <host> <port>"],
    );
    lab.refused(&["logs", "many"], &["lines is 1 to 2000"]);

    let revoked = lab.run(&["keys", "revoke", "ann@laptop", "--data", "data"]);
    revoked.success();
    lab.refused(&["ping"], &["does not know your key"]);
    has_all(
        &lab.audit(),
        &[
            "appliance_cli/status",
            "COMMAND",
            "ann@laptop",
            "host=localhost",
            "\"request\":\"appliance_cli\"",
        ],
    );
}

#[test]
fn a_port_is_tried_from_the_node() {
    let lab = Lab::new();
    lab.allow();
    let open = lab.json(&["test-port", "127.0.0.1", &lab.plain.to_string()]);
    assert_eq!(open["arguments"]["open"], true, "{open}");
    let closed = free_port().to_string();
    let closed = lab.json(&["test-port", "127.0.0.1", &closed]);
    assert_eq!(closed["arguments"]["open"], false, "{closed}");
    assert_eq!(closed["error"], "unreachable", "{closed}");
    lab.refused(&["test-port", "127.0.0.1", "0"], &["no port (1 to 65535)"]);
}

#[test]
fn a_node_that_is_another_one_gets_nothing() {
    let lab = Lab::new();
    lab.allow();
    let ping = ["--target", &lab.target, "ping"];
    let unknown = lab.run(&ping);
    assert!(!unknown.status.success());
    has_all(
        &unknown.stderr,
        &["is not known yet", &lab.fingerprint, "--accept-new"],
    );
    let wrong = "0".repeat(64);
    let other = lab.run(&["--target", &lab.target, "--fingerprint", &wrong, "ping"]);
    has_all(
        &other.stderr,
        &["is not the node you want", &lab.fingerprint],
    );
    lab.run(&[
        "--target",
        &lab.target,
        "--fingerprint",
        &lab.fingerprint,
        "ping",
    ])
    .success();
    lab.run(&ping).success();
    // a node that was known and shows another certificate
    let known = lab.path("keys/known_nodes");
    write(
        &known,
        fs::read_to_string(&known)
            .unwrap()
            .replace(&lab.fingerprint, &wrong),
    );
    let changed = lab.run(&ping);
    assert!(!changed.status.success());
    has_all(
        &changed.stderr,
        &["is not the node that you know", "--fingerprint"],
    );
    let nobody = format!("127.0.0.1:{}", free_port());
    let nobody = lab.run(&["--target", &nobody, "ping"]);
    assert!(!nobody.status.success());
    let plain = format!("127.0.0.1:{}", lab.plain);
    let plain = lab.run(&["--target", &plain, "ping"]);
    has_all(&plain.stderr, &["does not speak as a node does"]);
    let none = sallyport()
        .args(ping)
        .env("SALLYPORT_KEYS", lab.path("none"))
        .run(soon());
    has_all(&none.stderr, &["sallyport keys create"]);
}

#[test]
fn a_backup_is_made_fetched_and_removed_from_afar() {
    let mut lab = Lab::new();
    lab.allow();
    let directory = lab.path("kept");
    let directory = directory.to_str().unwrap();
    lab.refused(&["set-as-backup", "relative"], &["absolute path"]);
    lab.give(&["set-as-backup", directory]).success();
    has_all(&lab.give(&["backup"]).success().stdout, &["in progress"]);
    let found = || {
        let status = lab.json(&["backup-status"]);
        (status["message"] == "found").then_some(status)
    };
    eventually("the backup is found", soon(), || found().is_some());
    let status = found().unwrap();
    let name = status["arguments"]["name"].as_str().unwrap().to_owned();
    let bytes = status["arguments"]["bytes"].as_u64().unwrap();
    lab.refused(&["set-as-backup", directory], &["already", "force"]);

    let fetched = lab.json(&["backup-retrieve"]);
    assert_eq!(
        fetched["arguments"]["sha256"],
        status["arguments"]["sha256"]
    );
    assert_eq!(fs::metadata(lab.path(&name)).unwrap().len(), bytes);
    let verified = ["backup", "verify", &name, "--identity", "backup.key"];
    has_all(&lab.run(&verified).success().stdout, &["can be restored"]);
    lab.refused(&["backup-retrieve"], &["is there already"]);

    // an attempt that was interrupted goes on where it was
    let whole = fs::read(lab.path(&name)).unwrap();
    fs::remove_file(lab.path(&name)).unwrap();
    write(
        &lab.path(&format!("{name}.partial")),
        &whole[..whole.len() / 2],
    );
    _ = fs::remove_file(lab.path("backup-retrieve.partial"));
    lab.give(&["backup-retrieve", &name]).success();
    assert_eq!(fs::read(lab.path(&name)).unwrap(), whole);
    // and one whose beginning is not the node's is noticed
    fs::remove_file(lab.path(&name)).unwrap();
    write(&lab.path(&format!("{name}.partial")), b"something else");
    lab.refused(
        &["backup-retrieve", &name],
        &["is not the file of the node", "try again"],
    );
    let out = [
        "--target",
        &lab.target,
        "--out",
        "mine.age",
        "backup-retrieve",
    ];
    lab.run(&out).success();
    assert_eq!(fs::read(lab.path("mine.age")).unwrap(), whole);
    // on a terminal a bar shows how far it is
    if let Some(script) = foreign("script", "Debian package bsdutils") {
        let command = format!(
            "{} --target {} --out seen.age backup-retrieve",
            env!("CARGO_BIN_EXE_sallyport"),
            lab.target
        );
        let seen = Program::new(script)
            .args(["-q", "-e", "-c", &command, "/dev/null"])
            .env("SALLYPORT_KEYS", lab.path("keys"))
            .dir(lab.temp.path())
            .run(soon());
        has_all(
            &seen.success().stdout,
            &["[##############################] 100 %", "MiB"],
        );
        assert_eq!(fs::read(lab.path("seen.age")).unwrap(), whole);
    }

    lab.refused(&["backup-delete", "../../etc/passwd"], &["no backup"]);
    lab.give(&["backup-delete", &name]).success();
    lab.refused(&["backup-status"], &["there is no backup"]);
    write(&lab.path("pass"), "a secret of the test\n");
    has_all(
        &lab.give(&["backup", "passphrase=@pass"]).success().stdout,
        &["in progress"],
    );
    eventually("the backup is found", soon(), || found().is_some());
    lab.give(&["backup-retrieve"]).success();
    let name = found().unwrap()["arguments"]["name"]
        .as_str()
        .unwrap()
        .to_owned();
    let verified = ["backup", "verify", &name, "--passphrase-file", "pass"];
    lab.run(&verified).success();
    let audit = lab.audit();
    has_all(&audit, &["appliance_cli/backup-retrieve", "passphrase=***"]);
    assert!(!audit.contains("a secret of the test"));
    lab.node.terminate();
    lab.node.wait(soon());
}

#[test]
fn names_of_nodes_get_other_addresses_in_the_hosts_file() {
    let Some(unshare) = foreign("unshare", "Debian package util-linux") else {
        return;
    };
    let allowed = Program::new(&unshare).args(["-m", "true"]).run(soon());
    if !allowed.status.success() {
        _ = foreign("the-right-to-make-mount-namespaces", "root");
        return;
    }
    // In a mount namespace of its own, so that the machine's file stays what it is.
    let temp = tempfile::tempdir().unwrap();
    let hosts = temp.path().join("hosts");
    let before = "127.0.0.1 localhost\n10.0.0.1 a0-1 # first\n10.0.0.2 a0-2 db\n";
    write(&hosts, before);
    let script = "mount --bind \"$0\" /etc/hosts; exec \"$@\"";
    let node = Program::new(unshare)
        .args(["-m", "sh", "-ec", script, hosts.to_str().unwrap()])
        .arg(env!("CARGO_BIN_EXE_sallyport"));
    let lab = Lab::run_by(temp, node);
    lab.allow();
    lab.refused(&["re-ip", "a0-1=10.0.0.9"], &["NAME:ADDRESS"]);
    assert_eq!(fs::read_to_string(&hosts).unwrap(), before);
    let told = lab.give(&["re-ip", "a0-1:10.9.0.1,a0-2:fd00::2"]).success();
    has_all(&told.stdout, &["a0-1 is 10.9.0.1", "a0-2 is fd00::2"]);
    assert_eq!(
        fs::read_to_string(&hosts).unwrap(),
        "127.0.0.1 localhost\n10.0.0.2 db\n10.9.0.1 a0-1\nfd00::2 a0-2\n"
    );
    // The node itself goes by it.
    let found = lab.json(&["nslookup", "a0-1"]);
    assert!(
        found["arguments"].to_string().contains("10.9.0.1"),
        "{found}"
    );
    has_all(&lab.audit(), &["appliance_cli/re-ip", "addresses=a0-1"]);
}

#[test]
fn diagnostics_have_no_secrets() {
    let lab = Lab::new();
    lab.allow();
    let fetched = lab.json(&["diagnostics"]);
    let file = fetched["arguments"]["file"].as_str().unwrap().to_owned();
    let args = [
        "--extract",
        "--gzip",
        "--file",
        &file,
        "--one-top-level=bundle",
    ];
    Program::new("tar")
        .args(args)
        .dir(lab.temp.path())
        .run(soon())
        .success();
    let read = |name: &str| fs::read_to_string(lab.path("bundle").join(name)).unwrap();
    has_all(&read("log.txt"), &["control plane started"]);
    has_all(&read("status.json"), &["uptime_s"]);
    let configuration = read("configuration/0-backup.toml");
    has_all(&configuration, &["schedule", "***"]);
    assert!(!configuration.contains("hunter2"));
    has_all(&read("data.txt"), &["store.sqlite", "0600"]);
    let token = fs::read_to_string(lab.path("data/token")).unwrap();
    let all = Program::new("grep")
        .args(["-r", token.trim(), "bundle"])
        .dir(lab.temp.path());
    assert!(
        !all.run(soon()).status.success(),
        "the token is in the bundle"
    );
    // it still answers as before
    let healthy = request(
        "GET",
        format!("http://127.0.0.1:{}/v2/control-planes", lab.plain),
    );
    assert_eq!(healthy.send().unwrap().status, 401);
}
