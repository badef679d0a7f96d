//! Control planes: the tenants of the store.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{Actor, Store, StoreError, sql};

/// What connects to a control plane. Source: the `cluster_type` of the control-planes API.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names are the API's values")]
pub enum ClusterType {
    #[default]
    #[serde(rename = "CLUSTER_TYPE_CONTROL_PLANE")]
    ControlPlane,
    #[serde(rename = "CLUSTER_TYPE_K8S_INGRESS_CONTROLLER")]
    K8sIngressController,
    #[serde(rename = "CLUSTER_TYPE_CONTROL_PLANE_GROUP")]
    ControlPlaneGroup,
    #[serde(rename = "CLUSTER_TYPE_SERVERLESS")]
    Serverless,
    #[serde(rename = "CLUSTER_TYPE_SERVERLESS_V1")]
    ServerlessV1,
    #[serde(rename = "CLUSTER_TYPE_KAFKA_NATIVE_EVENT_PROXY")]
    KafkaNativeEventProxy,
}

/// How a data plane proves who it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuthType {
    /// Its certificate is one that was pinned to the control plane.
    #[default]
    PinnedClientCerts,
    /// Its certificate was issued by an authority of the control plane.
    PkiClientCerts,
}

/// An address under which the gateways of a control plane are reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProxyUrl {
    /// Host name or address, 1..=120 characters.
    pub host: String,
    /// Port, 1..=65535.
    pub port: u16,
    /// Protocol, 1..=32 characters.
    pub protocol: String,
}

/// A control plane as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlPlane {
    /// Identity.
    pub id: Uuid,
    /// Unique name.
    pub name: String,
    /// Free text, empty when unset.
    pub description: String,
    /// Free labels.
    pub labels: BTreeMap<String, String>,
    /// First label of its host names: ten lower-case hexadecimal digits, unique, never changes.
    pub prefix: String,
    /// What connects to it.
    pub cluster_type: ClusterType,
    /// How a data plane proves who it is.
    pub auth_type: AuthType,
    /// Whether its gateways are hosted by the operator.
    pub cloud_gateway: bool,
    /// Where its gateways are reached.
    pub proxy_urls: Vec<ProxyUrl>,
    /// Unix milliseconds.
    pub created_at_ms: i64,
    /// Unix milliseconds.
    pub updated_at_ms: i64,
}

/// What the caller decides about a new control plane; the store adds id, prefix and times.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "as in ControlPlane")]
pub struct NewControlPlane {
    pub name: String,
    pub description: String,
    pub labels: BTreeMap<String, String>,
    pub cluster_type: ClusterType,
    pub auth_type: AuthType,
    pub cloud_gateway: bool,
    pub proxy_urls: Vec<ProxyUrl>,
}

/// A partial change; what is `None` stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "as in ControlPlane")]
pub struct ControlPlaneUpdate {
    pub name: Option<String>,
    pub description: Option<String>,
    pub labels: Option<BTreeMap<String, String>>,
    pub auth_type: Option<AuthType>,
    pub proxy_urls: Option<Vec<ProxyUrl>>,
}

impl Store {
    /// Makes a control plane with a new id and prefix.
    ///
    /// # Errors
    /// [`StoreError::UniqueTaken`] on `name`.
    pub async fn create_control_plane(
        &self,
        actor: &Actor,
        new: NewControlPlane,
    ) -> Result<ControlPlane, StoreError> {
        let actor = actor.clone();
        self.engine
            .write(move |tx| Box::pin(sql::control_planes::create(tx, actor, new)))
            .await
    }

    /// Every control plane, oldest first.
    ///
    /// # Errors
    /// Only failures of the engine.
    pub async fn control_planes(&self) -> Result<Vec<ControlPlane>, StoreError> {
        self.engine
            .look(|tx| Box::pin(sql::control_planes::list(tx)))
            .await
    }

    /// One control plane by id.
    ///
    /// # Errors
    /// [`StoreError::NoControlPlane`] if there is none.
    pub async fn control_plane(&self, id: Uuid) -> Result<ControlPlane, StoreError> {
        let found = self
            .engine
            .glance(move |tx| Box::pin(sql::control_planes::get(tx, id)))
            .await?;
        found.ok_or(StoreError::NoControlPlane(id))
    }

    /// One control plane by the prefix of its host names; `None` if no control plane has it.
    ///
    /// # Errors
    /// Only failures of the engine.
    pub async fn control_plane_by_prefix(
        &self,
        prefix: &str,
    ) -> Result<Option<ControlPlane>, StoreError> {
        let prefix = prefix.to_ascii_lowercase();
        self.engine
            .glance(move |tx| Box::pin(sql::control_planes::by_prefix(tx, prefix)))
            .await
    }

    /// Changes some fields of a control plane and answers with the result.
    ///
    /// # Errors
    /// [`StoreError::NoControlPlane`], or [`StoreError::UniqueTaken`] on `name`.
    pub async fn update_control_plane(
        &self,
        actor: &Actor,
        id: Uuid,
        update: ControlPlaneUpdate,
    ) -> Result<ControlPlane, StoreError> {
        let actor = actor.clone();
        self.engine
            .write(move |tx| Box::pin(sql::control_planes::update(tx, actor, id, update)))
            .await
    }

    /// Removes a control plane with its entities, certificates and nodes; its change log stays.
    ///
    /// # Errors
    /// [`StoreError::NoControlPlane`] if there is none.
    pub async fn delete_control_plane(&self, actor: &Actor, id: Uuid) -> Result<(), StoreError> {
        let actor = actor.clone();
        self.engine
            .write(move |tx| Box::pin(sql::control_planes::delete(tx, actor, id)))
            .await
    }
}
