//! YAML or JSON text to a value, within bounds.

use serde_json::Value;

use super::problem::{Place, Problem};
use crate::schema::Path;

/// Levels of nesting that a document may have; real ones have about ten.
pub(super) const DEPTH_MAX: usize = 64;

/// Nodes (keys, values, lists, objects) that YAML text may have: a few hundred thousand objects.
const NODES_MAX: usize = 20_000_000;

/// Bytes of YAML text values.
const TEXT_BYTES_MAX: usize = 1 << 30;

/// Reads text as JSON if it starts like an object and is one, else as YAML.
///
/// # Errors
/// The first thing that is wrong with the text, with its line and column.
pub(super) fn read(text: &str) -> Result<Value, Problem> {
    let json = text.trim_start().starts_with('{');
    if json {
        match serde_json::from_str::<Value>(text) {
            Ok(value) => return Ok(value),
            // YAML has a flow style that starts alike; if it is not that either, JSON was meant.
            Err(error) => return yaml(text).map_err(|_| json_problem(&error)),
        }
    }
    yaml(text)
}

fn yaml(text: &str) -> Result<Value, Problem> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: DEPTH_MAX,
            max_nodes: NODES_MAX,
            max_events: 2 * NODES_MAX,
            max_total_scalar_bytes: TEXT_BYTES_MAX,
        },
        // `name: off` and `tags: [no]` are words; only true and false are booleans.
        strict_booleans: true,
        with_snippet: false,
    };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let error = error.without_snippet();
        let place = error.location();
        let message = error.render_with_formatter(&serde_saphyr::UserMessageFormatter);
        let too_deep = message.contains("Depth {") || message.contains("recursion limit");
        let message = match too_deep {
            true => format!("nested more than {DEPTH_MAX} levels deep"),
            false => format!("not valid YAML: {}", first_clause(&message)),
        };
        Problem {
            place: Place::Text {
                line: place.map(|place| place.line()),
                column: place.map(|place| place.column()),
            },
            path: Path::root(),
            message,
        }
    })
}

/// A message without the position, which the problem has in numbers, and without the advice to
/// programmers that follows a semicolon.
fn first_clause(message: &str) -> &str {
    let line = message.lines().next().unwrap_or_default();
    let line = line.split(" at line ").next().unwrap_or(line);
    line.split("; ").next().unwrap_or(line)
}

fn json_problem(error: &serde_json::Error) -> Problem {
    let message = error.to_string();
    let message = first_clause(&message);
    Problem {
        place: Place::Text {
            line: Some(error.line() as u64),
            column: Some(error.column() as u64),
        },
        path: Path::root(),
        message: format!("not valid JSON: {message}"),
    }
}
