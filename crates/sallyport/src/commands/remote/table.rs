//! Answers as tables, for people.

use sallyport_wire::appliance_cli::{Command, Reply};
use serde_json::{Map, Value};

/// The commands of a node.
pub(super) fn commands(node: &str, commands: &[Command]) -> String {
    let rows: Vec<Vec<String>> = commands
        .iter()
        .map(|it| vec![takes(it), it.about.clone()])
        .collect();
    let mut text = format!("commands of {node}:\n");
    text.push_str(&aligned(&rows, "  "));
    for command in commands.iter().filter(|it| !it.arguments.is_empty()) {
        text.push_str(&format!("\n{}\n", command.name));
        let rows: Vec<Vec<String>> = command
            .arguments
            .iter()
            .map(|it| vec![it.name.clone(), it.about.clone()])
            .collect();
        text.push_str(&aligned(&rows, "  "));
    }
    text
}

/// How a command is written.
pub(super) fn takes(command: &Command) -> String {
    let mut text = command.name.clone();
    for argument in &command.arguments {
        text.push_str(&match (argument.required, argument.secret) {
            (true, _) => format!(" <{}>", argument.name),
            (false, true) => format!(" [{}=@FILE]", argument.name),
            (false, false) => format!(" [{}]", argument.name),
        });
    }
    text
}

/// A reply: its message, then its facts.
pub(super) fn reply(reply: &Reply) -> String {
    let mut text = clean(&reply.message);
    text.push('\n');
    facts(&reply.arguments, &mut text);
    text
}

fn facts(all: &Map<String, Value>, text: &mut String) {
    let mut rows = Vec::new();
    for (name, value) in all {
        match value {
            Value::Array(list) if list.iter().any(Value::is_object) => {
                text.push_str(&aligned(&std::mem::take(&mut rows), ""));
                text.push('\n');
                text.push_str(&objects(list));
            }
            // Lines of text, such as those of a log.
            Value::Array(list) if list.len() > 4 => {
                text.push_str(&aligned(&std::mem::take(&mut rows), ""));
                for line in list {
                    text.push_str(&one(line));
                    text.push('\n');
                }
            }
            Value::Object(inner) => {
                for (part, value) in inner {
                    rows.push(vec![format!("{}.{}", clean(name), clean(part)), one(value)]);
                }
            }
            value => rows.push(vec![clean(name), one(value)]),
        }
    }
    text.push_str(&aligned(&rows, ""));
}

/// Objects as rows; the first one's members are the columns, others follow.
fn objects(list: &[Value]) -> String {
    let mut columns: Vec<&String> = Vec::new();
    for name in list.iter().filter_map(Value::as_object).flat_map(Map::keys) {
        if !columns.contains(&name) {
            columns.push(name);
        }
    }
    let mut rows = vec![columns.iter().map(|it| clean(it).to_uppercase()).collect()];
    for object in list {
        rows.push(columns.iter().map(|it| one(&object[it.as_str()])).collect());
    }
    aligned(&rows, "")
}

fn one(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => clean(text),
        Value::Array(list) => list.iter().map(one).collect::<Vec<_>>().join(", "),
        other => clean(&other.to_string()),
    }
}

/// A node's text may not steer the terminal.
fn clean(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() && c != '\n' { '?' } else { c })
        .collect()
}

fn aligned(rows: &[Vec<String>], indent: &str) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        text.push_str(format!("{indent}{}", cells.join("  ")).trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_reply_is_a_table() {
        let told = Reply::new("running")
            .with("node", "n1")
            .with("disk", json!({"free": 7}))
            .with("load", json!([0.5, 1]))
            .with(
                "nodes",
                json!([{"name": "n1", "live": true}, {"name": "long-name", "live": null}]),
            );
        assert_eq!(
            reply(&told),
            "running\ndisk.free  7\nload       0.5, 1\nnode       n1\n\n\
             LIVE  NAME\ntrue  n1\n-     long-name\n"
        );
        assert_eq!(reply(&Reply::new("a\u{1b}[2J")), "a?[2J\n");
    }
}
