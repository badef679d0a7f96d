//! Side by side with Kong's own engine: what it decides for the same expressions, priorities and
//! ids is what this router decides, for routes of all kinds.

use std::net::IpAddr;

use atc_router::ast::{Type, Value as Fact};
use atc_router::context::Context;
use atc_router::router::Router as Engine;
use atc_router::schema::Schema;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;

fn schema() -> Schema {
    let mut schema = Schema::default();
    for name in [
        "net.protocol",
        "tls.sni",
        "http.method",
        "http.host",
        "http.path",
        "http.path.segments.*",
        "http.headers.*",
        "http.queries.*",
    ] {
        schema.add_field(name, Type::String);
    }
    for name in ["net.src.port", "net.dst.port", "http.path.segments.len"] {
        schema.add_field(name, Type::Int);
    }
    for name in ["net.src.ip", "net.dst.ip"] {
        schema.add_field(name, Type::IpAddr);
    }
    schema
}

/// What the engine is told of a request, worked out from the request and not by our evaluation.
fn context<'s>(schema: &'s Schema, query: &Query<'_>) -> Context<'s> {
    let mut context = Context::new(schema);
    let mut text =
        |name: &str, value: &str| context.add_value(name, Fact::String(value.to_owned()));
    text("net.protocol", if query.tls { "https" } else { "http" });
    if let Some(sni) = query.sni {
        text("tls.sni", sni);
    }
    text("http.method", query.method.as_str());
    text("http.host", query.host);
    text("http.path", query.path);
    let mut segments: Vec<_> = query.path[1..].split('/').collect();
    while segments.last() == Some(&"") {
        segments.pop();
    }
    for (first, start) in segments.iter().enumerate() {
        text(&format!("http.path.segments.{first}"), start);
        for last in first + 1..segments.len() {
            let name = format!("http.path.segments.{first}_{last}");
            text(&name, &segments[first..=last].join("/"));
        }
    }
    for (name, value) in query.headers.iter() {
        let name = name.to_lowercase().replace('-', "_");
        text(
            &format!("http.headers.{name}"),
            std::str::from_utf8(value).unwrap(),
        );
    }
    for pair in query.query.into_iter().flat_map(|query| query.split('&')) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = value.replace('+', " ").replace("%41", "A");
        text(&format!("http.queries.{name}"), &value);
    }
    let ip = |(ip, _): (Option<IpAddr>, _)| Fact::IpAddr(ip.unwrap());
    let port = |(_, port): (_, Option<u16>)| Fact::Int(port.unwrap().into());
    context.add_value("http.path.segments.len", Fact::Int(segments.len() as i64));
    context.add_value("net.src.ip", ip(query.source));
    context.add_value("net.src.port", port(query.source));
    context.add_value("net.dst.ip", Fact::IpAddr(query.local.unwrap()));
    context.add_value(
        "net.dst.port",
        Fact::Int(query.host_port.unwrap_or(query.port).into()),
    );
    context
}

/// The expression that Kong makes of the traditional fields of a route, with these paths.
fn expression(route: &Route, paths: &[&str]) -> String {
    let any = |list: Vec<String>| format!("({})", list.join(" || "));
    let wild = |field: &str, name: &str| match (name.strip_prefix('*'), name.strip_suffix('*')) {
        (Some(suffix), _) => format!("{field} =^ {suffix:?}"),
        (_, Some(prefix)) => format!("{field} ^= {prefix:?}"),
        _ => format!("{field} == {name:?}"),
    };
    let mut all = Vec::new();
    let mut add = |list: Vec<String>| {
        if !list.is_empty() {
            all.push(any(list));
        }
    };
    let snis = route.snis.iter().flatten();
    let snis: Vec<_> = snis
        .map(|sni| wild("tls.sni", sni.trim_end_matches('.')))
        .collect();
    if !snis.is_empty() {
        add(vec!["net.protocol != \"https\"".to_owned(), any(snis)]);
    }
    for (end, peers) in [("src", &route.sources), ("dst", &route.destinations)] {
        add(peers
            .iter()
            .flatten()
            .map(|peer| {
                let ip = peer.ip.as_ref().map(|ip| match ip.contains('/') {
                    true => format!("net.{end}.ip in {ip}"),
                    false => format!("net.{end}.ip == {ip}"),
                });
                let port = peer.port.map(|port| format!("net.{end}.port == {port}"));
                let parts: Vec<_> = ip.into_iter().chain(port).collect();
                format!("({})", parts.join(" && "))
            })
            .collect());
    }
    let methods = route.methods.iter().flatten();
    add(methods
        .map(|method| format!("http.method == {method:?}"))
        .collect());
    add(route
        .hosts
        .iter()
        .flatten()
        .map(|host| {
            let (host, port) = split_port(host).unwrap();
            let name = wild("http.host", host);
            port.map_or(name.clone(), |port| {
                format!("({name} && net.dst.port == {port})")
            })
        })
        .collect());
    add(paths
        .iter()
        .map(|path| match path.strip_prefix('~') {
            Some(regex) => format!("http.path ~ r#\"^{regex}\"#"),
            None => format!("http.path ^= {path:?}"),
        })
        .collect());
    for (name, values) in route.headers.iter().flatten() {
        let field = format!(
            "any(lower(http.headers.{}))",
            name.to_lowercase().replace('-', "_")
        );
        add(values
            .iter()
            .map(|value| match value.strip_prefix("~*") {
                Some(regex) => format!("{field} ~ r#\"{}\"#", regex.to_lowercase()),
                None => format!("{field} == {:?}", value.to_lowercase()),
            })
            .collect());
    }
    all.join(" && ")
}

/// The engine with the routes of a flavour, by the ids of the split routes.
fn engine<'s>(
    schema: &'s Schema,
    flavor: RouterFlavor,
    routes: &[Route],
) -> (Engine<'s>, BTreeMap<Uuid, usize>) {
    let mut engine = Engine::new(schema);
    let mut of = BTreeMap::new();
    for (index, route) in routes.iter().enumerate() {
        let mut add = |priority: Priority, text: String| {
            let text = match flavor {
                EXPRESSIONS => {
                    let words = route
                        .protocols
                        .iter()
                        .map(|protocol| format!("{protocol:?}"));
                    let words: Vec<_> = words
                        .map(|word| format!("net.protocol == {:?}", word.to_lowercase()))
                        .collect();
                    match &route.protocols[..] {
                        [Protocol::Https] => text,
                        _ => format!("{text} && ({})", words.join(" || ")),
                    }
                }
                _ => text,
            };
            let id = Uuid::from_u128(priority.tie());
            engine
                .add_matcher(priority.bits as usize, id, &text)
                .expect(&text);
            of.insert(id, index);
        };
        match &route.expression {
            Some(text) => add(priority::of_expression(route), text.clone()),
            None => {
                for part in priority::parts(flavor, route) {
                    add(part.priority, expression(route, &part.paths));
                }
            }
        }
    }
    (engine, of)
}

/// Both decide the same: route, bytes of the path, captures.
fn compare(flavor: RouterFlavor, routes: &[Route], requests: &[Request<'_>]) {
    let schema = schema();
    let (engine, of) = engine(&schema, flavor, routes);
    let router = Router::new(flavor).updated(routes).unwrap().0;
    for request in requests {
        request.ask(|query| {
            let mut context = context(&schema, query);
            engine.execute(&mut context);
            let theirs = context.result;
            let ours = router.find(query);
            let index = ours.map(|found| {
                let slot = |route: &Route| router.slot(route.id) == Some(found.slot);
                routes.iter().position(slot).unwrap()
            });
            assert_eq!(
                index,
                theirs.as_ref().map(|found| of[&found.uuid]),
                "{request:?}"
            );
            let (Some(ours), Some(theirs)) = (ours, theirs) else {
                return;
            };
            let bytes = theirs
                .matches
                .get("http.path")
                .map_or(0, |path| match path {
                    Fact::String(text) => query.path.floor_char_boundary(text.len()),
                    other => panic!("{other:?}"),
                });
            assert_eq!(ours.matched, bytes, "{request:?}");
            let named = |name: &String| name.parse::<usize>().is_err();
            let groups = theirs.captures.keys().filter(|name| !named(name)).count();
            let captures = ours.captures(query);
            assert_eq!(captures.is_some(), groups > 1, "{request:?}");
            for (name, value) in captures.map(|captures| captures.named).unwrap_or_default() {
                assert_eq!(theirs.captures.get(&name), Some(&value));
            }
        });
    }
}

const REQUESTS: [&str; 16] = [
    "GET x.com/",
    "GET x.com/a",
    "POST x.com/a/b",
    "GET y.x.com/a/b/c?q=1&q=2",
    "GET y.x.com/abc?q",
    "POST x.org/A/b?q=%41+b",
    "GET z:9000/a",
    "GET x.com:9000/a/b/c/d",
    "PUT y.org/zb",
    "GET z/a/b/",
    "GET a.y.x.com/b/a",
    "GET x/ab",
    "GET x.com/a/12/c",
    "GET com/a%2fb",
    "GET x.net/é/b",
    "GET q/a?r=1&q=A",
];

fn requests() -> Vec<Request<'static>> {
    let mut all = Vec::new();
    for line in REQUESTS {
        all.push(get(line));
        all.push(get(line).tls(Some("x.com")).header("x-a", "One"));
        all.push(Request {
            source: "10.0.0.1:80",
            ..get(line).header("X-A", "two").header("x-a", "one")
        });
        all.push(get(line).tls(None).header("x-b", "b2").header("x-a", "TWO"));
    }
    all
}

/// Routes by traditional fields.
fn fields() -> impl Strategy<Value = Value> {
    let some = |list: &[&'static str]| {
        let list = list.to_vec();
        let most = list.len().min(3);
        proptest::option::of(proptest::sample::subsequence(list, 1..=most))
    };
    let peer = select(vec![
        json!({"ip": "10.0.0.1"}),
        json!({"ip": "192.0.2.0/24"}),
        json!({"port": 80}),
        json!({"ip": "192.0.2.1", "port": 4000}),
        json!({"port": 8000}),
        json!({"ip": "2001:db8::/32"}),
    ]);
    (
        some(&["/", "/a", "/a/b", "/ab", "~/a/\\w", "~/.*b", "~/a/(?P<n>\\d+)", "~/(a|b)/(b|a)"]),
        some(&["x.com", "*.x.com", "*.com", "x.*", "y.x.com", "x.com:9000", "*.org:8000", "z:8000"]),
        some(&["GET", "POST"]),
        some(&["x.com", "*.com", "x.*", "y.com."]),
        proptest::option::of((some(&["one", "TWO", "~*^o\\w+"]), some(&["b1", "b2"])).prop_map(|(a, b)| {
            let list = [("X-A", a), ("x-b", b)].into_iter();
            list.filter_map(|(name, values)| values.map(|values| (name.to_owned(), json!(values)))).collect::<serde_json::Map<_, _>>()
        })),
        proptest::option::of(proptest::collection::vec(peer.clone(), 1..3)),
        proptest::option::of(proptest::collection::vec(peer, 1..3)),
        0..3i64,
        select(vec![json!(["http"]), json!(["https"]), json!(["http", "https"])]),
    )
        .prop_map(|(paths, hosts, methods, snis, headers, sources, destinations, regex_priority, protocols)| {
            json!({"paths": paths, "hosts": hosts, "methods": methods, "snis": snis, "headers": headers,
                   "sources": sources, "destinations": destinations, "regex_priority": regex_priority,
                   "protocols": protocols})
        })
        .prop_filter("something must be wanted", |fields| {
            let set = |name: &&str| fields[*name].as_array().is_some_and(|list| !list.is_empty());
            ["paths", "hosts", "methods", "snis", "sources", "destinations"].iter().any(set)
                || fields["headers"].as_object().is_some_and(|map| !map.is_empty())
        })
}

/// Comparisons and what they are made of.
fn comparison() -> impl Strategy<Value = String> {
    let text = select(vec![
        "http.path",
        "lower(http.path)",
        "http.host",
        "lower(http.host)",
        "http.method",
        "net.protocol",
        "tls.sni",
        "http.headers.x_a",
        "any(http.headers.x_a)",
        "any(lower(http.headers.x_a))",
        "lower(http.headers.x_b)",
        "http.queries.q",
        "any(http.queries.q)",
        "http.path.segments.0",
        "http.path.segments.1",
        "http.path.segments.0_1",
        "http.path.segments.1_2",
    ]);
    let value = select(vec![
        "\"/a\"",
        "\"/a/b\"",
        "\"/\"",
        "\"\"",
        "\"b\"",
        "\"a/b\"",
        "\"x.com\"",
        "\".com\"",
        "\"x.\"",
        "\"GET\"",
        "\"https\"",
        "\"one\"",
        "\"two\"",
        "\"1\"",
        "\"A b\"",
        "\"é\"",
    ]);
    let regex = select(vec![
        "\"^/a\"",
        "\"b$\"",
        "\"^/(?P<first>\\\\w+)/(b)\"",
        "\"^(x|y)\"",
        "\"\"",
        "\"^/a|c\"",
        "\"(?i)ONE\"",
    ]);
    let number = select(vec![
        "net.src.port",
        "net.dst.port",
        "http.path.segments.len",
    ]);
    prop_oneof![
        4 => (text.clone(), select(vec!["==", "!=", "^=", "=^", "contains"]), value)
            .prop_map(|(field, operator, value)| format!("{field} {operator} {value}")),
        2 => (text, regex).prop_map(|(field, regex)| format!("{field} ~ {regex}")),
        1 => (number, select(vec!["==", "!=", ">", ">=", "<", "<="]), select(vec![0, 1, 2, 80, 4000, 8000]))
            .prop_map(|(field, operator, value)| format!("{field} {operator} {value}")),
        1 => (select(vec!["net.src.ip", "net.dst.ip"]),
              select(vec!["== 10.0.0.1", "!= 10.0.0.1", "in 192.0.2.0/24", "not in 10.0.0.0/8", "in ::/0"]))
            .prop_map(|(field, rest)| format!("{field} {rest}")),
        1 => select(vec!["http.path ^= \"/a\"", "http.path == \"/a\"", "http.host == \"x.com\"",
                         "http.host =^ \".x.com\"", "http.host ^= \"x.\"", "http.path ~ \"^/a/\""])
            .prop_map(str::to_owned),
    ]
}

/// Expressions, with and without parentheses, so that precedence counts.
fn text() -> impl Strategy<Value = String> {
    comparison().prop_recursive(4, 12, 3, |inner| {
        let list = proptest::collection::vec((inner.clone(), any::<bool>()), 1..4);
        prop_oneof![
            3 => list.prop_map(|parts| {
                let mut text = parts[0].0.clone();
                for (part, and) in &parts[1..] {
                    text = format!("{text} {} {part}", if *and { "&&" } else { "||" });
                }
                text
            }),
            1 => inner.clone().prop_map(|text| format!("({text})")),
            1 => inner.prop_map(|text| format!("!({text})")),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn traditional_fields_decide_as_the_expressions_that_kong_makes_of_them(
        flavor in select(vec![COMPATIBLE, EXPRESSIONS]),
        fields in proptest::collection::vec(fields(), 1..8),
    ) {
        compare(flavor, &list(&fields), &requests());
    }

    #[test]
    fn expressions_decide_as_in_kongs_engine(
        texts in proptest::collection::vec((text(), 0..3u64), 1..8),
        fields in proptest::collection::vec(fields(), 0..3),
    ) {
        let expressions = texts.into_iter().map(|(text, priority)| json!({"expression": text, "priority": priority}));
        let all: Vec<_> = expressions.chain(fields).collect();
        compare(EXPRESSIONS, &list(&all), &requests());
    }
}
