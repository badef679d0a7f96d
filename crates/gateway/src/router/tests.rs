use http::HeaderValue;
use serde_json::{Value, json};
use uuid::Uuid;

use super::*;

/// A route with the schema's defaults and these fields; its id is `n`.
fn route(n: u128, fields: Value) -> Route {
    let mut all = json!({
        "id": Uuid::from_u128(n), "protocols": ["http", "https"], "https_redirect_status_code": 426,
        "regex_priority": 0, "strip_path": true, "preserve_host": false,
        "request_buffering": true, "response_buffering": true,
    });
    for (name, value) in fields.as_object().unwrap() {
        all[name] = value.clone();
    }
    serde_json::from_value(all).unwrap()
}

struct Case {
    router: Router,
}

/// A router over these routes, in this order.
fn routes(list: &[Value]) -> Case {
    let list: Vec<_> = list
        .iter()
        .enumerate()
        .map(|(n, fields)| route(n as u128 + 1, fields.clone()))
        .collect();
    Case {
        router: Router::new(&list).unwrap(),
    }
}

impl Case {
    fn find(&self, line: &str, headers: &[(&str, &str)], sni: Option<&str>) -> Option<Match> {
        let (method, target) = line.split_once(' ').unwrap();
        let (host, path) = target.split_at(target.find('/').unwrap());
        let mut map = Fields::new();
        for (name, value) in headers {
            map.append(
                &name.parse::<http::HeaderName>().unwrap(),
                &HeaderValue::from_str(value).unwrap(),
            );
        }
        self.router.find(&Query {
            method: &method.parse().unwrap(),
            host,
            port: 8000,
            path: &normalise(path),
            headers: &map,
            sni,
            tls: sni.is_some(),
        })
    }

    #[track_caller]
    fn check(&self, line: &str, expected: Option<usize>) -> &Case {
        assert_eq!(
            self.find(line, &[], None).map(|found| found.route),
            expected,
            "{line}"
        );
        self
    }
}

#[test]
fn paths_are_prefixes_of_bytes_not_of_segments() {
    routes(&[json!({"paths": ["/rou"]})])
        .check("GET a/route", Some(0))
        .check("GET a/rou", Some(0))
        .check("GET a/ro", None);
}

#[test]
fn the_longer_prefix_wins() {
    routes(&[
        json!({"paths": ["/a"]}),
        json!({"paths": ["/a/b", "/"]}),
        json!({"paths": ["/a/b/c"]}),
    ])
    .check("GET x/a/b/c/d", Some(2))
    .check("GET x/a/b/d", Some(1))
    .check("GET x/a/x", Some(0))
    .check("GET x/z", Some(1));
}

#[test]
fn more_kinds_of_attributes_beat_longer_paths() {
    routes(&[
        json!({"paths": ["/a/very/long/path"]}),
        json!({"paths": ["/"], "hosts": ["x.com"]}),
        json!({"paths": ["/"], "hosts": ["x.com"], "methods": ["POST"]}),
        json!({"methods": ["DELETE"]}),
    ])
    .check("GET x.com/a/very/long/path", Some(1))
    .check("POST x.com/a/very/long/path", Some(2))
    .check("GET y.com/a/very/long/path", Some(0))
    .check("DELETE y.com/", Some(3))
    .check("GET y.com/", None);
}

#[test]
fn plain_hosts_beat_wildcards() {
    routes(&[
        json!({"hosts": ["*.example.com"]}),
        json!({"hosts": ["a.example.com"]}),
        json!({"hosts": ["a.example.*"]}),
        json!({"hosts": ["b.example.com", "*.b.org"]}),
    ])
    .check("GET a.example.com/", Some(1))
    .check("GET z.example.com/", Some(0))
    .check("GET y.z.example.com/", Some(0))
    .check("GET example.com/", None)
    .check("GET a.example.org/", Some(2))
    .check("GET x.b.org/", Some(3));
}

#[test]
fn a_host_with_a_port_demands_that_port() {
    routes(&[
        json!({"hosts": ["a.com:8000"]}),
        json!({"hosts": ["b.com:9000"]}),
    ])
    .check("GET a.com/", Some(0))
    .check("GET b.com/", None);
}

#[test]
fn regexes_beat_prefixes_and_follow_their_own_priority() {
    routes(&[
        json!({"paths": ["/users/1"]}),
        json!({"paths": ["~/users/\\d+$"]}),
        json!({"paths": ["~/users/(?<id>\\d+)"], "regex_priority": 5}),
        json!({"paths": ["~/posts/(?P<id>[a-z]+)"]}),
    ])
    .check("GET a/users/1", Some(2))
    .check("GET a/posts/abc/def", Some(3))
    .check("GET a/posts/1", None)
    .check("GET a/x/posts/abc", None);
    let case = routes(&[json!({"paths": ["~/a/\\d+"]})]);
    assert_eq!(case.find("GET h/a/123/rest", &[], None).unwrap().matched, 6);
}

#[test]
fn headers_are_compared_without_case_and_any_line_may_match() {
    let case = routes(&[
        json!({"headers": {"X-Version": ["v1", "V2"]}}),
        json!({"headers": {"x-version": ["~*^beta-\\d$"], "x-tenant": ["a"]}}),
    ]);
    let find =
        |headers: &[(&str, &str)]| case.find("GET a/", headers, None).map(|found| found.route);
    assert_eq!(find(&[("x-version", "V1")]), Some(0));
    assert_eq!(find(&[("x-version", "v3"), ("x-version", "v2")]), Some(0));
    assert_eq!(find(&[("x-version", "Beta-7"), ("x-tenant", "A")]), Some(1));
    assert_eq!(find(&[("x-version", "beta-7")]), None);
}

#[test]
fn server_names_bind_only_tls_requests() {
    let case = routes(&[json!({"snis": ["secure.com."], "protocols": ["https"]})]);
    assert!(case.find("GET a/", &[], Some("secure.com")).is_some());
    assert!(case.find("GET a/", &[], Some("other.com")).is_none());
    assert!(
        case.find("GET a/", &[], None).is_some(),
        "so that the redirect can be given"
    );
}

#[test]
fn ties_go_to_the_higher_id() {
    routes(&[json!({"paths": ["/a"]}), json!({"paths": ["/a"]})]).check("GET x/a", Some(1));
}

#[test]
fn priority_bits_are_laid_out_as_kong_does() {
    let bits = |fields| {
        let route = route(1, fields);
        priority::parts(&route)
            .into_iter()
            .map(|part| part.bits())
            .collect::<Vec<_>>()
    };
    assert_eq!(bits(json!({"paths": ["/a"]})), [(1 << 61) | 2]);
    assert_eq!(bits(json!({"hosts": ["a.com"]})), [(1 << 61) | (1 << 60)]);
    assert_eq!(
        bits(json!({"hosts": ["*.a.com"], "paths": ["/"]})),
        [(2 << 61) | 1]
    );
    assert_eq!(
        bits(json!({"headers": {"a": ["1"], "b": ["2"]}, "paths": ["~/x"], "regex_priority": 3})),
        [(2 << 61) | (2 << 52) | (1 << 51) | (3 << 19)]
    );
    assert_eq!(
        bits(json!({"paths": ["~/x", "/abc", "/xyz", "/a"]})).len(),
        3,
        "split in three"
    );
}

#[test]
fn bad_patterns_are_named() {
    let error = |fields| {
        Router::new(&[route(1, fields)]).unwrap_err()[0]
            .1
            .to_string()
    };
    assert!(error(json!({"paths": ["~/("]})).contains("~/("));
    assert!(error(json!({"hosts": ["a*b"]})).contains("a*b"));
    assert!(error(json!({"headers": {"x": ["~*("]}})).contains("headers.x"));
}

/// The router agrees with trying every route in turn and taking the greatest priority.
#[test]
fn the_index_decides_as_a_linear_search_would() {
    use proptest::prelude::*;
    use proptest::sample::{select, subsequence};

    let fields = (
        proptest::option::of(subsequence(
            vec!["/", "/a", "/a/b", "/ab", "~/a/\\w", "~/.*b"],
            1..3,
        )),
        proptest::option::of(subsequence(vec!["x.com", "*.com", "x.*", "y.x.com"], 1..3)),
        proptest::option::of(subsequence(vec!["GET", "POST"], 1..2)),
        0..3i64,
    );
    let requests = (
        select(vec!["/", "/a", "/a/b/c", "/abc", "/zb"]),
        select(vec!["x.com", "y.x.com", "x.org", "z"]),
        select(vec!["GET", "POST", "PUT"]),
    );
    let case = (proptest::collection::vec(fields, 1..8), requests);
    let mut runner = proptest::test_runner::TestRunner::default();
    runner
        .run(&case, |(fields, (path, host, method))| {
            let list: Vec<Value> = fields
                .iter()
                .map(|(paths, hosts, methods, regex_priority)| {
                    json!({"paths": paths, "hosts": hosts, "methods": methods,
                           "regex_priority": regex_priority})
                })
                .collect();
            let line = format!("{method} {host}{path}");
            let all = routes(&list)
                .find(&line, &[], None)
                .map(|found| found.route);
            let alone = list
                .iter()
                .enumerate()
                .filter(|(_, fields)| {
                    routes(&[(*fields).clone()])
                        .find(&line, &[], None)
                        .is_some()
                })
                .map(|(n, fields)| {
                    let route = route(n as u128 + 1, fields.clone());
                    (best_part(&route, path), n)
                })
                .max()
                .map(|(_, n)| n);
            prop_assert_eq!(all, alone);
            Ok(())
        })
        .unwrap();
}

/// The greatest priority among the parts of a route that match a path.
fn best_part(route: &Route, path: &str) -> Priority {
    let matches = |part: &priority::Part<'_>| {
        part.paths.is_empty()
            || part
                .paths
                .iter()
                .any(|pattern| match pattern.strip_prefix('~') {
                    Some(regex) => PathRegex::new(regex).unwrap().matches(path).is_some(),
                    None => path.starts_with(pattern),
                })
    };
    priority::parts(route)
        .into_iter()
        .filter(matches)
        .map(|part| part.priority)
        .max()
        .unwrap()
}
