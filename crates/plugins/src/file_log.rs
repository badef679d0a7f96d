//! `file-log`: appends a line for each request to a file.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use sallyport_model::schema::{Field, PROTOCOLS, Record};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::exchange::{Env, Exchange, Handler};
use crate::finished::Finished;
use crate::log_queue::{
    CustomFields, Destination, Outlet, QueueSpec, Sink, custom_fields_by_lua, lines, queue_limits,
};
use crate::{CompileError, Plugin};

const ABOUT: &str = "\
Each request is a line of JSON, see [log queues](../log_queue.md#what-an-entry-tells). Lines are collected
and written in the background; a slow or full disk holds up no request. The file and the folders above it are
made if they are missing. `/dev/stdout` and `/dev/stderr` are what the gateway's process has for them.

A file that was moved away is written on until it is opened anew: by SIGUSR1 or SIGHUP to the gateway, or with
`reopen` before whatever is written next, at the price of opening it each time.
";

/// The plugin, as the registry lists it.
pub(crate) struct FileLog;

impl Plugin for FileLog {
    fn name(&self) -> &'static str {
        "file-log"
    }

    fn priority(&self) -> i32 {
        9
    }

    fn summary(&self) -> &'static str {
        "appends a line for each request to a file"
    }

    fn about(&self) -> &'static str {
        ABOUT
    }

    fn protocols_allowed(&self) -> &'static [&'static str] {
        PROTOCOLS
    }

    fn schema(&self) -> Record {
        Record::new([
            Field::string("path")
                .required()
                .check(file_name)
                .about("The file."),
            Field::boolean("reopen")
                .required()
                .default(json!(false))
                .about("Whether the file is opened anew before each write."),
            custom_fields_by_lua(),
        ])
    }

    fn compile(&self, config: &Value) -> Result<Box<dyn Handler>, CompileError> {
        self.compile_entity(config, Uuid::nil())
    }

    fn compile_entity(&self, config: &Value, id: Uuid) -> Result<Box<dyn Handler>, CompileError> {
        let fields = CustomFields::compile(config)?;
        let config = Config::deserialize(config)?;
        let sink = Sink::File {
            path: config.path,
            reopen: config.reopen,
        };
        let outlet = Outlet::new(QueueSpec {
            plugin: self.name(),
            name: id.to_string(),
            limits: queue_limits(1000, Some(Duration::from_secs(60))),
            destination: Destination::new(sink, |batch| vec![lines(batch)]),
        });
        Ok(Box::new(Active(outlet, fields)))
    }
}

/// Source: the pattern of Kong's schema.
fn file_name(path: &Value) -> Result<(), String> {
    let path = path.as_str().unwrap_or_default();
    let inside = |c: char| !"*&%\\`".contains(c);
    let edge = |c: Option<char>| c.is_some_and(|c| inside(c) && !c.is_whitespace());
    let long = path.chars().count() > 1;
    match long && path.chars().all(inside) && edge(path.chars().next()) && edge(path.chars().last())
    {
        true => Ok(()),
        false => Err("not a valid filename".to_owned()),
    }
}

#[derive(Deserialize)]
struct Config {
    path: PathBuf,
    reopen: bool,
}

struct Active(Outlet, CustomFields);

impl Handler for Active {
    fn logs(&self) -> bool {
        true
    }

    fn log(&self, exchange: &mut Exchange, finished: &Finished<'_>, env: &Env<'_>) {
        let entry: Bytes = self.1.line(exchange, finished);
        self.0.push(entry, env);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::queued;
    use crate::trial::problems;

    #[test]
    fn a_request_is_a_line() {
        let seen = queued(&FileLog, json!({"path": "/tmp/requests.log"}), |_| ());
        assert_eq!(seen.sink(), "/tmp/requests.log");
        let text = seen.payloads(2);
        assert_eq!(text.len(), 1, "lines are written together");
        let lines: Vec<&str> = text[0].lines().collect();
        assert_eq!(lines.len(), 2);
        let entry: Value = serde_json::from_str(lines[0]).unwrap();
        assert_eq!(entry["response"]["status"], 200);
        assert_eq!(entry["service"]["host"], "orders.example");
    }

    #[test]
    fn bad_configurations_are_named() {
        for (config, expected) in [
            (json!({}), "path: required field missing"),
            (json!({"path": " /a"}), "path: not a valid filename"),
            (json!({"path": "/a/%x"}), "path: not a valid filename"),
            (
                json!({"path": "/a", "custom_fields_by_lua": {"a": "return a"}}),
                "'return a' is not run by this build: there is no a",
            ),
        ] {
            let found = problems(&FileLog, config);
            assert!(found.contains(expected), "{found}");
        }
        let none = json!({"path": "/a", "custom_fields_by_lua": {}});
        assert_eq!(problems(&FileLog, none), "");
    }
}
