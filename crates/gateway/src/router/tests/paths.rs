//! The path that goes upstream, for every row of Kong's own cases and for captures.

use sallyport_model::entities::PathHandling;

use super::*;

/// Path of the service, path of the route (`-`: it matches by host), `strip_path`,
/// `path_handling`, path of the request, path sent; `*` is both.
const CASES: &str = "
/         /       *     *  /                /
/         /       *     *  /route           /route
/         /       *     *  /route/          /route/
/         /       *     *  /routereq        /routereq
/         /       *     *  /route/req       /route/req
/         /route  keep  *  /route           /route
/         /route  keep  *  /route/          /route/
/         /route  keep  *  /routereq        /routereq
/         /route  strip *  /route           /
/         /route  strip *  /route/          /
/         /route  strip *  /routereq        /req
/         /route/ keep  *  /route/          /route/
/         /route/ keep  *  /route/req       /route/req
/         /route/ strip *  /route/          /
/         /route/ strip *  /route/req       /req
/srv      /rou    keep  v0 /roureq          /srv/roureq
/srv      /rou    keep  v1 /roureq          /srvroureq
/srv      /rou    strip v0 /roureq          /srv/req
/srv      /rou    strip v1 /roureq          /srvreq
/srv/     /rou    keep  *  /rou             /srv/rou
/srv/     /rou    strip v0 /rou             /srv
/srv/     /rou    strip v1 /rou             /srv/
/service  /       *     *  /                /service
/service  /       *     v0 /route           /service/route
/service  /       *     v1 /route           /serviceroute
/service  /       *     v0 /route/          /service/route/
/service  /       *     v1 /route/          /serviceroute/
/service  /       *     v0 /routereq        /service/routereq
/service  /       *     v1 /routereq        /serviceroutereq
/service  /       *     v0 /route/req       /service/route/req
/service  /       *     v1 /route/req       /serviceroute/req
/service  /route  keep  v0 /route           /service/route
/service  /route  keep  v1 /route           /serviceroute
/service  /route  keep  v0 /route/          /service/route/
/service  /route  keep  v1 /route/          /serviceroute/
/service  /route  keep  v0 /routereq        /service/routereq
/service  /route  keep  v1 /routereq        /serviceroutereq
/service  /route  strip *  /route           /service
/service  /route  strip *  /route/          /service/
/service  /route  strip v0 /routereq        /service/req
/service  /route  strip v1 /routereq        /servicereq
/service  /route/ keep  v0 /route/          /service/route/
/service  /route/ keep  v1 /route/          /serviceroute/
/service  /route/ keep  v0 /route/req       /service/route/req
/service  /route/ keep  v1 /route/req       /serviceroute/req
/service  /route/ strip v0 /route/          /service/
/service  /route/ strip v1 /route/          /service
/service  /route/ strip v0 /route/req       /service/req
/service  /route/ strip v1 /route/req       /servicereq
/service/ /       *     v0 /route/          /service/route/
/service/ /       *     v1 /route/          /service/route/
/service/ /       *     *  /                /service/
/service/ /       *     *  /route           /service/route
/service/ /       *     *  /routereq        /service/routereq
/service/ /       *     *  /route/req       /service/route/req
/service/ /route  keep  *  /route           /service/route
/service/ /route  keep  *  /route/          /service/route/
/service/ /route  keep  *  /routereq        /service/routereq
/service/ /route  strip v0 /route           /service
/service/ /route  strip v1 /route           /service/
/service/ /route  strip *  /route/          /service/
/service/ /route  strip *  /routereq        /service/req
/service/ /route/ keep  *  /route/          /service/route/
/service/ /route/ keep  *  /route/req       /service/route/req
/service/ /route/ strip *  /route/          /service/
/service/ /route/ strip *  /route/req       /service/req
/         -       *     *  /                /
/         -       *     *  /route           /route
/         -       *     *  /route/          /route/
/service  -       *     *  /                /service
/service  -       *     v0 /route           /service/route
/service  -       *     v1 /route           /serviceroute
/service  -       *     v0 /route/          /service/route/
/service  -       *     v1 /route/          /serviceroute/
/service/ -       *     *  /                /service/
/service/ -       *     *  /route           /service/route
/service/ -       *     *  /route/          /service/route/
/service  /route  strip v0 /route./req      /service/req
/service  /route  strip v1 /route./req      /servicereq
/service/ /route  strip *  /route./req      /service/req
/service  /route  strip v0 /route%2E/req    /service/req
/service  /route  strip v1 /route%2E/req    /servicereq
/service/ /route  strip *  /route%2E/req    /service/req
/service  /route  strip v0 /route%2e/req    /service/req
/service  /route  strip v1 /route%2e/req    /servicereq
/service/ /route  strip *  /route%2e/req    /service/req
/service  /route  strip v0 /route../req     /service/req
/service  /route  strip v1 /route../req     /servicereq
/service/ /route  strip *  /route../req     /service/req
/service  /route  strip v0 /route%2E%2E/req /service/req
/service  /route  strip v1 /route%2E%2E/req /servicereq
/service/ /route  strip *  /route%2E%2E/req /service/req
/service  /route  strip v0 /route%2e%2E/req /service/req
/service  /route  strip v1 /route%2e%2E/req /servicereq
/service/ /route  strip *  /route%2e%2E/req /service/req
/service  /route  keep  v0 /route./req      /service/route./req
/service  /route  keep  v1 /route./req      /serviceroute./req
/service/ /route  keep  *  /route./req      /service/route./req
/service  /route  keep  v0 /route%2E/req    /service/route./req
/service  /route  keep  v1 /route%2E/req    /serviceroute./req
/service/ /route  keep  *  /route%2E/req    /service/route./req
/service  /route  keep  v0 /route%2e/req    /service/route./req
/service  /route  keep  v1 /route%2e/req    /serviceroute./req
/service/ /route  keep  *  /route%2e/req    /service/route./req
/service  /route  keep  v0 /route../req     /service/route../req
/service  /route  keep  v1 /route../req     /serviceroute../req
/service/ /route  keep  *  /route../req     /service/route../req
/service  /route  keep  v0 /route%2E%2E/req /service/route../req
/service  /route  keep  v1 /route%2E%2E/req /serviceroute../req
/service/ /route  keep  *  /route%2E%2E/req /service/route../req
/service  /route  keep  v0 /route%2e%2E/req /service/route../req
/service  /route  keep  v1 /route%2e%2E/req /serviceroute../req
/service/ /route  keep  *  /route%2e%2E/req /service/route../req
";

#[test]
fn paths_join_as_in_kongs_cases() {
    let mut checked = 0;
    for row in CASES.lines().filter(|row| !row.is_empty()) {
        let [service, path, strip, handling, request, expected] =
            row.split_whitespace().collect::<Vec<_>>()[..]
        else {
            panic!("{row}");
        };
        let fields = match path {
            "-" => json!({"hosts": ["a"]}),
            path => json!({"paths": [path]}),
        };
        for (word, handling_here) in [("v0", PathHandling::V0), ("v1", PathHandling::V1)] {
            for (strip_word, strips) in [("strip", true), ("keep", false)] {
                if ![word, "*"].contains(&handling) || ![strip_word, "*"].contains(&strip) {
                    continue;
                }
                for flavor in ALL {
                    let case = routes(flavor, std::slice::from_ref(&fields));
                    let (_, matched) = case.find(&get(&format!("GET a{request}"))).expect(row);
                    let cut = if strips { matched } else { 0 };
                    let sent =
                        upstream_path(handling_here, service, &normalise(request), cut, strips);
                    assert_eq!(sent, expected, "{row}");
                }
                checked += 1;
            }
        }
    }
    assert_eq!(checked, 212);
}

/// What is sent for a route with an expression or a regex, `strip_path` and a service without path.
#[track_caller]
fn check(fields: Value, request: &str, expected: &str) {
    let case = routes(EXPRESSIONS, &[fields]);
    let (_, matched) = case.find(&get(&format!("GET a{request}"))).unwrap();
    let sent = upstream_path(PathHandling::V0, "/", &normalise(request), matched, true);
    assert_eq!(sent, expected);
}

#[test]
fn what_a_regex_or_an_expression_matched_is_cut_off() {
    let expression = |text: &str| json!({ "expression": text });
    check(json!({"paths": ["~/v\\d+/u"]}), "/v12/users/3", "/sers/3");
    check(expression("http.path ^= \"/v1\""), "/v1/a", "/a");
    check(expression("http.path == \"/v1\""), "/v1", "/");
    check(expression("http.path ~ \"^/v\\\\d+\""), "/v12/a", "/a");
    check(
        expression("http.path ^= \"/v\" && http.path ~ \"^/v1/a\""),
        "/v1/a/b",
        "/b",
    );
    // the last comparison that held counts, also in a part that failed as a whole
    check(
        expression("(http.path ^= \"/v1\" && http.method == \"X\") || http.host == \"a\""),
        "/v1/a",
        "/a",
    );
    check(expression("http.host == \"a\""), "/v1/a", "/v1/a");
    check(expression("http.path contains \"v1\""), "/v1/a", "/v1/a");
    // as many bytes as matched, wherever that was
    check(expression("http.path =^ \"/bc\""), "/a/bc", "/bc");
    check(
        expression("http.path =^ \"bc\""),
        "/\u{e9}/bc",
        "/%C3%A9/bc",
    );
}
