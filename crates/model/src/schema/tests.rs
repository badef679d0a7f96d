//! The schema language itself; the entity tables have their own tests.

use serde_json::{Value, json};

use super::*;
use crate::Kind;

fn record() -> Record {
    Record::new([
        Field::string("name").required().unique(),
        Field::integer("port").between(1, 65535).default(json!(80)),
        Field::number("ratio").above(0),
        Field::boolean("on").default(json!(true)),
        Field::string("mode").one_of(&["a", "b"]),
        Field::integer("code").one_of_numbers(&[301, 426]),
        Field::string("secret")
            .referenceable()
            .encrypted()
            .len(4, 8),
        Field::string("note").empty_allowed(),
        Field::array("paths", each::string().starts_with("/")),
        Field::set("words", each::string()),
        Field::map(
            "headers",
            each::string().len(1, 3),
            each::array(each::string()),
        ),
        Field::record(
            "redis",
            Record::new([Field::string("host"), Field::integer("port")]),
        )
        .required(),
        Field::record(
            "queue",
            Record::new([Field::integer("size").default(json!(1))]),
        ),
        Field::foreign("service", Kind::Service),
        Field::foreign_unsupported("certificate", "certificates"),
        Field::uuid("id").auto().required(),
        Field::string("left"),
        Field::string("right"),
    ])
    .alias("redis_host", &["redis", "host"])
    .check(EntityCheck::MutuallyExclusive(&["left", "right"]))
    .check(EntityCheck::Conditional {
        if_field: "mode",
        if_match: Match::OneOf(&["b"]),
        then_field: "left",
        then_match: Match::Set,
    })
}

/// Validates `{"name": "x"}` plus `extra` and compares the member of that name.
#[track_caller]
fn keeps(field: &str, given: Value, expected: Value) {
    let value = validate(&record(), json!({"name": "x", field: given}), Mode::Strict)
        .expect("it should be valid");
    assert_eq!(value[field], expected);
}

#[track_caller]
fn refuses(given: Value, expected: &[&str]) {
    let errors = validate(&record(), given, Mode::Strict).expect_err("it should be refused");
    let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(errors, expected);
}

#[test]
fn unset_fields_become_their_default_or_null() {
    let value = validate(&record(), json!({"name": "x", "port": null}), Mode::Strict).unwrap();
    assert_eq!(
        value,
        json!({
            "name": "x", "port": 80, "ratio": null, "on": true, "mode": null, "code": null,
            "secret": null, "note": null, "paths": null, "words": null, "headers": null,
            "redis": {"host": null, "port": null}, "queue": null, "service": null,
            "certificate": null, "id": null, "left": null, "right": null,
        })
    );
    assert_eq!(validate(&record(), value.clone(), Mode::Strict), Ok(value));
}

#[test]
fn values_of_the_right_type_are_kept() {
    let id = "0dc6f45b-8f8d-40d2-a504-473544ee190b";
    keeps("port", json!(443.0), json!(443));
    keeps("ratio", json!(0.5), json!(0.5));
    keeps("words", json!(["b", "a", "b"]), json!(["b", "a"]));
    keeps("words", json!({}), json!([]));
    keeps("headers", json!({"x": ["1"]}), json!({"x": ["1"]}));
    keeps("headers", json!([]), json!({}));
    keeps("note", json!(""), json!(""));
    keeps("queue", json!({}), json!({"size": 1}));
    keeps(
        "secret",
        json!("{vault://env/a-long-name}"),
        json!("{vault://env/a-long-name}"),
    );
    keeps(
        "service",
        json!({"id": id, "name": "orders"}),
        json!({"id": id}),
    );
    keeps("service", json!(id), json!({"id": id}));
    keeps("id", json!(id.to_uppercase()), json!(id));
}

#[test]
fn wrong_values_are_named() {
    refuses(json!([1]), &["expected a record"]);
    refuses(json!({}), &["name: required field missing"]);
    refuses(json!({"name": 1}), &["name: expected a string"]);
    refuses(json!({"name": ""}), &["name: length must be at least 1"]);
    let with = |field: &str, value: Value| json!({"name": "x", field: value});
    refuses(
        with("port", json!(0)),
        &["port: value should be between 1 and 65535"],
    );
    refuses(
        with("port", json!(u64::MAX)),
        &["port: value should be between 1 and 65535"],
    );
    refuses(with("port", json!(1.5)), &["port: expected an integer"]);
    refuses(with("port", json!("80")), &["port: expected an integer"]);
    refuses(
        with("ratio", json!(0)),
        &["ratio: value must be greater than 0"],
    );
    refuses(with("ratio", json!([])), &["ratio: expected a number"]);
    refuses(with("on", json!("true")), &["on: expected a boolean"]);
    refuses(
        with("code", json!(300)),
        &["code: expected one of: 301, 426"],
    );
    refuses(
        with("secret", json!("abc")),
        &["secret: length must be at least 4"],
    );
    refuses(
        with("secret", json!("abcdefghi")),
        &["secret: length must be at most 8"],
    );
    refuses(with("paths", json!("/")), &["paths: expected an array"]);
    refuses(
        with("paths", json!(["/", "x", null])),
        &[
            "paths[1]: should start with: /",
            "paths[2]: expected a string",
        ],
    );
    refuses(with("words", json!("a")), &["words: expected a set"]);
    refuses(
        with("headers", json!({"long": ["1"]})),
        &["headers.long: length must be at most 3"],
    );
    refuses(
        with("headers", json!({"x": "1"})),
        &["headers.x: expected an array"],
    );
    refuses(
        with("redis", json!({"hots": 1})),
        &["redis.hots: unknown field"],
    );
    refuses(
        with("service", json!({"name": "a"})),
        &["service.id: missing primary key"],
    );
    refuses(
        with("service", json!("orders")),
        &["service: expected a valid UUID"],
    );
    refuses(
        with("service", json!({"id": 1})),
        &["service.id: expected a string"],
    );
    refuses(
        with("certificate", json!({"id": 1})),
        &["certificate: certificates are not supported by this build"],
    );
    refuses(
        with("id", json!("{0dc6f45b-8f8d-40d2-a504-473544ee190b}")),
        &["id: expected a valid UUID"],
    );
}

#[test]
fn all_errors_are_listed_at_once() {
    refuses(
        json!({"port": "x", "hots": 1, "left": "l", "right": "r"}),
        &[
            "name: required field missing",
            "port: expected an integer",
            "hots: unknown field",
            "only one of these fields may be set: 'left', 'right'",
        ],
    );
}

#[test]
fn a_flood_of_errors_is_cut_off() {
    let many = |value: Value| json!({"name": "x", "words": vec![value; 100_000]});
    let errors = validate(&record(), many(json!(1)), Mode::Strict).unwrap_err();
    assert_eq!(errors.len(), 1000);
    let value = validate(&record(), many(json!("a")), Mode::Strict).unwrap();
    assert_eq!(value["words"], json!(["a"]));
    let unknown: Value = (0..100_000).map(|n| (n.to_string(), json!(1))).collect();
    assert_eq!(
        validate(&record(), unknown, Mode::Strict)
            .unwrap_err()
            .len(),
        1000
    );
}

#[test]
fn rules_over_fields_wait_for_the_fields() {
    refuses(
        json!({"name": "x", "mode": "b"}),
        &[
            "failed conditional validation given value of field 'mode'",
            "left: required field missing",
        ],
    );
    refuses(
        json!({"name": "x", "mode": "c"}),
        &["mode: expected one of: a, b"],
    );
}

#[test]
fn an_alias_moves_unless_the_new_name_is_set() {
    let value = validate(
        &record(),
        json!({"name": "x", "redis_host": "old"}),
        Mode::Strict,
    )
    .unwrap();
    assert_eq!(value["redis"]["host"], "old");
    let both = json!({"name": "x", "redis_host": "old", "redis": {"host": "new"}});
    assert_eq!(
        validate(&record(), both, Mode::Strict).unwrap()["redis"]["host"],
        "new"
    );
}

#[test]
fn a_payload_may_carry_unknown_nulls() {
    let value = json!({"name": "x", "later": null, "redis": {"later": null}});
    assert!(validate(&record(), value.clone(), Mode::Strict).is_err());
    assert!(validate(&record(), value, Mode::Payload).is_ok());
    assert!(validate(&record(), json!({"name": "x", "later": 1}), Mode::Payload).is_err());
}

#[test]
fn the_json_document_closes_what_deck_must_not_open() {
    let doc = json_schema(&record());
    let properties = &doc["properties"];
    assert_eq!(properties["port"]["default"], 80);
    assert_eq!(properties["service"]["additionalProperties"], false);
    assert_eq!(properties["queue"]["additionalProperties"], false);
    assert_eq!(properties["redis"].get("additionalProperties"), None);
    assert!(properties["headers"]["additionalProperties"].is_object());
    assert_eq!(doc["required"], json!(["name", "redis"]));
}

#[test]
fn the_lua_document_lists_fields_in_order() {
    let doc = lua_schema(&record());
    assert_eq!(
        doc["fields"][1],
        json!({"port": {"type": "integer", "between": [1, 65535], "default": 80}})
    );
    assert_eq!(
        doc["fields"][9],
        json!({"words": {"type": "set", "elements": {"type": "string"}}})
    );
    assert_eq!(
        doc["fields"][11]["redis"]["fields"][0],
        json!({"host": {"type": "string"}})
    );
    assert_eq!(
        doc["entity_checks"][0],
        json!({"mutually_exclusive": ["left", "right"]})
    );
}

/// Two plugins to try schemas with.
pub(crate) struct TwoPlugins {
    limit: Record,
    key: Record,
}

impl TwoPlugins {
    pub(crate) fn new() -> TwoPlugins {
        TwoPlugins {
            limit: Record::new([
                Field::number("second").above(0),
                Field::number("minute").above(0),
                Field::string("policy")
                    .one_of(&["local", "redis"])
                    .required()
                    .default(json!("local")),
                Field::record(
                    "redis",
                    Record::new([
                        Field::string("host"),
                        Field::integer("port").default(json!(6379)),
                    ]),
                )
                .required(),
            ])
            .alias("redis_host", &["redis", "host"])
            .check(EntityCheck::AtLeastOneOf(&["second", "minute"])),
            key: Record::new([Field::array("key_names", each::string())
                .required()
                .default(json!(["apikey"]))]),
        }
    }
}

impl PluginSchemas for TwoPlugins {
    fn names(&self) -> Vec<&str> {
        vec!["key-auth", "rate-limiting"]
    }

    fn config(&self, plugin: &str) -> Option<&Record> {
        match plugin {
            "rate-limiting" => Some(&self.limit),
            "key-auth" => Some(&self.key),
            _ => None,
        }
    }

    fn consumer_scope(&self, plugin: &str) -> bool {
        plugin == "rate-limiting"
    }
}

#[test]
fn a_plugin_document_has_a_required_config_record() {
    let doc = plugin_schema("key-auth", &TwoPlugins::new()).unwrap();
    let fields = doc["fields"].as_array().unwrap();
    let get = |name: &str| fields.iter().find_map(|field| field.get(name)).unwrap();
    assert_eq!(get("config")["type"], "record");
    assert_eq!(get("config")["required"], true);
    assert_eq!(
        get("config")["fields"][0]["key_names"]["default"],
        json!(["apikey"])
    );
    assert_eq!(
        get("protocols")["default"],
        json!(["grpc", "grpcs", "http", "https"])
    );
    assert_eq!(get("consumer")["eq"], Value::Null);
    assert_eq!(
        plugin_schema("nope", &TwoPlugins::new())
            .unwrap_err()
            .to_string(),
        "name: plugin 'nope' not enabled; add it to the 'plugins' configuration property"
    );
}
