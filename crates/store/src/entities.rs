//! Entities of a control plane's gateway configuration.

use std::collections::BTreeMap;

use sallyport_model::{Kind, schema};
use serde_json::Value;
use uuid::Uuid;

use crate::{Store, StoreError, sql};

/// Who made a change, as the change log shows it, such as `token:laptop`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor(pub String);

/// What happens to an entity when the one it refers to is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDelete {
    /// The deletion is refused.
    Restrict,
    /// It is deleted as well.
    Cascade,
}

/// A reference from an entity to another one of the same control plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// The field that refers, such as `service`.
    pub field: String,
    /// What it refers to.
    pub kind: Kind,
    /// Which one.
    pub id: Uuid,
    /// What happens when that one goes.
    pub on_delete: OnDelete,
}

/// Whether a put may replace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IfExists {
    /// An entity with the same id is replaced as a whole, except for its `created_at`.
    Replace,
    /// An entity with the same id is an error.
    Refuse,
}

/// An entity to store. The body was validated by the caller, who also says how to index it.
#[derive(Clone, Debug)]
pub struct Put {
    /// Its kind.
    pub kind: Kind,
    /// Its identity.
    pub id: Uuid,
    /// The entity as a JSON object with `id`, `created_at` and, where it has one, `updated_at`.
    pub body: Value,
    /// Fields that must be unique in the control plane, with this entity's values. Several fields
    /// that are unique together are one entry, their names joined by `,`.
    pub unique: Vec<(String, String)>,
    /// What it refers to.
    pub foreign: Vec<Reference>,
    /// Its tags.
    pub tags: Vec<String>,
    /// What to do about an entity with the same id.
    pub if_exists: IfExists,
}

impl Put {
    /// An entity that passed the schema, with what its kind's schema says of indexes; it replaces
    /// one with the same id.
    pub fn of(kind: Kind, id: Uuid, body: Value) -> Put {
        let index = schema::index(kind, &body);
        let unique = index.unique.into_iter();
        let foreign = index.foreign.into_iter();
        Put {
            kind,
            id,
            unique: unique
                .map(|(field, value)| (field.to_owned(), value))
                .collect(),
            foreign: foreign
                .map(|(field, kind, id, on_delete)| Reference {
                    field: field.to_owned(),
                    kind,
                    id,
                    on_delete: match on_delete {
                        schema::OnDelete::Restrict => OnDelete::Restrict,
                        schema::OnDelete::Cascade => OnDelete::Cascade,
                    },
                })
                .collect(),
            tags: index.tags,
            body,
            if_exists: IfExists::Replace,
        }
    }
}

/// The outcome of a put.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    /// The entity as it is now.
    pub body: Value,
    /// Whether it is new.
    pub created: bool,
    /// Whether anything was written; a put that changes nothing but `updated_at` writes nothing.
    pub changed: bool,
    /// The revision of the control plane that holds it.
    pub revision: u64,
}

/// The outcome of a deletion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deleted {
    /// How many entities went, dependents included.
    pub count: usize,
    /// The revision of the control plane without them.
    pub revision: u64,
}

/// Which tags an entity of a list must have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Tags {
    /// Any tags or none.
    #[default]
    Ignore,
    /// All of these.
    All(Vec<String>),
    /// At least one of these.
    Any(Vec<String>),
}

/// Which part of a collection to list.
#[derive(Clone, Debug)]
pub struct ListQuery {
    /// Entities per page, at least 1.
    pub size: usize,
    /// Where to go on: [`Page::next_offset`] of the page before.
    pub offset: Option<String>,
    /// Only entities with these tags.
    pub tags: Tags,
    /// Only entities whose field refers to this id.
    pub parent: Option<(String, Uuid)>,
    /// Only entities whose unique field holds this text somewhere, in any case.
    pub contains: Option<(String, String)>,
}

/// One page of a list, ordered by creation and then by id.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    /// The entities.
    pub items: Vec<Value>,
    /// Opaque; absent on the last page.
    pub next_offset: Option<String>,
}

/// Every entity of a control plane at one revision.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// The revision.
    pub revision: u64,
    /// Entities by kind, each list ordered by creation and then by id. Kinds without any are absent.
    pub entities: BTreeMap<Kind, Vec<Value>>,
}

/// One row of the change log.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// Revision of the control plane after the change.
    pub revision: u64,
    /// Who did it.
    pub actor: String,
    /// Unix milliseconds.
    pub at_ms: i64,
    /// `create`, `update` or `delete`.
    pub operation: String,
    /// What it was: a kind's table name, `control_plane`, `dp_certificate` or `token`.
    pub kind: String,
    /// Which one.
    pub id: String,
    /// The object before, if there was one.
    pub before: Option<Value>,
    /// The object after, if there is one.
    pub after: Option<Value>,
}

impl Store {
    /// Creates or replaces an entity in one transaction with its indexes and change log row.
    ///
    /// A replaced entity keeps its `created_at`. A put that is equal to what is stored apart from
    /// `updated_at` writes nothing.
    ///
    /// # Errors
    /// [`StoreError::UniqueTaken`] (on `id` with [`IfExists::Refuse`]),
    /// [`StoreError::ForeignMissing`], [`StoreError::NoControlPlane`].
    pub async fn put(&self, cp: Uuid, actor: &Actor, put: Put) -> Result<Stored, StoreError> {
        let actor = actor.clone();
        self.engine
            .write_to(cp, move |tx| {
                Box::pin(sql::entities::put(tx, cp, actor, put))
            })
            .await
    }

    /// Deletes an entity and everything that cascades from it, in one transaction.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], or [`StoreError::StillReferenced`] if an entity that would stay
    /// refers to one that would go.
    pub async fn delete(
        &self,
        cp: Uuid,
        actor: &Actor,
        kind: Kind,
        id: Uuid,
    ) -> Result<Deleted, StoreError> {
        let actor = actor.clone();
        self.engine
            .write_to(cp, move |tx| {
                Box::pin(sql::delete::delete(tx, cp, actor, kind, id))
            })
            .await
    }

    /// One entity by id; `None` if it is not there.
    ///
    /// # Errors
    /// [`StoreError::NoControlPlane`].
    pub async fn get(&self, cp: Uuid, kind: Kind, id: Uuid) -> Result<Option<Value>, StoreError> {
        self.engine
            .glance(move |tx| Box::pin(sql::entities::get(tx, cp, kind, id)))
            .await
    }

    /// One entity by the value of a unique field; `None` if it is not there.
    ///
    /// # Errors
    /// [`StoreError::NoControlPlane`].
    pub async fn find(
        &self,
        cp: Uuid,
        kind: Kind,
        field: &str,
        value: &str,
    ) -> Result<Option<Value>, StoreError> {
        let (field, value) = (field.to_owned(), value.to_owned());
        self.engine
            .glance(move |tx| Box::pin(sql::entities::find(tx, cp, kind, field, value)))
            .await
    }

    /// A page of the entities of one kind.
    ///
    /// # Errors
    /// [`StoreError::BadOffset`], [`StoreError::NoControlPlane`].
    pub async fn list(&self, cp: Uuid, kind: Kind, query: ListQuery) -> Result<Page, StoreError> {
        self.engine
            .read(move |tx| Box::pin(sql::list::list(tx, cp, kind, query)))
            .await
    }

    /// Every entity at one revision, read in one transaction.
    ///
    /// # Errors
    /// [`StoreError::NoControlPlane`].
    pub async fn snapshot(&self, cp: Uuid) -> Result<Snapshot, StoreError> {
        self.engine
            .read(move |tx| Box::pin(sql::list::snapshot(tx, cp)))
            .await
    }

    /// The revision of a control plane: 0 for a new one, one more for each change.
    ///
    /// # Errors
    /// [`StoreError::NoControlPlane`].
    pub async fn revision(&self, cp: Uuid) -> Result<u64, StoreError> {
        self.engine
            .glance(move |tx| Box::pin(sql::entities::revision(tx, cp)))
            .await
    }

    /// At most `limit` changes of a control plane with a revision above `after`, oldest first.
    ///
    /// Works for a deleted control plane too.
    ///
    /// # Errors
    /// Only failures of the engine.
    pub async fn changes(
        &self,
        cp: Uuid,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Change>, StoreError> {
        self.engine
            .read(move |tx| Box::pin(sql::change_log::since(tx, cp, after, limit)))
            .await
    }
}
