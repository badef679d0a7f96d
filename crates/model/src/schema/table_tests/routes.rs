//! What a route takes.

use super::*;

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
