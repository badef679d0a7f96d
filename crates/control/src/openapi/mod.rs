//! The OpenAPI 3.1 document of all APIs, made from the table of routes.

mod schemas;
#[cfg(test)]
mod tests;

use std::sync::OnceLock;

use axum::Json;
use serde_json::{Map, Value, json};

use crate::KONG_VERSION;
use crate::identity::Needs;
use crate::route::Route;

pub(crate) fn routes() -> Vec<Route> {
    let path = "/openapi.json";
    let route = Route::get(path, Needs::Nothing, "This document", document);
    vec![route.gives(200, "Object")]
}

async fn document() -> Json<&'static Value> {
    static DOCUMENT: OnceLock<Value> = OnceLock::new();
    Json(DOCUMENT.get_or_init(|| describe(&crate::app::routes())))
}

/// Status codes of refusals, beside those of success. Writes have more of them.
const REFUSALS: [(u16, &str); 7] = [
    (
        400,
        "The request is wrong; the answer names the field or argument.",
    ),
    (401, "There is no good access token."),
    (
        403,
        "The caller's roles do not allow it, or the control plane's type does not.",
    ),
    (404, "It is not there."),
    (405, "The path does not have this method."),
    (
        429,
        "The token sends more requests than it may; Retry-After says how long to wait.",
    ),
    (
        503,
        "The database is not available; Retry-After says when to try again.",
    ),
];
const REFUSALS_OF_WRITES: [(u16, &str); 3] = [
    (409, "It clashes with what is there."),
    (413, "The body is larger than 10 MiB."),
    (507, "The disk is full."),
];

fn describe(routes: &[Route]) -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for route in routes {
        let path = paths.entry(route.path.clone()).or_insert_with(|| json!({}));
        path[route.method.as_str().to_ascii_lowercase()] = operation(route);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Sallyport control plane",
            "version": KONG_VERSION,
            "description": "Control planes, entities, identity and the audit log.",
        },
        "servers": [{"url": "/"}],
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": schemas::all(),
            "responses": refusals(),
        },
    })
}

/// What every route may answer instead, by status.
fn refusals() -> Value {
    let all = REFUSALS.iter().chain(&REFUSALS_OF_WRITES);
    let described = all.map(|(status, description)| {
        let refusal = json!({
            "description": description,
            "content": {
                "application/json": {"schema": reference("Error")},
                "application/problem+json": {"schema": reference("Problem")},
            },
        });
        (status.to_string(), refusal)
    });
    Value::Object(described.collect())
}

fn reference(schema: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{schema}")})
}

fn content(schema: &str) -> Value {
    json!({"application/json": {"schema": reference(schema)}})
}

fn operation(route: &Route) -> Value {
    let (status, schema) = &route.gives;
    let mut answers = Map::new();
    let mut success = json!({"description": "Done."});
    if let Some(schema) = schema {
        success["content"] = content(schema);
    }
    answers.insert(status.to_string(), success);
    let writes = route.method != http::Method::GET;
    let more = REFUSALS_OF_WRITES.iter().filter(|_| writes);
    for (status, _) in REFUSALS.iter().chain(more) {
        let refusal = json!({"$ref": format!("#/components/responses/{status}")});
        answers.insert(status.to_string(), refusal);
    }
    let mut operation = json!({
        "summary": route.summary,
        "operationId": id(route),
        "parameters": parameters(route),
        "responses": answers,
    });
    if let Some(schema) = &route.takes {
        operation["requestBody"] = json!({"required": true, "content": content(schema)});
    }
    if route.needs == Needs::Nothing {
        operation["security"] = json!([]);
    }
    operation
}

/// `get-v3-teams-by-team`.
fn id(route: &Route) -> String {
    let mut id = route.method.as_str().to_ascii_lowercase();
    for part in route.path.split('/').filter(|part| !part.is_empty()) {
        let name = part
            .strip_prefix('{')
            .and_then(|part| part.strip_suffix('}'));
        match name {
            Some(name) => id.push_str(&format!("-by-{name}")),
            None => id.push_str(&format!("-{part}")),
        }
    }
    id
}

fn parameters(route: &Route) -> Vec<Value> {
    let parts = route.path.split('/');
    let names = parts.filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let mut all: Vec<Value> = names
        .map(|name| {
            let schema = json!({"type": "string", "minLength": 1});
            json!({"name": name, "in": "path", "required": true, "schema": schema})
        })
        .collect();
    all.extend(route.query.iter().map(|name| {
        let schema = match *name {
            "page[size]" | "size" => json!({"type": "integer", "minimum": 1, "maximum": 1000}),
            "page[number]" | "page" => json!({"type": "integer", "minimum": 1}),
            _ => json!({"type": "string"}),
        };
        json!({"name": name, "in": "query", "schema": schema})
    }));
    all
}
