//! Running a gateway: its logs, its APIs, and what signals do.

use std::path::PathBuf;
use std::time::Duration;

use sallyport_testkit::http::{Response, get, request};
use sallyport_testkit::{Echo, Finished, Load, Program, eventually, foreign, free_port};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::lab::{Alone, Handshake, Pair, TlsStream, has_all, soon, write};

/// A gateway alone, with both APIs.
struct Node {
    program: Program,
    dir: TempDir,
    proxy: u16,
    admin: u16,
    status: u16,
}

impl Node {
    #[track_caller]
    fn start(declarative: &str, more: &str) -> Node {
        let dir = tempfile::tempdir().unwrap();
        let (proxy, admin, status) = (free_port(), free_port(), free_port());
        // the last of several lines counts
        let more =
            format!("status_listen = 127.0.0.1:{status}\nadmin_listen = 127.0.0.1:{admin}\n{more}");
        let program = Alone::launch(dir.path(), declarative, proxy, &more).start();
        program.wait_for_line("gateway started", soon());
        Node {
            program,
            dir,
            proxy,
            admin,
            status,
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// What a file holds; nothing if it is not there.
    fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.file(name)).unwrap_or_default()
    }

    /// Waits for a line with all of these parts.
    #[track_caller]
    fn wait_for_log(&self, name: &str, parts: &[&str]) {
        eventually(&format!("{name} tells {parts:?}"), soon(), || {
            let text = self.text(name);
            text.lines()
                .any(|line| parts.iter().all(|part| line.contains(part)))
        });
    }

    #[track_caller]
    fn proxy(&self, path: &str) -> Response {
        let url = format!("http://127.0.0.1:{}{path}", self.proxy);
        get(url).header("User-Agent", "test/1").send().unwrap()
    }

    #[track_caller]
    fn admin(&self, method: &str, path: &str, body: &str) -> Response {
        let url = format!("http://127.0.0.1:{}{path}", self.admin);
        request(method, url).body(body).send().unwrap()
    }

    #[track_caller]
    fn status(&self, path: &str) -> Response {
        let url = format!("http://127.0.0.1:{}{path}", self.status);
        get(url).send().unwrap()
    }
}

fn document(echo: &Echo, route: &str) -> String {
    format!(
        "_format_version: '3.0'\nservices:\n- name: echo\n  url: {}\n  tags: [t1]\n  routes:\n  \
         - {{name: {route}, paths: [/{route}]}}\nconsumers:\n- username: alice\n  \
         keyauth_credentials:\n  - key: k1\nupstreams:\n- name: u.local\n  targets:\n  \
         - target: 127.0.0.1:1\n",
        echo.url()
    )
}

#[test]
fn requests_and_their_failures_are_in_the_logs() {
    let echo = Echo::start();
    let node = Node::start(&document(&echo, "a"), "");
    let answer = node.proxy("/a/b?c=1");
    assert_eq!(answer.status, 200);
    let id = answer.header("x-kong-request-id").unwrap();
    let bytes = answer.body.len();
    node.wait_for_log(
        "logs/access.log",
        &[
            "127.0.0.1 - - [",
            &format!(" +0000] \"GET /a/b?c=1 HTTP/1.1\" 200 {bytes} \"-\" \"test/1\" "),
            &format!("kong_request_id: \"{id}\""),
        ],
    );
    assert_eq!(node.proxy("/nowhere").status, 404);
    node.wait_for_log("logs/access.log", &["\"GET /nowhere HTTP/1.1\" 404 "]);
    node.admin("GET", "/services", "");
    node.wait_for_log(
        "logs/admin_access.log",
        &["\"GET /services HTTP/1.1\" 200 "],
    );
    assert_eq!(node.text("logs/access.log").lines().count(), 2, "once each");

    drop(echo);
    assert_eq!(node.proxy("/a").status, 502);
    node.wait_for_log("logs/access.log", &["\"GET /a HTTP/1.1\" 502 "]);
    node.wait_for_log(
        "logs/error.log",
        &[
            "[error]",
            "request failed, fault: upstream, reason: could not connect",
            "client: 127.0.0.1, request: \"GET /a\"",
        ],
    );
    let bad = sallyport_testkit::http::exchange(
        ([127, 0, 0, 1], node.proxy).into(),
        b"GET /x\x01 HTTP/1.1\r\n\r\n",
        soon(),
    );
    assert!(bad.unwrap().starts_with(b"HTTP/1.1 400 "));
    node.wait_for_log("logs/access.log", &["\"GET /x\\x01 HTTP/1.1\" 400 "]);
    node.wait_for_log(
        "logs/error.log",
        &["[info]", "fault: client", "bad request head"],
    );
}

#[test]
fn logs_are_rotated_by_signals_and_written_to_the_end() {
    let echo = Echo::start();
    let mut node = Node::start(
        &document(&echo, "a"),
        "proxy_access_log = logs/a.log combined",
    );
    for (signal, path) in [("USR1", "/one"), ("HUP", "/two")] {
        assert_eq!(node.proxy(path).status, 404);
        node.wait_for_log("logs/a.log", &[path]);
        std::fs::rename(node.file("logs/a.log"), node.file("logs/old.log")).unwrap();
        node.program.signal(signal);
        eventually("the file is opened anew", soon(), || {
            node.file("logs/a.log").exists()
        });
    }
    assert_eq!(node.proxy("/three").status, 404);
    node.program.terminate();
    assert!(node.program.wait(soon()).success());
    let text = node.text("logs/a.log");
    assert!(
        text.contains("/three") && !text.contains("kong_request_id"),
        "{text}"
    );
    assert_eq!(text.lines().count(), 1);
}

#[test]
fn a_hangup_takes_a_new_configuration_and_drops_nobody() {
    let echo = Echo::start();
    let mut node = Node::start(&document(&echo, "a"), "");
    assert_eq!(node.proxy("/b").status, 404);
    let url = format!("http://127.0.0.1:{}/a", node.proxy);
    let load = Load::expect_status(get(url).keep_alive(), 200, Duration::from_millis(1));
    load.wait_for_more(20, soon());
    let both = document(&echo, "a").replace("paths: [/a]", "paths: [/a, /b]");
    write(&node.file("kong.yml"), both);
    node.program.signal("HUP");
    eventually("the new route is served", soon(), || {
        node.proxy("/b").status == 200
    });
    let hash = node.status("/status").json()["configuration_hash"].clone();
    write(&node.file("kong.yml"), "services: nonsense");
    node.program.signal("HUP");
    node.wait_for_log(
        "logs/error.log",
        &["[error]", "not reloaded", "_format_version"],
    );
    assert_eq!(node.proxy("/b").status, 200);
    assert_eq!(node.status("/status").json()["configuration_hash"], hash);
    load.wait_for_more(20, soon());
    load.stop().assert_clean();
}

#[test]
fn the_status_api_tells_what_is_going_on() {
    let echo = Echo::start();
    let mut node = Node::start(&document(&echo, "a"), "");
    eventually("every worker serves", soon(), || {
        node.status("/status/ready").status == 200
    });
    assert_eq!(
        node.status("/status/ready").json(),
        json!({"message": "ready"})
    );
    for _ in 0..3 {
        node.proxy("/a");
    }
    eventually("requests are counted", soon(), || {
        node.status("/status").json()["server"]["total_requests"] == 3
    });
    let status = node.status("/status").json();
    assert!(status["server"]["connections_accepted"].as_u64().unwrap() >= 3);
    let used = &status["memory"]["workers_lua_vms"][0]["http_allocated_gc"];
    assert!(used.as_str().unwrap().ends_with(" MiB"), "{status}");
    assert_eq!(node.status("/status?unit=x").status, 400);
    let metrics = node.status("/metrics");
    let kind = metrics.header("content-type").unwrap();
    assert!(kind.starts_with("text/plain; version=0.0.4"));
    let text = metrics.text();
    for part in [
        "# TYPE kong_nginx_requests_total gauge\n",
        "subsystem=\"http\"} 3\n",
        "kong_node_info{node_id=\"",
        "shared_dict=\"kong_db_cache\",kong_subsystem=\"http\"} 134217728",
        "version=\"3.9.1\"} 1\n",
        "kong_datastore_reachable 1\n",
        "sallyport_log_lines_dropped_total 0\n",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    eventually("the target is known", soon(), || {
        let health = node.status("/upstreams/u.local/health").json();
        health["data"][0]["health"] == "HEALTHCHECKS_OFF"
    });
    let set = node.admin(
        "PUT",
        "/upstreams/u.local/targets/127.0.0.1:1/unhealthy",
        "",
    );
    assert_eq!(set.status, 204);
    let health = node.admin("GET", "/upstreams/u.local/health", "").json();
    assert_eq!(health["data"][0]["health"], "UNHEALTHY");

    // while requests are under way, a load balancer is told that this node goes
    echo.delay(Duration::from_secs(2));
    let url = format!("http://127.0.0.1:{}/a", node.proxy);
    let before = echo.count();
    let slow = std::thread::spawn(move || get(url).send().map(|answer| answer.status));
    eventually("the request is under way", soon(), || echo.count() > before);
    node.program.terminate();
    eventually("it is draining", soon(), || {
        node.status("/status/ready").json()["message"] == "draining"
    });
    assert_eq!(slow.join().unwrap().unwrap(), 200);
    assert!(node.program.wait(soon()).success());
}

#[test]
fn a_whole_configuration_is_put_in_force_over_the_admin_api() {
    let echo = Echo::start();
    let node = Node::start(&document(&echo, "a"), "");
    let yaml = document(&echo, "posted");
    let answer = node.admin("POST", "/config", &yaml);
    assert_eq!(answer.status, 201, "{}", answer.text());
    let routes = answer.json()["routes"].clone();
    assert_eq!(routes.as_object().unwrap().len(), 1);
    assert_eq!(node.proxy("/posted").status, 200);
    assert_eq!(node.proxy("/a").status, 404);
    assert_eq!(
        node.admin("POST", "/config?check_hash=1", &yaml).status,
        304
    );
    let wrapped = json!({"config": document(&echo, "wrapped")}).to_string();
    let url = format!("http://127.0.0.1:{}/config", node.admin);
    let wrapped = request("POST", url.clone())
        .header("Content-Type", "application/json")
        .body(wrapped);
    assert_eq!(wrapped.send().unwrap().status, 201);
    assert_eq!(node.proxy("/wrapped").status, 200);

    let bad = document(&echo, "bad").replace("paths: [/bad]", "paths: [bad], methods: [x y]");
    let answer = node.admin("POST", "/config?flatten_errors=1", &bad);
    assert_eq!(answer.status, 400);
    let errors = answer.json()["flattened_errors"].clone();
    assert_eq!(errors[0]["entity_type"], "route");
    assert_eq!(errors[0]["entity_name"], "bad");
    assert_eq!(node.admin("POST", "/config", "\u{0}").status, 400);
    assert_eq!(node.proxy("/wrapped").status, 200, "the good one stays");

    // another site's page must not reach it through somebody's browser
    let foreign = request("POST", url)
        .header("Origin", "http://evil.example")
        .body(yaml);
    assert_eq!(foreign.send().unwrap().status, 403);
    let refused = node.admin("POST", "/services", "{}");
    assert_eq!(refused.status, 405);
    assert_eq!(refused.json()["code"], 12);
    let root = node.admin("GET", "/", "").json();
    assert_eq!(root["version"], "3.9.1");
    assert_eq!(root["configuration"]["database"], "off");
    assert!(root["plugins"]["available_on_server"]["key-auth"]["priority"] == 1250);
    assert_eq!(node.admin("GET", "/nothing", "").status, 404);
    assert_eq!(node.admin("GET", "/schemas/services", "").status, 200);
    assert_eq!(
        node.admin("GET", "/schemas/plugins/key-auth", "").status,
        200
    );
    assert_eq!(
        node.admin("GET", "/certificates", "").json()["data"],
        json!([])
    );
}

fn deck(node: &Node, arguments: &[&str]) -> Option<Finished> {
    let deck = foreign("deck", "deck")?;
    let address = format!("http://127.0.0.1:{}", node.admin);
    let done = Program::new(deck)
        .args(arguments)
        .args(["--kong-addr", &address])
        .env("HOME", node.dir.path())
        .dir(node.dir.path())
        .run(soon());
    Some(done)
}

#[test]
fn deck_reads_a_gateway_without_a_database() {
    let echo = Echo::start();
    let node = Node::start(&document(&echo, "a"), "");
    let Some(ping) = deck(&node, &["ping"]) else {
        return;
    };
    has_all(&ping.success().stdout, &["Successfully connected to Kong"]);
    let dump = deck(&node, &["dump", "-o", "dump.yaml"]).unwrap();
    dump.success();
    let text = node.text("dump.yaml");
    has_all(
        &text,
        &[
            "name: echo",
            "- /a",
            "username: alice",
            "key: k1",
            "127.0.0.1:1",
        ],
    );
    let same = deck(&node, &["diff", "-s", "dump.yaml"]).unwrap().success();
    has_all(&same.stdout, &["Updated: 0", "Created: 0", "Deleted: 0"]);
    write(&node.file("more.yaml"), text.replace("- /a", "- /other"));
    let more = deck(&node, &["diff", "-s", "more.yaml"]).unwrap().success();
    has_all(&more.stdout, &["Updated: 1"]);
    let sync = deck(&node, &["sync", "-s", "more.yaml"]).unwrap();
    assert!(!sync.status.success());
    has_all(&sync.stderr, &["when not using a database"]);
    assert_eq!(node.proxy("/a").status, 200);
}

#[test]
fn curl_sends_a_file_as_a_form() {
    let Some(curl) = foreign("curl", "curl") else {
        return;
    };
    let echo = Echo::start();
    let node = Node::start(&document(&echo, "a"), "");
    write(&node.file("new.yml"), document(&echo, "form"));
    let done = Program::new(curl)
        .args(["-sS", "-o", "answer.json", "-w", "%{http_code}"])
        .args(["-F", "config=@new.yml"])
        .arg(format!("http://127.0.0.1:{}/config", node.admin))
        .dir(node.dir.path())
        .run(soon())
        .success();
    assert_eq!(done.stdout, "201");
    assert_eq!(node.proxy("/form").status, 200);
    let answer: Value = serde_json::from_str(&node.text("answer.json")).unwrap();
    assert_eq!(answer["consumers"].as_object().unwrap().len(), 1);
}

#[test]
fn a_check_tells_every_problem_and_binds_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let bad = "_format_version: '3.0'\nservices:\n- {name: a}\n- {name: b, host: h, port: 0x}\n";
    let more = "ssl_cert = /nowhere.crt\nssl_cert_key = /nowhere.key\n";
    let done = Alone::launch(dir.path(), bad, free_port(), more)
        .arg("--check")
        .run(soon());
    assert!(!done.status.success());
    has_all(
        &done.stderr,
        &[
            "ssl_cert",
            "/nowhere.crt",
            "services[0] (a).host",
            "services[1] (b).port",
        ],
    );
    assert!(!dir.path().join("logs").exists(), "nothing is written");
    let good = "_format_version: '3.0'\n";
    let done = Alone::launch(dir.path(), good, free_port(), "")
        .arg("--check")
        .run(soon());
    done.success();
}

#[test]
fn a_hangup_takes_new_certificates_and_keeps_connections() {
    let echo = Echo::start();
    let pairs = tempfile::tempdir().unwrap();
    let [old, new] = ["old", "new"].map(|name| Pair::make(&pairs.path().join(name)));
    let tls = free_port();
    let more = format!(
        "ssl_cert = {}\nssl_cert_key = {}\nproxy_listen = 127.0.0.1:{tls} ssl\n",
        old.cert.display(),
        old.key.display()
    );
    let mut node = Node::start(&document(&echo, "a"), &more);
    let open = || {
        let handshake = Handshake {
            port: tls,
            name: "localhost",
            ca: None,
            pair: None,
            alpn: &["http/1.1"],
        };
        handshake.open().unwrap()
    };
    let shown = |stream: &TlsStream| stream.conn.peer_certificates().unwrap()[0].to_vec();
    let mut kept = open();
    let before = shown(&kept);
    std::fs::copy(&new.cert, &old.cert).unwrap();
    std::fs::copy(&new.key, &old.key).unwrap();
    node.program.signal("HUP");
    eventually("the new certificate is shown", soon(), || {
        shown(&open()) != before
    });
    let answer = get(format!("https://localhost:{tls}/a")).send_over(&mut kept);
    assert_eq!(answer.unwrap().status, 200);
    // half of a pair changes nothing
    let after = shown(&open());
    write(&old.cert, "nonsense");
    node.program.signal("HUP");
    node.wait_for_log("logs/error.log", &["not reloaded", "ssl_cert"]);
    assert_eq!(shown(&open()), after);
}

#[test]
fn prometheus_counts_by_service_and_route() {
    let echo = Echo::start();
    let node = Node::start(
        &format!(
            "_format_version: '3.0'\n\
             plugins:\n\
             - {{name: prometheus, config: {{status_code_metrics: true, latency_metrics: true}}}}\n\
             services:\n\
             - {{name: shop, url: '{}', routes: [{{name: cart, paths: [/cart]}}]}}\n",
            echo.url()
        ),
        "",
    );
    for _ in 0..3 {
        let answer = get(format!("http://127.0.0.1:{}/cart", node.proxy)).send();
        assert_eq!(answer.unwrap().status, 200);
    }
    // the log phase runs behind the answer
    eventually("all three are counted", soon(), || {
        let text = node.status("/metrics").text();
        let counted = text.lines().any(|line| {
            line.starts_with("kong_http_requests_total{")
                && ["service=\"shop\"", "route=\"cart\"", "code=\"200\""]
                    .iter()
                    .all(|label| line.contains(label))
                && line.ends_with(" 3")
        });
        counted && text.contains("kong_request_latency_ms_bucket{")
    });
}
