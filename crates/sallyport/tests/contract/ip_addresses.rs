use std::path::Path;

use sallyport_testkit::http::{Response, get};
use sallyport_testkit::{Deadline, Finished, Program, foreign, free_port};
use serde_json::Value;

use crate::{check_refused, file, run, sallyport};

const SOURCES: &str = r#"
[us]
ingress.control_planes = ["192.0.2.10"]
ingress.config_sync = ["192.0.2.11", "198.51.100.11"]
egress = ["192.0.2.20"]
"#;
const HOST: &str = "ip-addresses.origin.sallyport.localhost";

/// A control plane that publishes `sources`.
struct Publisher {
    _program: Program,
    port: u16,
    plain: u16,
}

impl Publisher {
    #[track_caller]
    fn start(dir: &tempfile::TempDir, sources: &str) -> Publisher {
        Publisher::start_on(dir, sources, free_port())
    }

    #[track_caller]
    fn start_on(dir: &tempfile::TempDir, sources: &str, port: u16) -> Publisher {
        let plain = free_port();
        let sources = file(dir, "addresses.toml", sources);
        let home = dir.path().join("control");
        let program = sallyport(&["control", "--ip-addresses", &sources, "--data"])
            .arg(&home)
            .args(["--listen", &format!("127.0.0.1:{port}")])
            .args(["--listen-plain", &format!("127.0.0.1:{plain}")])
            .start();
        program.wait_for_line("ready control_plane=", Deadline::secs(60));
        Publisher {
            _program: program,
            port,
            plain,
        }
    }

    #[track_caller]
    fn get(&self, path: &str, header: (&str, &str)) -> Response {
        let url = format!("http://127.0.0.1:{}{path}", self.plain);
        get(url)
            .header("Host", HOST)
            .header(header.0, header.1)
            .send()
            .unwrap()
    }
}

/// `ports watch` on the publisher, once.
fn watch(dir: &tempfile::TempDir, publisher: &Publisher, more: &[&str]) -> String {
    try_watch(dir, publisher, more).success().stdout
}

fn try_watch(dir: &tempfile::TempDir, publisher: &Publisher, more: &[&str]) -> Finished {
    let address = format!("127.0.0.1:{}", publisher.port);
    let [state, ca] = ["state.json", "control/ca.crt"].map(|it| dir.path().join(it));
    let url = format!("https://{HOST}/ip-addresses.json");
    let args = [
        "ports",
        "watch",
        &url,
        "--once",
        "--address",
        &address,
        "--state",
    ];
    let rest = [state.to_str().unwrap(), "--ca", ca.to_str().unwrap()];
    run(&[&args[..], &rest, more].concat())
}

#[test]
fn a_list_is_published_watched_and_told_as_rules() {
    let dir = tempfile::tempdir().unwrap();
    let publisher = Publisher::start(&dir, SOURCES);
    let none = ("Accept", "*/*");
    let answer = publisher.get("/ip-addresses.json", none);
    assert_eq!(
        (answer.status, answer.headers.get("content-type")),
        (200, Some("application/json"))
    );
    let list = answer.json();
    assert_eq!(
        list["regions"]["us"]["*.us.cp0.sallyport.localhost"][1],
        "198.51.100.11"
    );
    assert_eq!(list["ingressIPs"]["us"].as_array().unwrap().len(), 3);
    let date = list["updateDate"].as_str().unwrap().to_owned();
    let etag = answer.headers.get("etag").unwrap().to_owned();
    assert_eq!(
        publisher
            .get("/ip-addresses.json", ("If-None-Match", &etag))
            .status,
        304
    );
    assert_eq!(publisher.get("/elsewhere", none).status, 404);
    assert_eq!(publisher.get("/changes.json?since=x", none).status, 400);
    let changes = publisher
        .get(&format!("/changes.json?since={date}"), none)
        .json();
    assert_eq!(changes["versions"], Value::Array(Vec::new()));
    // Under any other name there is the API, which wants a token.
    let url = format!("http://127.0.0.1:{}/ip-addresses.json", publisher.plain);
    assert_eq!(get(url).send().unwrap().status, 401);

    assert_eq!(
        watch(&dir, &publisher, &[]),
        "+ out to 192.0.2.10 443/tcp (us ingress)\n+ out to 192.0.2.11 443/tcp (us ingress)\n\
         + out to 198.51.100.11 443/tcp (us ingress)\n+ in  from 192.0.2.20 (us egress)\n"
    );
    assert_eq!(watch(&dir, &publisher, &[]), "");
    drop(publisher);
    let publisher = Publisher::start(&dir, &SOURCES.replace("192.0.2.11", "192.0.2.12"));
    assert_eq!(
        watch(&dir, &publisher, &["--geo", "us"]),
        "- out to 192.0.2.11 443/tcp (us ingress)\n+ out to 192.0.2.12 443/tcp (us ingress)\n"
    );
    let changes = publisher
        .get(&format!("/changes.json?since={date}"), none)
        .json();
    assert_eq!(
        changes["versions"][0]["changes"][0]["added"][0],
        "192.0.2.12"
    );
    // With the publisher's key the signature is checked; with another the list is not believed.
    let key = dir.path().join("key.pem");
    std::fs::write(&key, publisher.get("/ip-addresses.pem", none).body).unwrap();
    let given = ["--public-key", key.to_str().unwrap()];
    assert_eq!(watch(&dir, &publisher, &given), "");
    let other = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    std::fs::write(&key, other.public_key_pem()).unwrap();
    let done = try_watch(&dir, &publisher, &given);
    assert_eq!(done.status.code(), Some(1), "{done:?}");
    assert!(done.stderr.contains("is not believed"), "{done:?}");
    check_signature(&dir, &publisher);
    check_feed(&dir, &publisher);
}

/// openssl believes the signature, and does not believe it of other bytes.
#[track_caller]
fn check_signature(dir: &tempfile::TempDir, publisher: &Publisher) {
    let Some(openssl) = foreign("openssl", "Debian package openssl") else {
        return;
    };
    let none = ("Accept", "*/*");
    let store = |name: &str, path: &str| {
        std::fs::write(dir.path().join(name), publisher.get(path, none).body).unwrap();
    };
    store("list", "/ip-addresses.json");
    store("signature", "/ip-addresses.json.sig");
    store("key.pem", "/ip-addresses.pem");
    let verify = || {
        let args = "pkeyutl -verify -pubin -inkey key.pem -rawin -in list -sigfile signature";
        let done = Program::new(&openssl).args(args.split(' ')).dir(dir.path());
        done.run(Deadline::secs(30))
    };
    verify().success();
    std::fs::write(dir.path().join("list"), "{}").unwrap();
    assert!(!verify().status.success());
}

/// feedparser reads the feed without a complaint.
#[track_caller]
fn check_feed(dir: &tempfile::TempDir, publisher: &Publisher) {
    let feed = publisher.get("/rss", ("Accept", "*/*"));
    assert_eq!(
        feed.headers.get("content-type"),
        Some("application/rss+xml; charset=utf-8")
    );
    std::fs::write(dir.path().join("rss.xml"), &feed.body).unwrap();
    let Some(python) = foreign("python3", "Debian package python3") else {
        return;
    };
    if !has_feedparser(&python) {
        // Says so, and fails where skipping is forbidden.
        assert_eq!(foreign("python3-feedparser", "feedparser of PyPI"), None);
        return;
    }
    let script = "import feedparser, json; f = feedparser.parse('rss.xml'); print(json.dumps([\
                  bool(f.bozo), f.version, [[e.title, e.id, e.description, list(e.published_parsed)[:3]] \
                  for e in f.entries]]))";
    let done = Program::new(&python)
        .args(["-c", script])
        .dir(dir.path())
        .run(Deadline::secs(60));
    let read: Value = serde_json::from_str(&done.success().stdout).unwrap();
    assert_eq!(
        (&read[0], &read[1]),
        (&Value::Bool(false), &"rss20".into()),
        "{read}"
    );
    assert_eq!(read[2].as_array().unwrap().len(), 2, "{read}");
    assert_eq!(read[2][0][0], "1 addresses added, 1 removed");
    let text = read[2][0][2].as_str().unwrap();
    for part in [
        "us ingress: added 192.0.2.12.",
        "removed 192.0.2.11.",
        "Valid from ",
    ] {
        assert!(text.contains(part), "{text}");
    }
    assert_ne!(
        read[2][0][1], read[2][1][1],
        "each item has an id of its own"
    );
    assert!(read[2][0][3][0].as_i64().unwrap() >= 2026, "{read}");
    check_feed_by_schema(dir, &python);
}

/// rss-parser, whose models refuse a feed that lacks what RSS 2.0 demands, takes it.
#[track_caller]
fn check_feed_by_schema(dir: &tempfile::TempDir, python: &Path) {
    let run = |script: &str| {
        Program::new(python)
            .args(["-c", script])
            .dir(dir.path())
            .run(Deadline::secs(60))
    };
    if !run("import rss_parser").status.success() {
        // Says so, and fails where skipping is forbidden.
        assert_eq!(foreign("python3-rss-parser", "rss-parser of PyPI"), None);
        return;
    }
    let script = |change: &str| {
        format!(
            "import json\nfrom rss_parser import RSSParser\ntext = open('rss.xml').read(){change}\n\
             feed = RSSParser.parse(text)\nchannel = feed.channel.content\n\
             print(json.dumps([feed.version.content, channel.title.content, channel.link.content, \
             channel.description.content, [[i.content.title.content, i.content.guid.content, \
             i.content.guid.attributes] for i in channel.items]]))"
        )
    };
    let read: Value = serde_json::from_str(&run(&script("")).success().stdout).unwrap();
    assert_eq!(read[0], "2.0", "{read}");
    assert_eq!(read[4].as_array().map(Vec::len), Some(2), "{read}");
    assert_eq!(read[4][0][0], "1 addresses added, 1 removed");
    // The judge does refuse: a channel without its description.
    let without = ".replace('<description>', '<x>', 1).replace('</description>', '</x>', 1)";
    assert!(!run(&script(without)).status.success());
}

fn has_feedparser(python: &Path) -> bool {
    let done = Program::new(python)
        .args(["-c", "import feedparser"])
        .run(Deadline::secs(60));
    done.status.success()
}

#[test]
fn a_watcher_outlives_the_publisher_and_tells_what_changed() {
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let publisher = Publisher::start_on(&dir, SOURCES, port);
    let url = format!("https://{HOST}/ip-addresses.json");
    let address = format!("127.0.0.1:{port}");
    let ca = dir.path().join("control/ca.crt");
    let args = [
        "ports",
        "watch",
        &url,
        "--interval",
        "1",
        "--address",
        &address,
        "--ca",
    ];
    let mut watcher = sallyport(&args).arg(ca).start();
    let soon = || Deadline::secs(60);
    watcher.wait_for_line(r"^\+ in  from 192\.0\.2\.20 \(us egress\)$", soon());
    drop(publisher);
    watcher.wait_for_line("^warning: could not fetch https://ip-addresses", soon());
    let _publisher = Publisher::start_on(&dir, &SOURCES.replace("192.0.2.20", "192.0.2.21"), port);
    watcher.wait_for_line(r"^- in  from 192\.0\.2\.20 ", soon());
    watcher.wait_for_line(r"^\+ in  from 192\.0\.2\.21 ", soon());
    watcher.terminate();
    assert!(watcher.wait(soon()).success());
}

#[test]
fn bad_lists_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let state = file(&dir, "state.json", "{}");
    let watch = [
        "ports",
        "watch",
        "http://127.0.0.1:1/x",
        "--once",
        "--state",
    ];
    check_refused(
        &[&watch[..], &[&state]].concat(),
        &["state.json", "updateDate"],
    );
    let none = dir.path().join("none.json");
    let none = none.to_str().unwrap();
    check_refused(
        &[&watch[..], &[none]].concat(),
        &["could not fetch http://127.0.0.1:1/x"],
    );
    check_refused(
        &["ports", "watch", "127.0.0.1", "--once", "--state", none],
        &["is not a URL"],
    );
    let key = [
        "ports",
        "watch",
        "http://127.0.0.1:1/x",
        "--public-key",
        &state,
    ];
    check_refused(&key, &["state.json", "no Ed25519 public key"]);
    let bad = file(&dir, "addresses.toml", "[uk]\n");
    let home = dir.path().join("home");
    let home = home.to_str().unwrap();
    let args = [
        "control",
        "--data",
        home,
        "--listen",
        "127.0.0.1:0",
        "--ip-addresses",
        &bad,
    ];
    let done = run(&args);
    assert_eq!(done.status.code(), Some(1), "{done:?}");
    assert!(done.stderr.contains("no geo `uk`"), "{done:?}");
}

#[test]
fn the_doctor_holds_names_against_a_list_that_it_fetches() {
    let dir = tempfile::tempdir().unwrap();
    let list = r#"{"updateDate":"2025-08-26-16-03-33","regions":{"eu":{"localhost":["192.0.2.1"]}},
        "ingressIPs":{"eu":["192.0.2.1"]},"egressIPs":{"eu":[]}}"#;
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/ip-addresses.json", server.local_addr().unwrap());
    let answers = std::thread::spawn(move || {
        use std::io::{Read, Write};
        let (mut stream, _) = server.accept().unwrap();
        let mut asked = [0; 1024];
        let length = stream.read(&mut asked).unwrap();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", list.len());
        stream.write_all((head + list).as_bytes()).unwrap();
        String::from_utf8_lossy(&asked[..length]).into_owned()
    });
    let catalogue = "format = 1\nname = \"test\"\ntitle = \"Test\"\nbase = \"a.test\"\n\
        [[entry]]\nid = \"here\"\ntitle = \"here\"\nports = [\"4555/tcp\"]\nfrom = [\"gateway\"]\n\
        to = [\"control_plane\"]\nprotocol = \"http\"\ntls = \"none\"\nhosts = [\"localhost\"]\n\
        required = true\nowner = \"installation\"\nwhy = \"test\"\nsource = [\"product\"]\n";
    let catalogue = file(&dir, "catalogue.toml", catalogue);
    let args = ["doctor", "--catalogue", &catalogue, "--role", "gateway"];
    let more = ["--base", "a.test", "--prefix", "p", "--published", &url];
    let done = run(&[&args[..], &more].concat());
    assert!(!done.status.success());
    assert!(
        done.stdout.contains("localhost must be 192.0.2.1"),
        "{}",
        done.stdout
    );
    assert!(
        answers
            .join()
            .unwrap()
            .starts_with("GET /ip-addresses.json ")
    );
    let done = run(&[&args[..], &more].concat());
    assert!(
        done.stderr.contains("could not fetch http://127.0.0.1"),
        "{}",
        done.stderr
    );
}
