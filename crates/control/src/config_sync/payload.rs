//! What is sent: one revision of a control plane, ready for the wire.

use std::collections::BTreeSet;

use bytes::Bytes;
use sallyport_model::to_config_table;
use sallyport_store::Snapshot;
use sallyport_wire::ConfigHash;
use sallyport_wire::config_sync::{PluginVersion, Reconfigure};

use super::own_plugin;

/// One revision, encoded once for every data plane.
#[derive(Debug)]
pub(crate) struct Payload {
    /// The revision it was built from.
    pub(crate) revision: u64,
    /// What data planes that run it report.
    pub(crate) hash: ConfigHash,
    /// The frame: gzip of JSON.
    pub(crate) frame: Bytes,
    /// Plugins that a data plane must have to run it.
    pub(crate) plugins: Vec<PluginVersion>,
    /// Unix seconds.
    pub(crate) built_at: i64,
}

impl Payload {
    /// Takes time in proportion to the configuration; not for an async thread.
    pub(super) fn build(snapshot: &Snapshot, now_ms: i64) -> Payload {
        let table = to_config_table(&snapshot.entities);
        let configured = table["plugins"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        let names: BTreeSet<&str> = configured
            .iter()
            .filter_map(|plugin| plugin["name"].as_str())
            .collect();
        let plugins = names.into_iter().map(own_plugin).collect();
        // Milliseconds since 1970 stay far below 2^53.
        let reconfigure = Reconfigure::new(table, now_ms as f64 / 1_000.0);
        Payload {
            revision: snapshot.revision,
            hash: reconfigure.hash(),
            frame: reconfigure.encode().into(),
            plugins,
            built_at: now_ms / 1_000,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use sallyport_model::Kind;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_payload_says_what_it_needs_and_decodes() {
        let plugin = |name: &str, id: u8| {
            json!({"id": uuid::Uuid::from_u128(id.into()).to_string(), "name": name,
                   "config": {}, "enabled": true})
        };
        let plugins = vec![
            plugin("rate-limiting", 1),
            plugin("key-auth", 2),
            plugin("key-auth", 3),
        ];
        let snapshot = Snapshot {
            revision: 7,
            entities: BTreeMap::from([(Kind::Plugin, plugins)]),
        };
        let payload = Payload::build(&snapshot, 1_700_000_000_500);
        let names: Vec<&str> = payload
            .plugins
            .iter()
            .map(|plugin| plugin.name.as_str())
            .collect();
        assert_eq!(names, ["key-auth", "rate-limiting"]);
        assert_eq!((payload.revision, payload.built_at), (7, 1_700_000_000));
        assert!(!payload.hash.is_zero());
        let decoded = Reconfigure::decode(&payload.frame, 1 << 20).unwrap();
        assert_eq!(decoded.config_hash, Some(payload.hash));
        assert_eq!(decoded.timestamp, Some(1_700_000_000.5));
        assert_eq!(decoded.config_table["plugins"].as_array().unwrap().len(), 3);
    }
}
