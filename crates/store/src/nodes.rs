//! Data planes as they were last seen.

use std::collections::BTreeMap;

use uuid::Uuid;

use crate::{Store, StoreError, sql};

/// Whether a data plane can take the configuration. Source: Kong's `clustering_data_planes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncStatus {
    /// Nothing is known yet.
    Unknown,
    /// It can.
    Normal,
    /// Its version is not one this control plane serves.
    KongVersionIncompatible,
    /// It lacks a plugin that is configured.
    PluginSetIncompatible,
    /// It has a configured plugin in a version that does not fit.
    PluginVersionIncompatible,
    /// It lacks a filter that is configured.
    FilterSetIncompatible,
    /// It serves the configuration without some entities; ours only.
    EntitiesRefused,
}

impl SyncStatus {
    /// Every status.
    pub const ALL: [SyncStatus; 7] = [
        SyncStatus::Unknown,
        SyncStatus::Normal,
        SyncStatus::KongVersionIncompatible,
        SyncStatus::PluginSetIncompatible,
        SyncStatus::PluginVersionIncompatible,
        SyncStatus::FilterSetIncompatible,
        SyncStatus::EntitiesRefused,
    ];

    /// The name in APIs and in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            SyncStatus::Unknown => "unknown",
            SyncStatus::Normal => "normal",
            SyncStatus::KongVersionIncompatible => "kong_version_incompatible",
            SyncStatus::PluginSetIncompatible => "plugin_set_incompatible",
            SyncStatus::PluginVersionIncompatible => "plugin_version_incompatible",
            SyncStatus::FilterSetIncompatible => "filter_set_incompatible",
            SyncStatus::EntitiesRefused => "entities_refused",
        }
    }

    /// The status with this name; unknown names are [`SyncStatus::Unknown`].
    pub fn from_name(name: &str) -> SyncStatus {
        SyncStatus::ALL
            .into_iter()
            .find(|s| s.as_str() == name)
            .unwrap_or(SyncStatus::Unknown)
    }
}

/// What one contact with a data plane showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeSeen {
    /// Which control plane it is connected to.
    pub control_plane: Uuid,
    /// The node's own id.
    pub id: Uuid,
    /// Its host name.
    pub hostname: String,
    /// Its gateway version.
    pub version: String,
    /// Its address as this side saw it.
    pub ip: String,
    /// Labels it was configured with.
    pub labels: BTreeMap<String, String>,
    /// When, in Unix seconds.
    pub at: i64,
    /// The 32 digits it runs on; all zero before its first configuration.
    pub config_hash: String,
    /// The revision it runs on; 0 if that is not known.
    pub revision: u64,
    /// Entities that it refused, as JSON objects.
    pub refused: Vec<serde_json::Value>,
    /// Whether it can take the configuration.
    pub sync_status: SyncStatus,
    /// Why not, in words.
    pub sync_detail: String,
    /// Last moment of its certificate, Unix seconds.
    pub cert_expires_at: i64,
}

/// A data plane as it was last seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// The last contact.
    pub seen: NodeSeen,
    /// The first contact, Unix seconds.
    pub created_at: i64,
}

impl Store {
    /// Stores contacts, the newest of each node, in one transaction.
    ///
    /// Nodes of control planes that are gone are left out. Not in the change log: it is what was
    /// seen, not what somebody wants.
    ///
    /// # Errors
    /// Only failures of the engine.
    pub async fn record_nodes(&self, seen: Vec<NodeSeen>) -> Result<(), StoreError> {
        self.engine
            .write(move |tx| Box::pin(sql::nodes::record(tx, seen)))
            .await
    }

    /// The data planes of a control plane, first seen first.
    ///
    /// # Errors
    /// [`StoreError::NoControlPlane`].
    pub async fn nodes(&self, cp: Uuid) -> Result<Vec<Node>, StoreError> {
        self.engine
            .read(move |tx| Box::pin(sql::nodes::list(tx, cp)))
            .await
    }

    /// The data planes of all control planes, by control plane.
    ///
    /// # Errors
    /// Only failures of the engine.
    pub async fn all_nodes(&self) -> Result<Vec<Node>, StoreError> {
        self.engine
            .read(move |tx| Box::pin(sql::nodes::all(tx)))
            .await
    }

    /// Forgets data planes, of all control planes, that were last seen before a Unix second; how
    /// many.
    ///
    /// # Errors
    /// Only failures of the engine.
    pub async fn purge_nodes(&self, before: i64) -> Result<u64, StoreError> {
        self.engine
            .write(move |tx| Box::pin(sql::nodes::purge(tx, before)))
            .await
    }

    /// Forgets a data plane; it comes back with its next contact.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::NoControlPlane`].
    pub async fn delete_node(&self, cp: Uuid, id: Uuid) -> Result<(), StoreError> {
        self.engine
            .write(move |tx| Box::pin(sql::nodes::delete(tx, cp, id)))
            .await
    }
}
