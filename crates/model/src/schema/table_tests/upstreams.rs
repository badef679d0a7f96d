//! What upstreams and targets take.

use super::*;

#[test]
fn upstreams() {
    let kind = Kind::Upstream;
    let upstream = parse(kind, json!({"name": "u"})).unwrap();
    assert_eq!(upstream["algorithm"], "round-robin");
    assert_eq!(upstream["slots"], 10000);
    assert_eq!(
        upstream["healthchecks"]["active"]["healthy"]["http_statuses"],
        json!([200, 302])
    );
    assert_eq!(
        upstream["healthchecks"]["passive"]["unhealthy"]["timeouts"],
        0
    );
    refuses(kind, json!({}), &["name: required field missing"]);
    refuses_field(
        kind,
        "slots",
        json!(9),
        "slots: value should be between 10 and 65536",
    );
    refuses_field(
        kind,
        "name",
        json!("10.0.0.1"),
        "name: Invalid name ('10.0.0.1'); no ip addresses allowed",
    );
    refuses_field(
        kind,
        "healthchecks",
        json!({"active": {"healthy": {"http_statuses": [99]}}}),
        "healthchecks.active.healthy.http_statuses[0]: value should be between 100 and 999",
    );
    refuses(
        kind,
        json!({"name": "u", "hash_on": "header"}),
        &[
            "failed conditional validation given value of field 'hash_on'",
            "hash_on_header: required field missing",
        ],
    );
    refuses(
        kind,
        json!({"name": "u", "hash_fallback": "ip"}),
        &[
            "failed conditional validation given value of field 'hash_on'",
            "hash_fallback: value must be none",
        ],
    );
    refuses(
        kind,
        json!({"name": "u", "hash_on": "ip", "hash_fallback": "ip"}),
        &[
            "failed conditional validation given value of field 'hash_on'",
            "hash_fallback: value must not be ip",
        ],
    );
    let both = json!({
        "name": "u", "hash_on": "header", "hash_on_header": "a", "hash_fallback": "header",
        "hash_fallback_header": "a",
    });
    refuses(
        kind,
        both,
        &["values of these fields must be distinct: 'hash_on_header', 'hash_fallback_header'"],
    );
    let hashed = parse(
        kind,
        json!({"name": "u", "hash_on": "ip", "algorithm": "latency"}),
    );
    assert_eq!(hashed.unwrap()["algorithm"], "consistent-hashing");
}

#[test]
fn targets() {
    let kind = Kind::Target;
    keeps(kind, "target", json!("10.0.0.1"), json!("10.0.0.1:8000"));
    keeps(kind, "target", json!("a.example:80"), json!("a.example:80"));
    keeps(kind, "created_at", json!(1.5), json!(1.5));
    refuses_field(
        kind,
        "weight",
        json!(65536),
        "weight: value should be between 0 and 65535",
    );
    refuses_field(
        kind,
        "target",
        json!("a b"),
        "target: Invalid target ('a b'); not a valid hostname or ip address",
    );
    refuses(
        kind,
        json!({"target": "a"}),
        &["upstream: required field missing"],
    );
}
