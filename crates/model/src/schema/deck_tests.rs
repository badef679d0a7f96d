//! What decK sends, and what it reads from schema documents.

use serde_json::{Map, Value, json};

use super::table_tests::{ID, OTHER, parse, smallest};
use super::tests::TwoPlugins;
use super::*;
use crate::Kind;

/// Bodies as decK 1.4.0 wrote them to a recording server; ids are replaced by two, and lists of
/// health statuses are shortened.
#[test]
fn what_deck_sends_is_accepted() {
    let bodies = [
        (
            Kind::Service,
            json!({
                "connect_timeout": 60000, "host": "orders.internal", "id": ID, "name": "orders",
                "path": "/v1", "port": 8080, "protocol": "http", "read_timeout": 60000,
                "write_timeout": 60000, "tags": ["shop"],
            }),
        ),
        (
            Kind::Route,
            json!({
                "headers": {"X-A": ["b"]}, "id": ID, "name": "orders", "methods": ["GET", "POST"],
                "paths": ["/orders"], "preserve_host": false, "protocols": ["http", "https"],
                "regex_priority": 0, "service": {"id": OTHER}, "strip_path": false,
            }),
        ),
        (
            Kind::Route,
            json!({
                "hosts": ["g.example"], "id": ID, "name": "g", "preserve_host": false,
                "protocols": ["grpc"], "regex_priority": 0, "service": {"id": OTHER},
                "strip_path": false,
            }),
        ),
        (
            Kind::Consumer,
            json!({"id": ID, "custom_id": "1", "username": "alice"}),
        ),
        (
            Kind::KeyAuth,
            json!({"consumer": {"id": OTHER}, "id": ID, "key": "alice-key"}),
        ),
        (
            Kind::BasicAuth,
            json!({"consumer": {"id": OTHER}, "id": ID, "username": "a", "password": "p"}),
        ),
        (
            Kind::HmacAuth,
            json!({"consumer": {"id": OTHER}, "id": ID, "username": "a", "secret": "s"}),
        ),
        (
            Kind::Jwt,
            json!({
                "algorithm": "HS256", "consumer": {"id": OTHER}, "id": ID, "key": "issuer",
                "secret": "s",
            }),
        ),
        (
            Kind::Acl,
            json!({"consumer": {"id": OTHER}, "group": "staff", "id": ID}),
        ),
        (
            Kind::Plugin,
            json!({
                "id": ID, "name": "rate-limiting", "consumer": {"id": OTHER},
                "config": {"second": 1},
            }),
        ),
        (
            Kind::Upstream,
            json!({
                "id": ID, "name": "orders.internal", "slots": 10000, "hash_on": "none",
                "hash_fallback": "none", "hash_on_cookie_path": "/",
                "healthchecks": {
                    "active": {
                        "concurrency": 10, "http_path": "/", "type": "http", "timeout": 1,
                        "healthy": {"http_statuses": [200, 302], "interval": 0, "successes": 0},
                        "unhealthy": {
                            "http_failures": 0, "http_statuses": [429, 404], "tcp_failures": 0,
                            "timeouts": 0, "interval": 0,
                        },
                    },
                    "passive": {
                        "healthy": {"http_statuses": [200, 201], "successes": 0},
                        "unhealthy": {
                            "http_failures": 0, "http_statuses": [429], "tcp_failures": 0,
                            "timeouts": 0,
                        },
                    },
                },
            }),
        ),
        (
            Kind::Target,
            json!({
                "id": ID, "target": "10.0.0.2:81", "upstream": {"id": OTHER}, "weight": 50,
            }),
        ),
    ];
    for (kind, body) in bodies {
        let entity = parse(kind, body.clone()).expect("it should be valid");
        for (name, value) in body.as_object().unwrap() {
            // Records come back with defaults around what was sent.
            if !matches!(name.as_str(), "config" | "healthchecks") {
                assert_eq!(&entity[name], value, "{kind} {name}");
            }
        }
    }
}

/// What decK makes of a JSON Schema document: defaults, with objects entered unless
/// `additionalProperties` is false or a schema.
fn deck_defaults(schema: &Value) -> Map<String, Value> {
    let mut defaults = Map::new();
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let open = match property.get("additionalProperties") {
            None | Some(Value::Bool(true)) => property["type"] == "object",
            Some(_) => false,
        };
        if let Some(default) = property.get("default") {
            defaults.insert(name.clone(), default.clone());
        } else if open {
            defaults.insert(name.clone(), Value::Object(deck_defaults(property)));
        }
    }
    defaults
}

/// What decK makes of a Kong-form document.
fn lua_defaults(schema: &Value) -> Map<String, Value> {
    let mut defaults = Map::new();
    for field in schema["fields"].as_array().into_iter().flatten() {
        for (name, field) in field.as_object().into_iter().flatten() {
            if let Some(default) = field.get("default") {
                defaults.insert(name.clone(), default.clone());
            } else if field["type"] == "record" && field["required"] == true {
                defaults.insert(name.clone(), Value::Object(lua_defaults(field)));
            }
        }
    }
    defaults
}

fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(map) => map
            .iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(name, value)| (name.clone(), without_nulls(value)))
            .collect(),
        other => other.clone(),
    }
}

#[test]
fn documents_promise_exactly_what_is_filled() {
    for kind in Kind::ALL {
        let given = smallest(kind);
        let entity = without_nulls(&parse(kind, given.clone()).unwrap());
        let filled: Map<String, Value> = entity
            .as_object()
            .unwrap()
            .iter()
            .filter(|(name, _)| given.get(*name).is_none())
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        let mut json_doc = deck_defaults(&json_schema(&of(kind).record));
        let mut lua_doc = lua_defaults(&lua_schema(&of(kind).record));
        if kind == Kind::Plugin {
            // `config` has its own document per plugin.
            let doc = plugin_schema("key-auth", &TwoPlugins::new()).unwrap();
            let promised = lua_defaults(&doc);
            assert_eq!(promised["config"], filled["config"]);
            assert_eq!(promised["protocols"], filled["protocols"]);
            json_doc.insert("config".to_owned(), filled["config"].clone());
            lua_doc.insert("config".to_owned(), filled["config"].clone());
        }
        assert_eq!(json_doc, filled, "{kind}");
        assert_eq!(lua_doc, filled, "{kind}");
    }
}

#[test]
fn references_and_certificates_are_closed_to_deck() {
    for kind in Kind::ALL {
        let doc = json_schema(&of(kind).record);
        for field in &of(kind).record.fields {
            if matches!(field.ty, Type::Foreign(_)) {
                assert_eq!(doc["properties"][field.name]["additionalProperties"], false);
            }
        }
    }
}
