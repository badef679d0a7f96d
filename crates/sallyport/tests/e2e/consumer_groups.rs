//! Consumer groups through the built executable: what clients of either API write and read, and
//! which configuration of a plugin applies to whom.

use sallyport_testkit::http::{Response, get, request};
use sallyport_testkit::{Echo, eventually, free_port};
use serde_json::{Value, json};

use crate::lab::{Alone, Control, Gateway, has_all, soon};

/// A limit that nobody reaches in a test, told in the answer's headers.
fn limit(minute: u32) -> Value {
    json!({"name": "rate-limiting", "config": {"minute": minute, "policy": "local"}})
}

/// Which limit an answer was counted against.
#[track_caller]
fn limit_of(answer: &Response) -> &str {
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.header("x-ratelimit-limit-minute").unwrap_or("none")
}

fn document(echo: &Echo) -> Value {
    let mut own = limit(7000);
    own["consumer"] = json!("carol");
    let mut on_route = limit(6000);
    on_route["consumer_group"] = json!({"name": "gold"});
    on_route["route"] = json!("special");
    json!({
        "_format_version": "3.0",
        "services": [{"name": "echo", "url": echo.url(), "routes": [
            {"name": "all", "paths": ["/all"]}, {"name": "special", "paths": ["/special"]},
        ], "plugins": [limit(1000)]}],
        "plugins": [{"name": "key-auth"}, own, on_route],
        "consumers": [
            {"username": "alice", "keyauth_credentials": [{"key": "a"}],
             "acls": [{"group": "staff"}]},
            {"username": "bob", "keyauth_credentials": [{"key": "b"}],
             "groups": [{"name": "gold"}, {"name": "bronze"}]},
            {"username": "carol", "keyauth_credentials": [{"key": "c"}]},
            {"username": "dave", "keyauth_credentials": [{"key": "d"}]},
        ],
        "consumer_groups": [
            {"name": "gold", "consumers": [{"username": "alice"}, {"username": "carol"}],
             "plugins": [limit(5000)]},
            {"name": "bronze", "plugins": [limit(4000)]},
        ],
    })
}

#[test]
fn a_group_chooses_the_configuration() {
    let echo = Echo::start();
    let admin = free_port();
    let more = format!("admin_listen = 127.0.0.1:{admin}");
    let gateway = Alone::start(&document(&echo).to_string(), &more);
    for (path, key, expected) in [
        ("/all", "a", "5000"),
        ("/special", "a", "6000"),
        // of two groups the first by name
        ("/all", "b", "4000"),
        // a consumer's own comes before its group's, unless that is for the route
        ("/all", "c", "7000"),
        ("/special", "c", "6000"),
        ("/all", "d", "1000"),
        ("/special", "d", "1000"),
    ] {
        let answer = gateway.get(path).header("apikey", key).send().unwrap();
        assert_eq!(limit_of(&answer), expected, "{path} {key}");
    }
    let ask = |path: &str| {
        let answer = get(format!("http://127.0.0.1:{admin}/{path}"))
            .send()
            .unwrap();
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer.json()
    };
    let group = ask("consumer_groups/gold");
    assert_eq!(group["consumer_group"]["name"], "gold");
    assert_eq!(group["plugins"].as_array().unwrap().len(), 2);
    assert_eq!(group["consumers"].as_array().unwrap().len(), 3);
    let spared = ask("consumer_groups/gold?list_consumers=false");
    assert!(spared["consumers"].is_null());
    let groups = ask("consumers/bob/consumer_groups");
    let mut names: Vec<&str> = groups["data"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|group| group["name"].as_str())
        .collect();
    names.sort_unstable();
    assert_eq!(names, ["bronze", "gold"]);
    let mut seen = Vec::new();
    let mut next = "consumer_groups/gold/consumers?size=2".to_owned();
    loop {
        let page = ask(&next);
        let users = page["data"].as_array().unwrap().iter();
        seen.extend(users.map(|it| it["username"].as_str().unwrap().to_owned()));
        match page["next"].as_str() {
            Some(path) => next = path.trim_start_matches('/').to_owned(),
            None => break,
        }
    }
    seen.sort_unstable();
    assert_eq!(seen, ["alice", "bob", "carol"]);
    // what it shows of itself is a document that it takes
    let shown = ask("config")["config"].as_str().unwrap().to_owned();
    has_all(
        &shown,
        &["\"consumer_groups\":[", "\"consumer_group_consumers\":["],
    );
    let again = request("POST", format!("http://127.0.0.1:{admin}/config"))
        .header("Content-Type", "application/json")
        .body(shown)
        .send()
        .unwrap();
    assert_eq!(again.status, 201, "{}", again.text());
    let answer = gateway.get("/special").header("apikey", "a").send();
    assert_eq!(limit_of(&answer.unwrap()), "6000");
}

/// The calls that decK 1.64 and go-kong make, in their forms.
fn writes_and_reads(control: &Control) {
    control.put("consumers/alice", &json!({}));
    control.put("consumers/bob", &json!({}));
    let key = json!({"key": "a"});
    let made = control.core("POST", "consumers/alice/key-auth", &key);
    assert_eq!(made.status, 201, "{}", made.text());
    let id = "2b1c5f3e-3f0a-4d0e-9d6a-0d6f1f0b7c02";
    let group = json!({"id": id, "name": "gold", "tags": ["t"]});
    let made = control.put(&format!("consumer_groups/{id}"), &group);
    assert_eq!(made["name"], "gold");
    let answer = control.core(
        "POST",
        "consumer_groups/gold/consumers",
        &json!({"consumer": "alice"}),
    );
    assert_eq!(answer.status, 201, "{}", answer.text());
    let added = answer.json();
    assert_eq!(added["consumer_group"]["id"], id);
    assert_eq!(added["consumers"][0]["username"], "alice");
    let answer = control.core(
        "POST",
        "consumers/bob/consumer_groups",
        &json!({"group": id}),
    );
    assert_eq!(answer.status, 201, "{}", answer.text());
    assert_eq!(answer.json()["consumer_groups"][0]["name"], "gold");
    let plugin = "2b1c5f3e-3f0a-4d0e-9d6a-0d6f1f0b7c03";
    let stored = control.put(
        &format!("consumer_groups/gold/plugins/{plugin}"),
        &limit(5000),
    );
    assert_eq!(stored["consumer_group"]["id"], id);
    let list = control.core("GET", "consumer_groups?size=1000&tags=t", &Value::Null);
    assert_eq!(list.json()["data"][0]["id"], id);
    let shown = control
        .core("GET", "consumer_groups/gold", &Value::Null)
        .json();
    assert_eq!(shown["consumer_group"]["id"], id);
    assert_eq!(shown["plugins"][0]["id"], plugin);
    let mut names: Vec<_> = shown["consumers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["username"].as_str().unwrap())
        .collect();
    names.sort_unstable();
    assert_eq!(names, ["alice", "bob"]);
    let listed = control.core("GET", "consumer_groups/gold/consumers?size=1", &Value::Null);
    let listed = listed.json();
    assert_eq!(listed["data"].as_array().unwrap().len(), 1);
    assert!(
        listed["next"]
            .as_str()
            .unwrap()
            .contains("/consumer_groups/gold/consumers?offset=")
    );
    for (method, path, body, status, said) in [
        (
            "POST",
            "consumer_groups/gold/consumers",
            json!({"consumer": "alice"}),
            400,
            "consumer",
        ),
        (
            "POST",
            "consumer_groups/gold/consumers",
            json!({"consumer": "eve"}),
            400,
            "there is no",
        ),
        (
            "POST",
            "consumer_groups/gold/consumers",
            json!({}),
            400,
            "consumer: expected an id",
        ),
        (
            "POST",
            "consumers/bob/consumer_groups",
            json!({"group": 5}),
            400,
            "group: expected an id",
        ),
        (
            "POST",
            "consumer_groups",
            json!({}),
            400,
            "required field missing",
        ),
        (
            "POST",
            "consumer_groups",
            json!({"name": "gold"}),
            400,
            "name",
        ),
        ("GET", "consumer_groups/none", Value::Null, 404, ""),
        (
            "GET",
            "consumer_groups/none/consumers",
            Value::Null,
            404,
            "",
        ),
        ("GET", "consumer_group_consumers", Value::Null, 404, ""),
        (
            "POST",
            "consumer_groups/gold/plugins",
            json!({"name": "key-auth"}),
            400,
            "consumer_group",
        ),
    ] {
        let answer = control.core(method, path, &body);
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.text());
        has_all(&answer.text(), &[said]);
    }
}

#[test]
fn a_control_plane_stores_and_sends_them() {
    let echo = Echo::start();
    let control = Control::start();
    control.route_to("orders", echo.port());
    writes_and_reads(&control);
    control.put(
        "plugins/2b1c5f3e-3f0a-4d0e-9d6a-0d6f1f0b7c04",
        &json!({"name": "key-auth"}),
    );
    // by changes, and by whole configurations as Kong's protocol has them
    let by_changes = Gateway::start(&control);
    let dir = tempfile::tempdir().unwrap();
    let pair = crate::lab::Pair::make(dir.path());
    control.pin(&pair.cert());
    let whole = Gateway::start_set(&control, dir, &pair, "sallyport_sync = v1");
    let limit = |gateway: &Gateway| {
        let answer = get(gateway.url("/orders")).header("apikey", "a").send();
        let answer = answer.unwrap();
        let limit = answer.header("x-ratelimit-limit-minute").unwrap_or("none");
        (answer.status, limit.to_owned())
    };
    let is = |status: u16, limit: &str| (status, limit.to_owned());
    for gateway in [&by_changes, &whole] {
        eventually("the group's limit counts", soon(), || {
            limit(gateway) == is(200, "5000")
        });
    }
    for (method, path) in [
        ("DELETE", "consumer_groups/gold/consumers/alice"),
        ("DELETE", "consumer_groups/gold/consumers/alice"),
    ] {
        let gone = control.core(method, path, &Value::Null);
        assert_eq!(gone.status, 204, "{}", gone.text());
    }
    for gateway in [&by_changes, &whole] {
        eventually("alice has left the group", soon(), || {
            limit(gateway) == is(200, "none")
        });
    }
    let back = json!({"consumer": ["alice"]});
    let added = control.core("POST", "consumer_groups/gold/consumers", &back);
    assert_eq!(added.status, 201, "{}", added.text());
    for gateway in [&by_changes, &whole] {
        eventually("she is back", soon(), || limit(gateway) == is(200, "5000"));
    }
    // a group that goes takes its plugins and places with it
    let gone = control.core("DELETE", "consumer_groups/gold", &Value::Null);
    assert_eq!(gone.status, 204, "{}", gone.text());
    for gateway in [&by_changes, &whole] {
        eventually("the group is gone", soon(), || {
            limit(gateway) == is(200, "none")
        });
    }
    let none = control.core("GET", "consumers/bob/consumer_groups", &Value::Null);
    assert_eq!(none.json()["data"], json!([]));
}
