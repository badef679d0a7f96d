//! Errors in the form of Kong's Admin API. Source: `kong/db/errors.lua`.

use http::StatusCode;
use sallyport_model::schema::{ErrorKind, FieldError};
use sallyport_store::StoreError;
use serde_json::{Value, json};

use super::error::CoreError;
use crate::body::BodyError;

/// Status and body. What Kong has no words for keeps those of core-entities.
pub(super) fn parts(error: CoreError) -> (StatusCode, Value) {
    let bad = StatusCode::BAD_REQUEST;
    match error {
        CoreError::NotFound
        | CoreError::Store(StoreError::NotFound | StoreError::NoControlPlane(_), _) => {
            (StatusCode::NOT_FOUND, json!({"message": "Not found"}))
        }
        CoreError::Invalid(errors) => (bad, violation(&errors)),
        CoreError::ListOption(message) => {
            let (code, name) = match message.as_str() {
                text if text.starts_with("invalid size") => (9, "invalid size"),
                _ => (11, "invalid options"),
            };
            (bad, body(code, name, &message, json!({})))
        }
        CoreError::Store(StoreError::BadOffset, _) => {
            (bad, body(7, "invalid offset", "invalid offset", json!({})))
        }
        CoreError::Method(..) => {
            let message = json!({"message": "Method not allowed"});
            (StatusCode::METHOD_NOT_ALLOWED, message)
        }
        CoreError::Body(BodyError::NotJson(reason)) => {
            let message = format!("Cannot parse JSON body: {reason}");
            (bad, json!({"message": message}))
        }
        CoreError::Store(StoreError::UniqueTaken { field, value }, _) => {
            // the value of a key is a secret
            let value = match field.as_str() {
                "name" | "username" | "custom_id" | "instance_name" | "id" => value,
                _ => "***".to_owned(),
            };
            let message = format!("UNIQUE violation detected on '{{{field}=\"{value}\"}}'");
            let fields = json!({field: value});
            let name = "unique constraint violation";
            (StatusCode::CONFLICT, body(5, name, &message, fields))
        }
        CoreError::Store(StoreError::ForeignMissing { field, kind, id }, _) => {
            let table = kind.table();
            let message = format!(
                "the foreign key '{{id=\"{id}\"}}' does not reference an existing '{table}' entity."
            );
            let name = "foreign key violation";
            (bad, body(4, name, &message, json!({field: {"id": id}})))
        }
        CoreError::Store(StoreError::StillReferenced { by, .. }, kind) => {
            let own = kind.map_or("entity", |kind| kind.table());
            let by = by.table();
            let message = format!("an existing '{by}' entity references this '{own}' entity");
            let name = "foreign key violation";
            (bad, body(4, name, &message, json!({"@referenced_by": by})))
        }
        other => {
            let (status, body) = other.parts();
            let message = match body["message"].as_str() {
                Some("") | None => "An unexpected error occurred",
                Some(message) => message,
            };
            (status, json!({"message": message}))
        }
    }
}

fn body(code: u8, name: &str, message: &str, fields: Value) -> Value {
    json!({
        "code": code,
        "name": name,
        "message": format!("{name} ({message})"),
        "fields": fields,
    })
}

fn violation(errors: &[FieldError]) -> Value {
    let mut fields = json!({});
    let mut told = Vec::new();
    for error in errors {
        let path = error.path.to_string();
        told.push(match path.as_str() {
            "" => error.message.clone(),
            path => format!("{path}: {}", error.message),
        });
        let mut place = &mut fields;
        for part in path.split('.').filter(|part| !part.is_empty()) {
            if !place.is_object() {
                *place = json!({});
            }
            place = &mut place[part];
        }
        match error.kind {
            ErrorKind::Field => *place = json!(error.message),
            ErrorKind::Entity => {
                if !place.is_object() {
                    *place = json!({});
                }
                match &mut place["@entity"] {
                    Value::Array(list) => list.push(json!(error.message)),
                    other => *other = json!([error.message]),
                }
            }
        }
    }
    let told = told.join("; ");
    let message = match errors.len() {
        1 => format!("schema violation ({told})"),
        several => format!("{several} schema violations ({told})"),
    };
    json!({"code": 2, "name": "schema violation", "message": message, "fields": fields})
}

#[cfg(test)]
mod tests {
    use sallyport_model::Kind;
    use sallyport_model::schema::Path;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn errors_have_kongs_codes_and_words() {
        let errors = vec![
            FieldError::field(Path::root().key("host"), "required field missing"),
            FieldError::field(Path::root().key("config").key("limit"), "expected a number"),
            FieldError::entity(Path::root(), "at least one"),
        ];
        let (status, body) = parts(CoreError::Invalid(errors));
        assert_eq!(status, 400);
        assert_eq!(
            body,
            json!({
                "code": 2,
                "name": "schema violation",
                "message": "3 schema violations (host: required field missing; \
                            config.limit: expected a number; at least one)",
                "fields": {
                    "host": "required field missing",
                    "config": {"limit": "expected a number"},
                    "@entity": ["at least one"],
                },
            })
        );
        let taken = StoreError::UniqueTaken {
            field: "name".to_owned(),
            value: "svc1".to_owned(),
        };
        let (status, body) = parts(taken.into());
        assert_eq!((status.as_u16(), &body["code"]), (409, &json!(5)));
        assert_eq!(
            body["message"],
            "unique constraint violation (UNIQUE violation detected on '{name=\"svc1\"}')"
        );
        let key = StoreError::UniqueTaken {
            field: "key".to_owned(),
            value: "secret".to_owned(),
        };
        let (_, body) = parts(key.into());
        assert!(!body.to_string().contains("secret"), "{body}");
        let held = StoreError::StillReferenced {
            by: Kind::Route,
            id: Uuid::nil(),
        };
        let (status, body) = parts(CoreError::Store(held, Some(Kind::Service)));
        assert_eq!((status.as_u16(), &body["code"]), (400, &json!(4)));
        let (status, body) = parts(CoreError::NotFound);
        assert_eq!(
            (status.as_u16(), body),
            (404, json!({"message": "Not found"}))
        );
    }
}
