//! Tokens by which a new data plane is let in once.

use uuid::Uuid;

use crate::{Actor, Certificate, NewCertificate, Store, StoreError, sql};

/// A token that was not used yet. Its text is known to its owner only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnrolmentToken {
    /// Identity.
    pub id: Uuid,
    /// Which control plane it lets into.
    pub control_plane: Uuid,
    /// For people.
    pub title: String,
    /// Unix seconds.
    pub created_at: i64,
    /// Last Unix second at which it can be used.
    pub expires_at: i64,
}

/// A token to keep.
#[derive(Clone, Debug)]
pub struct NewEnrolmentToken {
    /// SHA-256 of its text.
    pub digest: [u8; 32],
    /// For people.
    pub title: String,
    /// Last Unix second at which it can be used.
    pub expires_at: i64,
}

impl Store {
    /// Keeps a token.
    ///
    /// # Errors
    /// [`StoreError::NoControlPlane`].
    pub async fn create_enrolment_token(
        &self,
        cp: Uuid,
        new: NewEnrolmentToken,
    ) -> Result<EnrolmentToken, StoreError> {
        self.engine
            .write(move |tx| Box::pin(sql::enrolment::create(tx, cp, new)))
            .await
    }

    /// The tokens of a control plane that were not used yet, oldest first.
    ///
    /// # Errors
    /// [`StoreError::NoControlPlane`].
    pub async fn enrolment_tokens(&self, cp: Uuid) -> Result<Vec<EnrolmentToken>, StoreError> {
        self.engine
            .read(move |tx| Box::pin(sql::enrolment::list(tx, cp)))
            .await
    }

    /// The token with this digest, expired or not.
    ///
    /// # Errors
    /// Only failures of the engine.
    pub async fn enrolment_token(
        &self,
        digest: [u8; 32],
    ) -> Result<Option<EnrolmentToken>, StoreError> {
        self.engine
            .glance(move |tx| Box::pin(sql::enrolment::by_digest(tx, digest)))
            .await
    }

    /// Takes a token back.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::NoControlPlane`].
    pub async fn delete_enrolment_token(&self, cp: Uuid, id: Uuid) -> Result<(), StoreError> {
        self.engine
            .write(move |tx| Box::pin(sql::enrolment::delete(tx, cp, id)))
            .await
    }

    /// Uses a token up: it is gone, and the certificate is pinned to its control plane, both or
    /// neither.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if somebody was faster, or as [`Store::pin_certificate`].
    pub async fn enrol(
        &self,
        token: &EnrolmentToken,
        actor: &Actor,
        new: NewCertificate,
    ) -> Result<Certificate, StoreError> {
        let (cp, id, actor) = (token.control_plane, token.id, actor.clone());
        self.engine
            .write(move |tx| Box::pin(sql::enrolment::enrol(tx, cp, id, actor, new)))
            .await
    }
}
