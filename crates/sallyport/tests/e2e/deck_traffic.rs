//! decK with every plugin that limits, answers or edits: what it writes is what it reads back.

use sallyport_testkit::{Echo, foreign};

use crate::deck::Deck;
use crate::lab::{Control, Gateway, has_all, soon, write};

/// Each with what it cannot do without and little else.
const PLUGINS: &[(&str, &str)] = &[
    ("prometheus", "{per_consumer: true}"),
    ("correlation-id", "{echo_downstream: true}"),
    ("request-size-limiting", "{allowed_payload_size: 8}"),
    (
        "rate-limiting",
        "{year: 100, policy: redis, redis: {host: redis.example, password: \"\"}}",
    ),
    (
        "response-ratelimiting",
        "{limits: {video: {hour: 10, day: 100}}}",
    ),
    (
        "request-transformer",
        "{add: {headers: [\"x-a:$(headers.host)\"]}, replace: {uri: \"/v2$(uri_captures.rest)\"}}",
    ),
    (
        "response-transformer",
        "{add: {json: [\"n:1\"], json_types: [number]}, remove: {headers: [x-secret]}}",
    ),
    (
        "redirect",
        "{location: \"https://new.example/\", keep_incoming_path: true}",
    ),
    ("proxy-cache", "{strategy: memory, vary_headers: [accept]}"),
    (
        "request-termination",
        "{status_code: 403, message: closed, trigger: x-stop}",
    ),
];

#[test]
fn what_deck_writes_is_what_it_reads_back() {
    let Some(_) = foreign("deck", "Debian package deck") else {
        return;
    };
    let control = Control::start();
    let gateway = Gateway::start(&control);
    let echo = Echo::start();
    let deck = Deck::new(&control);
    let mut text = format!(
        "_format_version: \"1.1\"\nservices:\n- name: echo\n  url: {}\n  routes:\n",
        echo.url()
    );
    for (name, config) in PLUGINS {
        text.push_str(&format!(
            "  - name: {name}\n    paths: [/{name}]\n    strip_path: true\n    plugins:\n    \
             - {{name: {name}, config: {config}}}\n"
        ));
    }
    write(&deck.path().join("kong.yml"), text);
    let created = 1 + 2 * PLUGINS.len() as u32;
    deck.does("sync", "kong.yml", created, 0, 0);
    deck.run(&["dump", "-o", "dump.yml"]).success();
    let dumped = std::fs::read_to_string(deck.path().join("dump.yml")).unwrap();
    for (name, _) in PLUGINS {
        assert!(dumped.contains(&format!("name: {name}")), "{dumped}");
    }
    // some of the defaults that the control plane filled
    has_all(
        &dumped,
        &[
            "kong_db_cache",
            "uuid#counter",
            "x-kong-limit",
            "sync_rate: -1",
        ],
    );
    deck.does("diff", "dump.yml", 0, 0, 0);
    deck.does("sync", "dump.yml", 0, 0, 0);
    deck.does("diff", "dump.yml", 0, 0, 0);

    // and gateways run all of it
    control.wait_in_sync(1);
    let status = gateway.status_of("/redirect");
    assert_eq!(status, 301);
    gateway.wait_for("/correlation-id", 200, soon());
    gateway.wait_for("/rate-limiting", 200, soon());
}
