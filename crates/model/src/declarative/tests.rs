//! Documents: what they become, and what is said about bad ones.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::certificate::tests::{CA_CERT, EC_CERT, EC_KEY, EC_OTHER_KEY};
use crate::schema::property_tests::{any_entity, any_json};
use crate::schema::tests::TwoPlugins;

const SHOP: &str = r#"
_format_version: "3.0"
_transform: true
_comment: the shop
services:
- name: orders
  url: http://orders.internal:8080/v1
  tags: [shop]
  _comment: ours
  routes:
  - name: orders
    paths: [/orders]
    plugins:
    - name: rate-limiting
      config: {minute: 5}
  - paths: ["~/o/(?<id>\\d+)$"]
  plugins:
  - name: key-auth
- name: off
  host: off.internal
  enabled: false
  routes:
  - paths: [/off]
routes:
- name: late
  hosts: [late.example]
  service: orders
consumers:
- username: alice
  keyauth_credentials:
  - key: alice-key
  plugins:
  - name: rate-limiting
    config: {second: 1}
upstreams:
- name: orders.internal
  targets:
  - target: 10.0.0.1
  - target: 10.0.0.2:81
    weight: 50
plugins:
- name: rate-limiting
  service: orders
  consumer: {username: alice}
  config: {minute: 60}
- name: key-auth
  enabled: false
"#;

fn parse_file(text: &str) -> Result<Declared, Vec<Problem>> {
    parse_text(text, Format::File, &TwoPlugins::new())
}

#[track_caller]
fn refuses(document: Value, expected: &[&str]) {
    refuses_as(document, Format::File, expected);
}

#[track_caller]
fn refuses_as(mut document: Value, format: Format, expected: &[&str]) {
    if document.get("_format_version").is_none() {
        document["_format_version"] = json!("3.0");
    }
    let problems = parse(document, format, &TwoPlugins::new()).expect_err("it should be refused");
    let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(problems, expected);
}

#[test]
fn a_nested_file_becomes_a_flat_table() {
    let declared = parse_file(SHOP).unwrap();
    let table = &declared.table;
    assert_eq!(table.services.len(), 1, "a disabled service is left out");
    let orders = &table.services[0];
    assert_eq!(
        (orders.host.as_str(), orders.port),
        ("orders.internal", 8080)
    );
    assert_eq!(table.routes.len(), 3, "and so is its route");
    assert!(
        table
            .routes
            .iter()
            .all(|route| route.service.unwrap().0 == orders.id)
    );
    let named: Vec<_> = table
        .routes
        .iter()
        .filter_map(|route| route.name.as_deref())
        .collect();
    assert_eq!(named, ["orders", "late"]);
    assert_eq!(table.consumers.len(), 1);
    assert_eq!(
        table.keyauth_credentials[0].consumer.0,
        table.consumers[0].id
    );
    assert_eq!(table.plugins.len(), 4, "a disabled plugin is left out");
    let both = table
        .plugins
        .iter()
        .find(|p| p.service.is_some() && p.consumer.is_some())
        .unwrap();
    assert_eq!(both.config["minute"], 60);
    let targets: Vec<_> = table
        .targets
        .iter()
        .map(|t| (t.target.as_str(), t.weight))
        .collect();
    assert_eq!(targets, [("10.0.0.1:8000", 100), ("10.0.0.2:81", 50)]);
    assert!(
        table
            .targets
            .iter()
            .all(|target| target.upstream.0 == table.upstreams[0].id)
    );
    assert_eq!(declared.warnings, []);
}

#[test]
fn derived_ids_are_stable_and_differ() {
    let (one, two) = (parse_file(SHOP).unwrap(), parse_file(SHOP).unwrap());
    assert_eq!(one.value, two.value);
    let mut ids: Vec<_> = one.table.routes.iter().map(|route| route.id).collect();
    ids.extend(one.table.plugins.iter().map(|plugin| plugin.id));
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 7);
}

#[test]
fn the_result_is_a_fixed_point() {
    let declared = parse_file(SHOP).unwrap();
    for format in [Format::File, Format::Payload] {
        let again = parse(declared.value.clone(), format, &TwoPlugins::new()).unwrap();
        assert_eq!(again.value, declared.value);
    }
}

#[test]
fn json_text_works_too() {
    let text = serde_json::to_string(&parse_file(SHOP).unwrap().value).unwrap();
    assert!(parse_file(&text).is_ok());
    assert!(
        parse_file("{_format_version: \"3.0\"}").is_ok(),
        "YAML in flow style"
    );
}

#[test]
fn an_empty_document_is_fine() {
    let declared = parse(empty(), Format::Payload, &TwoPlugins::new()).unwrap();
    assert_eq!(declared.value, empty());
    assert!(parse_file("_format_version: 3.0\nservices: []\nroutes:\n").is_ok());
}

#[test]
fn the_head_is_checked() {
    refuses(
        json!({"_format_version": null}),
        &["_format_version: required field missing; write _format_version: \"3.0\""],
    );
    refuses(
        json!({"_format_version": "4.0", "_transform": 1}),
        &[
            "_transform: expected a boolean",
            "_format_version: expected one of: 1.1, 2.1, 3.0",
        ],
    );
    refuses(
        json!({"_format_version": []}),
        &["_format_version: expected a string"],
    );
    let problems = parse(json!([]), Format::File, &TwoPlugins::new()).unwrap_err();
    assert_eq!(
        problems[0].to_string(),
        "expected an object with _format_version and entities"
    );
}

#[test]
fn every_problem_names_object_and_field() {
    refuses(
        json!({
            "services": [
                {"name": "a", "host": "a"},
                {"name": "a", "host": "b"},
                {"name": "orders", "host": "c", "port": 70000, "hots": 1},
                7,
            ],
            "routes": [{"name": "r", "paths": ["/"], "service": "nowhere"}],
            "consumers": [{"username": "alice", "keyauth_credentials": [{}, {"key": "k"}]},
                {"username": "bob", "keyauth_credentials": [{"key": "k"}]}],
            "plugins": [{"name": "nope"}, {"name": "key-auth"}, {"name": "key-auth"}],
            "upstreams": {"name": "u"},
            "gadgets": [],
        }),
        &[
            "services[3]: expected a record",
            "upstreams: expected an array",
            "gadgets: unknown field",
            "routes[0] (r).service: invalid reference 'service: nowhere' (no such entry in \
             'services')",
            "services[1] (a).name: uniqueness violation: 'services' entity with name set to 'a' \
             already declared at services[0]",
            "services[2] (orders).port: value should be between 0 and 65535",
            "services[2] (orders).hots: unknown field",
            "consumers[0].keyauth_credentials[0] (6345ddd6-2b7a-5504-a67a-ccfb980bbb9b).key: \
             required field missing; a document cannot have one generated",
            "consumers[1].keyauth_credentials[0] (fbf2f7f4-2f30-5c44-85b7-31208bcc2430).key: \
             uniqueness violation: 'keyauth_credentials' entity with key set to '***' already \
             declared at consumers[0].keyauth_credentials[1]",
            "plugins[0] (nope).name: plugin 'nope' not enabled; add it to the 'plugins' \
             configuration property",
            "plugins[2] (key-auth): uniqueness violation: 'plugins' entity with the same name, \
             route, service, consumer already declared at plugins[1]",
        ],
    );
}

#[test]
fn a_broken_object_still_takes_its_name() {
    refuses(
        json!({
            "services": [{"name": "a", "host": "a", "port": 70_000}, {"name": "a", "host": "a"},
                {"name": "a", "host": "a", "retries": "five"}],
        }),
        &[
            "services[0] (a).port: value should be between 0 and 65535",
            "services[1] (a).name: uniqueness violation: 'services' entity with name set to 'a' \
             already declared at services[0]",
            "services[2] (a).retries: expected an integer",
            "services[2] (a).name: uniqueness violation: 'services' entity with name set to 'a' \
             already declared at services[0]",
        ],
    );
}

#[test]
fn a_problem_is_one_line() {
    refuses(
        json!({"services": [{"name": "a\nb\u{1b}[0m", "host": "a"}]}),
        &[
            "services[0] (a\\nb\\u{1b}[0m).name: invalid value 'a\\nb\\u{1b}[0m': the only accepted \
         ascii characters are alphanumerics or ., -, _, and ~",
        ],
    );
}

#[test]
fn references_find_ids_and_names() {
    let id = "0dc6f45b-8f8d-40d2-a504-473544ee190b";
    let with = |service: Value| {
        json!({
            "_format_version": "3.0",
            "services": [{"id": id, "name": "orders", "host": "a"}],
            "routes": [{"name": "r", "paths": ["/"], "service": service}],
        })
    };
    for good in [
        json!("orders"),
        json!(id),
        json!(id.to_uppercase()),
        json!({"id": id}),
        json!({"name": "orders"}),
        json!({"id": null, "name": "orders"}),
    ] {
        let declared = parse(with(good), Format::File, &TwoPlugins::new()).unwrap();
        assert_eq!(declared.value["routes"][0]["service"], id);
    }
    let other = "7f145bf9-0dce-4f91-98eb-debbce4b9f6b";
    let dangling = format!(
        "routes[0] (r).service: invalid reference 'service: {other}' (no such entry in \
         'services')"
    );
    refuses(with(json!(other)), &[&dangling]);
    refuses(with(json!({"id": other})), &[&dangling]);
    refuses(
        with(json!({})),
        &["routes[0] (r).service.id: missing primary key"],
    );
    refuses(
        with(json!({"id": "x"})),
        &["routes[0] (r).service.id: expected a valid UUID"],
    );
    refuses(
        with(json!(7)),
        &["routes[0] (r).service: expected a string"],
    );
}

#[test]
fn nested_objects_cannot_choose_their_parent() {
    refuses(
        json!({"services": [
            {"name": "a", "host": "a", "routes": [{"name": "r", "paths": ["/"], "service": "a"}]},
        ]}),
        &["services[0].routes[0] (r).service: must not be set on a route that is nested"],
    );
}

#[test]
fn the_same_id_twice_is_a_problem() {
    let id = "0dc6f45b-8f8d-40d2-a504-473544ee190b";
    let problem = format!(
        "services[1] ({id}).id: uniqueness violation: 'services' entity with primary key set to \
         '{id}' already declared at services[0]"
    );
    refuses(
        json!({"services": [{"id": id, "host": "a"}, {"id": id, "host": "b"}]}),
        &[&problem],
    );
    refuses(
        json!({"services": [{"id": "x", "host": "a"}]}),
        &["services[0].id: expected a valid UUID"],
    );
}

#[test]
fn what_this_build_lacks_is_refused_in_files_and_ignored_in_payloads() {
    let document = json!({
        "_format_version": "3.0",
        "oauth2_tokens": [],
        "filter_chains": [{"name": "v"}],
        "consumers": [{"username": "alice", "oauth2_credentials": [{"name": "app"}],
            "mtls_auth_credentials": []}],
    });
    refuses(
        document.clone(),
        &[
            "consumers[0] (alice).oauth2_credentials: oauth2_credentials are not supported by this \
             build",
            "filter_chains: filter_chains are not supported by this build",
        ],
    );
    let declared = parse(document, Format::Payload, &TwoPlugins::new()).unwrap();
    assert_eq!(
        declared
            .warnings
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>(),
        [
            "consumers[0].oauth2_credentials are not supported by this build, ignored",
            "filter_chains are not supported by this build, ignored",
        ]
    );
}

#[test]
fn credentials_nest_in_consumers_or_stand_beside_them() {
    let id = "0dc6f45b-8f8d-40d2-a504-473544ee190b";
    let document = |transform: Value| {
        json!({
            "_format_version": "3.0",
            "_transform": transform,
            "consumers": [{
                "id": id, "username": "alice",
                "basicauth_credentials": [{"username": "alice", "password": "secret"}],
                "hmacauth_credentials": [{"username": "alice", "secret": "s"}],
                "jwt_secrets": [{"key": "issuer", "secret": "s"}],
                "acls": [{"group": "staff"}],
            }],
            "acls": [{"consumer": "alice", "group": "admins"}],
            "jwt_secrets": [{"consumer": {"id": id}, "key": "rsa", "algorithm": "RS256",
                "rsa_public_key": include_str!("../public_key/keys/rsa.pem")}],
        })
    };
    let hash = basic_auth::hash_password(id.parse().unwrap(), "secret");
    for (transform, password) in [
        (Value::Null, hash.as_str()),
        (json!(true), &hash),
        (json!(false), "secret"),
    ] {
        let declared = parse(document(transform), Format::File, &TwoPlugins::new()).unwrap();
        let table = declared.table;
        assert_eq!(table.basicauth_credentials[0].password, password);
        assert_eq!(table.basicauth_credentials[0].consumer.0.to_string(), id);
        assert_eq!(table.hmacauth_credentials[0].secret, "s");
        assert_eq!((table.jwt_secrets.len(), table.acls.len()), (2, 2));
    }
    let mut incomplete = document(json!(false));
    incomplete["consumers"][0]["hmacauth_credentials"] = json!([{"username": "alice"}]);
    incomplete["consumers"][0]["jwt_secrets"] = json!([{"key": "issuer"}]);
    incomplete["acls"][0]["group"] = json!("staff");
    let missing = "required field missing; a document cannot have one generated";
    refuses(
        incomplete,
        &[
            &format!("consumers[0].hmacauth_credentials[0] (alice).secret: {missing}"),
            &format!(
                "consumers[0].jwt_secrets[0] (da7151a6-276e-5853-a2ef-bc71ccd17cd9).secret: \
                 {missing}"
            ),
            "acls[0] (staff): uniqueness violation: 'acls' entity with the same consumer, group \
             already declared at consumers[0].acls[0]",
        ],
    );
}

#[test]
fn payloads_may_be_newer_and_carry_nulls() {
    let id = "0dc6f45b-8f8d-40d2-a504-473544ee190b";
    let declared = parse(
        json!({
            "_format_version": "3.0", "_transform": false,
            "workspaces": [{"name": "default"}],
            "parameters": [{"key": "cluster_id", "value": id}],
            "gadgets": [1], "later": null,
            "services": [{"id": id, "host": "a", "port": 80, "protocol": "http", "later": null,
                "tls_sans": null, "updated_at": 5}],
            "routes": [{"id": id, "paths": ["/"], "service": id, "name": null}],
        }),
        Format::Payload,
        &TwoPlugins::new(),
    )
    .unwrap();
    assert_eq!(declared.table.routes.len(), 1);
    assert_eq!(
        declared.warnings,
        [Warning(
            "gadgets are not supported by this build, ignored".to_owned()
        )]
    );
    refuses_as(
        json!({"services": [{"host": "a", "later": 1}]}),
        Format::Payload,
        &["services[0] (1e65f727-6882-5290-9637-eae1b2667deb).later: unknown field"],
    );
}

#[test]
fn old_formats_get_their_regex_paths_marked() {
    let paths = |version: &str| {
        let document = json!({
            "_format_version": version,
            "services": [{"host": "a", "routes": [{"paths": ["/a-b_c.d~/%20", "/a/\\d+$"]}]}],
        });
        parse(document, Format::File, &TwoPlugins::new())
            .map(|declared| declared.table.routes[0].paths.clone().unwrap())
    };
    assert_eq!(paths("1.1").unwrap(), ["/a-b_c.d~/%20", "~/a/\\d+$"]);
    assert_eq!(paths("2.1").unwrap(), ["/a-b_c.d~/%20", "~/a/\\d+$"]);
    assert!(paths("3.0").is_err());
}

#[test]
fn broken_text_is_located() {
    let problem = |text: &str| parse_file(text).unwrap_err()[0].to_string();
    located(&problem("services:\n- name: [a\n"), "line ");
    located(
        &problem("{\"services\": [}"),
        "line 1, column 15: not valid JSON: ",
    );
    located(
        &problem("a: 1\na: 2\n"),
        "line 2, column 1: not valid YAML: ",
    );
    located(&problem(""), "expected an object");
    located(&problem("just text"), "expected an object");
}

#[track_caller]
fn located(text: &str, start: &str) {
    assert!(text.starts_with(start), "{text}");
    assert!(!text.contains('\n'), "{text}");
}

#[test]
fn absurd_nesting_is_refused() {
    let mut value = json!(1);
    for _ in 0..100 {
        value = json!([value]);
    }
    let document = json!({"_format_version": "3.0", "services": value});
    let problems = parse(document.clone(), Format::File, &TwoPlugins::new()).unwrap_err();
    assert_eq!(problems[0].to_string(), "nested more than 64 levels deep");
    assert!(parse_file(&document.to_string()).is_err());
    for open in ["{a: ", "{\"a\":"] {
        assert!(parse_file(&open.repeat(100_000)).is_err());
    }
    for open in ["[", "- "] {
        let problems = parse_file(&open.repeat(100_000)).unwrap_err();
        let problem = problems[0].to_string();
        assert!(
            problem.ends_with("nested more than 64 levels deep"),
            "{problem}"
        );
    }
    let bomb = "a: &a [1,1,1,1,1,1,1,1]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,\
                *b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f \
                [*e,*e,*e,*e,*e,*e,*e,*e]\ng: &g [*f,*f,*f,*f,*f,*f,*f,*f]\nh: [*g,*g,*g,*g,*g,*g,\
                *g,*g]\n";
    assert!(parse_file(bomb).is_err());
}

#[test]
fn certificates_have_their_names_inside() {
    let file = |key: &str, ca: &str| {
        json!({
            "_format_version": "3.0",
            "certificates": [{"id": IDS[0], "cert": EC_CERT, "key": key,
                              "snis": [{"name": "a.example"}, {"name": "*.a.example"}]}],
            "snis": [{"name": "*", "certificate": IDS[0]}],
            "ca_certificates": [{"id": IDS[1], "cert": CA_CERT}],
            "services": [{"name": "s", "url": "https://a", "client_certificate": IDS[0],
                          "ca_certificates": [ca]}],
        })
    };
    let parse = |key, ca| parse(file(key, ca), Format::File, &TwoPlugins::new());
    let table = parse(EC_KEY, IDS[1]).unwrap().table;
    let names: Vec<_> = table.snis.iter().map(|sni| sni.name.as_str()).collect();
    assert_eq!(names, ["a.example", "*.a.example", "*"]);
    assert_eq!(table.certificates[0].key, EC_KEY);
    let service = &table.services[0];
    assert_eq!(
        service.client_certificate.map(|it| it.0.to_string()),
        Some(IDS[0].to_owned())
    );
    assert_eq!(service.ca_certificates, [table.ca_certificates[0].id]);

    let told = |key, ca| parse(key, ca).unwrap_err()[0].to_string();
    let message = told(EC_OTHER_KEY, IDS[1]);
    assert!(
        message.starts_with("certificates[0]")
            && message.contains(".key: the private key does not"),
        "{message}"
    );
    let message = told(EC_KEY, IDS[0]);
    assert!(
        message.starts_with("services[0] (s).ca_certificates[0]: there is no CA certificate"),
        "{message}"
    );
}

const IDS: [&str; 2] = [
    "0dc6f45b-8f8d-40d2-a504-473544ee190b",
    "7f145bf9-0dce-4f91-98eb-debbce4b9f6b",
];

/// Documents of entities that are right in themselves and fit together, but for chance.
fn any_document() -> impl Strategy<Value = Value> {
    proptest::collection::vec(any_entity(), 0..12).prop_map(|entities| {
        let mut document = json!({
            "_format_version": "3.0",
            "services": [{"host": "a"}, {"host": "b", "enabled": false}],
            "routes": [{"paths": ["/"], "service": IDS[0]}, {"paths": ["/"], "service": IDS[1]}],
            "consumers": [{"username": "a"}, {"username": "b"}],
            "upstreams": [{"name": "a"}, {"name": "b"}],
            "keyauth_credentials": [], "targets": [], "plugins": [], "basicauth_credentials": [],
            "hmacauth_credentials": [], "jwt_secrets": [], "acls": [],
            "certificates": [{"cert": EC_CERT, "key": EC_KEY}, {"cert": EC_CERT, "key": EC_KEY}],
            "snis": [], "ca_certificates": [], "vaults": [], "consumer_group_consumers": [],
            "consumer_groups": [{"name": "a"}, {"name": "b"}],
            "key_sets": [{"name": "a"}, {"name": "b"}], "keys": [],
        });
        for table in [
            "services",
            "routes",
            "consumers",
            "consumer_groups",
            "upstreams",
            "certificates",
            "key_sets",
        ] {
            for (n, id) in IDS.iter().enumerate() {
                document[table][n]["id"] = json!(id);
            }
        }
        for (n, (kind, mut entity)) in entities.into_iter().enumerate() {
            if schema::parse_entity(kind, entity.clone(), &TwoPlugins::new()).is_err() {
                continue;
            }
            entity.as_object_mut().unwrap().remove("id");
            if kind == Kind::CaCertificate {
                continue; // there is only one to choose from
            }
            for field in ["name", "username", "custom_id", "instance_name"] {
                let fixed = kind == Kind::Plugin && field == "name";
                if !fixed && entity.get(field).is_some_and(Value::is_string) {
                    entity[field] = json!(format!("n{n}"));
                }
            }
            match kind {
                Kind::KeyAuth => entity["key"] = json!(format!("k{n}")),
                Kind::Jwt => {
                    entity["key"] = json!(format!("k{n}"));
                    entity["secret"] = json!("s");
                }
                Kind::HmacAuth => entity["secret"] = json!("s"),
                Kind::Vault => {
                    entity["name"] = json!("env");
                    entity["prefix"] = json!(format!("vault-{n}"));
                }
                Kind::Key => {
                    entity["kid"] = json!(format!("k{n}"));
                    entity["jwk"] = Value::Null;
                    entity["pem"] = json!({"private_key": EC_KEY});
                }
                Kind::Acl => entity["group"] = json!(format!("g{n}")),
                Kind::Target => entity["target"] = json!(format!("t{n}")),
                _ => {}
            }
            document[kind.table()].as_array_mut().unwrap().push(entity);
        }
        document
    })
}

proptest! {
    #[test]
    fn parsing_the_result_changes_nothing(document in any_document()) {
        for format in [Format::File, Format::Payload] {
            if let Ok(declared) = parse(document.clone(), format, &TwoPlugins::new()) {
                let again = parse(declared.value.clone(), format, &TwoPlugins::new());
                prop_assert_eq!(again.unwrap().value, declared.value);
            }
        }
    }

    #[test]
    fn no_document_panics(document in any_json()) {
        for format in [Format::File, Format::Payload] {
            if let Err(problems) = parse(document.clone(), format, &TwoPlugins::new()) {
                prop_assert!(!problems.is_empty());
                prop_assert!(problems.iter().all(|problem| !problem.to_string().is_empty()));
            }
        }
    }

    #[test]
    fn no_text_panics(text in ".{0,64}") {
        let _ = parse_file(&text);
    }

    #[test]
    fn no_damaged_file_panics(at in 0..SHOP.len(), byte in any::<u8>(), cut in any::<bool>()) {
        let mut bytes = SHOP.as_bytes().to_vec();
        match cut {
            true => bytes.truncate(at),
            false => bytes[at] = byte,
        }
        let _ = parse_file(&String::from_utf8_lossy(&bytes));
    }
}
