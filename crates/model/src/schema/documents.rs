//! Schema documents that clients ask for, written from the same table that fills defaults.

use serde_json::{Map, Value, json};

use super::field::{Field, Rule, Type};
use super::record::{EntityCheck, Match, Record};

/// The JSON Schema of a record, as decK reads `v1/schemas/json/{kind}`.
///
/// decK takes `properties.*.default` and descends into objects without
/// `additionalProperties: false`, so references and records that stay null by default are
/// closed; otherwise decK would put empty objects into every entity. Source: the rules of
/// go-kong's `flattenJSONSchema`.
pub fn json_schema(record: &Record) -> Value {
    let mut document = json_record(record);
    document.insert("additionalProperties".to_owned(), Value::Bool(false));
    Value::Object(document)
}

fn json_record(record: &Record) -> Map<String, Value> {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for field in &record.fields {
        properties.insert(field.name.to_owned(), json_field(field));
        if field.required && field.default.is_none() && !field.auto {
            required.push(Value::from(field.name));
        }
    }
    let mut document = Map::new();
    document.insert("type".to_owned(), json!("object"));
    document.insert("properties".to_owned(), Value::Object(properties));
    if !required.is_empty() {
        document.insert("required".to_owned(), Value::Array(required));
    }
    document
}

fn json_field(field: &Field) -> Value {
    let mut doc = match &field.ty {
        Type::String => object(json!({"type": "string"})),
        Type::Number => object(json!({"type": "number"})),
        Type::Integer => object(json!({"type": "integer"})),
        Type::Boolean => object(json!({"type": "boolean"})),
        Type::Array(each) => object(json!({"type": "array", "items": json_field(each)})),
        Type::Set(each) => object(json!({
            "type": "array", "items": json_field(each), "uniqueItems": true,
        })),
        Type::Map { values, .. } => object(json!({
            "type": "object", "additionalProperties": json_field(values),
        })),
        Type::Record(record) => {
            let mut doc = json_record(record);
            if !field.required {
                doc.insert("additionalProperties".to_owned(), Value::Bool(false));
            }
            doc
        }
        Type::Foreign(_) => object(json!({
            "type": "object",
            "properties": {"id": {"type": "string", "format": "uuid"}},
            "required": ["id"],
            "additionalProperties": false,
        })),
    };
    if field.uuid {
        doc.insert("format".to_owned(), json!("uuid"));
    }
    if let Some(default) = &field.default {
        doc.insert("default".to_owned(), default.clone());
    }
    for rule in &field.rules {
        json_rule(rule, &field.ty, &mut doc);
    }
    Value::Object(doc)
}

fn json_rule(rule: &Rule, ty: &Type, doc: &mut Map<String, Value>) {
    let mut put = |key: &str, value: Value| {
        doc.insert(key.to_owned(), value);
    };
    match rule {
        Rule::OneOf(list) => put("enum", Value::Array(list.clone())),
        Rule::Between(min, max) => {
            put("minimum", json!(min));
            put("maximum", json!(max));
        }
        Rule::Above(floor) => put("exclusiveMinimum", json!(floor)),
        Rule::Len { min, max } => {
            let (low, high) = match ty {
                Type::Array(_) | Type::Set(_) => ("minItems", "maxItems"),
                Type::Map { .. } | Type::Record(_) => ("minProperties", "maxProperties"),
                _ => ("minLength", "maxLength"),
            };
            put(low, json!(min));
            if *max != usize::MAX {
                put(high, json!(max));
            }
        }
        // Other conditions have no form that this document's readers use.
        Rule::StartsWith(_) | Rule::Null | Rule::Custom(_) => {}
    }
}

/// The record in Kong's own schema form, as `schemas/{kind}` answers:
/// `{"fields": [{"name": {…}}, …], "entity_checks": […]}`.
pub fn lua_schema(record: &Record) -> Value {
    Value::Object(lua_record(record))
}

fn lua_record(record: &Record) -> Map<String, Value> {
    let fields: Vec<Value> = record
        .fields
        .iter()
        .map(|field| json!({ field.name: lua_field(field) }))
        .collect();
    let checks: Vec<Value> = record.checks.iter().filter_map(lua_check).collect();
    let mut document = Map::new();
    document.insert("fields".to_owned(), Value::Array(fields));
    if !checks.is_empty() {
        document.insert("entity_checks".to_owned(), Value::Array(checks));
    }
    document
}

/// One field in Kong's schema form.
pub(super) fn lua_field(field: &Field) -> Value {
    let mut doc = match &field.ty {
        Type::Record(record) => lua_record(record),
        _ => Map::new(),
    };
    let mut put = |key: &str, value: Value| {
        doc.insert(key.to_owned(), value);
    };
    put("type", json!(field.ty.name()));
    match &field.ty {
        Type::Array(each) | Type::Set(each) => put("elements", lua_field(each)),
        Type::Map { keys, values } => {
            put("keys", lua_field(keys));
            put("values", lua_field(values));
        }
        Type::Foreign(foreign) => {
            put("reference", json!(foreign.reference));
            if foreign.on_delete == super::OnDelete::Cascade {
                put("on_delete", json!("cascade"));
            }
        }
        _ => {}
    }
    if let Some(default) = &field.default {
        put("default", default.clone());
    }
    let flags = [
        ("required", field.required),
        ("auto", field.auto),
        ("unique", field.unique),
        ("referenceable", field.referenceable),
        ("encrypted", field.encrypted),
        ("uuid", field.uuid),
        ("timestamp", field.timestamp),
    ];
    for (flag, _) in flags.iter().filter(|(_, on)| *on) {
        put(flag, json!(true));
    }
    for rule in &field.rules {
        match rule {
            Rule::OneOf(list) => put("one_of", Value::Array(list.clone())),
            Rule::Between(min, max) => put("between", json!([min, max])),
            Rule::Above(floor) => put("gt", json!(floor)),
            Rule::Len { min, max } => {
                put("len_min", json!(min));
                if *max != usize::MAX {
                    put("len_max", json!(max));
                }
            }
            Rule::StartsWith(prefix) => put("starts_with", json!(prefix)),
            Rule::Null => put("eq", Value::Null),
            Rule::Custom(_) => {}
        }
    }
    Value::Object(doc)
}

fn lua_check(check: &EntityCheck) -> Option<Value> {
    Some(match check {
        EntityCheck::AtLeastOneOf(list) => json!({ "at_least_one_of": list }),
        EntityCheck::OnlyOneOf(list) => json!({ "only_one_of": list }),
        EntityCheck::MutuallyExclusive(list) => json!({ "mutually_exclusive": list }),
        EntityCheck::AllOrNone(list) => json!({ "mutually_required": list }),
        EntityCheck::Conditional {
            if_field,
            if_match,
            then_field,
            then_match,
        } => json!({
            "conditional": {
                "if_field": if_field,
                "if_match": lua_match(*if_match),
                "then_field": then_field,
                "then_match": lua_match(*then_match),
            },
        }),
        // Kong does not show functions either.
        EntityCheck::Custom { .. } => return None,
    })
}

fn lua_match(condition: Match) -> Value {
    match condition {
        Match::OneOf(list) => json!({ "one_of": list }),
        Match::NoneOf(list) => json!({ "not_one_of": list }),
        Match::Set => json!({ "required": true }),
        Match::Null => json!({ "eq": null }),
        Match::Not(other) => json!({ "ne": other }),
    }
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}
