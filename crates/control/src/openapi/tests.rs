//! The document is whole, and the copies of it in docs are fresh.

use std::collections::BTreeSet;
use std::fmt::Write;

use super::*;
use crate::identity::{ROLES, TEAMS, covers};

/// Compares a generated text with its file below docs, or writes it anew.
#[track_caller]
fn fresh(file: &str, text: &str) {
    let path = format!("{}/../../docs/{file}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, text).unwrap();
        return;
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    let hint = "UPDATE_DOCS=1 cargo test -p sallyport-control --lib openapi writes it anew";
    assert!(found == text, "docs/{file} is stale; {hint}");
}

#[test]
fn the_copy_in_docs_is_fresh() {
    let document = describe(&crate::app::routes());
    let mut text = serde_json::to_string_pretty(&document).unwrap();
    text.push('\n');
    fresh("openapi.json", &text);
}

/// Every reference leads somewhere, and no schema is there for nothing.
#[test]
fn references_and_schemas_fit_together() {
    fn collect(value: &Value, into: &mut BTreeSet<String>) {
        match value {
            Value::Object(members) => {
                for (name, member) in members {
                    if name == "$ref" {
                        into.insert(member.as_str().unwrap().to_owned());
                    }
                    collect(member, into);
                }
            }
            Value::Array(list) => list.iter().for_each(|item| collect(item, into)),
            _ => {}
        }
    }
    let document = describe(&crate::app::routes());
    let mut used = BTreeSet::new();
    collect(&document, &mut used);
    let there: BTreeSet<String> = ["schemas", "responses"]
        .into_iter()
        .flat_map(|part| {
            let all = document["components"][part].as_object().unwrap();
            all.keys()
                .map(move |name| format!("#/components/{part}/{name}"))
        })
        .collect();
    assert_eq!(used, there);
}

#[test]
fn no_path_has_a_method_twice() {
    let mut seen = BTreeSet::new();
    for route in crate::app::routes() {
        let key = format!("{} {}", route.method, route.path);
        assert!(seen.insert(key.clone()), "{key}");
    }
}

/// docs/api.md: each route with the roles that open it.
#[test]
fn the_table_of_routes_in_docs_is_fresh() {
    let mut text = String::from(
        "# Paths and roles\n\n\
         Every path of the control plane's API, what it does and which roles open it. Written from the\n\
         table of routes that the router is made of; `/openapi.json` has arguments, bodies and answers.\n\
         The owner of the organization and the team Organization Admin may do everything.\n\n\
         Paths below `/v2/control-planes/{cp}/versions/{version}/core-entities` are as those below\n\
         `/v2/control-planes/{cp}/core-entities`, for reading.\n",
    );
    let mut rows: Vec<Route> = crate::app::routes();
    rows.retain(|route| !route.path.contains("/versions/{version}/core-entities"));
    rows.sort_by(|a, b| (&a.path, a.method.as_str()).cmp(&(&b.path, b.method.as_str())));
    text.push_str("\n| path | method | does | roles |\n|---|---|---|---|\n");
    for route in rows {
        let (path, method, does) = (&route.path, &route.method, route.summary);
        writeln!(
            text,
            "| `{path}` | {method} | {does} | {} |",
            openers(route.needs)
        )
        .unwrap();
    }
    fresh("api.md", &text);
}

fn openers(needs: Needs) -> String {
    match needs {
        Needs::Nothing => return "no token needed".to_owned(),
        Needs::Token => return "any token".to_owned(),
        _ => {}
    }
    let mut names = Vec::new();
    if let Needs::Person(_) = needs {
        names.push("that user".to_owned());
    }
    let needs = match needs {
        Needs::Person(access) => Needs::Identity(access),
        other => other,
    };
    for team in TEAMS.iter().filter(|team| (team.allows)(needs)) {
        if team.name != "Organization Admin" {
            names.push(format!("team {}", team.name));
        }
    }
    let roles = ROLES.iter().filter(|role| covers(role, needs));
    names.extend(roles.map(|role| match role.entity_type {
        "Control Planes" => role.name.to_owned(),
        other => format!("{other} {}", role.name),
    }));
    names.join(", ")
}
