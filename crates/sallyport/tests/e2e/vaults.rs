//! Vault references through the built gateway: resolved there, shown nowhere.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use sallyport_testkit::http::{get, request};
use sallyport_testkit::{Echo, Program, eventually, free_port};
use serde_json::{Value, json};

use crate::lab::{Alone, Control, Gateway, Pair, has_all, soon, write};

/// The value of `x-token` in each request that comes, which is answered.
struct Sink(TcpListener);

impl Sink {
    fn start() -> Sink {
        Sink(TcpListener::bind("127.0.0.1:0").unwrap())
    }

    fn url(&self) -> String {
        format!("http://{}/in", self.0.local_addr().unwrap())
    }

    #[track_caller]
    fn tokens(&self) -> Vec<String> {
        let (stream, _) = self.0.accept().unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        let mut stream = BufReader::new(stream);
        let (mut length, mut tokens) = (0, Vec::new());
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).unwrap();
            let (name, value) = line.split_once(": ").unwrap_or((&line, ""));
            match name.to_ascii_lowercase().as_str() {
                "x-token" | "x-other" => tokens.push(value.trim().to_owned()),
                "content-length" => length = value.trim().parse().unwrap(),
                "\r\n" | "" => break,
                _ => {}
            }
        }
        stream.read_exact(&mut vec![0; length]).unwrap();
        let answer = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        stream.get_mut().write_all(answer.as_bytes()).unwrap();
        tokens.sort();
        tokens
    }
}

fn document(echo: &Echo, sink: &Sink) -> Value {
    json!({
        "_format_version": "3.0",
        "services": [{"name": "orders", "url": echo.url(),
            "routes": [{"name": "all", "paths": ["/"]}],
            "plugins": [{"name": "http-log", "config": {"http_endpoint": sink.url(),
                "headers": {"X-Token": "{vault://env/log-token}",
                            "X-Other": "{vault://file/log/token}"}}}]}],
    })
}

fn launch(dir: &Path, document: &Value, more: &str) -> (Program, u16) {
    let port = free_port();
    let conf = format!(
        "vault_file_prefix = {}\n{more}",
        dir.join("secrets").display()
    );
    let program = Alone::launch(dir, &document.to_string(), port, &conf)
        .env("LOG_TOKEN", "s3cret-env")
        .start();
    (program, port)
}

#[test]
fn references_are_resolved_and_never_shown() {
    let (echo, sink) = (Echo::start(), Sink::start());
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("secrets/log")).unwrap();
    let file = dir.path().join("secrets/log/token");
    write(&file, "s3cret-file\n");
    let admin = free_port();
    let more = format!("admin_listen = 127.0.0.1:{admin}");
    let (mut program, port) = launch(dir.path(), &document(&echo, &sink), &more);
    program.wait_for_line("gateway started", soon());
    let ask = || {
        let asked = get(format!("http://127.0.0.1:{port}/")).send().unwrap();
        assert_eq!(asked.status, 200);
    };
    ask();
    assert_eq!(sink.tokens(), ["s3cret-env", "s3cret-file"]);
    let plugins = get(format!("http://127.0.0.1:{admin}/plugins"))
        .send()
        .unwrap()
        .text();
    has_all(
        &plugins,
        &["{vault://env/log-token}", "{vault://file/log/token}"],
    );
    assert!(!plugins.contains("s3cret"), "{plugins}");
    // a new secret, and the same document
    write(&file, "s3cret-new\n");
    program.signal("HUP");
    program.wait_for_line("reloaded", soon());
    ask();
    assert_eq!(sink.tokens(), ["s3cret-env", "s3cret-new"]);
    // one that is gone changes nothing, and is named
    std::fs::remove_file(&file).unwrap();
    program.signal("HUP");
    program.wait_for_line("not reloaded", soon());
    has_all(
        &program.output(),
        &[
            "(http-log): config.headers.X-Other: {vault://file/log/token} cannot be resolved",
            "secrets/log/token: No such file",
        ],
    );
    ask();
    assert_eq!(sink.tokens(), ["s3cret-env", "s3cret-new"]);
    let body = document(&echo, &sink).to_string();
    let refused = request("POST", format!("http://127.0.0.1:{admin}/config"))
        .header("Content-Type", "application/json")
        .body(body)
        .send()
        .unwrap();
    assert_eq!(refused.status, 400, "{}", refused.text());
    has_all(&refused.text(), &["config.headers.X-Other"]);
    assert!(!program.output().contains("s3cret"));
    let log = std::fs::read_to_string(dir.path().join("logs/error.log")).unwrap();
    assert!(!log.contains("s3cret"), "{log}");
}

#[test]
fn a_gateway_does_not_start_with_a_reference_to_nothing() {
    let (echo, sink) = (Echo::start(), Sink::start());
    let dir = tempfile::tempdir().unwrap();
    let (mut program, _) = launch(dir.path(), &document(&echo, &sink), "");
    assert!(!program.wait(soon()).success());
    has_all(
        &program.output(),
        &[
            "config.headers.X-Other: {vault://file/log/token} cannot be resolved",
            "No such file",
        ],
    );
    assert!(!program.output().contains("s3cret"));
}

#[test]
fn a_control_plane_stores_and_sends_the_reference() {
    let (echo, sink) = (Echo::start(), Sink::start());
    let control = Control::start();
    control.route_to("orders", echo.port());
    // every process has a PATH; what is in it depends on the machine
    let config = json!({"http_endpoint": sink.url(),
        "headers": {"X-Token": "{vault://env/path}"}});
    let plugin = json!({"name": "http-log", "config": config});
    let plugin = control.put("plugins/2b1c5f3e-3f0a-4d0e-9d6a-0d6f1f0b7c01", &plugin);
    assert_eq!(plugin["config"]["headers"]["X-Token"], "{vault://env/path}");
    let gateway = Gateway::start(&control);
    eventually("it is served", soon(), || {
        gateway.status_of("/orders") == 200
    });
    assert_eq!(sink.tokens(), [std::env::var("PATH").unwrap()]);
}

#[test]
fn a_vault_of_a_control_plane_names_files_that_are_read_anew() {
    let (echo, sink) = (Echo::start(), Sink::start());
    let control = Control::start();
    control.route_to("orders", echo.port());
    let vault = json!({"name": "file", "config": {"prefix": "log"}});
    control.put("vaults/log-secrets", &vault);
    let config = json!({"http_endpoint": sink.url(),
        "headers": {"X-Token": "{vault://log-secrets/token}"}});
    let plugin = "plugins/2b1c5f3e-3f0a-4d0e-9d6a-0d6f1f0b7c05";
    control.put(plugin, &json!({"name": "http-log", "config": config}));
    let dir = tempfile::tempdir().unwrap();
    let secrets = dir.path().join("secrets");
    std::fs::create_dir_all(secrets.join("log")).unwrap();
    let file = secrets.join("log/token");
    write(&file, "s3cret-one\n");
    let pair = Pair::make(dir.path());
    control.pin(&pair.cert());
    let conf = format!("vault_file_prefix = {}", secrets.display());
    let mut gateway = Gateway::start_set(&control, dir, &pair, &conf);
    // requests that found no route yet are logged too, so there may be entries from before
    let tells = |gateway: &Gateway, expected: &str| {
        eventually("the entry has the secret", soon(), || {
            gateway.status_of("/orders") == 200 && sink.tokens() == [expected]
        });
    };
    tells(&gateway, "s3cret-one");
    // an edit of something else leaves it in force
    control.route_to("others", echo.port());
    gateway.wait_for("/others", 200, soon());
    tells(&gateway, "s3cret-one");
    write(&file, "s3cret-two\n");
    gateway.program.signal("HUP");
    gateway.program.wait_for_line("reloaded", soon());
    tells(&gateway, "s3cret-two");
    std::fs::remove_file(&file).unwrap();
    gateway.program.signal("HUP");
    gateway.program.wait_for_line("not reloaded", soon());
    tells(&gateway, "s3cret-two");
    // a reference to nothing is refused alone, by its name
    let config = json!({"http_endpoint": sink.url(),
        "headers": {"X-Token": "{vault://log-secrets/other}"}});
    control.put(plugin, &json!({"name": "http-log", "config": config}));
    gateway
        .program
        .wait_for_line("entity refused, the others are in force", soon());
    let output = gateway.program.output();
    has_all(&output, &["{vault://log-secrets/other} cannot be resolved"]);
    assert!(!output.contains("s3cret"), "{output}");
    let all = std::fs::read_dir(gateway.state("")).unwrap();
    for entry in all
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
    {
        let stored = std::fs::read(&entry).unwrap();
        let text = String::from_utf8_lossy(&stored);
        assert!(!text.contains("s3cret"), "{}", entry.display());
    }
}
