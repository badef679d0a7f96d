//! The version skew table, and what it does to configurations.

use super::*;

fn plugin(name: &str, config: &Value) -> Value {
    json!({"plugins": [{"id": "p", "name": name, "instance_name": null, "config": config,
                        "updated_at": 1}]})
}

/// What a data plane of this version gets of a plugin's configuration, and which fields are
/// told.
#[track_caller]
fn check(version: (u32, u32), name: &str, config: &Value, expected: &Value, told: &[&str]) {
    let mut table = plugin(name, config);
    let noted = edit(
        &mut table,
        class(KongVersion::new(version.0, version.1, 5), Make::Own),
    );
    assert_eq!(
        table["plugins"][0]["config"], *expected,
        "{name} for {version:?}"
    );
    let fields: Vec<&str> = noted.iter().map(|it| it.field.as_str()).collect();
    assert_eq!(fields, told, "{name} for {version:?}");
}

/// One with the default router.
const KONG: Make = Make::Kong { expressions: false };

#[test]
fn a_router_without_expressions_gets_no_route_that_has_one() {
    let table = json!({
        "routes": [
            {"id": "a", "name": "plain", "paths": ["/"], "priority": 0},
            {"id": "b", "name": "expr", "expression": "http.path ^= \"/\"", "priority": 7},
        ],
        "plugins": [
            {"id": "p", "name": "cors", "route": "a"},
            {"id": "q", "name": "cors", "route": "b"},
            {"id": "r", "name": "cors"},
        ],
    });
    let newest = KongVersion::new(3, 10, 0);
    let flavor = |flavor: &str| {
        let settings = json!({"router_flavor": flavor});
        Make::of(settings.as_object().unwrap(), false)
    };
    assert_eq!(flavor("traditional_compatible"), KONG);
    assert_eq!(Make::of(&Default::default(), false), KONG);
    assert_eq!(Make::of(&Default::default(), true), Make::Own);
    let mut same = table.clone();
    assert_eq!(edit(&mut same, class(newest, flavor("expressions"))), []);
    assert_eq!(same, table);
    let mut edited = table;
    let noted = edit(&mut edited, class(newest, KONG));
    let told: Vec<_> = noted
        .iter()
        .map(|it| (&*it.entity_type, &*it.entity_id, &*it.field))
        .collect();
    assert_eq!(
        told,
        [("routes", "b", "expression"), ("plugins", "q", "route")]
    );
    let expected = json!({
        "routes": [{"id": "a", "name": "plain", "paths": ["/"]}],
        "plugins": [
            {"id": "p", "name": "cors", "route": "a"},
            {"id": "r", "name": "cors"},
        ],
    });
    assert_eq!(edited, expected);
}

#[test]
fn a_version_has_one_class() {
    let class = |major, minor, patch| class(KongVersion::new(major, minor, patch), Make::Own);
    assert_eq!(class(3, 10, 0), 0);
    assert_eq!(class(3, 11, 0), 0);
    assert_eq!(class(3, 9, 1), 1);
    assert_eq!(class(3, 0, 0), AGES - 1);
}

#[test]
fn kongs_data_planes_get_no_consumer_groups() {
    let table = json!({
        "consumer_groups": [{"id": "g", "name": "gold"}],
        "consumer_group_consumers": [{"consumer_group": "g", "consumer": "c"}],
        "plugins": [{"id": "p", "name": "rate-limiting", "consumer_group": "g"},
                    {"id": "q", "name": "rate-limiting"}],
        "vaults": [{"id": "v", "name": "file"}, {"id": "w", "name": "env"}],
        "keyauth_credentials": [{"id": "k", "ttl": 60}, {"id": "l", "ttl": 0}, {"id": "m"}],
    });
    let newest = KongVersion::new(3, 10, 0);
    let mut own = table.clone();
    assert!(edit(&mut own, class(newest, Make::Own)).is_empty());
    assert_eq!(own, table);
    let mut kongs = table;
    let noted = edit(&mut kongs, class(newest, KONG));
    assert_eq!(
        kongs,
        json!({"plugins": [{"id": "q", "name": "rate-limiting"}],
               "vaults": [{"id": "w", "name": "env"}],
               "keyauth_credentials": [{"id": "l", "ttl": 0}, {"id": "m"}]})
    );
    let told: Vec<_> = noted.iter().map(|it| it.entity_id.as_str()).collect();
    assert_eq!(told, ["g", "p", "v", "k"]);
    assert_eq!(class(KongVersion::new(3, 0, 0), KONG), CLASSES - 1);
}

#[test]
fn nothing_is_edited_for_the_newest() {
    let config = json!({"allow_origin_absent": true, "private_network": true});
    check((3, 10), "cors", &config, &config, &[]);
}

#[test]
fn keys_are_not_sent_to_those_that_have_none() {
    let all = json!({
        "keys": [{"id": "k", "name": "n", "kid": "1", "set": "s"}],
        "key_sets": [{"id": "s"}],
    });
    let mut table = all.clone();
    assert_eq!(
        edit(&mut table, class(KongVersion::new(3, 1, 0), Make::Own)),
        []
    );
    assert_eq!(table, all);
    let noted = edit(&mut table, class(KongVersion::new(3, 0, 2), Make::Own));
    assert_eq!(table, json!({}));
    let told: Vec<_> = noted.iter().map(|it| (&*it.entity_id, it.kept)).collect();
    assert_eq!(told, [("k", false), ("s", false)]);
}

/// The version skew table.
#[test]
fn what_a_version_does_not_know_is_not_sent() {
    let cors = json!({"allow_origin_absent": true, "private_network": true, "origins": ["*"]});
    check(
        (3, 9),
        "cors",
        &cors,
        &json!({"private_network": true, "origins": ["*"]}),
        &["config.allow_origin_absent"],
    );
    check(
        (3, 4),
        "cors",
        &cors,
        &json!({"origins": ["*"]}),
        &["config.allow_origin_absent", "config.private_network"],
    );
    // off is what they do anyway
    check(
        (3, 9),
        "cors",
        &json!({"allow_origin_absent": false}),
        &json!({}),
        &[],
    );
    check(
        (3, 7),
        "response-transformer",
        &json!({"rename": {"json": ["a:b"], "headers": []}}),
        &json!({"rename": {"headers": []}}),
        &["config.rename.json"],
    );
    check(
        (3, 7),
        "jwt",
        &json!({"realm": "r"}),
        &json!({}),
        &["config.realm"],
    );
    check(
        (3, 6),
        "key-auth",
        &json!({"realm": "r"}),
        &json!({}),
        &["config.realm"],
    );
    check(
        (3, 5),
        "basic-auth",
        &json!({"realm": "r"}),
        &json!({}),
        &["config.realm"],
    );
    check(
        (3, 7),
        "opentelemetry",
        &json!({"traces_endpoint": "http://o"}),
        &json!({"endpoint": "http://o"}),
        &[],
    );
    check(
        (3, 4),
        "zipkin",
        &json!({"header_type": "gcp"}),
        &json!({"header_type": "preserve"}),
        &["config.header_type"],
    );
    check(
        (3, 3),
        "zipkin",
        &json!({"default_header_type": "aws"}),
        &json!({"default_header_type": "b3"}),
        &["config.default_header_type"],
    );
    check(
        (3, 3),
        "rate-limiting",
        &json!({"sync_rate": 1, "minute": 2}),
        &json!({"minute": 2}),
        &["config.sync_rate"],
    );
    check(
        (3, 2),
        "http-log",
        &json!({"queue": {"max_batch_size": 5}}),
        &json!({"retry_count": 10, "queue_size": 5, "flush_timeout": 2}),
        &["config.queue"],
    );
    check(
        (3, 0),
        "rate-limiting",
        &json!({"error_code": 429, "error_message": "no"}),
        &json!({}),
        &["config.error_code", "config.error_message"],
    );
    check(
        (3, 1),
        "session",
        &json!({"stale_ttl": 5, "cookie_same_site": "Default", "audience": "a"}),
        &json!({"cookie_discard": 5, "cookie_samesite": "Lax"}),
        &["config.audience"],
    );
}

#[test]
fn redis_is_flat_for_old_ones() {
    let config = json!({"policy": "redis", "redis": {"host": "r", "port": 6379, "ssl": true}});
    check((3, 6), "rate-limiting", &config, &config, &[]);
    check(
        (3, 5),
        "rate-limiting",
        &config,
        &json!({"policy": "redis", "redis_host": "r", "redis_port": 6379, "redis_ssl": true}),
        &[],
    );
    let acme = json!({"storage_config": {"redis": {"host": "r", "password": "p", "server_name": "s",
        "extra_options": {"namespace": "n", "scan_count": 7}}}});
    check(
        (3, 5),
        "acme",
        &acme,
        &json!({"storage_config": {"redis": {"host": "r", "auth": "p",
        "ssl_server_name": "s", "namespace": "n", "scan_count": 7}}}),
        &[],
    );
}

#[test]
fn entities_are_edited_too() {
    let mut table = json!({
        "upstreams": [{"id": "u", "algorithm": "latency", "use_srv_name": true, "updated_at": 1}],
        "services": [{"id": "s", "protocol": "tls", "tls_verify": true, "updated_at": 1},
                     {"id": "h", "protocol": "https", "tls_verify": true}],
        "plugins": [{"id": "p", "name": "x", "instance_name": "i", "updated_at": 1}],
    });
    let noted = edit(&mut table, AGES - 1);
    assert_eq!(
        table,
        json!({
            "upstreams": [{"id": "u", "algorithm": "round-robin"}],
            "services": [{"id": "s", "protocol": "tls", "updated_at": 1},
                         {"id": "h", "protocol": "https", "tls_verify": true}],
            "plugins": [{"id": "p", "name": "x"}],
        })
    );
    let told: Vec<_> = noted
        .iter()
        .map(|it| format!("{}.{}", it.entity_id, it.field))
        .collect();
    assert_eq!(
        told,
        [
            "p.instance_name",
            "u.algorithm",
            "s.tls_verify",
            "u.use_srv_name"
        ]
    );
    assert_eq!(
        noted[0].message,
        "not sent: data planes before 3.2 do not know it"
    );
}
