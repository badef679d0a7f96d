//! The entity tables: what each accepts, refuses and fills.

use serde_json::{Value, json};
use uuid::Uuid;

use super::tests::TwoPlugins;
use super::*;
use crate::Kind;
use crate::certificate::Certificate;
use crate::certificate::tests::{CA_CERT, EC_CERT, EC_KEY, EC_OTHER_KEY, RSA_CERT, RSA_KEY};

pub(super) const ID: &str = "0dc6f45b-8f8d-40d2-a504-473544ee190b";
/// A public key on P-256 with the `kid` that [`smallest`] has.
pub(super) const EC_JWK: &str = r#"{"kid":"k","kty":"EC","crv":"P-256","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}"#;
pub(super) const OTHER: &str = "7f145bf9-0dce-4f91-98eb-debbce4b9f6b";

pub(super) fn parse(kind: Kind, body: Value) -> Result<Value, Vec<String>> {
    parse_entity(kind, body, &TwoPlugins::new())
        .map_err(|errors| errors.iter().map(ToString::to_string).collect())
}

/// Something valid of each kind.
pub(super) fn smallest(kind: Kind) -> Value {
    match kind {
        Kind::Certificate => json!({"cert": EC_CERT, "key": EC_KEY}),
        Kind::Sni => json!({"name": "a.example", "certificate": {"id": ID}}),
        Kind::CaCertificate => {
            let digest = Certificate::from_pem(CA_CERT).unwrap().digest;
            json!({"cert": CA_CERT, "cert_digest": digest})
        }
        Kind::KeySet => json!({"name": "s"}),
        Kind::Key => json!({"kid": "k", "jwk": EC_JWK}),
        Kind::Service => json!({"host": "a.example"}),
        Kind::Route => json!({"paths": ["/"]}),
        Kind::Consumer => json!({"username": "alice"}),
        Kind::KeyAuth | Kind::Jwt => json!({"consumer": {"id": ID}}),
        Kind::BasicAuth => {
            json!({"consumer": {"id": ID}, "username": "alice", "password": "secret"})
        }
        Kind::HmacAuth => json!({"consumer": {"id": ID}, "username": "alice"}),
        Kind::Acl => json!({"consumer": {"id": ID}, "group": "staff"}),
        Kind::Plugin => json!({"name": "key-auth"}),
        Kind::Upstream => json!({"name": "u"}),
        Kind::Target => json!({"target": "a", "upstream": {"id": ID}}),
        Kind::Vault => json!({"prefix": "my-vault", "name": "env"}),
        Kind::ConsumerGroup => json!({"name": "gold"}),
        Kind::ConsumerGroupMember => {
            json!({"consumer_group": {"id": ID}, "consumer": {"id": OTHER}})
        }
    }
}

fn with(kind: Kind, field: &str, value: Value) -> Value {
    let mut body = smallest(kind);
    body[field] = value;
    body
}

/// The smallest entity with `field` set is accepted, and the field becomes `expected`.
#[track_caller]
fn keeps(kind: Kind, field: &str, given: Value, expected: Value) {
    let entity = parse(kind, with(kind, field, given)).expect("it should be valid");
    assert_eq!(entity[field], expected);
}

/// The whole body is refused with exactly these errors.
#[track_caller]
pub(super) fn refuses(kind: Kind, body: Value, expected: &[&str]) {
    assert_eq!(
        parse(kind, body).expect_err("it should be refused"),
        expected
    );
}

/// The smallest entity with `field` set is refused with one error on that field.
#[track_caller]
pub(super) fn refuses_field(kind: Kind, field: &str, given: Value, message: &str) {
    refuses(kind, with(kind, field, given), &[message]);
}

#[test]
fn a_service_has_kongs_defaults() {
    assert_eq!(
        parse(Kind::Service, json!({"host": "a.example"})).unwrap(),
        json!({
            "id": null, "created_at": null, "updated_at": null, "name": null, "retries": 5,
            "protocol": "http", "host": "a.example", "port": 80, "path": null,
            "connect_timeout": 60000, "write_timeout": 60000, "read_timeout": 60000,
            "tags": null, "client_certificate": null, "tls_verify": null,
            "tls_verify_depth": null, "ca_certificates": null, "enabled": true,
        })
    );
}

#[test]
fn services() {
    let kind = Kind::Service;
    refuses(kind, json!({}), &["host: required field missing"]);
    refuses_field(
        kind,
        "port",
        json!(65536),
        "port: value should be between 0 and 65535",
    );
    refuses_field(
        kind,
        "retries",
        json!(-1),
        "retries: value should be between 0 and 32767",
    );
    refuses_field(
        kind,
        "read_timeout",
        json!(0),
        "read_timeout: value should be between 1 and 2147483646",
    );
    refuses_field(
        kind,
        "protocol",
        json!("ftp"),
        "protocol: expected one of: grpc, grpcs, http, https, tcp, tls, tls_passthrough, udp",
    );
    refuses_field(kind, "host", json!("a b"), "host: invalid value: a b");
    refuses_field(kind, "path", json!("a"), "path: should start with: /");
    refuses_field(kind, "hots", json!(1), "hots: unknown field");
    refuses(
        kind,
        json!({"host": "a", "protocol": "tcp", "path": "/a"}),
        &[
            "failed conditional validation given value of field 'protocol'",
            "path: value must be null",
        ],
    );
    refuses(
        kind,
        json!({"host": "a", "tls_verify": true}),
        &[
            "failed conditional validation given value of field 'protocol'",
            "tls_verify: value must be null",
        ],
    );
    assert!(
        parse(
            kind,
            json!({"host": "a", "protocol": "https", "tls_verify": true})
        )
        .is_ok()
    );
    let trusts = json!({"host": "a", "protocol": "https", "ca_certificates": [ID],
                        "tls_verify_depth": 2});
    assert_eq!(parse(kind, trusts).unwrap()["ca_certificates"], json!([ID]));
    keeps(kind, "client_certificate", json!(ID), json!({"id": ID}));
    keeps(kind, "tags", json!(["b", "a", "b"]), json!(["b", "a"]));
}

#[test]
fn a_url_is_taken_apart() {
    let parts = |url: &str| {
        let service = parse(Kind::Service, json!({"url": url, "port": 1})).unwrap();
        assert!(service.get("url").is_none());
        (
            service["protocol"].clone(),
            service["host"].clone(),
            service["port"].clone(),
            service["path"].clone(),
        )
    };
    let expect = |protocol: &str, host: &str, port: u16, path: Value| {
        (json!(protocol), json!(host), json!(port), path)
    };
    assert_eq!(
        parts("http://a.example"),
        expect("http", "a.example", 80, Value::Null)
    );
    assert_eq!(
        parts("https://a.example/"),
        expect("https", "a.example", 443, json!("/"))
    );
    assert_eq!(
        parts("http://a:8080/v1/x"),
        expect("http", "a", 8080, json!("/v1/x"))
    );
    assert_eq!(
        parts("http://[::1]:81/a:b"),
        expect("http", "[::1]", 81, json!("/a:b"))
    );
    assert_eq!(
        parts("http://[::1]"),
        expect("http", "[::1]", 80, Value::Null)
    );
    for bad in [
        "a.example",
        "http://",
        "http://a?b",
        "http://u@a",
        "http://a:x",
        "http:///p",
        "://",
    ] {
        let message = format!("url: invalid url '{bad}': expected protocol://host[:port][/path]");
        refuses(Kind::Service, json!({"url": bad}), &[&message]);
    }
    refuses(
        Kind::Service,
        json!({"url": 1, "host": "a"}),
        &["url: expected a string"],
    );
}

#[test]
fn a_route_has_kongs_defaults() {
    assert_eq!(
        parse(Kind::Route, json!({"paths": ["/"]})).unwrap(),
        json!({
            "id": null, "created_at": null, "updated_at": null, "name": null,
            "protocols": ["http", "https"], "https_redirect_status_code": 426,
            "strip_path": true, "preserve_host": false, "request_buffering": true,
            "response_buffering": true, "tags": null, "service": null, "snis": null,
            "sources": null, "destinations": null, "methods": null, "hosts": null,
            "paths": ["/"], "headers": null, "regex_priority": 0, "path_handling": "v0",
            "expression": null, "priority": null,
        })
    );
}

#[test]
fn routes() {
    let kind = Kind::Route;
    keeps(
        kind,
        "service",
        json!({"id": ID, "name": "orders"}),
        json!({"id": ID}),
    );
    keeps(
        kind,
        "headers",
        json!({"X-A": ["1"]}),
        json!({"X-A": ["1"]}),
    );
    refuses_field(
        kind,
        "methods",
        json!(["get"]),
        "methods[0]: invalid value: get",
    );
    refuses_field(
        kind,
        "hosts",
        json!(["a", "*a"]),
        "hosts[1]: wildcard must be leftmost or rightmost character",
    );
    refuses_field(
        kind,
        "paths",
        json!(["a"]),
        "paths[0]: should start with: / (fixed path) or ~/ (regex path)",
    );
    refuses_field(
        kind,
        "headers",
        json!({"Host": ["a"]}),
        "headers.Host: cannot contain 'host' header, which must be specified in the 'hosts' \
         attribute",
    );
    refuses_field(
        kind,
        "https_redirect_status_code",
        json!(303),
        "https_redirect_status_code: expected one of: 426, 301, 302, 307, 308",
    );
    refuses_field(
        kind,
        "protocols",
        json!([]),
        "protocols: length must be at least 1",
    );
    refuses_field(
        kind,
        "protocols",
        json!(["http", "tcp"]),
        "protocols: these sets are mutually exclusive: ('http', 'https'), ('tcp', 'tls', \
         'udp'), ('tls_passthrough'), ('grpc', 'grpcs')",
    );
    refuses_field(
        kind,
        "headers",
        json!({"X-A": ["1", "~*("]}),
        "headers.X-A[1]: invalid regex: '(' (unclosed group)",
    );
    refuses_field(
        kind,
        "paths",
        json!(["~/\\w{100}"]),
        "paths[0]: invalid regex: '/\\w{100}' (Compiled regex exceeds size limit of 1048576 bytes.)",
    );
}

#[test]
fn routes_by_protocol() {
    let kind = Kind::Route;
    refuses(
        kind,
        json!({}),
        &[
            "must set one of 'methods', 'hosts', 'headers', 'paths', 'snis' when 'protocols' is \
         'http', 'https'",
        ],
    );
    refuses(
        kind,
        json!({"protocols": ["http"], "paths": []}),
        &["must set one of 'methods', 'hosts', 'headers', 'paths' when 'protocols' is 'http'"],
    );
    refuses(
        kind,
        json!({"protocols": ["http"], "paths": ["/"], "snis": ["a"]}),
        &[
            "'snis' can only be set when 'protocols' is 'grpcs', 'https', 'tls' or 'tls_passthrough'",
        ],
    );
    refuses(
        kind,
        json!({"paths": ["/"], "sources": [{"port": 1}]}),
        &["sources: cannot set 'sources' when 'protocols' is 'http', 'https'"],
    );
    refuses(
        kind,
        json!({"protocols": ["grpc"], "methods": ["GET"], "strip_path": true}),
        &[
            "must set one of 'hosts', 'headers', 'paths' when 'protocols' is 'grpc'",
            "methods: cannot set 'methods' when 'protocols' is 'grpc'",
            "strip_path: cannot set 'strip_path' when 'protocols' is 'grpc'",
        ],
    );
    refuses(
        kind,
        json!({"protocols": ["tcp"], "paths": ["/"]}),
        &[
            "must set one of 'sources', 'destinations', 'snis' when 'protocols' is 'tcp'",
            "paths: cannot set 'paths' when 'protocols' is 'tcp'",
        ],
    );
    refuses(
        kind,
        json!({"protocols": ["tls_passthrough"]}),
        &["must set one of 'snis' when 'protocols' is 'tls_passthrough'"],
    );
    refuses(
        kind,
        json!({"protocols": ["tcp"], "sources": [{}]}),
        &[
            "sources[0]: at least one of these fields must be non-empty: 'sources[0].ip', \
         'sources[0].port'",
        ],
    );
    for good in [
        json!({"protocols": ["https"], "snis": ["a.example"]}),
        json!({"protocols": ["grpc", "grpcs"], "hosts": ["a"]}),
        json!({"protocols": ["tcp"], "sources": [{"ip": "10.0.0.0/8"}]}),
        json!({"protocols": ["tls", "udp"], "snis": ["*.a"], "destinations": [{"port": 5}]}),
        json!({"protocols": ["tls_passthrough"], "snis": ["a"]}),
    ] {
        parse(kind, good).expect("it should be valid");
    }
    let grpc = parse(kind, json!({"protocols": ["grpc"], "hosts": ["a"]})).unwrap();
    assert_eq!(grpc["strip_path"], false);
}

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
    let rsa = json!(include_str!("../public_key/keys/rsa.pem"));
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
fn certificates_and_keys_belong_together() {
    let kind = Kind::Certificate;
    refuses(
        kind,
        json!({"cert": EC_CERT}),
        &["key: required field missing"],
    );
    refuses_field(
        kind,
        "key",
        json!(EC_OTHER_KEY),
        "key: the private key does not belong to the certificate in 'cert'",
    );
    refuses_field(
        kind,
        "cert",
        json!("x"),
        "cert: invalid certificate: expected PEM text that begins with -----BEGIN CERTIFICATE-----",
    );
    refuses_field(
        kind,
        "key",
        json!(EC_CERT),
        "key: invalid key: expected PEM text that begins with -----BEGIN PRIVATE KEY-----",
    );
    keeps(
        kind,
        "cert",
        json!("{vault://env/c}"),
        json!("{vault://env/c}"),
    );
    let mut both = smallest(kind);
    both["cert_alt"] = json!(RSA_CERT);
    refuses(
        kind,
        both.clone(),
        &["all or none of these fields must be set: 'cert_alt', 'key_alt'"],
    );
    both["key_alt"] = json!(RSA_KEY);
    assert_eq!(parse(kind, both.clone()).unwrap()["key_alt"], RSA_KEY);
    both["cert_alt"] = json!(EC_CERT);
    both["key_alt"] = json!(EC_KEY);
    let same = "cert_alt: certificate and alternative certificate need to have different type \
                (e.g. RSA and ECDSA), the provided certificates were both of the same type";
    refuses(kind, both, &[same]);
}

#[test]
fn names_and_authorities() {
    for name in ["a.example", "*.example", "a.*", "*"] {
        keeps(Kind::Sni, "name", json!(name), json!(name));
    }
    for name in ["a:80", "a.*.b", "a b", "**"] {
        assert!(
            parse(Kind::Sni, with(Kind::Sni, "name", json!(name))).is_err(),
            "{name}"
        );
    }
    refuses(
        Kind::Sni,
        json!({"name": "a"}),
        &["certificate: required field missing"],
    );
    let kind = Kind::CaCertificate;
    let given = json!({"cert": CA_CERT, "cert_digest": "00"});
    let digest = parse(kind, given).unwrap()["cert_digest"].clone();
    assert_eq!(digest.as_str().map(str::len), Some(64));
    let unique = index(kind, &parse(kind, smallest(kind)).unwrap()).unique;
    assert_eq!(
        unique,
        [("cert_digest", digest.as_str().unwrap().to_owned())]
    );
    refuses_field(
        kind,
        "cert",
        json!(EC_CERT),
        "cert: certificate does not appear to be a CA because it is missing the \"CA\" basic \
         constraint",
    );
    refuses_field(
        kind,
        "cert",
        json!(format!("{CA_CERT}{CA_CERT}")),
        "cert: please submit only one certificate at a time",
    );
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

#[test]
fn payloads_may_bring_times_and_ttl() {
    let parse = |kind, body| parse_entity_in(kind, body, Mode::Payload, &TwoPlugins::new());
    let body = json!({"consumer": ID, "key": "k", "updated_at": 5, "ttl": null, "later": null});
    assert_eq!(
        parse(Kind::KeyAuth, body).unwrap()["consumer"],
        json!({"id": ID})
    );
    assert!(parse(Kind::Service, json!({"host": "a", "ttl": 5})).is_ok());
    assert!(parse(Kind::Service, json!({"host": "a", "later": 5})).is_err());
}

#[test]
fn a_writer_completes_what_was_not_given() {
    let id = Uuid::from_u128(7);
    let fill = Fill {
        id,
        created_at: 1,
        updated_at: 2,
        random_keys: ["secret", "other"],
    };
    let mut key = parse(Kind::KeyAuth, smallest(Kind::KeyAuth)).unwrap();
    fill.apply(Kind::KeyAuth, &mut key);
    assert_eq!(key["id"], id.to_string());
    assert_eq!(key["key"], "secret");
    assert_eq!(key["created_at"], 1);
    assert_eq!(key.get("updated_at"), None);
    let mut jwt = parse(Kind::Jwt, smallest(Kind::Jwt)).unwrap();
    fill.apply(Kind::Jwt, &mut jwt);
    assert_eq!(
        (&jwt["key"], &jwt["secret"]),
        (&json!("secret"), &json!("other"))
    );
    let mut given = parse(Kind::Jwt, with(Kind::Jwt, "key", json!("issuer"))).unwrap();
    fill.apply(Kind::Jwt, &mut given);
    assert_eq!(
        (&given["key"], &given["secret"]),
        (&json!("issuer"), &json!("other"))
    );
    let mut service = parse(
        Kind::Service,
        json!({"id": ID, "host": "a", "created_at": 9}),
    )
    .unwrap();
    fill.apply(Kind::Service, &mut service);
    assert_eq!(
        (
            &service["id"],
            &service["created_at"],
            &service["updated_at"]
        ),
        (&json!(ID), &json!(1), &json!(2))
    );
}

#[test]
fn indexes_say_what_is_unique_and_what_refers_to_what() {
    let id: Uuid = ID.parse().unwrap();
    let route = parse(
        Kind::Route,
        json!({"name": "r", "paths": ["/"], "service": {"id": ID}, "tags": ["t"]}),
    );
    assert_eq!(
        index(Kind::Route, &route.unwrap()),
        Index {
            unique: vec![("name", "r".to_owned())],
            foreign: vec![("service", Kind::Service, id, OnDelete::Restrict)],
            tags: vec!["t".to_owned()],
        }
    );
    let target = parse(Kind::Target, smallest(Kind::Target)).unwrap();
    let found = index(Kind::Target, &target);
    assert_eq!(found.unique, [("upstream, target", format!("{ID}|a:8000"))]);
    assert_eq!(found.unique, [unique_target(id, "a").unwrap()]);
    assert_eq!(
        found.foreign,
        [("upstream", Kind::Upstream, id, OnDelete::Cascade)]
    );
    let plugin = json!({
        "name": "rate-limiting", "config": {"second": 1}, "service": {"id": OTHER},
        "consumer": {"id": ID},
    });
    let plugin = parse(Kind::Plugin, plugin).unwrap();
    assert_eq!(
        index(Kind::Plugin, &plugin).unique,
        [(
            "name, route, service, consumer",
            format!("rate-limiting||{OTHER}|{ID}"),
        )]
    );
    let consumer = parse(Kind::Consumer, json!({"username": "a", "custom_id": "1"})).unwrap();
    assert_eq!(
        index(Kind::Consumer, &consumer).unique,
        [("username", "a".to_owned()), ("custom_id", "1".to_owned()),]
    );
}
