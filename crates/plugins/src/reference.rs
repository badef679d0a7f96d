//! Reference pages, from the same schema that validates.

use std::fmt::Write as _;

use sallyport_model::schema::{EntityCheck, Field, Match, Record, Rule, Type};

use crate::Plugin;

/// What a plugin may be configured for, most general first.
pub fn scopes(plugin: &dyn Plugin) -> &'static str {
    match plugin.consumer_scope() {
        true => "global, service, route, consumer, consumer group",
        false => "global, service, route",
    }
}

/// The list of these plugins as a Markdown table, each with a link to its page.
pub fn table(plugins: &[&dyn Plugin]) -> String {
    let mut text = "| plugin | priority | scopes | what it does |\n|---|---|---|---|\n".to_owned();
    for plugin in plugins {
        let (name, priority) = (plugin.name(), plugin.priority());
        let (scopes, summary) = (scopes(*plugin), plugin.summary());
        let _ = writeln!(
            text,
            "| [`{name}`](plugins/{name}.md) | {priority} | {scopes} | {summary} |"
        );
    }
    text
}

/// The reference page of a plugin, in Markdown.
pub fn page(plugin: &dyn Plugin) -> String {
    let (name, summary) = (plugin.name(), plugin.summary());
    let mut text = format!(
        "<!-- Written by `cargo test -p sallyport-plugins` with UPDATE_DOCS=1. -->\n\
         # {name}\n\n\
         `{name}` {summary}.\n\n\
         Priority {}. Scopes: {}. Protocols: {}.\n\n\
         ## Configuration\n\n\
         | field of `config` | type | default | what it does |\n|---|---|---|---|\n",
        plugin.priority(),
        scopes(plugin),
        protocols(plugin),
    );
    let schema = plugin.schema();
    rows(&schema, "", &mut text);
    let rules: Vec<String> = schema.checks.iter().filter_map(rule_of_record).collect();
    if !rules.is_empty() {
        let _ = writeln!(text, "\n{}", rules.join(" "));
    }
    let about = plugin.about();
    if !about.is_empty() {
        let _ = write!(text, "\n## What it does\n\n{}\n", about.trim_end());
    }
    text
}

/// The protocols of a configuration that names none, and those that it may name.
fn protocols(plugin: &dyn Plugin) -> String {
    let names = plugin.protocols();
    let others: Vec<&str> = plugin
        .protocols_allowed()
        .iter()
        .copied()
        .filter(|name| !names.contains(name))
        .collect();
    match others.is_empty() {
        true => names.join(", "),
        false => format!("{}; also accepted: {}", names.join(", "), others.join(", ")),
    }
}

fn rows(record: &Record, prefix: &str, text: &mut String) {
    for field in &record.fields {
        let name = format!("{prefix}{}", field.name);
        let (ty, default) = (escape(&shape(field)), escape(&default(field)));
        let _ = writeln!(
            text,
            "| `{name}` | {ty} | {default} | {} |",
            escape(field.about)
        );
        if let Some(below) = below(&field.ty) {
            let mark = if matches!(field.ty, Type::Record(_)) {
                ""
            } else {
                "[]"
            };
            rows(below, &format!("{name}{mark}."), text);
        }
    }
}

/// The members of what a field holds, if these are records.
fn below(ty: &Type) -> Option<&Record> {
    match ty {
        Type::Record(record) => Some(record),
        Type::Array(each) | Type::Set(each) => below(&each.ty),
        Type::Map { values, .. } => below(&values.ty),
        _ => None,
    }
}

/// Type and conditions of a field, such as `number, above 0`.
fn shape(field: &Field) -> String {
    let mut parts = vec![match &field.ty {
        Type::Array(each) => format!("list of {}", shape(each)),
        Type::Set(each) => format!("set of {}", shape(each)),
        Type::Map { values, .. } => format!("map to {}", shape(values)),
        Type::Foreign(foreign) => format!("reference to one of {}", foreign.reference),
        other => other.name().to_owned(),
    }];
    parts.extend(field.rules.iter().filter_map(rule));
    if field.referenceable {
        parts.push("may be a vault reference".to_owned());
    }
    if field.encrypted {
        parts.push("secret".to_owned());
    }
    parts.join(", ")
}

fn rule(rule: &Rule) -> Option<String> {
    Some(match rule {
        Rule::OneOf(list) => {
            let list: Vec<String> = list
                .iter()
                .map(|value| format!("`{}`", plain(value)))
                .collect();
            match list.as_slice() {
                [one] => one.clone(),
                list => format!("one of {}", list.join(" ")),
            }
        }
        Rule::Between(min, max) => format!("{min} to {max}"),
        Rule::Above(floor) => format!("above {floor}"),
        Rule::Len {
            min: 0,
            max: usize::MAX,
        } => "may be empty".to_owned(),
        Rule::Len {
            min,
            max: usize::MAX,
        } => format!("length at least {min}"),
        Rule::Len { min, max } => format!("length {min} to {max}"),
        Rule::StartsWith(prefix) => format!("starts with `{prefix}`"),
        Rule::Null => "unset".to_owned(),
        Rule::Custom(_) => return None,
    })
}

fn default(field: &Field) -> String {
    match &field.default {
        Some(value) => format!("`{value}`"),
        None if field.auto => "generated".to_owned(),
        None if matches!(field.ty, Type::Record(_)) => String::new(),
        None if field.required => "must be set".to_owned(),
        None => String::new(),
    }
}

fn plain(value: &serde_json::Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

/// A rule over several fields as a sentence; `None` if it has no words.
fn rule_of_record(check: &EntityCheck) -> Option<String> {
    let names = |list: &[&str]| {
        let list: Vec<String> = list.iter().map(|name| format!("`{name}`")).collect();
        list.join(", ")
    };
    Some(match check {
        EntityCheck::AtLeastOneOf(list) => format!("At least one of {} must be set.", names(list)),
        EntityCheck::OnlyOneOf(list) => format!("Exactly one of {} must be set.", names(list)),
        EntityCheck::MutuallyExclusive(list) => {
            format!("At most one of {} may be set.", names(list))
        }
        EntityCheck::AllOrNone(list) => {
            format!("Either all of {} are set or none is.", names(list))
        }
        EntityCheck::Conditional {
            if_field,
            if_match,
            then_field,
            then_match,
        } => format!(
            "If `{if_field}` is {}, `{then_field}` must be {}.",
            matched(*if_match),
            matched(*then_match)
        ),
        EntityCheck::Custom { .. } => return None,
    })
}

fn matched(condition: Match) -> String {
    let names = |list: &[&str], word: &str| {
        let list: Vec<String> = list.iter().map(|name| format!("`{name}`")).collect();
        list.join(word)
    };
    match condition {
        Match::OneOf(list) => names(list, " or "),
        Match::NoneOf(list) => format!("none of {}", names(list, ", ")),
        Match::Set => "set".to_owned(),
        Match::Null => "unset".to_owned(),
        Match::Not(other) => format!("other than `{other}`"),
    }
}

/// Text inside a cell of a table.
fn escape(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}
