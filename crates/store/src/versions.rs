//! Past versions of a control plane, and changes of several entities at once.

use sallyport_model::Kind;
use serde_json::Value;
use uuid::Uuid;

use crate::{Actor, ListQuery, Page, Put, Snapshot, Store, StoreError, sql};

/// One write of several that make one change.
#[derive(Clone, Debug)]
pub enum Write {
    /// Creates or replaces an entity.
    Put(Put),
    /// Deletes an entity; nothing cascades, what refers to it has to go with it by name.
    Delete(Kind, Uuid),
}

/// The outcome of several writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Applied {
    /// How many entities were really changed; 0 leaves the revision as it was.
    pub count: usize,
    /// The revision of the control plane with them.
    pub revision: u64,
}

/// One version of a control plane's entities.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// Its number.
    pub revision: u64,
    /// When it was made, Unix milliseconds.
    pub at_ms: i64,
    /// Who made it.
    pub actor: String,
    /// How many entities differ from the version before.
    pub changes: u64,
}

/// An entity that is not the same in two versions.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// Its kind.
    pub kind: Kind,
    /// Its identity.
    pub id: Uuid,
    /// What it is in the first version; `None` if it is not there.
    pub before: Option<Value>,
    /// What it is in the second version; `None` if it is not there.
    pub after: Option<Value>,
}

/// The entities of a control plane at one version; see [`Store::at`].
#[derive(Clone, Debug)]
pub struct Past {
    store: Store,
    cp: Uuid,
    revision: u64,
}

impl Store {
    /// Applies several writes as one change of one revision, or none of them.
    ///
    /// Their order does not matter: an entity may refer to one that comes later. With `expected`
    /// the control plane must be at that revision.
    ///
    /// # Errors
    /// As [`Store::put`] and [`Store::delete`], and [`StoreError::Moved`],
    /// [`StoreError::WrittenTwice`].
    pub async fn apply(
        &self,
        cp: Uuid,
        actor: &Actor,
        expected: Option<u64>,
        writes: Vec<Write>,
    ) -> Result<Applied, StoreError> {
        let actor = actor.clone();
        self.engine
            .write(move |tx| Box::pin(sql::batch::apply(tx, cp, actor, expected, writes)))
            .await
    }

    /// The entities of a control plane as they were at a revision.
    ///
    /// Reads answer with [`StoreError::NoRevision`] if the control plane has not come that far.
    pub fn at(&self, cp: Uuid, revision: u64) -> Past {
        let store = self.clone();
        Past {
            store,
            cp,
            revision,
        }
    }

    /// The newest revision that stood at a moment, in Unix milliseconds; 0 before the first change.
    ///
    /// # Errors
    /// [`StoreError::NoControlPlane`].
    pub async fn revision_at(&self, cp: Uuid, at_ms: i64) -> Result<u64, StoreError> {
        self.engine
            .look(move |tx| Box::pin(sql::past::revision_at(tx, cp, at_ms)))
            .await
    }

    /// At most `limit` versions with a revision below `below`, newest first.
    ///
    /// # Errors
    /// [`StoreError::NoControlPlane`].
    pub async fn versions(
        &self,
        cp: Uuid,
        below: u64,
        limit: usize,
    ) -> Result<Vec<Version>, StoreError> {
        self.engine
            .read(move |tx| Box::pin(sql::past::versions(tx, cp, below, limit)))
            .await
    }

    /// What leads from one version to another, in the order of kinds and ids.
    ///
    /// # Errors
    /// [`StoreError::NoRevision`], [`StoreError::NoControlPlane`].
    pub async fn compare(
        &self,
        cp: Uuid,
        from: u64,
        to: u64,
    ) -> Result<Vec<Difference>, StoreError> {
        self.engine
            .read(move |tx| Box::pin(sql::restore::compare(tx, cp, from, to)))
            .await
    }

    /// Makes the entities what they were at `revision`, as one change and a new version; nothing is
    /// lost. With `expected` the control plane must be at that revision.
    ///
    /// # Errors
    /// [`StoreError::NoRevision`], [`StoreError::Moved`], [`StoreError::NoControlPlane`].
    pub async fn restore(
        &self,
        cp: Uuid,
        actor: &Actor,
        revision: u64,
        expected: Option<u64>,
    ) -> Result<Applied, StoreError> {
        let actor = actor.clone();
        self.engine
            .write(move |tx| Box::pin(sql::restore::restore(tx, cp, actor, revision, expected)))
            .await
    }
}

impl Past {
    /// As [`Store::get`], at this version.
    ///
    /// # Errors
    /// [`StoreError::NoRevision`], [`StoreError::NoControlPlane`].
    pub async fn get(&self, kind: Kind, id: Uuid) -> Result<Option<Value>, StoreError> {
        let (cp, revision) = (self.cp, self.revision);
        self.store
            .engine
            .read(move |tx| Box::pin(sql::past::get(tx, cp, revision, kind, id)))
            .await
    }

    /// As [`Store::find`], at this version; it reads all entities of the kind.
    ///
    /// # Errors
    /// [`StoreError::NoRevision`], [`StoreError::NoControlPlane`].
    pub async fn find(
        &self,
        kind: Kind,
        field: &str,
        value: &str,
    ) -> Result<Option<Value>, StoreError> {
        let (cp, revision) = (self.cp, self.revision);
        let (field, value) = (field.to_owned(), value.to_owned());
        self.store
            .engine
            .read(move |tx| Box::pin(sql::past::find(tx, cp, revision, kind, field, value)))
            .await
    }

    /// As [`Store::list`], at this version and in the order of `created_at` and id; it reads all
    /// entities of the kind.
    ///
    /// # Errors
    /// [`StoreError::BadOffset`], [`StoreError::NoRevision`], [`StoreError::NoControlPlane`].
    pub async fn list(&self, kind: Kind, query: ListQuery) -> Result<Page, StoreError> {
        let (cp, revision) = (self.cp, self.revision);
        self.store
            .engine
            .read(move |tx| Box::pin(sql::past::list(tx, cp, revision, kind, query)))
            .await
    }

    /// As [`Store::snapshot`], at this version and in the order of `created_at` and id.
    ///
    /// # Errors
    /// [`StoreError::NoRevision`], [`StoreError::NoControlPlane`].
    pub async fn snapshot(&self) -> Result<Snapshot, StoreError> {
        let (cp, revision) = (self.cp, self.revision);
        self.store
            .engine
            .read(move |tx| Box::pin(sql::past::snapshot(tx, cp, revision, None)))
            .await
    }
}
