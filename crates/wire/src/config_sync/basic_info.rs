//! `basic_info`: the first frame of a data plane.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{FrameError, expect_kind, object};

pub(super) const TYPE: &str = "basic_info";

/// What a data plane says about itself before it gets a configuration.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BasicInfo {
    /// Every plugin installed on the node. The control plane withholds a configuration that
    /// uses a plugin not in this list.
    pub plugins: Vec<PluginVersion>,
    /// The node's effective settings, secrets masked. Known readers: `router_flavor`,
    /// `cluster_max_payload`.
    pub process_conf: Map<String, Value>,
    /// WebAssembly filters by name.
    pub filters: Map<String, Value>,
    /// Labels of the node (`cluster_dp_labels`).
    pub labels: BTreeMap<String, String>,
}

/// A plugin name and the version its code reports, such as `key-auth` `3.9.0`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PluginVersion {
    /// Name as in the configuration.
    pub name: String,
    /// Version; empty if the node did not say.
    pub version: String,
}

impl BasicInfo {
    /// The frame: plain JSON, plugins sorted by lower-case name.
    pub fn encode(&self) -> Vec<u8> {
        let mut plugins = self.plugins.clone();
        plugins.sort_by_key(|plugin| plugin.name.to_ascii_lowercase());
        let mut frame = json!({
            "type": TYPE,
            "plugins": plugins,
            "process_conf": self.process_conf,
            "filters": self.filters,
        });
        if !self.labels.is_empty() {
            frame["labels"] = json!(self.labels);
        }
        frame.to_string().into_bytes()
    }

    /// Reads the frame. Fields this build does not know are ignored.
    ///
    /// # Errors
    /// Not JSON, another type, or no `plugins` list (Kong's control plane disconnects then).
    pub fn decode(frame: &[u8]) -> Result<BasicInfo, FrameError> {
        BasicInfo::from_object(object(frame)?)
    }

    pub(super) fn from_object(mut object: Map<String, Value>) -> Result<BasicInfo, FrameError> {
        expect_kind(&object, TYPE)?;
        let plugins = match object.remove("plugins") {
            Some(Value::Array(items)) => items.into_iter().map(plugin).collect::<Result<_, _>>()?,
            // Lua encodes an empty list as an empty object.
            Some(Value::Object(empty)) if empty.is_empty() => Vec::new(),
            Some(_) => return Err(problem("plugins", "is not a list")),
            None => return Err(problem("plugins", "is missing")),
        };
        let labels = take_object(&mut object, "labels")
            .into_iter()
            .filter_map(|(key, value)| Some((key, text(value)?)))
            .collect();
        Ok(BasicInfo {
            plugins,
            process_conf: take_object(&mut object, "process_conf"),
            filters: take_object(&mut object, "filters"),
            labels,
        })
    }
}

fn plugin(item: Value) -> Result<PluginVersion, FrameError> {
    let Value::Object(mut item) = item else {
        return Err(problem("plugins", "has an entry that is not an object"));
    };
    let Some(Value::String(name)) = item.remove("name") else {
        return Err(problem("plugins", "has an entry without a name"));
    };
    let version = item.remove("version").and_then(text).unwrap_or_default();
    Ok(PluginVersion { name, version })
}

/// An object, or an empty one for everything else: `process_conf` and the like are hints.
fn take_object(object: &mut Map<String, Value>, field: &str) -> Map<String, Value> {
    match object.remove(field) {
        Some(Value::Object(fields)) => fields,
        _ => Map::new(),
    }
}

fn text(value: Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        _ => None,
    }
}

fn problem(field: &'static str, problem: &str) -> FrameError {
    FrameError::Field {
        field,
        problem: problem.to_owned(),
    }
}
