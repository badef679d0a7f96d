//! What consumers, their credentials and plugins take.

use super::*;

#[test]
fn consumers_and_keys() {
    refuses(
        Kind::Consumer,
        json!({}),
        &["at least one of these fields must be non-empty: 'custom_id', 'username'"],
    );
    keeps(Kind::Consumer, "custom_id", json!("42"), json!("42"));
    refuses(
        Kind::KeyAuth,
        json!({"key": "k"}),
        &["consumer: required field missing"],
    );
    keeps(Kind::KeyAuth, "key", Value::Null, Value::Null);
    keeps(
        Kind::KeyAuth,
        "consumer",
        json!({"id": ID.to_uppercase(), "username": "alice"}),
        json!({"id": ID}),
    );
    keeps(Kind::KeyAuth, "ttl", json!(60), json!(60));
    refuses_field(
        Kind::KeyAuth,
        "ttl",
        json!(-1),
        "ttl: value should be between 0 and 100000000",
    );
}

#[test]
fn credentials_of_other_plugins() {
    assert_eq!(
        parse(Kind::BasicAuth, smallest(Kind::BasicAuth)).unwrap(),
        json!({
            "id": null, "created_at": null, "consumer": {"id": ID}, "username": "alice",
            "password": "secret", "tags": null,
        })
    );
    refuses(
        Kind::BasicAuth,
        json!({"consumer": {"id": ID}}),
        &[
            "username: required field missing",
            "password: required field missing",
        ],
    );
    refuses(
        Kind::HmacAuth,
        json!({"username": "a", "secret": ""}),
        &[
            "consumer: required field missing",
            "secret: length must be at least 1",
        ],
    );
    assert_eq!(
        parse(Kind::Jwt, smallest(Kind::Jwt)).unwrap(),
        json!({
            "id": null, "created_at": null, "consumer": {"id": ID}, "key": null, "secret": null,
            "rsa_public_key": null, "algorithm": "HS256", "tags": null,
        })
    );
    refuses_field(
        Kind::Jwt,
        "algorithm",
        json!("none"),
        "algorithm: expected one of: HS256, HS384, HS512, RS256, RS384, RS512, ES256, ES384, \
         ES512, PS256, PS384, PS512, EdDSA",
    );
    let with_key = |algorithm: &str, key: Value| {
        let mut body = with(Kind::Jwt, "algorithm", json!(algorithm));
        body["rsa_public_key"] = key;
        parse(Kind::Jwt, body)
    };
    assert_eq!(
        with_key("RS256", Value::Null).unwrap_err(),
        [
            "failed conditional validation given value of field 'algorithm'",
            "rsa_public_key: required field missing",
        ]
    );
    assert_eq!(
        with_key("ES256", json!("no key")).unwrap_err(),
        [
            "rsa_public_key: invalid key: expected a PEM block that begins with \
          -----BEGIN PUBLIC KEY-----"
        ]
    );
    let rsa = json!(include_str!("../../public_key/keys/rsa.pem"));
    assert_eq!(
        with_key("PS512", rsa.clone()).unwrap()["rsa_public_key"],
        rsa
    );
    assert!(with_key("HS256", json!("ignored, as in Kong")).is_ok());
    refuses(
        Kind::Acl,
        json!({"consumer": {"id": ID}}),
        &["group: required field missing"],
    );
    let acl = parse(Kind::Acl, smallest(Kind::Acl)).unwrap();
    let id: Uuid = ID.parse().unwrap();
    assert_eq!(
        index(Kind::Acl, &acl).unique,
        [unique_child(Kind::Acl, id, "staff").unwrap()]
    );
}

#[test]
fn plugins() {
    let kind = Kind::Plugin;
    assert_eq!(
        parse(kind, json!({"name": "key-auth", "route": {"id": ID}})).unwrap(),
        json!({
            "id": null, "created_at": null, "updated_at": null, "name": "key-auth",
            "instance_name": null, "route": {"id": ID}, "service": null, "consumer": null,
            "consumer_group": null, "config": {"key_names": ["apikey"]},
            "protocols": ["grpc", "grpcs", "http", "https"], "enabled": true, "tags": null,
        })
    );
    refuses(kind, json!({}), &["name: required field missing"]);
    refuses(
        kind,
        json!({"name": "nope", "tags": 1}),
        &[
            "tags: expected a set",
            "name: plugin 'nope' not enabled; add it to the 'plugins' configuration property",
        ],
    );
    refuses_field(
        kind,
        "consumer",
        json!({"id": ID}),
        "consumer: value must be null",
    );
    refuses_field(
        kind,
        "protocols",
        json!(["tcp"]),
        "protocols[0]: expected one of: grpc, grpcs, http, https",
    );
    refuses_field(kind, "config", json!(1), "config: expected a record");
    refuses_field(
        kind,
        "config",
        json!({"key_name": 1}),
        "config.key_name: unknown field",
    );
    keeps(kind, "config", json!([]), json!({"key_names": ["apikey"]}));
    refuses(
        kind,
        json!({"name": "rate-limiting", "config": {}}),
        &["at least one of these fields must be non-empty: 'config.second', 'config.minute'"],
    );
    let limit = parse(
        kind,
        json!({
            "name": "rate-limiting", "consumer": {"id": ID},
            "config": {"minute": 5, "redis_host": "r"},
        }),
    );
    assert_eq!(
        limit.unwrap()["config"],
        json!({
            "second": null, "minute": 5, "policy": "local", "redis": {"host": "r", "port": 6379},
        })
    );
}
