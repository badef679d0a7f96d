//! Kong's decK 1.4.0, as a real program, against a control plane with gateways behind it.

use std::path::Path;
use std::time::{Duration, Instant};

use sallyport_testkit::http::{Request, get};
use sallyport_testkit::{Deadline, Echo, Finished, Load, Postgres, eventually, foreign};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::lab::{Control, Gateway, has_all, soon, write};

/// How soon after a client's write a gateway serves it: a promise of the product.
const SERVED_WITHIN: Duration = Duration::from_secs(1);
/// On a machine that is known to be slow (`SALLYPORT_TEST_SLOW` set): long enough to tell "soon"
/// from "at the next reconnect".
const SERVED_WITHIN_SLOW: Duration = Duration::from_secs(5);

fn served_within() -> Deadline {
    match std::env::var_os("SALLYPORT_TEST_SLOW") {
        Some(_) => Deadline::after(SERVED_WITHIN_SLOW),
        None => Deadline::after(SERVED_WITHIN),
    }
}

/// Everything this build has, with what decK 1.4.0 has no default for spelled out: of routes and
/// upstreams what came after Kong 2.0 (and `strip_path`, for which its default is another), of
/// plugins everything.
fn kong_yml(targets: [u16; 2]) -> String {
    let [first, second] = targets;
    format!(
        r#"_format_version: "1.1"
services:
- name: orders
  host: orders.upstream
  path: /api
  retries: 3
  tags: [shop]
  routes:
  - name: orders
    paths: [/orders]
    methods: [GET, POST]
    strip_path: true
    https_redirect_status_code: 426
    path_handling: v0
    request_buffering: true
    response_buffering: true
    plugins:
    - name: key-auth
      enabled: true
      protocols: [grpc, grpcs, http, https]
      config:
        anonymous: null
        hide_credentials: false
        key_in_body: false
        key_in_header: true
        key_in_query: true
        key_names: [apikey]
        realm: null
        run_on_preflight: true
consumers:
- username: alice
  custom_id: "0815"
  keyauth_credentials:
  - key: alices-secret
- username: bob
  keyauth_credentials:
  - key: bobs-secret
plugins:
- name: rate-limiting
  enabled: true
  protocols: [grpc, grpcs, http, https]
  config:
    second: null
    minute: null
    hour: null
    day: null
    month: null
    year: 1000000
    limit_by: consumer
    policy: local
    error_code: 429
    error_message: API rate limit exceeded
    fault_tolerant: true
    header_name: null
    hide_client_headers: false
    path: null
    sync_rate: -1
    redis:
      database: 0
      host: null
      password: null
      port: 6379
      server_name: null
      ssl: false
      ssl_verify: false
      timeout: 2000
      username: null
upstreams:
- name: orders.upstream
  algorithm: round-robin
  hash_on: none
  hash_fallback: none
  hash_on_cookie_path: /
  slots: 10000
  healthchecks:
    threshold: 0
    active: {{type: http, https_verify_certificate: true}}
    passive: {{type: http}}
  targets:
  - {{target: "127.0.0.1:{first}", weight: 100}}
  - {{target: "127.0.0.1:{second}", weight: 100}}
"#
    )
}

/// A service and its route, both of this name, to stand below `services:`.
fn service(name: &str, port: u16) -> String {
    format!(
        r#"- name: {name}
  host: 127.0.0.1
  port: {port}
  routes:
  - name: {name}
    paths: [/{name}]
    strip_path: true
    https_redirect_status_code: 426
    path_handling: v0
    request_buffering: true
    response_buffering: true
"#
    )
}

/// decK on one control plane, in a directory of its own.
pub(crate) struct Deck<'a> {
    control: &'a Control,
    dir: TempDir,
}

impl Deck<'_> {
    pub(crate) fn new(control: &Control) -> Deck<'_> {
        Deck {
            control,
            dir: tempfile::tempdir().unwrap(),
        }
    }

    #[track_caller]
    pub(crate) fn run(&self, args: &[&str]) -> Finished {
        self.control
            .deck(self.dir.path(), args)
            .expect("the test asked for it first")
    }

    /// Runs it on this file and checks what it says it did.
    #[track_caller]
    pub(crate) fn does(&self, action: &str, file: &str, created: u32, updated: u32, deleted: u32) {
        let done = self.run(&[action, "-s", file]).success();
        let summary = format!("Created: {created}\n  Updated: {updated}\n  Deleted: {deleted}\n");
        assert!(
            done.stdout.contains(&summary),
            "{summary}expected:\n{}",
            done.stdout
        );
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }
}

fn keyed(gateway: &Gateway, path: &str) -> Request {
    get(gateway.url(path)).header("apikey", "alices-secret")
}

#[track_caller]
fn serves(gateway: &Gateway, path: &str, deadline: Deadline) {
    eventually(&format!("{path} is served"), deadline, || {
        keyed(gateway, path)
            .send()
            .is_ok_and(|answer| answer.status == 200)
    });
}

#[test]
fn ping_sync_dump_and_diff_with_two_gateways_behind() {
    let Some(_) = foreign("deck", "Debian package deck") else {
        return;
    };
    two_gateways_behind(&Control::start());
}

#[test]
fn ping_sync_dump_and_diff_on_postgres() {
    let Some(_) = foreign("deck", "Debian package deck") else {
        return;
    };
    let Some(postgres) = Postgres::shared() else {
        return;
    };
    two_gateways_behind(&Control::start_on(Some(postgres.database())));
}

fn two_gateways_behind(control: &Control) {
    let gateways = [Gateway::start(control), Gateway::start(control)];
    let upstreams = [Echo::start(), Echo::start()];
    let deck = Deck::new(control);
    let text = kong_yml([upstreams[0].port(), upstreams[1].port()]);
    write(&deck.path().join("kong.yml"), &text);

    let ping = deck.run(&["ping"]).success();
    has_all(&ping.stdout, &["Successfully connected to Kong!", "3.10"]);
    deck.does("diff", "kong.yml", 11, 0, 0);
    assert_eq!(
        control.core("GET", "services", &Value::Null).json()["data"],
        json!([]),
        "a diff"
    );
    deck.does("sync", "kong.yml", 11, 0, 0);
    let exit = Instant::now();
    for gateway in &gateways {
        serves(gateway, "/orders", served_within());
    }
    let took = exit.elapsed();
    assert!(took < SERVED_WITHIN_SLOW, "both gateways took {took:?}");

    // decK writes one entity after the other, so what is served first may lack what came last
    control.wait_in_sync(2);

    // what the file says is what happens
    for gateway in &gateways {
        let seen = keyed(gateway, "/orders/7").send().unwrap();
        assert_eq!(seen.header("x-ratelimit-limit-year"), Some("1000000"));
        let seen = seen.json();
        assert_eq!(seen["path"], "/api/7");
        assert_eq!(seen["headers"]["x-consumer-custom-id"][0], "0815");
        assert_eq!(gateway.status_of("/orders"), 401);
        let used: std::collections::BTreeSet<u64> = (0..8)
            .map(|_| keyed(gateway, "/orders").send().unwrap().json())
            .map(|seen| seen["upstream"].as_u64().unwrap())
            .collect();
        assert_eq!(used.len(), 2, "both targets: {used:?}");
    }

    deck.does("sync", "kong.yml", 0, 0, 0);
    deck.does("diff", "kong.yml", 0, 0, 0);
    deck.run(&["dump", "-o", "dump.yml"]).success();
    let dumped = std::fs::read_to_string(deck.path().join("dump.yml")).unwrap();
    has_all(
        &dumped,
        &[
            "alices-secret",
            "/orders",
            "rate-limiting",
            "orders.upstream",
            "0815",
        ],
    );
    deck.does("diff", "dump.yml", 0, 0, 0);
    deck.does("sync", "dump.yml", 0, 0, 0);

    // one changed field is one change, and nothing is left to do
    write(
        &deck.path().join("kong.yml"),
        text.replace("retries: 3", "retries: 4"),
    );
    deck.does("sync", "kong.yml", 0, 1, 0);
    deck.does("diff", "kong.yml", 0, 0, 0);

    // a target less: all requests go to the one that is left
    let one = text
        .lines()
        .filter(|line| !line.contains(&format!(":{}\"", upstreams[1].port())));
    let one = one
        .collect::<Vec<_>>()
        .join("\n")
        .replace("retries: 3", "retries: 4");
    write(&deck.path().join("kong.yml"), one);
    deck.does("sync", "kong.yml", 0, 0, 1);
    control.wait_in_sync(2);
    let before = upstreams[1].count();
    for _ in 0..8 {
        assert_eq!(keyed(&gateways[0], "/orders").send().unwrap().status, 200);
    }
    assert_eq!(upstreams[1].count(), before);

    deck.run(&["reset", "--force"]).success();
    for gateway in &gateways {
        gateway.wait_for("/orders", 404, soon());
    }
    deck.run(&["dump", "-o", "empty.yml"]).success();
    let left = std::fs::read_to_string(deck.path().join("empty.yml")).unwrap();
    assert!(!left.contains("name:"), "{left}");
}

#[test]
fn a_new_route_is_served_within_a_second_without_a_restart() {
    let Some(_) = foreign("deck", "Debian package deck") else {
        return;
    };
    let control = Control::start();
    let gateway = Gateway::start(&control);
    let echo = Echo::start();
    let deck = Deck::new(&control);
    let text = kong_yml([echo.port(), echo.port() + 1]);
    let with = text.replacen(
        "services:\n",
        &format!("services:\n{}", service("fresh", echo.port())),
        1,
    );
    write(&deck.path().join("without.yml"), text);
    write(&deck.path().join("with.yml"), with);
    deck.does("sync", "without.yml", 11, 0, 0);
    control.wait_in_sync(1);
    assert_eq!(gateway.status_of("/fresh"), 404);

    // decK's exit is where the second begins
    deck.does("sync", "with.yml", 2, 0, 0);
    gateway.wait_for("/fresh", 200, served_within());
    deck.does("sync", "without.yml", 0, 0, 2);
    gateway.wait_for("/fresh", 404, served_within());
    let connected = gateway
        .program
        .output()
        .matches("control plane connected")
        .count();
    assert_eq!(connected, 1, "all over one link");
}

#[test]
fn swaps_lose_no_request() {
    let Some(_) = foreign("deck", "Debian package deck") else {
        return;
    };
    let control = Control::start();
    let gateway = Gateway::start(&control);
    let echo = Echo::start();
    let deck = Deck::new(&control);
    control.route_to("steady", echo.port());
    gateway.wait_for("/steady", 200, soon());

    let fresh = Load::expect_status(get(gateway.url("/steady")), 200, Duration::from_millis(3));
    // and over one connection that outlives all swaps
    let mut kept = std::net::TcpStream::connect(("127.0.0.1", gateway.port)).unwrap();
    kept.set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let request = get(gateway.url("/steady")).keep_alive();
    let kept = Load::start(Duration::from_millis(3), move || {
        match request.send_over(&mut kept) {
            Ok(answer) if answer.status == 200 => Ok(()),
            Ok(answer) => Err(format!("{} {}", answer.status, answer.text())),
            Err(error) => Err(error.to_string()),
        }
    });
    let steady = service("steady", echo.port());
    for swap in 0..20 {
        let other = service(&format!("swap-{swap}"), echo.port());
        let text = format!("_format_version: \"1.1\"\nservices:\n{steady}{other}");
        write(&deck.path().join("kong.yml"), text);
        let done = deck.run(&["sync", "-s", "kong.yml"]).success();
        assert!(done.stdout.contains("Created: 2"), "{}", done.stdout);
        // the route before is gone and this one is there: it was swapped
        gateway.wait_for(&format!("/swap-{swap}"), 200, soon());
        if swap > 0 {
            gateway.wait_for(&format!("/swap-{}", swap - 1), 404, soon());
        }
        fresh.wait_for_more(3, soon());
        kept.wait_for_more(3, soon());
    }
    fresh.stop().assert_clean();
    kept.stop().assert_clean();
    control.wait_in_sync(1);
}

#[test]
fn what_is_refused_is_named_and_changes_nothing() {
    let Some(_) = foreign("deck", "Debian package deck") else {
        return;
    };
    let control = Control::start();
    let gateway = Gateway::start(&control);
    let echo = Echo::start();
    control.route_to("orders", echo.port());
    gateway.wait_for("/orders", 200, soon());
    let deck = Deck::new(&control);
    let check = |text: &str, parts: &[&str]| {
        let text = format!("_format_version: \"1.1\"\n{text}");
        write(&deck.path().join("bad.yml"), text);
        let done = deck.run(&["sync", "-s", "bad.yml", "--select-tag", "bad"]);
        assert!(!done.status.success(), "{done:?}");
        has_all(&format!("{}{}", done.stdout, done.stderr), parts);
    };
    check("plugins: [{name: no-such-plugin}]\n", &["no-such-plugin"]);
    check(
        "plugins: [{name: key-auth, config: {kye_names: [a]}}]\n",
        &["kye_names"],
    );
    check("services: [{name: big, host: h, port: 70000}]\n", &["port"]);
    check("services: [{name: orders, host: h}]\n", &["name", "orders"]);
    check("routes: [{name: wild, paths: ['~/(']}]\n", &["paths"]);
    control.wait_in_sync(1);
    assert_eq!(gateway.status_of("/orders"), 200);

    let done = control.deck_as("kpat_guessed", deck.path(), &["ping"]);
    let done = done.expect("decK is there");
    assert!(!done.status.success(), "{done:?}");
    has_all(&format!("{}{}", done.stdout, done.stderr), &["401"]);
}
