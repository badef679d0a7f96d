//! What a service takes.

use super::*;

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
