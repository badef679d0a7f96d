//! Client certificates that are pinned to a control plane.

use uuid::Uuid;

use crate::{Actor, Store, StoreError, sql};

/// A certificate that data planes of a control plane may present.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Identity.
    pub id: Uuid,
    /// The control plane it is pinned to.
    pub control_plane: Uuid,
    /// The certificate in PEM.
    pub pem: String,
    /// SHA-256 of its DER form.
    pub digest: [u8; 32],
    /// Free text, empty when unset.
    pub title: String,
    /// Unix seconds.
    pub created_at: i64,
    /// Unix seconds.
    pub updated_at: i64,
}

/// A certificate to pin.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "as in Certificate")]
pub struct NewCertificate {
    pub pem: String,
    pub digest: [u8; 32],
    pub title: String,
}

impl Store {
    /// Pins a certificate to a control plane.
    ///
    /// # Errors
    /// [`StoreError::UniqueTaken`] on `cert` if it is pinned there already,
    /// [`StoreError::NoControlPlane`].
    pub async fn pin_certificate(
        &self,
        cp: Uuid,
        actor: &Actor,
        new: NewCertificate,
    ) -> Result<Certificate, StoreError> {
        let actor = actor.clone();
        self.engine
            .write(move |tx| Box::pin(sql::certificates::pin(tx, cp, actor, new)))
            .await
    }

    /// Makes the pin with this id what is given, whether it is there or not; with what is there
    /// already it changes nothing.
    ///
    /// # Errors
    /// [`StoreError::UniqueTaken`] on `cert` if another pin of the control plane has it, on `id` if
    /// the id is taken elsewhere; [`StoreError::NoControlPlane`].
    pub async fn put_certificate(
        &self,
        cp: Uuid,
        actor: &Actor,
        id: Uuid,
        new: NewCertificate,
    ) -> Result<Certificate, StoreError> {
        let actor = actor.clone();
        self.engine
            .write(move |tx| Box::pin(sql::certificates::put(tx, cp, actor, id, new)))
            .await
    }

    /// The certificates pinned to a control plane, oldest first.
    ///
    /// # Errors
    /// [`StoreError::NoControlPlane`].
    pub async fn certificates(&self, cp: Uuid) -> Result<Vec<Certificate>, StoreError> {
        self.engine
            .read(move |tx| Box::pin(sql::certificates::list(tx, cp)))
            .await
    }

    /// Wherever a certificate is pinned; a certificate may be pinned to several control planes.
    ///
    /// # Errors
    /// Only failures of the engine.
    pub async fn certificates_by_digest(
        &self,
        digest: [u8; 32],
    ) -> Result<Vec<Certificate>, StoreError> {
        self.engine
            .glance(move |tx| Box::pin(sql::certificates::by_digest(tx, digest)))
            .await
    }

    /// Ends a pin.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::NoControlPlane`].
    pub async fn unpin_certificate(
        &self,
        cp: Uuid,
        actor: &Actor,
        id: Uuid,
    ) -> Result<(), StoreError> {
        let actor = actor.clone();
        self.engine
            .write(move |tx| Box::pin(sql::certificates::unpin(tx, cp, actor, id)))
            .await
    }
}
