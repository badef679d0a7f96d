//! Which of several matching routes wins.

use super::*;

#[test]
fn the_priority_of_a_traditional_route_bit_by_bit() {
    #[track_caller]
    fn check(fields: Value, expected: &[u64]) {
        let route = route(1, &fields);
        let parts = priority::parts(COMPATIBLE, &route);
        let bits: Vec<_> = parts.iter().map(|part| part.priority.bits as u64).collect();
        assert_eq!(bits, expected, "{fields}");
    }
    const PLAIN: u64 = 1 << 60;
    const REGEX: u64 = 1 << 51;
    let kinds = |n: u64| n << 61;
    let headers = |n: u64| n << 52;
    let many: serde_json::Map<_, _> = (0..300).map(|n| (format!("h{n}"), json!(["1"]))).collect();
    check(json!({}), &[0]);
    check(json!({"paths": ["/a"]}), &[kinds(1) | 2]);
    check(json!({"methods": ["GET"]}), &[kinds(1)]);
    check(json!({"snis": ["a"]}), &[kinds(1)]);
    check(json!({"hosts": ["a.com"]}), &[kinds(1) | PLAIN]);
    check(json!({"hosts": ["a.com", "*.a.com"]}), &[kinds(1)]);
    check(
        json!({"hosts": [], "paths": ["/"]}),
        &[kinds(1) | PLAIN | 1],
    );
    check(
        json!({"hosts": ["*.a.com"], "paths": ["/"]}),
        &[kinds(2) | 1],
    );
    check(
        json!({"headers": {"a": ["1"], "b": ["2"]}}),
        &[kinds(1) | headers(2)],
    );
    check(json!({"headers": many}), &[kinds(1) | headers(255)]);
    check(json!({"sources": [{"port": 1}]}), &[kinds(1)]);
    check(
        json!({"paths": ["/"], "hosts": ["a"], "methods": ["GET"], "headers": {"a": ["1"]},
               "snis": ["a"], "sources": [{"port": 1}], "destinations": [{"port": 1}]}),
        &[kinds(7) | PLAIN | headers(1) | 1],
    );
    check(
        json!({"paths": ["~/x"], "regex_priority": 3}),
        &[kinds(1) | REGEX | 3 << 19],
    );
    check(
        json!({"paths": ["/abc"], "regex_priority": 3}),
        &[kinds(1) | 4],
    );
    check(
        json!({"paths": [format!("/{}", "a".repeat(0x8_0001))]}),
        &[kinds(1) | 2], // the length is cut to 19 bits
    );
    check(
        json!({"paths": ["~/x", "/abc", "/xyz", "~/y", "/a"], "regex_priority": 1}),
        &[kinds(1) | REGEX | 1 << 19, kinds(1) | 4, kinds(1) | 2],
    );
}

#[test]
fn split_routes_have_ids_by_the_order_of_their_groups() {
    let ids = |paths: Value| {
        let route = route(7, &json!({"paths": paths}));
        let parts = priority::parts(COMPATIBLE, &route);
        let of = |name: String| {
            Uuid::new_v5(
                &uuid::uuid!("7f145bf9-0dce-4f91-98eb-debbce4b9f6b"),
                name.as_bytes(),
            )
        };
        let named = |n: usize| {
            Priority::new(
                parts[n].priority.bits,
                of(format!("{}#{}", route.id, n + 1)),
            )
        };
        (0..parts.len()).all(|n| parts[n].priority == named(n))
    };
    assert!(ids(json!(["/b", "~/a", "/ab"])));
    let whole = route(7, &json!({"paths": ["/a", "/b"]}));
    let parts = priority::parts(COMPATIBLE, &whole);
    assert_eq!(parts.len(), 1);
    assert_eq!(
        parts[0].priority,
        Priority::new(parts[0].priority.bits, whole.id)
    );
}

#[test]
fn the_longer_prefix_wins() {
    for flavor in ALL {
        routes(
            flavor,
            &[
                json!({"paths": ["/a"]}),
                json!({"paths": ["/a/b", "/"]}),
                json!({"paths": ["/a/b/c"]}),
            ],
        )
        .on("GET x/a/b/c/d", Some(2))
        .on("GET x/a/b/d", Some(1))
        .on("GET x/a/x", Some(0))
        .on("GET x/z", Some(1));
    }
}

/// Each line of the list beats the ones behind it for a request that all of them match.
#[track_caller]
fn ranks(flavor: RouterFlavor, request: &Request<'_>, order: &[Value]) {
    for (n, best) in order.iter().enumerate() {
        for other in &order[n + 1..] {
            routes(flavor, &[best.clone(), other.clone()]).check(request, Some(0));
            routes(flavor, &[other.clone(), best.clone()]).check(request, Some(1));
        }
    }
}

#[test]
fn the_order_of_the_default_flavour() {
    for flavor in [COMPATIBLE, EXPRESSIONS] {
        ranks(
            flavor,
            &get("GET a.com/abc").header("h", "1").header("i", "1"),
            &[
                json!({"hosts": ["a.com"], "methods": ["GET"], "paths": ["/a"]}),
                json!({"hosts": ["*.com"], "methods": ["GET"], "paths": ["/abc"]}),
                json!({"hosts": ["a.com"], "headers": {"h": ["1"], "i": ["1"]}}),
                json!({"hosts": ["a.com"], "headers": {"h": ["1"]}}),
                json!({"hosts": ["a.com"], "paths": ["~/.*"], "regex_priority": 2}),
                json!({"hosts": ["a.com"], "paths": ["~/abc"], "regex_priority": 1}),
                json!({"hosts": ["a.com"], "paths": ["/ab"], "regex_priority": 9}),
                json!({"hosts": ["a.com"], "paths": ["/a"]}),
                json!({"hosts": ["a.com"], "methods": ["GET"]}),
                json!({"hosts": ["*.com"], "headers": {"h": ["1"], "i": ["1"]}}),
                json!({"hosts": ["*.com"], "paths": ["~/a"]}),
                json!({"hosts": ["*.com"], "paths": ["/abc"]}),
                json!({"hosts": ["a.com"]}),
                json!({"headers": {"h": ["1"], "i": ["1"]}}),
                json!({"headers": {"h": ["1"]}}),
                json!({"paths": ["~/a"]}),
                json!({"paths": ["/abc"]}),
                json!({"paths": ["/"]}),
                json!({"methods": ["GET"]}),
            ],
        );
    }
}

#[test]
fn the_order_of_flavour_traditional() {
    ranks(
        TRADITIONAL,
        &get("GET a.com:80/abc").header("h", "1").header("i", "1"),
        &[
            json!({"hosts": ["a.com"], "headers": {"h": ["1"]}, "paths": ["/a"]}),
            json!({"hosts": ["a.com"], "headers": {"h": ["1"]}, "methods": ["GET"]}),
            json!({"hosts": ["*.com:80"], "headers": {"h": ["1"]}}),
            json!({"hosts": ["a.com"], "headers": {"h": ["1"], "i": ["1"]}}),
            json!({"hosts": ["a.com"], "headers": {"h": ["1"]}}),
            json!({"hosts": ["*.com"], "headers": {"h": ["1"], "i": ["1"]}}),
            json!({"hosts": ["a.com"], "paths": ["~/ab"], "regex_priority": -1}),
            json!({"hosts": ["a.com"], "paths": ["~/.*"], "regex_priority": -2}),
            json!({"hosts": ["a.com"], "paths": ["/abc"]}),
            json!({"hosts": ["a.com"], "paths": ["/a"]}),
            json!({"hosts": ["*.com"], "paths": ["~/a"]}),
            json!({"hosts": ["*.com"], "paths": ["/abc"]}),
            json!({"hosts": ["a.com"], "methods": ["GET"]}),
            json!({"headers": {"h": ["1"]}, "paths": ["/a"]}),
            json!({"headers": {"h": ["1"]}, "methods": ["GET"]}),
            json!({"paths": ["~/a"], "methods": ["GET"]}),
            json!({"hosts": ["a.com"]}),
            json!({"headers": {"h": ["1"]}}),
            json!({"paths": ["/a"], "created_at": 5}),
            json!({"paths": ["/a"], "created_at": 6}),
            json!({"paths": ["/a"]}),
            json!({"methods": ["GET"]}),
        ],
    );
}

#[test]
fn ties_go_to_the_higher_id() {
    for flavor in ALL {
        routes(
            flavor,
            &[json!({"paths": ["/a"]}), json!({"paths": ["/a"]})],
        )
        .on("GET x/a", Some(1));
    }
}

#[test]
fn expressions_are_ordered_by_priority_and_above_all_others() {
    routes(
        EXPRESSIONS,
        &[
            json!({"expression": "http.path ^= \"/\""}),
            json!({"expression": "http.path ^= \"/a\"", "priority": 1}),
            json!({"expression": "http.path ^= \"/ab\"", "priority": (1_u64 << 46) - 1}),
            json!({"hosts": ["a.com"], "paths": ["/ab"], "methods": ["GET"]}),
            json!({"expression": "http.path ^= \"/\""}),
        ],
    )
    .on("GET a.com/abc", Some(2))
    .on("GET a.com/ac", Some(1))
    .on("GET a.com/x", Some(4));
}
