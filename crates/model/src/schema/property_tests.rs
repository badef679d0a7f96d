//! What holds for all tables: names, idempotence, no panic.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::table_tests::{ID, OTHER, parse, smallest};
use super::tests::TwoPlugins;
use super::*;
use crate::Kind;

#[test]
fn every_kind_has_its_endpoint_key_among_its_fields() {
    for kind in Kind::ALL {
        let schema = of(kind);
        assert!(
            schema
                .endpoint_key
                .is_none_or(|key| schema.record.field(key).is_some())
        );
        assert!(
            schema
                .unique_together
                .iter()
                .all(|key| schema.record.field(key).is_some())
        );
    }
}

/// Values that fit a field often enough for whole entities to pass.
fn value_of(field: &Field) -> BoxedStrategy<Value> {
    for rule in &field.rules {
        if let Rule::OneOf(list) = rule {
            return proptest::sample::select(list.clone()).boxed();
        }
    }
    let pick = |list: Vec<Value>| proptest::sample::select(list).boxed();
    let texts = [
        "a",
        "a.example",
        "/a",
        "~/a$",
        "a:80",
        "10.0.0.1",
        "*.a",
        "X-A",
        "GET",
        "",
    ];
    match &field.ty {
        Type::String if field.uuid => pick(vec![json!(ID), json!(OTHER.to_uppercase())]),
        Type::String => pick(texts.iter().map(|text| json!(text)).collect()),
        Type::Number | Type::Integer => pick(vec![
            json!(0),
            json!(1),
            json!(50),
            json!(200.0),
            json!(65535),
            json!(-1.5),
        ]),
        Type::Boolean => any::<bool>().prop_map(Value::from).boxed(),
        Type::Array(each) | Type::Set(each) => proptest::collection::vec(value_of(each), 0..3)
            .prop_map(Value::from)
            .boxed(),
        Type::Map { keys, values } => {
            proptest::collection::vec((value_of(keys), value_of(values)), 0..2)
                .prop_map(|pairs| {
                    pairs
                        .into_iter()
                        .map(|(key, value)| (key.as_str().unwrap_or("x").to_owned(), value))
                        .collect()
                })
                .boxed()
        }
        Type::Record(record) => object_of(record),
        Type::Foreign(_) => pick(vec![json!({"id": ID}), json!(OTHER), Value::Null]),
    }
}

fn object_of(record: &Record) -> BoxedStrategy<Value> {
    let members: Vec<_> = record
        .fields
        .iter()
        .map(|field| {
            let name = field.name;
            proptest::option::weighted(0.2, value_of(field)).prop_map(move |value| (name, value))
        })
        .collect();
    members
        .prop_map(|members| {
            members
                .into_iter()
                .filter_map(|(name, value)| Some((name.to_owned(), value?)))
                .collect()
        })
        .boxed()
}

pub(crate) fn any_entity() -> impl Strategy<Value = (Kind, Value)> {
    proptest::sample::select(Kind::ALL.to_vec()).prop_flat_map(|kind| {
        let most = prop_oneof![
            3 => object_of(&of(kind).record).prop_map(move |mut value| {
                if let (Value::Object(map), Value::Object(base)) = (&mut value, smallest(kind)) {
                    map.extend(base);
                }
                value
            }),
            1 => object_of(&of(kind).record),
        ];
        (Just(kind), most)
    })
}

/// Any JSON, three levels deep.
pub(crate) fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
        Just(json!(ID)),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        let key = prop_oneof![
            proptest::sample::select(vec![
                "id",
                "name",
                "host",
                "paths",
                "service",
                "config",
                "url",
                "routes",
                "plugins",
                "target",
                "protocols",
                "tags",
                "hash_on",
                "healthchecks",
                "services",
                "_format_version",
                "consumers",
                "keyauth_credentials",
                "jwt_secrets",
                "rsa_public_key",
                "algorithm",
                "upstreams",
                "targets",
            ])
            .prop_map(str::to_owned),
            ".{0,4}",
        ];
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::vec((key, inner), 0..6)
                .prop_map(|pairs| pairs.into_iter().collect::<Value>()),
        ]
    })
}

proptest! {
    #[test]
    fn parsing_twice_changes_nothing((kind, body) in any_entity()) {
        if let Ok(entity) = parse(kind, body) {
            prop_assert_eq!(parse(kind, entity.clone()), Ok(entity));
        }
    }

    #[test]
    fn no_json_panics(body in any_json()) {
        for kind in Kind::ALL {
            for mode in [Mode::Strict, Mode::Payload] {
                let parsed = parse_entity_in(kind, body.clone(), mode, &TwoPlugins::new());
                if let Err(errors) = parsed {
                    prop_assert!(!errors.is_empty());
                    nested(&errors);
                }
            }
            index(kind, &body);
        }
    }
}
