//! Reading catalogues, the lint, host names and the plain renderers, from outside.

use proptest::prelude::*;
use sallyport_contract::{
    Catalogue, CatalogueError, Filter, HostPattern, Names, Role, catalogue, entry,
    hosted_control_plane, lint, original_appliance, render, rows,
};

#[test]
fn the_catalogues_are_complete_and_unambiguous() {
    for catalogue in [catalogue(), hosted_control_plane(), original_appliance()] {
        let findings: Vec<String> = lint(catalogue).iter().map(ToString::to_string).collect();
        assert!(findings.is_empty(), "{}: {findings:#?}", catalogue.name);
    }
}

#[test]
fn ids_that_listeners_and_dials_ask_for() {
    for (id, port) in [
        ("proxy.http", 8000),
        ("proxy.https", 8443),
        ("status", 8007),
        ("admin.http", 8001),
        ("admin.https", 8444),
        ("config_sync", 443),
        ("telemetry", 443),
        ("identity", 443),
        ("control_planes", 443),
        ("core_entities", 443),
        ("audit_log", 8071),
        ("console", 443),
        ("dev_portal", 443),
        ("mesh_sync", 443),
        ("ip_addresses", 443),
        ("kic", 443),
        ("forward_proxy", 3128),
        ("database", 27017),
        ("node_control", 7777),
        ("rate_limit", 9001),
        ("webtask.logs", 8721),
        ("webtask.control", 8701),
        ("maintenance", 22),
        ("healthcheck", 9110),
        ("appliance_cli", 10121),
        ("updates.packages", 80),
        ("updates.images", 5000),
        ("updates.extensions", 443),
        ("usage", 443),
        ("upstream", 80),
        ("dns", 53),
        ("ntp", 123),
        ("smtp", 587),
        ("redis", 6379),
        ("quickstart.echo", 8009),
    ] {
        assert_eq!(entry(id).port().get(), port, "{id}");
    }
    assert!(entry("healthcheck.icmp").icmp);
    assert!(entry("quickstart.echo").loopback);
}

#[test]
#[should_panic(expected = "`no_such` is not in the network contract")]
fn an_unknown_id_is_a_programming_error() {
    entry("no_such");
}

const HEAD: &str = "format = 1\nname = \"n\"\ntitle = \"t\"\n";
const GOOD: &str = "[[entry]]
id = \"one\"
title = \"One\"
ports = [\"443/tcp\"]
from = [\"client\"]
to = [\"gateway\"]
protocol = \"https\"
tls = \"tls\"
required = true
owner = \"site\"
why = \"because\"
source = [\"product\"]
";

#[track_caller]
fn check_error(text: &str, want: &str) {
    let error = Catalogue::parse(text).expect_err(text).to_string();
    assert!(error.contains(want), "{error:?} lacks {want:?}");
}

#[test]
fn a_broken_catalogue_names_line_entry_and_field() {
    assert!(lint(&Catalogue::parse(&format!("{HEAD}{GOOD}")).expect("good")).is_empty());
    let with = |from: &str, to: &str| {
        let text = GOOD.replace(from, to);
        assert_ne!(text, GOOD, "{from} is not in the sample");
        format!("{HEAD}{text}")
    };
    check_error(
        &with("443/tcp", "443"),
        "line 7, entry one, field ports: `443` is not a port",
    );
    check_error(
        &with("443/tcp", "0/tcp"),
        "line 7, entry one, field ports: port 0",
    );
    check_error(
        &with("[\"443/tcp\"]", "[\n  \"443/tcp\",\n  \"x\"\n]"),
        "line 7, entry one, field ports: `x`",
    );
    check_error(
        &with("title =", "titel ="),
        "line 6, entry one, field titel: unknown field `titel`",
    );
    check_error(
        &with("why = \"because\"\n", ""),
        "entry one: missing field `why`",
    );
    check_error(
        &with("\"client\"", "\"clint\""),
        "line 8, entry one, field from: unknown variant `clint`",
    );
    check_error(
        &with("id = \"one\"", "id = \"One\""),
        "field id: `One` is not an id",
    );
    check_error(
        &with("why =", "hosts = [\"a.<bas>\"]\nwhy ="),
        "entry one, field hosts: `a.<bas>` is not a host pattern",
    );
    check_error(
        &with("why =", "addresses = [\"1.2.3\"]\nwhy ="),
        "entry one, field addresses",
    );
    check_error(&with("id = \"one\"\n", ""), "entry #1: missing field `id`");
    check_error(
        "format = 2\nnew = true\n",
        "line 1: catalogue format 2, this build reads format 1",
    );
    check_error(
        "format = 1\nname = \"n\"\ntitle = \"t\"\nx = 1\n",
        "line 4, field x: unknown field `x`",
    );
    check_error("format = 1\nname = \"n\n", "line 2");
    check_error("", "missing field `format`");
    assert!(matches!(
        Catalogue::parse("format = 99999999999"),
        Err(CatalogueError::Format {
            line: 1,
            found: 99_999_999_999
        })
    ));
}

#[track_caller]
fn check_lint(text: &str, want: &str) {
    let catalogue = Catalogue::parse(text).unwrap_or_else(|error| panic!("{error}"));
    let findings: Vec<String> = lint(&catalogue).iter().map(ToString::to_string).collect();
    assert!(
        findings.iter().any(|finding| finding.contains(want)),
        "{findings:?} lacks {want:?}"
    );
}

#[test]
fn the_lint_finds_what_is_missing_or_said_twice() {
    let with = |from: &str, to: &str| {
        let text = GOOD.replace(from, to);
        assert_ne!(text, GOOD, "{from} is not in the sample");
        format!("{HEAD}{text}")
    };
    let two = GOOD.replace("\"one\"", "\"two\"");
    check_lint(HEAD, "a catalogue without entries");
    check_lint(
        &format!("{HEAD}{GOOD}{GOOD}"),
        "entry one, field id: used by an earlier entry",
    );
    check_lint(
        &format!("{HEAD}{GOOD}{two}"),
        "entry two, field ports: same port, acceptor and host as `one`",
    );
    check_lint(
        &with("tls = \"tls\"", "tls = \"mtls\""),
        "field certificate: an mtls row names",
    );
    check_lint(
        &with("[\"443/tcp\"]", "[]"),
        "field ports: neither a port nor icmp",
    );
    check_lint(&with("required = true", "required = false"), "field when");
    check_lint(&with("[\"gateway\"]", "[\"external\"]"), "field peer");
    check_lint(&with("[\"gateway\"]", "[]"), "at least one role");
    check_lint(
        &with("\"because\"", "\" \""),
        "field why: must not be empty",
    );
    check_lint(&with("[\"product\"]", "[]"), "field source");
    check_lint(&with("why =", "feature = \"x\"\nwhy ="), "`x` is not among");
    check_lint(
        &with("why =", "shares = [\"x\"]\nwhy ="),
        "there is no entry `x`",
    );
    check_lint(
        &with("why =", "hosts = [\"<geo>.a.<base>\"]\nwhy ="),
        "<geo> without a list of geos",
    );
    check_lint(
        &with("why =", "hosts = [\"<prefix>.<base>\"]\nwhy ="),
        "matches too much",
    );
    // Same port under different names is no overlap; a geo that is also a literal is.
    let named = |host: &str, id: &str| {
        GOOD.replace("\"one\"", id)
            .replace("why =", &format!("hosts = [\"{host}\"]\nwhy ="))
    };
    let pair = |a: &str, b: &str| {
        format!(
            "{HEAD}geos = [\"eu\"]\n{}{}",
            named(a, "\"one\""),
            named(b, "\"two\"")
        )
    };
    let clean = Catalogue::parse(&pair("<geo>.api.<base>", "global.api.<base>")).expect("good");
    assert_eq!(lint(&clean), []);
    check_lint(&pair("<geo>.api.<base>", "eu.api.<base>"), "as `one`");
    check_lint(&pair("<prefix>.api.<base>", "eu.api.<base>"), "as `one`");
}

/// id, geo, prefix, portal.
type Parts<'a> = (&'a str, Option<&'a str>, Option<&'a str>, Option<&'a str>);

#[track_caller]
fn check_host(host: &str, want: Option<Parts<'_>>) {
    let found = catalogue().match_host("Sally.Example.", host);
    let got = found.as_ref().map(|found| {
        let (geo, prefix, portal) = (&found.geo, &found.prefix, &found.portal);
        (
            found.entry.id.as_str(),
            geo.as_deref(),
            prefix.as_deref(),
            portal.as_deref(),
        )
    });
    assert_eq!(got, want, "{host}");
}

#[test]
fn hosts_lead_back_to_their_rows() {
    check_host(
        "abc.eu.cp0.sally.example",
        Some(("config_sync", Some("eu"), Some("abc"), None)),
    );
    check_host(
        "abc.eu.cp.sally.example",
        Some(("config_sync", Some("eu"), Some("abc"), None)),
    );
    check_host(
        "ABC.US.TP0.Sally.Example.",
        Some(("telemetry", Some("us"), Some("abc"), None)),
    );
    check_host(
        "abc.us.tp.sally.example",
        Some(("telemetry", Some("us"), Some("abc"), None)),
    );
    check_host(
        "eu.kic.api.sally.example",
        Some(("kic", Some("eu"), None, None)),
    );
    check_host(
        "eu.api.sally.example",
        Some(("control_planes", Some("eu"), None, None)),
    );
    check_host(
        "global.api.sally.example",
        Some(("identity", None, None, None)),
    );
    check_host("cloud.sally.example", Some(("console", None, None, None)));
    check_host(
        "p1.in.portal.sally.example",
        Some(("dev_portal", Some("in"), None, Some("p1"))),
    );
    check_host(
        "global.mesh.sync.sally.example",
        Some(("mesh_sync", Some("global"), None, None)),
    );
    check_host(
        "ip-addresses.origin.sally.example",
        Some(("ip_addresses", None, None, None)),
    );
    // a name of somebody else's domain stands without the base
    check_host("github.com", Some(("examples", None, None, None)));
    for host in [
        "",
        ".",
        "..",
        "sally.example",
        ".sally.example",
        "xx.api.sally.example",
        "abc.xx.cp0.sally.example",
        "a.abc.eu.cp0.sally.example",
        ".eu.cp0.sally.example",
        "a b.eu.cp0.sally.example",
        "-a.eu.cp0.sally.example",
        "abc.eu.cp0.sally.example..",
        "abc.eu.cp0.evilsally.example",
        "abc.eu.cp0xsally.example",
        "abc.eu.cp1.sally.example",
        "ümlaut.eu.cp0.sally.example",
        "cloud.sally.example.evil.example",
    ] {
        check_host(host, None);
    }
    assert_eq!(catalogue().match_host("", "cloud."), None);
    assert_eq!(catalogue().match_host("", "cloud"), None);
}

#[test]
fn patterns_render_only_host_names() {
    let pattern: HostPattern = "<prefix>.<geo>.cp0.<base>".parse().expect("a pattern");
    let names = Names {
        base: "Sally.Example.",
        geo: Some("EU"),
        prefix: Some("Abc"),
        portal: None,
    };
    assert_eq!(
        pattern.render(&names).as_deref(),
        Ok("abc.eu.cp0.sally.example")
    );
    let fails = |names: Names<'_>| pattern.render(&names).expect_err("refused").to_string();
    assert!(fails(Names { geo: None, ..names }).contains("needs a value for <geo>"));
    assert!(fails(Names { base: "", ..names }).contains("needs a value for <base>"));
    for prefix in ["", "a.b", "a b", "-a", "a\n", &"a".repeat(64)] {
        assert!(
            fails(Names {
                prefix: Some(prefix),
                ..names
            })
            .contains("is not a host name")
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_rendered_is_found_again(
        prefix in "[a-zA-Z0-9]([a-zA-Z0-9_-]{0,30}[a-zA-Z0-9])?",
        portal in "[a-f0-9]{12}",
        base in "[a-z]{1,10}(\\.[a-z]{2,5}){0,2}",
        dot in any::<bool>(), upper in any::<bool>(), geo in 0usize..4,
    ) {
        for entry in &catalogue().entries {
            let geos = catalogue().geos_of(entry);
            for pattern in entry.hosts.iter().chain(&entry.aliases) {
                let geo = &geos[geo % geos.len()];
                let names = Names { base: &base, geo: Some(geo), prefix: Some(&prefix), portal: Some(&portal) };
                let mut host = pattern.render(&names).expect("all places have values");
                if upper { host.make_ascii_uppercase(); }
                if dot { host.push('.'); }
                let found = catalogue().match_host(&base, &host).expect("found again");
                prop_assert!(found.entry.id == entry.id || entry.shares.contains(&found.entry.id));
                prop_assert_eq!(found.geo, pattern.has_geo().then(|| geo.clone()));
                prop_assert_eq!(found.prefix, pattern.has_prefix().then(|| prefix.to_lowercase()));
                prop_assert_eq!(found.portal, pattern.has_portal().then(|| portal.clone()));
            }
        }
    }

    #[test]
    fn no_text_makes_it_panic(base in ".{0,20}", host in "\\PC{0,300}", text in ".{0,200}") {
        let _ = catalogue().match_host(&base, &host);
        let _ = catalogue().match_host(&base, &format!("{host}.{base}"));
        let _ = text.parse::<HostPattern>();
        if let Err(error) = Catalogue::parse(&text) { let _ = error.to_string(); }
    }

    #[test]
    fn a_damaged_catalogue_never_panics(at in 0usize..20_000, cut in 0usize..200, put in ".{0,10}") {
        let good = include_str!("../data/sallyport.toml");
        let floor = |mut at: usize| { while !good.is_char_boundary(at) { at -= 1; } at };
        let start = floor(at.min(good.len()));
        let end = floor((start + cut).min(good.len())).max(start);
        let text = format!("{}{put}{}", &good[..start], &good[end..]);
        match Catalogue::parse(&text) {
            Ok(catalogue) => { let _ = lint(&catalogue); }
            Err(error) => { let _ = error.to_string(); }
        }
    }
}

#[test]
fn filters_by_role_and_geo() {
    let filter = Filter {
        role: Some(Role::Gateway),
        geo: Some("EU".to_owned()),
    };
    let found = rows(catalogue(), &filter).expect("a known geo");
    assert!(found.iter().all(|row| row.direction.is_some()));
    assert!(
        found
            .iter()
            .any(|row| row.hosts == ["<prefix>.eu.cp0.<base>"])
    );
    assert!(found.iter().all(|row| row.entry.id != "database"));
    let me = Filter {
        role: None,
        geo: Some("me".to_owned()),
    };
    let found = rows(catalogue(), &me).expect("a known geo");
    assert!(
        found.iter().all(|row| row.entry.id != "mesh_sync"),
        "mesh sync has no me"
    );
    let unknown = Filter {
        role: None,
        geo: Some("xx".to_owned()),
    };
    let error = rows(catalogue(), &unknown)
        .expect_err("unknown")
        .to_string();
    assert_eq!(
        error,
        "there is no geo `xx`; known are au, eu, global, in, me, us"
    );
}

#[test]
fn the_table_is_aligned_and_fits_the_terminal() {
    for catalogue in [catalogue(), hosted_control_plane(), original_appliance()] {
        let all = rows(catalogue, &Filter::default()).expect("no filter");
        let text = render::table(&all);
        for line in text.lines() {
            assert!(
                line.chars().count() <= 100,
                "{} columns: {line}",
                line.chars().count()
            );
            assert_eq!(line, line.trim_end());
        }
        for row in &all {
            let id = row.entry.id.as_str();
            assert!(
                text.lines().any(|line| line.split(' ').next() == Some(id)),
                "{id}"
            );
        }
    }
    let gateway = Filter {
        role: Some(Role::Gateway),
        geo: Some("eu".to_owned()),
    };
    let text = render::table(&rows(catalogue(), &gateway).expect("a known geo"));
    let line = text
        .lines()
        .find(|line| line.starts_with("config_sync"))
        .expect("a row");
    assert_eq!(
        line.split_whitespace().collect::<Vec<_>>(),
        [
            "config_sync",
            "443/tcp",
            "mtls",
            "yes",
            "gateway,",
            "ingress",
            "→",
            "<prefix>.eu.cp0.<base>"
        ]
    );
}

#[test]
fn markdown_cells_stay_in_their_row() {
    let all = rows(catalogue(), &Filter::default()).expect("no filter");
    let text = render::markdown(&all);
    assert_eq!(text.lines().count(), all.len() + 2);
    for line in text.lines() {
        assert_eq!(line.replace("\\|", "").matches('|').count(), 10, "{line}");
    }
    assert!(text.contains("| `audit_log` | 8071/tcp+udp | syslog | optional |"));
}

#[test]
fn json_has_the_documented_fields() {
    let filter = Filter {
        role: Some(Role::ControlPlane),
        geo: None,
    };
    let found = rows(catalogue(), &filter).expect("no geo");
    let json: serde_json::Value =
        serde_json::from_str(&render::json(catalogue(), &found)).expect("JSON");
    assert_eq!(json["format_version"], 1);
    assert_eq!(json["catalogue"], "sallyport");
    let all = json["rows"].as_array().expect("an array");
    assert_eq!(all.len(), found.len());
    let fields = [
        "addresses",
        "aliases",
        "certificate",
        "direction",
        "feature",
        "flows",
        "from",
        "geos",
        "hosts",
        "id",
        "loopback",
        "owner",
        "peer",
        "protocol",
        "required",
        "setting",
        "source",
        "title",
        "tls",
        "to",
        "when",
        "why",
    ];
    for row in all {
        let mut have: Vec<&str> = row
            .as_object()
            .expect("an object")
            .keys()
            .map(String::as_str)
            .collect();
        have.sort_unstable();
        assert_eq!(have, fields);
    }
    let audit = all
        .iter()
        .find(|row| row["id"] == "audit_log")
        .expect("a row");
    assert_eq!(
        audit["flows"].to_string(),
        r#"[{"port":8071,"transport":"tcp"},{"port":8071,"transport":"udp"}]"#
    );
    assert_eq!(audit["direction"], "inbound");
}
