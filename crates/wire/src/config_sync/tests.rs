use super::compat::{check_plugins, check_version};
use super::delta::Refused;
use super::error_report::ENTITIES_REFUSED;
use super::*;
use crate::config_hash::hashes;
use proptest::prelude::*;
use serde_json::json;

const BYTES_MAX: usize = 1 << 20;

fn payload() -> Reconfigure {
    Reconfigure::new(
        json!({
            "_format_version": "3.0", "_transform": false,
            "services": [{"id": "a", "name": null, "port": 80, "tags": []}],
        }),
        1_700_000_000.5,
    )
}

#[test]
fn reconfigure_survives_the_wire() {
    let sent = payload();
    let got = Reconfigure::decode(&sent.encode(), BYTES_MAX).unwrap();
    assert_eq!(got, sent);
    assert_eq!(got.hash().as_str(), "e6a99acfd5ca268cbf9aac31e725f527");
    assert_eq!(got.hashes, Some(hashes(&got.config_table)));
}

#[test]
fn a_frame_written_entity_by_entity_is_the_same() {
    let hash = hashes(&json!({})).config;
    let check = |entities: &[(&'static str, Value)], table: Value| {
        let mut writer = FrameWriter::default();
        for (list, entity) in entities {
            writer.add(list, &entity.to_string());
        }
        let got = Reconfigure::decode(&writer.finish(hash), BYTES_MAX).unwrap();
        let expected = Reconfigure {
            timestamp: None,
            config_table: table,
            config_hash: Some(hash),
            hashes: None,
        };
        assert_eq!(got, expected);
    };
    check(&[], json!({"_format_version": "3.0", "_transform": false}));
    let (one, two) = (json!({"id": "a", "name": "\"]}"}), json!({"id": "b"}));
    check(
        &[
            ("services", one.clone()),
            ("services", two.clone()),
            ("routes", one.clone()),
        ],
        json!({
            "_format_version": "3.0", "_transform": false, "services": [one, two], "routes": [one],
        }),
    );
}

#[test]
fn reconfigure_without_optional_fields_is_accepted() {
    let frame = gzip_json(&json!({
        "type": "reconfigure", "config_hash": null, "hashes": null, "more": 1,
        "config_table": {"_format_version": "3.0", "_transform": false},
    }));
    let got = Reconfigure::decode(&frame, BYTES_MAX).unwrap();
    assert_eq!(
        (got.timestamp, got.config_hash, got.hashes),
        (None, None, None)
    );
    assert_eq!(got.hash().as_str(), "3ba837da99e14dfab883d867101d37f6");
}

#[test]
fn unusable_reconfigure_frames_say_why() {
    #[track_caller]
    fn check(frame: &[u8], want: &str) {
        let error = Reconfigure::decode(frame, 2000).unwrap_err().to_string();
        assert!(error.contains(want), "{error}");
    }
    check(b"", "not a whole gzip stream");
    check(b"{}", "not a whole gzip stream");
    check(&payload().encode()[..20], "not a whole gzip stream");
    check(&gzip_json(&json!([1])), "not JSON");
    check(&gzip_json(&json!({"type": "other"})), "type \"other\"");
    check(
        &gzip_json(&json!({"type": "reconfigure"})),
        "\"config_table\" of the frame is missing",
    );
    check(
        &gzip_json(&json!({"type": "reconfigure", "config_table": []})),
        "is not an object",
    );
    let bad = json!({"type": "reconfigure", "config_table": {}, "config_hash": "short"});
    check(
        &gzip_json(&bad),
        "has exactly 32 characters, this one has 5",
    );
    let bad = json!({"type": "reconfigure", "config_table": {}, "hashes": {"routes": 1}});
    check(&gzip_json(&bad), "\"hashes\" of the frame cannot be used");
    let bomb = json!({"type": "reconfigure", "config_table": {}, "x": "a".repeat(100_000)});
    check(&gzip_json(&bomb), "larger than 2000 bytes");
}

#[test]
fn every_cut_of_a_frame_is_an_error() {
    let frame = payload().encode();
    for length in 0..frame.len() {
        assert!(
            Reconfigure::decode(&frame[..length], BYTES_MAX).is_err(),
            "{length}"
        );
    }
}

#[test]
fn only_workspaces_count_as_no_configuration() {
    assert!(is_empty_config(
        &json!({"_format_version": "3.0", "workspaces": [{"id": "x"}]})
    ));
    assert!(is_empty_config(
        &json!({"services": [], "routes": null, "plugins": {}})
    ));
    assert!(!is_empty_config(&json!({"services": [{"id": "a"}]})));
}

#[test]
fn basic_info_survives_the_wire_sorted() {
    let plugin = |name: &str| PluginVersion {
        name: name.into(),
        version: "3.9.0".into(),
    };
    let info = BasicInfo {
        plugins: vec![plugin("rate-limiting"), plugin("key-auth")],
        labels: [("zone".to_owned(), "a".to_owned())].into(),
        ..BasicInfo::default()
    };
    let got = BasicInfo::decode(&info.encode()).unwrap();
    assert_eq!(got.plugins, [plugin("key-auth"), plugin("rate-limiting")]);
    assert_eq!(got.labels, info.labels);
    let frame = FromDataPlane::decode(&info.encode()).unwrap();
    assert_eq!(frame, FromDataPlane::BasicInfo(Box::new(got)));
}

#[test]
fn basic_info_of_other_makes_is_read() {
    let frame = json!({
        "type": "basic_info", "plugins": {}, "labels": null, "filters": [], "rpc": [1],
        "process_conf": {"cluster_max_payload": 16_777_216},
    });
    let got = BasicInfo::decode(frame.to_string().as_bytes()).unwrap();
    assert_eq!(got.process_conf["cluster_max_payload"], 16_777_216);
    assert!(got.plugins.is_empty());
    let frame = json!({"type": "basic_info", "plugins": [{"name": "x", "version": null}]});
    let got = BasicInfo::decode(frame.to_string().as_bytes()).unwrap();
    assert_eq!(
        got.plugins,
        [PluginVersion {
            name: "x".into(),
            version: String::new()
        }]
    );
}

#[test]
fn bad_basic_info_says_why() {
    #[track_caller]
    fn check(frame: &str, want: &str) {
        let error = BasicInfo::decode(frame.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(want), "{error}");
    }
    check("", "not JSON");
    check("[]", "not JSON");
    check("{}", "type \"\"");
    check(
        r#"{"type":"basic_info"}"#,
        "\"plugins\" of the frame is missing",
    );
    check(r#"{"type":"basic_info","plugins":3}"#, "is not a list");
    check(r#"{"type":"basic_info","plugins":[3]}"#, "not an object");
    check(r#"{"type":"basic_info","plugins":[{}]}"#, "without a name");
}

#[test]
fn error_reports_survive_the_wire_and_unknown_types_pass() {
    let report = ErrorReport {
        name: "declarative configuration parse failure".into(),
        source: "apply".into(),
        message: "unknown plugin".into(),
        config_hash: "a".repeat(32),
        details: [("code".to_owned(), json!(14))].into_iter().collect(),
    };
    assert_eq!(ErrorReport::decode(&report.encode()).unwrap(), report);
    let frame = FromDataPlane::decode(&report.encode()).unwrap();
    assert_eq!(frame, FromDataPlane::Error(Box::new(report)));
    let other = FromDataPlane::decode(br#"{"type":"later"}"#).unwrap();
    assert_eq!(
        other,
        FromDataPlane::Other {
            kind: "later".into()
        }
    );
    assert!(ErrorReport::decode(br#"{"type":"error","error":"x"}"#).is_err());
}

/// The members as a data plane of Kong 3.10 sends them: nothing of the version is in force.
#[test]
fn what_kong_reports_names_entities_and_fields() {
    let route = "4d4b4386-056c-52f6-be55-199fca5e452a";
    let error = json!({
        "name": "declarative configuration parse failure", "code": 14, "fields": {},
        "source": "kong.db.declarative.parse_table",
        "message": "declarative config is invalid: {}", "config_hash": "a".repeat(32),
        "flattened_errors": [
            {"entity_type": "route", "entity_id": route, "entity_name": "r", "errors": [
                {"field": "bogus", "type": "field", "message": "unknown field"},
                {"type": "entity", "messages": ["one", "two"]},
            ]},
            {"entity_type": "plugin"},
            7,
        ],
    });
    let frame = json!({"type": "error", "error": error});
    let report = ErrorReport::decode(frame.to_string().as_bytes()).unwrap();
    assert_eq!(report, ErrorReport::of(error));
    let refused = report.refused();
    let told = |at: usize| {
        let it = &refused[at];
        (
            &*it.entity_type,
            &*it.entity_id,
            &*it.field,
            &*it.message,
            it.kept,
        )
    };
    assert_eq!(refused.len(), 2);
    assert_eq!(told(0), ("routes", route, "bogus", "unknown field", true));
    assert_eq!(told(1), ("routes", route, "", "one; two", true));
    assert_eq!(ErrorReport::of(json!(7)), ErrorReport::default());
}

#[test]
fn refused_entities_survive_the_error_frame() {
    let refused = [
        Refused {
            entity_type: "routes".into(),
            entity_id: "7c4c3ed5-7a4c-4d3c-8f8f-1f0b0f7e2d11".into(),
            entity_name: "orders".into(),
            field: "paths[1]".into(),
            message: "is no path".into(),
            kept: true,
            closed: false,
        },
        Refused {
            entity_type: "keyauth_credentials".into(),
            message: "refers to nobody".into(),
            closed: true,
            ..Refused::default()
        },
    ];
    let hash: ConfigHash = "b".repeat(32).parse().unwrap();
    let report = ErrorReport::on_entities(hash, &refused);
    let read = ErrorReport::decode(&report.encode()).unwrap();
    assert_eq!(read.refused(), refused);
    assert_eq!(
        (read.config_hash, read.name.as_str()),
        ("b".repeat(32), ENTITIES_REFUSED)
    );
    // however many there are, the frame has an end
    let many = vec![refused[0].clone(); 10_000];
    assert_eq!(ErrorReport::on_entities(hash, &many).refused().len(), 50);
    // whoever says more than that
    let one = json!({"entity_type": "route", "entity_id": "x", "errors": [
        {"type": "field", "field": "paths", "message": "no"}]});
    let more = ErrorReport::of(json!({"flattened_errors": vec![one; 60]}));
    assert_eq!(more.refused().len(), 50);
    assert!(
        ErrorReport::on_all(hash, "no format version")
            .refused()
            .is_empty()
    );
}

#[test]
fn kongs_flattened_errors_are_read_and_anything_else_is_no_panic() {
    let frame = json!({"type": "error", "error": {"name": "x", "flattened_errors": [
        {"entity_type": "service", "entity_name": "a", "entity_tags": ["t"], "errors": [
            {"type": "field", "field": "port", "message": "value should be between 0 and 65535"},
            {"type": "entity", "messages": ["one of", "the other"]}]},
        {"entity_type": 7, "errors": [{"message": null}, 8]},
        {"errors": {"type": "field"}}, [], "text", null,
    ]}});
    let report = ErrorReport::decode(frame.to_string().as_bytes()).unwrap();
    let read = report.refused();
    let told: Vec<_> = read
        .iter()
        .map(|it| (&*it.entity_type, &*it.field, &*it.message))
        .collect();
    assert_eq!(
        told,
        [
            ("services", "port", "value should be between 0 and 65535"),
            ("services", "", "one of; the other"),
            ("", "", "null"),
            ("", "", "null"),
        ]
    );
    let odd = json!({"type": "error", "error": {"flattened_errors": {"a": "b"}}});
    let odd = ErrorReport::decode(odd.to_string().as_bytes()).unwrap();
    assert!(odd.refused().is_empty());
}

#[test]
fn outlet_queries() {
    #[track_caller]
    fn check(query: &str, want: Result<(&str, Option<&str>, &str), &str>) {
        let got = OutletQuery::parse(query);
        let got = got.as_ref().map_err(|error| error.argument).map(|query| {
            (
                query.node_id.as_str(),
                query.node_hostname.as_deref(),
                query.node_version.as_str(),
            )
        });
        assert_eq!(got, want);
    }
    check(
        "node_id=1&node_hostname=h.x&node_version=3.9.1",
        Ok(("1", Some("h.x"), "3.9.1")),
    );
    check(
        "a&node_version=3.9.1&node_id=%31&node_id=2&=",
        Ok(("1", None, "3.9.1")),
    );
    check("node_hostname=h&node_version=3", Err("node_id"));
    check("node_id=&node_version=3", Err("node_id"));
    check("node_id=1", Err("node_version"));
    check("", Err("node_id"));
    let query = OutletQuery {
        node_id: "7c4c3ed5-7a4c-4d3c-8f8f-1f0b0f7e2d11".into(),
        node_hostname: Some("edge 1&x".into()),
        node_version: "3.9.1".into(),
    };
    assert_eq!(
        query.path_and_query(),
        "/v1/outlet?node_id=7c4c3ed5-7a4c-4d3c-8f8f-1f0b0f7e2d11\
         &node_hostname=edge%201%26x&node_version=3.9.1"
    );
}

#[test]
fn versions() {
    #[track_caller]
    fn check(node: &str, want: Result<KongVersion, &str>) {
        let got = check_version(KongVersion::new(3, 9, 1), node);
        match want {
            Ok(version) => assert_eq!(got, Ok(version)),
            Err(text) => assert!(
                got.as_ref().unwrap_err().to_string().contains(text),
                "{got:?}"
            ),
        }
    }
    check("3.9.1", Ok(KongVersion::new(3, 9, 1)));
    check("3.9.99", Ok(KongVersion::new(3, 9, 99)));
    check("3.4.3.12-enterprise", Ok(KongVersion::new(3, 4, 3)));
    check("3.0.0rc1", Ok(KongVersion::new(3, 0, 0)));
    check("3.10.0", Err("newer"));
    check("2.8.1", Err("major"));
    check("4.0.0", Err("major"));
    for bad in ["", "3", "3.9", "3.x.1", "v3.9.1", "3.9.", "99999999999.1.1"] {
        check(bad, Err("not a version"));
    }
}

#[test]
fn plugin_sets() {
    #[track_caller]
    fn check(configured: &[(&str, &str)], on_node: &[(&str, &str)], want: &[(&str, SyncStatus)]) {
        let list = |pairs: &[(&str, &str)]| -> Vec<PluginVersion> {
            pairs
                .iter()
                .map(|(name, version)| PluginVersion {
                    name: (*name).to_owned(),
                    version: (*version).to_owned(),
                })
                .collect()
        };
        let got: Vec<_> = check_plugins(&list(configured), &list(on_node))
            .into_iter()
            .map(|problem| match &problem {
                PluginProblem::Missing { name } | PluginProblem::Version { name, .. } => {
                    (name.clone(), problem.sync_status())
                }
            })
            .collect();
        let want: Vec<_> = want
            .iter()
            .map(|(name, status)| ((*name).to_owned(), *status))
            .collect();
        assert_eq!(got, want);
    }
    use SyncStatus::{PluginSetIncompatible, PluginVersionIncompatible};
    check(&[], &[], &[]);
    check(&[("a", "3.9.0")], &[("a", "3.8.5"), ("b", "1.0.0")], &[]);
    check(&[("a", "3.9.0")], &[("a", "3.9.4")], &[]);
    check(
        &[("a", "3.9.0")],
        &[("b", "3.9.0")],
        &[("a", PluginSetIncompatible)],
    );
    check(
        &[("a", "3.9.0")],
        &[("a", "3.10.0")],
        &[("a", PluginVersionIncompatible)],
    );
    check(
        &[("a", "3.9.0")],
        &[("a", "2.9.0")],
        &[("a", PluginVersionIncompatible)],
    );
    check(
        &[("a", "3.9.0")],
        &[("a", "")],
        &[("a", PluginVersionIncompatible)],
    );
    check(
        &[("opentelemetry", "3.9.0")],
        &[("opentelemetry", "0.1.0")],
        &[],
    );
    check(&[("a", "")], &[("a", "0.1.0")], &[]);
}

proptest! {
    #[test]
    fn hostile_frames_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        let _ = Reconfigure::decode(&bytes, BYTES_MAX);
        let _ = FromDataPlane::decode(&bytes);
        let _ = ping_hash(&bytes);
        let _ = OutletQuery::parse(&String::from_utf8_lossy(&bytes));
        let _ = check_version(KongVersion::new(3, 9, 0), &String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn flipped_bits_never_panic(at in 0_usize..1000, bit in 0_u8..8) {
        let mut frame = payload().encode();
        let at = at % frame.len();
        frame[at] ^= 1 << bit;
        if let Ok(got) = Reconfigure::decode(&frame, BYTES_MAX) {
            // Only the gzip head (name, time, system) is outside the checksum.
            prop_assert_eq!(got, payload());
        }
    }

    #[test]
    fn any_json_object_never_panics(text in r#"\{"type":"(basic_info|error|reconfigure)","(plugins|error|config_table|hashes|config_hash|labels)":(1|null|\[\]|\{\}|"x"|\[\{"name":1\}\])\}"#) {
        let _ = FromDataPlane::decode(text.as_bytes());
        let value: Value = serde_json::from_str(&text).unwrap();
        let _ = Reconfigure::decode(&gzip_json(&value), BYTES_MAX);
    }

    #[test]
    fn queries_read_back(id in "[ -~]{1,20}", host in "\\PC{1,20}", version in "[ -~]{1,9}") {
        let query = OutletQuery { node_id: id, node_hostname: Some(host), node_version: version };
        prop_assert_eq!(OutletQuery::parse(&query.to_string()), Ok(query));
    }
}
