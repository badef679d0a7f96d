//! The router flavours through a whole gateway.

use super::*;

const EXPRESSIONS: &str = "router_flavor = expressions";

/// A gateway of this flavour whose one service, with the path `/srv`, has these routes.
fn flavored(echo: &Echo, conf: &str, routes: Value) -> Running {
    Running::start(echo.addr(), json!({"path": "/srv", "routes": routes}), conf)
}

#[test]
fn expressions_see_the_whole_request() {
    let echo = Echo::start();
    let gateway = flavored(
        &echo,
        EXPRESSIONS,
        json!([
            {"name": "query", "expression": "http.path ^= \"/q\" && http.queries.a == \"1 2\""},
            {"name": "client", "expression":
                "http.path == \"/c\" && net.src.ip in 127.0.0.0/8 && net.src.port > 0"},
            {"name": "here", "expression":
                "http.path == \"/d\" && net.dst.ip == 127.0.0.1 && net.dst.port == 81"},
            {"name": "regex", "expression": "http.path ~ \"^/v(?P<n>\\\\d+)\"", "priority": 7},
            {"name": "fields", "paths": ["/f"], "sources": [{"ip": "127.0.0.1"}]},
            {"name": "elsewhere", "paths": ["/g"], "sources": [{"ip": "10.0.0.0/8"}]},
            {"name": "tls", "expression": "http.path == \"/tls\"", "protocols": ["https"]},
        ]),
    );
    let upstream = |path: &str| match gateway.get(path) {
        answer if answer.status == 200 => Some(echo.last().unwrap().path),
        answer => {
            assert_eq!(answer.status, 404, "{path}");
            None
        }
    };
    assert_eq!(upstream("/q/x?a=1+2").as_deref(), Some("/srv/x?a=1+2"));
    assert_eq!(upstream("/q/x?a=1"), None);
    assert_eq!(upstream("/c").as_deref(), Some("/srv"));
    assert_eq!(upstream("/d"), None);
    assert_eq!(upstream("/v12/a").as_deref(), Some("/srv/a"));
    assert_eq!(upstream("/f/a").as_deref(), Some("/srv/a"));
    assert_eq!(upstream("/g/a"), None);
    assert_eq!(gateway.get("/tls").status, 426);
    let answer = gateway.raw("GET /d HTTP/1.1\r\nHost: a:81\r\nConnection: close\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[test]
fn only_traditional_knows_v1_paths() {
    let echo = Echo::start();
    for (flavor, expected) in [
        ("traditional_compatible", "/srv/req"),
        ("traditional", "/srvreq"),
        ("expressions", "/srv/req"),
    ] {
        let gateway = flavored(
            &echo,
            &format!("router_flavor = {flavor}"),
            json!([{"name": "r", "paths": ["/rou"], "path_handling": "v1"}]),
        );
        assert_eq!(gateway.get("/roureq").status, 200);
        assert_eq!(echo.last().unwrap().path, expected, "{flavor}");
    }
}

#[test]
fn what_a_flavour_cannot_do_is_named() {
    #[track_caller]
    fn check(flavor: &str, route: Value, expected: [&str; 2]) {
        let declared = json!({"_format_version": "3.0", "services": [
            {"name": "s", "host": "127.0.0.1", "routes": [route]}]});
        let text = format!("database = off\nrouter_flavor = {flavor}\n");
        let environment = [(
            "KONG_DECLARATIVE_CONFIG_STRING".to_owned(),
            declared.to_string(),
        )];
        let (conf, _) = Conf::load(Some(&text), environment, &["key-auth"]).unwrap();
        let material = Material::read(&conf).unwrap();
        let error = match Gateway::check(&conf, &material) {
            Ok(()) => panic!("it should be refused"),
            Err(error) => error.to_string(),
        };
        for part in expected {
            assert!(error.contains(part), "{part:?} is not in {error:?}");
        }
    }
    let expression = json!({"name": "r1", "expression": "http.path == \"/\""});
    check(
        "traditional",
        expression.clone(),
        [
            "r1",
            "expression: is for gateways with router_flavor = expressions",
        ],
    );
    check(
        "traditional_compatible",
        expression,
        ["r1", "this one has traditional_compatible"],
    );
    check(
        "traditional_compatible",
        json!({"name": "r2", "paths": ["/"], "sources": [{"port": 1}]}),
        ["r2", "sources: cannot set 'sources'"],
    );
    check(
        "expressions",
        json!({"name": "r3", "expression": "http.path = \"/\""}),
        [
            "r3",
            "expression: Router Expression failed validation: line 1, column 11",
        ],
    );
    check(
        "expressions",
        json!({"name": "r4", "paths": ["~/\\w{300}"]}),
        ["r4", "paths[0]: invalid regex"],
    );
}
