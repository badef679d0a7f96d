//! A record in ArcSight's Common Event Format, one line of text.
//!
//! `{time} {host} CEF:0|{vendor}|{product}|{version}|{class}|{name}|{severity}|k=v k=v …`. In the
//! head a backslash and a pipe are escaped by a backslash, in a value a backslash, an equals sign
//! and line ends (as `\n` and `\r`). What is signed is the line before ` sig=`.

use serde_json::{Map, Value};

const HEAD: [&str; 8] = [
    "cef_version",
    "event_ts",
    "event_vendor",
    "event_product",
    "event_version",
    "event_class_id",
    "name",
    "severity",
];

/// The record as a line, without signature and line end. `host` is the installation's domain;
/// `record` is the record's JSON object.
pub fn render(host: &str, record: &Map<String, Value>) -> String {
    let time = plain(record.get("event_ts"));
    let mut line = format!("{time} {} ", host.replace(char::is_whitespace, "_"));
    line.push_str(&body(record));
    line
}

/// The record from `CEF:0|` on: as [`render`], for a carrier that has time and host already.
pub fn body(record: &Map<String, Value>) -> String {
    let mut line = String::from("CEF:");
    line.push_str(&plain(record.get("cef_version")));
    for name in &HEAD[2..] {
        line.push('|');
        escape_head(&plain(record.get(*name)), &mut line);
    }
    line.push('|');
    let mut first = true;
    for (name, value) in record {
        if HEAD.contains(&name.as_str()) || name == "sig" {
            continue;
        }
        if !std::mem::take(&mut first) {
            line.push(' ');
        }
        line.push_str(name);
        line.push('=');
        escape_value(&plain(Some(value)), &mut line);
    }
    line
}

fn plain(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

fn escape_head(text: &str, out: &mut String) {
    for c in text.chars() {
        match c {
            '\\' | '|' => out.extend(['\\', c]),
            // CEF has no escape for a line end in its head
            '\n' | '\r' => out.push(' '),
            c => out.push(c),
        }
    }
}

fn escape_value(text: &str, out: &mut String) {
    for c in text.chars() {
        match c {
            '\\' | '=' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            c => out.push(c),
        }
    }
}
