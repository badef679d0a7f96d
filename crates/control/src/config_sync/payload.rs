//! What is sent: one revision of a control plane, ready for the wire.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use sallyport_model::to_config_table;
use sallyport_store::Snapshot;
use sallyport_wire::ConfigHash;
use sallyport_wire::config_sync::delta::{REFUSED_MAX, Refused};
use sallyport_wire::config_sync::edits::{CLASSES, edit};
use sallyport_wire::config_sync::{PluginVersion, Reconfigure};

use super::own_plugin;
use super::state::digest;

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
    /// What older data planes get, by their class; made when the first of a class asks.
    edited: [OnceLock<Arc<Edited>>; CLASSES],
}

/// A revision as an older data plane gets it.
#[derive(Debug, Default)]
pub(crate) struct Edited {
    /// The frame.
    pub(crate) frame: Bytes,
    /// What is not in it as it was written, at most [`REFUSED_MAX`].
    pub(crate) noted: Vec<Refused>,
}

/// The own frame is not larger than this once decompressed; it only bounds an absurd one.
const DECOMPRESSED_BYTES_MAX: usize = 4 << 30;

impl Payload {
    /// Takes time in proportion to the configuration; not for an async thread.
    pub(super) fn build(snapshot: Snapshot, now_ms: i64) -> Payload {
        let digest = digest(&snapshot);
        let table = to_config_table(snapshot.entities);
        let configured = table["plugins"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        let names: BTreeSet<&str> = configured
            .iter()
            .filter_map(|plugin| plugin["name"].as_str())
            .collect();
        let plugins = names.into_iter().map(own_plugin).collect();
        let reconfigure = Reconfigure {
            // Milliseconds since 1970 stay far below 2^53.
            timestamp: Some(now_ms as f64 / 1_000.0),
            config_table: table,
            // the same as for those that get changes only
            config_hash: Some(digest.hash()),
            hashes: Some(digest.hashes()),
        };
        Payload {
            revision: snapshot.revision,
            hash: digest.hash(),
            frame: reconfigure.encode().into(),
            plugins,
            edited: [const { OnceLock::new() }; CLASSES],
        }
    }

    /// What data planes of a class other than the newest get. Takes time in proportion to the
    /// configuration when it is asked for first; not for an async thread.
    pub(super) fn edited(&self, class: usize) -> Arc<Edited> {
        let make = || {
            let Ok(mut own) = Reconfigure::decode(&self.frame, DECOMPRESSED_BYTES_MAX) else {
                return Arc::default();
            };
            let mut noted = edit(&mut own.config_table, class);
            noted.truncate(REFUSED_MAX);
            let frame = own.encode().into();
            Arc::new(Edited { frame, noted })
        };
        self.edited[class.min(CLASSES - 1)]
            .get_or_init(make)
            .clone()
    }

    #[cfg(test)]
    pub(super) fn of_bytes(revision: u64, hash: ConfigHash, frame: Bytes) -> Payload {
        Payload {
            revision,
            hash,
            frame,
            plugins: Vec::new(),
            edited: [const { OnceLock::new() }; CLASSES],
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
        let payload = Payload::build(snapshot, 1_700_000_000_500);
        let names: Vec<&str> = payload
            .plugins
            .iter()
            .map(|plugin| plugin.name.as_str())
            .collect();
        assert_eq!(names, ["key-auth", "rate-limiting"]);
        assert_eq!(payload.revision, 7);
        assert!(!payload.hash.is_zero());
        let decoded = Reconfigure::decode(&payload.frame, 1 << 20).unwrap();
        assert_eq!(decoded.config_hash, Some(payload.hash));
        assert_eq!(decoded.timestamp, Some(1_700_000_000.5));
        assert_eq!(decoded.config_table["plugins"].as_array().unwrap().len(), 3);
        // the hash is that of the revision, whatever an old data plane is not told
        let old = payload.edited(CLASSES - 1);
        let decoded = Reconfigure::decode(&old.frame, 1 << 20).unwrap();
        assert_eq!(decoded.config_hash, Some(payload.hash));
        assert!(Arc::ptr_eq(&old, &payload.edited(CLASSES - 1)), "made once");
    }
}
