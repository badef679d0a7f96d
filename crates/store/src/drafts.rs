//! Drafts: a control plane branched, changed by anyone's tools, and promoted in one version.

use uuid::Uuid;

use crate::{Actor, Applied, ControlPlane, Difference, Store, StoreError, sql};

/// A draft of a control plane. It is a control plane itself, with an id under which its entities
/// are read and written; lists of control planes leave it out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    /// The draft as a control plane; its name is that of its origin, a slash, and its own.
    pub control_plane: ControlPlane,
    /// What it was branched from.
    pub origin: Uuid,
    /// The revision of the origin that it began as.
    pub base: u64,
}

impl Store {
    /// Branches a control plane at its newest revision.
    ///
    /// # Errors
    /// [`StoreError::NoControlPlane`], also for a draft; [`StoreError::UniqueTaken`] on `name`.
    pub async fn create_draft(
        &self,
        actor: &Actor,
        origin: Uuid,
        name: String,
        description: String,
    ) -> Result<Draft, StoreError> {
        let actor = actor.clone();
        self.engine
            .write(move |tx| Box::pin(sql::drafts::create(tx, actor, origin, name, description)))
            .await
    }

    /// Drafts of a control plane, or of all, oldest first.
    ///
    /// # Errors
    /// Only failures of the engine.
    pub async fn drafts(&self, origin: Option<Uuid>) -> Result<Vec<Draft>, StoreError> {
        self.engine
            .look(move |tx| Box::pin(sql::drafts::list(tx, origin)))
            .await
    }

    /// The draft with this id; `None` if there is none, or if it is no draft.
    ///
    /// # Errors
    /// Only failures of the engine.
    pub async fn draft(&self, id: Uuid) -> Result<Option<Draft>, StoreError> {
        self.engine
            .glance(move |tx| Box::pin(sql::drafts::get(tx, id)))
            .await
    }

    /// What a draft changes of the revision that it began as.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if it is no draft.
    pub async fn draft_changes(&self, id: Uuid) -> Result<Vec<Difference>, StoreError> {
        self.engine
            .read(move |tx| Box::pin(sql::drafts::changes(tx, id)))
            .await
    }

    /// Makes a draft's changes in its origin, as one revision, and removes the draft. What else
    /// changed there in the meantime stays.
    ///
    /// # Errors
    /// [`StoreError::Diverged`] if an entity was changed in both, differently; the errors of
    /// [`Store::apply`], [`StoreError::NotFound`] if it is no draft. Nothing has happened then.
    pub async fn promote_draft(
        &self,
        actor: &Actor,
        id: Uuid,
        expected: Option<u64>,
    ) -> Result<Applied, StoreError> {
        let actor = actor.clone();
        self.engine
            .write(move |tx| Box::pin(sql::drafts::promote(tx, actor, id, expected)))
            .await
    }
}
