//! Routes with expressions, and what each router flavour refuses.

use serde_json::{Value, json};

use super::table_tests::{parse, refuses, refuses_field};
use super::*;
use crate::{Kind, RouterFlavor};

#[test]
fn routes_by_expression() {
    const FAILED: &str = "Router Expression failed validation";
    let kind = Kind::Route;
    let route = parse(
        kind,
        json!({"expression": "http.path == \"/a\"", "priority": 70_368_744_177_663_u64}),
    );
    assert_eq!(route.unwrap()["priority"], json!(70_368_744_177_663_u64));
    parse(
        kind,
        json!({"protocols": ["tcp"], "expression": "net.src.ip in 10.0.0.0/8", "regex_priority": 0}),
    )
    .expect("it should be valid");
    refuses(
        kind,
        json!({"expression": "true"}),
        &[&format!(
            "expression: {FAILED}: line 1, column 5: expected binary_operator"
        )],
    );
    refuses(
        kind,
        json!({"protocols": ["tcp"], "expression": "http.path == \"/a\""}),
        &[&format!(
            "expression: {FAILED}: line 1, column 1: unknown field 'http.path'"
        )],
    );
    let others = "'methods', 'hosts', 'paths', 'headers', 'snis', 'sources' or 'destinations'";
    refuses(
        kind,
        json!({"expression": "http.path == \"/a\"", "hosts": ["a"]}),
        &[&format!(
            "{FAILED}: cannot set 'expression' with {others} simultaneously"
        )],
    );
    refuses(
        kind,
        json!({"expression": "http.path == \"/a\"", "regex_priority": 1}),
        &[&format!(
            "{FAILED}: cannot set 'regex_priority' with 'expression' simultaneously"
        )],
    );
    refuses(
        kind,
        json!({"paths": ["/"], "priority": 1}),
        &[&format!(
            "{FAILED}: cannot set 'priority' with {others} simultaneously"
        )],
    );
    refuses_field(
        kind,
        "priority",
        json!(1_u64 << 46),
        "priority: value should be between 0 and 70368744177663",
    );
}

/// Plugins and all, for a node with one flavour.
struct Flavored(RouterFlavor);

impl PluginSchemas for Flavored {
    fn names(&self) -> Vec<&str> {
        Vec::new()
    }
    fn config(&self, _: &str) -> Option<&Record> {
        None
    }
    fn consumer_scope(&self, _: &str) -> bool {
        false
    }
    fn router_flavor(&self) -> Option<RouterFlavor> {
        Some(self.0)
    }
}

#[test]
fn routes_by_flavor() {
    use RouterFlavor::{Expressions, Traditional, TraditionalCompatible};
    #[track_caller]
    fn check(flavor: RouterFlavor, route: Value, expected: Option<&str>) {
        let found = parse_entity(Kind::Route, route, &Flavored(flavor)).map_err(|errors| {
            let errors: Vec<_> = errors.iter().map(ToString::to_string).collect();
            errors.join("; ")
        });
        assert_eq!(found.err().as_deref(), expected);
    }
    let expression = || json!({"expression": "http.path == \"/a\""});
    let sources = || json!({"paths": ["/"], "sources": [{"ip": "10.0.0.0/8"}]});
    let wildcard = || json!({"snis": ["*.a"], "protocols": ["https"]});
    check(Expressions, expression(), None);
    check(Expressions, sources(), None);
    check(Expressions, wildcard(), None);
    check(
        TraditionalCompatible,
        expression(),
        Some(
            "expression: is for gateways with router_flavor = expressions, this one has \
             traditional_compatible",
        ),
    );
    check(
        TraditionalCompatible,
        sources(),
        Some("sources: cannot set 'sources' when 'protocols' is 'http', 'https'"),
    );
    check(TraditionalCompatible, wildcard(), None);
    check(
        Traditional,
        expression(),
        Some(
            "expression: is for gateways with router_flavor = expressions, this one has traditional",
        ),
    );
    check(
        Traditional,
        sources(),
        Some("sources: cannot set 'sources' when 'protocols' is 'http', 'https'"),
    );
    check(
        Traditional,
        wildcard(),
        Some("snis: '*.a': a wildcard needs router_flavor = traditional_compatible or expressions"),
    );
}
