//! Which requests a route matches, attribute by attribute.

use super::*;

#[test]
fn paths_are_prefixes_of_bytes_not_of_segments() {
    for flavor in ALL {
        routes(flavor, &[json!({"paths": ["/rou"]})])
            .on("GET a/route", Some(0))
            .on("GET a/rou", Some(0))
            .on("GET a/ro", None)
            .on("GET a/x/rou", None);
    }
}

#[test]
fn regex_paths_are_anchored_at_their_start_only() {
    for flavor in ALL {
        let case = routes(
            flavor,
            &[
                json!({"paths": ["~/a/\\d+"]}),
                json!({"paths": ["~/b$"]}),
                json!({"paths": ["~/c|/d"]}),
            ],
        );
        case.on("GET h/a/12/rest", Some(0))
            .on("GET h/x/a/12", None)
            .on("GET h/b", Some(1))
            .on("GET h/b/c", None)
            .on("GET h/d/1", Some(2))
            .on("GET h/x/d", None);
        assert_eq!(case.find(&get("GET h/a/123/rest")), Some((0, 6)));
    }
}

#[test]
fn hosts_are_plain_or_wild_at_one_end() {
    for flavor in ALL {
        routes(
            flavor,
            &[
                json!({"hosts": ["*.example.com"]}),
                json!({"hosts": ["A.example.com"]}),
                json!({"hosts": ["a.example.*"]}),
                json!({"hosts": ["[::1]"]}),
            ],
        )
        .on("GET a.example.com/", Some(1))
        .on("GET z.example.com/", Some(0))
        .on("GET y.z.example.com/", Some(0))
        .on("GET example.com/", None)
        .on("GET xexample.com/", None)
        .on("GET a.example.org/", Some(2))
        .on("GET b.example.org/", None)
        .on("GET [::1]:8080/", Some(3));
    }
}

#[test]
fn a_host_with_a_port_demands_that_port() {
    let hosts = [
        json!({"hosts": ["a.com:8000"]}),
        json!({"hosts": ["b.com:9000"]}),
        json!({"hosts": ["*.c.com:9000"]}),
        json!({"hosts": ["*.d.com:80"]}),
    ];
    for flavor in [COMPATIBLE, EXPRESSIONS] {
        // what the client wrote, else the listener's
        routes(flavor, &hosts)
            .on("GET a.com/", Some(0))
            .on("GET a.com:9000/", None)
            .on("GET b.com/", None)
            .on("GET b.com:9000/", Some(1))
            .on("GET x.c.com:9000/", Some(2))
            .on("GET x.d.com/", None);
    }
    // what the client wrote, else the scheme's and only for wildcards
    routes(TRADITIONAL, &hosts)
        .on("GET a.com/", None)
        .on("GET a.com:8000/", Some(0))
        .on("GET b.com:9000/", Some(1))
        .on("GET x.c.com/", None)
        .on("GET x.d.com/", Some(3));
}

#[test]
fn methods_are_exact() {
    for flavor in ALL {
        routes(flavor, &[json!({"methods": ["POST", "PURGE"]})])
            .on("POST a/", Some(0))
            .on("PURGE a/", Some(0))
            .on("post a/", None)
            .on("GET a/", None);
    }
}

#[test]
fn headers_are_compared_without_case_and_any_line_may_match() {
    for flavor in ALL {
        let case = routes(
            flavor,
            &[
                json!({"headers": {"X-Version": ["v1", "V2", "größe"]}}),
                json!({"headers": {"x-version": ["~*^beta-\\d$"], "x-tenant": ["a"]}}),
            ],
        );
        let version = |value| get("GET a/").header("x-version", value);
        case.check(&version("V1"), Some(0))
            .check(&version("v3"), None)
            .check(&version("v3").header("X-Version", "v2"), Some(0))
            .check(&version("GRÖSSE"), None)
            .check(&version("Beta-7").header("x-tenant", "A"), Some(1))
            .check(&version("beta-7"), None)
            .check(&version("beta-77").header("x-tenant", "A"), None)
            .check(&get("GET a/").header("x_version", "v1"), Some(0));
    }
}

#[test]
fn server_names_bind_only_tls_requests() {
    for flavor in ALL {
        let case = routes(
            flavor,
            &[json!({"snis": ["Secure.com."], "protocols": ["https"]})],
        );
        case.check(&get("GET a/").tls(Some("secure.com")), Some(0))
            .check(&get("GET a/").tls(Some("other.com")), None)
            .check(&get("GET a/").tls(None), None)
            .on("GET a/", Some(0)); // so that the redirect can be given
    }
    for flavor in [COMPATIBLE, EXPRESSIONS] {
        let case = routes(
            flavor,
            &[json!({"snis": ["*.a.com"]}), json!({"snis": ["b.*"]})],
        );
        case.check(&get("GET a/").tls(Some("x.a.com")), Some(0))
            .check(&get("GET a/").tls(Some("b.org")), Some(1))
            .check(&get("GET a/").tls(Some("a.com")), None);
    }
}

#[test]
fn protocols_bind_only_in_flavour_expressions() {
    let protocols = [
        json!({"paths": ["/plain"], "protocols": ["http"]}),
        json!({"paths": ["/tls"], "protocols": ["https"]}),
        json!({"paths": ["/grpcs"], "protocols": ["grpcs"]}),
        json!({"paths": ["/both"]}),
        json!({"snis": ["a"], "protocols": ["tls"]}),
    ];
    for flavor in [COMPATIBLE, TRADITIONAL] {
        let case = routes(flavor, &protocols);
        for (n, path) in ["/plain", "/tls", "/grpcs", "/both"].iter().enumerate() {
            let line = format!("GET a{path}");
            case.on(&line, Some(n))
                .check(&get(&line).tls(None), Some(n));
        }
    }
    let case = routes(EXPRESSIONS, &protocols);
    case.on("GET a/plain", Some(0))
        .check(&get("GET a/plain").tls(None), None)
        .on("GET a/tls", Some(1)) // to be redirected
        .check(&get("GET a/tls").tls(None), Some(1))
        .on("GET a/grpcs", None)
        .check(&get("GET a/grpcs").tls(None), Some(2))
        .on("GET a/both", Some(3))
        .check(&get("GET a/").tls(Some("a")), None);
}

#[test]
fn sources_and_destinations() {
    let case = routes(
        EXPRESSIONS,
        &[
            json!({"paths": ["/a"], "sources": [{"ip": "192.0.2.7/24"}, {"ip": "10.0.0.1"}]}),
            json!({"paths": ["/b"], "sources": [{"ip": "192.0.2.1", "port": 4000}]}),
            json!({"paths": ["/c"], "destinations": [{"port": 8000}]}),
            json!({"paths": ["/d"], "destinations": [{"ip": "198.51.100.0/24", "port": 1}]}),
        ],
    );
    let from = |line, source| Request {
        source,
        ..get(line)
    };
    case.on("GET x/a", Some(0))
        .check(&from("GET x/a", "10.0.0.1:1"), Some(0))
        .check(&from("GET x/a", "10.0.0.2:1"), None)
        .check(&from("GET x/a", "[2001:db8::1]:1"), None)
        .on("GET x/b", Some(1))
        .check(&from("GET x/b", "192.0.2.1:4001"), None)
        .on("GET x/c", Some(2))
        .on("GET x:80/c", None)
        .on("GET x:1/d", Some(3))
        .on("GET x/d", None);
}

#[test]
fn captures_are_there_on_request() {
    let captures = |flavor, fields: Value, line: &str| {
        let case = routes(flavor, &[fields]);
        get(line).ask(|query| case.router.find(query).unwrap().captures(query))
    };
    for flavor in ALL {
        let found = captures(
            flavor,
            json!({"paths": ["~/u/(?<id>\\d+)/(x)?(\\w+)"]}),
            "GET a/u/12/abc/d",
        )
        .unwrap();
        let numbered = [(0, "/u/12/abc"), (1, "12"), (3, "abc")];
        let numbered = numbered.map(|(n, text)| (n, text.to_owned()));
        assert_eq!(found.numbered, BTreeMap::from(numbered));
        assert_eq!(
            found.named,
            BTreeMap::from([("id".to_owned(), "12".to_owned())])
        );
        assert_eq!(captures(flavor, json!({"paths": ["~/u"]}), "GET a/u"), None);
        assert_eq!(captures(flavor, json!({"paths": ["/u"]}), "GET a/u"), None);
    }
    let text =
        r#"http.host ~ "^(?P<tenant>\\w+)\\." && http.path ~ r\#"^/v(\d)"\#"#.replace("\\#", "#");
    let found = captures(
        EXPRESSIONS,
        json!({"expression": text}),
        "GET acme.com/v2/x",
    )
    .unwrap();
    assert_eq!(found.named["tenant"], "acme");
    assert_eq!(found.numbered[&1], "2", "the later one");
}

#[test]
fn what_cannot_be_used_is_named_by_field() {
    #[track_caller]
    fn check(fields: Value, expected: &str) {
        let good = json!({"paths": ["/"]});
        let error = Router::new(EXPRESSIONS)
            .updated(&list(&[good, fields]))
            .unwrap_err();
        assert_eq!(error.len(), 1);
        assert_eq!(error[0].0, 1, "the index of the route");
        let error = error[0].1.to_string();
        assert!(error.contains(expected), "{expected:?} is not in {error:?}");
    }
    check(
        json!({"paths": ["~/("]}),
        "paths: invalid regex '~/(': unclosed group",
    );
    check(json!({"paths": ["~/(?=a)"]}), "look-around");
    check(
        json!({"paths": ["~/\\w{100}"]}),
        "paths: invalid regex '~/\\w{100}': Compiled regex exceeds size limit",
    );
    check(
        json!({"paths": ["~/((a{100}){100}){100}"]}),
        "exceeds size limit",
    );
    check(json!({"hosts": ["a*b"]}), "hosts: invalid host 'a*b'");
    check(
        json!({"headers": {"x": ["~*("]}}),
        "headers.x: invalid regex '~*(': unclosed group",
    );
    check(
        json!({"headers": {"x": ["~*\\w{100}"]}}),
        "headers.x: invalid regex",
    );
    check(
        json!({"headers": {"a b": ["1"]}}),
        "headers: invalid name 'a b'",
    );
    check(json!({"methods": ["A B"]}), "methods: invalid method 'A B'");
    check(
        json!({"sources": [{"ip": "10.0.0.300"}]}),
        "sources: invalid address or network '10.0.0.300'",
    );
    check(
        json!({"expression": "http.path == "}),
        "expression: line 1, column 14: expected",
    );
    check(
        json!({"expression": "http.path == 1"}),
        "expression: line 1, column 1: 'http.path': Type mismatch",
    );
}

#[test]
fn a_hostile_text_costs_no_more_than_its_length() {
    // a backtracking engine needs 2^30 steps here
    let case = routes(COMPATIBLE, &[json!({"paths": ["~/(a+)+$"]})]);
    case.on(&format!("GET h/{}b", "a".repeat(4_000)), None);
}
