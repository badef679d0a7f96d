//! The control plane's database: which one, what is said when it cannot be used, and what happens
//! to writes when processes, callers or disks fail.

use std::io::{Read, Write};
use std::net::TcpStream;

use sallyport_testkit::{Deadline, Echo, Postgres, SmallDisk, eventually, free_port};
use serde_json::{Value, json};

use crate::lab::{Control, Gateway, has_all, sallyport, soon};

/// Starts a control plane that must not start; what it says.
#[track_caller]
fn refused(url: &str) -> String {
    let done = sallyport()
        .args(["control", "--listen", "127.0.0.1:0"])
        .env("SALLYPORT_DATABASE", url)
        .run(soon());
    assert!(!done.status.success(), "{done:?}");
    assert!(!done.stderr.contains("a-secret"), "{}", done.stderr);
    done.stderr
}

#[test]
fn what_is_wrong_with_the_database_is_said() {
    let said = refused("mysql://me:a-secret@db/x");
    has_all(&said, &["address of the database is wrong", "postgres://"]);
    let nobody = free_port();
    let said = refused(&format!("postgres://me:a-secret@127.0.0.1:{nobody}/x"));
    has_all(&said, &["cannot reach the database x", "nothing listens"]);
    let Some(postgres) = Postgres::shared() else {
        return;
    };
    let url = postgres.database();
    let said = refused(&url.replace("of-the-tests", "that-is-wrong"));
    has_all(&said, &["refuses the log-in", "password authentication"]);
    let name = url.rsplit('/').next().unwrap();
    drop(Control::start_on(Some(url.clone())));
    postgres.psql(name, "UPDATE schema_version SET version = 4711");
    has_all(
        &refused(&url),
        &["schema version 4711", "start the newer build"],
    );
}

/// Two control planes on one database: what is written through one reaches the gateway of the
/// other, each has its own token, and one goes on when the other is killed.
#[test]
fn control_planes_share_a_database() {
    let Some(postgres) = Postgres::shared() else {
        return;
    };
    let url = postgres.database();
    let mut one = Control::start_on(Some(url.clone()));
    let two = Control::start_on(Some(url));
    assert_eq!(one.id, two.id, "both found the same control plane");
    let echo = Echo::start();
    let gateway = Gateway::start(&two);
    one.route_to("written-here", echo.port());
    gateway.wait_for("/written-here", 200, soon());
    one.kill9();
    two.route_to("written-there", echo.port());
    gateway.wait_for("/written-there", 200, soon());
    one.start_again();
    let services = one.core("GET", "services", &Value::Null).json();
    assert_eq!(services["data"].as_array().unwrap().len(), 2);
}

/// A caller who goes away in the middle of its request: either nothing of it is there or all.
#[track_caller]
fn callers_go_away(control: &Control) {
    for round in 0..20 {
        let name = format!("gone-{round}");
        let body = json!({"host": "gone.example", "tags": ["gone"]});
        let request = control.raw_put(&format!("services/{name}"), &body.to_string());
        // Cut inside the head, inside the body, and behind the last byte.
        let whole = request.len();
        let keep = [whole / 3, whole - 5, whole][round % 3];
        let mut stream = TcpStream::connect(("127.0.0.1", control.plain())).unwrap();
        stream.write_all(&request.as_bytes()[..keep]).unwrap();
        drop(stream);
        // The unsure caller sends it again, and that is right whatever became of the first.
        let path = format!("services/{name}");
        let answer = control.core("PUT", &path, &body);
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    // And whoever stays is served.
    control.put("services/stays", &json!({"host": "stays.example"}));
    let gone = control
        .core("GET", "services?tags=gone", &Value::Null)
        .json();
    let gone = gone["data"].as_array().unwrap();
    assert_eq!(gone.len(), 20);
    for service in gone {
        assert_eq!(service["host"], "gone.example");
    }
}

#[test]
fn a_caller_who_goes_away_leaves_nothing_half_done() {
    callers_go_away(&Control::start());
}

#[test]
fn a_caller_who_goes_away_leaves_nothing_half_done_on_postgres() {
    let Some(postgres) = Postgres::shared() else {
        return;
    };
    callers_go_away(&Control::start_on(Some(postgres.database())));
}

#[test]
fn a_full_disk_is_507_and_passes() {
    let Some(disk) = SmallDisk::of_megabytes(16) else {
        return;
    };
    let control = Control::start_in(disk.path());
    control.put("services/before", &json!({"host": "before.example"}));
    disk.fill(200_000);
    let tags: Vec<String> = (0..400).map(|at| format!("tag-{at:0>60}")).collect();
    let mut refused = None;
    for number in 0..200 {
        let body = json!({"host": "h.example", "tags": tags});
        let answer = control.core("PUT", &format!("services/s{number}"), &body);
        if answer.status != 200 {
            refused = Some(answer);
            break;
        }
    }
    let refused = refused.expect("the disk gets full");
    assert_eq!(refused.status, 507, "{}", refused.text());
    // the audit log is on the same disk
    has_all(&refused.text(), &["the disk of the ", " is full"]);
    let before = control.core("GET", "services/before", &Value::Null);
    assert_eq!(before.json()["host"], "before.example");
    disk.free();
    control.put("services/after", &json!({"host": "after.example"}));
}

/// The database away and back: 503 with a hint, then service again without a restart.
#[test]
fn a_database_that_is_away_is_503_and_passes() {
    let Some(mut postgres) = Postgres::custom(sallyport_testkit::PostgresSetup::default()) else {
        return;
    };
    let control = Control::start_on(Some(postgres.database()));
    let echo = Echo::start();
    let gateway = Gateway::start(&control);
    control.route_to("steady", echo.port());
    gateway.wait_for("/steady", 200, soon());
    postgres.kill9();
    let answer = control.core("GET", "services", &Value::Null);
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert_eq!(gateway.status_of("/steady"), 200, "gateways do not notice");
    postgres.start_again();
    eventually(
        "the control plane answers again",
        Deadline::secs(30),
        || control.core("GET", "services", &Value::Null).status == 200,
    );
    control.route_to("later", echo.port());
    gateway.wait_for("/later", 200, soon());
}

/// A past version as a prefix: decK dumps it like any other.
#[test]
fn deck_dumps_a_past_version() {
    let Some(_) = sallyport_testkit::foreign("deck", "Debian package deck") else {
        return;
    };
    let control = Control::start();
    control.put("services/one", &json!({"host": "old.example"}));
    control.put("services/one", &json!({"host": "new.example"}));
    let dir = tempfile::tempdir().unwrap();
    let dump = control.deck_at(1, dir.path(), &["dump", "-o", "old.yml"]);
    dump.unwrap().success();
    let mut old = String::new();
    let mut file = std::fs::File::open(dir.path().join("old.yml")).unwrap();
    file.read_to_string(&mut old).unwrap();
    has_all(&old, &["old.example"]);
    // And what it dumped is a way back.
    let sync = control.deck(dir.path(), &["sync", "-s", "old.yml"]);
    let sync = sync.unwrap().success();
    has_all(&sync.stdout, &["Updated: 1"]);
    let now = control.core("GET", "services/one", &Value::Null).json();
    assert_eq!(now["host"], "old.example");
}
