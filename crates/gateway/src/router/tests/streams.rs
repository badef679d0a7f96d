//! Connections that are not HTTP.

use super::*;

fn router(flavor: RouterFlavor, fields: &[Value]) -> StreamRouter {
    StreamRouter::new(flavor, &list(fields)).unwrap()
}

/// A connection: `tcp`, `tls` or `udp`, from, to, and the name of TLS.
fn find(router: &StreamRouter, line: &str, sni: Option<&str>) -> Option<usize> {
    let words: Vec<_> = line.split(' ').collect();
    router.find(&StreamQuery {
        udp: words[0] == "udp",
        tls: words[0] == "tls",
        sni,
        source: words[1].parse().unwrap(),
        destination: words[2].parse().unwrap(),
    })
}

#[test]
fn connections_are_matched_by_both_ends_and_by_name() {
    for flavor in ALL {
        let routes = router(
            flavor,
            &[
                json!({"protocols": ["tcp"], "sources": [{"ip": "10.0.0.0/8"}]}),
                json!({"protocols": ["tcp"], "sources": [{"ip": "10.1.0.1"}]}),
                json!({"protocols": ["tcp"], "destinations": [{"port": 9001}, {"port": 9002}]}),
                json!({"protocols": ["tls"], "snis": ["a.com."]}),
                json!({"paths": ["/"]}),
            ],
        );
        assert_eq!(
            find(&routes, "tcp 192.0.2.1:1 127.0.0.1:9001", Some("a.com")),
            Some(3),
            "{flavor:?}"
        );
        assert!(find(&routes, "tcp 192.0.2.1:1 127.0.0.1:9002", None).is_some());
        assert_eq!(
            find(&routes, "tcp 192.0.2.1:1 127.0.0.1:1", Some("b.com")),
            None
        );
    }
    let routes = router(
        COMPATIBLE,
        &[
            json!({"protocols": ["tcp"], "sources": [{"ip": "10.0.0.0/8"}]}),
            json!({"protocols": ["tcp"], "sources": [{"ip": "10.1.0.1"}]}),
        ],
    );
    assert_eq!(find(&routes, "tcp 10.2.0.1:1 127.0.0.1:1", None), Some(0));
    assert_eq!(find(&routes, "tcp 10.1.0.1:1 127.0.0.1:1", None), Some(1));
    assert_eq!(
        find(&routes, "tcp [::ffff:10.1.0.1]:1 127.0.0.1:1", None),
        Some(1)
    );
    assert_eq!(find(&routes, "tcp 192.0.2.1:1 127.0.0.1:1", None), None);
}

#[test]
fn the_order_of_stream_routes() {
    let bits = |fields: Value| priority::of_stream(&route(1, &fields)).bits as u64;
    let first = 1 << 61;
    assert_eq!(bits(json!({"snis": ["a"]})), first);
    assert_eq!(bits(json!({"sources": [{"ip": "10.0.0.1"}]})), 8 << 4);
    assert_eq!(
        bits(json!({"sources": [{"ip": "10.0.0.1", "port": 1}]})),
        12 << 4
    );
    assert_eq!(
        bits(json!({"sources": [{"ip": "10.0.0.0/8"}, {"port": 1}]})),
        5 << 4
    );
    assert_eq!(bits(json!({"destinations": [{"ip": "10.0.0.0/8"}]})), 1);
    assert_eq!(
        bits(json!({"sources": [{"port": 1}], "destinations": [{"ip": "10.0.0.1"}]})),
        first | 4 << 4 | 8
    );
    let routes = router(
        COMPATIBLE,
        &[
            json!({"protocols": ["tls"], "snis": ["a.com"]}),
            json!({"protocols": ["tls"], "snis": ["*.com"], "destinations": [{"port": 1}]}),
            json!({"protocols": ["tcp"], "sources": [{"port": 1}], "destinations": [{"port": 1}]}),
            json!({"protocols": ["tcp"], "destinations": [{"ip": "127.0.0.1"}]}),
        ],
    );
    assert_eq!(
        find(&routes, "tcp 10.0.0.1:1 127.0.0.1:1", Some("a.com")),
        Some(2)
    );
    assert_eq!(
        find(&routes, "tcp 10.0.0.1:2 127.0.0.1:1", Some("a.com")),
        Some(1)
    );
    assert_eq!(
        find(&routes, "tcp 10.0.0.1:2 127.0.0.1:2", Some("a.com")),
        Some(0)
    );
    assert_eq!(
        find(&routes, "tcp 10.0.0.1:2 127.0.0.1:2", Some("b.com")),
        Some(3)
    );
}

#[test]
fn names_bind_tls_only_unless_traditional() {
    let names = [json!({"protocols": ["tls"], "snis": ["a.com"]})];
    for (flavor, expected) in [
        (COMPATIBLE, Some(0)),
        (TRADITIONAL, None),
        (EXPRESSIONS, Some(0)),
    ] {
        let found = find(&router(flavor, &names), "tcp 10.0.0.1:2 127.0.0.1:2", None);
        assert_eq!(found, expected, "{flavor:?}");
    }
}

#[test]
fn tls_without_a_name_is_for_no_name() {
    for flavor in ALL {
        let routes = router(
            flavor,
            &[
                json!({"protocols": ["tls_passthrough"], "snis": ["a.com"]}),
                json!({"protocols": ["tls"], "destinations": [{"port": 2}]}),
            ],
        );
        let found = |line: &str| find(&routes, line, None);
        assert_eq!(found("tls 10.0.0.1:2 127.0.0.1:1"), None, "{flavor:?}");
        assert_eq!(found("tls 10.0.0.1:2 127.0.0.1:2"), Some(1), "{flavor:?}");
    }
}

#[test]
fn expressions_of_stream_routes() {
    let routes = router(
        EXPRESSIONS,
        &[
            json!({"protocols": ["tcp"], "expression": "net.dst.port == 1 && net.src.ip in 10.0.0.0/8"}),
            json!({"protocols": ["udp"], "expression": "net.dst.port == 1"}),
            json!({"protocols": ["tls_passthrough"], "expression": "tls.sni =^ \".a.com\"", "priority": 5}),
        ],
    );
    assert_eq!(find(&routes, "tcp 10.0.0.1:2 127.0.0.1:1", None), Some(0));
    assert_eq!(find(&routes, "tcp 11.0.0.1:2 127.0.0.1:1", None), None);
    assert_eq!(find(&routes, "udp 11.0.0.1:2 127.0.0.1:1", None), Some(1));
    assert_eq!(
        find(&routes, "tcp 10.0.0.1:2 127.0.0.1:1", Some("x.a.com")),
        Some(2)
    );
    let bad = StreamRouter::new(
        EXPRESSIONS,
        &list(&[json!({"protocols": ["tcp"], "expression": "http.path == \"/\""})]),
    );
    assert!(
        bad.unwrap_err()[0]
            .1
            .to_string()
            .starts_with("expression: line 1, column 1: unknown field")
    );
}
