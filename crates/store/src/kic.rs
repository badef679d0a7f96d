//! What ingress controllers tell of themselves and of their gateways.

use serde_json::Value;
use uuid::Uuid;

use crate::{Store, StoreError, sql};

/// Nodes of one control plane that are kept.
pub const KIC_NODES_MAX: usize = 10_000;

/// A node as an ingress controller told it.
#[derive(Clone, Debug, PartialEq)]
pub struct KicNode {
    /// Chosen by the ingress controller.
    pub id: Uuid,
    /// Its fields, without id and times.
    pub body: Value,
    /// Unix seconds.
    pub created_at: i64,
    /// Unix seconds.
    pub updated_at: i64,
}

impl Store {
    /// Nodes of a control plane, in the order of their ids.
    ///
    /// # Errors
    /// [`StoreError::NoControlPlane`].
    pub async fn kic_nodes(&self, cp: Uuid) -> Result<Vec<KicNode>, StoreError> {
        self.engine
            .look(move |tx| Box::pin(sql::kic::list(tx, cp)))
            .await
    }

    /// Keeps a node, new or not; its creation stays. Not in the change log.
    ///
    /// # Errors
    /// [`StoreError::NoControlPlane`]; [`StoreError::UniqueTaken`] on `id` if there are
    /// [`KIC_NODES_MAX`] others.
    pub async fn put_kic_node(
        &self,
        cp: Uuid,
        id: Uuid,
        body: Value,
    ) -> Result<KicNode, StoreError> {
        self.engine
            .write(move |tx| Box::pin(sql::kic::put(tx, cp, id, body)))
            .await
    }

    /// Forgets a node. Again changes nothing.
    ///
    /// # Errors
    /// [`StoreError::NoControlPlane`].
    pub async fn delete_kic_node(&self, cp: Uuid, id: Uuid) -> Result<(), StoreError> {
        self.engine
            .write(move |tx| Box::pin(sql::kic::delete(tx, cp, id)))
            .await
    }
}
